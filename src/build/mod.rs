//! Plans that make versions: from a directory, an archive or a distribution, or from another version.
//!
//! [`plan_image`] and [`plan_change`] tell what would be done, [`image`] and [`change`] do it.
//! A version is made in a draft of the library, mounted where nobody else sees it; whatever ends a
//! build, there is no half version, no mount and no loop device afterwards.
//!
//! Reading order: `plan` (what is done), `image`, `change`, `import` and `promote` (which steps, in which
//! order), `work` (how), `recipe` and `sections` (what a distribution needs), `apply` and `inside` (doing
//! it in the tree), `adopt` (disks that somebody else wrote), `tree` and `archive` (the files),
//! `filesystem` (what they are put on), `kernel`, `initramfs` and `reconnect` (whether it can boot, and
//! stay), `diff` (what changed), `verify` (whether it is still whole), `trial`
//! (whether it boots), `jobs` (all of it for somebody who
//! is not there to watch).

mod adopt;
mod apply;
mod archive;
mod change;
mod compressed;
mod custom;
mod diff;
mod facts;
mod filesystem;
mod identity;
mod image;
mod import;
mod initramfs;
mod inside;
mod jobs;
mod kernel;
mod plan;
mod promote;
mod recipe;
mod reconnect;
mod script;
mod sections;
mod shown;
mod size;
mod source;
mod tree;
mod trial;
mod usage;
mod verify;
mod version;
mod watch;
mod work;

pub use change::{Change, ChangeRequest, change, plan_change, plan_try, try_change};
pub use custom::{CopyIn, Custom, WrongCopy};
pub use diff::{
    Aspect, Changed, Changes, Diff, Differences, Entry, Kind, PackageChange, PackageChanges, Times,
    TreePath, Trust, check_file_system, diff,
};
pub use filesystem::{FileSystem, SourceDate, UnknownFileSystem, WrongDate};
pub use image::{BuildRequest, image, plan_image};
pub use import::{DiskFormat, ImportRequest, UnknownFormat, import, plan_import};
pub use jobs::{Connected, Preview, Trials, run_job};
pub use plan::{Plan, Step};
pub use promote::{Asked, PromoteRequest, plan_promote, promote};
pub use recipe::{Action, Origin, PackageList, Recipe, RecipeView, Recipes};
pub use script::Script;
pub use size::growth_for;
pub use source::{Source, WrongSource};
pub use tree::Excludes;
pub use trial::{
    SPEAKS, TRIAL_HOST, TRIAL_LIMIT, TrialMachine, Tried, boot_once, ensure_can_be_tried, trial_of,
};
pub use usage::WrongUsage;
pub use verify::{Verdict, verify};
pub use watch::{Phase, Watch, chain};
pub use work::{Built, Keep};

pub use crate::library::{SizeSpec, WrongSize};

/// Whether what no two clients should share is taken out before a version is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scrub {
    /// What the recipe says.
    #[default]
    ByRecipe,
    /// Nothing.
    Nothing,
}

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
