//! Builds of whole images, as a person would run them: needs root, xfsprogs, e2fsprogs, btrfs-progs,
//! erofs-utils and loop devices.

// clippy.toml exempts functions marked #[test]; here the whole file is a test.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod archives;
mod awkward;
mod cautions;
mod compare;
mod diffs;
mod dnf;
mod filesystems;
mod hostile;
mod imports;
mod jobs;
mod kills;
mod moments;
mod network;
mod options;
mod promotes;
mod recipes;
mod rpms;
mod site;
mod trees;
mod upgrades;
