//! The dashboard as a browser without JavaScript sees it: a real server, asked over its control
//! socket, and real initiators beside it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod images;
mod jobs;
#[path = "../target/peer.rs"]
#[allow(dead_code, reason = "the target's own tests use all of it")]
mod peer;
mod room;
mod site;
mod stream;
