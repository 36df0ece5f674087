//! Whose the files are that root makes in a library of somebody else.
//!
//! A server needs no root: a library may belong to an ordinary user, who runs it. Builds need root, and
//! what they make has to be that user's, or the server could neither read nor remove it. Nor may that
//! user lead root astray by the links that he puts there: root changes his library with his rights.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::Path;

use super::CONFIG;
use nix::unistd::{Gid, Uid, getegid, geteuid, setfsgid, setfsuid};

/// Directories between the root of a library and a file in it, and one more.
const DEEPEST: usize = 6;

/// Does `act` with the rights of whoever owns the library that the directory `home` is in, if it is
/// root who does it: what it opens, makes and removes is what that owner could, wherever his links
/// lead, and is his.
pub(crate) fn acting_for<T>(home: &Path, act: impl FnOnce() -> T) -> T {
    let _rights = Rights::of(home);
    act()
}

/// The rights of somebody else on files, until it is dropped. They are this thread's only, and take
/// root's privileges over files with them (credentials(7), capabilities(7)).
struct Rights;

impl Rights {
    fn of(home: &Path) -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        let owner = owner(home).filter(|owner| owner.uid() != 0)?;
        // The group first, while that may still be changed.
        setfsgid(Gid::from_raw(owner.gid()));
        setfsuid(Uid::from_raw(owner.uid()));
        Some(Rights)
    }
}

/// Whoever owns the library that `home` is in. Not whoever owns `home`, which may be a link to a
/// directory of root's.
fn owner(home: &Path) -> Option<Metadata> {
    let is_root_of_library = |dir: &&Path| fs::symlink_metadata(dir.join(CONFIG)).is_ok();
    match home.ancestors().take(DEEPEST).find(is_root_of_library) {
        Some(root) => fs::metadata(root).ok(),
        None => fs::symlink_metadata(home).ok(),
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        setfsuid(geteuid());
        setfsgid(getegid());
    }
}

/// Gives a file that root has just made in the directory `home` to whoever owns that. By the
/// descriptor: a link that somebody put in its place is not what root made, and neither is a file with
/// another name elsewhere.
pub(crate) fn give(file: &File, home: &Path) {
    if !geteuid().is_root() {
        return;
    }
    let (Ok(mine), Ok(theirs)) = (file.metadata(), fs::metadata(home)) else {
        return;
    };
    let made_here = mine.is_file() && mine.nlink() == 1 && mine.dev() == theirs.dev();
    if made_here && (mine.uid(), mine.gid()) != (theirs.uid(), theirs.gid()) {
        // Where it cannot be given away, as on some network file systems, it stays what it is: who
        // cannot read it then says so.
        let _ = fchown(file, Some(theirs.uid()), Some(theirs.gid()));
    }
}

/// Makes a directory and those above it that are missing, each of them the owner's of the one above.
pub(crate) fn make_dirs(dir: &Path) -> io::Result<()> {
    let home = dir.parent().unwrap_or(dir);
    match acting_for(home, || fs::create_dir(dir)) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => {}
        Err(error) if error.kind() == ErrorKind::NotFound && home != dir => {
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
