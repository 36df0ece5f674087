//! Real clients: Debian images are built and served, and machines without a disk boot from them in QEMU.
//!
//! `cargo xtask test` runs this; by hand: `cargo test --test boot -- --nocapture`, as root. What the
//! clients' consoles and the servers say is kept under `target/lab`.

// clippy.toml exempts functions marked #[test]; here the whole program is a test.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod clients;
mod disks;
mod identity;
mod lab;
mod life;
mod uefi;
