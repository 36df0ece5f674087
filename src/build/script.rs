//! What is run inside of a draft, and what it is given for that time.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::tree::Root;
use super::tree::root::open_dir;
use super::watch::Watch;
use crate::exec::{Cancel, Chroot, Line, PrivateMounts};

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

/// Where a script of the host is put: on a private file system that goes with the chroot.
const SCRIPT: &str = "run/netroot-script";

/// Where an image has programs of its own.
const PROGRAMS: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/opt", "/etc"];

/// Keeps Debian's packages from starting services in a chroot (policy-rc.d, exit status 101).
const NO_SERVICES: &[u8] = b"#!/bin/sh\nexit 101\n";

/// What the file that stands in is called meanwhile.
const SAVED: &str = ".netroot-saved-";

const EXECUTABLE: u32 = 0o755;
const READABLE: u32 = 0o644;

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

    /// Runs it in the tree mounted at `root`.
    pub(super) fn run(
        &self,
        mounts: &PrivateMounts,
        root: &Path,
        cancel: &Cancel,
        watch: &dyn Watch,
    ) -> Result<()> {
        let tree = Root::open(root)?;
        let mut provided = Provided::default();
        provided.name_servers(&tree)?;
        provided.no_services(&tree)?;
        let chroot = Chroot::enter(mounts, root)?;
        let command = self.prepare(root)?;
        let done = chroot.run(
            &command,
            &self.to_string(),
            cancel,
            &mut |line| match line {
                Line::Out(text) | Line::Err(text) => watch.line(&text),
            },
        );
        let left = chroot.leave();
        done?;
        left?;
        provided.take_back()
    }

    /// Empties root's shell history, and says whether there was any.
    pub(super) fn forget_history(&self, root: &Path) -> Result<bool> {
        let tree = Root::open(root)?;
        let how = OpenHow::new()
            .flags(OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        let Ok(history) = openat2(tree.dir(), "root/.bash_history", how) else {
            return Ok(false);
        };
        let history = File::from(history);
        let had = history.metadata()?.len() > 0;
        if had {
            history.set_len(0).context("emptying root/.bash_history")?;
        }
        Ok(had)
    }

    /// The command line inside of the image.
    fn prepare(&self, root: &Path) -> Result<Vec<OsString>> {
        match self {
            Self::Command(words) => Ok(words.clone()),
            Self::Shell(line) => Ok(vec!["/bin/sh".into(), "-c".into(), line.into()]),
            Self::File { path, arguments } => {
                let text = fs::read(path)
                    .with_context(|| format!("reading the script {}", path.display()))?;
                // `/run` was mounted a moment ago: nothing of the image is there.
                create(&File::open(root)?, OsStr::new(SCRIPT), &text, EXECUTABLE)?;
                let script = Path::new("/").join(SCRIPT).into_os_string();
                Ok([&[script], &arguments[..]].concat())
            }
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
