//! Text: `key=value` pairs, each ended by a NUL (RFC 7143 §6.1).

use super::Error;

/// Longest key, in bytes.
const MAX_KEY: usize = 63;
/// Longest value that anybody has a use for: CHAP's binary values (RFC 7143 §6.1).
const MAX_VALUE: usize = 8192;

/// Takes text apart.
pub fn pairs(text: &[u8]) -> Result<Vec<(&str, &str)>, Error> {
    text.split(|byte| *byte == 0)
        // Padding and the last NUL leave nothing between two NULs.
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let pair = std::str::from_utf8(pair).map_err(|_| Error::Illegal("text"))?;
            let (key, value) = pair.split_once('=').ok_or(Error::Illegal("pair"))?;
            if key.is_empty() || key.len() > MAX_KEY {
                return Err(Error::Illegal("length of a key"));
            }
            if value.len() > MAX_VALUE {
                return Err(Error::Illegal("length of a value"));
            }
            Ok((key, value))
        })
        .collect()
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
        let long = format!("{}=1", "k".repeat(64));
        for text in [&b"novalue\0"[..], b"=1\0", b"a=\xff\0", long.as_bytes()] {
            assert!(matches!(pairs(text), Err(Error::Illegal(_))), "{text:?}");
        }
    }
}
