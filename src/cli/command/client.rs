//! `netroot client …`

use std::str::FromStr;

use clap::{Args, Subcommand};

use super::{Consent, DryRun, Queue};
use crate::library::{
    ChapBy, ClientName, ClientSelector, GroupName, ImageName, KernelArg, MacAddr, Mode, Settings,
    SettingsEdit, SshKey, Switch, VersionSpec, Way,
};

/// Its commands.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Client {
    /// Make a machine known, and give it an image
    Add(ClientAdd),
    /// Change a client's settings
    Set(ClientSet),
    /// Give a client another image
    Assign(ClientAssign),
    /// List clients
    List {
        /// Only clients of this group
        #[arg(long, short, value_name = "GROUP")]
        group: Option<GroupName>,
        /// Machines that asked the running server what to boot, and are no clients yet
        #[arg(long, conflicts_with = "group")]
        unknown: bool,
    },
    /// Show one client
    Show {
        /// MAC, name, or @group
        client: ClientSelector,
    },
    /// Put a client's disk back to its pristine version
    Reset {
        /// MAC, name, or @group
        client: ClientSelector,
        #[command(flatten)]
        running: Running,
        #[command(flatten)]
        consent: Consent,
    },
    /// Take the last reset or assignment back, or call off one that waits for a boot
    Undo {
        /// MAC, name, or @group
        client: ClientSelector,
        #[command(flatten)]
        running: Running,
        #[command(flatten)]
        consent: Consent,
    },
    /// Bring back a disk that is kept since a reset or an assignment, and what was assigned then
    Restore {
        /// MAC or name
        client: ClientSelector,
        /// The disk, by the id that `client show` tells
        disk: String,
        #[command(flatten)]
        running: Running,
        #[command(flatten)]
        consent: Consent,
    },
    /// Make an image of a client's disk: what it installed, every client can have
    Promote(ClientPromote),
    /// Forget a client and remove its disk
    Remove {
        /// MAC, name, or @group
        client: ClientSelector,
        /// Also when it is running: its boot is cut off first
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        consent: Consent,
    },
}

/// What to do about a client that is running: without either, the act is refused.
#[derive(Debug, Clone, Copy, Args)]
pub(in crate::cli) struct Running {
    /// Do it at the client's next boot
    #[arg(long, conflicts_with = "force")]
    pub at_next_boot: bool,
    /// Do it now: the running boot is cut off its disk first
    #[arg(long)]
    pub force: bool,
}

/// `netroot client add`
#[derive(Debug, Args)]
pub(in crate::cli) struct ClientAdd {
    /// The machine's MAC; `client set` gives it further ones
    pub mac: MacAddr,
    /// A name to call it by [default: made from the MAC]
    #[arg(long, value_name = "NAME")]
    pub name: Option<ClientName>,
    /// What it boots: fc28 (always the current version), or fc28@3
    #[arg(long, short, value_name = "IMAGE")]
    pub image: VersionSpec,
    /// Where its writes go: RAM (shared), its own disk (persistent), its own disk made new at every boot (ephemeral)
    #[arg(long, short, value_name = "MODE", default_value_t = Mode::Shared)]
    pub mode: Mode,
    /// A kernel argument; repeatable
    #[arg(long = "arg", value_name = "K[=V]")]
    pub args: Vec<KernelArg>,
    /// A group that it belongs to; repeatable
    #[arg(long = "group", short, value_name = "GROUP")]
    pub groups: Vec<GroupName>,
    #[command(flatten)]
    pub settings: SettingsArgs,
    #[command(flatten)]
    pub run: DryRun,
}

/// `netroot client set`
#[derive(Debug, Args)]
pub(in crate::cli) struct ClientSet {
    /// MAC, name, or @group
    pub client: ClientSelector,
    /// A name to call it by
    #[arg(long, value_name = "NAME")]
    pub name: Option<ClientName>,
    /// Where its writes go: shared, persistent or ephemeral
    #[arg(long, short, value_name = "MODE")]
    pub mode: Option<Mode>,
    /// The machine's further MACs, in place of those it has; repeatable, --mac= for none
    #[arg(long = "mac", value_name = "MAC", value_parser = or_none::<MacAddr>)]
    pub macs: Option<Vec<OrNone<MacAddr>>>,
    /// Kernel arguments, in place of those it has; repeatable, --arg= for none
    #[arg(long = "arg", value_name = "K[=V]", value_parser = or_none::<KernelArg>)]
    pub args: Option<Vec<OrNone<KernelArg>>>,
    /// Groups, in place of those it has; repeatable, --group= for none
    #[arg(long = "group", short, value_name = "GROUP", value_parser = or_none::<GroupName>)]
    pub groups: Option<Vec<OrNone<GroupName>>>,
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Draw another machine-id and other SSH host keys, which it has from its next boot on
    #[arg(long)]
    pub new_identity: bool,
    #[command(flatten)]
    pub running: Running,
    #[command(flatten)]
    pub consent: Consent,
}

/// What can be said for one client, and for all of a group.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct SettingsArgs {
    /// How it gets kernel and disk: http, ibft or esp; --way= goes by its groups and everybody again
    #[arg(long, value_name = "WAY", value_parser = or_none::<Way>)]
    pub way: Option<OrNone<Way>>,
    /// Where it is given the secret that it proves at its login: ibft, kernel-line or off
    #[arg(long, value_name = "WHERE", value_parser = or_none::<ChapBy>)]
    pub chap: Option<OrNone<ChapBy>>,
    /// Whether the target proves one in return: on or off
    #[arg(long, value_name = "SWITCH", value_parser = or_none::<Switch>)]
    pub mutual: Option<OrNone<Switch>>,
    /// Whether it is given its own host name, machine-id and SSH host keys: on or off
    #[arg(long, value_name = "SWITCH", value_parser = or_none::<Switch>)]
    pub identity: Option<OrNone<Switch>>,
    /// A public SSH key that may log in as root, in place of those it has; repeatable
    #[arg(long = "authorized-key", value_name = "KEY", value_parser = or_none::<SshKey>)]
    pub authorized_keys: Option<Vec<OrNone<SshKey>>>,
}

impl SettingsArgs {
    /// The change that is asked for.
    pub(in crate::cli) fn edit(&self) -> SettingsEdit {
        SettingsEdit {
            way: self.way.clone().map(OrNone::value),
            chap: self.chap.clone().map(OrNone::value),
            mutual: self.mutual.clone().map(OrNone::value),
            identity: self.identity.clone().map(OrNone::value),
            authorized_keys: self.authorized_keys.as_deref().map(|given| {
                let keys: Vec<SshKey> = OrNone::list(given);
                (!keys.is_empty()).then_some(keys)
            }),
        }
    }

    /// The settings of something new.
    pub(in crate::cli) fn settings(&self) -> Settings {
        Settings::default().edited(&self.edit())
    }
}

/// `netroot client assign`
#[derive(Debug, Args)]
pub(in crate::cli) struct ClientAssign {
    /// MAC, name, or @group
    pub client: ClientSelector,
    /// fc28 (always the current version), or fc28@3
    pub image: VersionSpec,
    #[command(flatten)]
    pub running: Running,
    #[command(flatten)]
    pub consent: Consent,
}

/// `netroot client promote`
#[derive(Debug, Args)]
#[command(
    after_help = "The client has to be shut down, and cannot boot while its disk is copied. The copy \
    is checked, and what no two machines should share (machine-id, SSH host keys, logs, ...) is taken \
    out of it. Kernel and initramfs are the newest that the client has installed. The client keeps \
    its disk as it is."
)]
pub(in crate::cli) struct ClientPromote {
    /// MAC or name
    pub client: ClientSelector,
    /// The image that its disk was made from, or a new one
    pub name: ImageName,
    /// Accept an initramfs that does not look able to mount an iSCSI root
    #[arg(long)]
    pub no_initramfs_check: bool,
    /// Leave machine-id, SSH host keys, histories, package caches and the like as they are
    #[arg(long)]
    pub no_scrub: bool,
    /// Keep a draft that failed, and say how to look inside
    #[arg(long)]
    pub keep_failed: bool,
    #[command(flatten)]
    pub queue: Queue,
    #[command(flatten)]
    pub consent: Consent,
}

/// One of a list that replaces another, or the word that the list is to be empty.
#[derive(Debug, Clone)]
pub(in crate::cli) struct OrNone<T>(Option<T>);

impl<T: Clone> OrNone<T> {
    /// It, where it is one.
    pub(in crate::cli) fn value(self) -> Option<T> {
        self.0
    }

    /// The whole list that was given.
    pub(in crate::cli) fn list<L: FromIterator<T>>(given: &[Self]) -> L {
        given.iter().filter_map(|one| one.0.clone()).collect()
    }
}

pub(super) fn or_none<T: FromStr>(text: &str) -> Result<OrNone<T>, T::Err> {
    if text.is_empty() {
        Ok(OrNone(None))
    } else {
        text.parse().map(|one| OrNone(Some(one)))
    }
}
