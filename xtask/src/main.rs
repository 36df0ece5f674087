//! `cargo xtask`: check, test, bench, demo, dist.
fn main() {}
