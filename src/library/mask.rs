//! Boot ids in what is shown to those who may only look.
//!
//! Whoever knows a whole id is let in as that boot, and with it to the client's disk. Without its code
//! it still tells one boot from another.

use super::boots::{CODE_DIGITS, SEQ_DIGITS};
use super::names::version_number;

/// What stands in place of a code.
const MASK: &str = "\u{2026}";

/// `text` without the codes of all boot ids in it.
pub fn mask_boot_ids(text: &str) -> String {
    let parts: Vec<&str> = text.split('-').collect();
    let masked = parts.iter().enumerate().map(|(at, part)| {
        let before = |back| at.checked_sub(back).and_then(|at| parts.get(at).copied());
        let version = before(1).filter(|text| version_number(text).is_some());
        let seq = before(2).and_then(|text| text.get(text.len().checked_sub(SEQ_DIGITS)?..));
        match (
            seq.filter(|seq| seq.bytes().all(is_hex)),
            version,
            part.split_at_checked(CODE_DIGITS),
        ) {
            (Some(_), Some(_), Some((code, rest))) if code.bytes().all(is_hex) => {
                format!("{MASK}{rest}")
            }
            _ => (*part).to_owned(),
        }
    });
    masked.collect::<Vec<_>>().join("-")
}

/// Masks a text that comes in pieces, wherever they are cut.
#[derive(Debug, Default)]
pub struct BootIdMask {
    /// The end of what came, as far as an id may go on in the next piece.
    held: Vec<u8>,
}

impl BootIdMask {
    /// What can be told after one more piece. Pieces that end like lines do hold nothing back.
    pub fn pass(&mut self, piece: &[u8]) -> Vec<u8> {
        let ends = piece.iter().rposition(|byte| !may_be_of_an_id(*byte));
        let Some((whole, open)) = ends.and_then(|at| piece.split_at_checked(at + 1)) else {
            self.held.extend_from_slice(piece);
            return Vec::new();
        };
        let before = std::mem::replace(&mut self.held, open.to_vec());
        masked(&[&before, whole].concat())
    }

    /// What was held back, when nothing more comes.
    pub fn rest(&mut self) -> Vec<u8> {
        masked(&std::mem::take(&mut self.held))
    }
}

/// The same for bytes that may be no text.
// An id lies within one run of bytes that it may be made of: only those are looked into.
pub fn masked(bytes: &[u8]) -> Vec<u8> {
    let mut told = Vec::with_capacity(bytes.len());
    for run in bytes.chunk_by(|one, next| may_be_of_an_id(*one) == may_be_of_an_id(*next)) {
        match std::str::from_utf8(run) {
            Ok(text) if run.contains(&b'-') => {
                told.extend_from_slice(mask_boot_ids(text).as_bytes())
            }
            _ => told.extend_from_slice(run),
        }
    }
    told
}

fn may_be_of_an_id(byte: u8) -> bool {
    is_hex(byte) || byte == b'-'
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0190a1b2c3d4-3-0123456789abcdef";
    const MASKED: &str = "0190a1b2c3d4-3-\u{2026}";

    #[test]
    fn only_the_code_is_taken_out() {
        for (text, shown) in [
            (ID.to_owned(), MASKED.to_owned()),
            (
                format!("{{\"boot\":\"{ID}\",\"n\":1}}"),
                format!("{{\"boot\":\"{MASKED}\",\"n\":1}}"),
            ),
            (
                format!("client-525400123456.{ID} and x{ID}y"),
                format!("client-525400123456.{MASKED} and x{MASKED}y"),
            ),
            (
                format!("{ID}-7-{}", &ID[15..]),
                format!("{MASKED}-7-\u{2026}"),
            ),
        ] {
            assert_eq!(mask_boot_ids(&text), shown);
            assert_eq!(masked(text.as_bytes()), shown.as_bytes());
        }
        for plain in [
            "",
            "client-525400123456 at 2026-11-20",
            "0190a1b2c3d4-03-0123456789abcdef",
            "190a1b2c3d4-3-0123456789abcdef",
            "0190a1b2c3d4-3-0123456789abcde",
            "----",
        ] {
            assert_eq!(mask_boot_ids(plain), plain);
        }
    }

    #[test]
    fn it_makes_no_difference_where_a_text_is_cut() {
        let text = format!("caf\u{e9} {ID}, \u{2026}{ID}\n\"{ID}\" deadbeef-1 {ID}");
        let whole = mask_boot_ids(&text);
        for size in 1..text.len() {
            let mut mask = BootIdMask::default();
            let mut told = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                told.extend(mask.pass(piece));
            }
            told.extend(mask.rest());
            assert_eq!(String::from_utf8(told).unwrap(), whole, "{size}");
        }
    }

    #[test]
    fn whole_lines_are_not_held_back() {
        let mut mask = BootIdMask::default();
        assert_eq!(mask.pass(b"data: abc-1\n\n"), b"data: abc-1\n\n");
        assert!(mask.rest().is_empty());
    }
}
