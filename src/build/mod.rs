//! Plans that make versions: from a directory, from an archive, from another version.
//!
//! [`plan_image`] and [`plan_upgrade`] tell what would be done, [`image`] and [`upgrade`] do it.
//! A version is made in a draft of the library, mounted where nobody else sees it; whatever ends a
//! build, there is no half version, no mount and no loop device afterwards.
//!
//! Reading order: `plan` (what is done), `work` (how), `tree` and `archive` (the files),
//! `filesystem` (what they are put on), `kernel`, `initramfs` and `reconnect` (whether it can boot, and
//! stay), `script`
//! (changing what is there).

mod archive;
mod compressed;
mod facts;
mod filesystem;
mod image;
mod initramfs;
mod kernel;
mod plan;
mod reconnect;
mod script;
mod size;
mod source;
mod tree;
mod upgrade;
mod version;
mod watch;
mod work;

pub use filesystem::{FileSystem, SourceDate, UnknownFileSystem, WrongDate};
pub use image::{BuildRequest, image, plan_image};
pub use plan::{Plan, Step};
pub use script::Script;
pub use size::{SizeSpec, WrongSize};
pub use source::{Source, WrongSource};
pub use tree::Excludes;
pub use upgrade::{UpgradeRequest, plan_upgrade, upgrade};
pub use watch::{Phase, Watch};
pub use work::Built;

/// What to do about an initramfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InitramfsCheck {
    /// Read it, and refuse one that cannot find its root over iSCSI.
    #[default]
    Refuse,
    /// Take it as it is.
    Skip,
}
