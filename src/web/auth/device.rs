//! Browsers that somebody has logged in with before. Each keeps a cookie that says so, and its tries are
//! counted apart: who guesses a name from elsewhere, or from the same address, keeps nobody out who was
//! in before. The cookie lets nobody in.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::library::{Error, Library};

/// The secret that cookies are signed with.
const SECRET: &str = "device.key";

/// Knows the cookies again.
pub(super) struct Devices {
    key: Vec<u8>,
}

impl Devices {
    /// Those of a library. Where its secret cannot be read or kept, they are known until the server
    /// ends.
    pub(super) fn of(library: &Library) -> Self {
        let key = library.kept_secret(SECRET, drawn).or_else(|error| {
            tracing::warn!("browsers are known until the server ends only: {error}");
            drawn()
        });
        // Without any, no cookie holds: everybody is a stranger.
        Devices {
            key: key.unwrap_or_default().into_bytes(),
        }
    }

    /// Which of the browsers of `name` this cookie is of.
    pub(super) fn known<'a>(&self, cookie: &'a str, name: &str) -> Option<&'a str> {
        let (id, signature) = cookie.split_once('.')?;
        let mut bytes = [0; 32];
        if self.key.is_empty() || !unhex(signature, &mut bytes) {
            return None;
        }
        self.signed(id, name)?.verify_slice(&bytes).ok()?;
        Some(id)
    }

    /// The cookie of another browser of `name`.
    pub(super) fn new_cookie(&self, name: &str) -> Option<String> {
        let mut id = [0; 8];
        getrandom::fill(&mut id).ok()?;
        let id = hex(&id);
        let signature = self.signed(&id, name)?.finalize().into_bytes();
        Some(format!("{id}.{}", hex(&signature)))
    }

    fn signed(&self, id: &str, name: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(id.as_bytes());
        mac.update(&[0]);
        mac.update(name.as_bytes());
        Some(mac)
    }
}

fn drawn() -> Result<String, Error> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)
        .map_err(|error| Error::Invalid(format!("the kernel gives no random bytes: {error}")))?;
    Ok(hex(&key))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str, bytes: &mut [u8; 32]) -> bool {
    text.len() == 2 * bytes.len()
        && text.is_ascii()
        && bytes.iter_mut().enumerate().all(|(at, byte)| {
            let digits = text.get(2 * at..2 * at + 2).unwrap_or_default();
            u8::from_str_radix(digits, 16)
                .map(|read| *byte = read)
                .is_ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_of_one_name_and_cannot_be_made_up() {
        let devices = Devices { key: vec![7; 32] };
        let cookie = devices.new_cookie("alice").unwrap();
        let id = devices.known(&cookie, "alice").unwrap();
        assert!(cookie.starts_with(id));
        assert_ne!(devices.new_cookie("alice").unwrap(), cookie);
        assert_eq!(devices.known(&cookie, "bob"), None);
        let other = Devices { key: vec![8; 32] };
        assert_eq!(other.known(&cookie, "alice"), None);
        let changed = cookie.replacen(id, "0123456789abcdef", 1);
        for bad in ["", ".", "a.b", id, &changed, &cookie[..cookie.len() - 1]] {
            assert_eq!(devices.known(bad, "alice"), None, "{bad}");
        }
        let none = Devices { key: Vec::new() };
        assert_eq!(none.known(&none.new_cookie("a").unwrap(), "a"), None);
    }
}
