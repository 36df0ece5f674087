//! Secrets of volumes: what initiators prove to know, and what the target proves with.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Volume, VolumeName};
use crate::library::error::{Doing, Error, Result};
use crate::library::{Library, document};

/// RFC 7143 §9.2.1 wants 96 bits at least.
const LEAST: usize = 12;
/// Longer ones are taken by few initiators.
const MOST: usize = 255;

/// Begins the names of files with secrets of volumes; the volume's id follows.
pub(super) const OF_VOLUMES: &str = "volume-";

/// How often secrets that are being changed are looked for.
const TRIES: u32 = 3;

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
    /// A name with what stands in the only line of a file, or was typed.
    ///
    /// # Errors
    /// When either is too short or too long, or has characters that cannot be typed.
    pub fn new(user: &str, text: &str) -> Result<Self> {
        let secret = text.trim_end_matches(['\n', '\r']);
        // What all initiators can be told to send: some know no other characters in a name.
        let typed = |c: char| c == ' ' || c.is_ascii_graphic();
        if user.is_empty() || user.len() > MOST || !user.chars().all(typed) {
            return Err(Error::Invalid(format!(
                "a CHAP name has 1 to {MOST} printable ASCII characters"
            )));
        }
        let plain = !secret.contains(char::is_control);
        if !(LEAST..=MOST).contains(&secret.chars().count()) || !plain {
            return Err(Error::Invalid(format!(
                "the secret of CHAP user {user} has to be one line of {LEAST} to {MOST} characters: \
                 shorter ones can be guessed (RFC 7143 §9.2.1)"
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
    pub(super) fn check(&self, what: &str) -> Result<()> {
        match (&self.chap, &self.mutual) {
            (None, Some(_)) => Err(Error::refused(
                what,
                "the target proves itself only to who has proved himself (RFC 7143 §12.1.3)",
                "say what initiators have to prove, too (CHAP)",
            )),
            (Some(ours), Some(theirs)) if ours.secret == theirs.secret => Err(Error::refused(
                what,
                "both directions of CHAP have the same secret, so that one could be answered with the \
                 other (RFC 7143 §9.2.1)",
                "choose another",
            )),
            _ => Ok(()),
        }
    }
}

impl Library {
    /// The secrets of a volume; none where it has no CHAP.
    pub fn volume_secrets(&self, name: &VolumeName) -> Result<Secrets> {
        // Somebody may change them between the document and the file that it names.
        for _ in 0..TRIES {
            let volume = self.volume(name)?;
            match self.secrets_of(&volume) {
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
                read => return read,
            }
        }
        self.secrets_of(&self.volume(name)?)
    }

    /// Those of the document that was read.
    pub(super) fn secrets_of(&self, volume: &Volume) -> Result<Secrets> {
        if volume.chap.is_none() {
            return Ok(Secrets::default());
        }
        // Without them nobody is let in: no file is not taken for no secrets.
        let path = self.secrets_file(volume);
        let bytes = fs::read(&path).doing("reading", &path)?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Document { path, source })
    }

    /// Keeps what a document that is written next will name. The caller holds the write lock.
    pub(super) fn keep_secrets(&self, volume: &Volume, secrets: &Secrets) -> Result<()> {
        if secrets.chap.is_none() {
            return Ok(());
        }
        let path = self.secrets_file(volume);
        let text = serde_json::to_vec(secrets).map_err(|source| Error::Document {
            path: path.clone(),
            source,
        })?;
        document::replace(&path, &text, 0o600)
    }

    /// Forgets what no document names any more. What cannot be removed now is swept later.
    pub(super) fn forget_secrets(&self, volume: &Volume) {
        let _ = fs::remove_file(self.secrets_file(volume));
    }

    /// A file for each change of the secrets: the document, which counts them, says which holds, so that
    /// whatever happens in between, names and secrets belong together.
    fn secrets_file(&self, volume: &Volume) -> PathBuf {
        let Volume { id, proofs, .. } = volume;
        let name = format!("{OF_VOLUMES}{id}-{proofs}.json");
        self.places().secrets().join(name)
    }
}
