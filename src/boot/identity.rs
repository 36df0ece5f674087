//! The initramfs that gives a client its identity: a small archive beside the image's own, unpacked over
//! it by the kernel.
//!
//! It brings along what applies it, so that images need nothing for it: a unit for an initramfs with
//! systemd, a hook for one of initramfs-tools. Both run when the root is mounted, the overlay of a shared
//! client included, and before anything of it has started.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::library::manifest::{InitramfsFacts, InitramfsKind};
use crate::library::{ClientName, Identity, Mode, SshKey};

/// Where the files lie in the initramfs.
const HOME: &str = "netroot/identity";

/// Zeros before the archive. EFI stubs join what they load without a gap: an LZ4 image ends for the kernel
/// where zeros follow, and whatever else comes before is told apart by them, too.
const GAP: usize = 8;

/// What a client is given.
#[derive(Debug)]
pub struct IdentityFiles<'a> {
    /// Its host name.
    pub name: &'a ClientName,
    /// Machine-id and SSH host keys.
    pub identity: &'a Identity,
    /// The name of its initiator in this boot.
    pub initiator: &'a str,
    /// What its disk is.
    pub mode: Mode,
    /// Who may log in as root.
    pub authorized_keys: &'a [SshKey],
}

/// Whether an initramfs can apply what it is given.
pub fn takes_identity(initramfs: &InitramfsFacts) -> bool {
    match initramfs.kind {
        InitramfsKind::Dracut => initramfs.systemd,
        InitramfsKind::InitramfsTools => true,
        InitramfsKind::Unknown => false,
    }
}

impl IdentityFiles<'_> {
    /// The whole initramfs, for a client whose own is `initramfs`.
    ///
    /// # Errors
    /// When it does not fit into memory.
    pub fn initramfs(&self, initramfs: &InitramfsFacts) -> io::Result<Vec<u8>> {
        let mut archive = Archive::default();
        archive.directory("netroot", 0o700);
        archive.directory(HOME, 0o700);
        archive.directory(&format!("{HOME}/ssh"), 0o700);
        let mut put = |name: &str, mode, text: &str| {
            archive.file(&format!("{HOME}/{name}"), mode, text.as_bytes());
        };
        put("apply", 0o755, include_str!("../../esp/identity/apply.sh"));
        put("hostname", 0o644, &line(self.name));
        put("machine-id", 0o444, &line(&self.identity.machine_id));
        let name = format!("InitiatorName={}\n", self.initiator);
        put("initiatorname.iscsi", 0o600, &name);
        if self.mode != Mode::Persistent {
            put("pristine", 0o644, "");
        }
        let keys: String = self.authorized_keys.iter().map(line).collect();
        put("authorized_keys", 0o600, &keys);
        for key in &self.identity.host_keys {
            let name = format!("ssh/ssh_host_{}_key", key.kind);
            put(&name, 0o600, &key.private);
            put(&format!("{name}.pub"), 0o644, &line(&key.public));
        }
        match initramfs.kind {
            InitramfsKind::InitramfsTools => hooks(&mut archive),
            InitramfsKind::Dracut | InitramfsKind::Unknown => unit(&mut archive),
        }
        let mut packed = GzEncoder::new(vec![0; GAP], Compression::fast());
        packed.write_all(&archive.finished())?;
        packed.finish()
    }
}

fn line(text: impl std::fmt::Display) -> String {
    format!("{text}\n")
}

/// For systemd, wanted by what every initramfs with it starts.
fn unit(archive: &mut Archive) {
    const UNIT: &str = "netroot-identity.service";
    let home = "etc/systemd/system";
    for directory in [
        "etc",
        "etc/systemd",
        home,
        "etc/systemd/system/initrd.target.wants",
    ] {
        archive.directory(directory, 0o755);
    }
    let text = include_str!("../../esp/identity/netroot-identity.service");
    archive.file(&format!("{home}/{UNIT}"), 0o644, text.as_bytes());
    let wants = format!("{home}/initrd.target.wants/{UNIT}");
    archive.link(&wants, &format!("../{UNIT}"));
}

/// For initramfs-tools.
fn hooks(archive: &mut Archive) {
    for directory in ["conf", "conf/conf.d", "scripts", "scripts/init-bottom"] {
        archive.directory(directory, 0o755);
    }
    let tools = include_str!("../../esp/identity/initramfs-tools.sh");
    archive.file("conf/conf.d/netroot-identity", 0o644, tools.as_bytes());
    let bottom = include_str!("../../esp/identity/init-bottom.sh");
    archive.file(
        "scripts/init-bottom/netroot-identity",
        0o755,
        bottom.as_bytes(),
    );
}

/// A cpio archive in the format that kernels read, "newc" (the kernel's own description is
/// Documentation/driver-api/early-userspace/buffer-format.rst). Everything is root's, and of no date.
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn directory(&mut self, path: &str, permissions: u32) {
        self.entry(path, 0o040_000 | permissions, &[]);
    }

    fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.entry(path, 0o100_000 | permissions, content);
    }

    fn link(&mut self, path: &str, to: &str) {
        self.entry(path, 0o120_777, to.as_bytes());
    }

    fn finished(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let numbers = [
            self.entries, // inode
            mode,
            0, // owner
            0, // group
            1, // links
            0, // date
            size(content.len()),
            0, // device of the file system, and the device that the entry is
            0,
            0,
            0,
            size(path.len() + 1), // with the zero behind it
            0,                    // checksum, unused in this format
        ];
        self.bytes.extend(b"070701");
        for number in numbers {
            self.bytes.extend(format!("{number:08X}").as_bytes());
        }
        self.bytes.extend(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        let length = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(length, 0);
    }
}
