//! The project's own tools as a library, so that tests use the same laboratory as the demonstration.
//!
//! The laboratory is a whole small site on one machine: a network of its own ([`netns`]), a real
//! distribution to make an image of ([`debian`]) or on a disk of its own ([`installed`]), the server under
//! test ([`server`]) and machines that boot from it ([`qemu`]), or a small one that only attaches its disks
//! ([`guest`]). [`schemathesis`] asks its API whatever there is to ask. [`packages`] brings what the host
//! lacks, [`debs`] what it is not to have. Everything that is started is owned by a value that ends it when
//! dropped.
//!
//! [`bench_build`], [`bench_image`], [`bench_target`], [`bench_web`], [`check`], [`demo`] and [`suite`]
//! are what `cargo xtask` does with it.
//!
//! By hand, as root: `cargo test --test boot -- --nocapture [NAME]` boots the clients of one test; what
//! they and the servers said is kept in `target/lab/boot-NAME`, with times. A run that is killed leaves
//! a network namespace and what runs in it; the next run sweeps both. Mounts and loop devices end with
//! the process that made them.

mod bench;
pub mod bench_build;
pub mod bench_image;
pub mod bench_target;
pub mod bench_web;
pub mod bios;
mod cached;
pub mod check;
pub mod debian;
pub mod debs;
pub mod demo;
pub mod guest;
pub mod initramfs;
pub mod installed;
pub mod ipxe;
pub mod mounts;
pub mod netns;
pub mod packages;
pub mod program;
pub mod qemu;
pub mod relay;
pub mod schemathesis;
pub mod serial;
pub mod server;
pub mod suite;
pub mod tiny;
pub mod uefi;

use std::path::PathBuf;

/// The directory of the workspace.
pub fn workspace() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}

/// Where the laboratory keeps what is slow to make (`target/lab`).
pub fn lab_dir() -> PathBuf {
    target_dir().join("lab")
}

/// Cargo's target directory.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}
