//! What a comparison found out, as a page shows it: counted, searched, and cut where it is long.

mod reading;

use std::io;

use askama::Template;
use serde::Deserialize;

use super::text;

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

impl Report {
    /// Reads a report, which may have more than a hundred megabytes: no more of it is kept than is shown.
    /// `kept` are fields of the page's address.
    pub(super) fn read(
        json: impl io::Read,
        sought: Sought,
        kept: Vec<(&'static str, String)>,
        whole: String,
    ) -> serde_json::Result<Report> {
        let found = reading::found(json, &sought)?;
        let mut counts = found.counts();
        counts.retain(|(_, _, number)| *number > 0);
        Ok(Report {
            counts,
            packages: found.packages.map(|found| found.lines.part()),
            files: found.files.map(|found| found.lines.part()),
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
    fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    fn all(&self) -> usize {
        self.shown.len() + self.cut
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
