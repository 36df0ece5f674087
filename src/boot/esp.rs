//! The EFI system partition of a client that loads its kernel from its own disk or stick.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::cfg::BootCfg;

/// What distributions call iPXE for 64-bit EFI: the one with drivers of its own first, since it
/// starts from a disk of a machine whose firmware may have no network.
const LOADERS: &[&str] = &[
    "ipxe.efi",
    "ipxe-x86_64.efi",
    "snponly.efi",
    "ipxe-snponly-x86_64.efi",
];

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
}

impl Esp {
    /// Loader, kernel, initramfs and the scripts that join them.
    pub fn new(cfg: &BootCfg<'_>, kernel: &Path, initramfs: &Path, loader: Option<&Path>) -> Self {
        let linux = Path::new("linux");
        let copied = |path: PathBuf, source: &Path| EspFile {
            path,
            source: Some(source.to_owned()),
            text: None,
        };
        let written = |path: PathBuf, text: String| EspFile {
            path,
            source: None,
            text: Some(text),
        };
        let mut files = vec![
            copied(linux.join(BootCfg::kernel_file(cfg.kernel)), kernel),
            copied(linux.join(BootCfg::initramfs_file(cfg.kernel)), initramfs),
            written(linux.join("boot.cfg"), cfg.to_string()),
            written(
                PathBuf::from("autoexec.ipxe"),
                include_str!("../../esp/autoexec.ipxe").to_owned(),
            ),
        ];
        files.extend(loader.map(|loader| copied(PathBuf::from("efi/boot/bootx64.efi"), loader)));
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
                .map_err(|error| EspError { place, error })?;
        }
        Ok(())
    }
}

/// A file of an ESP that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", place.display())]
pub struct EspError {
    place: PathBuf,
    #[source]
    error: io::Error,
}

impl EspFile {
    fn write(&self, place: &Path) -> io::Result<()> {
        let parent = place.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent)?;
        // FAT has neither permissions nor a rename that survives everything, but a whole file with
        // another name beside a whole file is as good as it gets there.
        let mut draft = tempfile::Builder::new()
            .prefix(".netroot-")
            .tempfile_in(parent)?;
        match (&self.source, &self.text) {
            (Some(source), _) => {
                io::copy(&mut File::open(source)?, draft.as_file_mut())?;
            }
            (None, text) => draft.write_all(text.as_deref().unwrap_or_default().as_bytes())?,
        }
        draft.as_file().sync_all()?;
        draft.persist(place).map_err(|failed| failed.error)?;
        File::open(parent)?.sync_all()
    }
}

/// The iPXE loader in the directory that the configuration names, if any.
pub fn find_loader(dir: &Path) -> Option<PathBuf> {
    let mut places = LOADERS.iter().map(|name| dir.join(name));
    places.find(|path| path.is_file())
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
mod tests {
    use super::*;
    use crate::boot::{Portal, Root, Writes};
    use crate::library::manifest::InitramfsFacts;

    #[test]
    fn the_tree_is_the_described_one_and_a_second_export_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        let (kernel, initramfs) = (dir.path().join("k"), dir.path().join("i"));
        fs::write(&kernel, "kernel").unwrap();
        fs::write(&initramfs, "initramfs").unwrap();
        let cfg = BootCfg {
            prefix: None,
            kernel: "4.19.5",
            initramfs: &InitramfsFacts::default(),
            root: Root {
                portal: Portal {
                    ip: "192.0.2.1".parse().unwrap(),
                    port: 3260,
                },
                target: String::from("iqn.edu.example:fc28"),
                lun: 1,
                initiator: None,
            },
            writes: Writes::None,
            mac: None,
            nameservers: &[],
            args: &[],
        };
        let root = dir.path().join("esp");
        let esp = Esp::new(&cfg, &kernel, &initramfs, Some(&kernel));
        esp.write(&root).unwrap();
        fs::write(root.join("linux/boot.cfg"), "stale").unwrap();
        esp.write(&root).unwrap();
        assert_eq!(
            fs::read_to_string(root.join("linux/boot.cfg")).unwrap(),
            cfg.to_string()
        );
        assert_eq!(
            fs::read(root.join("linux/vmlinuz-4.19.5")).unwrap(),
            b"kernel"
        );
        assert_eq!(
            fs::read(root.join("linux/initramfs-4.19.5.img")).unwrap(),
            b"initramfs"
        );
        assert!(
            root.join("efi/boot/bootx64.efi").is_file() && root.join("autoexec.ipxe").is_file()
        );
        let entries = fs::read_dir(root.join("linux")).unwrap().count();
        assert_eq!(entries, 3, "no draft is left behind");
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let missing = EspFile {
            path: "a".into(),
            source: Some("/nonexistent".into()),
            text: None,
        };
        let dir = tempfile::tempdir().unwrap();
        let error = Esp {
            files: vec![missing],
        }
        .write(dir.path())
        .unwrap_err();
        assert!(error.to_string().ends_with("/a"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
