//! Builds of whole images, as a person would run them: needs root, xfsprogs, e2fsprogs and loop
//! devices.

mod archives;
mod awkward;
mod compare;
mod kills;
mod site;
mod trees;
mod upgrades;
