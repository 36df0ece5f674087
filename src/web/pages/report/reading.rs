//! A report as the worker wrote it, that of two versions or that of a preview with its changes inside,
//! taken in as it is read.

use std::fmt;
use std::io::{self, BufReader};
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{FileLine, MOST, PackageLine, Part, Sought};
use crate::web::pages::text::{self, Bytes};

/// What is found in a report, and looked for.
pub(super) struct Found<'a> {
    sought: &'a Sought,
    /// Nothing where one of both versions has no list of packages.
    pub packages: Option<Kinds<PackageLine>>,
    /// Nothing where a disk could not be looked into.
    pub files: Option<Kinds<FileLine>>,
}

/// Differences of files or of packages.
pub(super) struct Kinds<T> {
    /// How many there are of each, whatever is looked for.
    counts: Vec<(&'static str, &'static str, usize)>,
    pub lines: First<T>,
}

/// The first lines of many, by name.
pub(super) struct First<T> {
    lines: Vec<T>,
    all: usize,
}

/// Something with a name to be sorted by.
pub(super) trait Named {
    fn name(&self) -> &str;
}

#[derive(Deserialize)]
struct Entry {
    path: Path,
    kind: String,
    size: u64,
}

#[derive(Deserialize)]
struct Changed {
    path: Path,
    aspects: Vec<Aspect>,
}

/// A string, or bytes where it is none.
#[derive(Deserialize)]
#[serde(untagged)]
enum Path {
    Text(String),
    Bytes(Vec<u8>),
}

#[derive(Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
enum Aspect {
    Kind { from: String, to: String },
    Mode { from: String, to: String },
    Owner { from: (u32, u32), to: (u32, u32) },
    Content { from: u64, to: u64 },
    Target { from: Path, to: Path },
    Device { from: (u64, u64), to: (u64, u64) },
    Attributes { names: Vec<String> },
    Modified {},
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
}

#[derive(Deserialize)]
struct Moved {
    name: String,
    from: String,
    to: String,
}

/// Reads a report.
pub(super) fn found(json: impl io::Read, sought: &Sought) -> serde_json::Result<Found<'_>> {
    let mut found = Found {
        sought,
        packages: None,
        files: None,
    };
    let mut reader = serde_json::Deserializer::from_reader(BufReader::new(json));
    Whole(&mut found).deserialize(&mut reader)?;
    reader.end()?;
    Ok(found)
}

impl Found<'_> {
    pub(super) fn counts(&self) -> Vec<(&'static str, &'static str, usize)> {
        let packages = self.packages.iter().flat_map(|kinds| &kinds.counts);
        let files = self.files.iter().flat_map(|kinds| &kinds.counts);
        packages.chain(files).copied().collect()
    }
}

impl<T> Kinds<T> {
    fn new() -> Self {
        Kinds {
            counts: Vec::new(),
            lines: First {
                lines: Vec::new(),
                all: 0,
            },
        }
    }
}

impl<T: Named> First<T> {
    fn add(&mut self, line: T) {
        self.all += 1;
        self.lines.push(line);
        if self.lines.len() >= 2 * MOST {
            self.keep();
        }
    }

    fn keep(&mut self) {
        self.lines
            .sort_by(|one, other| one.name().cmp(other.name()));
        self.lines.truncate(MOST);
    }

    pub(super) fn part(mut self) -> Part<T> {
        self.keep();
        Part {
            cut: self.all - self.lines.len(),
            shown: self.lines,
        }
    }
}

impl Named for PackageLine {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for FileLine {
    fn name(&self) -> &str {
        &self.path
    }
}

/// The outermost object, or that of the changes within it.
struct Whole<'a, 'b>(&'a mut Found<'b>);

impl<'de> DeserializeSeed<'de> for Whole<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a report")
    }

    /// A disk that could not be looked into.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "changes" => map.next_value_seed(Whole(&mut *self.0))?,
                "files" => map.next_value_seed(Files(&mut *self.0))?,
                "packages" => map.next_value_seed(Packages(&mut *self.0))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

struct Files<'a, 'b>(&'a mut Found<'b>);

impl<'de> DeserializeSeed<'de> for Files<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Files<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("differences of files")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let sought = self.0.sought;
        let Kinds { counts, lines } = self.0.files.get_or_insert_with(Kinds::new);
        let mut line = |word, path: &Path, more: &dyn Fn() -> String| {
            let path = path.told();
            if sought.has(word, &path) {
                let more = more();
                lines.add(FileLine { path, word, more });
            }
        };
        while let Some(key) = map.next_key::<String>()? {
            let (what, count) = match key.as_str() {
                "added" => (
                    ("file", "added"),
                    map.next_value_seed(each(|entry: Entry| {
                        line("added", &entry.path, &|| entry.told());
                    }))?,
                ),
                "removed" => (
                    ("file", "removed"),
                    map.next_value_seed(each(|entry: Entry| {
                        line("removed", &entry.path, &|| entry.told());
                    }))?,
                ),
                "changed" => (
                    ("file", "changed"),
                    map.next_value_seed(each(|changed: Changed| {
                        line("changed", &changed.path, &|| changed.told());
                    }))?,
                ),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let (what, became) = what;
            counts.push((what, became, count));
        }
        Ok(())
    }
}

struct Packages<'a, 'b>(&'a mut Found<'b>);

impl<'de> DeserializeSeed<'de> for Packages<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Packages<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("differences of packages")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let sought = self.0.sought;
        let Kinds { counts, lines } = self.0.packages.get_or_insert_with(Kinds::new);
        let mut line = |kind: &str, word, name: &str, versions: &str| {
            if sought.has(kind, name) {
                let (name, versions) = (text::told(name), text::told(versions));
                lines.add(PackageLine {
                    name,
                    word,
                    versions,
                });
            }
        };
        while let Some(key) = map.next_key::<String>()? {
            let (what, count) = match key.as_str() {
                "added" => (
                    ("package", "added"),
                    map.next_value_seed(each(|one: Package| {
                        line("added", "added", &one.name, &one.version);
                    }))?,
                ),
                "removed" => (
                    ("package", "removed"),
                    map.next_value_seed(each(|one: Package| {
                        line("removed", "removed", &one.name, &one.version);
                    }))?,
                ),
                "upgraded" => (
                    ("package", "upgraded"),
                    map.next_value_seed(each(|moved: Moved| {
                        line("changed", "upgraded", &moved.name, &moved.versions());
                    }))?,
                ),
                "downgraded" => (
                    ("package", "downgraded"),
                    map.next_value_seed(each(|moved: Moved| {
                        line("changed", "downgraded", &moved.name, &moved.versions());
                    }))?,
                ),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let (what, became) = what;
            counts.push((what, became, count));
        }
        Ok(())
    }
}

/// The elements of an array, each given to a function and then forgotten; tells how many there were.
struct Each<T, F>(F, PhantomData<T>);

fn each<T, F: FnMut(T)>(with: F) -> Each<T, F> {
    Each(with, PhantomData)
}

impl<'de, T: Deserialize<'de>, F: FnMut(T)> DeserializeSeed<'de> for Each<T, F> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<usize, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T)> Visitor<'de> for Each<T, F> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<usize, A::Error> {
        let mut count = 0;
        while let Some(element) = list.next_element()? {
            count += 1;
            (self.0)(element);
        }
        Ok(count)
    }
}

impl Moved {
    fn versions(&self) -> String {
        format!("{} → {}", self.from, self.to)
    }
}

impl Changed {
    fn told(&self) -> String {
        let aspects = self.aspects.iter().map(Aspect::told);
        aspects.collect::<Vec<_>>().join(", ")
    }
}

impl Entry {
    fn told(&self) -> String {
        match self.kind.as_str() {
            "file" => Bytes(self.size).to_string(),
            other => text::told(other),
        }
    }
}

impl Path {
    /// As on a running system, with a slash before it.
    fn told(&self) -> String {
        text::told(&format!("/{}", self.bare()))
    }

    fn bare(&self) -> String {
        match self {
            Path::Text(text) => text.clone(),
            Path::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        }
    }
}

impl Aspect {
    fn told(&self) -> String {
        match self {
            Aspect::Kind { from, to } => format!("{from} → {to}"),
            Aspect::Mode { from, to } => format!("mode {from} → {to}"),
            Aspect::Owner { from, to } => {
                format!("owner {}:{} → {}:{}", from.0, from.1, to.0, to.1)
            }
            Aspect::Content { from, to } if from == to => {
                format!("other contents, {}", Bytes(*to))
            }
            Aspect::Content { from, to } => format!("{} → {}", Bytes(*from), Bytes(*to)),
            Aspect::Target { from, to } => {
                text::told(&format!("leads to {} → {}", from.bare(), to.bare()))
            }
            Aspect::Device { from, to } => {
                format!("device {}:{} → {}:{}", from.0, from.1, to.0, to.1)
            }
            Aspect::Attributes { names } => text::told(&format!("attributes {}", names.join(" "))),
            Aspect::Modified {} => "time".to_owned(),
        }
    }
}
