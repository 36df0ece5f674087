//! netroot: root images for diskless machines.
//!
//! One binary builds versioned root images, gives every client its own copy-on-write clone, serves
//! both through its own iSCSI target, and tells iPXE how to boot them.
//!
//! # The floors
//!
//! ```text
//! 4  cli/       web/                    fronts: parse, call, print
//! 3  daemon/                            listeners, live sessions, events, ordered shutdown
//! 2  build/ ──> library/ <── boot/      plans that make versions | images, clones, clients | boot.cfg, ESP
//! 1  iscsi/ ──> scsi/                   wire formats, login, session, connection | logical unit
//! 0  block/     exec/                   numbered blocks | the one place that runs programs
//! ```
//!
//! Imports go down only; `tests/layers.rs` holds the table of who may know whom.
//!
//! # Invariants
//!
//! 1. `block` knows no SCSI, no iSCSI, no image. Reads yield segments; four outcomes, and one
//!    function turns them into SCSI status.
//! 2. `scsi` knows no socket and no iSCSI word. One table maps an opcode to its function.
//! 3. `iscsi::wire` does no I/O, keeps no state and cannot panic. `iscsi::login` and `iscsi::session`
//!    are state machines without I/O, and know no tokio; `connection`, `runner` and what these two
//!    use drive them.
//! 4. `iscsi` does not know images or clients: it asks [`iscsi::Directory`].
//! 5. Only `library` writes documents. Only `exec` runs programs.
//! 6. Mounts, loop devices and temporary files are guards, in a private mount namespace.
//! 7. Plans are values: printed by `--dry-run`, tested without root, stopped at any step.
//! 8. Every SCSI command is answered exactly once. A bad peer ends its own connection, nothing else.
//! 9. No `unsafe` outside one small file per need; no `unwrap` on anything from outside.
//!
//! # Reading order
//!
//! [`block`] (what a disk is), [`scsi`] and [`iscsi`] (how it is spoken to), [`library`] (what is
//! kept, and the rules that keep it safe), [`build`] (how a version is made), [`boot`] (what a client
//! is told), [`daemon`] (all of it at once), [`cli`] and [`web`] (the ways in).

// Their macros panic when who reads them has gone, as `head` does: the fronts write by `cli::print`.
#![deny(clippy::print_stderr, clippy::print_stdout)]

pub mod block;
pub mod boot;
pub mod build;
pub mod cli;
pub mod daemon;
pub mod exec;
pub mod iscsi;
pub mod library;
pub mod scsi;
pub mod web;
