//! What two admins must not overwrite for each other.

use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::error::{Error, Result};

/// A document as its admins left it: another one whenever one of them changed something, and none for
/// what happens by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edition(String);

impl Edition {
    /// As somebody names it who has read the document.
    pub fn named(text: &str) -> Self {
        Edition(text.to_owned())
    }

    /// Hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// That of what admins may change. Two of one content are one edition.
    pub(super) fn of(left: &impl Serialize) -> Self {
        // Plain values: there is nothing in them that cannot be written.
        let text = serde_json::to_vec(left).unwrap_or_default();
        let hash = Sha256::digest(&text);
        Edition(hash.iter().take(12).map(|b| format!("{b:02x}")).collect())
    }

    /// Refuses whoever has read another edition of the `kind` of thing called `name`.
    pub(super) fn ensure(
        &self,
        wanted: Option<&Edition>,
        kind: &'static str,
        name: &impl fmt::Display,
    ) -> Result<()> {
        match wanted {
            Some(wanted) if wanted != self => Err(Error::Moved {
                kind,
                name: name.to_string(),
            }),
            _ => Ok(()),
        }
    }
}
