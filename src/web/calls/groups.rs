//! Bodies of calls about groups, and about tables of clients.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::library::{
    GroupEdit, Import, KernelArg, Known, Mode, SettingsEdit, VersionSpec, object, said,
};

/// `PATCH /api/v1/groups/{name}`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EditGroupCall {
    /// All kernel arguments of its members.
    pub args: Option<Vec<KernelArg>>,
    /// What clients boot that are added to it; null says nothing any more.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<VersionSpec>)]
    pub image: Option<Option<VersionSpec>>,
    /// What their disk is; null says nothing any more.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Mode>)]
    pub mode: Option<Option<Mode>>,
    /// What its members inherit; null goes by everybody's.
    #[serde(deserialize_with = "object")]
    pub settings: SettingsEdit,
    /// Only tell what would be done.
    pub dry_run: bool,
}

/// `DELETE /api/v1/groups/{name}`
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RemoveGroupCall {
    /// Only tell what would be done.
    pub dry_run: bool,
}

/// `POST /api/v1/import`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"csv": "name,mac,image\nlab-07,52:54:00:12:34:56,fc28\n"}))]
pub struct ImportCall {
    /// The table: its first line names the columns.
    pub csv: String,
    /// What becomes of clients that are there already.
    #[serde(default)]
    pub known: Known,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

impl EditGroupCall {
    /// Asks for a change.
    pub fn of(edit: &GroupEdit, dry_run: bool) -> Self {
        let GroupEdit {
            args,
            image,
            mode,
            settings,
        } = edit.clone();
        EditGroupCall {
            args,
            image,
            mode,
            settings,
            dry_run,
        }
    }

    /// The change that is asked for.
    pub fn edit(self) -> GroupEdit {
        GroupEdit {
            args: self.args,
            image: self.image,
            mode: self.mode,
            settings: self.settings,
        }
    }
}

impl ImportCall {
    /// Asks for an import.
    pub fn of(import: &Import, dry_run: bool) -> Self {
        let Import { csv, known } = import.clone();
        ImportCall {
            csv,
            known,
            dry_run,
        }
    }

    /// The import that is asked for.
    pub fn import(self) -> Import {
        Import {
            csv: self.csv,
            known: self.known,
        }
    }
}
