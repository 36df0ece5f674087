//! Reading a tree that is not trusted: no path leads out of it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

/// Longest text file that is read into memory whole, such as a list of packages.
const LONGEST: u64 = 256 * 1024 * 1024;

/// Longest path that is opened by one call.
const PATH_AT_ONCE: usize = 4000;

/// A directory that is treated as `/`: symlinks, absolute or with `..`, end inside of it.
#[derive(Debug)]
pub(crate) struct Root {
    dir: File,
    path: PathBuf,
}

impl Root {
    /// The tree at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::fcntl::open(path, flags, Mode::empty())
            .with_context(|| format!("opening the tree {}", path.display()))?;
        Ok(Self {
            dir: File::from(dir),
            path: path.to_owned(),
        })
    }

    /// The tree that `dir` is the open root of; `path` is what it is called.
    pub(crate) fn from_dir(dir: File, path: &Path) -> Self {
        Self {
            dir,
            path: path.to_owned(),
        }
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &File {
        &self.dir
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The regular file at `path`, open for reading; `None` if there is nothing, or something else.
    pub(crate) fn file(&self, path: &str) -> Result<Option<File>> {
        // Not blocking: a fifo in the place of a file must not stop us.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let Some(file) = self.resolve(path, flags)? else {
            return Ok(None);
        };
        let file = File::from(file);
        let is_file = file.metadata().with_context(|| self.about(path))?.is_file();
        Ok(is_file.then_some(file))
    }

    /// The text at `path`, whatever its encoding; `None` if there is no such file.
    pub(crate) fn text(&self, path: &str) -> Result<Option<String>> {
        let Some(file) = self.file(path)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(LONGEST)
            .read_to_end(&mut bytes)
            .with_context(|| self.about(path))?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Names in the directory at `path`, sorted; none if there is no such directory.
    pub(crate) fn names(&self, path: &str) -> Result<Vec<String>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let Some(dir) = self.resolve(path, flags)? else {
            return Ok(Vec::new());
        };
        let mut dir = nix::dir::Dir::from_fd(dir).with_context(|| self.about(path))?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            let entry = entry.with_context(|| self.about(path))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Whether anything at all is at `path`.
    pub(crate) fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.resolve(path, OFlag::O_PATH)?.is_some())
    }

    fn resolve(&self, path: &str, flags: OFlag) -> Result<Option<OwnedFd>> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        match open_within(&self.dir, path, how) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENXIO) => Ok(None),
            Err(e) => Err(e).with_context(|| self.about(path)),
        }
    }

    fn about(&self, path: &str) -> String {
        format!("reading {path} in {}", self.path.display())
    }
}

/// openat2(2), repeated while a rename or a mount anywhere on the host keeps the kernel from saying
/// whether a `..` led out: it answers EAGAIN then, which tells nothing about the tree.
pub(crate) fn open_within<P: nix::NixPath + ?Sized>(
    dir: &File,
    path: &P,
    how: OpenHow,
) -> nix::Result<std::os::fd::OwnedFd> {
    /// A host that mounts without a pause for so long is told of.
    const TRIES: usize = 1000;
    let mut opened = openat2(dir, path, how);
    for _ in 1..TRIES {
        if !matches!(opened, Err(Errno::EAGAIN)) {
            break;
        }
        std::thread::yield_now();
        opened = openat2(dir, path, how);
    }
    opened
}

/// The directory `path` below `root`, however long the path; no symlink is followed.
pub(crate) fn open_dir(root: &File, path: &Path) -> Result<File> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let step = |dir: &File, part: &Path| -> Result<File> {
        let opened = open_within(dir, part, how)
            .map_err(io::Error::from)
            .with_context(|| format!("opening {}", part.display()))?;
        Ok(File::from(opened))
    };
    if path.as_os_str().is_empty() {
        return step(root, Path::new("."));
    }
    if path.as_os_str().len() < PATH_AT_ONCE {
        return step(root, path);
    }
    let mut dir = step(root, Path::new("."))?;
    for part in path.components() {
        dir = step(&dir, Path::new(&part))?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn symlinks_end_inside_of_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/passwd"), "inside").unwrap();
        symlink("/etc/passwd", dir.path().join("absolute")).unwrap();
        symlink("../../../../etc/passwd", dir.path().join("etc/upward")).unwrap();
        symlink("/proc/self/exe", dir.path().join("magic")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        for path in ["etc/passwd", "absolute", "etc/upward", "../etc/passwd"] {
            assert_eq!(
                root.text(path).unwrap().as_deref(),
                Some("inside"),
                "{path}"
            );
        }
        assert_eq!(root.text("magic").unwrap(), None);
        assert_eq!(root.text("etc").unwrap(), None);
    }

    #[test]
    fn a_fifo_does_not_stop_us() {
        let dir = tempfile::tempdir().unwrap();
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        nix::unistd::mkfifo(&dir.path().join("os-release"), mode).unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert!(root.file("os-release").unwrap().is_none());
    }
}
