//! The formats that disks of virtual machines come in, and qemu-img, which reads them.
//!
//! Such a file may name others: a backing file, a file with the data, extents. Whoever made it would
//! then choose what of this host is read by root and ends up in an image. So the format is told from
//! the first bytes by us and never guessed by qemu-img (what a raw disk begins with is up to whoever
//! wrote to it), and files that name others are refused.

use std::fmt;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::bytes::{be32, be64, le64, part};
use super::content::HEAD;
use crate::exec::{Cancel, Program};
use crate::library::{BLOCK_SIZE, Draft, Progress};

/// The format of a file that holds a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// The disk, byte for byte.
    Raw,
    /// QEMU's own.
    Qcow2,
    /// VMware's, in one file.
    Vmdk,
    /// Hyper-V's.
    Vhdx,
}

/// A format that cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a format that can be imported: give raw, qcow2, vmdk or vhdx")]
pub struct UnknownFormat(String);

/// A file that was found to be of a format, and safe to be read by qemu-img.
#[derive(Debug)]
pub(crate) struct Container<'a> {
    path: &'a Path,
    file: &'a File,
    pub(super) format: DiskFormat,
    /// Bytes of the disk in it.
    pub(super) size: u64,
    /// Bytes that the file takes.
    pub(super) allocated: u64,
    seen: Identity,
}

/// A file as it was when it was looked at: device, inode, size, and when it was changed.
#[derive(Debug, PartialEq, Eq)]
struct Identity(u64, u64, u64, [i64; 4]);

/// What `qemu-img info --output=json` tells that is of interest here.
#[derive(Deserialize)]
struct Info {
    #[serde(rename = "virtual-size")]
    size: u64,
    #[serde(rename = "backing-filename")]
    backing: Option<String>,
    #[serde(default)]
    encrypted: bool,
}

/// How each format begins; what begins otherwise is raw.
const MAGICS: &[(&[u8], DiskFormat)] = &[
    (b"QFI\xfb", DiskFormat::Qcow2),
    (b"KDMV", DiskFormat::Vmdk),
    (b"vhdxfile", DiskFormat::Vhdx),
];

/// Formats that are not taken, and what to do about them.
const REFUSED: &[(usize, &[u8], &str)] = &[
    (
        0,
        b"# Disk DescriptorFile",
        "the descriptor of a VMware disk, whose data is in other files",
    ),
    (0, b"COWD", "a VMware disk of an old kind"),
    (0, b"conectix", "a dynamic VHD, the format before VHDX"),
    (0, b"QED\0", "a disk in QEMU's abandoned format QED"),
    (64, b"\x7f\x10\xda\xbe", "a VirtualBox disk (VDI)"),
    (0, b"WithoutFreeSpace", "a Parallels disk"),
    (0, b"WithouFreSpacExt", "a Parallels disk"),
];

impl DiskFormat {
    /// Its name, for qemu-img and people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhdx => "vhdx",
        }
    }
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DiskFormat {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        [Self::Raw, Self::Qcow2, Self::Vmdk, Self::Vhdx]
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}

impl<'a> Container<'a> {
    /// Finds out what `file` is, unless that is said, and how large the disk in it is.
    pub(super) fn open(
        path: &'a Path,
        file: &'a File,
        said: Option<DiskFormat>,
        cancel: &Cancel,
    ) -> Result<Self> {
        let seen = Identity::of(file)?;
        let head = head(file)?;
        let format = match said {
            Some(format) => format,
            None => detect(&head)?,
        };
        let mut container = Self {
            path,
            file,
            format,
            size: seen.2,
            allocated: file.metadata()?.blocks() * 512,
            seen,
        };
        if format == DiskFormat::Raw {
            return Ok(container);
        }
        ensure!(
            begins_as(&head, format),
            "it is no {format}: it does not begin as one does"
        );
        match format {
            DiskFormat::Qcow2 => refuse_qcow2(&head)?,
            DiskFormat::Vmdk => refuse_vmdk(file, &head)?,
            // qemu-img knows no differencing VHDX, and refuses it.
            DiskFormat::Vhdx | DiskFormat::Raw => {}
        }
        let info = Program::new("qemu-img").args(["info", "--output=json"]);
        let info = info.arg(container.node()?).cancel(cancel).run()?;
        let info: Info =
            serde_json::from_slice(&info.stdout).context("reading what qemu-img info tells")?;
        // The second look, at what qemu-img understood.
        ensure!(
            info.backing.is_none(),
            "{}",
            names_another("a backing file")
        );
        ensure!(!info.encrypted, ENCRYPTED);
        container.size = info.size;
        Ok(container)
    }

    /// The first bytes of the disk in it.
    pub(super) fn disk_head(&self, cancel: &Cancel) -> Result<Vec<u8>> {
        if self.format == DiskFormat::Raw {
            return head(self.file);
        }
        let dir = tempfile::tempdir().context("making a temporary directory")?;
        let part = dir.path().join("head");
        let len = self.size.min(HEAD as u64);
        let window = serde_json::json!({
            "driver": "raw", "offset": 0, "size": len, "file": self.options()?,
        });
        Program::new("qemu-img")
            .args(["convert", "-O", "raw"])
            .arg(format!("json:{window}"))
            .arg(&part)
            .cancel(cancel)
            .run()?;
        std::fs::read(&part).context("reading the beginning of the disk")
    }

    /// Makes the disk in it the draft's.
    pub(crate) fn copy_to(
        &self,
        draft: &Draft<'_>,
        cancel: &Cancel,
        progress: &dyn Progress,
    ) -> Result<()> {
        if self.format == DiskFormat::Raw {
            draft.copy_file(self.file, self.path, progress)?;
            return Ok(());
        }
        draft.create_sparse(self.size.next_multiple_of(u64::from(BLOCK_SIZE)))?;
        self.convert(&draft.disk_path(), cancel, progress)
            .with_context(|| format!("converting {}", self.path.display()))
    }

    /// Writes the disk to `target`, which is a sparse file of its size.
    fn convert(&self, target: &Path, cancel: &Cancel, progress: &dyn Progress) -> Result<()> {
        let what = format!("converting {}", self.path.display());
        progress.step(&what, Some(self.size));
        let mut told = 0;
        Program::new("qemu-img")
            .args(["convert", "-p", "-n", "--target-is-zero", "-O", "raw"])
            .arg(self.node()?)
            .arg(target)
            .cancel(cancel)
            .stream_updates(&mut |line| {
                if let Some(done) = percent(&line.text()).map(|part| part.of(self.size)) {
                    progress.advance(done.saturating_sub(told));
                    told = told.max(done);
                }
            })?;
        progress.advance(self.size.saturating_sub(told));
        Ok(())
    }

    /// Refuses a file that somebody wrote to since it was looked at.
    pub(crate) fn ensure_unchanged(&self) -> Result<()> {
        let now = File::open(self.path).with_context(|| format!("opening {}", self.path.display()));
        ensure!(
            Identity::of(&now?)? == self.seen,
            "somebody changed {} while it was read: import it again when nobody writes to it",
            self.path.display()
        );
        Ok(())
    }

    /// How qemu-img is told of it: nothing is left to be guessed, and no name in it is followed.
    fn node(&self) -> Result<String> {
        Ok(format!("json:{}", self.options()?))
    }

    fn options(&self) -> Result<serde_json::Value> {
        // By descriptor: what stands behind a path may be another file by the time that qemu-img looks,
        // and one that names further files.
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd());
        let mut options = serde_json::json!({
            "driver": self.format.name(),
            "file": { "driver": "file", "filename": path },
        });
        if let (DiskFormat::Qcow2 | DiskFormat::Vmdk, Some(map)) =
            (self.format, options.as_object_mut())
        {
            map.insert("backing".into(), serde_json::Value::Null);
        }
        Ok(options)
    }
}

impl Identity {
    fn of(file: &File) -> Result<Self> {
        let found = file.metadata().context("looking at the file")?;
        ensure!(found.is_file(), "it is not a file");
        let times = [
            found.mtime(),
            found.mtime_nsec(),
            found.ctime(),
            found.ctime_nsec(),
        ];
        Ok(Self(found.dev(), found.ino(), found.len(), times))
    }
}

const ENCRYPTED: &str = "the disk in it is encrypted: decrypt it first (`qemu-img convert`)";

fn names_another(what: &str) -> String {
    format!(
        "it is not whole: it has {what}, and what that names is not read. Make one file of it where \
         it comes from: `qemu-img convert -O qcow2 IT WHOLE.qcow2`"
    )
}

fn head(file: &File) -> Result<Vec<u8>> {
    let len = file.metadata()?.len().min(HEAD as u64);
    let mut head = vec![0; usize::try_from(len)?];
    file.read_exact_at(&mut head, 0)
        .context("reading its beginning")?;
    Ok(head)
}

fn detect(head: &[u8]) -> Result<DiskFormat> {
    if let Some((.., what)) = REFUSED
        .iter()
        .find(|(at, magic, _)| part(head, *at, magic.len()) == Some(*magic))
    {
        bail!(
            "it is {what}: `qemu-img convert -O qcow2` makes something of it that can be imported"
        );
    }
    let known = MAGICS.iter().find(|(magic, _)| head.starts_with(magic));
    Ok(known.map_or(DiskFormat::Raw, |(_, format)| *format))
}

fn begins_as(head: &[u8], format: DiskFormat) -> bool {
    MAGICS
        .iter()
        .any(|(magic, known)| *known == format && head.starts_with(magic))
}

/// docs/interop/qcow2.txt of QEMU: the header, up to the features that a reader must know.
fn refuse_qcow2(head: &[u8]) -> Result<()> {
    const EXTERNAL_DATA: u64 = 1 << 2;
    let version = be32(head, 4).context("its header is cut off")?;
    ensure!(
        matches!(version, 2 | 3),
        "it is qcow of version {version}, and 2 and 3 are known"
    );
    let backing = be64(head, 8).context("its header is cut off")?;
    ensure!(backing == 0, "{}", names_another("a backing file"));
    let crypt = be32(head, 32).context("its header is cut off")?;
    ensure!(crypt == 0, ENCRYPTED);
    if version == 3 {
        let features = be64(head, 72).context("its header is cut off")?;
        ensure!(
            features & EXTERNAL_DATA == 0,
            "{}",
            names_another("its data in another file")
        );
    }
    Ok(())
}

/// VMware's Virtual Disk Format 5.0: a sparse extent with its descriptor inside. The descriptor
/// names other extents and a parent as text; only what is known to name none is taken.
fn refuse_vmdk(file: &File, head: &[u8]) -> Result<()> {
    /// Where the descriptor is by the specification, and as much of it as QEMU reads.
    const USUAL: u64 = 512;
    const LONGEST: usize = 20 * 512;
    // Without a capacity the descriptor alone decides what is read.
    let capacity = le64(head, 12).context("its header is cut off")?;
    ensure!(capacity > 0, "{}", names_another("only a descriptor"));
    let named = le64(head, 28).unwrap_or(0).saturating_mul(512);
    let size = file.metadata()?.len();
    for at in [USUAL, named] {
        let len = size.saturating_sub(at).min(LONGEST as u64);
        let mut bytes = vec![0; usize::try_from(len)?];
        file.read_exact_at(&mut bytes, at)
            .context("reading its descriptor")?;
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        ensure!(
            !text.contains("parentfilenamehint"),
            "{}",
            names_another("a parent")
        );
    }
    Ok(())
}

/// A part of a whole, in hundredths of a percent.
#[derive(Debug, PartialEq)]
struct Part(u64);

impl Part {
    fn of(&self, whole: u64) -> u64 {
        let done = u128::from(whole) * u128::from(self.0.min(10_000)) / 10_000;
        u64::try_from(done).unwrap_or(whole)
    }
}

/// `    (12.34/100%)`, as `qemu-img convert -p` writes it.
fn percent(text: &str) -> Option<Part> {
    let number = text.trim().strip_prefix('(')?.split('/').next()?;
    let (whole, hundredths) = number.split_once('.')?;
    if hundredths.len() != 2 {
        return None;
    }
    Some(Part(
        whole.parse::<u64>().ok()?.checked_mul(100)? + hundredths.parse::<u64>().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_from_the_first_bytes() {
        for (head, format) in [
            (&b"QFI\xfb\0\0\0\x03"[..], DiskFormat::Qcow2),
            (b"KDMV\x01", DiskFormat::Vmdk),
            (b"vhdxfileQ", DiskFormat::Vhdx),
            (b"XFSB", DiskFormat::Raw),
            (b"", DiskFormat::Raw),
        ] {
            assert_eq!(detect(head).unwrap(), format);
        }
        let error = detect(b"# Disk DescriptorFile\nversion=1").unwrap_err();
        assert!(error.to_string().contains("in other files"), "{error}");
    }

    #[test]
    fn a_header_that_is_cut_off_is_refused() {
        for len in 4..36 {
            let mut head = vec![0; len];
            head[..4].copy_from_slice(b"QFI\xfb");
            if let Some(version) = head.get_mut(7) {
                *version = 2;
            }
            refuse_qcow2(&head).unwrap_err();
        }
    }

    #[test]
    fn progress_is_read_from_what_qemu_img_writes() {
        assert_eq!(percent("    (12.34/100%)"), Some(Part(1234)));
        assert_eq!(percent("    (100.00/100%)"), Some(Part(10_000)));
        assert_eq!(percent("qemu-img: error"), None);
        assert_eq!(Part(1234).of(1_000_000), 123_400);
        assert_eq!(Part(u64::MAX).of(u64::MAX), u64::MAX);
    }
}
