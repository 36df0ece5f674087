//! A library as its users see it: images, clients, boots, and what is left after a crash.
//!
//! Every rule about disks is tried twice: on the machine's own file system and on an XFS, so that
//! clones are overlays once and reflinks once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod accounts;
mod anything;
mod clients;
mod crashes;
mod disks;
mod events;
mod fleet;
mod history;
mod holds;
mod images;
mod jobs;
mod lab;
mod logins;
mod menus;
mod modes;
mod names_on_the_wire;
mod policies;
mod rollouts;
mod shared;
mod usage;
mod volumes;
mod ways;
