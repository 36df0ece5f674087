//! Numbers and moments as people read them.

use std::borrow::Borrow;
use std::fmt;

use askama::filters::HtmlSafe;
use jiff::{Timestamp, Unit};

use crate::library::ClientState;

// Templates hand over references.

/// See [`Ago`].
pub(in crate::web) fn ago(at: &Timestamp) -> Ago {
    Ago(*at)
}

/// The exact moment, where no script changes what is read aloud.
pub(in crate::web) fn moment(at: &Timestamp) -> String {
    at.round(Unit::Second).unwrap_or(*at).to_string()
}

/// See [`Bytes`].
pub(in crate::web) fn bytes(amount: impl Borrow<u64>) -> Bytes {
    Bytes(*amount.borrow())
}

/// Bytes a second.
pub(in crate::web) fn rate(amount: impl Borrow<u64>) -> String {
    format!("{}/s", Bytes(*amount.borrow()))
}

/// What a client's state looks like.
pub(in crate::web) fn badge(state: impl Borrow<ClientState>) -> &'static str {
    match state.borrow() {
        ClientState::Up => "good",
        ClientState::Booting => "busy",
        ClientState::Lost => "warn",
        ClientState::Failed => "bad",
        ClientState::Off => "idle",
    }
}

pub(in crate::web) use crate::library::printable as told;

/// What a browser is, by what it calls itself: `Firefox 140 on Linux`. Each of them says that it is some of
/// the others, too, so the order counts. One that nobody knows is told as it is.
pub(in crate::web) fn browser(own: &str) -> String {
    const NAMES: [(&str, &str); 7] = [
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("CriOS/", "Chrome"),
        ("Version/", "Safari"),
    ];
    const SYSTEMS: [(&str, &str); 6] = [
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("Linux", "Linux"),
    ];
    let name = NAMES.iter().find_map(|(mark, name)| {
        let version = own.split_once(mark)?.1;
        let digits = version.find(|c: char| !c.is_ascii_digit());
        let version = version.get(..digits.unwrap_or(version.len()))?;
        Some(format!("{name} {version}"))
    });
    let system = SYSTEMS.iter().find(|(mark, _)| own.contains(mark));
    match (name, system) {
        (Some(name), Some((_, system))) => format!("{name} on {system}"),
        (Some(name), None) => name,
        (None, _) => told(own),
    }
}

/// A text as part of a URL's query (RFC 3986 §2.3).
pub(in crate::web) fn encoded(text: &str) -> String {
    let mut url = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                url.push(char::from(byte));
            }
            byte => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}

/// `a`, `a and b`, `a, b and c`; of many only how many there are.
pub(in crate::web) fn names(names: &[String], one: &str) -> String {
    match names {
        [] => format!("no {one}"),
        [name] => name.clone(),
        [most @ .., last] if names.len() <= 4 => format!("{} and {last}", most.join(", ")),
        many => count(many.len(), one),
    }
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

/// A name for an element that is told from others by a text.
pub(in crate::web) fn fingerprint(text: &str) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// `1 client`, `3 clients`.
pub(in crate::web) fn count(number: impl Borrow<usize>, one: &str) -> String {
    let number = *number.borrow();
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
    fn what_a_stranger_wrote_turns_nothing_around() {
        assert_eq!(
            told("a\u{202e}b\nc\u{2066}d"),
            "a\u{fffd}b\u{fffd}c\u{fffd}d"
        );
        assert_eq!(told("Grüße, שלום"), "Grüße, שלום");
        assert_eq!(encoded("a b&c=ü"), "a%20b%26c%3D%C3%BC");
    }

    #[test]
    fn browsers_are_known_by_what_they_call_themselves() {
        for (own, said) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
                "Firefox 140 on Linux",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/138.0.0.0 Safari/537.36 Edg/138.0.0.0",
                "Edge 138 on Windows",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 \
                 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
                "Safari 18 on iPhone",
            ),
            ("curl/8.14\u{202e}", "curl/8.14\u{fffd}"),
        ] {
            assert_eq!(browser(own), said);
        }
    }

    #[test]
    fn few_are_named_and_many_counted() {
        let some = |n: usize| (0..n).map(|i| format!("lab-{i}")).collect::<Vec<_>>();
        assert_eq!(names(&some(1), "client"), "lab-0");
        assert_eq!(names(&some(3), "client"), "lab-0, lab-1 and lab-2");
        assert_eq!(names(&some(9), "client"), "9 clients");
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
