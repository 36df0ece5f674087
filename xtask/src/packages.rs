//! What the laboratory needs from the host, and how it gets there: Debian packages by apt-get.

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result, bail};

use crate::program::{command, exists, run, run_visibly};

/// A program or file that shows that a package is there, the package, and why it is needed.
struct Need {
    proof: &'static str,
    package: &'static str,
    why: &'static str,
}

const fn need(proof: &'static str, package: &'static str, why: &'static str) -> Need {
    Need {
        proof,
        package,
        why,
    }
}

/// Programs are looked for in PATH, absolute names as files.
const NEEDS: &[Need] = &[
    need("cc", "gcc", "links the Rust code"),
    need("/usr/include/stdio.h", "libc6-dev", "the same"),
    need("ip", "iproute2", "the laboratory's network"),
    need(
        "nft",
        "nftables",
        "the server looks for a firewall in its way",
    ),
    need(
        "dnsmasq",
        "dnsmasq-base",
        "gives the clients their addresses",
    ),
    need("ss", "iproute2", "who listens in it"),
    need("curl", "curl", "fetches boot loaders by TFTP and HTTP"),
    need("tftp", "tftp-hpa", "fetches them by TFTP"),
    need("atftp", "atftp", "the same, in windows"),
    need(
        "/usr/lib/ipxe/snponly.efi",
        "ipxe",
        "the boot loaders that are given",
    ),
    need(
        "kea-dhcp4",
        "kea-dhcp4-server",
        "checks what it is to be told, and is never run",
    ),
    need("mmdebstrap", "mmdebstrap", "makes the Debian tree"),
    need(
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "debian-archive-keyring",
        "proves that the tree is Debian's",
    ),
    need("mkfs.xfs", "xfsprogs", "file systems of images"),
    need(
        "rpmbuild",
        "rpm",
        "lists of packages in trees of Fedora's family",
    ),
    need("dnf", "dnf", "bootstraps and upgrades such trees"),
    need(
        "createrepo_c",
        "createrepo-c",
        "a repository for it to do that from",
    ),
    need("mkfs.ext4", "e2fsprogs", "file systems of images"),
    need("mkfs.btrfs", "btrfs-progs", "file systems of images"),
    need("mkfs.erofs", "erofs-utils", "file systems of images"),
    need(
        "ldd",
        "libc-bin",
        "a chroot of a few programs, for upgrades",
    ),
    need("xz", "xz-utils", "packed archives that images are made of"),
    need("zstd", "zstd", "the same"),
    need("cpio", "cpio", "unpacks what gives clients their identity"),
    need("ssh-keygen", "openssh-client", "reads their SSH host keys"),
    need("openssl", "openssl", "a client that speaks TLS"),
    need("unshare", "util-linux", "namespaces"),
    need("setpriv", "util-linux", "servers end with who started them"),
    need(
        "fincore",
        "util-linux",
        "what the page cache holds of a file",
    ),
    need("mount", "mount", "images are filled while mounted"),
    need("pgrep", "procps", "tests look for what is left behind"),
    need("qemu-system-x86_64", "qemu-system-x86", "the clients"),
    need(
        "/usr/lib/ipxe/qemu/pxe-virtio.rom",
        "ipxe-qemu",
        "what the clients' network cards boot with",
    ),
    need(
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "ovmf",
        "a client whose firmware logs in by itself",
    ),
    need(
        "qemu-system-aarch64",
        "qemu-system-arm",
        "a client with 64-bit Arm",
    ),
    need(
        "/usr/share/AAVMF/AAVMF_CODE.fd",
        "qemu-efi-aarch64",
        "its firmware",
    ),
    need(
        "sgdisk",
        "gdisk",
        "a stick's partition table, checked by others",
    ),
    need("fsck.fat", "dosfstools", "its file system, too"),
    need("sfdisk", "fdisk", "disks with partitions"),
    need("mcopy", "mtools", "a file system for firmware"),
    need("depmod", "kmod", "which modules a small guest needs"),
    need(
        "qemu-img",
        "qemu-utils",
        "disks of virtual machines are imported; an initiator that is not ours",
    ),
    need(
        "/usr/lib/x86_64-linux-gnu/qemu/block-iscsi.so",
        "qemu-block-extra",
        "the same",
    ),
    need("iscsi-ls", "libiscsi-bin", "another one"),
    need("iscsi-perf", "libiscsi-bin", "the same, for measurements"),
    need(
        "tgtd",
        "tgt",
        "another target, beside which ours is measured",
    ),
    need("chromium", "chromium", "the dashboard is used by a browser"),
    need("chromedriver", "chromium-driver", "which tests drive"),
    need(
        "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
        "fonts-dejavu-core",
        "what its pictures are written in",
    ),
    need("npm", "npm", "brings axe-core, which looks at its pages"),
    need(
        "/var/lib/dpkg/info/python3-venv.list",
        "python3-venv",
        "a place for schemathesis, which holds the API against its document",
    ),
];

/// Packages that must all come from one build of QEMU.
const QEMU: &[&str] = &[
    "qemu-system-x86",
    "qemu-system-arm",
    "qemu-utils",
    "qemu-block-extra",
];

/// Whether to ask before packages are installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// Ask on the terminal; without one, refuse.
    Ask,
    /// `--yes`.
    Given,
}

/// Installs what the laboratory needs and this host lacks.
///
/// # Errors
/// When the host is no Debian, the person says no, this is not root, or apt-get fails.
pub fn install_missing(consent: Consent) -> Result<()> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !is_there(need)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("This host lacks:");
    for need in &missing {
        println!("  {:<24} {}", need.package, need.why);
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    if !exists("apt-get") {
        bail!(
            "this host has no apt-get; install by its own means: {}",
            packages.join(" ")
        );
    }
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "installing packages needs root: run this as root, or first: apt-get install {}",
            packages.join(" ")
        );
    }
    if consent == Consent::Ask && !asked("Install them with apt-get?")? {
        bail!(
            "not installed; by hand: apt-get install {}",
            packages.join(" ")
        );
    }
    // A fresh machine has no package lists, or ones that name versions that are gone.
    apt(&["update", "-q"])?;
    install(&packages)?;
    match missing.iter().find(|need| !is_there(need)) {
        Some(need) => bail!(
            "{} is installed, and yet {} is not there",
            need.package,
            need.proof
        ),
        None => Ok(()),
    }
}

fn is_there(need: &Need) -> bool {
    if need.proof.starts_with('/') {
        std::path::Path::new(need.proof).exists()
    } else {
        exists(need.proof)
    }
}

fn asked(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("{question} There is no terminal to ask on: say --yes");
    }
    print!("{question} [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn apt(arguments: &[&str]) -> Result<()> {
    run_visibly(
        command("apt-get", arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C"),
    )
}

fn install(packages: &[&str]) -> Result<()> {
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    let Err(first) = apt(&arguments) else {
        return Ok(());
    };
    if !packages.iter().any(|package| QEMU.contains(package)) {
        return Err(first);
    }
    // Hosts that have a newer qemu-utils than the archive has qemu-system (from backports, or from an
    // image of another day) are told that the packages break each other. One version for all of them
    // resolves this, even if it is an older one for what is there.
    let version = common_qemu_version()?.context(
        "the packages of QEMU do not fit each other, and no version has all of them (apt-cache madison)",
    )?;
    println!("One version for all packages of QEMU: {version}");
    let exact: Vec<String> = QEMU
        .iter()
        .map(|name| format!("{name}={version}"))
        .collect();
    let mut arguments = vec![
        "install",
        "--yes",
        "--no-install-recommends",
        "--allow-downgrades",
    ];
    arguments.extend(packages.iter().filter(|name| !QEMU.contains(name)));
    arguments.extend(exact.iter().map(String::as_str));
    apt(&arguments)
}

/// The newest version that all packages of QEMU are offered in.
fn common_qemu_version() -> Result<Option<String>> {
    let offers = QEMU
        .iter()
        .map(|name| run(&mut command("apt-cache", ["madison", name])).map(|text| versions(&text)))
        .collect::<Result<Vec<_>>>()?;
    let Some((first, others)) = offers.split_first() else {
        return Ok(None);
    };
    Ok(first
        .iter()
        .find(|version| others.iter().all(|offer| offer.contains(version)))
        .cloned())
}

/// The versions in the output of `apt-cache madison`, which lists the newest first.
fn versions(madison: &str) -> Vec<String> {
    madison
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(|version| version.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn madison_is_read() {
        let text = "\
qemu-utils | 1:7.2+dfsg-7+deb12u18+b3 | http://deb.debian.org/debian bookworm/main amd64 Packages
qemu-utils | 1:7.2+dfsg-7+deb12u15 | http://deb.debian.org/debian-security bookworm-security/main amd64 Packages
";
        assert_eq!(
            versions(text),
            ["1:7.2+dfsg-7+deb12u18+b3", "1:7.2+dfsg-7+deb12u15"]
        );
    }
}
