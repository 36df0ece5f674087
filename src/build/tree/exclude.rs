//! What of a tree is left out.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Patterns of paths below the tree's root; `*` and `?` match within one name.
#[derive(Debug, Clone, Default)]
pub struct Excludes(Vec<Vec<Vec<u8>>>);

impl Excludes {
    /// Leaves out one more path, or pattern.
    pub fn add(&mut self, pattern: impl AsRef<Path>) {
        self.0.extend(Self::new([pattern]).0);
    }

    /// Patterns such as `/var/cache/dnf` (with all below it) or `/root/.*_history`.
    pub fn new(patterns: impl IntoIterator<Item = impl AsRef<Path>>) -> Self {
        let names = |pattern: &Path| -> Vec<Vec<u8>> {
            let text = pattern.as_os_str().as_bytes();
            text.split(|&byte| byte == b'/')
                .filter(|name| !name.is_empty() && *name != b".")
                .map(<[u8]>::to_vec)
                .collect()
        };
        let patterns = patterns.into_iter().map(|pattern| names(pattern.as_ref()));
        Self(patterns.filter(|names| !names.is_empty()).collect())
    }

    /// Whether nothing is left out.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The patterns as extended regular expressions (POSIX) of paths without a leading slash, for
    /// programs that take such.
    pub(crate) fn expressions(&self) -> Vec<OsString> {
        let pattern = |names: &Vec<Vec<u8>>| {
            let names: Vec<Vec<u8>> = names.iter().map(|name| expression(name)).collect();
            let whole = [b"^", names.join(&b'/').as_slice(), b"$"].concat();
            OsString::from_vec(whole)
        };
        self.0.iter().map(pattern).collect()
    }

    /// Whether `path`, below the root, is left out. What lies below something left out is never
    /// asked for.
    pub(crate) fn leave_out(&self, path: &Path) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let names: Vec<&[u8]> = path.iter().map(OsStrExt::as_bytes).collect();
        self.0.iter().any(|pattern| {
            pattern.len() == names.len()
                && pattern
                    .iter()
                    .zip(&names)
                    .all(|(glob, name)| matches(glob, name))
        })
    }
}

/// Whether `name` matches `glob`, where `*` is any run of bytes and `?` any one.
fn matches(glob: &[u8], name: &[u8]) -> bool {
    match (glob.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            (0..=name.len()).any(|skip| matches(rest, name.get(skip..).unwrap_or_default()))
        }
        (Some((b'?', rest)), Some((_, tail))) => matches(rest, tail),
        (Some((expected, rest)), Some((found, tail))) => expected == found && matches(rest, tail),
        _ => false,
    }
}

/// What [`matches`] the names that `glob` does, as a regular expression.
fn expression(glob: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for &byte in glob {
        match byte {
            b'*' => text.extend(b"[^/]*"),
            b'?' => text.extend(b"[^/]"),
            // Within brackets, a caret would negate and a backslash is itself.
            b'^' => text.extend(b"\\^"),
            _ if byte.is_ascii_punctuation() => text.extend([b'[', byte, b']']),
            _ => text.push(byte),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_path_from_the_root() {
        let excludes = Excludes::new(["/var/cache/*", "tmp/?", "/root/.*_history/"]);
        let out = |path: &str| excludes.leave_out(Path::new(path));
        assert!(out("var/cache/dnf"));
        assert!(!out("var/cache"));
        assert!(!out("srv/var/cache/dnf"));
        assert!(out("tmp/x") && !out("tmp/xy"));
        assert!(out("root/.bash_history") && !out("root/bash_history"));
        assert!(!Excludes::new(["/"]).leave_out(Path::new("")));
        assert!(Excludes::new(["/"]).is_empty() && !excludes.is_empty());
    }

    #[test]
    fn a_pattern_can_be_told_as_an_expression() {
        let excludes = Excludes::new(["/var/cache/*", "/root/.?_history", "a^b]c"]);
        assert_eq!(
            excludes.expressions(),
            [
                "^var/cache/[^/]*$",
                "^root/[.][^/][_]history$",
                "^a\\^b[]]c$"
            ]
        );
    }
}
