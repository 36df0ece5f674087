//! Changing a tree that is not trusted: no path leads out of it.
//!
//! Directories on the way are resolved inside of the tree, so that a merged `/usr` is followed and a
//! link to the host's `/etc` ends in the tree's; the last name is never followed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, readlinkat, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use super::root::{Root, open_within};
use super::{enter, entries, kind_of, stat_at};

/// A name that is ours for a moment.
const DRAFT: &str = ".netroot-new";

/// Directories of people, readable by all.
const DIRECTORY: Mode = Mode::from_bits_truncate(0o755);

/// Names deeper than this are no tree of a distribution's.
const DEEPEST_PATTERN: usize = 32;

impl Root {
    /// Puts a file with this text at `path`, in the place of whatever is there.
    pub(crate) fn write(&self, path: &str, text: &[u8], mode: u32) -> Result<()> {
        let (dir, name) = self.place(path)?;
        let about = || format!("writing {path} in {}", self.path().display());
        remove_entry(&dir, OsStr::new(DRAFT)).with_context(about)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(mode);
        let file = openat(&dir, DRAFT, flags, mode).with_context(about)?;
        let mut file = File::from(file);
        fchmod(&file, mode).with_context(about)?;
        file.write_all(text).with_context(about)?;
        make_room(&dir, &name).with_context(about)?;
        renameat(&dir, DRAFT, &dir, name.as_os_str()).with_context(about)
    }

    /// Puts a symlink to `to` at `path`, in the place of whatever is there.
    pub(crate) fn link(&self, path: &str, to: &str) -> Result<()> {
        let (dir, name) = self.place(path)?;
        let about = || format!("linking {path} in {}", self.path().display());
        remove_entry(&dir, &name).with_context(about)?;
        symlinkat(to, &dir, name.as_os_str()).with_context(about)
    }

    /// Whether `path` is a symlink to just `to`.
    pub(crate) fn is_link(&self, path: &str, to: &str) -> Result<bool> {
        let Some((dir, name)) = self.parent(path)? else {
            return Ok(false);
        };
        match readlinkat(&dir, name.as_os_str()) {
            Ok(found) => Ok(found == to),
            Err(Errno::ENOENT | Errno::EINVAL) => Ok(false),
            Err(e) => Err(e).with_context(|| format!("reading the link {path} in the image")),
        }
    }

    /// Whether `path` is a file with just this text and mode.
    pub(crate) fn is_file(&self, path: &str, text: &[u8], mode: u32) -> Result<bool> {
        let Some((dir, name)) = self.parent(path)? else {
            return Ok(false);
        };
        let about = || format!("reading {path} in the image");
        // Not blocking: a fifo in the place of a file must not stop us.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(&dir, name.as_os_str(), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENXIO) => return Ok(false),
            Err(e) => return Err(e).with_context(about),
        };
        let found = file.metadata().with_context(about)?;
        if !found.is_file()
            || found.mode() & 0o7777 != mode
            || usize::try_from(found.len()) != Ok(text.len())
        {
            return Ok(false);
        }
        let mut bytes = Vec::with_capacity(text.len());
        file.take(found.len())
            .read_to_end(&mut bytes)
            .with_context(about)?;
        Ok(bytes == text)
    }

    /// Removes what `pattern` matches, directories with all that is in them. Tells how many entries
    /// it matched.
    pub(crate) fn remove(&self, pattern: &str) -> Result<usize> {
        self.each(pattern, &remove_entry)
    }

    /// Truncates the files and empties the directories that `pattern` matches. Tells how many of
    /// them had anything in them.
    pub(crate) fn empty(&self, pattern: &str) -> Result<usize> {
        self.each(pattern, &empty_entry)
    }

    /// The directory that `path` is in, and its name there; `None` if there is no such directory.
    fn parent(&self, path: &str) -> Result<Option<(File, OsString)>> {
        let path = Path::new(path.trim_start_matches('/'));
        let name = path.file_name().context("a path without a name")?;
        let dir = self.directory(path.parent().unwrap_or(Path::new("")))?;
        Ok(dir.map(|dir| (dir, name.to_owned())))
    }

    /// The directory that `path` is in, made if it is missing, and its name there.
    fn place(&self, path: &str) -> Result<(File, OsString)> {
        let path = Path::new(path.trim_start_matches('/'));
        let name = path.file_name().context("a path without a name")?;
        let mut dir = self.dir().try_clone()?;
        let mut sofar = PathBuf::new();
        for part in path.parent().into_iter().flat_map(Path::components) {
            sofar.push(part);
            dir = match self.directory(&sofar)? {
                Some(found) => found,
                None => {
                    let part = Path::new(part.as_os_str());
                    mkdirat(&dir, part, DIRECTORY)
                        .with_context(|| format!("making /{} in the image", sofar.display()))?;
                    self.directory(&sofar)?
                        .with_context(|| format!("/{} is gone again", sofar.display()))?
                }
            };
        }
        Ok((dir, name.to_owned()))
    }

    /// The directory at `path`, symlinks resolved inside of the tree; `None` if there is none.
    fn directory(&self, path: &Path) -> Result<Option<File>> {
        if path.as_os_str().is_empty() {
            return Ok(Some(self.dir().try_clone()?));
        }
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        match open_within(self.dir(), path, how) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("opening /{} in the image", path.display())),
        }
    }

    fn each(&self, pattern: &str, act: &dyn Fn(&File, &OsStr) -> Result<bool>) -> Result<usize> {
        let parts: Vec<&str> = pattern.trim_start_matches('/').split('/').collect();
        ensure!(
            parts.len() <= DEEPEST_PATTERN,
            "the pattern {pattern} has too many parts"
        );
        let mut count = 0;
        self.matches(PathBuf::new(), &parts, &mut |dir, name| {
            count += usize::from(act(dir, name)?);
            Ok(())
        })
        .with_context(|| format!("removing {pattern} in {}", self.path().display()))?;
        Ok(count)
    }

    /// Calls `act` with each entry below `at` that `parts` match.
    fn matches(
        &self,
        at: PathBuf,
        parts: &[&str],
        act: &mut dyn FnMut(&File, &OsStr) -> Result<()>,
    ) -> Result<()> {
        let Some((first, rest)) = parts.split_first() else {
            return Ok(());
        };
        let Some(dir) = self.directory(&at)? else {
            return Ok(());
        };
        let names: Vec<OsString> = match first.contains(['*', '?']) {
            false => vec![OsString::from(first)],
            true => entries(&dir)?
                .into_iter()
                .map(|entry| entry.name)
                .filter(|name| fits(first.as_bytes(), name.as_encoded_bytes()))
                .collect(),
        };
        for name in names {
            if rest.is_empty() {
                act(&dir, &name)?;
            } else {
                self.matches(at.join(&name), rest, act)?;
            }
        }
        Ok(())
    }
}

/// Whether `name` is what `pattern` says: `*` is any run of bytes, `?` any one. A leading dot must be
/// said, as in a shell.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    wildcard(pattern, name)
}

/// Matches from the left; at a mismatch the last `*` takes one byte more.
fn wildcard(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while let Some(byte) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(want) if *want == b'?' || want == byte => {
                p += 1;
                n += 1;
            }
            _ => match star {
                None => return false,
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
            },
        }
    }
    pattern
        .get(p..)
        .is_some_and(|rest| rest.iter().all(|&b| b == b'*'))
}

/// Lets something take the place of `name`, which rename alone does not do for a directory.
fn make_room(dir: &File, name: &OsStr) -> Result<()> {
    if is_directory(dir, name)? == Some(true) {
        remove_entry(dir, name)?;
    }
    Ok(())
}

/// Whether it is a directory; `None` if there is nothing.
fn is_directory(dir: &File, name: &OsStr) -> Result<Option<bool>> {
    use nix::fcntl::AtFlags;
    match nix::sys::stat::fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(kind_of(&stat) == SFlag::S_IFDIR)),
        Err(Errno::ENOENT) => Ok(None),
        Err(e) => Err(e).context("looking at it"),
    }
}

/// Removes `name` in `dir` with all that is in it. Tells whether there was anything.
fn remove_entry(dir: &File, name: &OsStr) -> Result<bool> {
    match is_directory(dir, name)? {
        None => Ok(false),
        Some(false) => {
            unlinkat(dir, name, UnlinkatFlags::NoRemoveDir).context("removing it")?;
            Ok(true)
        }
        Some(true) => {
            empty_entry(dir, name)?;
            unlinkat(dir, name, UnlinkatFlags::RemoveDir).context("removing it")?;
            Ok(true)
        }
    }
}

/// Truncates a file, removes what is in a directory. Tells whether there was anything.
fn empty_entry(dir: &File, name: &OsStr) -> Result<bool> {
    match is_directory(dir, name)? {
        None => Ok(false),
        Some(true) => {
            let inner = enter(dir, name)?
                .with_context(|| format!("something is mounted on {}", name.display()))?;
            empty_directory(&inner)
        }
        Some(false) => {
            let stat = stat_at(dir, name)?;
            if kind_of(&stat) != SFlag::S_IFREG || stat.st_size == 0 {
                return Ok(false);
            }
            let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            let file = File::from(openat(dir, name, flags, Mode::empty()).context("opening it")?);
            file.set_len(0).context("emptying it")?;
            Ok(true)
        }
    }
}

/// Removes everything in `dir`. A directory in it gives its own directories to `dir` before it goes,
/// so that a tree of any depth is removed with two open directories and without recursion.
fn empty_directory(dir: &File) -> Result<bool> {
    let mut had = false;
    let mut moved = 0_u64;
    loop {
        let found = entries(dir)?;
        if found.is_empty() {
            return Ok(had);
        }
        had = true;
        for entry in found {
            if is_directory(dir, &entry.name)? != Some(true) {
                unlinkat(dir, entry.name.as_os_str(), UnlinkatFlags::NoRemoveDir)?;
                continue;
            }
            let inner = enter(dir, &entry.name)?
                .with_context(|| format!("something is mounted on {}", entry.name.display()))?;
            for below in entries(&inner)? {
                if is_directory(&inner, &below.name)? == Some(true) {
                    let free = free_name(dir, &mut moved)?;
                    renameat(&inner, below.name.as_os_str(), dir, free.as_os_str())?;
                } else {
                    unlinkat(&inner, below.name.as_os_str(), UnlinkatFlags::NoRemoveDir)?;
                }
            }
            unlinkat(dir, entry.name.as_os_str(), UnlinkatFlags::RemoveDir)?;
        }
    }
}

fn free_name(dir: &File, moved: &mut u64) -> Result<OsString> {
    loop {
        *moved += 1;
        let name = OsString::from(format!(".netroot-removed-{moved}"));
        if is_directory(dir, &name)?.is_none() {
            return Ok(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("usr/lib")).unwrap();
        fs::create_dir(dir.path().join("host")).unwrap();
        fs::write(dir.path().join("host/kept"), "host").unwrap();
        symlink("usr/lib", tree.join("lib")).unwrap();
        symlink("/etc", tree.join("outward")).unwrap();
        symlink("../../host", tree.join("usr/upward")).unwrap();
        let root = Root::open(&tree).unwrap();
        (dir, root)
    }

    #[test]
    fn writes_follow_links_inside_of_the_tree_only() {
        let (dir, root) = tree();
        let tree = dir.path().join("tree");
        root.write("/lib/systemd/a.service", b"unit", 0o600)
            .unwrap();
        assert_eq!(
            fs::read(tree.join("usr/lib/systemd/a.service")).unwrap(),
            b"unit"
        );
        // The link names the tree's own /etc, which is not there, and is not made through a link.
        assert!(root.write("/outward/passwd", b"x", 0o644).is_err());
        root.write("/lib/again", b"1", 0o644).unwrap();
        root.write("/lib/again", b"2", 0o755).unwrap();
        assert_eq!(fs::read(tree.join("usr/lib/again")).unwrap(), b"2");
        root.link("/lib/again", "/run/x").unwrap();
        assert_eq!(
            fs::read_link(tree.join("usr/lib/again")).unwrap(),
            Path::new("/run/x")
        );
        root.write("/lib/again", b"3", 0o644).unwrap();
        assert_eq!(fs::read(tree.join("usr/lib/again")).unwrap(), b"3");
    }

    #[test]
    fn what_is_so_already_is_told_without_following_links() {
        let (dir, root) = tree();
        let tree = dir.path().join("tree");
        assert!(!root.is_link("/etc/iscsi/name", "/run/name").unwrap());
        root.link("/lib/name", "/run/name").unwrap();
        assert!(root.is_link("/lib/name", "/run/name").unwrap());
        assert!(!root.is_link("/lib/name", "/run/other").unwrap());
        assert!(!root.is_file("/lib/name", b"", 0o644).unwrap());
        root.write("/lib/file", b"text", 0o600).unwrap();
        assert!(root.is_file("/lib/file", b"text", 0o600).unwrap());
        assert!(!root.is_file("/lib/file", b"text", 0o644).unwrap());
        assert!(!root.is_file("/lib/file", b"else", 0o600).unwrap());
        assert!(!root.is_link("/lib/file", "text").unwrap());
        symlink("file", tree.join("usr/lib/to-file")).unwrap();
        assert!(!root.is_file("/lib/to-file", b"text", 0o600).unwrap());
        assert!(!root.is_file("/lib", b"", 0o755).unwrap());
    }

    #[test]
    fn what_matches_is_removed_and_nothing_outside() {
        let (dir, root) = tree();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("usr/lib/a/b/c")).unwrap();
        fs::write(tree.join("usr/lib/a/b/c/file"), "x").unwrap();
        fs::write(tree.join("usr/lib/.hidden"), "x").unwrap();
        symlink("../../../host/kept", tree.join("usr/lib/link")).unwrap();
        assert_eq!(root.remove("/usr/upward/kept").unwrap(), 0);
        assert_eq!(root.empty("/lib/link").unwrap(), 0);
        assert_eq!(root.remove("/lib/*").unwrap(), 2);
        assert_eq!(fs::read(dir.path().join("host/kept")).unwrap(), b"host");
        assert_eq!(fs::read_dir(tree.join("usr/lib")).unwrap().count(), 1);
        assert_eq!(root.remove("/no/such/*").unwrap(), 0);
        assert_eq!(root.empty("/usr").unwrap(), 1);
        assert_eq!(fs::read_dir(tree.join("usr")).unwrap().count(), 0);
    }

    #[test]
    fn a_tree_of_any_depth_is_removed() {
        let (dir, root) = tree();
        let mut at = File::open(dir.path().join("tree")).unwrap();
        for _ in 0..3000 {
            mkdirat(&at, "deep-directory", DIRECTORY).unwrap();
            at = enter(&at, OsStr::new("deep-directory")).unwrap().unwrap();
        }
        drop(at);
        assert_eq!(root.remove("/deep-*").unwrap(), 1);
        assert!(!dir.path().join("tree/deep-directory").exists());
    }

    #[test]
    fn wildcards_are_those_of_a_shell() {
        let check = |pattern: &str, name: &str| fits(pattern.as_bytes(), name.as_bytes());
        assert!(check("ssh_host_*", "ssh_host_rsa_key"));
        assert!(check("*_key*", "ssh_host_rsa_key.pub"));
        assert!(check("a?c", "abc") && !check("a?c", "ac"));
        assert!(!check("*", ".hidden") && check(".*", ".hidden"));
        assert!(check("*a*b", "xxaxxaxb") && !check("*a*b", "xxaxxax"));
    }
}
