//! The dashboard as a browser without JavaScript sees it: a real server, and real initiators beside it.
//!
//! `site` asks over the control socket, where nobody has to log in; `network` over TCP, where everybody
//! has to.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod auth;
mod boots;
mod doors;
mod esps;
mod groups;
mod images;
mod jobs;
mod limits;
mod menu;
mod metrics;
mod network;
#[path = "../target/peer.rs"]
#[allow(dead_code, reason = "the target's own tests use all of it")]
mod peer;
mod policies;
mod room;
mod routes;
mod settings;
mod site;
mod stream;
mod tls;
mod unknown;
mod veil;
mod volumes;
