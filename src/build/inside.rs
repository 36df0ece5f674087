//! Being inside of an image: the mounts of its chroot, and what stands in for its own files there.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::mount::MsFlags;
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::Script;
use super::tree::Root;
use super::tree::root::open_dir;
use super::watch::Watch;
use crate::exec::{Cancel, Chroot, PrivateMounts, Program};

/// Keeps Debian's packages from starting services in a chroot (policy-rc.d, exit status 101).
const NO_SERVICES: &[u8] = b"#!/bin/sh\nexit 101\n";

/// What the file that stands in is called meanwhile.
const SAVED: &str = ".netroot-saved-";

const EXECUTABLE: u32 = 0o755;
const READABLE: u32 = 0o644;

/// Copies what was put at `$1` to `$2`: what is in a directory goes into that directory. The copies
/// are root's, whoever owns them on the host.
const COPY_IN: &str = r#"
set -e
from=$1 to=$2
[ -d "$from" ] && { mkdir -p "$to"; exec cp -R --preserve=mode,timestamps,links "$from/." "$to/"; }
case $to in
*/) mkdir -p "$to" ;;
*) mkdir -p "$(dirname "$to")" ;;
esac
exec cp --preserve=mode,timestamps "$from" "$to"
"#;

/// A tree that programs of it can be run in. [`leave`](Self::leave) puts everything back; when a
/// step failed nobody needs to, because the draft is thrown away.
pub(super) struct Inside<'a> {
    chroot: Chroot,
    provided: Provided,
    mounts: &'a PrivateMounts,
    root: PathBuf,
    placed: usize,
}

impl<'a> Inside<'a> {
    /// Mounts what programs expect in the tree at `root`, gives it this host's name servers and
    /// keeps its packages from starting services.
    pub(super) fn enter(mounts: &'a PrivateMounts, root: &Path) -> Result<Self> {
        let tree = Root::open(root)?;
        let mut provided = Provided::default();
        provided.name_servers(&tree)?;
        provided.no_services(&tree)?;
        let chroot = Chroot::enter(mounts, root)?;
        Ok(Self {
            chroot,
            provided,
            mounts,
            root: root.to_owned(),
            placed: 0,
        })
    }

    /// `command` as a program that runs in it.
    pub(super) fn program(&self, command: &[OsString]) -> Program {
        self.chroot.program(command)
    }

    /// Runs what a person gave.
    pub(super) fn script(
        &mut self,
        script: &Script,
        cancel: &Cancel,
        watch: &dyn Watch,
    ) -> Result<()> {
        let mut placed = PathBuf::new();
        if let Script::File { path, .. } = script {
            let text =
                fs::read(path).with_context(|| format!("reading the script {}", path.display()))?;
            let name = self.next_name();
            // The private `/run` was mounted a moment ago: nothing of the image is there.
            create(
                &File::open(self.root.join(Chroot::PLACE))?,
                &name,
                &text,
                EXECUTABLE,
            )?;
            placed = Path::new("/").join(Chroot::PLACE).join(name);
        }
        let program = self.program(&script.command(&placed));
        run(program.shown_as(script.to_string()), cancel, watch)
    }

    /// Lets a person work in it until the shell ends.
    pub(super) fn shell(&self, name: &str, cancel: &Cancel) -> Result<()> {
        let shell = ["/bin/bash", "/bin/sh"]
            .into_iter()
            .find(|shell| {
                let tree = Root::open(&self.root);
                tree.is_ok_and(|tree| tree.exists(shell).unwrap_or(false))
            })
            .context("the image has neither /bin/bash nor /bin/sh")?;
        let term = std::env::var_os("TERM").unwrap_or_else(|| "dumb".into());
        let program = self
            .program(&[shell.into()])
            .env("TERM", term)
            // Debian's prompts show it.
            .env("debian_chroot", name);
        Ok(program.shown_as("the shell").cancel(cancel).interactive()?)
    }

    /// Copies a file, or what is in a directory, from this host.
    pub(super) fn copy_in(
        &mut self,
        from: &Path,
        to: &str,
        cancel: &Cancel,
        watch: &dyn Watch,
    ) -> Result<()> {
        let name = self.next_name();
        let point = self.root.join(Chroot::PLACE).join(&name);
        let about = || format!("looking at {}", from.display());
        let made = if fs::metadata(from).with_context(about)?.is_dir() {
            fs::create_dir(&point)
        } else {
            File::create_new(&point).map(drop)
        };
        made.with_context(|| format!("making {}", point.display()))?;
        // The copying is done by a program of the image, which could as well write there.
        let harmless = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let bound = self.mounts.bind_read_only(from, &point, harmless)?;
        let place = Path::new("/").join(Chroot::PLACE).join(&name);
        let command = ["/bin/sh", "-c", COPY_IN, "sh"].map(OsString::from);
        let command = [&command[..], &[place.into(), to.into()]].concat();
        let program = self.program(&command);
        let shown = format!("cp {} {to}", from.display());
        run(program.shown_as(shown), cancel, watch)?;
        Ok(bound.unmount()?)
    }

    /// Unmounts everything and puts the image's own files back.
    pub(super) fn leave(self) -> Result<()> {
        self.chroot.leave()?;
        self.provided.take_back()
    }

    fn next_name(&mut self) -> OsString {
        self.placed += 1;
        OsString::from(self.placed.to_string())
    }
}

/// Runs a program; each line that it writes goes to `watch`.
pub(super) fn run(program: Program, cancel: &Cancel, watch: &dyn Watch) -> Result<()> {
    let done = program
        .cancel(cancel)
        .stream(&mut |line| watch.line(&line.text()));
    Ok(done?)
}

/// Files that stand in for the image's own while a script runs.
#[derive(Default)]
struct Provided(Vec<StandIn>);

struct StandIn {
    dir: File,
    name: OsString,
    /// The file that we made, held so that its inode's number cannot come to mean another; not for
    /// writing, or nobody could execute it.
    made: File,
    /// Whether the image had something there.
    saved: bool,
}

impl Provided {
    /// The host's name servers: the image's may be a link to what a running system writes.
    fn name_servers(&mut self, tree: &Root) -> Result<()> {
        match fs::read("/etc/resolv.conf") {
            Ok(text) => self.provide(tree, "etc", "resolv.conf", &text, READABLE),
            // A host without name servers has none to give.
            Err(_) => Ok(()),
        }
    }

    fn no_services(&mut self, tree: &Root) -> Result<()> {
        if !tree.exists("usr/sbin/invoke-rc.d")? {
            return Ok(());
        }
        self.provide(tree, "usr/sbin", "policy-rc.d", NO_SERVICES, EXECUTABLE)
    }

    fn provide(
        &mut self,
        tree: &Root,
        dir: &str,
        name: &str,
        text: &[u8],
        mode: u32,
    ) -> Result<()> {
        let dir = open_dir(tree.dir(), Path::new(dir))?;
        let name = OsString::from(name);
        let saved = match renameat(&dir, name.as_os_str(), &dir, saved_name(&name).as_os_str()) {
            Ok(()) => true,
            Err(Errno::ENOENT) => false,
            Err(e) => return Err(e).with_context(|| format!("saving {}", name.display())),
        };
        let made = create(&dir, &name, text, mode)?;
        self.0.push(StandIn {
            dir,
            name,
            made,
            saved,
        });
        Ok(())
    }

    /// Puts back what was there, unless the script itself has put something there. When the script
    /// failed nobody needs to: the draft is thrown away.
    fn take_back(self) -> Result<()> {
        for file in self.0 {
            let name = file.name.as_os_str();
            let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
            let found = nix::sys::stat::fstatat(&file.dir, name, flags).ok();
            let inode = file.made.metadata().context("looking at a stand-in")?.ino();
            let is_ours = found.is_some_and(|stat| stat.st_ino == inode);
            let saved = saved_name(name);
            let done = match (is_ours, file.saved) {
                (true, true) => renameat(&file.dir, saved.as_os_str(), &file.dir, name),
                (true, false) => unlinkat(&file.dir, name, UnlinkatFlags::NoRemoveDir),
                (false, true) => unlinkat(&file.dir, saved.as_os_str(), UnlinkatFlags::NoRemoveDir),
                (false, false) => Ok(()),
            };
            done.with_context(|| format!("putting back the image's {}", name.display()))?;
        }
        Ok(())
    }
}

fn saved_name(name: &OsStr) -> OsString {
    let mut saved = OsString::from(SAVED);
    saved.push(name);
    saved
}

/// Makes a new file in `dir`, and gives it open as a mere reference.
fn create(dir: &File, name: &OsStr, text: &[u8], mode: u32) -> Result<File> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let about = || format!("creating {} in the image", name.display());
    let mode = Mode::from_bits_truncate(mode);
    let mut file = File::from(openat(dir, name, flags, mode).with_context(about)?);
    nix::sys::stat::fchmod(&file, mode).with_context(about)?;
    file.write_all(text).with_context(about)?;
    drop(file);
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(File::from(
        openat(dir, name, flags, Mode::empty()).with_context(about)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stood_in_is_put_back_unless_it_was_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        fs::create_dir(&etc).unwrap();
        let path = etc.join("resolv.conf");
        let swap = |meanwhile: &dyn Fn()| {
            let tree = Root::open(dir.path()).unwrap();
            let mut provided = Provided::default();
            provided
                .provide(&tree, "etc", "resolv.conf", b"theirs", READABLE)
                .unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"theirs");
            meanwhile();
            provided.take_back().unwrap();
        };
        swap(&|| ());
        assert!(!path.exists());
        std::os::unix::fs::symlink("../run/none", &path).unwrap();
        swap(&|| ());
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("../run/none"));
        swap(&|| {
            fs::remove_file(&path).unwrap();
            fs::write(&path, "new").unwrap();
        });
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(&etc).unwrap().count(), 1);
    }
}
