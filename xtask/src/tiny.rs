//! The smallest system that there is for a machine: Debian's kernel, and an initramfs with busybox that
//! tells its console what it was started with. Its architecture is any of Debian's.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::debs::unpacked_for;
use crate::guest::STARTED;
use crate::initramfs::Archive;
use crate::lab_dir;

const RELEASE: &str = "bookworm";

/// Kernel and initramfs. It tells its kernel line, and says [`STARTED`] at last.
///
/// # Errors
/// When its packages cannot be had.
pub fn boot_files(architecture: &str) -> Result<(PathBuf, PathBuf)> {
    let fetched = |package: &str| unpacked_for(architecture, RELEASE, package);
    let boot = fetched(&format!("linux-image-cloud-{architecture}"))?.join("boot");
    let mut files = fs::read_dir(&boot)?.filter_map(Result::ok);
    let kernel = files
        .find(|file| file.file_name().to_string_lossy().starts_with("vmlinuz-"))
        .with_context(|| format!("there is no kernel in {}", boot.display()))?;
    let busybox = fetched("busybox-static")?.join("bin/busybox");
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "proc"] {
        archive.directory(directory);
    }
    archive.file("bin/busybox", 0o755, &fs::read(busybox)?);
    let init = format!(
        "#!/bin/busybox sh\n\
         /bin/busybox mount -t devtmpfs none /dev\n\
         /bin/busybox mount -t proc none /proc\n\
         exec >/dev/console 2>&1 </dev/null\n\
         echo \"This is $(/bin/busybox uname -m): $(/bin/busybox cat /proc/cmdline)\"\n\
         echo {STARTED}\n\
         while :; do /bin/busybox sleep 60; done\n"
    );
    archive.file("init", 0o755, init.as_bytes());
    let initramfs = lab_dir().join(format!("tiny-{architecture}.img"));
    // Only a whole one ever has the name.
    let draft = tempfile::NamedTempFile::new_in(lab_dir())?;
    fs::write(draft.path(), archive.finish())?;
    draft.persist(&initramfs)?;
    Ok((kernel.path(), initramfs))
}
