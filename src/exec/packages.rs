//! Which package brings a program, so that "not installed" comes with what to do about it.

/// Program, Debian package, Fedora package.
const PACKAGES: &[(&str, &str, &str)] = &[
    ("blkid", "util-linux", "util-linux"),
    ("btrfs", "btrfs-progs", "btrfs-progs"),
    ("btrfstune", "btrfs-progs", "btrfs-progs"),
    ("chroot", "coreutils", "coreutils"),
    ("debootstrap", "debootstrap", "debootstrap"),
    ("dnf", "dnf", "dnf"),
    ("dumpe2fs", "e2fsprogs", "e2fsprogs"),
    ("e2fsck", "e2fsprogs", "e2fsprogs"),
    ("fsck.erofs", "erofs-utils", "erofs-utils"),
    ("mkfs.btrfs", "btrfs-progs", "btrfs-progs"),
    ("mkfs.erofs", "erofs-utils", "erofs-utils"),
    ("mkfs.ext4", "e2fsprogs", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs", "xfsprogs"),
    ("fstrim", "util-linux", "util-linux"),
    ("mmdebstrap", "mmdebstrap", "mmdebstrap"),
    ("mount", "mount", "util-linux-core"),
    ("qemu-img", "qemu-utils", "qemu-img"),
    ("resize2fs", "e2fsprogs", "e2fsprogs"),
    ("rpm", "rpm", "rpm"),
    ("setpriv", "util-linux", "util-linux-core"),
    ("sh", "dash", "bash"),
    ("tune2fs", "e2fsprogs", "e2fsprogs"),
    ("unshare", "util-linux", "util-linux-core"),
    ("xfs_db", "xfsprogs", "xfsprogs"),
    ("xfs_growfs", "xfsprogs", "xfsprogs"),
    ("xfs_logprint", "xfsprogs", "xfsprogs"),
    ("xfs_repair", "xfsprogs", "xfsprogs"),
];

/// The end of a message about a missing program: which package brings it.
pub fn advice(program: &str) -> String {
    match PACKAGES.iter().find(|(name, ..)| *name == program) {
        Some((_, debian, fedora)) if debian == fedora => {
            format!(": install package {debian}")
        }
        Some((_, debian, fedora)) => {
            format!(": install package {debian} (Debian) or {fedora} (Fedora)")
        }
        None => String::from(": install it and try again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_comes_with_its_package() {
        assert_eq!(advice("mkfs.xfs"), ": install package xfsprogs");
        assert_eq!(
            advice("mount"),
            ": install package mount (Debian) or util-linux-core (Fedora)"
        );
    }
}
