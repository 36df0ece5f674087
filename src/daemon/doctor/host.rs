//! What the host has: programs, iPXE, features of its kernel, a clock that is right.

use std::path::Path;

use super::Finding;
use crate::boot::{Loader, Loaders, runs_autoexec};
use crate::exec::{Program, advice};
use crate::library::config;

/// What is not there without these programs.
const PROGRAMS: &[(&[&str], &str)] = &[
    (
        &["mkfs.xfs", "xfs_repair", "blkid"],
        "images with XFS, the default",
    ),
    (&["mkfs.ext4", "e2fsck"], "images with ext4"),
    (&["mkfs.btrfs", "btrfs"], "images with btrfs"),
    (&["mkfs.erofs", "fsck.erofs"], "images with erofs"),
    (&["mmdebstrap"], "images of Debian and Ubuntu from nothing"),
    (&["dnf", "rpm"], "images of Fedora's family from nothing"),
    (&["qemu-img"], "disks of virtual machines, imported"),
    (
        &["qemu-system-x86_64"],
        "versions that are tried in a virtual machine",
    ),
    (&["unshare", "mount", "setpriv"], "work inside of images"),
    (&["nft"], "a look at this host's firewall"),
];

/// Each group of programs, by what needs it.
pub(super) fn programs(is_there: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let of = |(names, what): &(&[&str], &str)| {
        let missing: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| !is_there(name))
            .collect();
        match missing.first() {
            None => Finding::good("programs", format!("{what}: {}", names.join(", "))),
            Some(first) => Finding::hint(
                "programs",
                format!("{what}: {} not found", missing.join(", ")),
                advice(first).trim_start_matches(": ").to_owned(),
            ),
        }
    };
    PROGRAMS.iter().map(of).collect()
}

/// iPXE for partitions of clients.
pub(super) fn loader(config: &config::Boot) -> Finding {
    let loaders = Loaders::new(config);
    let Some(loader) = loaders.path_for_disk(Loader::EfiX64) else {
        return Finding::hint(
            "iPXE",
            loaders.missing(Loader::EfiX64),
            "see [boot] ipxe_dir and loaders in netroot.toml",
        );
    };
    let shown = loader.display();
    match runs_autoexec(&loader) {
        Ok(true) => Finding::good("iPXE", format!("{shown} runs autoexec.ipxe")),
        Ok(false) => Finding::hint(
            "iPXE",
            format!("{shown} is of before 2021 and runs no autoexec.ipxe: `esp export` needs that"),
            "take a newer one, such as Debian 13's: [boot] ipxe_dir, or esp export --ipxe",
        ),
        Err(error) => Finding::hint(
            "iPXE",
            format!("{shown} cannot be read: {error}"),
            "see to its permissions",
        ),
    }
}

/// What work as root needs of the kernel.
pub(super) fn kernel(is_there: &dyn Fn(&Path) -> bool, is_root: bool) -> Vec<Finding> {
    let needs = [
        (
            "/dev/loop-control",
            "loop devices: images are filled and looked into through them",
            "modprobe loop; in a container, give it the device",
        ),
        (
            "/proc/self/ns/mnt",
            "mount namespaces: nothing that a killed command mounted stays",
            "a kernel with CONFIG_NAMESPACES",
        ),
        (
            "/proc/self/ns/pid",
            "PID namespaces: nothing that was started in an image stays",
            "a kernel with CONFIG_PID_NS",
        ),
    ];
    let of = |(path, what, remedy): (&str, &str, &str)| match is_there(Path::new(path)) {
        true => Finding::good("kernel", what),
        false => Finding::hint("kernel", format!("no {path}; {what}"), remedy),
    };
    let mut found: Vec<Finding> = needs.into_iter().map(of).collect();
    if !is_root {
        found.push(Finding::hint(
            "kernel",
            "this is not root: versions are made by root only",
            "run `sudo netroot worker` beside the server, and give builds --queue",
        ));
    }
    found
}

/// Whether the clock is kept by others: times stand in events, boot ids and certificates.
pub(super) fn clock(is_synchronised: Option<bool>) -> Finding {
    match is_synchronised {
        Some(true) => Finding::good("clock", "it is synchronised"),
        Some(false) => Finding::hint(
            "clock",
            "it is not synchronised: times of events and boots are those of a guess",
            "install and enable systemd-timesyncd or chrony",
        ),
        None => Finding::hint(
            "clock",
            "nobody tells whether it is synchronised (no timedatectl)",
            "see that something keeps it right: systemd-timesyncd, chrony",
        ),
    }
}

pub(super) fn is_synchronised() -> Option<bool> {
    let asked =
        Program::new("timedatectl").args(["show", "--property", "NTPSynchronized", "--value"]);
    let told = asked.run().ok()?;
    match String::from_utf8_lossy(&told.stdout).trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_missing_program_is_told_with_what_needs_it_and_its_package() {
        let found = programs(&|name| name != "mkfs.btrfs");
        assert_eq!(found.len(), PROGRAMS.len());
        let told: Vec<_> = found
            .iter()
            .filter(|one| one.verdict != Verdict::Good)
            .collect();
        let [btrfs] = told[..] else {
            panic!("{told:?}")
        };
        assert_eq!(btrfs.verdict, Verdict::Hint);
        assert!(
            btrfs.found.contains("btrfs: mkfs.btrfs not found"),
            "{btrfs:?}"
        );
        assert_eq!(btrfs.remedy.as_deref(), Some("install package btrfs-progs"));
    }

    #[test]
    fn a_loader_is_looked_into() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config::Boot {
            ipxe_dir: dir.path().to_owned(),
            ..config::Boot::default()
        };
        assert!(
            loader(&config)
                .found
                .contains("no iPXE for machines with UEFI")
        );
        let file = dir.path().join("ipxe.efi");
        std::fs::write(&file, "MZ").unwrap();
        assert!(loader(&config).found.contains("before 2021"));
        std::fs::write(&file, "MZ autoexec.ipxe").unwrap();
        assert_eq!(loader(&config).verdict, Verdict::Good);
        let own = dir.path().join("own.efi");
        std::fs::write(&own, "MZ").unwrap();
        config.loaders.efi_x64 = Some(own.try_into().unwrap());
        assert!(loader(&config).found.contains("own.efi is of before 2021"));
    }

    #[test]
    fn what_the_kernel_lacks_is_told() {
        let found = kernel(&|path| path != Path::new("/dev/loop-control"), false);
        let hints = found.iter().filter(|one| one.verdict == Verdict::Hint);
        let told: Vec<&str> = hints.map(|one| one.found.as_str()).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("loop-control") && told[1].contains("not root"));
        assert!(
            kernel(&|_| true, true)
                .iter()
                .all(|one| one.verdict == Verdict::Good)
        );
    }
}
