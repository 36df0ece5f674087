//! What a person gives to be run inside of an image.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A command or a script for the inside of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// A program of the image, with its arguments.
    Command(Vec<OsString>),
    /// A line for the image's shell.
    Shell(String),
    /// A script on this host, which is put into the image for as long as it runs.
    File {
        /// Where it is.
        path: PathBuf,
        /// Its arguments.
        arguments: Vec<OsString>,
    },
}

/// Where an image has programs of its own.
const PROGRAMS: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/opt", "/etc"];

impl Script {
    /// What a person means by `words`: a script of this host with its arguments, if the first is a
    /// path from here (`./upgrade.sh`) or that of a script outside of the system's programs; a
    /// single word with blanks is a line for the shell; anything else a command of the image.
    pub fn from_words(words: &[OsString]) -> Self {
        if let Some((first, arguments)) = words.split_first() {
            let path = Path::new(first);
            if is_of_host(path) {
                return Self::File {
                    path: path.to_owned(),
                    arguments: arguments.to_vec(),
                };
            }
            let line = first.to_str().filter(|line| line.contains(' '));
            if let (Some(line), []) = (line, arguments) {
                return Self::Shell(line.to_owned());
            }
        }
        Self::Command(words.to_vec())
    }

    /// Refuses a script of this host that cannot be read.
    pub(super) fn ensure_there(&self) -> Result<()> {
        if let Self::File { path, .. } = self {
            File::open(path).with_context(|| format!("opening the script {}", path.display()))?;
        }
        Ok(())
    }

    /// What everybody may read of it afterwards: what was run, without arguments, which may be secrets.
    pub(super) fn named(&self) -> String {
        let program = match self {
            Self::Command(words) => words.first().map(|word| word.to_string_lossy()),
            Self::Shell(_) => Some("a command line".into()),
            Self::File { path, .. } => path.file_name().map(|name| name.to_string_lossy()),
        };
        program.unwrap_or_default().into_owned()
    }

    /// The command line inside of the image; a script of this host is called `placed` there.
    pub(super) fn command(&self, placed: &Path) -> Vec<OsString> {
        match self {
            Self::Command(words) => words.clone(),
            Self::Shell(line) => vec!["/bin/sh".into(), "-c".into(), line.into()],
            Self::File { arguments, .. } => [&[placed.into()], &arguments[..]].concat(),
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(words) => f.write_str(&joined(words)),
            Self::Shell(line) => f.write_str(line),
            Self::File { path, arguments } if arguments.is_empty() => path.display().fmt(f),
            Self::File { path, arguments } => {
                write!(f, "{} {}", path.display(), joined(arguments))
            }
        }
    }
}

fn joined(words: &[OsString]) -> String {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// Whether a command means a file of this host.
fn is_of_host(path: &Path) -> bool {
    if !path.is_absolute() {
        return path.starts_with("./") || path.starts_with("../") || {
            path.components().count() > 1 && starts_as_script(path)
        };
    }
    // `/usr/bin/dnf` is a script on this host, but means the image's own.
    !PROGRAMS.iter().any(|dir| path.starts_with(dir)) && starts_as_script(path)
}

fn starts_as_script(path: &Path) -> bool {
    let mut first = [0; 2];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut first));
    read.is_ok() && &first == b"#!"
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn words_are_a_script_a_line_or_a_command() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("upgrade.sh");
        fs::write(&file, "#!/bin/sh\n").unwrap();
        let check = |words: &[&str], expected: Script| {
            let words: Vec<_> = words.iter().map(OsString::from).collect();
            assert_eq!(Script::from_words(&words), expected);
        };
        let script = |path: &Path, arguments: &[&str]| Script::File {
            path: path.to_owned(),
            arguments: arguments.iter().map(OsString::from).collect(),
        };
        let path = file.to_str().unwrap();
        check(&[path], script(&file, &[]));
        check(
            &[path, "--release", "29"],
            script(&file, &["--release", "29"]),
        );
        check(&["./none.sh"], script(Path::new("./none.sh"), &[]));
        let own = ["/usr/bin/dnf", "upgrade"];
        check(&own, Script::Command(own.map(OsString::from).to_vec()));
        check(&["dnf -y upgrade"], Script::Shell("dnf -y upgrade".into()));
        check(&["true"], Script::Command(vec!["true".into()]));
        check(
            &["echo", "a b"],
            Script::Command(vec!["echo".into(), "a b".into()]),
        );
    }
}
