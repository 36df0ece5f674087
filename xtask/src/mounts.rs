//! Mounts of the laboratory: each is in a namespace of the thread that made it and of what that thread
//! starts, so that it ends with them, loop device and all, even if they are killed.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};

use crate::program::{command, run};

/// Makes an XFS of 20 GiB (sparse), which has reflinks, in the file `image`, and mounts it.
///
/// # Errors
/// When this is not root, or a program fails.
pub fn mount_xfs(image: &Path, mount_point: &Path) -> Result<()> {
    File::create(image)
        .and_then(|file| file.set_len(20 << 30))
        .with_context(|| format!("creating {}", image.display()))?;
    run(command("mkfs.xfs", ["-q", "-m", "reflink=1"]).arg(image))?;
    mount_privately("loop", image, mount_point)
}

/// Mounts a file, at a directory that is made for it.
///
/// # Errors
/// When this is not root, the directory is there already, or mount fails.
pub fn mount_privately(options: &str, image: &Path, mount_point: &Path) -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .context("a mount namespace of its own (this needs root)")?;
    run(&mut command("mount", ["--make-rprivate", "/"]))?;
    fs::create_dir(mount_point).with_context(|| format!("creating {}", mount_point.display()))?;
    run(command("mount", ["-o", options]).args([image, mount_point])).map(drop)
}
