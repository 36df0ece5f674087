//! Where a volume's blocks are, opened so that no link leads elsewhere.
//!
//! Whoever has the rights of the server may publish what he likes. Others may name files of the host
//! only below directories that the configuration lists, and only as long as nobody has put a link out
//! of them there: a server that runs as root would publish `/etc/shadow`. So the directory stands in the
//! volume's document, and its path is walked anew, beneath it, whenever the volume is opened
//! (openat2(2), `RESOLVE_BENEATH`): looking first and opening afterwards would leave a moment in between.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use crate::library::Library;
use crate::library::error::{Doing, Error, Result};

/// Whose paths are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paths {
    /// He has the server's own rights, and may name what he likes.
    Any,
    /// Below the directories that the configuration lists.
    Listed,
}

/// Something that was reached: what is opened by this path is what was looked at, as long as this lives.
#[derive(Debug)]
pub(super) struct Reached {
    path: PathBuf,
    _held: Option<OwnedFd>,
}

impl Reached {
    /// A path for those who open it. It is not for people.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn held(held: OwnedFd) -> Self {
        Reached {
            path: format!("/proc/self/fd/{}", held.as_raw_fd()).into(),
            _held: Some(held),
        }
    }
}

/// Reaches what is at `path`; beneath the directory `within`, if it is confined to one.
pub(super) fn reach(path: &Path, within: Option<&Path>) -> io::Result<Reached> {
    let Some(within) = within else {
        return Ok(Reached {
            path: path.to_owned(),
            _held: None,
        });
    };
    let inside = path
        .strip_prefix(within)
        .map_err(|_| ErrorKind::PermissionDenied)?;
    // The directory itself is the administrator's, and may be a link of his.
    let directory = open(
        within,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    match beneath(&directory, inside, OFlag::empty()) {
        Ok(found) => Ok(Reached::held(found)),
        Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
            device_behind(&directory, inside).map(Reached::held)
        }
        Err(error) => Err(error),
    }
}

/// Reaches the directory that a new file is to be made in, by the same rules.
pub(super) fn reach_home(path: &Path, within: Option<&Path>) -> io::Result<(Reached, PathBuf)> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
    let home = match path.parent() {
        Some(home) if home != Path::new("") => home,
        _ => Path::new("."),
    };
    let home = match within {
        // `openat2` wants a name, and the directory itself has none beneath itself.
        Some(within) if within == home => reach(within, None)?,
        within => reach(home, within)?,
    };
    let place = home.path().join(name);
    Ok((home, place))
}

fn beneath(directory: &impl AsFd, path: &Path, more: OFlag) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC | more)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    loop {
        match openat2(directory, path, how) {
            // A rename elsewhere kept the kernel from saying whether it is beneath (openat2(2)).
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
            opened => return Ok(opened?),
        }
    }
}

/// The names of LVM's volumes and those in /dev/disk are links to what they mean, elsewhere in /dev.
/// Such a link is followed where nobody but root can have put it there, and to a block device only.
fn device_behind(directory: &OwnedFd, inside: &Path) -> io::Result<OwnedFd> {
    let outside = || io::Error::from_raw_os_error(libc::EXDEV);
    let name = inside.file_name().ok_or_else(outside)?;
    let home = match inside.parent() {
        Some(home) if home != Path::new("") => beneath(directory, home, OFlag::O_DIRECTORY)?,
        _ => directory.try_clone()?,
    };
    let home = Reached::held(home);
    let found = fs::metadata(home.path())?;
    if found.uid() != 0 || found.mode() & 0o022 != 0 {
        return Err(outside());
    }
    let held = open(
        &home.path().join(name),
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let reached = Reached::held(held.try_clone()?);
    match fs::metadata(reached.path())?.file_type().is_block_device() {
        true => Ok(held),
        false => Err(outside()),
    }
}

/// Makes a sparse file that was not there: all of it, or nothing where it fails or this is killed.
pub(super) fn make_sparse(path: &Path, within: Option<&Path>, size: u64) -> Result<()> {
    let (home, place) = reach_home(path, within).doing("looking at", path)?;
    let made = unnamed(home.path()).and_then(|file| {
        crate::library::owner::give(&file, home.path());
        file.set_len(size)?;
        file.sync_all()?;
        named(&file, &place)
    });
    match made {
        Ok(()) => {}
        // Without files that have no name yet (NFS, some others): one that a crash may leave empty.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            make_at_once(&place, home.path(), size)
                .map_err(|error| too_large(error, path, size))?;
        }
        Err(error) => return Err(too_large(error, path, size)),
    }
    File::open(home.path())
        .and_then(|home| home.sync_all())
        .doing("syncing the directory of", path)
}

/// A file that is gone when nobody has it open any more, open(2), `O_TMPFILE`.
fn unnamed(home: &Path) -> io::Result<File> {
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    Ok(File::from(open(
        home,
        flags,
        Mode::S_IRUSR | Mode::S_IWUSR,
    )?))
}

fn named(file: &File, place: &Path) -> io::Result<()> {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(
        rustix::fs::CWD,
        own,
        rustix::fs::CWD,
        place,
        rustix::fs::AtFlags::SYMLINK_FOLLOW,
    )?)
}

fn make_at_once(place: &Path, home: &Path, size: u64) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(place)?;
    crate::library::owner::give(&file, home);
    file.set_len(size)
        .and_then(|()| file.sync_all())
        .inspect_err(|_| {
            // The first error is the one to tell.
            let _ = fs::remove_file(place);
        })
}

/// What a file system says of a size that it cannot have is no fault of ours.
pub(super) fn too_large(error: io::Error, path: &Path, size: u64) -> Error {
    match error.raw_os_error() {
        Some(libc::EFBIG | libc::EINVAL | libc::EOVERFLOW) => Error::refused(
            format!("making {} of {size} bytes", path.display()),
            "its file system has no files that large",
            "choose a smaller size, or keep it on XFS",
        ),
        _ => Error::Io {
            doing: format!("making {} of {size} bytes", path.display()),
            source: error,
        },
    }
}

impl Library {
    /// The directory that a path is confined to, for whoever names it; nothing if to none. Says nothing
    /// about what is there: those who may not name it may not learn that, either.
    pub(super) fn confined(
        &self,
        what: &str,
        path: &Path,
        paths: Paths,
    ) -> Result<Option<PathBuf>> {
        let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        let no_nul = |text: &OsStr| !text.as_bytes().contains(&0);
        if !no_nul(path.as_os_str()) {
            return Err(Error::Invalid("no path has a NUL in it".to_owned()));
        }
        if paths == Paths::Any {
            return Ok(None);
        }
        let listed = &self.config().volumes.directories;
        let mut above = listed.iter().map(|one| one.as_path());
        let found = above.find(|one| {
            path.strip_prefix(one)
                .is_ok_and(|inside| inside != Path::new(""))
        });
        match found.filter(|_| path.is_absolute() && path.components().all(plain)) {
            Some(within) => Ok(Some(within.to_owned())),
            None => Err(Error::refused(
                what,
                format!(
                    "{} is not below a directory that netroot.toml lists for volumes",
                    path.display()
                ),
                "list one as [volumes] directories, or add the volume as root, by a command on the \
                 server; without a file or a device the library keeps the volume",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn content(reached: io::Result<Reached>) -> Option<String> {
        let reached = reached.ok()?;
        fs::read_to_string(reached.path()).ok()
    }

    #[test]
    fn links_lead_nowhere_outside_of_a_directory() {
        let home = tempfile::tempdir().unwrap();
        let listed = home.path().join("listed");
        fs::create_dir_all(listed.join("deep")).unwrap();
        fs::write(home.path().join("secret"), "secret").unwrap();
        fs::write(listed.join("deep/disk"), "disk").unwrap();
        symlink("../secret", listed.join("up")).unwrap();
        symlink(home.path().join("secret"), listed.join("far")).unwrap();
        symlink("..", listed.join("parent")).unwrap();
        symlink("deep/disk", listed.join("near")).unwrap();
        let of = |name: &str| content(reach(&listed.join(name), Some(&listed)));
        assert_eq!(of("deep/disk").as_deref(), Some("disk"));
        assert_eq!(of("near").as_deref(), Some("disk"));
        for outside in ["up", "far", "parent/secret", "../secret"] {
            assert_eq!(of(outside), None, "{outside}");
        }
        assert_eq!(
            content(reach(&listed.join("up"), None)).as_deref(),
            Some("secret"),
            "nobody confines root"
        );
        let made = |name: &str| make_sparse(&listed.join(name), Some(&listed), 4096);
        made("new").unwrap();
        made("deep/new").unwrap();
        assert_eq!(fs::metadata(listed.join("deep/new")).unwrap().len(), 4096);
        assert!(made("parent/new").is_err());
        assert!(!home.path().join("new").exists());
        assert!(made("near").is_err(), "what is there stays");
        assert_eq!(of("near").as_deref(), Some("disk"));
    }
}
