//! Dashboard and API over HTTP, of a real server: what browsers and programs see.
//!
//! Further files test one part each; `site` holds the server and what speaks to it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod auth;
mod routes;
mod site;
mod tls;
