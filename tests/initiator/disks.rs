//! Disks with file systems on them, as they are used.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::lab::Lab;

/// Bytes that the file behind a volume takes on its own disk.
fn taken(lab: &Lab, volume: &str) -> u64 {
    let shown = lab.site.json(&["volume", "show", volume]).unwrap();
    let file = fs::metadata(shown["path"].as_str().unwrap()).unwrap();
    file.blocks() * 512
}

pub(crate) fn ext4_and_xfs_hold_what_fio_verifies_and_shrink_when_trimmed(lab: &Lab) {
    let target = lab.target("data");
    for (name, make, check) in [
        ("ext4", "mke2fs -q -t ext4 -E nodiscard", "e2fsck -fn"),
        ("xfs", "mkfs.xfs -q -f", "xfs_repair -n"),
    ] {
        lab.step(
            &format!("{name}: fio writes at random and verifies"),
            &format!(
                "D=/dev/$(disk {target} 1)
                {make} $D
                mount -t {name} -o nodiscard $D /mnt
                fio --name=mixed --directory=/mnt --size=16m --rw=randwrite --bsrange=512-128k \
                    --blockalign=512 --direct=1 --ioengine=libaio --iodepth=16 --verify=crc32c \
                    --randseed=7 --end_fsync=1 --minimal >/tmp/fio
                dd if=/dev/urandom of=/mnt/large bs=1M count=96 conv=fsync
                sha256sum /mnt/large >/tmp/sum
                umount /mnt"
            ),
        );
        let full = taken(lab, "data");
        assert!(full >= 110 << 20, "{name}: {full} bytes are in the file");
        lab.step(
            &format!("{name}: what was written is there; fstrim gives back what was removed"),
            &format!(
                "D=/dev/$(disk {target} 1)
                blockdev --flushbufs $D
                mount -t {name} $D /mnt
                sha256sum -c /tmp/sum
                rm /mnt/large /mnt/mixed*
                sync
                fstrim -v /mnt
                umount /mnt
                {check} $D"
            ),
        );
        let trimmed = taken(lab, "data");
        lab.tell(&format!(
            "{name}: the file took {} MiB, and {} after fstrim",
            full >> 20,
            trimmed >> 20
        ));
        assert!(trimmed + (100 << 20) < full, "{name}: {trimmed} of {full}");
    }
}

pub(crate) fn blocks_of_4096_bytes_and_disks_that_nobody_writes(lab: &Lab) {
    let (large, sealed) = (lab.target("large-blocks"), lab.target("sealed"));
    lab.step(
        "blocks of 4,096 bytes: XFS, fio on the bare disk",
        &format!(
            "log_in {large} $V4
            D=$(disk {large} 1)
            [ $(cat /sys/block/$D/queue/logical_block_size) = 4096 ]
            fio --name=bare --filename=/dev/$D --size=16m --rw=randwrite --bs=4k --direct=1 \
                --ioengine=libaio --iodepth=32 --verify=sha256 --minimal >/tmp/fio
            blkdiscard /dev/$D
            mkfs.xfs -q -f /dev/$D
            mount -t xfs /dev/$D /mnt
            dd if=/dev/urandom of=/mnt/file bs=1M count=8 conv=fsync
            sha256sum /mnt/file >/tmp/sum
            umount /mnt
            mount -t xfs -o ro /dev/$D /mnt
            sha256sum -c /tmp/sum
            umount /mnt
            log_out {large} $V4"
        ),
    );
    lab.step(
        "a disk that nobody writes is known as such, and read",
        &format!(
            "D=$(disk {sealed} 1)
            [ $(blockdev --getro /dev/$D) = 1 ]
            head -c 8388608 /dev/zero | tr '\\000' '\\245' | cmp - /dev/$D
            if dd if=/dev/zero of=/dev/$D bs=512 count=1; then exit 1; fi
            log_out {sealed} $V4"
        ),
    );
}

pub(crate) fn a_disk_grows_while_its_file_system_is_mounted(lab: &Lab) {
    let target = lab.target("data");
    let disk = format!("D=$(disk {target} 1 $ADDRESS4)\n");
    let before = lab.step(
        "a file system is mounted",
        &format!("{disk}mount -t xfs /dev/$D /mnt; cat /sys/block/$D/size"),
    );
    assert_eq!(before.trim(), "2097152");
    lab.site
        .netroot(&["volume", "resize", "data", "1536M"])
        .unwrap();
    let after = lab.step(
        "Linux is told that its disk has grown, looks again, and goes on",
        &format!(
            "{disk}
            dd if=/dev/urandom of=/mnt/more bs=1M count=1 conv=fsync
            dmesg | grep 'Capacity data has changed'
            iscsiadm -m session --rescan >/dev/null
            cat /sys/block/$D/size
            umount /mnt"
        ),
    );
    assert!(after.contains("\n3145728\n"), "{after}");
}
