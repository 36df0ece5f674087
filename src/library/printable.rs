//! Text from clients and other strangers, without what would change the text around it.

/// The same text with `�` in the place of control characters, which a terminal obeys, and of those that
/// turn the direction of writing (Unicode's `Bidi_Control`).
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match is_printable(c) {
            true => c,
            false => char::REPLACEMENT_CHARACTER,
        })
        .collect()
}

/// Whether a character stands for itself and changes nothing around it.
pub(crate) fn is_printable(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_or_turns_the_text_is_replaced() {
        assert_eq!(
            printable("a\x1b[31m\u{202e}b\nc\u{2066}d\u{61c}"),
            "a\u{fffd}[31m\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}"
        );
        assert_eq!(printable("schön"), "schön");
    }
}
