//! Binary values as text (RFC 7143 §6.1).

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Most bytes of a challenge or a response (§12.1.3).
const MAX: usize = 1024;

/// Some initiators leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads `0x…` or `0b…`, up to the 1,024 bytes that CHAP has a use for. Nothing is nothing: no value of
/// CHAP is empty.
pub(in crate::iscsi) fn parse(text: &str) -> Option<Vec<u8>> {
    let (kind, digits) = text.split_at_checked(2)?;
    let bytes = match kind {
        "0x" | "0X" if digits.len() <= 2 * MAX => hex(digits)?,
        // As long as its characters, so as not to decode what is too long anyway.
        "0b" | "0B" if digits.len() <= 2 * MAX => BASE64.decode(digits).ok()?,
        _ => return None,
    };
    (1..=MAX).contains(&bytes.len()).then_some(bytes)
}

/// Hexadecimal digits. Where their number is odd, the first byte has only its low half.
fn hex(digits: &str) -> Option<Vec<u8>> {
    let nibbles: Vec<u8> = digits
        .chars()
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    let (first, rest) = nibbles.split_at(nibbles.len() % 2);
    let pairs = rest.chunks(2).map(|pair| match pair {
        [high, low] => high << 4 | low,
        _ => 0,
    });
    Some(first.iter().copied().chain(pairs).collect())
}

/// Writes `0x…` in lower case: libiscsi reads nothing else.
pub(in crate::iscsi) fn emit(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    std::iter::once("0x".to_owned()).chain(digits).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_notations_are_read() {
        for (text, bytes) in [
            ("0x00", &[0][..]),
            ("0xdeadBEEF", &[0xde, 0xad, 0xbe, 0xef]),
            ("0XdeadBEEF", &[0xde, 0xad, 0xbe, 0xef]),
            ("0xabc", &[0x0a, 0xbc]),
            ("0x7", &[7]),
            ("0b3q2+7w==", &[0xde, 0xad, 0xbe, 0xef]),
            ("0B3q2+7w==", &[0xde, 0xad, 0xbe, 0xef]),
            ("0b3q2+7w", &[0xde, 0xad, 0xbe, 0xef]),
        ] {
            assert_eq!(parse(text).as_deref(), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_binary_value_is_nothing() {
        for text in [
            "",
            "0",
            "0x",
            "0b",
            "0b=",
            "12",
            "0xfg",
            "0x 1",
            "0x-1",
            "0b3q2+7",
            "0b3q2-7w==",
            "0b3q2+7x==",
            "0b3q=2",
            "deadbeef",
            "ü",
            "0ü",
            "xü",
            "0x０１",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_value_has_at_most_1024_bytes() {
        assert_eq!(
            parse(&format!("0x{}", "5a".repeat(1024))),
            Some(vec![0x5a; 1024])
        );
        assert_eq!(parse(&format!("0x{}", "5a".repeat(1025))), None);
        let base64 = |len: usize| format!("0b{}", BASE64.encode(vec![0x5a; len]));
        assert_eq!(parse(&base64(1024)), Some(vec![0x5a; 1024]));
        assert_eq!(parse(&base64(1025)), None);
        assert_eq!(parse(&base64(8000)), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes in prop::collection::vec(any::<u8>(), 1..=1024)) {
            let text = emit(&bytes);
            prop_assert!(!text.contains(char::is_uppercase));
            prop_assert_eq!(parse(&text), Some(bytes.clone()));
            let upper = format!("0x{}", text[2..].to_uppercase());
            prop_assert_eq!(parse(&upper), Some(bytes.clone()));
            let base64 = format!("0b{}", BASE64.encode(&bytes));
            prop_assert_eq!(parse(&base64), Some(bytes.clone()));
        }

        #[test]
        fn no_text_does_harm(text in "(0[xXbB])?\\PC{0,2100}") {
            if let Some(bytes) = parse(&text) {
                prop_assert!((1..=MAX).contains(&bytes.len()));
            }
        }
    }
}
