//! Numbers and moments as people read them.

use std::fmt;

use askama::filters::HtmlSafe;
use jiff::{Timestamp, Unit};

// Templates hand over references.

/// See [`Ago`].
pub(in crate::web) fn ago(at: &Timestamp) -> Ago {
    Ago(*at)
}

/// See [`Bytes`].
pub(in crate::web) fn bytes(amount: &u64) -> Bytes {
    Bytes(*amount)
}

/// A moment as `2 min ago`, with the exact one on hover. The script keeps it up to date.
#[derive(Debug, Clone, Copy)]
pub(in crate::web) struct Ago(pub Timestamp);

// It writes a tag around digits, words of its own and a time stamp: nothing that could be markup.
impl HtmlSafe for Ago {}

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = self.0.round(Unit::Second).unwrap_or(self.0);
        let seconds = Timestamp::now().duration_since(self.0).as_secs();
        write!(
            f,
            r#"<time datetime="{exact}" title="{exact}">{}</time>"#,
            in_words(seconds)
        )
    }
}

/// `just now`, `2 min ago`, `in 5 h`: the same words as in `app.js`.
fn in_words(seconds: i64) -> String {
    let (amount, unit) = match seconds.unsigned_abs() {
        0..10 => return "just now".to_owned(),
        s @ ..60 => (s, "s"),
        s @ ..3600 => (s / 60, "min"),
        s @ ..172_800 => (s / 3600, "h"),
        s => (s / 86_400, "days"),
    };
    match seconds < 0 {
        true => format!("in {amount} {unit}"),
        false => format!("{amount} {unit} ago"),
    }
}

/// An amount of bytes: `1.4 GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::web) struct Bytes(pub u64);

impl HtmlSafe for Bytes {}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut amount = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while amount >= 999.95 && unit + 1 < UNITS.len() {
            amount /= 1024.0;
            unit += 1;
        }
        let digits = usize::from(amount < 99.95);
        write!(f, "{amount:.digits$} {}", UNITS.get(unit).unwrap_or(&"PiB"))
    }
}

/// `1 client`, `3 clients`.
pub(in crate::web) fn count(number: usize, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {one}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_as_people_say_them() {
        for (seconds, said) in [
            (0, "just now"),
            (59, "59 s ago"),
            (61, "1 min ago"),
            (7200, "2 h ago"),
            (200_000, "2 days ago"),
            (-3600, "in 1 h"),
        ] {
            assert_eq!(in_words(seconds), said);
        }
    }

    #[test]
    fn amounts_have_three_digits() {
        for (bytes, said) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_500_000_000, "1.4 GiB"),
            (1 << 30, "1.0 GiB"),
            (200 << 20, "200 MiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), said);
        }
    }
}
