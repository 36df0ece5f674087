//! Linux's own initiator: a guest with Debian's kernel, open-iscsi, sg3-utils and fio works on volumes
//! of `netroot serve`, and its kernel has nothing to complain about.
//!
//! `cargo xtask test` runs this; by hand: `cargo test --test initiator -- --nocapture`, as root. What the
//! guest and the server said is kept in `target/lab/initiator`, with times.

// clippy.toml exempts functions marked #[test]; here the whole file is a test.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod commands;
mod disks;
mod kernel;
mod lab;
mod logins;
mod outage;
mod paths;
mod trial;

use lab::Lab;

/// One test and one guest: its start is the most of it, and each part leaves what the next one needs.
#[test]
fn linux_works_on_volumes() {
    let mut lab = Lab::new();
    kernel::begin(&lab);
    logins::wrong_secrets_are_refused_on_both_sides(&lab);
    logins::both_prove_their_secrets_and_check_digests(&lab);
    commands::a_unit_tells_what_it_is(&lab);
    commands::data_is_compared_copied_and_unmapped(&lab);
    commands::a_unit_is_sanitized_where_that_is_allowed(&lab);
    disks::ext4_and_xfs_hold_what_fio_verifies_and_shrink_when_trimmed(&lab);
    disks::blocks_of_4096_bytes_and_disks_that_nobody_writes(&lab);
    paths::a_disk_is_the_same_through_both_portals(&lab);
    paths::reservations_keep_others_out(&lab);
    disks::a_disk_grows_while_its_file_system_is_mounted(&lab);
    outage::a_killed_server_loses_nothing(&mut lab);
    logins::everybody_logs_out(&lab);
    kernel::has_not_complained(&lab);
    lab.finish();
}
