//! What two admins must not overwrite for each other.

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Client;
use crate::library::error::{Error, Result};

/// A client as its admins left it: another one whenever one of them changed something. Boots come and
/// go without a new edition, so a form that was opened before a machine was switched on still counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edition(String);

impl Edition {
    /// As somebody names it who has read the client.
    pub fn named(text: &str) -> Self {
        Edition(text.to_owned())
    }

    /// Hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Client {
    /// Its edition.
    pub fn edition(&self) -> Edition {
        #[derive(Serialize)]
        struct Left<'a> {
            added: &'a jiff::Timestamp,
            name: &'a super::ClientName,
            more_macs: &'a std::collections::BTreeSet<super::MacAddr>,
            groups: &'a std::collections::BTreeSet<super::GroupName>,
            assignment: super::Assignment,
            args: &'a [super::KernelArg],
            clone: Option<&'a str>,
            armed: &'a Option<super::Armed>,
        }
        let left = Left {
            added: &self.added,
            name: &self.name,
            more_macs: &self.more_macs,
            groups: &self.groups,
            assignment: self.assignment(),
            args: &self.args,
            // An ephemeral one is made anew at each boot, which no admin did.
            clone: self
                .clone
                .as_ref()
                .filter(|_| self.mode == super::Mode::Persistent)
                .map(|clone| clone.id.as_str()),
            armed: &self.armed,
        };
        // Plain values: there is nothing in them that cannot be written.
        let text = serde_json::to_vec(&left).unwrap_or_default();
        let hash = Sha256::digest(&text);
        Edition(hash.iter().take(12).map(|b| format!("{b:02x}")).collect())
    }

    /// Refuses whoever has read another edition.
    pub(crate) fn ensure_edition(&self, wanted: Option<&Edition>) -> Result<()> {
        match wanted {
            Some(wanted) if *wanted != self.edition() => Err(Error::Moved {
                kind: "client",
                name: self.name.to_string(),
            }),
            _ => Ok(()),
        }
    }
}
