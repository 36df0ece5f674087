//! What makes a client this machine and no other, over all of its boots: its machine-id and its SSH host
//! keys. Drawn when they are needed first, kept for as long as the client is known.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, EcdsaCurve, HashAlg, LineEnding, PrivateKey};
use utoipa::ToSchema;

use super::error::{Error, Result};
use super::lock::WriteLock;
use super::{Library, MacAddr, document};

/// The kinds of host keys, by the names that sshd's files have. Those of RSA are left out: every client
/// since OpenSSH 5.7 (2011) knows the others.
const KINDS: &[(&str, Algorithm)] = &[
    ("ed25519", Algorithm::Ed25519),
    (
        "ecdsa",
        Algorithm::Ecdsa {
            curve: EcdsaCurve::NistP256,
        },
    ),
];

/// What a client is known by. It is a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// 32 hex digits (machine-id(5)).
    pub machine_id: String,
    /// Its SSH host keys.
    pub host_keys: Vec<HostKey>,
}

/// An SSH host key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKey {
    /// `ed25519` or `ecdsa`, as in the name of sshd's file.
    pub kind: String,
    /// The private key, in OpenSSH's format.
    pub private: String,
    /// The public one, in one line.
    pub public: String,
    /// The public one's hash, as `ssh` shows it.
    pub fingerprint: String,
}

/// What may be shown of a client's identity. Its machine-id is no secret among friends, and no business of
/// others (machine-id(5)).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct PublicIdentity {
    /// Its SSH host keys, each in one line as `known_hosts` has it behind the host's name.
    pub host_keys: Vec<String>,
    /// Their hashes, as `ssh` shows them.
    pub fingerprints: Vec<String>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.public().fmt(f)
    }
}

impl Identity {
    /// Draws a new one.
    fn drawn() -> Result<Self> {
        let mut id = [0; 16];
        getrandom::fill(&mut id)
            .map_err(std::io::Error::other)
            .map_err(|source| Error::Io {
                doing: "drawing a machine-id".to_owned(),
                source,
            })?;
        // A random UUID (RFC 9562 §5.4), as machine-id(5) wishes.
        id[6] = id[6] & 0x0f | 0x40;
        id[8] = id[8] & 0x3f | 0x80;
        let keys = KINDS.iter().map(|(kind, algorithm)| {
            HostKey::drawn(kind, algorithm.clone())
                .map_err(|error| Error::Invalid(format!("an SSH host key cannot be made: {error}")))
        });
        Ok(Identity {
            machine_id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
            host_keys: keys.collect::<Result<_>>()?,
        })
    }

    /// What may be shown of it.
    pub fn public(&self) -> PublicIdentity {
        let keys = || self.host_keys.iter();
        PublicIdentity {
            host_keys: keys().map(|key| key.public.clone()).collect(),
            fingerprints: keys()
                .map(|key| format!("{} ({})", key.fingerprint, key.kind))
                .collect(),
        }
    }
}

impl HostKey {
    fn drawn(kind: &str, algorithm: Algorithm) -> ssh_key::Result<Self> {
        let key = PrivateKey::random(&mut OsRng, algorithm)?;
        Ok(HostKey {
            kind: kind.to_owned(),
            private: key.to_openssh(LineEnding::LF)?.to_string(),
            public: key.public_key().to_openssh()?,
            fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
        })
    }
}

impl Library {
    /// The identity of a client, which is drawn where it has none yet.
    pub fn identity(&self, mac: &MacAddr) -> Result<Identity> {
        if let Some(known) = self.find_identity(mac)? {
            return Ok(known);
        }
        let lock = self.write_lock()?;
        // Another server may have been quicker, or the client be gone.
        match self.find_identity(mac)? {
            Some(known) => Ok(known),
            None => {
                self.client_to_change(&lock, mac)?;
                self.draw_identity(&lock, mac)
            }
        }
    }

    /// The identity of a client, if it has one already.
    pub fn find_identity(&self, mac: &MacAddr) -> Result<Option<Identity>> {
        document::read(&self.identity_file(mac))
    }

    /// Gives a client another identity, from its next boot on.
    pub(super) fn renew_identity(&self, lock: &WriteLock, mac: &MacAddr) -> Result<()> {
        self.draw_identity(lock, mac).map(|_| ())
    }

    /// Forgets it, with the client.
    pub(super) fn forget_identity(&self, lock: &WriteLock, mac: &MacAddr) -> Result<()> {
        document::remove(lock, &self.identity_file(mac))
    }

    fn draw_identity(&self, _: &WriteLock, mac: &MacAddr) -> Result<Identity> {
        let identity = Identity::drawn()?;
        let path = self.identity_file(mac);
        let text = serde_json::to_vec(&identity).map_err(|source| Error::Document {
            path: path.clone(),
            source,
        })?;
        document::replace(&path, &text, 0o600)?;
        Ok(identity)
    }

    fn identity_file(&self, mac: &MacAddr) -> PathBuf {
        let name = format!("identity-{}.json", mac.bare());
        self.places().secrets().join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_drawn_in_the_formats_of_its_readers() {
        let (one, other) = (Identity::drawn().unwrap(), Identity::drawn().unwrap());
        assert_eq!(one.machine_id.len(), 32);
        assert_eq!(one.machine_id.get(12..13), Some("4"));
        assert_ne!(one.machine_id, other.machine_id);
        for (key, others) in one.host_keys.iter().zip(&other.host_keys) {
            let private = PrivateKey::from_openssh(&key.private).unwrap();
            assert_eq!(private.public_key().to_openssh().unwrap(), key.public);
            assert!(
                key.fingerprint.starts_with("SHA256:"),
                "{}",
                key.fingerprint
            );
            assert_ne!(key.fingerprint, others.fingerprint);
        }
        let shown = format!("{one:?}");
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }
}
