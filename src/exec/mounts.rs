//! Mounts that nobody else sees, and that are gone when the process is.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::{Cancel, Error, Program, Result};

/// What nothing that holds a stranger's files needs.
const HARMLESS: &str = "nosuid,nodev,noexec";

/// A directory that every Linux has and that nothing needs for the moment of making a view.
const VIEWPOINT: &str = "/proc";

/// How often an unmount is tried while something (a virus scanner, udev) holds the file system.
const UNMOUNT_TRIES: u32 = 20;

/// Proof that this thread has a mount namespace of its own: only with it can a mount be made.
///
/// It cannot leave the thread or the closure of [`in_private_mounts`].
pub struct PrivateMounts {
    here_only: PhantomData<*const ()>,
}

/// A mount, undone when it is dropped.
///
/// One that cannot be undone is reported and left to the end of the namespace; nothing under it is
/// deleted.
#[derive(Debug)]
#[must_use = "dropping it unmounts at once"]
pub struct Mount {
    target: PathBuf,
    live: bool,
}

/// Runs `work` on a thread with a mount namespace of its own.
///
/// What it mounts is invisible elsewhere, what it spawns inherits the namespace, and the kernel
/// unmounts everything when the last of them is gone, even by SIGKILL.
///
/// # Errors
/// When this process may not make mount namespaces (it is not root).
pub fn in_private_mounts<T: Send>(work: impl FnOnce(&PrivateMounts) -> T + Send) -> Result<T> {
    let body = || {
        private_namespace()?;
        let mounts = PrivateMounts {
            here_only: PhantomData,
        };
        Ok(work(&mounts))
    };
    std::thread::scope(|scope| match scope.spawn(body).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

impl PrivateMounts {
    /// Mounts the file system `kind` in the file `image` on `target`, by a loop device that the
    /// kernel frees with the unmount; without devices, set-uid programs or execution.
    ///
    /// # Errors
    /// When mount(8) fails; its words are in the error.
    pub fn image(
        &self,
        image: &Path,
        kind: &str,
        options: &[&str],
        target: &Path,
        cancel: &Cancel,
    ) -> Result<Mount> {
        self.attach(image, kind, &with(HARMLESS, options), target, cancel)
    }

    /// As [`image`](Self::image), but its programs may be run: for the root of a [`super::Chroot`].
    /// Device nodes in it still cannot be opened.
    ///
    /// # Errors
    /// When mount(8) fails; its words are in the error.
    pub fn executable_image(
        &self,
        image: &Path,
        kind: &str,
        options: &[&str],
        target: &Path,
        cancel: &Cancel,
    ) -> Result<Mount> {
        self.attach(image, kind, &with("nodev", options), target, cancel)
    }

    /// The directory `source`, open for reading, as a read-only file system of its own: only what
    /// lies on its own mount is seen, with the empty directories that other mounts (`/proc`) cover.
    ///
    /// # Errors
    /// When there is no such directory or the kernel refuses.
    pub fn view(&self, source: &Path) -> Result<File> {
        // Mounted for a moment where only this thread sees it; the descriptor keeps it. It cannot
        // be mounted on `source` itself, since no path leads to what covers `/`.
        let target = Path::new(VIEWPOINT);
        let mounted = self.view_on(source, target)?;
        let view = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_DIRECTORY.bits())
            .open(target)
            .map_err(|source| Error::Mount {
                doing: "open the view mounted on",
                on: target.to_owned(),
                source,
            })?;
        umount2(target, MntFlags::MNT_DETACH).map_err(failed("detach", target))?;
        mounted.forget();
        Ok(view)
    }

    /// The same, mounted on `target`, for programs that take paths.
    ///
    /// # Errors
    /// When there is no such directory or the kernel refuses.
    pub fn view_on(&self, source: &Path, target: &Path) -> Result<Mount> {
        let mounted = self.bind(source, target)?;
        let flags = MsFlags::MS_BIND
            | MsFlags::MS_REMOUNT
            | MsFlags::MS_RDONLY
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NODEV
            | MsFlags::MS_NOEXEC;
        mount(None::<&str>, target, None::<&str>, flags, None::<&str>)
            .map_err(failed("make read-only", target))?;
        Ok(mounted)
    }

    /// The file or directory `source`, without what is mounted below it, on `target` as well.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn bind(&self, source: &Path, target: &Path) -> Result<Mount> {
        let flags = MsFlags::MS_BIND;
        mount(Some(source), target, None::<&str>, flags, None::<&str>)
            .map_err(failed("bind-mount on", target))?;
        Ok(Mount::new(target))
    }

    /// As [`bind`](Self::bind), but there nothing of it can be changed: no content, and no mode or
    /// owner either. Devices can be written to all the same.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn bind_read_only(&self, source: &Path, target: &Path, flags: MsFlags) -> Result<Mount> {
        let bound = self.bind(source, target)?;
        bound.remount(MsFlags::MS_RDONLY | flags)?;
        Ok(bound)
    }

    /// A new instance of a file system of the kernel (`tmpfs`, `devpts`, `sysfs`).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kernel_fs(
        &self,
        kind: &str,
        target: &Path,
        flags: MsFlags,
        data: &str,
    ) -> Result<Mount> {
        mount(Some(kind), target, Some(kind), flags, Some(data))
            .map_err(failed("mount a kernel file system on", target))?;
        Ok(Mount::new(target))
    }

    fn attach(
        &self,
        image: &Path,
        kind: &str,
        options: &str,
        target: &Path,
        cancel: &Cancel,
    ) -> Result<Mount> {
        // No --mtab: what is mounted here is nobody else's business. `loop` makes an autoclear
        // device: the kernel frees it with the unmount, however that comes about.
        Program::new("mount")
            .args(["--no-mtab", "--types", kind, "--options"])
            .arg(format!("loop,{options}"))
            .args([OsString::from(image), OsString::from(target)])
            .cancel(cancel)
            .run()?;
        Ok(Mount::new(target))
    }
}

impl Mount {
    fn new(target: &Path) -> Self {
        Self {
            target: target.to_owned(),
            live: true,
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.target
    }

    /// Lets device nodes in it be opened, for programs of the host that make a tree.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn allow_devices(&self) -> Result<()> {
        self.remount(MsFlags::empty())
    }

    /// Takes that back.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn deny_devices(&self) -> Result<()> {
        self.remount(MsFlags::MS_NODEV)
    }

    fn remount(&self, flags: MsFlags) -> Result<()> {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags;
        mount(
            None::<&str>,
            &self.target,
            None::<&str>,
            flags,
            None::<&str>,
        )
        .map_err(failed("change the mount on", &self.target))
    }

    /// Unmounts. When this returns, everything written is in the device or file behind.
    ///
    /// # Errors
    /// When something in it is still in use after a while; it is then left to the end of the
    /// namespace.
    pub fn unmount(mut self) -> Result<()> {
        self.release()
    }

    /// Leaves it to somebody else.
    fn forget(mut self) {
        self.live = false;
    }

    fn release(&mut self) -> Result<()> {
        self.live = false;
        for attempt in 1.. {
            match umount2(&self.target, MntFlags::UMOUNT_NOFOLLOW) {
                Ok(()) => break,
                Err(Errno::EBUSY) if attempt < UNMOUNT_TRIES => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(e) => return Err(failed("unmount", &self.target)(e)),
            }
        }
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.live
            && let Err(error) = self.release()
        {
            tracing::warn!("{error}: it is left to the end of this process");
        }
    }
}

fn private_namespace() -> Result<()> {
    let root = Path::new("/");
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("make a mount namespace for", root))?;
    // Otherwise mounts would travel back to where the namespace was copied from.
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, root, None::<&str>, flags, None::<&str>)
        .map_err(failed("make private", root))
}

fn failed(doing: &'static str, on: &Path) -> impl FnOnce(Errno) -> Error + use<> {
    let on = on.to_owned();
    move |errno| Error::Mount {
        doing,
        on,
        source: io::Error::from(errno),
    }
}

fn with(always: &str, options: &[&str]) -> String {
    std::iter::once(always)
        .chain(options.iter().copied())
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn mounts() -> String {
        std::fs::read_to_string("/proc/self/mountinfo").unwrap()
    }

    #[test]
    fn what_is_mounted_is_seen_here_only_and_undone() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path();
        in_private_mounts(|mounts| {
            let flags = MsFlags::MS_NODEV;
            let guard = mounts.kernel_fs("tmpfs", target, flags, "size=1m").unwrap();
            std::fs::write(guard.path().join("inside"), "x").unwrap();
            assert!(target.join("inside").exists());
            guard.unmount().unwrap();
            assert!(!target.join("inside").exists());
            let kept = mounts.kernel_fs("tmpfs", target, flags, "size=1m").unwrap();
            std::fs::write(kept.path().join("again"), "x").unwrap();
        })
        .unwrap();
        assert!(!target.join("again").exists());
        assert!(!self::mounts().contains(target.to_str().unwrap()));
    }

    #[test]
    fn a_view_shows_what_a_mount_covers_and_takes_no_writes() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path();
        std::fs::create_dir(tree.join("proc")).unwrap();
        in_private_mounts(|mounts| {
            let covered = tree.join("proc");
            let flags = MsFlags::empty();
            let cover = mounts.kernel_fs("tmpfs", &covered, flags, "").unwrap();
            std::fs::write(cover.path().join("version"), "x").unwrap();
            let view = mounts.view(tree).unwrap();
            let seen = PathBuf::from(format!("/proc/self/fd/{}", view.as_raw_fd()));
            assert_eq!(std::fs::read_dir(seen.join("proc")).unwrap().count(), 0);
            let error = std::fs::write(seen.join("new"), "x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
        })
        .unwrap();
    }

    #[test]
    fn the_hosts_own_root_can_be_viewed() {
        in_private_mounts(|mounts| {
            let view = mounts.view(Path::new("/")).unwrap();
            let seen = PathBuf::from(format!("/proc/self/fd/{}", view.as_raw_fd()));
            assert_eq!(std::fs::read_dir(seen.join("proc")).unwrap().count(), 0);
            assert!(Program::new("true").run().is_ok());
        })
        .unwrap();
    }
}
