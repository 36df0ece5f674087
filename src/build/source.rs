//! What a version is made from.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::archive::Archive;
use super::tree::Root;
use crate::library::ReleaseSpec;

/// What a person gives as `--from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory with a whole root file system in it.
    Directory(PathBuf),
    /// A tar archive of one, plain or compressed with gzip, xz or zstd.
    Archive(PathBuf),
    /// Such an archive on the standard input.
    StandardInput,
    /// A distribution that a recipe bootstraps.
    Distribution {
        /// The distribution's ID, or the recipe's name.
        name: String,
        /// Its release, as the distribution or its recipe calls it.
        release: String,
    },
}

/// A source that does not exist or cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongSource {
    /// There is nothing of that name.
    #[error(
        "there is no {0}: give a directory with a root file system, a tar archive of one, or a \
         distribution and its release such as debian:bookworm"
    )]
    Missing(String),
    /// A distribution without its release.
    #[error("which release of {0}? Give it behind the colon, such as debian:bookworm")]
    NoRelease(String),
    /// It is neither a directory nor a file.
    #[error("{0} is neither a directory nor an archive")]
    OtherKind(String),
}

/// A source that is open.
pub(super) enum Input {
    Tree(Root),
    Archive(Archive),
}

impl FromStr for Source {
    type Err = WrongSource;

    fn from_str(text: &str) -> Result<Self, WrongSource> {
        if text == "-" {
            return Ok(Self::StandardInput);
        }
        let path = Path::new(text);
        match path.metadata() {
            Ok(found) if found.is_dir() => Ok(Self::Directory(path.to_owned())),
            Ok(found) if found.is_file() => Ok(Self::Archive(path.to_owned())),
            Ok(_) => Err(WrongSource::OtherKind(text.to_owned())),
            Err(_) => distribution(text),
        }
    }
}

impl From<ReleaseSpec> for Source {
    fn from(spec: ReleaseSpec) -> Self {
        let ReleaseSpec { name, release } = spec;
        Self::Distribution { name, release }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) | Self::Archive(path) => path.display().fmt(f),
            Self::StandardInput => f.write_str("-"),
            Self::Distribution { name, release } => write!(f, "{name}:{release}"),
        }
    }
}

/// `debian:bookworm`
fn distribution(text: &str) -> Result<Source, WrongSource> {
    if let Ok(release) = text.parse::<ReleaseSpec>() {
        return Ok(release.into());
    }
    match text.strip_suffix(':') {
        // It would be sound with a release behind the colon.
        Some(name) if format!("{name}:1").parse::<ReleaseSpec>().is_ok() => {
            Err(WrongSource::NoRelease(name.to_owned()))
        }
        _ => Err(WrongSource::Missing(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, file) = (dir.path().to_str().unwrap(), dir.path().join("fc28.tar.xz"));
        std::fs::write(&file, "").unwrap();
        assert_eq!(tree.parse(), Ok(Source::Directory(tree.into())));
        let archive = file.to_str().unwrap();
        assert_eq!(archive.parse(), Ok(Source::Archive(file.clone())));
        assert_eq!("-".parse(), Ok(Source::StandardInput));
        let wrong = |text: &str| text.parse::<Source>().unwrap_err();
        let debian = Source::Distribution {
            name: "debian".into(),
            release: "bookworm".into(),
        };
        assert_eq!("debian:bookworm".parse(), Ok(debian));
        assert_eq!(wrong("debian:"), WrongSource::NoRelease("debian".into()));
        for missing in ["debian", "Debian:12", "debian:a b", "srv/debian:12"] {
            assert_eq!(wrong(missing), WrongSource::Missing(missing.into()));
        }
        assert_eq!(
            wrong("/no/such/tree"),
            WrongSource::Missing("/no/such/tree".into())
        );
        assert_eq!(
            wrong("/dev/null"),
            WrongSource::OtherKind("/dev/null".into())
        );
    }
}
