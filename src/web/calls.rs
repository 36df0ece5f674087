//! Bodies of API calls. Answers are the library's own results.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Problem;
use crate::library::{
    Act, ClientSelector, Done, Edit, ImageName, Lifetime, MacAddr, NewClient, Role, TokenName,
    UserName, VersionId, When,
};

/// `POST /api/v1/clients`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AddCall {
    /// The client.
    #[serde(flatten)]
    pub client: NewClient,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /api/v1/clients/{client}/acts`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
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

/// `POST /api/v1/acts`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ActsCall {
    /// On whom: addresses, names, groups.
    #[schema(min_items = 1)]
    pub clients: Vec<ClientSelector>,
    /// What to do.
    pub act: Act,
    /// And when.
    #[serde(default)]
    pub when: When,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What became of an act on one of many clients.
#[derive(Debug, Serialize, ToSchema)]
pub struct Outcome {
    /// The client.
    pub mac: MacAddr,
    /// What was done, or would be.
    pub done: Option<Done>,
    /// Why it was refused.
    pub problem: Option<Problem>,
}

impl Outcome {
    /// It was done.
    pub(super) fn done(mac: MacAddr, done: Done) -> Self {
        Outcome {
            mac,
            done: Some(done),
            problem: None,
        }
    }

    /// It was refused.
    pub(super) fn refused(mac: MacAddr, problem: Problem) -> Self {
        Outcome {
            mac,
            done: None,
            problem: Some(problem),
        }
    }
}

/// `PATCH /api/v1/clients/{client}`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EditCall {
    /// What to change.
    #[serde(flatten)]
    pub edit: Edit,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// `DELETE /api/v1/clients/{client}`
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveCall {
    /// `force` cuts running clients off first.
    #[serde(default)]
    pub when: When,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// `DELETE /api/v1/images/{image}`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveImageCall {
    /// `force` cuts running clients off first.
    #[serde(default)]
    pub when: When,
    /// What somebody was shown and agreed to: refused where it takes more by now.
    #[serde(default)]
    pub shown: Option<Vec<VersionId>>,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /api/v1/images/{image}/rollback`; the image may name a version, as in `fc28@2`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackCall {
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /api/v1/prune`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PruneCall {
    /// Versions of this image only.
    #[serde(default)]
    pub image: Option<ImageName>,
    /// So many of the newest stay.
    #[schema(value_type = u32, minimum = 1)]
    pub keep: NonZeroU32,
    /// What somebody was shown and agreed to: refused where it takes more by now.
    #[serde(default)]
    pub shown: Option<Vec<VersionId>>,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /api/v1/users`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddUserCall {
    /// What they are called.
    pub name: UserName,
    /// What they may do.
    pub role: Role,
    /// Only tell whether it could be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// `PATCH /api/v1/users/{name}`
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleCall {
    /// What they may do from now on.
    pub role: Role,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// `DELETE /api/v1/users/{name}`
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TakeCall {
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /api/v1/tokens`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddTokenCall {
    /// What the program is called.
    pub name: TokenName,
    /// What it may do.
    pub role: Role,
    /// How long it holds: 30d, 12h or never; 90d if nothing is said.
    #[serde(default)]
    #[schema(default = "90d")]
    pub expires: Lifetime,
    /// Only tell whether it could be done.
    #[serde(default)]
    pub dry_run: bool,
}
