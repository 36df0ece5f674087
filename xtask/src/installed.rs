//! A Linux that was installed on a disk of its own: Debian with its GRUB, for a BIOS and for UEFI, and with
//! an initramfs that takes its root from the firmware's table. Built once, in a file, without a loop device.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cached;
use crate::program::{command, run};
use crate::uefi::write_esp;

const PACKAGES: &str = "linux-image-cloud-amd64,initramfs-tools,busybox,zstd,open-iscsi,systemd-sysv,\
                        udev,dbus,iproute2,procps,grub-pc-bin,grub-efi-amd64-bin";

const SECTOR: u64 = 512;
const MIB: u64 = 1 << 20;
const DISK: u64 = 2 << 30;

/// Where the partitions begin, in MiB: GRUB for a BIOS, GRUB for UEFI, and the root up to [`ROOT_END`].
const BIOS: u64 = 1;
const ESP: u64 = 2;
const ROOT: u64 = 34;
const ROOT_END: u64 = DISK / MIB - 1;

/// The disk, and the kernel on it.
#[derive(Debug, Clone)]
pub struct Installed {
    /// The whole disk, raw and sparse. It is for importing; nobody changes it.
    pub disk: PathBuf,
    /// A copy of its kernel.
    pub kernel: PathBuf,
}

/// Debian 12 on a disk of 2 GiB, installed if it was not yet, which takes some minutes.
///
/// # Errors
/// When this is not root, or a program is missing or fails.
pub fn debian() -> Result<Installed> {
    let workspace = crate::workspace();
    let mut inputs = cached::files(&lab())?;
    inputs.extend(cached::files(&workspace.join("xtask/lab/debian/hand"))?);
    inputs.push(workspace.join("xtask/src/installed.rs"));
    let hash = cached::hash_of_files(&workspace, &inputs)?;
    let made = cached::made("installed", &hash, install)?;
    Ok(Installed {
        disk: made.join("disk.raw"),
        kernel: made.join("vmlinuz"),
    })
}

fn lab() -> PathBuf {
    crate::workspace().join("xtask/lab/installed")
}

fn install(draft: &Path) -> Result<()> {
    eprintln!("installing a Debian on a disk (some minutes)");
    let (tree, disk) = (draft.join("tree"), draft.join("disk.raw"));
    let mut fetch = command(
        "mmdebstrap",
        ["--quiet", "--mode=root", "--variant=minbase"],
    );
    fetch
        .env("LC_ALL", "C.UTF-8")
        .env("LAB", crate::workspace().join("xtask/lab"))
        .arg(format!("--include={PACKAGES}"))
        .arg(r#"--customize-hook=cp -R "$LAB/debian/hand/." "$LAB/installed/tree/." "$1""#)
        .arg(r#"--customize-hook=chroot "$1" sh -s <"$LAB/debian/hand.sh""#)
        .arg(r#"--customize-hook=chroot "$1" sh -s <"$LAB/installed/install.sh""#)
        .arg("bookworm");
    run(fetch.arg(&tree)).context("bootstrapping Debian")?;
    // A link, to the newest.
    fs::copy(tree.join("vmlinuz"), draft.join("vmlinuz")).context("copying the kernel")?;
    partition(&disk, draft)?;
    write_bios_boot(&tree, &disk)?;
    let sectors = (ROOT - ESP) * MIB / SECTOR;
    write_esp(&disk, ESP, sectors, &tree.join("boot/grub/bootx64.efi"))?;
    let (offset, size) = (ROOT * MIB, ROOT_END - ROOT);
    let mut root = command("mke2fs", ["-q", "-F", "-t", "ext4", "-L", "INSTALLED"]);
    root.arg("-E").arg(format!("offset={offset}"));
    root.arg("-d").args([&tree, &disk]).arg(format!("{size}M"));
    run(&mut root).context("making the root file system")?;
    fs::remove_dir_all(&tree).context("removing the tree")
}

fn partition(disk: &Path, draft: &Path) -> Result<()> {
    let layout = format!(
        "label: gpt\n\
         start={BIOS}MiB, size={}MiB, type=21686148-6449-6E6F-744E-656564454649\n\
         start={ESP}MiB, size={}MiB, type=U\n\
         start={ROOT}MiB, size={}MiB, type=L\n",
        ESP - BIOS,
        ROOT - ESP,
        ROOT_END - ROOT
    );
    let file = draft.join("layout");
    fs::write(&file, layout)?;
    File::create(disk)?.set_len(DISK)?;
    run(command("sfdisk", ["--quiet"])
        .arg(disk)
        .stdin(File::open(&file)?))?;
    Ok(())
}

/// What `grub-bios-setup` does with a disk that is there as a device: the boot sector is told where GRUB's
/// image begins, and that where it goes on (GRUB's `include/grub/i386/pc/boot.h`, `grub-core/boot/i386/pc`).
fn write_bios_boot(tree: &Path, disk: &Path) -> Result<()> {
    /// The boot sector ends where the protective MBR's own fields begin.
    const CODE_LEN: usize = 440;
    const IMAGE_SECTOR: usize = 0x5c;
    /// The last of the first sector's list of places.
    const REST_SECTOR: usize = 512 - 12;
    let read = |name: &str| {
        let path = tree.join(name);
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    };
    let mut sector = read("usr/lib/grub/i386-pc/boot.img")?;
    let mut image = read("boot/grub/core.img")?;
    let begins = BIOS * MIB / SECTOR;
    for (bytes, at, place) in [
        (&mut sector, IMAGE_SECTOR, begins),
        (&mut image, REST_SECTOR, begins + 1),
    ] {
        let field = bytes.get_mut(at..at + 8);
        field
            .context("this is no image of GRUB's")?
            .copy_from_slice(&place.to_le_bytes());
    }
    sector.truncate(CODE_LEN);
    let disk = File::options().write(true).open(disk)?;
    disk.write_all_at(&sector, 0)?;
    disk.write_all_at(&image, begins * SECTOR)
        .context("writing GRUB's image")
}
