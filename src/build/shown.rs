//! What a tree is called when a person is told what to do in it.
//!
//! Most are looked at where they are mounted for a moment, by a path that nobody else sees and that is
//! gone when the advice is read.

use std::fmt;
use std::path::PathBuf;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// A person's own directory, which stays.
    Directory(PathBuf),
    /// What is, or becomes, the newest version of this image.
    Image(String),
}

impl Shown {
    /// The command that does `systemctl` with these arguments in it.
    pub(super) fn systemctl(&self, arguments: &str) -> String {
        match self {
            Self::Directory(path) => format!("systemctl --root={} {arguments}", path.display()),
            Self::Image(name) => format!("netroot image exec {name} -- systemctl {arguments}"),
        }
    }

    /// The command that makes `path`, from the tree's root, a symlink to `to`.
    pub(super) fn link(&self, to: &str, path: &str) -> String {
        match self {
            Self::Directory(dir) => {
                let path = dir.join(path.trim_start_matches('/'));
                format!("ln -sf {to} {}", path.display())
            }
            Self::Image(name) => format!("netroot image exec {name} -- ln -sf {to} {path}"),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Image(name) => write!(f, "the image {name}"),
        }
    }
}
