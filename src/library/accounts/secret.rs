//! Secrets that are drawn, and what is kept of them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::library::error::{Error, Result};

/// 256 random bits, as 43 characters that survive a URL.
pub(super) fn drawn() -> Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(random::<32>()?))
}

/// Something that tells one from another, and is no secret: 12 hex digits.
pub(super) fn drawn_id() -> Result<String> {
    Ok(hex(&random::<6>()?))
}

/// What is kept of a drawn secret. It is as long as its hash, so nobody can try them all, and needs no
/// hash that is slow.
pub(super) fn hash(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

/// Whether `secret` is the one that `hash` was kept of, in a time that tells nothing.
pub(super) fn is(secret: &str, kept: &str) -> bool {
    hash(secret).as_bytes().ct_eq(kept.as_bytes()).into()
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Error::Io {
        doing: "asking the kernel for random bytes".to_owned(),
        source: std::io::Error::other(error),
    })?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_its_hash_and_is_not_in_it() {
        let (one, other) = (drawn().unwrap(), drawn().unwrap());
        assert_eq!(one.len(), 43);
        assert_ne!(one, other);
        assert!(is(&one, &hash(&one)) && !is(&other, &hash(&one)) && !is("", &hash(&one)));
        // FIPS 180-2, appendix B.1.
        assert!(hash("abc").starts_with("ba7816bf8f01cfea414140de5dae2223"));
    }
}
