//! A file that is read and written past the page cache (O_DIRECT).

use std::fs::File;
use std::io;

use bytes::Bytes;

use super::Run;
use super::backing::{Backing, Punch, cannot_punch, pieces, write_whole};

/// Alignment of memory: no device and no file system asks for more than a page.
const ALIGN: usize = 4096;

/// A file that was opened with O_DIRECT. Offsets and lengths are multiples of what its storage wants.
pub(super) struct Direct(File);

impl Direct {
    pub(super) fn new(file: File) -> Self {
        Direct(file)
    }
}

/// Memory that begins at a page, inside of some that does not.
struct Bounce {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Bounce {
    fn new(len: usize) -> Self {
        let memory = vec![0; len + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN).min(ALIGN);
        Bounce { memory, start, len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        let rest = self.memory.split_at_mut(self.start).1;
        rest.split_at_mut(self.len).0
    }

    fn freeze(self) -> Bytes {
        // The memory does not move: a vector becomes shared bytes in its place.
        Bytes::from(self.memory).slice(self.start..self.start + self.len)
    }
}

impl Backing for Direct {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut bounce = Bounce::new(buffer.len());
        Backing::read_at(&self.0, bounce.bytes(), offset)?;
        buffer.copy_from_slice(bounce.bytes());
        Ok(())
    }

    fn read_bytes(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut bounce = Bounce::new(len);
        std::os::unix::fs::FileExt::read_exact_at(&self.0, bounce.bytes(), offset)?;
        Ok(bounce.freeze())
    }

    fn read_cached(&self, _: u64, _: usize) -> Option<Bytes> {
        None
    }

    fn write_at(&self, data: &[Bytes], offset: u64) -> io::Result<()> {
        write_whole(&self.0, &[bounced(data)], offset)
    }

    fn write_through(&self, data: &[Bytes], offset: u64) -> io::Result<()> {
        Backing::write_through(&self.0, &[bounced(data)], offset)
    }

    fn runs(&self, offset: u64, len: u64, most: usize) -> io::Result<Vec<Run>> {
        self.0.runs(offset, len, most)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        match self.0.punch_only(offset, len) {
            Err(e) if cannot_punch(&e) => {
                for (at, n) in pieces(offset, len) {
                    self.write_at(&[super::zeros(n)], at)?;
                }
                Ok(())
            }
            result => result,
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// The same data in one aligned piece.
fn bounced(data: &[Bytes]) -> Bytes {
    let mut bounce = Bounce::new(data.iter().map(Bytes::len).sum());
    let mut rest = bounce.bytes();
    for part in data {
        let (head, tail) = rest.split_at_mut(part.len());
        head.copy_from_slice(part);
        rest = tail;
    }
    bounce.freeze()
}
