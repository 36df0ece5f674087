//! Firmware that is an initiator itself: UEFI's own (`uefi`), and iPXE's, in a BIOS and in UEFI (`ipxe`).
//! And firmware that starts iPXE from a stick (`stick`), or finds it over the network (`netboot`, over
//! HTTPS in `https`; `loaders`: what others are given there).
//!
//! `cargo xtask test` runs this; by hand: `cargo test --test firmware -- --nocapture`, as root.

// clippy.toml exempts functions marked #[test]; here the whole file is a test.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod https;
mod ipxe;
mod lab;
mod loaders;
mod menu;
mod netboot;
mod portal;
mod stick;
mod uefi;
