//! The EFI system partition of a client that loads its kernel from its own disk or stick.
//!
//! - here: its files, written as a tree
//! - `image`: the same as the image of a disk; `gpt`: the partition table of that; `dots`: its directories
//! - `check`: whether a tree or an image is what would be written today

mod check;
mod dots;
mod gpt;
mod image;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::cfg::BootCfg;
use super::firmware::Loader;
use super::scripts::Https;
use crate::library::manifest::{BootStamp, FileFacts};

pub use check::{Checked, Folder, Found};
pub use image::Partition;

/// Files for an EFI system partition.
#[derive(Debug, Serialize)]
pub struct Esp {
    /// The files, in the order in which they are written: what names others comes last, so that an
    /// interrupted export leaves a partition that still boots what it did before.
    pub files: Vec<EspFile>,
}

/// One file of an [`Esp`].
#[derive(Debug, Serialize)]
pub struct EspFile {
    /// Where it goes, from the partition's root.
    pub path: PathBuf,
    /// What it is copied from, where it is not text.
    pub source: Option<PathBuf>,
    /// Its text otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Size and hash of what it is copied from, where somebody has found them out already.
    #[serde(skip)]
    facts: Option<FileFacts>,
}

/// Kernel and initramfs of a version.
#[derive(Debug, Clone, Copy)]
pub struct Kernel<'a> {
    /// The kernel's release.
    pub version: &'a str,
    /// The kernel, and what the manifest says of it.
    pub kernel: (&'a Path, &'a FileFacts),
    /// The initramfs, and what the manifest says of it.
    pub initramfs: (&'a Path, &'a FileFacts),
}

/// What boot.cfg on the partition does.
#[derive(Debug, Clone, Copy)]
pub enum Says<'a> {
    /// It boots by itself. The boot service at `base` is told whose files these are, if it is there.
    Itself {
        /// What is booted.
        cfg: &'a BootCfg<'a>,
        /// The boot service, such as `http://192.0.2.1:8080`.
        base: &'a str,
        /// Of kernel and initramfs.
        stamp: BootStamp,
    },
    /// It asks the boot service at `base` at each boot, and takes kernel and initramfs from beside it.
    Asks {
        /// The boot service, such as `http://192.0.2.1:8080`.
        base: &'a str,
        /// How to its door for TLS, where it has one.
        https: Option<Https<'a>>,
        /// Of kernel and initramfs.
        stamp: BootStamp,
    },
}

impl Esp {
    /// Loader, kernel, initramfs and the scripts that join them.
    pub fn new(of: Kernel<'_>, says: Says<'_>, loader: Option<(Loader, &Path)>) -> Self {
        let linux = Path::new("linux");
        let (boot_cfg, told) = match says {
            Says::Itself { cfg, base, stamp } => (
                cfg.to_string(),
                filled(include_str!("../../../esp/told.cfg"), base, stamp),
            ),
            Says::Asks { base, https, stamp } => (
                filled(include_str!("../../../esp/asks.cfg"), base, stamp)
                    .replace("@TLS@", &https.map_or_else(String::new, Https::lines)),
                String::new(),
            ),
        };
        let autoexec = include_str!("../../../esp/autoexec.ipxe").replace("@TOLD@", &told);
        let mut files = vec![
            EspFile::copied(linux.join(BootCfg::kernel_file(of.version)), of.kernel),
            EspFile::copied(
                linux.join(BootCfg::initramfs_file(of.version)),
                of.initramfs,
            ),
            EspFile::written(linux.join("boot.cfg"), boot_cfg),
            EspFile::written(PathBuf::from("autoexec.ipxe"), autoexec),
        ];
        files.extend(loader.and_then(|(loader, source)| {
            Some(EspFile {
                path: PathBuf::from(loader.place_on_disk()?),
                source: Some(source.to_owned()),
                text: None,
                facts: None,
            })
        }));
        Esp { files }
    }

    /// Writes the files under `root`, each whole or not at all, and syncs them.
    ///
    /// # Errors
    /// The first file that could not be written; those before it are there, those after it are as
    /// they were.
    pub fn write(&self, root: &Path) -> Result<(), EspError> {
        for file in &self.files {
            let place = root.join(&file.path);
            file.write(&place)
                .map_err(|error| EspError::new(&place, error))?;
        }
        Ok(())
    }
}

/// A file of an ESP that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", place.display())]
pub struct EspError {
    place: PathBuf,
    #[source]
    error: io::Error,
}

impl EspError {
    fn new(place: &Path, error: io::Error) -> Self {
        let place = place.to_owned();
        EspError { place, error }
    }
}

impl EspFile {
    fn copied(path: PathBuf, (source, facts): (&Path, &FileFacts)) -> Self {
        EspFile {
            path,
            source: Some(source.to_owned()),
            text: None,
            facts: Some(facts.clone()),
        }
    }

    fn written(path: PathBuf, text: String) -> Self {
        EspFile {
            path,
            source: None,
            text: Some(text),
            facts: None,
        }
    }

    /// Its size, in bytes.
    fn size(&self) -> io::Result<u64> {
        match (&self.text, &self.source) {
            (Some(text), _) => Ok(text.len() as u64),
            (None, Some(source)) => Ok(fs::metadata(source)?.len()),
            (None, None) => Ok(0),
        }
    }

    fn copy_to(&self, to: &mut impl Write) -> io::Result<()> {
        match (&self.text, &self.source) {
            (Some(text), _) => to.write_all(text.as_bytes()),
            (None, Some(source)) => {
                // FAT is written cluster by cluster: the fewer pieces the better.
                let mut from = io::BufReader::with_capacity(1 << 20, File::open(source)?);
                io::copy(&mut from, to).map(drop)
            }
            (None, None) => Ok(()),
        }
    }

    fn write(&self, place: &Path) -> io::Result<()> {
        let parent = place.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent)?;
        replaced(place, |mut draft| self.copy_to(&mut draft))
    }
}

/// Makes a file beside `place`, synced, and puts it there.
///
/// FAT has neither permissions nor a rename that survives everything, but a whole file with another
/// name beside a whole file is as good as it gets there.
fn replaced(place: &Path, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let parent = match place.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let draft = tempfile::Builder::new()
        .prefix(".netroot-")
        .tempfile_in(parent)?;
    fill(draft.as_file())?;
    draft.as_file().sync_all()?;
    draft.persist(place).map_err(|failed| failed.error)?;
    File::open(parent)?.sync_all()
}

fn filled(template: &str, base: &str, stamp: BootStamp) -> String {
    template
        .replace("@BASE@", base)
        .replace("@STAMP@", &stamp.to_string())
}

/// Whether an iPXE runs an `autoexec.ipxe` that lies beside it, as those of 2021 and later do: it
/// has to have the name in it.
///
/// # Errors
/// When the loader cannot be read.
pub fn runs_autoexec(loader: &Path) -> io::Result<bool> {
    let text = b"autoexec.ipxe";
    Ok(fs::read(loader)?
        .windows(text.len())
        .any(|part| part == text))
}

#[cfg(test)]
mod tests;
