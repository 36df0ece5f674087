//! Secrets of volumes: what initiators prove to know, and what the target proves with.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::VolumeName;
use crate::library::error::{Doing, Error, Result};
use crate::library::{Library, document};

/// RFC 7143 §9.2.1 wants 96 bits at least.
const LEAST: usize = 12;
/// Longer ones are taken by few initiators.
const MOST: usize = 255;

/// A CHAP name and its secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chap {
    /// CHAP_N.
    pub user: String,
    /// Never shown.
    pub secret: String,
}

impl std::fmt::Debug for Chap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chap({})", self.user)
    }
}

impl Chap {
    /// A name with what stands in the first line of a file or was typed.
    ///
    /// # Errors
    /// When either is too short or too long, or has characters that cannot be typed.
    pub fn new(user: &str, text: &str) -> Result<Self> {
        let secret = text.trim_end_matches(['\n', '\r']);
        let plain = |text: &str| !text.contains(char::is_control);
        if user.is_empty() || user.len() > MOST || !plain(user) {
            return Err(Error::Invalid(format!(
                "a CHAP name has 1 to {MOST} bytes and no control characters"
            )));
        }
        if !(LEAST..=MOST).contains(&secret.len()) || !plain(secret) {
            return Err(Error::Invalid(format!(
                "the secret of CHAP user {user} has to be one line of {LEAST} to {MOST} bytes: shorter \
                 ones can be guessed (RFC 7143 §9.2.1)"
            )));
        }
        Ok(Chap {
            user: user.to_owned(),
            secret: secret.to_owned(),
        })
    }
}

/// Both directions of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// What an initiator has to prove.
    pub chap: Option<Chap>,
    /// What the target proves, if the initiator asks it to.
    pub mutual: Option<Chap>,
}

impl Secrets {
    /// Refuses what would prove nothing.
    pub(super) fn check(&self) -> Result<()> {
        match (&self.chap, &self.mutual) {
            (None, Some(_)) => Err(Error::Invalid(
                "mutual CHAP needs CHAP: the target proves itself to who has proved himself (RFC 7143 \
                 §12.1.3)"
                    .to_owned(),
            )),
            (Some(ours), Some(theirs)) if ours.secret == theirs.secret => Err(Error::Invalid(
                "both directions of CHAP have the same secret, so that one could be answered with the \
                 other (RFC 7143 §9.2.1); choose another"
                    .to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

impl Library {
    /// The secrets of a volume; none where it has no CHAP.
    pub fn volume_secrets(&self, name: &VolumeName) -> Result<Secrets> {
        let path = self.secrets_of(name);
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| Error::Document { path, source })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Secrets::default()),
            Err(error) => Err(error).doing("reading", &path),
        }
    }

    /// The caller holds the write lock.
    pub(super) fn keep_secrets(&self, name: &VolumeName, secrets: &Secrets) -> Result<()> {
        let path = self.secrets_of(name);
        if *secrets == Secrets::default() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(error).doing("removing", &path)
                }
                _ => Ok(()),
            };
        }
        let text = serde_json::to_vec(secrets).map_err(|source| Error::Document {
            path: path.clone(),
            source,
        })?;
        document::replace(&path, &text, 0o600)
    }

    fn secrets_of(&self, name: &VolumeName) -> PathBuf {
        self.places().secrets().join(format!("volume-{name}.json"))
    }
}
