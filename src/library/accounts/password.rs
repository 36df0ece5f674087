//! Passwords: argon2id (RFC 9106), each with a salt of its own.

use std::sync::LazyLock;

use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};

use crate::library::error::{Error, Result};

/// Fewer characters are too few.
const SHORTEST: usize = 10;

/// More bytes are no password that somebody typed.
const LONGEST: usize = 1024;

/// Takes as long to check as a user's, so that time does not tell who exists.
static NOBODYS: LazyLock<Option<String>> = LazyLock::new(|| hashed("nobody's password").ok());

/// What is kept of a password.
///
/// # Errors
/// When nobody should use it.
pub(super) fn hash(password: &str) -> Result<String> {
    if password.chars().count() < SHORTEST {
        return Err(Error::Invalid(format!(
            "a password needs {SHORTEST} characters or more; a few words that do not belong together \
             are easy to remember"
        )));
    }
    if password.len() > LONGEST {
        return Err(Error::Invalid(format!(
            "a password may have {LONGEST} bytes at most"
        )));
    }
    hashed(password)
}

/// Whether `password` is the one that `kept` was made of. It takes as long where nothing is kept.
pub(super) fn is(password: &str, kept: Option<&str>) -> bool {
    if password.len() > LONGEST {
        return false;
    }
    // Made before it is needed: else the first one without a password would take twice as long.
    let nobodys = LazyLock::force(&NOBODYS).as_deref();
    let Some(hash) = kept.or(nobodys) else {
        return false;
    };
    let Ok(hash) = PasswordHash::new(hash) else {
        return false;
    };
    let right =
        hasher().is_ok_and(|hasher| hasher.verify_password(password.as_bytes(), &hash).is_ok());
    right && kept.is_some()
}

fn hashed(password: &str) -> Result<String> {
    let failed = |why: String| Error::Io {
        doing: "hashing a password".to_owned(),
        source: std::io::Error::other(why),
    };
    let hash = hasher()
        .map_err(|error| failed(error.to_string()))?
        .hash_password(password.as_bytes())
        .map_err(|error| failed(error.to_string()))?;
    Ok(hash.to_string())
}

/// 46 MiB, one pass, one lane: the first of the settings that OWASP recommends.
fn hasher() -> std::result::Result<Argon2<'static>, argon2::Error> {
    let params = Params::new(47_104, 1, 1, None)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_by_its_hash() {
        let kept = hash("correct horse").unwrap();
        assert!(
            kept.starts_with("$argon2id$v=19$m=47104,t=1,p=1$"),
            "{kept}"
        );
        assert_ne!(kept, hash("correct horse").unwrap(), "each has its salt");
        assert!(is("correct horse", Some(&kept)));
        assert!(!is("correct house", Some(&kept)));
        assert!(!is("correct horse", Some("$argon2id$nonsense")));
    }

    #[test]
    fn what_nobody_should_use_is_no_password() {
        assert!(hash("ninechars").is_err());
        assert!(hash("zehn Wörter").is_ok());
        assert!(hash(&"x".repeat(LONGEST + 1)).is_err());
    }

    #[test]
    fn nobody_has_a_password() {
        assert!(!is("nobody's password", None));
        assert!(!is("", None));
    }
}
