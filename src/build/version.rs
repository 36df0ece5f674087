//! Versions as people write them: which one is newer, and what kernel they mean.

use std::cmp::Ordering;
use std::fmt;

/// Major and minor number: what decides whether a kernel or a program knows a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Since(pub(crate) u32, pub(crate) u32);

/// The release of a kernel, such as `4.19.5-300.fc29.x86_64`: the name of its modules' directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelRelease {
    text: String,
    since: Since,
}

impl Since {
    /// The first word of `text` that begins with two numbers: `mke2fs 1.47.0 (5-Feb-2023)` is 1.47.
    pub(crate) fn find(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(|word| {
            let mut numbers = word.split(|c: char| !c.is_ascii_digit());
            Some(Self(
                numbers.next()?.parse().ok()?,
                numbers.next()?.parse().ok()?,
            ))
        })
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl KernelRelease {
    /// The release that `text` names, if it begins as one does, with two numbers.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-+~".contains(c);
        if !text.starts_with(|c: char| c.is_ascii_digit()) || !text.chars().all(plain) {
            return None;
        }
        Some(Self {
            text: text.to_owned(),
            since: Since::find(text)?,
        })
    }

    /// Its name.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it has what came with kernel `since`.
    pub(crate) fn knows(&self, since: Since) -> bool {
        self.since >= since
    }
}

impl Ord for KernelRelease {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.text, &other.text).then_with(|| self.text.cmp(&other.text))
    }
}

impl PartialOrd for KernelRelease {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for KernelRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Which version is older: runs of digits by their value, runs of letters by the alphabet, digits
/// after letters, and what goes on after what ends, except for `rc` and `~`, which come before a
/// release.
pub(crate) fn compare(one: &str, two: &str) -> Ordering {
    let (one, two) = (parts(one), parts(two));
    for at in 0.. {
        let order = match (one.get(at), two.get(at)) {
            (None, None) => return Ordering::Equal,
            (Some(part), None) => before_release(part).unwrap_or(Ordering::Greater),
            (None, Some(part)) => before_release(part).map_or(Ordering::Less, Ordering::reverse),
            (Some(a), Some(b)) => compare_parts(a, b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

fn before_release(part: &str) -> Option<Ordering> {
    (part == "rc" || part == "~").then_some(Ordering::Less)
}

fn compare_parts(one: &str, two: &str) -> Ordering {
    let is_number = |part: &str| part.starts_with(|c: char| c.is_ascii_digit());
    match (is_number(one), is_number(two)) {
        (true, true) => {
            let (one, two) = (one.trim_start_matches('0'), two.trim_start_matches('0'));
            one.len().cmp(&two.len()).then_with(|| one.cmp(two))
        }
        (true, false) => before_release(two).map_or(Ordering::Greater, Ordering::reverse),
        (false, true) => before_release(one).unwrap_or(Ordering::Less),
        (false, false) => match (before_release(one), before_release(two)) {
            (Some(order), None) => order,
            (None, Some(order)) => order.reverse(),
            _ => one.cmp(two),
        },
    }
}

/// Runs of digits, runs of letters, and each `~`; the rest only separates.
fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let same = |c: char| match first {
            '0'..='9' => c.is_ascii_digit(),
            _ => c.is_alphabetic() && first.is_alphabetic(),
        };
        let end = rest.find(|c| !same(c)).unwrap_or(rest.len());
        let end = end.max(first.len_utf8());
        let (part, tail) = rest.split_at(end);
        if first.is_alphanumeric() || first == '~' {
            parts.push(part);
        }
        rest = tail;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_value_not_by_letters() {
        let ordered = [
            "4.9",
            "4.19",
            "4.19.5-300.fc29.x86_64",
            "4.19.10-300.fc29.x86_64",
            "5.0.0-rc3",
            "5.0.0",
            "5.0.0-1",
            "6.1.0-9-amd64",
            "6.1.0-21-amd64",
            "6.10.0~rc1",
            "6.10.0",
            "18446744073709551616.1",
        ];
        for (at, one) in ordered.iter().enumerate() {
            for (later, two) in ordered.iter().enumerate() {
                assert_eq!(compare(one, two), at.cmp(&later), "{one} and {two}");
            }
        }
    }

    #[test]
    fn the_numbers_in_what_programs_say() {
        assert_eq!(Since::find("mkfs.xfs version 6.1.0"), Some(Since(6, 1)));
        assert_eq!(
            Since::find("mke2fs 1.47.0 (5-Feb-2023)"),
            Some(Since(1, 47))
        );
        assert_eq!(Since::find("unknown"), None);
        assert_eq!(Since::find("7"), None);
    }

    #[test]
    fn a_release_is_a_name_with_two_numbers_first() {
        let release = KernelRelease::parse("4.19.5-300.fc29.x86_64").unwrap();
        assert!(release.knows(Since(4, 19)) && !release.knows(Since(4, 20)));
        for wrong in ["", "extramodules", "4", "4.19/..", "4.x", "v4.19"] {
            assert_eq!(KernelRelease::parse(wrong), None, "{wrong}");
        }
    }
}
