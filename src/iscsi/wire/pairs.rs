//! Text: `key=value` pairs, each ended by a NUL (RFC 7143 §6.1).

use super::Error;

/// Longest key, in bytes.
const MAX_KEY: usize = 63;

/// Takes text apart.
pub fn pairs(text: &[u8]) -> Result<Vec<(&str, &str)>, Error> {
    text.split(|byte| *byte == 0)
        // Padding and the last NUL leave nothing between two NULs.
        .filter(|pair| !pair.is_empty())
        .map(pair)
        .collect()
}

fn pair(pair: &[u8]) -> Result<(&str, &str), Error> {
    let pair = std::str::from_utf8(pair).map_err(|_| Error::Illegal("text"))?;
    let (key, value) = pair.split_once('=').ok_or(Error::Illegal("pair"))?;
    // A capital letter, says the standard, and names one of its own keys iSCSIProtocolLevel.
    if key.len() > MAX_KEY || !key.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(Error::Illegal("key"));
    }
    let label = |c: char| c.is_ascii_alphanumeric() || "-+@_.".contains(c);
    // Private keys of RFC 3720 were X#name.
    if !key.chars().all(|c| label(c) || c == '#') {
        return Err(Error::Illegal("key"));
    }
    if value.chars().any(char::is_control) {
        return Err(Error::Illegal("value"));
    }
    Ok((key, value))
}

/// Pairs to be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pairs(Vec<u8>);

impl Pairs {
    /// Adds a pair.
    pub fn add(&mut self, key: &str, value: impl std::fmt::Display) {
        self.0.extend(format!("{key}={value}\0").into_bytes());
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_comes_apart_as_it_was_put_together() {
        let mut text = Pairs::default();
        text.add("InitiatorName", "iqn.a:b");
        text.add("Empty", "");
        text.add("SendTargets", "a=b");
        let bytes = text.into_bytes();
        let expected = vec![
            ("InitiatorName", "iqn.a:b"),
            ("Empty", ""),
            ("SendTargets", "a=b"),
        ];
        assert_eq!(pairs(&bytes).unwrap(), expected);
        // Some initiators leave the last NUL out, others add more.
        assert_eq!(pairs(&bytes[..bytes.len() - 1]).unwrap(), expected);
        assert_eq!(pairs(&[&bytes[..], &[0; 3]].concat()).unwrap(), expected);
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        let long = format!("{}=1", "K".repeat(64));
        for text in [
            &b"novalue\0"[..],
            b"=1\0",
            b"A=\xff\0",
            b"A=\x07\0",
            b"A=one\ntwo\0",
            b"A b=1\0",
            b"A/b=1\0",
            b"9A=1\0",
            b"-A=1\0",
            "Ä=1\0".as_bytes(),
            long.as_bytes(),
        ] {
            assert!(matches!(pairs(text), Err(Error::Illegal(_))), "{text:?}");
        }
        let longest = format!("{}=1", "K".repeat(63));
        assert!(pairs(longest.as_bytes()).is_ok());
        assert!(pairs("InitiatorAlias=Rüdiger\0".as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_taken_apart_or_refused(text: Vec<u8>) {
            let _ = pairs(&text);
        }

        #[test]
        fn any_pairs_come_back(
            all in prop::collection::vec(("[A-Za-z][A-Za-z0-9@_+.-]{0,62}", "\\PC{0,40}"), 0..12),
        ) {
            let mut text = Pairs::default();
            for (key, value) in &all {
                text.add(key, value);
            }
            let bytes = text.into_bytes();
            let expected: Vec<_> = all.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            prop_assert_eq!(pairs(&bytes).unwrap(), expected);
        }
    }
}
