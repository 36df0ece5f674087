//! The texts of `esp/` that a site may write anew: by the same names, in `esp/` of the library.
//!
//! A text has marks (`@BASE@`) for what only the server knows. What a site wrote is checked whenever it
//! is read; as long as there is something wrong with it, ours is taken, and the log says so.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::library::Library;

/// Bytes of a text: iPXE reads a script into memory that it has little of.
const LONGEST: u64 = 64 << 10;

/// A text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// What all clients begin with.
    Boot,
    /// What a machine gets that is nobody's client.
    Unknown,
    /// On to the machine's own disk.
    Local,
    /// The menu of a client's machine.
    Menu,
}

/// What is wrong with a text of a site.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// It is no text of this kind.
    #[error("{}:{line}: {why}", file.display())]
    Wrong {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong in it.
        why: String,
    },
    /// It cannot be read.
    #[error("reading {}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Text {
    /// All of them.
    pub const ALL: [Text; 4] = [Text::Boot, Text::Unknown, Text::Local, Text::Menu];

    /// Its file.
    pub fn file(self) -> &'static str {
        match self {
            Text::Boot => "boot.ipxe",
            Text::Unknown => "unknown.ipxe",
            Text::Local => "local.ipxe",
            Text::Menu => "menu.ipxe",
        }
    }

    /// The marks that may stand in it.
    pub fn marks(self) -> &'static [&'static str] {
        match self {
            Text::Boot => &["BASE", "TLS"],
            Text::Unknown => &["BASE", "MAC"],
            Text::Local => &[],
            Text::Menu => &["BASE", "NAME", "ITEMS", "DEFAULT", "TIMEOUT", "ACTIONS"],
        }
    }

    fn ours(self) -> &'static str {
        match self {
            Text::Boot => include_str!("../../esp/boot.ipxe"),
            Text::Unknown => include_str!("../../esp/unknown.ipxe"),
            Text::Local => include_str!("../../esp/local.ipxe"),
            Text::Menu => include_str!("../../esp/menu.ipxe"),
        }
    }

    /// What the site wrote in its place; nothing if it did not.
    ///
    /// # Errors
    /// When it cannot be read, or there is something wrong with it.
    pub fn of_site(self, library: &Library) -> Result<Option<String>, TextError> {
        let file = library.esp_dir().join(self.file());
        let text = match read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(TextError::Unreadable { file, source }),
        };
        match self.wrong_in(&text) {
            None => Ok(Some(text)),
            Some((line, why)) => Err(TextError::Wrong { file, line, why }),
        }
    }

    /// The text with the values of its marks: the site's, or else ours. The values come from who knows
    /// that nothing in them ends a line or is expanded.
    pub fn filled(self, library: &Library, values: &[(&str, &str)]) -> String {
        let theirs = self.of_site(library).unwrap_or_else(|error| {
            self.tell(&io::Error::other(error).to_string());
            None
        });
        let text = theirs.as_deref().unwrap_or(self.ours());
        let mut filled = String::with_capacity(text.len());
        // In one go: a value is never looked into.
        for part in parts(text) {
            let known = |mark| values.iter().find(|(name, _)| *name == mark);
            match part {
                Part::Plain(text) => filled.push_str(text),
                Part::Mark(mark) => filled.push_str(known(mark).map_or("", |(_, value)| value)),
            }
        }
        filled
    }

    /// Tells why ours is taken: once, and not everybody who asks for it.
    fn tell(self, why: &str) {
        // Held for a look or a change in memory; a text is told of by its path.
        static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        /// Mistakes that somebody makes while he writes his texts, and those of many libraries.
        const MANY: usize = 64;
        let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MANY {
            told.clear();
        }
        if told.insert(why.to_owned()) {
            tracing::error!("netroot's own {} is taken: {why}", self.file());
        }
    }

    /// The first line with something wrong, and what that is.
    fn wrong_in(self, text: &str) -> Option<(usize, String)> {
        if text.lines().next() != Some("#!ipxe") {
            let why = "it has to begin with a line `#!ipxe`, or iPXE does not take it for a script";
            return Some((1, why.to_owned()));
        }
        text.lines().enumerate().find_map(|(index, line)| {
            let unknown = parts(line).find_map(|part| match part {
                Part::Mark(mark) if !self.marks().contains(&mark) => Some(mark),
                _ => None,
            })?;
            let known: Vec<String> = self
                .marks()
                .iter()
                .map(|mark| format!("@{mark}@"))
                .collect();
            let known = match known.is_empty() {
                true => "there is none in this text".to_owned(),
                false => format!("in this text there are: {}", known.join(", ")),
            };
            Some((index + 1, format!("there is no mark @{unknown}@; {known}")))
        })
    }
}

fn read(file: &Path) -> io::Result<String> {
    // Asked before it is opened: to open a pipe would wait for ever.
    if !std::fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = String::new();
    File::open(file)?
        .take(LONGEST + 1)
        .read_to_string(&mut text)?;
    match text.len() as u64 > LONGEST {
        true => Err(io::Error::other(format!(
            "it has more than {LONGEST} bytes"
        ))),
        false => Ok(text),
    }
}

enum Part<'a> {
    Plain(&'a str),
    Mark(&'a str),
}

/// A text in its parts: marks are capital letters between two `@`, and everything else is as it stands.
fn parts(text: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(after) = rest.strip_prefix('@') else {
            let end = rest.find('@').unwrap_or(rest.len());
            let (plain, next) = rest.split_at(end);
            rest = next;
            return Some(Part::Plain(plain));
        };
        let is_mark = |mark: &str| !mark.is_empty() && mark.bytes().all(|b| b.is_ascii_uppercase());
        if let Some((mark, next)) = after.split_once('@').filter(|(mark, _)| is_mark(mark)) {
            rest = next;
            return Some(Part::Mark(mark));
        }
        rest = after;
        Some(Part::Plain("@"))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn all_of_ours_are_right_and_every_mark_is_filled() {
        let (_dir, library) = Library::temporary();
        for text in Text::ALL {
            assert_eq!(text.wrong_in(text.ours()), None);
            let values: Vec<(&str, &str)> =
                text.marks().iter().map(|mark| (*mark, "value")).collect();
            let filled = text.filled(&library, &values);
            assert!(!parts(&filled).any(|part| matches!(part, Part::Mark(_))));
        }
    }

    #[test]
    fn a_site_writes_its_own_and_mistakes_are_told_with_their_line() {
        let (_dir, library) = Library::temporary();
        let file = library.esp_dir().join("unknown.ipxe");
        fs::create_dir_all(library.esp_dir()).unwrap();
        let filled = || Text::Unknown.filled(&library, &[("MAC", "@BASE@"), ("BASE", "http://b")]);
        fs::write(
            &file,
            "#!ipxe\necho root@example.edu @MAC@ @ @BASE@ @base@\n",
        )
        .unwrap();
        assert_eq!(
            filled(),
            "#!ipxe\necho root@example.edu @BASE@ @ http://b @base@\n",
            "what a value says is not looked into"
        );
        let wrong = |text: &[u8]| {
            fs::write(&file, text).unwrap();
            assert!(filled().contains("is not known here"), "ours is taken");
            let error = Text::Unknown.of_site(&library).unwrap_err();
            format!("{:#}", anyhow::Error::from(error))
        };
        let told = wrong(b"#!ipxe\necho @MAC@\necho @SECRET@\n");
        assert!(
            told.ends_with(
                "unknown.ipxe:3: there is no mark @SECRET@; in this text there are: @BASE@, @MAC@"
            ),
            "{told}"
        );
        assert!(wrong(b"echo\n").contains(":1: it has to begin with a line `#!ipxe`"));
        let mut long = b"#!ipxe\n".to_vec();
        long.resize(65 << 10, b'#');
        assert!(wrong(&long).contains("more than 65536 bytes"));
        assert!(wrong(b"#!ipxe\n\xff").contains("reading "));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(Text::Unknown.of_site(&library).is_err());
    }
}
