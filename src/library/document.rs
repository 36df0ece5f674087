//! Documents: JSON files that are written whole or not at all.
//!
//! A writer names the revision that it changed (compare and swap), under the write lock. Readers need
//! no lock: a rename shows them the old document or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{Doing, Error, Result};
use super::lock::WriteLock;
use super::owner;

/// What is kept in a document of its own.
pub(crate) trait Document: Serialize + DeserializeOwned {
    /// The revision that was read; 0 for a document that was never written.
    fn revision(&mut self) -> &mut u64;

    /// Who may read the file.
    const PERMISSIONS: u32 = 0o644;
}

/// Begins the names of temporary files, so that what a killed writer leaves is known for what it is.
const TEMPORARY: &str = ".tmp-";

/// Reads a document, if it is there.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::Document {
                path: path.to_owned(),
                source,
            }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing("reading", path),
    }
}

/// Writes `document` over the revision that it was read as, durably, and counts the revision up.
pub(crate) fn write<T: Document>(lock: &WriteLock, path: &Path, document: &mut T) -> Result<()> {
    let found = match read::<T>(path)? {
        Some(mut there) => *there.revision(),
        None => 0,
    };
    let expected = *document.revision();
    if found != expected {
        return Err(Error::Conflict {
            path: path.to_owned(),
            expected,
            found,
        });
    }
    *document.revision() = expected + 1;
    put_as(lock, path, document, T::PERMISSIONS).inspect_err(|_| *document.revision() = expected)
}

/// Writes a document that has no revision of its own, durably.
pub(crate) fn put<T: Serialize>(lock: &WriteLock, path: &Path, document: &T) -> Result<()> {
    put_as(lock, path, document, 0o644)
}

fn put_as<T: Serialize>(_: &WriteLock, path: &Path, document: &T, permissions: u32) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(document).map_err(|source| Error::Document {
        path: path.to_owned(),
        source,
    })?;
    text.push(b'\n');
    replace(path, &text, permissions)
}

/// Removes a document, durably. It may be gone already.
pub(crate) fn remove(_: &WriteLock, path: &Path) -> Result<()> {
    match owner::acting_for(parent(path), || fs::remove_file(path)) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).doing("removing", path),
    }
}

/// Puts `bytes` in the place of `path`: synced and renamed, so that after a crash either the old
/// content is there or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8], permissions: u32) -> Result<()> {
    let home = parent(path);
    let temporary = temporary_beside(path);
    let written = owner::acting_for(home, || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(permissions)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    if let Err(error) = written {
        // The first error is the one to tell; a file that cannot be removed is swept later.
        let _ = owner::acting_for(home, || fs::remove_file(&temporary));
        return Err(error).doing("writing", path);
    }
    sync_parent(path)
}

/// Makes names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .doing("syncing", dir)
}

/// The names of the documents in `dir` (their files without `.json`), sorted.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = entries(dir)?
        .into_iter()
        .filter(|name| !name.starts_with('.'))
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}

/// Names in `dir` that are UTF-8; nothing that the library makes is not. A missing one is empty.
pub(crate) fn entries(dir: &Path) -> Result<Vec<String>> {
    let list = match fs::read_dir(dir) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).doing("listing", dir),
    };
    let mut names = Vec::new();
    for entry in list {
        let entry = entry.doing("listing", dir)?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

/// Removes temporary files of writers that were killed. Nobody else writes while the lock is held.
pub(crate) fn sweep(_: &WriteLock, dir: &Path) -> Result<Vec<PathBuf>> {
    let mut swept = Vec::new();
    for name in entries(dir)? {
        if name.starts_with(TEMPORARY) {
            let path = dir.join(name);
            fs::remove_file(&path).doing("removing", &path)?;
            swept.push(path);
        }
    }
    Ok(swept)
}

fn temporary_beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{TEMPORARY}{name}"))
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn sync_parent(path: &Path) -> Result<()> {
    sync_dir(parent(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    struct Note {
        revision: u64,
        text: String,
    }

    impl Document for Note {
        fn revision(&mut self) -> &mut u64 {
            &mut self.revision
        }
    }

    fn place() -> (tempfile::TempDir, WriteLock, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("lock");
        File::create(&lock).unwrap();
        let path = dir.path().join("note.json");
        (dir, WriteLock::take(&lock).unwrap(), path)
    }

    fn note(text: &str) -> Note {
        Note {
            revision: 0,
            text: text.into(),
        }
    }

    #[test]
    fn a_writer_who_read_an_older_revision_is_refused() {
        let (_dir, lock, path) = place();
        write(&lock, &path, &mut note("first")).unwrap();
        let mut mine: Note = read(&path).unwrap().unwrap();
        let mut theirs: Note = read(&path).unwrap().unwrap();
        theirs.text = "theirs".into();
        write(&lock, &path, &mut theirs).unwrap();
        mine.text = "mine".into();
        let refused = write(&lock, &path, &mut mine);
        assert!(matches!(
            refused,
            Err(Error::Conflict {
                expected: 1,
                found: 2,
                ..
            })
        ));
        assert_eq!(read::<Note>(&path).unwrap().unwrap().text, "theirs");
        assert!(matches!(
            write(&lock, &path, &mut note("new")),
            Err(Error::Conflict { .. })
        ));
    }

    #[test]
    fn a_document_that_cannot_be_understood_is_not_overwritten() {
        let (_dir, lock, path) = place();
        fs::write(&path, "{").unwrap();
        assert!(matches!(
            write(&lock, &path, &mut note("x")),
            Err(Error::Document { .. })
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), "{");
    }

    #[test]
    fn what_a_killed_writer_left_is_swept_and_never_listed() {
        let (dir, lock, path) = place();
        fs::write(temporary_beside(&path), "half").unwrap();
        assert!(names(dir.path()).unwrap().is_empty());
        assert_eq!(sweep(&lock, dir.path()).unwrap(), [temporary_beside(&path)]);
        assert!(sweep(&lock, dir.path()).unwrap().is_empty());
    }
}
