//! CHAP: who knows a secret shows it without saying it (RFC 7143 §12.1.3, RFC 1994).

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use sha3::Sha3_256;
use subtle::{Choice, ConstantTimeEq};

pub(super) use self::binary::{emit, parse};

mod binary;

/// Shortest secret: 96 bits (RFC 7143 §9.2.1).
const MIN_SECRET: usize = 12;
/// Longest secret and longest name (§6.1 for the name).
const MAX_LEN: usize = 255;
/// Shortest challenge of an initiator that is answered. One that is shorter could be collected in
/// advance.
const MIN_CHALLENGE: usize = 16;

/// A CHAP name and its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    name: String,
    secret: Vec<u8>,
}

/// Why a name and a secret are no credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCredential {
    /// The name is empty, longer than 255 bytes, or has characters that cannot be shown.
    #[error("a CHAP name has 1 to {MAX_LEN} bytes and no control characters")]
    Name,
    /// The secret is too short to withstand guessing.
    #[error("a CHAP secret has at least {MIN_SECRET} bytes (96 bits)")]
    Short,
    /// The secret is longer than initiators take.
    #[error("a CHAP secret has at most {MAX_LEN} bytes")]
    Long,
}

impl Credential {
    /// Takes a name, and a secret of 12 to 255 bytes (RFC 7143 §9.2.1 wants 96 bits at least).
    pub fn new(
        name: impl Into<String>,
        secret: impl Into<Vec<u8>>,
    ) -> Result<Self, InvalidCredential> {
        let (name, secret) = (name.into(), secret.into());
        if name.is_empty() || name.len() > MAX_LEN || name.contains(char::is_control) {
            return Err(InvalidCredential::Name);
        }
        match secret.len() {
            0..MIN_SECRET => Err(InvalidCredential::Short),
            MIN_SECRET..=MAX_LEN => Ok(Credential { name, secret }),
            _ => Err(InvalidCredential::Long),
        }
    }

    /// The name, CHAP_N.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether both have one secret, which would let one side answer with the other's answer
    /// (RFC 7143 §9.2.1).
    pub fn shares_secret_with(&self, other: &Credential) -> bool {
        self.secret.ct_eq(&other.secret).into()
    }

    /// CHAP_R for a challenge.
    pub(super) fn respond(&self, algorithm: Algorithm, id: u8, challenge: &[u8]) -> Vec<u8> {
        algorithm.respond(id, &self.secret, challenge)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the secret: this gets into logs.
        write!(f, "Credential({})", self.name)
    }
}

/// The hash of an exchange, CHAP_A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Md5,
    Sha1,
    Sha256,
    Sha3_256,
}

impl Algorithm {
    /// The first of an initiator's list that is known here (§6.2.1: the order is its preference).
    pub(super) fn choose(list: &str) -> Option<Self> {
        list.split(',').find_map(|number| {
            let all_digits = number.bytes().all(|byte| byte.is_ascii_digit());
            match number.parse::<u8>().ok().filter(|_| all_digits)? {
                5 => Some(Algorithm::Md5),
                6 => Some(Algorithm::Sha1),
                7 => Some(Algorithm::Sha256),
                8 => Some(Algorithm::Sha3_256),
                _ => None,
            }
        })
    }

    /// Its number (IANA, "PPP Authentication Algorithms").
    pub(super) fn number(self) -> u8 {
        match self {
            Algorithm::Md5 => 5,
            Algorithm::Sha1 => 6,
            Algorithm::Sha256 => 7,
            Algorithm::Sha3_256 => 8,
        }
    }

    /// Bytes of a response.
    pub(super) fn len(self) -> usize {
        match self {
            Algorithm::Md5 => 16,
            Algorithm::Sha1 => 20,
            Algorithm::Sha256 | Algorithm::Sha3_256 => 32,
        }
    }

    /// The hash over identifier, secret and challenge (RFC 1994 §4.1).
    fn respond(self, id: u8, secret: &[u8], challenge: &[u8]) -> Vec<u8> {
        fn hash<D: Digest>(id: u8, secret: &[u8], challenge: &[u8]) -> Vec<u8> {
            let hash = D::new().chain_update([id]).chain_update(secret);
            hash.chain_update(challenge).finalize().to_vec()
        }
        match self {
            Algorithm::Md5 => hash::<Md5>(id, secret, challenge),
            Algorithm::Sha1 => hash::<Sha1>(id, secret, challenge),
            Algorithm::Sha256 => hash::<Sha256>(id, secret, challenge),
            Algorithm::Sha3_256 => hash::<Sha3_256>(id, secret, challenge),
        }
    }
}

/// The challenges of a server that are waiting for their responses.
#[derive(Debug, Clone, Default)]
// A mutex around a set: it is held for one look or change, a few times a login.
pub(super) struct Challenges(Arc<Mutex<HashSet<Vec<u8>>>>);

/// A challenge that was sent. It is one of the [`Challenges`] until it is dropped.
#[derive(Debug)]
pub(super) struct Challenge {
    pub(super) algorithm: Algorithm,
    pub(super) id: u8,
    bytes: Vec<u8>,
    all: Challenges,
}

impl Challenges {
    /// Draws a new challenge, as long as the response. Nothing where the system has no randomness to
    /// give: a challenge that can be guessed proves nothing.
    pub(super) fn draw(&self, algorithm: Algorithm) -> Option<Challenge> {
        let mut id = [0];
        let mut bytes = vec![0; algorithm.len()];
        getrandom::fill(&mut id).ok()?;
        getrandom::fill(&mut bytes).ok()?;
        self.waiting().insert(bytes.clone());
        Some(Challenge {
            algorithm,
            id: id[0],
            bytes,
            all: self.clone(),
        })
    }

    /// Whether an initiator's challenge may be answered: it is long enough, and none of ours. Whoever
    /// sends ours back, on this connection or another, wants us to make its response
    /// (RFC 7143 §9.2.1).
    pub(super) fn permits(&self, challenge: &[u8]) -> bool {
        challenge.len() >= MIN_CHALLENGE && !self.waiting().contains(challenge)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashSet<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Challenge {
    /// CHAP_C.
    pub(super) fn text(&self) -> String {
        emit(&self.bytes)
    }

    /// Who has proved to know their secret, if anybody. A wrong name takes as long as a wrong secret:
    /// every credential is tried, and what differs is not looked at before the end.
    pub(super) fn verify<'a>(
        &self,
        credentials: impl IntoIterator<Item = &'a Credential>,
        name: &str,
        response: &[u8],
    ) -> Option<&'a Credential> {
        // Hashes of names, because comparing their bytes would tell their length.
        let given = Sha256::digest(name);
        let mut found = None;
        for credential in credentials {
            let expected = credential.respond(self.algorithm, self.id, &self.bytes);
            let named = Sha256::digest(&credential.name).ct_eq(&given);
            let proved: Choice = named & expected.ct_eq(response);
            if proved.into() {
                found = Some(credential);
            }
        }
        found
    }

    /// Whether a response is what `credential` would have answered to this challenge. If it is this
    /// side's own, the initiator has it from us (RFC 7143 §9.2.1).
    pub(super) fn is_answered_by(&self, credential: &Credential, response: &[u8]) -> bool {
        let own = credential.respond(self.algorithm, self.id, &self.bytes);
        own.ct_eq(response).into()
    }
}

impl Drop for Challenge {
    fn drop(&mut self) {
        self.all.waiting().remove(&self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(name: &str, secret: &str) -> Credential {
        Credential::new(name, secret).unwrap()
    }

    #[test]
    fn responses_are_what_others_calculate() {
        // printf '\1secretsecret\xde\xad\xbe\xef' | md5sum, sha1sum, sha256sum, openssl dgst -sha3-256
        for (algorithm, expected) in [
            (Algorithm::Md5, "0x113a578a5e83443d8b27feb98e8ddb59"),
            (
                Algorithm::Sha1,
                "0xa25afd5229a15efe422aff32331f906c11b819f9",
            ),
            (
                Algorithm::Sha256,
                "0x23b10530e8dbf37c457ce5ea0e71a9336f268ab56c932f286e2d3d3023cba298",
            ),
            (
                Algorithm::Sha3_256,
                "0xa0a6ebdf24b565033394a0e56c86d58f748ae36865cec11f8e62949c24b08041",
            ),
        ] {
            let response =
                credential("a", "secretsecret").respond(algorithm, 1, &[0xde, 0xad, 0xbe, 0xef]);
            assert_eq!(response.len(), algorithm.len());
            assert_eq!(emit(&response), expected);
        }
    }

    #[test]
    fn the_first_known_algorithm_of_a_list_is_taken() {
        for (list, expected) in [
            ("5", Some(5)),
            ("7,5", Some(7)),
            ("9,8,5", Some(8)),
            ("6,7", Some(6)),
            ("05", Some(5)),
            ("", None),
            ("9", None),
            ("+5", None),
            ("-5", None),
            ("MD5", None),
            ("261", None),
            (" 5", None),
            (",,", None),
        ] {
            assert_eq!(
                Algorithm::choose(list).map(Algorithm::number),
                expected,
                "{list:?}"
            );
        }
    }

    #[test]
    fn a_credential_has_a_name_and_96_bits() {
        for (name, secret, error) in [
            ("", "twelve bytes", InvalidCredential::Name),
            ("a\0b", "twelve bytes", InvalidCredential::Name),
            (
                &"n".repeat(256)[..],
                "twelve bytes",
                InvalidCredential::Name,
            ),
            ("a", "", InvalidCredential::Short),
            ("a", "eleven byte", InvalidCredential::Short),
            ("a", &"s".repeat(256)[..], InvalidCredential::Long),
        ] {
            assert_eq!(Credential::new(name, secret), Err(error));
        }
        let good = credential("a", "twelve bytes");
        assert!(
            !format!("{good:?}").contains("twelve"),
            "secrets stay out of logs"
        );
    }

    #[test]
    fn challenges_differ_and_are_known_while_they_wait() {
        let all = Challenges::default();
        let (one, two) = (
            all.draw(Algorithm::Md5).unwrap(),
            all.draw(Algorithm::Sha256).unwrap(),
        );
        assert_eq!((one.bytes.len(), two.bytes.len()), (16, 32));
        assert_ne!(one.bytes, two.bytes[..16]);
        assert!(!all.permits(&one.bytes) && !all.permits(&two.bytes));
        assert!(all.permits(&[7; 16]));
        assert!(!all.permits(&[7; 15]), "too short");
        let bytes = one.bytes.clone();
        drop(one);
        assert!(all.permits(&bytes));
    }

    #[test]
    fn name_and_secret_must_belong_together() {
        let known = [
            credential("anna", "secret of anna"),
            credential("otto", "secret of otto"),
        ];
        let all = Challenges::default();
        for algorithm in [
            Algorithm::Md5,
            Algorithm::Sha1,
            Algorithm::Sha256,
            Algorithm::Sha3_256,
        ] {
            let challenge = all.draw(algorithm).unwrap();
            let answer = |i: usize| known[i].respond(algorithm, challenge.id, &challenge.bytes);
            let verify = |name: &str, response: &[u8]| {
                challenge
                    .verify(&known, name, response)
                    .map(Credential::name)
            };
            assert_eq!(verify("anna", &answer(0)), Some("anna"));
            assert_eq!(verify("otto", &answer(1)), Some("otto"));
            assert_eq!(verify("otto", &answer(0)), None);
            assert_eq!(verify("Anna", &answer(0)), None);
            assert_eq!(verify("", &answer(0)), None);
            assert_eq!(verify("anna", &answer(0)[1..]), None);
            assert_eq!(verify("anna", b""), None);
            assert_eq!(challenge.verify(&[], "anna", &answer(0)), None);
            // A response belongs to its challenge.
            let later = all.draw(algorithm).unwrap();
            assert_eq!(later.verify(&known, "anna", &answer(0)), None);
            assert!(challenge.is_answered_by(&known[0], &answer(0)));
        }
    }
}
