//! Whose the files are that root makes in a library of somebody else.
//!
//! A server needs no root: a library may belong to an ordinary user, who runs it. Builds need root, and
//! what they make has to be that user's, or the server could neither read nor remove it.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;

use nix::unistd::geteuid;

/// Gives an open file or directory to whoever owns the directory `home` that it is in, if it is root
/// who made it. By the descriptor: no link that somebody puts in its place is followed.
pub(crate) fn give(file: &File, home: &Path) {
    if !geteuid().is_root() {
        return;
    }
    let (Ok(mine), Ok(theirs)) = (file.metadata(), fs::metadata(home)) else {
        return;
    };
    if (mine.uid(), mine.gid()) != (theirs.uid(), theirs.gid()) {
        // Where it cannot be given away, as on some network file systems, it stays what it is: who
        // cannot read it then says so.
        let _ = fchown(file, Some(theirs.uid()), Some(theirs.gid()));
    }
}

/// Gives a directory that was just made.
pub(crate) fn give_dir(dir: &Path) {
    if let (Ok(made), Some(home)) = (File::open(dir), dir.parent()) {
        give(&made, home);
    }
}

/// Makes a directory and those above it that are missing, each of them the owner's of the one above.
pub(crate) fn make_dirs(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Ok(()) => give_dir(dir),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let Some(home) = dir.parent() else {
                return Err(error);
            };
            make_dirs(home)?;
            return make_dirs(dir);
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Whether a directory is root's.
pub(crate) fn is_roots(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|found| found.uid() == 0)
}
