//! What a comparison found out, as a page shows it: counted, searched, and cut where it is long.

use askama::Template;
use serde::Deserialize;

use super::text::{self, Bytes};

/// What of a report somebody looks for, as the form has it. Whatever is empty is no condition.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Sought {
    /// Part of a package's name or of a path, in any case of letters.
    q: String,
    /// `added`, `removed` or `changed`.
    kind: String,
}

/// How two trees differ.
#[derive(Debug, Template)]
#[template(path = "report.html")]
pub(super) struct Report {
    /// How many there are of each kind, whatever is looked for.
    /// What there is, what became of it, and how many.
    counts: Vec<(&'static str, &'static str, usize)>,
    /// Nothing where one of both has no list of packages.
    packages: Option<Part<PackageLine>>,
    /// Nothing where a disk could not be looked into.
    files: Option<Part<FileLine>>,
    sought: Sought,
    /// Fields of the page's address that go with a search.
    kept: Vec<(&'static str, String)>,
    /// Where all of it is.
    whole: String,
}

/// One kind of differences: those that fit what is looked for.
#[derive(Debug)]
struct Part<T> {
    shown: Vec<T>,
    /// How many fit as well, and are not shown.
    cut: usize,
}

#[derive(Debug)]
struct PackageLine {
    name: String,
    word: &'static str,
    versions: String,
}

#[derive(Debug)]
struct FileLine {
    path: String,
    word: &'static str,
    more: String,
}

/// What may be chosen as a kind.
const KINDS: [(&str, &str); 4] = [
    ("", "all differences"),
    ("added", "what was added"),
    ("removed", "what was removed"),
    ("changed", "what was changed"),
];

/// A page does not show more lines of either part. All are in what the API gives.
const MOST: usize = 2000;

/// With fewer differences nobody needs to search.
const FEW: usize = 25;

/// The report as the worker wrote it: that of two versions, or that of a preview with its changes inside.
#[derive(Deserialize)]
struct Found {
    files: Option<Files>,
    packages: Option<Packages>,
    changes: Option<Changes>,
}

#[derive(Deserialize)]
struct Changes {
    files: Files,
    packages: Option<Packages>,
}

#[derive(Deserialize)]
struct Files {
    added: Vec<Entry>,
    removed: Vec<Entry>,
    changed: Vec<Changed>,
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
struct Packages {
    added: Vec<Package>,
    removed: Vec<Package>,
    upgraded: Vec<Moved>,
    downgraded: Vec<Moved>,
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

impl Report {
    /// Reads a report, which may have tens of megabytes. `kept` are fields of the page's address.
    pub(super) fn read(
        json: &[u8],
        sought: Sought,
        kept: Vec<(&'static str, String)>,
        whole: String,
    ) -> serde_json::Result<Report> {
        let found: Found = serde_json::from_slice(json)?;
        let (files, packages) = match found.changes {
            Some(changes) => (Some(changes.files), changes.packages),
            None => (found.files, found.packages),
        };
        let mut counts = packages.as_ref().map_or(Vec::new(), Packages::counts);
        counts.extend(files.as_ref().map_or(Vec::new(), Files::counts));
        counts.retain(|(_, _, number)| *number > 0);
        Ok(Report {
            counts,
            packages: packages.map(|packages| packages.lines(&sought)),
            files: files.map(|files| files.lines(&sought)),
            sought,
            kept,
            whole,
        })
    }

    fn is_long(&self) -> bool {
        let all: usize = self.counts.iter().map(|(_, _, number)| number).sum();
        all > FEW
    }

    /// Nothing that is looked for is in it, though it has something.
    fn finds_nothing(&self) -> bool {
        let packages = self.packages.as_ref().is_none_or(Part::is_empty);
        let files = self.files.as_ref().is_none_or(Part::is_empty);
        packages && files && !self.counts.is_empty()
    }
}

impl Sought {
    fn has(&self, kind: &str, name: &str) -> bool {
        let words = self.q.to_lowercase();
        let name = name.to_lowercase();
        (self.kind.is_empty() || self.kind == kind)
            && words.split_whitespace().all(|word| name.contains(word))
    }
}

impl<T> Part<T> {
    fn of(mut lines: Vec<T>) -> Self {
        let cut = lines.len().saturating_sub(MOST);
        lines.truncate(MOST);
        Part { shown: lines, cut }
    }

    fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    fn all(&self) -> usize {
        self.shown.len() + self.cut
    }
}

impl Packages {
    fn counts(&self) -> Vec<(&'static str, &'static str, usize)> {
        vec![
            ("package", "added", self.added.len()),
            ("package", "removed", self.removed.len()),
            ("package", "upgraded", self.upgraded.len()),
            ("package", "downgraded", self.downgraded.len()),
        ]
    }

    /// By name.
    fn lines(self, sought: &Sought) -> Part<PackageLine> {
        let mut lines = Vec::new();
        let mut line = |kind: &str, word, name: &str, versions: &str| {
            if sought.has(kind, name) {
                let (name, versions) = (text::told(name), text::told(versions));
                lines.push(PackageLine {
                    name,
                    word,
                    versions,
                });
            }
        };
        for one in &self.added {
            line("added", "added", &one.name, &one.version);
        }
        for one in &self.removed {
            line("removed", "removed", &one.name, &one.version);
        }
        for (moved, word) in [
            (&self.upgraded, "upgraded"),
            (&self.downgraded, "downgraded"),
        ] {
            for Moved { name, from, to } in moved {
                line("changed", word, name, &format!("{from} → {to}"));
            }
        }
        lines.sort_by(|one, other| one.name.cmp(&other.name));
        Part::of(lines)
    }
}

impl Files {
    fn counts(&self) -> Vec<(&'static str, &'static str, usize)> {
        vec![
            ("file", "added", self.added.len()),
            ("file", "removed", self.removed.len()),
            ("file", "changed", self.changed.len()),
        ]
    }

    /// By path.
    fn lines(self, sought: &Sought) -> Part<FileLine> {
        let mut lines = Vec::new();
        let mut line = |word, path: &Path, more: &dyn Fn() -> String| {
            let path = path.told();
            if sought.has(word, &path) {
                let more = more();
                lines.push(FileLine { path, word, more });
            }
        };
        for (entries, word) in [(&self.added, "added"), (&self.removed, "removed")] {
            for entry in entries {
                line(word, &entry.path, &|| entry.told());
            }
        }
        for changed in &self.changed {
            let told = || {
                let aspects = changed.aspects.iter().map(Aspect::told);
                aspects.collect::<Vec<_>>().join(", ")
            };
            line("changed", &changed.path, &told);
        }
        lines.sort_by(|one, other| one.path.cmp(&other.path));
        Part::of(lines)
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

#[cfg(test)]
mod tests {
    use super::*;

    const DIFF: &str = r#"{ "from": "fc28@1", "to": "fc28@2",
        "packages": { "added": [{ "name": "vim", "version": "9" }], "removed": [], "downgraded": [],
            "upgraded": [{ "name": "bash", "from": "5.1", "to": "5.2" }] },
        "files": {
            "added": [{ "path": "usr/bin/vim", "kind": "file", "size": 2048 }],
            "removed": [{ "path": [101, 255], "kind": "link", "size": 0 }],
            "changed": [{ "path": "etc/motd", "kind": "file", "aspects": [
                { "what": "content", "from": 1024, "to": 2048 },
                { "what": "mode", "from": "0644", "to": "0600" },
                { "what": "owner", "from": [0, 0], "to": [1, 2] },
                { "what": "modified", "from": "2026-11-20T00:00:00Z", "to": "2026-11-21T00:00:00Z" } ] }] } }"#;

    fn read(json: &str, q: &str, kind: &str) -> Report {
        let sought = Sought {
            q: q.into(),
            kind: kind.into(),
        };
        Report::read(json.as_bytes(), sought, Vec::new(), String::new()).unwrap()
    }

    fn names(report: &Report) -> Vec<&str> {
        let packages = report.packages.iter().flat_map(|part| &part.shown);
        let files = report.files.iter().flat_map(|part| &part.shown);
        let packages = packages.map(|line| line.name.as_str());
        packages
            .chain(files.map(|line| line.path.as_str()))
            .collect()
    }

    #[test]
    fn a_report_is_told_in_words() {
        let report = read(DIFF, "", "");
        let every = ["bash", "vim", "/etc/motd", "/e\u{fffd}", "/usr/bin/vim"];
        assert_eq!(names(&report), every);
        let files = report.files.as_ref().unwrap();
        assert_eq!(
            files.shown[0].more,
            "1.0 KiB → 2.0 KiB, mode 0644 → 0600, owner 0:0 → 1:2, time"
        );
        assert!(report.counts.contains(&("package", "upgraded", 1)));
        assert!(!report.is_long() && !report.finds_nothing());
    }

    #[test]
    fn a_report_is_searched() {
        assert_eq!(names(&read(DIFF, "VIM", "")), ["vim", "/usr/bin/vim"]);
        assert_eq!(names(&read(DIFF, "usr vim", "")), ["/usr/bin/vim"]);
        assert_eq!(names(&read(DIFF, "", "changed")), ["bash", "/etc/motd"]);
        assert!(read(DIFF, "emacs", "").finds_nothing());
    }

    #[test]
    fn a_preview_has_its_changes_inside() {
        let inside = DIFF.replacen("\"to\": \"fc28@2\",", "\"changes\": {", 1) + "}";
        assert_eq!(names(&read(&inside, "vim", "")), ["vim", "/usr/bin/vim"]);
        let blind = read(r#"{ "from": "fc28@1", "changes": null }"#, "", "");
        assert!(blind.files.is_none() && !blind.finds_nothing());
    }

    #[test]
    fn a_long_report_is_cut_and_says_so() {
        let one = r#"{ "path": "a", "kind": "file", "size": 1 }"#;
        let many = vec![one; MOST + 7].join(",");
        let json = format!(
            r#"{{ "packages": null, "files": {{ "removed": [], "changed": [], "added": [{many}] }} }}"#
        );
        let report = read(&json, "", "");
        let files = report.files.as_ref().unwrap();
        assert_eq!((files.shown.len(), files.cut), (MOST, 7));
        assert!(report.render().unwrap().contains("7 more"));
    }
}
