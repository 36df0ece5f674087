//! Hashes of disks: SHA-256 of each chunk of 4 MiB, in parallel; holes cost nothing.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek64};
use sha2::{Digest, Sha256};

use crate::library::error::{Doing, Error, Result};
use crate::library::manifest::{ChunkHashes, DiskFacts, FileFacts, Hash};
use crate::library::progress::Progress;

/// Bytes of a chunk.
pub(crate) const CHUNK: u64 = 4 << 20;

/// Why hashing stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stopped {
    #[error("interrupted")]
    Cancelled,
    #[error(transparent)]
    Failed(#[from] io::Error),
}

impl Stopped {
    /// Says what was being done, to what.
    pub(super) fn at(self, what: &str, path: &Path) -> Error {
        match self {
            Stopped::Cancelled => Error::Cancelled,
            Stopped::Failed(source) => Error::Io {
                doing: format!("{what} {}", path.display()),
                source,
            },
        }
    }
}

/// Hashes the disk at `path`, which nobody writes. `name` is what people call it.
pub(crate) fn hash_path(
    path: &Path,
    name: &str,
    block_size: u32,
    progress: &dyn Progress,
) -> Result<DiskFacts> {
    let file = File::open(path).doing("opening", path)?;
    let size = file.metadata().doing("reading", path)?.len();
    progress.step(&format!("hashing {name}"), Some(size));
    hash_disk(&file, block_size, progress).map_err(|stopped| stopped.at("hashing", path))
}

fn hash_disk(
    file: &File,
    block_size: u32,
    progress: &dyn Progress,
) -> std::result::Result<DiskFacts, Stopped> {
    let metadata = file.metadata()?;
    let size = metadata.len();
    let hashes = hash_chunks(file, size, progress)?;
    let mut root = Sha256::new();
    root.update(size.to_be_bytes());
    let zeros = ZeroHashes::new(size);
    for (index, hash) in (0_u64..).zip(&hashes) {
        root.update(hash.unwrap_or(zeros.of(index)).0);
    }
    Ok(DiskFacts {
        size,
        allocated: metadata.blocks() * 512,
        block_size,
        root: Hash(root.finalize().into()),
        chunks: ChunkHashes::collect(hashes),
    })
}

/// Hashes a whole file.
pub(crate) fn hash_reader(reader: &mut dyn Read) -> io::Result<FileFacts> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            n => {
                hasher.update(buffer.get(..n).unwrap_or_default());
                size += n as u64;
            }
        }
    }
    Ok(FileFacts {
        size,
        sha256: Hash(hasher.finalize().into()),
    })
}

/// The hash of each chunk in order, `None` for one of zeros.
fn hash_chunks(
    file: &File,
    size: u64,
    progress: &dyn Progress,
) -> std::result::Result<Vec<Option<Hash>>, Stopped> {
    let count = size.div_ceil(CHUNK);
    let zeros = ZeroHashes::new(size);
    let next = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get().min(16));
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let (send, next, zeros) = (send.clone(), &next, &zeros);
            scope.spawn(move || {
                let result = work(file, size, next, zeros, progress, &send);
                if let Err(stopped) = result {
                    next.store(u64::MAX / 2, Ordering::Relaxed); // the others stop at their next chunk
                    let _ = send.send(Err(stopped));
                }
            });
        }
        drop(send);
        let mut hashes = vec![None; usize::try_from(count).map_err(io::Error::other)?];
        for result in receive {
            let (index, hash): (u64, Hash) = result?;
            if let Some(place) = usize::try_from(index).ok().and_then(|i| hashes.get_mut(i)) {
                *place = Some(hash);
            }
        }
        Ok(hashes)
    })
}

type Found = std::result::Result<(u64, Hash), Stopped>;

/// One worker: takes the next chunk that has data until there is none.
fn work(
    file: &File,
    size: u64,
    next: &AtomicU64,
    zeros: &ZeroHashes,
    progress: &dyn Progress,
    send: &mpsc::Sender<Found>,
) -> std::result::Result<(), Stopped> {
    let mut buffer = vec![0; usize::try_from(CHUNK).map_err(io::Error::other)?];
    loop {
        if progress.cancelled() {
            return Err(Stopped::Cancelled);
        }
        let index = next.fetch_add(1, Ordering::Relaxed);
        let start = index.saturating_mul(CHUNK);
        if start >= size {
            return Ok(());
        }
        let len = CHUNK.min(size - start);
        if has_data(file, start, len)? {
            let bytes = usize::try_from(len)
                .ok()
                .and_then(|len| buffer.get_mut(..len));
            let bytes = bytes.ok_or_else(|| io::Error::other("a chunk larger than its buffer"))?;
            file.read_exact_at(bytes, start)?;
            let hash = Hash(Sha256::digest(&*bytes).into());
            // A written chunk of zeros is the same as a hole: one content has one manifest.
            if hash != zeros.of(index) && send.send(Ok((index, hash))).is_err() {
                return Ok(());
            }
        }
        progress.advance(len);
    }
}

/// Whether anything was ever written there. Moves the file's offset, which nobody uses: reads name
/// theirs. SEEK_DATA answers for itself and does not depend on where the offset was.
fn has_data(file: &File, start: u64, len: u64) -> io::Result<bool> {
    let offset = i64::try_from(start).map_err(io::Error::other)?;
    match lseek64(file.as_fd(), offset, Whence::SeekData) {
        Ok(data) => Ok(u64::try_from(data).is_ok_and(|data| data < start + len)),
        Err(Errno::ENXIO) => Ok(false),
        // A file system without SEEK_DATA: everything counts as data.
        Err(Errno::EINVAL) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Hashes of chunks of zeros: whole ones, and the last one, which may be shorter.
struct ZeroHashes {
    last: u64,
    whole: Hash,
    tail: Hash,
}

impl ZeroHashes {
    fn new(size: u64) -> Self {
        let of = |len: u64| {
            let mut hasher = Sha256::new();
            let block = [0; 4096];
            let mut left = len;
            while left > 0 {
                let n = left.min(block.len() as u64);
                hasher.update(block.get(..n as usize).unwrap_or(&block));
                left -= n;
            }
            Hash(hasher.finalize().into())
        };
        let last = size.div_ceil(CHUNK).saturating_sub(1);
        ZeroHashes {
            last,
            whole: of(CHUNK),
            tail: of(size - last * CHUNK),
        }
    }

    fn of(&self, index: u64) -> Hash {
        if index == self.last {
            self.tail
        } else {
            self.whole
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::progress::Quiet;

    fn facts(write: impl Fn(&File)) -> DiskFacts {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * CHUNK + 1000).unwrap();
        write(&file);
        hash_disk(&file, 512, &Quiet).unwrap()
    }

    #[test]
    fn the_root_is_what_the_design_says() {
        let found = facts(|file| file.write_all_at(b"hello", CHUNK).unwrap());
        let chunk = |len: u64, bytes: &[u8]| {
            let mut chunk = vec![0; len as usize];
            chunk[..bytes.len()].copy_from_slice(bytes);
            <[u8; 32]>::from(Sha256::digest(&chunk))
        };
        let mut all = (3 * CHUNK + 1000).to_be_bytes().to_vec();
        for (len, bytes) in [
            (CHUNK, &b""[..]),
            (CHUNK, b"hello"),
            (CHUNK, b""),
            (1000, b""),
        ] {
            all.extend(chunk(len, bytes));
        }
        assert_eq!(found.root, Hash(Sha256::digest(&all).into()));
        assert_eq!(
            found.chunks.0.len(),
            3,
            "zeros, data, zeros: {:?}",
            found.chunks
        );
    }

    #[test]
    fn holes_and_written_zeros_are_the_same_content() {
        let sparse = facts(|_| ());
        let written = facts(|file| file.write_all_at(&vec![0; 2 * CHUNK as usize], 0).unwrap());
        assert_eq!(sparse.root, written.root);
        assert_eq!(sparse.chunks, written.chunks);
    }

    #[test]
    fn one_changed_byte_changes_the_root() {
        let one = facts(|file| file.write_all_at(&[1], 3 * CHUNK + 999).unwrap());
        let other = facts(|file| file.write_all_at(&[2], 3 * CHUNK + 999).unwrap());
        assert_ne!(one.root, other.root);
    }

    #[test]
    fn an_empty_disk_has_a_root_too() {
        let file = tempfile::tempfile().unwrap();
        let found = hash_disk(&file, 512, &Quiet).unwrap();
        assert_eq!(found.root, Hash(Sha256::digest(0_u64.to_be_bytes()).into()));
    }
}
