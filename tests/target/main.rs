//! The target as initiators see it: a server in this process, peers over TCP.
//!
//! `tools` runs other people's initiators, `logins` proves and is sent elsewhere, `hostile` is what
//! nobody should send (with `tests/flood`, where memory is measured), `sessions` is the life of sessions:
//! discovery, logins anew, kicks, resets and the shutdown, and `suite` is libiscsi's own.

// Helpers of tests may panic as tests may; clippy knows test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod hostile;
mod logins;
mod peer;
mod server;
mod sessions;
mod suite;
mod tools;
mod volumes;
