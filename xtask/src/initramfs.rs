//! Archives for the kernel to unpack ("newc", of cpio): a whole one is made file by file ([`Archive`]),
//! and there is one that is none, with the names in it that netroot looks for, for tests that make
//! images and boot none ([`like_dracut`]).

/// An initramfs in the making; directories come before what is in them.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: usize,
}

impl Archive {
    const DIRECTORY: usize = 0o040_755;
    const FILE: usize = 0o100_000;
    const LINK: usize = 0o120_777;

    /// Adds a directory.
    pub fn directory(&mut self, name: &str) {
        self.add(name, Self::DIRECTORY, &[]);
    }

    /// Adds a file with these permissions.
    pub fn file(&mut self, name: &str, permissions: u16, text: &[u8]) {
        self.add(name, Self::FILE | usize::from(permissions), text);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, name: &str, target: &str) {
        self.add(name, Self::LINK, target.as_bytes());
    }

    /// The whole, with its end.
    pub fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn add(&mut self, name: &str, mode: usize, text: &[u8]) {
        self.entries += 1;
        // Inode, mode, owner, group, links, time, size; four numbers of devices; the name's length.
        let mut numbers = [0; 13];
        numbers[0] = self.entries;
        numbers[1] = mode;
        numbers[4] = 1;
        numbers[6] = text.len();
        numbers[11] = name.len() + 1;
        self.bytes.extend(b"070701");
        for number in numbers {
            self.bytes.extend(format!("{number:08X}").as_bytes());
        }
        for part in [format!("{name}\0").as_bytes(), text] {
            self.bytes.extend(part);
            let aligned = self.bytes.len().next_multiple_of(4);
            self.bytes.resize(aligned, 0);
        }
    }
}

/// What dracut would make for `kernel`, as far as the check looks.
pub fn like_dracut(kernel: &str) -> Vec<u8> {
    let module = |path: &str| {
        let path = format!("usr/lib/modules/{kernel}/kernel/{path}");
        (path, "")
    };
    let files = [
        (
            "usr/lib/dracut/modules.txt".to_owned(),
            "network-legacy\niscsi\n",
        ),
        ("usr/lib/dracut/dracut-059-4".to_owned(), ""),
        ("usr/lib/systemd/systemd".to_owned(), ""),
        ("etc/iscsi/initiatorname.iscsi".to_owned(), ""),
        module("fs/xfs/xfs.ko"),
        module("fs/ext4/ext4.ko"),
        module("fs/btrfs/btrfs.ko"),
        module("fs/erofs/erofs.ko"),
        module("drivers/scsi/iscsi_tcp.ko"),
        module("drivers/net/virtio_net.ko"),
        module("drivers/net/ethernet/r8169.ko"),
        module("drivers/net/ethernet/igb.ko"),
        module("drivers/net/ethernet/tg3.ko"),
        module("drivers/net/ethernet/e1000e.ko"),
    ];
    let mut archive = Archive::default();
    for (name, text) in &files {
        archive.file(name, 0o644, text.as_bytes());
    }
    archive.finish()
}
