//! `netroot group …`, and `netroot client import`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::client::{OrNone, SettingsArgs, or_none};
use super::{Consent, DryRun};
use crate::library::{GroupName, KernelArg, Mode, VersionSpec};

/// Its commands.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "A client joins groups by: netroot client add MAC --group room5, or client set CLIENT \
    --group room5. Whatever takes a client takes @room5, too."
)]
pub(in crate::cli) enum Group {
    /// List groups
    List,
    /// Show what is said for a group, and who is in it
    Show {
        /// The group
        name: GroupName,
    },
    /// Say something for all members of a group, those of later too
    Set(GroupSet),
    /// Forget what is said for a group, and take its members out of it
    Remove {
        /// The group
        name: GroupName,
        #[command(flatten)]
        consent: Consent,
    },
}

/// `netroot group set`
#[derive(Debug, Args)]
#[command(
    after_help = "A client's own word counts before its groups', theirs (by their names) before \
    everybody's in netroot.toml; of the way to boot, the image's between them (`image set`). Kernel arguments add up: everybody's, those of its groups, its own. \
    Clients are told at their next boot. Image and mode are what `client add --group` takes unless it \
    is told; `client assign @GROUP` is for those that are there."
)]
pub(in crate::cli) struct GroupSet {
    /// The group; it need not have members yet
    pub name: GroupName,
    /// What clients boot that are added to it; --image= for nothing
    #[arg(long, short, value_name = "IMAGE", value_parser = or_none::<VersionSpec>)]
    pub image: Option<OrNone<VersionSpec>>,
    /// Where the writes of clients go that are added to it: shared, persistent, ephemeral; --mode= for
    /// nothing
    #[arg(long, short, value_name = "MODE", value_parser = or_none::<Mode>)]
    pub mode: Option<OrNone<Mode>>,
    /// Kernel arguments, in place of those it has; repeatable, --arg= for none
    #[arg(long = "arg", value_name = "K[=V]", value_parser = or_none::<KernelArg>)]
    pub args: Option<Vec<OrNone<KernelArg>>>,
    #[command(flatten)]
    pub settings: SettingsArgs,
    #[command(flatten)]
    pub run: DryRun,
}

/// `netroot client import`
#[derive(Debug, Args)]
#[command(
    after_help = "The first line names the columns, in any order: name, mac, image, mode, groups, args, \
    macs, way. `mac` has to be there; groups, args and macs are lists with spaces between them, and an \
    empty cell says nothing. Where one line is wrong, nothing is done. `netroot client list --csv` \
    writes such a table."
)]
pub(in crate::cli) struct ClientImport {
    /// The table, as a file, or - for standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Clients that are there already become what the table says
    #[arg(long)]
    pub update: bool,
    #[command(flatten)]
    pub consent: Consent,
}
