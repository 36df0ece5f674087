//! Documents that were read, kept by the identity of their files: a file that is still the same one
//! needs no second look, and neither does a directory whose names are what they were.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::hash::Hash;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::de::DeserializeOwned;

use super::document;
use super::error::{Doing, Result};

/// What was read, by whatever names it.
///
/// For lists, where thousands are looked at and few have changed. Whoever is about to change a
/// document reads the file itself.
#[derive(Debug)]
pub(crate) struct Cache<K, T>(Mutex<HashMap<K, (FileId, Arc<T>)>>);

/// All documents of a directory as they were read last.
///
/// For those who look again and again, and where it is no harm when they see a little late what
/// somebody wrote into a file by hand: documents are replaced by renaming, which changes the directory,
/// so as long as that is what it was nothing in it needs a look.
#[derive(Debug)]
pub(crate) struct Listing<T>(Mutex<Option<Listed<T>>>);

#[derive(Debug)]
struct Listed<T> {
    directory: FileId,
    looked: Instant,
    documents: Arc<[Arc<T>]>,
}

/// What is written into a file as it stands, as an editor or cp(1) does it, the directory does not
/// tell: so the files are looked at this often all the same.
const LOOKED_AT: Duration = Duration::from_secs(5);

/// What tells a file from the one that stood there before: documents are replaced by renaming, so
/// another document is another inode, and one that was used again has another change time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
    changed: (i64, i64),
    size: u64,
}

/// Change times have the grain of the kernel's clock. A file as fresh as this may be replaced by one
/// that has its inode and its change time, so it is not kept yet.
const SETTLES: Duration = Duration::from_millis(100);

impl<K, T> Default for Cache<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, T: DeserializeOwned> Cache<K, T> {
    /// The document at `path`, which `key` names; nothing if there is none.
    pub(crate) fn read(&self, key: K, path: &Path) -> Result<Option<Arc<T>>> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).doing("reading", path),
        };
        let id = FileId::of(&metadata);
        if let Some((known, document)) = self.known().get(&key)
            && *known == id
        {
            return Ok(Some(document.clone()));
        }
        // If the file is replaced between the look and the reading, a newer document is kept under an
        // older id, which is never met again.
        let Some(document) = document::read::<T>(path)?.map(Arc::new) else {
            return Ok(None);
        };
        if has_settled(&metadata, SystemTime::now()) {
            self.known().insert(key, (id, document.clone()));
        }
        Ok(Some(document))
    }

    /// Forgets what is not wanted any more.
    pub(crate) fn retain(&self, wanted: impl Fn(&K) -> bool) {
        self.known().retain(|key, _| wanted(key));
    }

    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        self.known().len()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<K, (FileId, Arc<T>)>> {
        // A poisoned map only means that somebody panicked beside it; what is in it is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Listing<T> {
    /// The documents in `dir`, for which `look` looks if they may have changed.
    pub(crate) fn read(
        &self,
        dir: &Path,
        look: impl FnOnce() -> Result<Vec<Arc<T>>>,
    ) -> Result<Arc<[Arc<T>]>> {
        let metadata = match fs::metadata(dir) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(look()?.into()),
            Err(error) => return Err(error).doing("listing", dir),
        };
        let (directory, looked) = (FileId::of(&metadata), Instant::now());
        if let Some(last) = &*self.last()
            && last.directory == directory
            && looked.duration_since(last.looked) < LOOKED_AT
        {
            return Ok(last.documents.clone());
        }
        // As with a document: what is renamed meanwhile makes it another directory at the next look.
        let documents: Arc<[Arc<T>]> = look()?.into();
        if has_settled(&metadata, SystemTime::now()) {
            *self.last() = Some(Listed {
                directory,
                looked,
                documents: documents.clone(),
            });
        }
        Ok(documents)
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<Listed<T>>> {
        // It is put there in one go.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileId {
    fn of(metadata: &Metadata) -> Self {
        FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            size: metadata.size(),
        }
    }
}

fn has_settled(metadata: &Metadata, now: SystemTime) -> bool {
    let seconds = u64::try_from(metadata.ctime()).unwrap_or(0);
    let nanos = u32::try_from(metadata.ctime_nsec()).unwrap_or(0);
    let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
    now.duration_since(changed).is_ok_and(|age| age >= SETTLES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changed_is_read_anew_and_one_that_went_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number.json");
        let cache: Cache<&str, u64> = Cache::default();
        let read = || cache.read("n", &path).unwrap().map(|number| *number);
        assert_eq!(read(), None);
        for number in 10..60 {
            document::replace(&path, number.to_string().as_bytes(), 0o644).unwrap();
            assert_eq!(read(), Some(number), "whatever inode it got");
        }
        std::thread::sleep(SETTLES * 2);
        assert_eq!((read(), cache.len()), (Some(59), 1));
        assert_eq!(read(), Some(59));
        document::replace(&path, b"7", 0o644).unwrap();
        assert_eq!(read(), Some(7));
        fs::remove_file(&path).unwrap();
        assert_eq!(read(), None);
        cache.retain(|_| false);
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn a_file_that_still_stands_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number.json");
        document::replace(&path, b"1", 0o644).unwrap();
        std::thread::sleep(SETTLES * 2);
        let cache: Cache<(), u64> = Cache::default();
        let first = cache.read((), &path).unwrap().unwrap();
        let second = cache.read((), &path).unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[test]
    fn a_directory_that_is_what_it_was_is_not_looked_into() {
        let dir = tempfile::tempdir().unwrap();
        let path = |n: u64| dir.path().join(format!("{n}.json"));
        let (cache, listing) = (Cache::<String, u64>::default(), Listing::<u64>::default());
        let looks = std::cell::Cell::new(0);
        let list = || {
            let look = || {
                looks.set(looks.get() + 1);
                let names = document::names(dir.path())?.into_iter();
                let read = |name: String| {
                    let path = dir.path().join(format!("{name}.json"));
                    cache.read(name, &path).transpose()
                };
                names.filter_map(read).collect()
            };
            let list = listing.read(dir.path(), look).unwrap();
            list.iter().map(|number| **number).collect::<Vec<_>>()
        };
        for number in 1..30 {
            document::replace(&path(1), number.to_string().as_bytes(), 0o644).unwrap();
            assert_eq!(list(), [number], "however quickly it changes");
        }
        std::thread::sleep(SETTLES * 2);
        assert_eq!(list(), [29]);
        looks.set(0);
        assert_eq!((list(), looks.get()), (vec![29], 0));
        document::replace(&path(2), b"30", 0o644).unwrap();
        assert_eq!((list(), looks.get()), (vec![29, 30], 1));
        std::thread::sleep(SETTLES * 2);
        list();
        fs::remove_file(path(1)).unwrap();
        assert_eq!(list(), [30]);
    }
}
