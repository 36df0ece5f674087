//! A real distribution to make images of: Debian, by the recipe that users have, and what the laboratory
//! adds to it: a hand inside of the client ([`hand`]) and, for tests that boot a lot, a lighter image
//! ([`library`]), built once and copied.
//!
//! # What was learnt by booting it
//!
//! - **Shared mode**: `systemd.volatile=overlay rw` on a read-only LUN boots; the root is then an
//!   overlay in RAM. The read-only disk must be clean: XFS does not replay a log on a read-only device.
//! - **A server that is killed** (`kill -9`) only stalls its clients, if `iscsid` runs in the real root;
//!   `images/debian.toml` says why it is a unit of its own. It logs in under the name of the boot, because
//!   `/etc/iscsi/initiatorname.iscsi` points to `/run/initiatorname.iscsi`, which dracut wrote and which
//!   survives the switch. When it starts it logs in anew once, in the place of the session that it finds
//!   (same ISID): every boot is also a session reinstatement.
//! - **Time**: of 110 s under software emulation, 15 s were iPXE's waiting for an IPv6 router, 10 s were
//!   the kernel's random pool (the machine now has rdrand), 15 s at power-off `dracut-shutdown.service`,
//!   which unpacks the initramfs again, and 10 s systemd's status lines on a serial console. The kernel
//!   for real machines takes 140 s to 200 s, most of it in looking for hardware.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

use crate::cached;
use crate::program::{command, run};
use crate::server::{Site, remove_library};

/// Kernel lines of a client add these, so that the laboratory can follow and steer it.
pub const KERNEL_ARGS: &[&str] = &[
    "console=ttyS0,115200n8",
    // No status lines of systemd; the kernel's notices, though, are what stages are known by.
    "quiet",
    "loglevel=6",
    "audit=0",
    // On a busy host an emulated timer is late, and the kernel that tests it then would panic. Under KVM
    // it leaves that test out by itself.
    "no_timer_check",
    "netroot.lab=1",
];

/// The image in [`library`].
pub const IMAGE: &str = "deb12";

/// Arguments of `netroot image build` for an image that the laboratory can steer, otherwise as the recipe
/// makes it.
pub fn hand() -> Vec<String> {
    added("hand")
}

/// Arguments of `netroot image build` that make of [`hand`]'s an image that boots quickly under software
/// emulation.
pub fn quick() -> Vec<String> {
    [added("hand"), added("quick")].concat()
}

/// A library that holds the image [`IMAGE`], the laboratory's quick one; made by `binary` if it is not
/// there yet, which takes some minutes. It is for copying; nobody changes it.
///
/// # Errors
/// When this is not root, or the build fails; its output is in the error.
pub fn library(binary: &Path) -> Result<PathBuf> {
    let lab = crate::lab_dir();
    fs::create_dir_all(&lab).with_context(|| format!("creating {}", lab.display()))?;
    // Two tests may want it at once; the lock ends with the process, however that ends.
    let lock = fs::File::create(lab.join("lock"))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .context("waiting for another run that makes the Debian image")?;
    let library = lab.join(format!("debian-{}", recipe_hash()?));
    if library.exists() {
        return Ok(library);
    }
    let draft = lab.join("debian-draft");
    remove_library(&draft).context("removing what a killed run left")?;
    eprintln!("making a Debian image by its recipe (some minutes)");
    let site = Site::new(binary, &draft);
    site.init()?;
    let build = ["image", "build", IMAGE, "--from", "debian:bookworm"].map(str::to_owned);
    let build = [&build[..], &quick()].concat();
    site.netroot(&build.iter().map(String::as_str).collect::<Vec<_>>())?;
    remove_old(&lab)?;
    // Only a whole library ever has the name.
    fs::rename(&draft, &library)?;
    Ok(library)
}

/// Copies a library, with its images; a reflink where the file system can.
///
/// # Errors
/// When it cannot be read, or there is no room.
pub fn copy_library(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    let mut copy = command("cp", ["--archive", "--reflink=auto", "--sparse=always"]);
    run(copy.arg(from.join(".")).arg(to)).map(drop)
}

/// The laboratory's files and its script of this name.
fn added(name: &str) -> Vec<String> {
    let path = crate::workspace().join("xtask/lab/debian").join(name);
    let path = path.display();
    vec![format!("--copy={path}:/"), format!("--run={path}.sh")]
}

/// A hash of all that decides what the image holds, but for the day's packages.
fn recipe_hash() -> Result<String> {
    let workspace = crate::workspace();
    let mut all = cached::files(&workspace.join("xtask/lab/debian"))?;
    all.push(workspace.join("images/debian.toml"));
    cached::hash_of_files(&workspace, &all)
}

/// Images of older recipes: half a gigabyte each.
fn remove_old(lab: &Path) -> Result<()> {
    for entry in fs::read_dir(lab)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("debian-") && name != "debian-draft" {
            remove_library(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_laboratory_adds_is_there() {
        for argument in quick() {
            let (_, value) = argument.split_once('=').unwrap();
            let path = value.strip_suffix(":/").unwrap_or(value);
            assert!(Path::new(path).exists(), "{path}");
        }
    }
}
