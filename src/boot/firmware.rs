//! What a machine starts from the network with, and the iPXE that each kind of it is given.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::runs_autoexec;
use crate::library::config;

pub use crate::library::Firmware;

impl Firmware {
    /// The architecture's numbers that stand for it.
    pub fn architectures(self) -> &'static [u16] {
        match self {
            Firmware::Bios => &[0],
            Firmware::EfiIa32 => &[6],
            Firmware::EfiX64 => &[7, 9],
            Firmware::EfiArm64 => &[11],
            Firmware::HttpX64 => &[16],
            Firmware::HttpArm64 => &[19],
        }
    }

    /// All of them.
    pub const ALL: [Firmware; 6] = [
        Firmware::Bios,
        Firmware::EfiIa32,
        Firmware::EfiX64,
        Firmware::EfiArm64,
        Firmware::HttpX64,
        Firmware::HttpArm64,
    ];

    /// Whether it fetches its loader by HTTP.
    pub fn boots_by_http(self) -> bool {
        matches!(self, Firmware::HttpX64 | Firmware::HttpArm64)
    }

    /// The iPXE that it can start.
    pub fn loader(self) -> Loader {
        match self {
            Firmware::Bios => Loader::Bios,
            Firmware::EfiIa32 => Loader::EfiIa32,
            Firmware::EfiX64 | Firmware::HttpX64 => Loader::EfiX64,
            Firmware::EfiArm64 | Firmware::HttpArm64 => Loader::EfiArm64,
        }
    }
}

/// An iPXE for one kind of firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loader {
    /// For a BIOS.
    Bios,
    /// For UEFI of 32 bits.
    EfiIa32,
    /// For UEFI on x86-64.
    EfiX64,
    /// For UEFI on 64-bit Arm.
    EfiArm64,
}

/// The script that an iPXE of 2021 or later looks for beside itself.
pub const AUTOEXEC: &str = "autoexec.ipxe";

impl Loader {
    /// All of them.
    pub const ALL: [Loader; 4] = [
        Loader::Bios,
        Loader::EfiIa32,
        Loader::EfiX64,
        Loader::EfiArm64,
    ];

    /// What it is called over TFTP and HTTP, whatever the host calls it.
    pub fn file(self) -> &'static str {
        match self {
            Loader::Bios => "undionly.kpxe",
            Loader::EfiIa32 => "ipxe-ia32.efi",
            Loader::EfiX64 => "ipxe-x64.efi",
            Loader::EfiArm64 => "ipxe-arm64.efi",
        }
    }

    /// The one for the machines that a program for UEFI is for, as kernels are; nothing where a file is no
    /// such program, or one for others.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn of_program(path: &Path) -> io::Result<Option<Loader>> {
        let file = File::open(path)?;
        let is_there = |bytes: &mut [u8], at: u64| match file.read_exact_at(bytes, at) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        };
        // PE/COFF: where its header is, stands at 0x3c; the machine is what that begins with.
        let (mut magic, mut header, mut machine) = ([0; 2], [0; 4], [0; 6]);
        let is_program = is_there(&mut magic, 0)?
            && magic == *b"MZ"
            && is_there(&mut header, 0x3c)?
            && is_there(&mut machine, u32::from_le_bytes(header).into())?;
        Ok(match machine {
            [b'P', b'E', 0, 0, low, high] if is_program => match u16::from_le_bytes([low, high]) {
                0x014c => Some(Loader::EfiIa32),
                0x8664 => Some(Loader::EfiX64),
                0xaa64 => Some(Loader::EfiArm64),
                _ => None,
            },
            _ => None,
        })
    }

    /// Where firmware looks for it on a disk (UEFI 2.10 §3.5.1.1); a BIOS looks for no file.
    pub fn place_on_disk(self) -> Option<&'static str> {
        match self {
            Loader::Bios => None,
            Loader::EfiIa32 => Some("efi/boot/bootia32.efi"),
            Loader::EfiX64 => Some("efi/boot/bootx64.efi"),
            Loader::EfiArm64 => Some("efi/boot/bootaa64.efi"),
        }
    }

    /// What packages of distributions call those that use the network card by the firmware's own driver, and
    /// those with drivers of their own.
    fn packaged(self) -> [&'static [&'static str]; 2] {
        match self {
            Loader::Bios => [&["undionly.kpxe"], &[]],
            Loader::EfiIa32 => [
                &["snponly-i386.efi", "ipxe-snponly-i386.efi"],
                &["ipxe-i386.efi"],
            ],
            Loader::EfiX64 => [
                &[
                    "snponly.efi",
                    "snponly-amd64.efi",
                    "ipxe-snponly-x86_64.efi",
                ],
                &["ipxe.efi", "ipxe-amd64.efi", "ipxe-x86_64.efi"],
            ],
            Loader::EfiArm64 => [
                &["snponly-arm64.efi", "arm64-efi/snponly.efi"],
                &["ipxe-arm64.efi", "arm64-efi/ipxe.efi"],
            ],
        }
    }

    /// What machines it is for.
    pub fn what(self) -> &'static str {
        match self {
            Loader::Bios => "machines with a BIOS",
            Loader::EfiIa32 => "machines with UEFI of 32 bits",
            Loader::EfiX64 => "machines with UEFI on x86-64",
            Loader::EfiArm64 => "machines with UEFI on arm64",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Loader::Bios => "bios",
            Loader::EfiIa32 => "efi-ia32",
            Loader::EfiX64 => "efi-x64",
            Loader::EfiArm64 => "efi-arm64",
        }
    }
}

/// The loaders that a host has.
#[derive(Debug, Clone)]
pub struct Loaders<'a> {
    config: &'a config::Boot,
}

impl<'a> Loaders<'a> {
    /// Those that the configuration names or, where it names none, that its `ipxe_dir` has. Each is looked
    /// for when it is asked for: packages come and go under a running server.
    pub fn new(config: &'a config::Boot) -> Self {
        Loaders { config }
    }

    /// Where a loader is, if this host has it: of those that are packaged, first the one that uses the
    /// firmware's own driver, which has shown that it works.
    pub fn path(&self, loader: Loader) -> Option<PathBuf> {
        let [without, with_drivers] = loader.packaged();
        self.first(loader, without.iter().chain(with_drivers))
    }

    /// The same for a disk that it is to start from: there the firmware may have no driver, and the one with
    /// drivers of its own comes first.
    pub fn path_for_disk(&self, loader: Loader) -> Option<PathBuf> {
        let [without, with_drivers] = loader.packaged();
        self.first(loader, with_drivers.iter().chain(without))
    }

    /// The one that is named, or else the first of those packaged that is there.
    fn first<'n>(
        &self,
        loader: Loader,
        packaged: impl Iterator<Item = &'n &'static str>,
    ) -> Option<PathBuf> {
        let dir = &self.config.ipxe_dir;
        match self.given(loader) {
            Some(given) => Some(given.to_owned()).filter(|path| path.is_file()),
            None => packaged
                .map(|name| dir.join(name))
                .find(|path| path.is_file()),
        }
    }

    /// Where the file is that a client asks for by this name: ours, or the package's. Nothing but these
    /// names is ever looked for, so no name leads out of the directory.
    pub fn named(&self, name: &str) -> Option<PathBuf> {
        let ours = |loader: &Loader| loader.file() == name;
        if let Some(loader) = Loader::ALL.iter().find(|loader| ours(loader)) {
            return self.path(*loader);
        }
        let packaged = Loader::ALL.iter().flat_map(|loader| loader.packaged());
        let mut packaged = packaged.flatten();
        let file = packaged.find(|packaged| **packaged == name)?;
        Some(self.config.ipxe_dir.join(file)).filter(|path| path.is_file())
    }

    /// What keeps machines from being booted: loaders that are missing. Nobody is told of those for rare
    /// machines that nobody has asked for.
    pub fn warnings(&self) -> Vec<String> {
        let is_wanted = |loader: &Loader| {
            matches!(loader, Loader::Bios | Loader::EfiX64) || self.given(*loader).is_some()
        };
        let wanted = Loader::ALL.into_iter().filter(is_wanted);
        let missing = wanted.filter(|loader| self.path(*loader).is_none());
        missing.map(|loader| self.missing(loader)).collect()
    }

    /// What keeps machines from being booted where their DHCP server tells iPXE nothing: loaders for UEFI
    /// that do not look for a script beside themselves.
    pub fn warnings_without_dhcp(&self) -> Vec<String> {
        let efi = Loader::ALL.into_iter().filter(|one| *one != Loader::Bios);
        let found = efi.filter_map(|loader| self.path(loader));
        found.filter_map(|path| too_old(&path)).collect()
    }

    /// Why a loader cannot be given to anybody, and what to do.
    pub fn missing(&self, loader: Loader) -> String {
        let (what, key) = (loader.what(), loader.key());
        match self.given(loader) {
            Some(given) => format!(
                "there is no file {}, which [boot] loaders.{key} in netroot.toml names: {what} get no boot \
                 loader",
                given.display()
            ),
            None => format!(
                "there is no iPXE for {what} in {}, so they get no boot loader: install the package ipxe \
                 (Fedora: ipxe-bootimgs, with [boot] ipxe_dir = \"/usr/share/ipxe\"), or name one as \
                 [boot] loaders = {{ {key} = \"FILE\" }} in netroot.toml",
                self.config.ipxe_dir.display()
            ),
        }
    }

    fn given(&self, loader: Loader) -> Option<&Path> {
        let given = &self.config.loaders;
        let path = match loader {
            Loader::Bios => &given.bios,
            Loader::EfiIa32 => &given.efi_ia32,
            Loader::EfiX64 => &given.efi_x64,
            Loader::EfiArm64 => &given.efi_arm64,
        };
        path.as_ref().map(config::AbsolutePath::as_path)
    }
}

fn too_old(path: &Path) -> Option<String> {
    let path_shown = path.display();
    match runs_autoexec(path) {
        Ok(true) => None,
        Ok(false) => Some(format!(
            "{path_shown} is of before 2021 and knows no {AUTOEXEC}: it finds its script only if your DHCP \
             server tells it what `netroot boot dnsmasq` or `netroot boot kea` prints"
        )),
        Err(error) => Some(format!("cannot read the boot loader {path_shown}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn numbers_and_firmware_are_one_table() {
        for firmware in Firmware::ALL {
            for number in firmware.architectures() {
                assert_eq!(Firmware::of_arch(*number), Some(firmware));
            }
        }
        let known = (0..=u16::MAX).filter(|number| Firmware::of_arch(*number).is_some());
        assert_eq!(known.collect::<Vec<_>>(), [0, 6, 7, 9, 11, 16, 19]);
    }

    #[test]
    fn loaders_are_the_packages_or_those_that_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config::Boot {
            ipxe_dir: dir.path().to_owned(),
            ..config::Boot::default()
        };
        assert_eq!(Loaders::new(&config).warnings().len(), 2);
        fs::write(dir.path().join("ipxe.efi"), "of 2019").unwrap();
        let loaders = Loaders::new(&config);
        let found = loaders.path(Loader::EfiX64).unwrap();
        assert!(found.ends_with("ipxe.efi"));
        fs::write(dir.path().join("snponly.efi"), "with autoexec.ipxe").unwrap();
        fs::write(dir.path().join("undionly.kpxe"), "of 2019").unwrap();
        let found = loaders.path(Loader::EfiX64).unwrap();
        assert!(
            found.ends_with("snponly.efi"),
            "the firmware's driver first"
        );
        assert_eq!(loaders.named("ipxe-x64.efi"), Some(found));
        let from_disk = loaders.path_for_disk(Loader::EfiX64).unwrap();
        assert!(from_disk.ends_with("ipxe.efi"), "its own drivers first");
        assert!(loaders.named("ipxe.efi").unwrap().ends_with("ipxe.efi"));
        assert_eq!(loaders.warnings(), Vec::<String>::new());

        let own = dir.path().join("own.efi");
        config.loaders.efi_x64 = Some(own.clone().try_into().unwrap());
        let why = &Loaders::new(&config).warnings()[0];
        assert!(
            why.contains("own.efi") && why.contains("loaders.efi-x64"),
            "{why}"
        );
        fs::write(&own, "of 2019").unwrap();
        assert_eq!(
            Loaders::new(&config).named("ipxe-x64.efi"),
            Some(own.clone())
        );
        let from_disk = Loaders::new(&config).path_for_disk(Loader::EfiX64);
        assert_eq!(from_disk, Some(own));
        let loaders = Loaders::new(&config);
        assert_eq!(loaders.warnings(), Vec::<String>::new());
        let why = &loaders.warnings_without_dhcp()[0];
        assert!(why.contains("before 2021"), "{why}");
    }

    #[test]
    fn a_program_tells_what_machines_it_is_for() {
        let dir = tempfile::tempdir().unwrap();
        let of = |bytes: &[u8]| {
            let path = dir.path().join("program");
            fs::write(&path, bytes).unwrap();
            Loader::of_program(&path).unwrap()
        };
        let program = |machine: u16| {
            let mut bytes = vec![0; 0x80];
            bytes[..2].copy_from_slice(b"MZ");
            bytes[0x3c] = 0x40;
            bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
            bytes[0x44..0x46].copy_from_slice(&machine.to_le_bytes());
            bytes
        };
        let arm = program(0xaa64);
        assert_eq!(of(&arm), Some(Loader::EfiArm64));
        assert_eq!(of(&program(0x8664)), Some(Loader::EfiX64));
        assert_eq!(of(&program(0x014c)), Some(Loader::EfiIa32));
        assert_eq!(of(&program(0x5064)), None);
        for cut in 0..0x46 {
            assert_eq!(of(&arm[..cut]), None, "{cut}");
        }
        let mut astray = arm.clone();
        astray[0x3c..0x40].fill(0xff);
        assert_eq!(of(&astray), None);
        assert!(Loader::of_program(&dir.path().join("absent")).is_err());
    }

    #[test]
    fn no_name_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), "").unwrap();
        let inside = dir.path().join("ipxe");
        fs::create_dir(&inside).unwrap();
        let config = config::Boot {
            ipxe_dir: inside,
            ..config::Boot::default()
        };
        let hostile = [
            "../secret",
            "",
            ".",
            "/etc/passwd",
            "arm64-efi/../../secret",
        ];
        for name in hostile {
            assert_eq!(Loaders::new(&config).named(name), None, "{name}");
        }
    }
}
