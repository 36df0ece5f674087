//! Whether an initramfs can find its root over iSCSI, and if not, what to do.
//!
//! The traps that it knows were each met on a real system: the initramfs is written without a word
//! and the client hangs at its boot.

pub(crate) mod cpio;

use std::io::Read;

use anyhow::{Context, Result, bail};

use self::cpio::Contents;
use super::size::human;
use super::version::KernelRelease;
use crate::library::manifest::{InitramfsFacts, InitramfsKind};

/// What an initramfs is, and what is doubtful about it.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) facts: InitramfsFacts,
    /// What may hinder a client, for people.
    pub(crate) warnings: Vec<String>,
}

/// What stops a client for sure, or may.
#[derive(Debug, Default)]
struct Findings {
    fatal: Vec<String>,
    doubtful: Vec<String>,
}

/// dracut's list of what it put in.
const DRACUT_MODULES: &str = "usr/lib/dracut/modules.txt";

/// The unit of Debian's package open-iscsi, and the script that it runs.
const ISCSID_UNITS: &[&str] = &[
    "usr/lib/systemd/system/iscsid.service",
    "etc/systemd/system/iscsid.service",
];
const STARTUP_CHECKS: &str = "usr/lib/open-iscsi/startup-checks.sh";

/// Any of these brings the network up in dracut.
const DRACUT_NETWORK: &[&str] = &[
    "network-legacy",
    "network-manager",
    "systemd-networkd",
    "network-wicked",
    "connman",
];

/// An image whose contents are hidden in another file system.
const SQUASHED: &[&str] = &[
    "squashfs-root.img",
    "squash-root.img",
    "squash/root.img",
    "erofs-root.img",
];

/// What a client unpacks at a speed that nobody notices.
const QUICK: &[&str] = &["zstd", "lz4"];

/// Reads an initramfs of `size` bytes and tells what it is.
///
/// # Errors
/// When it cannot be read, or lacks what a client needs to mount a root of the file system
/// `filesystem`; then with everything that it lacks.
pub(crate) fn check(
    stream: impl Read,
    size: u64,
    kernel: &KernelRelease,
    filesystem: &str,
) -> Result<Checked> {
    let contents = Contents::read(stream, &is_read)?;
    let facts = facts(&contents);
    let mut findings = Findings::default();
    match facts.kind {
        InitramfsKind::Dracut => dracut(&contents, kernel, &mut findings),
        InitramfsKind::InitramfsTools => initramfs_tools(&contents, kernel, &mut findings),
        InitramfsKind::Unknown => findings.fatal.push(String::from(
            "it was made neither by dracut nor by initramfs-tools, so nothing is known about its \
             iSCSI support",
        )),
    }
    drivers(&contents, kernel, filesystem, &mut findings);
    compression(&facts, size, &mut findings);
    if facts.kind == InitramfsKind::Dracut && !facts.systemd {
        findings.doubtful.push(format!(
            "no systemd runs in the initramfs, so its clients are given no identity: each has the host \
             name, the machine-id and the SSH host keys that the image has or makes. In the chroot, \
             write `add_dracutmodules+=\" systemd \"` to /etc/dracut.conf.d/netroot.conf and run `dracut \
             --force --kver {kernel}`"
        ));
    }
    if findings.fatal.is_empty() {
        return Ok(Checked {
            facts,
            warnings: findings.doubtful,
        });
    }
    bail!(
        "a client could not boot from it:\n- {}\n(--no-initramfs-check takes it as it is)",
        findings.fatal.join("\n- ")
    )
}

/// Reads an initramfs that a person said is good, for what it is; nothing is refused.
pub(crate) fn look(stream: impl Read) -> Result<InitramfsFacts> {
    let contents = Contents::read(stream, &is_read).context("looking into it")?;
    Ok(facts(&contents))
}

/// What is told of one that cannot even be read.
pub(crate) fn unknown() -> InitramfsFacts {
    InitramfsFacts {
        kind: InitramfsKind::Unknown,
        ..InitramfsFacts::default()
    }
}

fn is_read(path: &str) -> bool {
    path == DRACUT_MODULES
        || ISCSID_UNITS.contains(&path)
        || path.ends_with("/modules.builtin")
        || path.ends_with("etc/initrd-release")
        || path == "usr/lib/initrd-release"
}

fn facts(contents: &Contents) -> InitramfsFacts {
    let dracut = contents.has(DRACUT_MODULES) || contents.has("usr/lib/dracut-lib.sh");
    let kind = if dracut {
        InitramfsKind::Dracut
    } else if contents.has("scripts/functions") {
        InitramfsKind::InitramfsTools
    } else {
        InitramfsKind::Unknown
    };
    InitramfsFacts {
        kind,
        version: dracut.then(|| dracut_version(contents)).flatten(),
        systemd: contents.has("usr/lib/systemd/systemd"),
        compression: contents.compression().name().map(str::to_owned),
    }
}

/// dracut leaves a file named after its version.
fn dracut_version(contents: &Contents) -> Option<String> {
    contents.paths().find_map(|path| {
        let version = path.strip_prefix("usr/lib/dracut/dracut-")?;
        let is_version = version.starts_with(|c: char| c.is_ascii_digit());
        is_version.then(|| version.to_owned())
    })
}

fn dracut(contents: &Contents, kernel: &KernelRelease, findings: &mut Findings) {
    if SQUASHED.iter().any(|path| contents.has(path)) {
        findings.fatal.push(String::from(
            "its contents are squashed (dracut's module squash), so they cannot be checked: leave \
             that module out",
        ));
        return;
    }
    let modules: Vec<&str> = contents
        .text(DRACUT_MODULES)
        .unwrap_or("")
        .lines()
        .collect();
    let has_module = |name: &str| modules.iter().any(|module| module.trim() == name);
    let programs = contents.has("usr/sbin/iscsiroot")
        && [
            "usr/sbin/iscsid",
            "usr/sbin/iscsistart",
            "usr/bin/iscsid",
            "usr/bin/iscsistart",
        ]
        .iter()
        .any(|path| contents.has(path));
    if !has_module("iscsi") && !programs {
        findings.fatal.push(format!(
            "it has no iSCSI support (dracut's module iscsi). In the chroot, install open-iscsi \
             (Debian) or iscsi-initiator-utils (Fedora) and the network part of dracut \
             (dracut-network), write `hostonly=no` and `add_dracutmodules+=\" network iscsi \"` \
             to /etc/dracut.conf.d/netroot.conf, and run `dracut --force --kver {kernel}`"
        ));
    }
    if !modules.is_empty() && !DRACUT_NETWORK.iter().any(|name| has_module(name)) {
        findings.fatal.push(format!(
            "nothing in it brings the network up: dracut drops its module network-legacy without \
             a clear error unless ip, dhclient, arping, awk, grep and pgrep are there. In the \
             chroot, install iproute2, isc-dhcp-client, iputils-arping, gawk, grep and procps \
             (Debian) or NetworkManager (Fedora), and run `dracut --force --kver {kernel}`"
        ));
    }
    let unit = ISCSID_UNITS.iter().find_map(|path| contents.text(path));
    let runs_checks = unit.is_some_and(|unit| unit.contains("startup-checks.sh"));
    if runs_checks && !contents.has(STARTUP_CHECKS) {
        findings.fatal.push(format!(
            "its iscsid.service runs /lib/open-iscsi/startup-checks.sh, which is not in it. In \
             the chroot, write `install_items+=\" /lib/open-iscsi/startup-checks.sh \"` to \
             /etc/dracut.conf.d/netroot.conf and run `dracut --force --kver {kernel}`"
        ));
    }
    let takes_over = |path: &str| path.contains("/qedi.ko");
    if contents.paths().any(takes_over) {
        findings.doubtful.push(format!(
            "the initramfs has the driver qedi, which takes iSCSI away from the network card that it \
             drives: write `omit_drivers+=\" qedi \"` to /etc/dracut.conf.d/netroot.conf and run \
             `dracut --force --kver {kernel}`, before such a card boots from it"
        ));
    }
    // Where nobody tells a name, dracut draws one with iscsi-iname.
    let has_name = ["etc/iscsi/initiatorname.iscsi", "usr/sbin/iscsi-iname"]
        .iter()
        .any(|path| contents.has(path));
    if !has_name {
        findings.doubtful.push(String::from(
            "the initramfs has no /etc/iscsi/initiatorname.iscsi: clients of `netroot serve` do not \
             need it, since they are told their name; machines that boot from an exported ESP may",
        ));
    }
}

/// Every client unpacks it at every boot, in one thread.
fn compression(facts: &InitramfsFacts, size: u64, findings: &mut Findings) {
    let Some(slow) = facts.compression.as_deref() else {
        return;
    };
    if QUICK.contains(&slow) {
        return;
    }
    let how = match facts.kind {
        InitramfsKind::InitramfsTools => {
            "`COMPRESS=zstd` in /etc/initramfs-tools/initramfs.conf (with zstd installed)"
        }
        _ => "`compress=\"zstd\"` in /etc/dracut.conf.d/netroot.conf (with zstd installed)",
    };
    findings.doubtful.push(format!(
        "the initramfs is {} of {slow}, which every client unpacks slowly at every boot: {how} makes \
         the next one faster; kernels before 5.9 know lz4, but not zstd",
        human(size)
    ));
}

fn initramfs_tools(contents: &Contents, kernel: &KernelRelease, findings: &mut Findings) {
    let programs = ["usr/sbin/iscsistart", "usr/bin/iscsistart"];
    let has_program = programs.iter().any(|path| contents.has(path));
    if !contents.has("scripts/local-top/iscsi") || !has_program {
        findings.fatal.push(format!(
            "it has no iSCSI support. In the chroot, install open-iscsi, run `touch \
             /etc/iscsi/iscsi.initramfs` (without that file its hook adds nothing), and run \
             `update-initramfs -u -k {kernel}`"
        ));
    }
}

/// The kernel's own part: iSCSI over TCP, the root's file system, and network cards.
fn drivers(contents: &Contents, kernel: &KernelRelease, filesystem: &str, findings: &mut Findings) {
    let dir = format!("usr/lib/modules/{kernel}/");
    let built_in = contents
        .text(&format!("{dir}modules.builtin"))
        .unwrap_or("");
    let is_there = |name: &str| {
        let file = format!("/{name}.ko");
        built_in.contains(&file) || contents.paths().any(|path| path.contains(&file))
    };
    let other = contents
        .paths()
        .find_map(|path| path.strip_prefix("usr/lib/modules/")?.split('/').next())
        .filter(|&release| release != kernel.as_str() && !release.is_empty());
    let has_own = contents.paths().any(|path| path.starts_with(&dir));
    if let (false, Some(other)) = (has_own, other) {
        findings.fatal.push(format!(
            "it has modules of {other}, but none of its kernel {kernel}. In the chroot, run \
             `dracut --force --kver {kernel}` or `update-initramfs -u -k {kernel}`"
        ));
        return;
    }
    if !is_there("iscsi_tcp") {
        findings.fatal.push(format!(
            "the kernel's module iscsi_tcp is not in it. In the chroot, check that \
             /lib/modules/{kernel} has it (on Debian the cloud kernels do not; install \
             linux-image-amd64), and make the initramfs again"
        ));
    }
    if !is_there(filesystem) {
        findings.fatal.push(format!(
            "the kernel's module {filesystem} is not in it, so it cannot mount this image. In the \
             chroot, write `filesystems+=\" {filesystem} \"` to /etc/dracut.conf.d/netroot.conf \
             and run `dracut --force --kver {kernel}`, or write {filesystem} to \
             /etc/initramfs-tools/modules and run `update-initramfs -u -k {kernel}`; or build the \
             image with another --fs"
        ));
    }
    let is_card = |path: &&str| path.contains("/drivers/net/") && path.contains(".ko");
    let cards = contents.paths().filter(is_card).count();
    if cards == 0 && !built_in.contains("/drivers/net/ethernet/") {
        findings.fatal.push(format!(
            "there is no driver of a network card in it. In the chroot, write `hostonly=no` to \
             /etc/dracut.conf.d/netroot.conf and run `dracut --force --kver {kernel}`, or set \
             MODULES=most in /etc/initramfs-tools/initramfs.conf and run `update-initramfs -u -k \
             {kernel}`"
        ));
    } else if cards < 5 {
        findings.doubtful.push(format!(
            "the initramfs has drivers of only {cards} network cards: it may have been made for \
             one host only (`hostonly=no` makes it fit all)"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: &str = "6.1.0-21-amd64";

    fn read(files: &[(&str, &str)]) -> Result<Checked> {
        let image = cpio::archive_of(files);
        read_packed(&zstd::encode_all(&image[..], 1).unwrap())
    }

    fn read_packed(image: &[u8]) -> Result<Checked> {
        let kernel = KernelRelease::parse(KERNEL).unwrap();
        check(image, 30 << 20, &kernel, "xfs")
    }

    const CARDS: &[(&str, &str)] = &[
        (
            "usr/lib/modules/6.1.0-21-amd64/kernel/fs/xfs/xfs.ko.zst",
            "",
        ),
        (
            "usr/lib/modules/6.1.0-21-amd64/kernel/drivers/scsi/iscsi_tcp.ko",
            "",
        ),
        (
            "usr/lib/modules/6.1.0-21-amd64/kernel/drivers/net/virtio_net.ko.xz",
            "",
        ),
        (
            "usr/lib/modules/6.1.0-21-amd64/kernel/drivers/net/ethernet/r8169.ko",
            "",
        ),
        (
            "usr/lib/modules/6.1.0-21-amd64/kernel/drivers/net/ethernet/igb.ko",
            "",
        ),
        (
            "usr/lib/modules/6.1.0-21-amd64/kernel/drivers/net/ethernet/e1000e.ko",
            "",
        ),
        (
            "usr/lib/modules/6.1.0-21-amd64/kernel/drivers/net/ethernet/tg3.ko",
            "",
        ),
    ];

    const DRACUT: &[(&str, &str)] = &[
        ("lib/dracut/dracut-059-4", ""),
        (
            "lib/dracut/modules.txt",
            "bash\nsystemd\nnetwork-legacy\nnetwork\niscsi\nbase\n",
        ),
        ("lib/systemd/systemd", ""),
        ("etc/iscsi/initiatorname.iscsi", ""),
    ];

    const TOOLS: &[(&str, &str)] = &[
        ("scripts/functions", ""),
        ("scripts/local-top/iscsi", ""),
        ("sbin/iscsistart", ""),
    ];

    fn refused(files: &[&[(&str, &str)]], why: &str) {
        let error = read(&files.concat()).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn a_good_one_of_each_kind_is_taken() {
        let checked = read(&[DRACUT, CARDS].concat()).unwrap();
        assert_eq!(checked.facts.kind, InitramfsKind::Dracut);
        assert_eq!(checked.facts.version.as_deref(), Some("059-4"));
        assert_eq!(checked.facts.compression.as_deref(), Some("zstd"));
        assert!(checked.facts.systemd);
        assert_eq!(checked.warnings, Vec::<String>::new());
        let checked = read(&[TOOLS, CARDS].concat()).unwrap();
        assert_eq!(checked.facts.kind, InitramfsKind::InitramfsTools);
        assert!(!checked.facts.systemd);
    }

    #[test]
    fn one_without_iscsi_is_refused_with_what_to_do() {
        let dracut = ("usr/lib/dracut/modules.txt", "bash\nnetwork-legacy\n");
        refused(
            &[&[dracut], CARDS],
            "add_dracutmodules+=\" network iscsi \"",
        );
        refused(&[&TOOLS[..1], CARDS], "touch /etc/iscsi/iscsi.initramfs");
    }

    #[test]
    fn silent_traps_are_found() {
        let no_network = ("usr/lib/dracut/modules.txt", "iscsi\nnetwork\n");
        refused(&[&[no_network], CARDS], "isc-dhcp-client");
        let unit = (
            "usr/lib/systemd/system/iscsid.service",
            "ExecStartPre=/lib/open-iscsi/startup-checks.sh\n",
        );
        refused(&[DRACUT, CARDS, &[unit]], "install_items+=");
        let script = ("lib/open-iscsi/startup-checks.sh", "");
        assert!(read(&[DRACUT, CARDS, &[unit, script]].concat()).is_ok());
        let checked = read(&[&DRACUT[..3], CARDS].concat()).unwrap();
        assert!(checked.warnings[0].contains("initiatorname.iscsi"));
    }

    #[test]
    fn one_that_can_give_no_identity_is_told() {
        let checked = read(&[&DRACUT[..2], &DRACUT[3..], CARDS].concat()).unwrap();
        let [warning] = checked.warnings.as_slice() else {
            panic!("{:?}", checked.warnings);
        };
        assert!(warning.contains("given no identity"), "{warning}");
    }

    #[test]
    fn a_slow_compression_is_told_with_what_to_set() {
        use std::io::Write;
        let packed = |files: &[(&str, &str)]| {
            let level = flate2::Compression::default();
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), level);
            gzip.write_all(&cpio::archive_of(files)).unwrap();
            read_packed(&gzip.finish().unwrap()).unwrap().warnings
        };
        let warnings = packed(&[DRACUT, CARDS].concat());
        let expected = "the initramfs is 30.0 MiB of gzip, which every client unpacks slowly at every \
            boot: `compress=\"zstd\"` in /etc/dracut.conf.d/netroot.conf (with zstd installed) makes \
            the next one faster; kernels before 5.9 know lz4, but not zstd";
        assert_eq!(warnings, [expected]);
        let warnings = packed(&[TOOLS, CARDS].concat());
        assert!(warnings[0].contains("`COMPRESS=zstd`"), "{warnings:?}");
    }

    #[test]
    fn a_driver_that_takes_iscsi_away_is_told() {
        let qedi = (
            "usr/lib/modules/6.1.0-21-amd64/kernel/drivers/scsi/qedi/qedi.ko.zst",
            "",
        );
        let checked = read(&[DRACUT, CARDS, &[qedi]].concat()).unwrap();
        let expected = "the initramfs has the driver qedi, which takes iSCSI away from the network \
            card that it drives: write `omit_drivers+=\" qedi \"` to \
            /etc/dracut.conf.d/netroot.conf and run `dracut --force --kver 6.1.0-21-amd64`, before \
            such a card boots from it";
        assert_eq!(checked.warnings, [expected]);
    }

    #[test]
    fn drivers_are_needed_as_modules_or_built_in() {
        refused(
            &[DRACUT, &CARDS[1..]],
            "module xfs is not in it, so it cannot mount this image",
        );
        refused(
            &[DRACUT, &CARDS[..1], &CARDS[2..]],
            "iscsi_tcp is not in it",
        );
        refused(&[DRACUT, &CARDS[..2]], "no driver of a network card");
        let built_in = (
            "lib/modules/6.1.0-21-amd64/modules.builtin",
            "kernel/drivers/scsi/iscsi_tcp.ko\nkernel/fs/xfs/xfs.ko\n",
        );
        assert!(read(&[DRACUT, &CARDS[2..], &[built_in]].concat()).is_ok());
        let checked = read(&[DRACUT, &CARDS[..3]].concat()).unwrap();
        assert!(checked.warnings[0].contains("only 1 network cards"));
        let other = ("lib/modules/5.10.0/kernel/drivers/scsi/iscsi_tcp.ko", "");
        refused(
            &[DRACUT, &[other]],
            "modules of 5.10.0, but none of its kernel",
        );
    }

    #[test]
    fn a_squashed_one_cannot_be_checked() {
        refused(&[DRACUT, &[("squashfs-root.img", "")]], "squashed");
    }
}
