//! An initramfs that is none: an archive with the names in it that netroot looks for, for tests that make
//! images and boot none.

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
        ("TRAILER!!!".to_owned(), ""),
    ];
    let mut archive = Vec::new();
    for (name, text) in &files {
        let mut numbers = [0; 13];
        numbers[6] = text.len();
        numbers[11] = name.len() + 1;
        archive.extend(b"070701");
        for number in numbers {
            archive.extend(format!("{number:08X}").as_bytes());
        }
        for part in [&format!("{name}\0"), *text] {
            archive.extend(part.as_bytes());
            archive.resize(archive.len().next_multiple_of(4), 0);
        }
    }
    archive
}
