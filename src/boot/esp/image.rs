//! An EFI system partition as a file: a disk image that is written to a stick.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use fatfs::{Dir, FatType, FileSystem, FormatVolumeOptions, FsOptions, format_volume};

use super::check::{Opened, Tree};
use super::dots::straightened;
use super::{Esp, EspError, EspFile, gpt};

/// FAT32 is told by at least so many clusters (Microsoft's FAT specification 1.03, "FAT Type
/// Determination"), and a few more keep clear of readers that count them in another way.
const CLUSTERS: u64 = 65_525 + 64;
/// The largest cluster that is used: less room is lost behind small files, and firmware reads whole runs.
const LARGEST_CLUSTER: u32 = 4096;
/// Names in one directory that are looked at.
const NAMES: usize = 4096;

impl Esp {
    /// Bytes of the image that [`Esp::write_image`] makes.
    ///
    /// # Errors
    /// When a file that would be copied cannot be looked at.
    pub fn image_size(&self) -> Result<u64, EspError> {
        Ok(gpt::disk_size(partition_size(self.size()?)))
    }

    /// Writes the whole partition into the image `file`, with a partition table before it: beside it
    /// first, then in its place.
    ///
    /// # Errors
    /// When something could not be read or written; what was at `file` is as it was.
    pub fn write_image(&self, file: &Path) -> Result<(), EspError> {
        let size = self.image_size()?;
        let written = super::replaced(file, |disk| {
            disk.set_len(size)?;
            let place = gpt::write(disk, size)?;
            self.fill(&mut Part::of(disk, place))
        });
        written.map_err(|error| EspError::new(file, error))
    }

    fn size(&self) -> Result<u64, EspError> {
        let sizes = self.files.iter().map(|file| {
            let size = file.size();
            size.map_err(|error| EspError::new(&file.path, error))
        });
        sizes.sum()
    }

    fn fill(&self, part: &mut Part<'_>) -> io::Result<()> {
        let clusters = cluster_size(part.len());
        let mut id = [0; 4];
        getrandom::fill(&mut id).map_err(io::Error::other)?;
        let options = FormatVolumeOptions::new()
            .fat_type(FatType::Fat32)
            .bytes_per_cluster(clusters)
            .volume_id(u32::from_le_bytes(id))
            .volume_label(*b"NETROOT ESP");
        format_volume(&mut *part, options)?;
        part.seek(SeekFrom::Start(0))?;
        let system = FileSystem::new(&mut *part, FsOptions::new())?;
        // Asked for, they are counted, and from then on kept: else nobody knows how many are free.
        system.stats()?;
        for file in &self.files {
            copy_in(&system.root_dir(), file)?;
        }
        system.unmount()?;
        straightened(part)
    }
}

fn copy_in(root: &Dir<'_, &mut Part<'_>>, file: &EspFile) -> io::Result<()> {
    let mut dir = root.clone();
    for name in file.path.parent().into_iter().flat_map(Path::iter) {
        dir = dir.create_dir(&name.to_string_lossy())?;
    }
    let name = file.path.file_name().unwrap_or_default().to_string_lossy();
    let mut to = dir.create_file(&name)?;
    to.truncate()?;
    file.copy_to(&mut to)?;
    to.flush()
}

/// Bytes of a partition for files of `bytes` in all: the clusters behind them that are not full, the
/// tables of FAT, and enough of both for the type to be told.
fn partition_size(bytes: u64) -> u64 {
    let least = CLUSTERS * 512 + (2 << 20);
    let tables = bytes / 64;
    (bytes + tables + (2 << 20))
        .max(least)
        .next_multiple_of(1 << 20)
}

/// The largest cluster by which a partition of `size` bytes has enough of them.
fn cluster_size(size: u64) -> u32 {
    let mut cluster = LARGEST_CLUSTER;
    // The tables, two entries of four bytes for each cluster, take their room first.
    while cluster > 512 && size / (u64::from(cluster) + 8) < CLUSTERS + 64 {
        cluster /= 2;
    }
    cluster
}

/// A partition in an image, in a device, or a device that is one.
#[derive(Debug)]
pub struct Partition {
    file: File,
    place: Range<u64>,
}

impl Partition {
    /// Opens the EFI system partition in the image or device at `path`, for reading.
    ///
    /// # Errors
    /// When it cannot be read, or has a partition table without such a partition.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let end = file.seek(SeekFrom::End(0))?;
        let place = gpt::find(&file)?.unwrap_or(0..end);
        if place.end > end {
            return Err(io::Error::other(
                "it is cut off: its EFI system partition ends behind its end",
            ));
        }
        Ok(Self { file, place })
    }

    fn with<T>(
        &self,
        look: impl FnOnce(&Dir<'_, &mut Part<'_>>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut part = Part::of(&self.file, self.place.clone());
        let system = FileSystem::new(&mut part, FsOptions::new())?;
        look(&system.root_dir())
    }
}

impl Tree for Partition {
    fn read(&self, path: &Path, look: &mut Opened<'_>) -> io::Result<()> {
        self.with(|root| {
            let name = path.to_string_lossy();
            match root.open_file(&name) {
                Ok(mut file) => {
                    let size = file.seek(SeekFrom::End(0))?;
                    file.seek(SeekFrom::Start(0))?;
                    look(size, &mut file)
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.with(|root| {
            let dir = match root.open_dir(&dir.to_string_lossy()) {
                Ok(dir) => dir,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            };
            let names = dir.iter().take(NAMES).filter_map(|entry| match entry {
                Ok(entry) => entry.is_file().then(|| Ok(entry.file_name())),
                Err(error) => Some(Err(error)),
            });
            names.collect()
        })
    }
}

/// A range of a file as a file of its own. It can be read a few times over and no more: a file system
/// whose chains go in circles comes to an end, too.
struct Part<'f> {
    file: &'f File,
    place: Range<u64>,
    at: u64,
    budget: Cell<u64>,
}

impl<'f> Part<'f> {
    fn of(file: &'f File, place: Range<u64>) -> Self {
        let length = place.end.saturating_sub(place.start);
        Self {
            file,
            at: 0,
            budget: Cell::new(length.saturating_mul(4).saturating_add(64 << 20)),
            place,
        }
    }

    fn len(&self) -> u64 {
        self.place.end.saturating_sub(self.place.start)
    }

    /// Where in the file, and how much of `wanted` bytes there is.
    fn here(&self, wanted: usize) -> (u64, usize) {
        let left = self.len().saturating_sub(self.at);
        let there = usize::try_from(left).unwrap_or(usize::MAX).min(wanted);
        (self.place.start.saturating_add(self.at), there)
    }
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (at, there) = self.here(buffer.len());
        let read = self
            .file
            .read_at(buffer.get_mut(..there).unwrap_or_default(), at)?;
        let spent = (read as u64).max(1);
        let Some(left) = self.budget.get().checked_sub(spent) else {
            return Err(io::Error::other(
                "its file system goes in circles: check it by fsck.fat",
            ));
        };
        self.budget.set(left);
        self.at += read as u64;
        Ok(read)
    }
}

impl Write for Part<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (at, there) = self.here(bytes.len());
        let written = self
            .file
            .write_at(bytes.get(..there).unwrap_or_default(), at)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Part<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let moved = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = moved.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_every_size_are_fat32() {
        for bytes in [
            0,
            1,
            40 << 20,
            70 << 20,
            200 << 20,
            300 << 20,
            900 << 20,
            3 << 30,
        ] {
            let size = partition_size(bytes);
            let clusters = size / (u64::from(cluster_size(size)) + 8);
            assert!(clusters > CLUSTERS, "{bytes}: {clusters} clusters");
            assert!(size > bytes + bytes / 128);
        }
        assert_eq!(cluster_size(partition_size(900 << 20)), 4096);
        assert_eq!(cluster_size(partition_size(1)), 512);
    }

    #[test]
    fn what_goes_in_circles_comes_to_an_end() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let mut part = Part::of(&file, 0..1 << 20);
        let mut buffer = vec![0; 1 << 20];
        let mut rounds = 0;
        let told = loop {
            part.seek(SeekFrom::Start(0)).unwrap();
            match part.read(&mut buffer) {
                Ok(_) => rounds += 1,
                Err(error) => break error.to_string(),
            }
            assert!(rounds < 1000);
        };
        assert!(told.contains("circles"), "{told}");
    }
}
