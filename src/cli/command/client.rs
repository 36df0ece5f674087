//! `netroot client …`

use std::num::NonZeroU32;
use std::str::FromStr;

use clap::{Args, Subcommand};

use super::{ClientImport, Consent, DryRun, Queue};
use crate::library::{
    ByteSize, ChapBy, ClientName, ClientSelector, GroupName, ImageName, KernelArg, Lifetime,
    MacAddr, MenuItem, MenuSeconds, MenuWhen, Mode, Settings, SettingsEdit, SizeOrNone,
    SnapshotName, SshKey, Switch, VersionSpec, Way, Within,
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
        /// As a table that `client import` reads
        #[arg(long, conflicts_with_all = ["unknown", "json"])]
        csv: bool,
        /// Machines that asked the running server what to boot, and are no clients yet
        #[arg(long, conflicts_with = "group")]
        unknown: bool,
    },
    /// Show one client, and how its last boot went
    Show {
        /// MAC, name, or @group
        client: ClientSelector,
        /// How its last boots went, stage by stage
        #[arg(long)]
        boots: bool,
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
    /// Bring back a snapshot, or a disk that is kept since a reset or an assignment, and what was assigned then
    Restore {
        /// MAC, name, or @group
        client: ClientSelector,
        /// The snapshot by its name, or the disk by the id that `client show` tells
        disk: String,
        #[command(flatten)]
        running: Running,
        #[command(flatten)]
        consent: Consent,
    },
    /// Add many machines from a table (CSV)
    Import(ClientImport),
    /// Turn machines on by Wake-on-LAN, which their firmware has to allow
    Wake {
        /// MAC, name, or @group
        client: ClientSelector,
        #[command(flatten)]
        run: DryRun,
    },
    /// Keep a copy of a client's disk under a name, until it is forgotten
    ///
    /// The copy shares its blocks where the file system can (XFS, btrfs). Of a client that runs it is
    /// crash-consistent: as a power cut at that moment would have left the disk; of one that is shut down
    /// it is exact. Elsewhere the disk is copied, and the client has to be shut down. `client restore`
    /// brings it back, as often as wanted.
    Snapshot {
        /// MAC, name, or @group
        client: ClientSelector,
        /// Its name [default: made from the moment]
        #[arg(long, value_name = "NAME")]
        name: Option<SnapshotName>,
        #[command(flatten)]
        run: DryRun,
    },
    /// Remove a snapshot, or a disk that is kept since a reset or an assignment, for ever
    Forget {
        /// MAC, name, or @group
        client: ClientSelector,
        /// The snapshot by its name, or the disk by the id that `client show` tells
        disk: String,
        #[command(flatten)]
        consent: Consent,
    },
    /// Make a client's disk larger, also while it runs
    ///
    /// Later disks of the client, as after a reset, have this size too. A disk never shrinks. The client
    /// sees it at once, and enlarges what is on it itself: `xfs_growfs /` for XFS, `resize2fs DEVICE` for
    /// ext4, `btrfs filesystem resize max /` for btrfs. There is no partition table in the way.
    Resize {
        /// MAC, name, or @group
        client: ClientSelector,
        /// The new size, such as 40G
        size: ByteSize,
        #[command(flatten)]
        run: DryRun,
    },
    /// Make an image of a client's disk: what it installed, every client can have
    Promote(ClientPromote),
    /// Remove a client; its disks are kept for a while, for a client of the same MAC
    Remove {
        /// MAC, name, or @group
        client: ClientSelector,
        /// Also when it is running: its boot is cut off first
        #[arg(long)]
        force: bool,
        /// Remove its disks at once, for ever
        #[arg(long)]
        purge: bool,
        #[command(flatten)]
        consent: Consent,
    },
}

/// What to do about a client that is running: without either, the act is refused.
#[derive(Debug, Clone, Copy, Default, Args)]
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
    /// [default: its group's]
    #[arg(long, short, value_name = "IMAGE")]
    pub image: Option<VersionSpec>,
    /// Where its writes go: RAM (shared), its own disk (persistent), its own disk made new at every boot (ephemeral)
    /// [default: its group's, or shared]
    #[arg(long, short, value_name = "MODE")]
    pub mode: Option<Mode>,
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
    /// How it gets kernel and disk: http, ibft or esp; --way= goes by its groups, its image and everybody again
    #[arg(long, value_name = "WAY", value_parser = or_none::<Way>)]
    pub way: Option<OrNone<Way>>,
    /// When its machine shows a menu: off, key (Ctrl-B) or always; --menu= goes by its groups and everybody
    #[arg(long, value_name = "WHEN", value_parser = or_none::<MenuWhen>)]
    pub menu: Option<OrNone<MenuWhen>>,
    /// What the menu offers: own, local, login, shell or an image; repeatable, the first is taken unasked
    #[arg(long = "menu-item", value_name = "ITEM", value_parser = or_none::<MenuItem>)]
    pub menu_items: Option<Vec<OrNone<MenuItem>>>,
    /// How long the menu waits
    #[arg(long, value_name = "SECONDS", value_parser = or_none::<MenuSeconds>)]
    pub menu_timeout: Option<OrNone<MenuSeconds>>,
    /// How much its disk may hold beyond the version, such as 20G, or none: no limit, whatever its groups say; --quota= goes by them and everybody again
    #[arg(long, value_name = "SIZE", value_parser = or_none::<SizeOrNone>)]
    pub quota: Option<OrNone<SizeOrNone>>,
    /// How large its next disk is at least; `client resize` enlarges the one that it has
    #[arg(long, value_name = "SIZE", value_parser = or_none::<ByteSize>)]
    pub size: Option<OrNone<ByteSize>>,
    /// A second disk of this size, which stays over resets and upgrades and only grows; or none, whatever its groups say
    #[arg(long, value_name = "SIZE", value_parser = or_none::<SizeOrNone>)]
    pub data: Option<OrNone<SizeOrNone>>,
    /// How long its disks are kept after a reset or an assignment: 14d, 12h or never to go
    #[arg(long, value_name = "TIME", value_parser = or_none::<Lifetime>)]
    pub keep_discarded: Option<OrNone<Lifetime>>,
    /// Where it is given the secret that it proves at its login: ibft (also for disks that boot themselves), kernel-line or off
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
            menu: self.menu.clone().map(OrNone::value),
            menu_items: self.menu_items.as_deref().map(OrNone::some_list),
            menu_timeout: self.menu_timeout.clone().map(OrNone::value),
            quota: self.quota.clone().map(OrNone::value),
            size: self.size.clone().map(OrNone::value),
            data: self.data.clone().map(OrNone::value),
            keep_discarded: self.keep_discarded.clone().map(OrNone::value),
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
#[command(
    after_help = "With --canary the first of them, by name, get the image at their next boot. When each \
    has logged in to its disk and stayed for 2 minutes, the others get it at theirs. Where that does \
    not come about within the time, those who have it are set back, and `netroot rollout show` and the \
    event say why. The server has to run; a restart of it begins the time anew."
)]
pub(in crate::cli) struct ClientAssign {
    /// MAC, name, or @group
    pub client: ClientSelector,
    /// fc28 (always the current version), or fc28@3
    pub image: VersionSpec,
    /// Try it on so many of them first
    #[arg(long, value_name = "N", conflicts_with_all = ["at_next_boot", "force"])]
    pub canary: Option<NonZeroU32>,
    /// How long those have to boot, log in and stay: 10m, 2h, 3d [default: 30m]
    #[arg(long, value_name = "TIME", requires = "canary")]
    pub within: Option<Within>,
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

    /// The whole list that was given; nothing if that is empty.
    pub(in crate::cli) fn some_list(given: &[Self]) -> Option<Vec<T>> {
        let list: Vec<T> = Self::list(given);
        (!list.is_empty()).then_some(list)
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
