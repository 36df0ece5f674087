//! A real distribution to make an image of: a small Debian 12 with dracut, made by mmdebstrap.
//!
//! The recipe is the files under `xtask/lab/debian` and the arguments below; comments beside their lines
//! say why each is there. A tree is kept under `target/lab` by the hash of its recipe.
//!
//! # What was learnt by booting it
//!
//! - **Shared mode**: `systemd.volatile=overlay rw` on a read-only LUN boots; the root is then an
//!   overlay in RAM. The read-only disk must be clean: XFS does not replay a log on a read-only device.
//! - **A server that is killed** (`kill -9`) only stalls its clients, if `iscsid` runs in the real root:
//!   the initramfs's ends at the switch, and nobody else logs in again. Debian's own unit does not do:
//!   it waits for `network-online.target`, is stopped at shutdown, a drop-in cannot take that away, and
//!   systemd believes it to be running still from the initramfs.
//!   `xtask/lab/debian/tree/etc/systemd/system/iscsid-root.service` does. It logs in under the name of
//!   the boot, because `/etc/iscsi/initiatorname.iscsi` points to `/run/initiatorname.iscsi`, which
//!   dracut wrote and which survives the switch. When it starts it logs in anew once, in the place of
//!   the session that it finds (same ISID): every boot is also a session reinstatement.
//! - **Time**: of 110 s under software emulation, 15 s were iPXE's waiting for an IPv6 router, 10 s were the kernel's random pool (the machine now
//!   has rdrand), 15 s at power-off `dracut-shutdown.service`, which unpacks the initramfs again, and
//!   10 s systemd's status lines on a serial console.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use crate::program::{command, run};

/// Kernel lines of a client add these, so that the laboratory can follow and steer it.
pub const KERNEL_ARGS: &[&str] = &[
    "console=ttyS0,115200n8",
    // No status lines of systemd; the kernel's notices, though, are what stages are known by.
    "quiet",
    "loglevel=6",
    "audit=0",
    "netroot.lab=1",
];

const SUITE: &str = "bookworm";

const PACKAGES: &[&str] = &[
    "dracut",
    "dracut-network",
    "open-iscsi",
    "systemd-sysv",
    "udev",
    "dbus",
    "kmod",
    "util-linux",
    "xfsprogs",
    "e2fsprogs",
    "iproute2",
    // dracut's network-legacy is left out without a clear error when one of these is missing, and then
    // no initramfs is written at all: dhclient, arping, awk, grep, pgrep.
    "isc-dhcp-client",
    "iputils-arping",
    "gawk",
    "grep",
    "procps",
    // Without them dracut falls back to a slow compression, and does not strip.
    "zstd",
    "binutils",
];

/// The tree; made if it is not there yet, which takes about two minutes.
///
/// # Errors
/// When this is not root, or mmdebstrap fails; its output is in the error.
pub fn tree() -> Result<PathBuf> {
    let lab = crate::lab_dir();
    fs::create_dir_all(&lab).with_context(|| format!("creating {}", lab.display()))?;
    // Two tests may want it at once; the lock ends with the process, however that ends.
    let lock = fs::File::create(lab.join("lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .context("waiting for another run that makes the Debian tree")?;
    let recipe = crate::workspace().join("xtask/lab/debian");
    let tree = lab.join(format!("debian-{}", recipe_hash(&recipe)?));
    if tree.exists() {
        return Ok(tree);
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("making the Debian tree needs root");
    }
    let draft = lab.join("debian-draft");
    if draft.exists() {
        fs::remove_dir_all(&draft).context("removing what a killed run left")?;
    }
    eprintln!("making a Debian tree with mmdebstrap (about two minutes)");
    bootstrap(&recipe, &draft)?;
    remove_old(&lab)?;
    // Only a whole tree ever has the name.
    fs::rename(&draft, &tree)?;
    Ok(tree)
}

/// The kernel in a tree.
///
/// # Errors
/// When there is none.
pub fn kernel(tree: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(tree.join("boot"))? {
        let entry = entry?;
        if entry.file_name().as_bytes().starts_with(b"vmlinuz-") {
            return Ok(entry.path());
        }
    }
    bail!("no kernel in {}/boot", tree.display())
}

fn bootstrap(recipe: &Path, draft: &Path) -> Result<()> {
    // mmdebstrap mounts /proc, /sys and /dev in the tree. In namespaces of their own they end with the
    // process, so that a killed run leaves no mount under which something could be removed.
    let mut mmdebstrap = command(
        "unshare",
        [
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "mmdebstrap",
        ],
    );
    mmdebstrap
        .args([
            "--quiet",
            "--mode=root",
            "--variant=minbase",
            "--components=main",
        ])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg("--aptopt=Acquire::Languages \"none\"")
        .args(
            ["man", "doc", "locale", "info"]
                .map(|dir| format!("--dpkgopt=path-exclude=/usr/share/{dir}/*")),
        )
        .arg("--customize-hook=cp -r --preserve=mode \"$LAB_RECIPE\"/tree/. \"$1\"/")
        .arg("--customize-hook=chroot \"$1\" sh -s < \"$LAB_RECIPE\"/finish.sh")
        .arg(SUITE)
        .arg(draft)
        .env("LAB_RECIPE", recipe)
        .env("LC_ALL", "C");
    run(&mut mmdebstrap).map(drop)
}

/// A hash of all that decides what the tree holds, but for the day's packages.
fn recipe_hash(recipe: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(SUITE);
    for package in PACKAGES {
        hash.update(package);
        hash.update([0]);
    }
    for file in files(recipe)? {
        hash.update(file.strip_prefix(recipe)?.as_os_str().as_bytes());
        hash.update([0]);
        hash.update(fs::read(&file)?);
        hash.update([0]);
    }
    let digest = hash.finalize();
    Ok(digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut entries = fs::read_dir(dir)
        .with_context(|| format!("reading {}", dir.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// Trees of older recipes: half a gigabyte each.
fn remove_old(lab: &Path) -> Result<()> {
    for entry in fs::read_dir(lab)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("debian-") && name != "debian-draft" {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_follows_the_recipe() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/a"), "1").unwrap();
        let one = recipe_hash(dir.path()).unwrap();
        assert_eq!(one, recipe_hash(dir.path()).unwrap());
        fs::write(dir.path().join("etc/a"), "2").unwrap();
        let two = recipe_hash(dir.path()).unwrap();
        fs::rename(dir.path().join("etc/a"), dir.path().join("etc/b")).unwrap();
        let three = recipe_hash(dir.path()).unwrap();
        assert!(one != two && two != three);
        assert_eq!(one.len(), 16);
    }
}
