//! What changed between two lists of packages.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::library::manifest::Package;

/// The differences of two lists, each part by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PackageChanges {
    /// Only in the second.
    pub added: Vec<Package>,
    /// Only in the first.
    pub removed: Vec<Package>,
    /// Of a later version in the second.
    pub upgraded: Vec<PackageChange>,
    /// Of an earlier version in the second.
    pub downgraded: Vec<PackageChange>,
}

/// A package of another version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackageChange {
    /// Its name.
    pub name: String,
    /// Its version in the first list.
    pub from: String,
    /// And in the second.
    pub to: String,
}

impl PackageChanges {
    /// Whether both lists are the same.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

pub(super) fn compare(old: &[Package], new: &[Package]) -> PackageChanges {
    let (old, new) = (by_name(old), by_name(new));
    let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
    let mut changes = PackageChanges::default();
    let nothing = BTreeSet::new();
    for name in names {
        let before = old.get(name).unwrap_or(&nothing);
        let after = new.get(name).unwrap_or(&nothing);
        // Several versions of one package may stand side by side, as kernels do.
        let gone: Vec<&str> = before.difference(after).copied().collect();
        let come: Vec<&str> = after.difference(before).copied().collect();
        if let ([from], [to]) = (gone.as_slice(), come.as_slice()) {
            let change = PackageChange {
                name: name.to_owned(),
                from: (*from).to_owned(),
                to: (*to).to_owned(),
            };
            match order(from, to) {
                Ordering::Greater => changes.downgraded.push(change),
                Ordering::Less | Ordering::Equal => changes.upgraded.push(change),
            }
            continue;
        }
        let package = |version: &&str| Package {
            name: name.to_owned(),
            version: (*version).to_owned(),
        };
        changes.removed.extend(gone.iter().map(package));
        changes.added.extend(come.iter().map(package));
    }
    changes
}

fn by_name(packages: &[Package]) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        all.entry(&package.name)
            .or_default()
            .insert(&package.version);
    }
    all
}

/// Which of two versions is the later one: deb-version(7), which agrees with rpm wherever versions
/// of one package are told apart by numbers, and with rpm's `^`. It only decides what a change is
/// called.
fn order(one: &str, other: &str) -> Ordering {
    let parts = |version: &str| {
        let (epoch, rest) = match version.split_once(':') {
            Some((epoch, rest)) => (epoch.parse::<u64>().unwrap_or(0), rest.to_owned()),
            None => (0, version.to_owned()),
        };
        match rest.rsplit_once('-') {
            Some((upstream, revision)) => (epoch, upstream.to_owned(), revision.to_owned()),
            None => (epoch, rest, String::new()),
        }
    };
    let (mine, theirs) = (parts(one), parts(other));
    let part = |one: &str, other: &str| order_part(one.as_bytes(), other.as_bytes());
    mine.0
        .cmp(&theirs.0)
        .then_with(|| part(&mine.1, &theirs.1))
        .then_with(|| part(&mine.2, &theirs.2))
}

/// Words and numbers in turn, words by [`weight`], numbers by their values.
fn order_part(mut one: &[u8], mut other: &[u8]) -> Ordering {
    while !one.is_empty() || !other.is_empty() {
        let (word, rest) = split(one, |byte| !byte.is_ascii_digit());
        let (other_word, other_rest) = split(other, |byte| !byte.is_ascii_digit());
        let length = word.len().max(other_word.len());
        let weights = |word: &[u8]| -> Vec<i32> {
            (0..length)
                .map(|at| weight(word.get(at).copied()))
                .collect()
        };
        let words = weights(word).cmp(&weights(other_word));
        let (number, rest) = split(rest, u8::is_ascii_digit);
        let (other_number, other_rest) = split(other_rest, u8::is_ascii_digit);
        let (_, number) = split(number, |byte| *byte == b'0');
        let (_, other_number) = split(other_number, |byte| *byte == b'0');
        let lengths = number.len().cmp(&other_number.len());
        let numbers = lengths.then_with(|| number.cmp(other_number));
        let here = words.then(numbers);
        if here != Ordering::Equal {
            return here;
        }
        (one, other) = (rest, other_rest);
    }
    Ordering::Equal
}

/// A tilde sorts before the end, letters before all other characters.
fn weight(byte: Option<u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(b'^') => 1,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(byte),
        Some(byte) => i32::from(byte) + 256,
    }
}

fn split(bytes: &[u8], belongs: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| !belongs(byte));
    bytes.split_at(end.unwrap_or(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_distributions_do() {
        let ordered = [
            "1.0~rc1-1",
            "1.0-1",
            "1.0-1+deb12u1",
            "1.0-1.1",
            "1.0^20260101-1",
            "1.0a-1",
            "1.0.1-1",
            "1.2-1.fc28.x86_64",
            "1.2-1.fc29.x86_64",
            "1.9-1",
            "1.10-1",
            "1:0.1-1",
        ];
        for pair in ordered.windows(2) {
            let [one, other] = pair else { unreachable!() };
            assert_eq!(order(one, other), Ordering::Less, "{one} {other}");
            assert_eq!(order(other, one), Ordering::Greater, "{other} {one}");
        }
        assert_eq!(order("1.00-1", "1.0-01"), Ordering::Equal);
    }

    #[test]
    fn each_package_is_told_once() {
        let list = |text: &str| -> Vec<Package> {
            text.split(' ')
                .map(|word| word.split_once('=').unwrap())
                .map(|(name, version)| Package {
                    name: name.into(),
                    version: version.into(),
                })
                .collect()
        };
        let changes = compare(
            &list("bash=5.1 gone=1 kernel=6.1 kernel=6.2 libc=2.36 libc=2.36 old=2"),
            &list("bash=5.2 kernel=6.2 kernel=6.3 kernel=6.4 libc=2.36 new=1 old=1"),
        );
        let names = |packages: &[Package]| -> Vec<String> {
            let each = packages.iter();
            each.map(|package| format!("{}={}", package.name, package.version))
                .collect()
        };
        assert_eq!(names(&changes.added), ["kernel=6.3", "kernel=6.4", "new=1"]);
        assert_eq!(names(&changes.removed), ["gone=1", "kernel=6.1"]);
        let told = |changes: &[PackageChange]| -> Vec<String> {
            let each = changes.iter();
            each.map(|change| format!("{} {} {}", change.name, change.from, change.to))
                .collect()
        };
        assert_eq!(told(&changes.upgraded), ["bash 5.1 5.2"]);
        assert_eq!(told(&changes.downgraded), ["old 2 1"]);
    }
}
