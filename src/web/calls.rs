//! Bodies of API calls. Answers are the library's own results.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::library::{Act, Edit, ImageName, NewClient, When};

/// `POST /api/v1/clients`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddCall {
    /// The client.
    #[serde(flatten)]
    pub client: NewClient,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /api/v1/clients/{client}/acts`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActCall {
    /// What to do.
    pub act: Act,
    /// And when.
    #[serde(default)]
    pub when: When,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// `PATCH /api/v1/clients/{client}`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EditCall {
    /// What to change.
    #[serde(flatten)]
    pub edit: Edit,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// `DELETE /api/v1/clients/{client}` and `DELETE /api/v1/images/{image}`
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveCall {
    /// `force` cuts running clients off first.
    #[serde(default)]
    pub when: When,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /api/v1/images/{image}/rollback`; the image may name a version, as in `fc28@2`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackCall {
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /api/v1/prune`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneCall {
    /// Versions of this image only.
    #[serde(default)]
    pub image: Option<ImageName>,
    /// So many of the newest stay.
    pub keep: NonZeroU32,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}
