//! Bodies of calls about images.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::library::{ImageEdit, Way, said};

/// `PATCH /api/v1/images/{image}`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EditImageCall {
    /// How those get kernel and root disk who boot it, where neither they nor their groups say so; null
    /// goes by everybody's.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Way>)]
    pub way: Option<Option<Way>>,
    /// Only tell what would be done.
    pub dry_run: bool,
}

impl EditImageCall {
    /// Asks for a change.
    pub fn of(edit: &ImageEdit, dry_run: bool) -> Self {
        let ImageEdit { way } = *edit;
        EditImageCall { way, dry_run }
    }

    /// The change that is asked for.
    pub fn edit(self) -> ImageEdit {
        ImageEdit { way: self.way }
    }
}
