//! Bodies of API calls. Answers are the library's own results.

mod groups;
mod images;
mod rollouts;
mod volumes;

pub use groups::{EditGroupCall, ImportCall, RemoveGroupCall};
pub use images::EditImageCall;
pub use rollouts::{RolloutCall, StopRolloutCall, WakeCall};
pub use volumes::{
    AddVolumeCall, BlockSize, ChapCall, ChapEdit, EditVolumeCall, RemoveVolumeCall,
    ResizeVolumeCall, SnapshotVolumeCall,
};

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::Problem;
use crate::library::{
    self, Act, ClientName, ClientSelector, Done, Edit, GroupName, ImageName, KernelArg, Library,
    Lifetime, MacAddr, Mode, NewClient, Removing, Role, Settings, SettingsEdit, TokenName,
    UserName, VersionId, VersionSpec, When, object,
};

/// `POST /api/v1/clients`
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
// A `dry-run` that is misspelt must not be taken for none. Serde cannot refuse what it does not know
// beside a flattened value, so the client's fields stand here by themselves.
#[serde(deny_unknown_fields)]
pub struct AddCall {
    /// Its address.
    pub mac: MacAddr,
    /// Its name; made from the address if not given.
    pub name: Option<ClientName>,
    /// What it boots; what its groups say if it is left out.
    #[serde(default)]
    pub image: Option<VersionSpec>,
    /// What its disk is; what its groups say if it is left out, or else shared.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// Kernel arguments of its own.
    #[serde(default)]
    pub args: Vec<KernelArg>,
    /// The groups that it belongs to.
    #[serde(default)]
    pub groups: BTreeSet<GroupName>,
    /// What it is told besides.
    #[serde(default, deserialize_with = "object")]
    pub settings: Settings,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /api/v1/clients/{mac}/acts`
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
#[schema(example = json!({"clients": ["@lab"], "act": "reset", "when": "at-next-boot"}))]
pub struct ActsCall {
    /// On whom: addresses, names, groups.
    #[serde(deserialize_with = "some")]
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

/// `PATCH /api/v1/clients/{mac}`
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EditCall {
    /// Its name.
    pub name: Option<ClientName>,
    /// All kernel arguments of its own.
    pub args: Option<Vec<KernelArg>>,
    /// All its groups.
    pub groups: Option<BTreeSet<GroupName>>,
    /// All its further addresses.
    pub more_macs: Option<BTreeSet<MacAddr>>,
    /// Its own settings; null goes by its groups' and everybody's again.
    #[serde(deserialize_with = "object")]
    pub settings: SettingsEdit,
    /// Another machine-id and other SSH host keys from its next boot on.
    pub new_identity: bool,
    /// Only tell what would be done.
    pub dry_run: bool,
}

impl AddCall {
    /// The client that is asked for, with what its groups say where it says nothing.
    pub fn client(self, library: &Library) -> library::Result<NewClient> {
        let to = library.assignment_for(self.image, self.mode, &self.groups)?;
        Ok(NewClient {
            mac: self.mac,
            name: self.name,
            image: to.image,
            mode: to.mode,
            args: self.args,
            groups: self.groups,
            settings: self.settings,
        })
    }
}

impl EditCall {
    /// Asks for a change.
    pub fn of(edit: &Edit, dry_run: bool) -> Self {
        let Edit {
            name,
            args,
            groups,
            more_macs,
            settings,
            new_identity,
        } = edit.clone();
        EditCall {
            name,
            args,
            groups,
            more_macs,
            settings,
            new_identity,
            dry_run,
        }
    }

    /// The change that is asked for.
    pub fn edit(self) -> Edit {
        Edit {
            name: self.name,
            args: self.args,
            groups: self.groups,
            more_macs: self.more_macs,
            settings: self.settings,
            new_identity: self.new_identity,
        }
    }
}

/// `DELETE /api/v1/clients/{mac}`
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveCall {
    /// `force` cuts running clients off first.
    #[serde(default)]
    pub when: When,
    /// Its disks go at once, for ever: else they are kept for a while.
    #[serde(default)]
    pub purge: bool,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

impl RemoveCall {
    /// How the client is to be removed.
    pub(super) fn how(&self) -> Removing {
        Removing {
            when: self.when,
            purge: self.purge,
        }
    }
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
    #[serde(deserialize_with = "whole")]
    #[schema(value_type = u64, minimum = 1, maximum = 4_294_967_295_i64)]
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

/// `DELETE /api/v1/users/{name}` and `DELETE /api/v1/tokens/{name}`
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TakeCall {
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// `POST /api/v1/users/{name}/invite`
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InviteCall {
    /// Only tell whether it could be done.
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

/// An act on nobody is a mistake of whoever asks for it.
fn some<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let list = Vec::deserialize(deserializer)?;
    match list.is_empty() {
        true => Err(D::Error::custom("it is empty: name at least one")),
        false => Ok(list),
    }
}

/// A number of things. `3.0` is one as well: JSON knows no integers (RFC 8259 §6), and some languages
/// write all their numbers like that.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU32, D::Error> {
    let number = f64::deserialize(deserializer)?;
    let is_whole = number.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(&number);
    // Without a fraction and within bounds, nothing is lost.
    NonZeroU32::new(number as u32)
        .filter(|_| is_whole)
        .ok_or_else(|| D::Error::custom(format!("{number} is no number from 1 to {}", u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_whole_however_they_are_written() {
        let keep = |text: &str| {
            let call = format!("{{\"keep\":{text}}}");
            serde_json::from_str::<PruneCall>(&call).map(|call| call.keep.get())
        };
        for (text, number) in [
            ("1", 1),
            ("3.0", 3),
            ("2e3", 2000),
            ("4294967295", u32::MAX),
        ] {
            assert_eq!(keep(text).unwrap(), number);
        }
        for wrong in ["0", "-1", "1.5", "4294967296", "1e99", "\"3\"", "null"] {
            assert!(keep(wrong).is_err(), "{wrong}");
        }
    }
}
