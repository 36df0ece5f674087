//! The library's lock: one file, never renamed, two byte ranges of open-file-description locks.
//!
//! Byte 0 is *live*: held by a running server for its whole life, or by a command that acts on live
//! state while no server runs. Byte 1 is *write*: held briefly around each change of documents. So a
//! build publishes beside a running server, and two of them beside each other.
//!
//! Open-file-description locks go with the open file, not with the process: threads exclude each
//! other too (each acquisition opens the file anew), and a killed process leaves nothing held.

use std::fs::{File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::error::{Doing, Error, Result};

const LIVE: i64 = 0;
const WRITE: i64 = 1;

/// A program that was being started when the holder let go has its descriptors, and so the lock, until
/// it is executed: a moment, for which nobody is refused.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// Who may open a lock's file: whoever can, even for reading, can take a lock and keep everybody waiting.
pub(crate) const PRIVATE: u32 = 0o600;

/// Takes the right to open a lock's file from everybody but its owner, and its group where that may
/// write: libraries of older versions gave it to all.
pub(crate) fn keep_private(path: &Path) {
    let Ok(found) = std::fs::metadata(path) else {
        return;
    };
    let group = found.mode() & 0o020;
    let wanted = if group == 0 { PRIVATE } else { PRIVATE | 0o060 };
    if found.mode() & 0o777 != wanted {
        // Whoever may not change that does not own the library, and has no need to.
        let _ = std::fs::set_permissions(path, Permissions::from_mode(wanted));
    }
}

/// Held while somebody acts on live state: sessions, boots, clones in use.
#[derive(Debug)]
pub struct LiveLock {
    _file: File,
}

/// Held around a change of documents. Whoever writes one shows it.
#[derive(Debug)]
pub(crate) struct WriteLock {
    _file: File,
}

impl LiveLock {
    /// Takes the lock, or says that somebody else has it.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let file = open(path).map_err(|error| match error {
            Error::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                Error::refused(
                    format!(
                        "acting on the library {}",
                        path.parent().unwrap_or(path).display()
                    ),
                    "no server runs on it, and you may not write there",
                    "be root, or start the server, which answers the members of group netroot",
                )
            }
            other => other,
        })?;
        for attempt in 1.. {
            match fcntl(&file, FcntlArg::F_OFD_SETLK(&range(LIVE, libc::F_WRLCK))) {
                Ok(_) => break,
                Err(Errno::EAGAIN | Errno::EACCES) if attempt < TRIES => {
                    std::thread::sleep(PAUSE);
                }
                Err(Errno::EAGAIN | Errno::EACCES) => {
                    return Err(Error::Locked {
                        path: path.to_owned(),
                        instead: "ask it through its control socket, or wait until it has ended",
                    });
                }
                Err(error) => return Err(error).doing("locking", path),
            }
        }
        Ok(LiveLock { _file: file })
    }
}

impl WriteLock {
    /// Waits for the lock and takes it.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let file = open(path)?;
        loop {
            match fcntl(&file, FcntlArg::F_OFD_SETLKW(&range(WRITE, libc::F_WRLCK))) {
                Ok(_) => return Ok(WriteLock { _file: file }),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).doing("locking", path),
            }
        }
    }
}

/// Takes the whole of `file`, or tells that its maker is alive and holds it.
pub(crate) fn try_whole(file: &File) -> std::io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&range(0, libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether somebody holds the whole of `file`, by [`try_whole`]. Reading it is right enough.
pub(crate) fn is_held(file: &File) -> std::io::Result<bool> {
    let mut found = range(0, libc::F_RDLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found))?;
    Ok(found.l_type != libc::F_UNLCK as libc::c_short)
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .doing("opening", path)
}

/// One byte of the file. `l_pid` has to be 0 for these locks, fcntl_locking(2).
fn range(start: i64, kind: i32) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: 1,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_is_held_by_one_and_write_is_apart_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        File::create(&path).unwrap();
        let live = LiveLock::take(&path).unwrap();
        assert!(matches!(LiveLock::take(&path), Err(Error::Locked { .. })));
        drop(WriteLock::take(&path).unwrap());
        drop(live);
        assert!(LiveLock::take(&path).is_ok());
    }

    #[test]
    fn who_holds_a_file_is_seen_by_who_may_only_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("held");
        let held = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        assert!(!is_held(&reader).unwrap());
        assert!(try_whole(&held).unwrap());
        assert!(is_held(&reader).unwrap());
        drop(held);
        assert!(!is_held(&reader).unwrap());
    }

    #[test]
    fn write_excludes_threads_of_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        File::create(&path).unwrap();
        let counter = dir.path().join("counter");
        std::fs::write(&counter, "0").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let _lock = WriteLock::take(&path).unwrap();
                        let n: u32 = std::fs::read_to_string(&counter).unwrap().parse().unwrap();
                        std::fs::write(&counter, (n + 1).to_string()).unwrap();
                    }
                });
            }
        });
        assert_eq!(std::fs::read_to_string(&counter).unwrap(), "100");
    }
}
