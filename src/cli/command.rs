//! The command line, as one definition: help, completions and man pages all come from it.

mod accounts;
mod client;
mod events;
mod groups;
mod jobs;
mod rollouts;
mod serve;
mod volumes;

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

pub(super) use accounts::{Token, TokenAdd, User, UserAdd};
pub(super) use client::{
    Client, ClientAdd, ClientAssign, ClientPromote, ClientSet, OrNone, Running,
};
pub(super) use events::{Event, Which};
pub(super) use groups::{ClientImport, Group, GroupSet};
pub(super) use jobs::{Job, Queue, Worker};
pub(super) use rollouts::Rollout;
pub(super) use serve::{Boot, Config, Esp, EspCheck, EspExport, EspOf, Serve, Session, Target};

pub(super) use volumes::{Volume, VolumeAdd, VolumeSet};

use crate::build::{CopyIn, DiskFormat, FileSystem, SizeSpec, Source, SourceDate};
use crate::library::{HostName, ImageName, NameError, VersionSpec, Way};

/// Boot a room of diskless machines from versioned images, each with its own copy-on-write disk.
#[derive(Debug, Parser)]
#[command(
    name = "netroot",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
#[command(after_help = "A first machine, from nothing to a login:\n  \
    netroot init\n  \
    netroot image build deb12 --from debian:bookworm\n  \
    netroot client add 52:54:00:12:34:56 --image deb12\n  \
    netroot serve\n\n\
    In a browser, and what is asked for there:\n  \
    netroot user add --first    a link to the dashboard, on http://127.0.0.1:8081\n  \
    sudo netroot worker         does the builds and updates that it asks for\n\n\
    A chroot directory or a tar archive will do, too: --from /fc28")]
pub(super) struct Cli {
    /// The library: the directory that holds images, clones and clients
    #[arg(long, global = true, value_name = "DIR", env = "NETROOT_LIBRARY")]
    #[arg(default_value = "/var/lib/netroot", value_hint = ValueHint::DirPath, display_order = 100)]
    pub library: PathBuf,
    /// Settings of this server that override the library's netroot.toml
    #[arg(long, global = true, value_name = "FILE", env = "NETROOT_CONFIG")]
    #[arg(value_hint = ValueHint::FilePath, display_order = 101)]
    pub config: Option<PathBuf>,
    /// Print results as JSON
    #[arg(long, global = true, display_order = 102)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every command; `cli::run` maps each to the function of the same name.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a library
    Init(Init),
    /// Make, look at and remove root images
    #[command(subcommand)]
    Image(Image),
    /// How distributions are bootstrapped, prepared, updated and upgraded
    #[command(subcommand)]
    Recipe(Recipe),
    /// Assign images to machines, and put machines back to them
    #[command(subcommand)]
    Client(Client),
    /// What the clients of a room have in common
    #[command(subcommand)]
    Group(Group),
    /// Images on their way to many clients, which some try first
    #[command(subcommand)]
    Rollout(Rollout),
    /// Publish files and block devices as they are
    #[command(subcommand)]
    Volume(Volume),
    /// What a client is told when it boots
    #[command(subcommand)]
    Boot(Boot),
    /// Boot files for a client's own EFI system partition
    #[command(subcommand)]
    Esp(Esp),
    /// The configuration, netroot.toml
    #[command(subcommand)]
    Config(Config),
    /// Tell whether this host can do what it is asked, and if not, what is missing; exit code 1 if
    /// something that is configured cannot work
    Doctor,
    /// Serve iSCSI target, boot service and API until SIGTERM
    Serve(Serve),
    /// Do the jobs that the dashboard and --queue ask for: builds, updates, upgrades; needs root
    Worker(Worker),
    /// Long work that was asked for: how far it is, and what came of it
    #[command(subcommand)]
    Job(Job),
    /// Who did what, and what each client did
    #[command(subcommand)]
    Event(Event),
    /// Who may use dashboard and API
    #[command(subcommand)]
    User(User),
    /// What programs show to use the API
    #[command(subcommand)]
    Token(Token),
    /// What is published
    #[command(subcommand)]
    Target(Target),
    /// Who is connected
    #[command(subcommand)]
    Session(Session),
    /// Pass a connection of a machine under test on to its disk; what QEMU starts
    #[command(hide = true)]
    TrialRelay {
        /// The port of the target on this host
        port: u16,
    },
    /// Print shell completions
    Completions {
        /// The shell to complete for
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a directory
    Man {
        /// Where the pages go; made if it is not there
        #[arg(value_hint = ValueHint::DirPath)]
        dir: PathBuf,
        #[command(flatten)]
        run: DryRun,
    },
}

/// For commands that change something.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct DryRun {
    /// Print what would be done, and touch nothing
    #[arg(long, display_order = 90)]
    pub dry_run: bool,
    /// Accepted here too, where there is nothing to ask: scripts can say it everywhere.
    #[arg(long, short, hide = true)]
    pub yes: bool,
}

/// For commands that destroy something.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Consent {
    /// Do not ask; needed where there is no terminal
    #[arg(long, short, display_order = 91)]
    pub yes: bool,
    /// Print what would be done, and touch nothing
    #[arg(long, display_order = 90)]
    pub dry_run: bool,
}

/// `netroot init`
#[derive(Debug, Args)]
pub(super) struct Init {
    /// This host's full name, as clients and admins know it [default: of the system]
    #[arg(long, value_name = "NAME")]
    pub host: Option<HostName>,
    #[command(flatten)]
    pub run: DryRun,
}

/// `netroot image …`
#[derive(Debug, Subcommand)]
pub(super) enum Image {
    /// Build a version of an image from a distribution, a directory or a tar archive
    Build(Box<ImageBuild>),
    /// Make a new image from another: its distribution's next release, or what a script makes of it
    Upgrade(ImageUpgrade),
    /// Install updates of the same release: a new version of the image
    Update(ImageUpdate),
    /// Run a command in a copy of an image: a new version of it, if the command succeeds
    Exec(ImageExec),
    /// Work in a copy of an image: a new version of it, if the shell ends with 0
    Shell(ImageShell),
    /// Make a version of an image from a disk that was made elsewhere
    Import(ImageImport),
    /// List images and their versions
    List,
    /// Show the line of an image's versions and who uses them, or one version
    Show {
        /// fc28, or fc28@3 for one version
        image: VersionSpec,
    },
    /// Say something of an image for all who boot it
    Set(ImageSet),
    /// Tell what changed from one version to another: files and packages
    Diff(ImageDiff),
    /// Make an older version current again, or a newer one: clients get it at their next boot, clones
    /// stay what they are
    Rollback {
        /// fc28, or fc28@2
        image: VersionSpec,
        /// The number of the version [default: the one that the current version was made from]
        #[arg(value_name = "VERSION")]
        number: Option<u32>,
        #[command(flatten)]
        consent: Consent,
    },
    /// Check versions against their manifests: all hashes, and the file system, read-only
    Verify {
        /// fc28 (its current version), or fc28@3
        #[arg(required_unless_present = "all")]
        images: Vec<VersionSpec>,
        /// All versions, of the images that are named or of every image
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        queue: Queue,
    },
    /// Boot a version in QEMU, from a disk over iSCSI, to see whether people could get it
    Test(ImageTest),
    /// Remove old versions that are neither current nor used, and what failed builds have left
    Prune {
        /// Only versions of this image
        image: Option<ImageName>,
        /// How many of the newest versions stay
        #[arg(long, value_name = "N", value_parser = at_least_one)]
        keep: NonZeroU32,
        #[command(flatten)]
        consent: Consent,
    },
    /// Remove an image with all its versions, or one version, unless somebody uses it
    Remove {
        /// fc28 (all of it), or fc28@3
        image: VersionSpec,
        /// Also when it is used: running boots are cut off first, clones of it and what is kept of
        /// them for undo are removed for ever, and clients that are assigned to it boot nothing
        /// until they are assigned to something else
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        consent: Consent,
    },
}

/// `netroot image set`
#[derive(Debug, Args)]
#[command(
    after_help = "A client's own way counts before its groups', theirs before that of the image, and that \
    before [clients] in netroot.toml. It counts for whoever boots the image, also where a menu offers it \
    for once, from the next boot on. How a person's disk boots is said of the machine, beyond which its \
    image may ask for ibft. New versions leave it; an image that is made of this one by `image \
    upgrade` or `client promote` begins with it. A version that does not boot that way does not become \
    current."
)]
pub(super) struct ImageSet {
    /// The image
    pub name: ImageName,
    /// How those get kernel and disk who boot it: http, ibft or esp; none goes by everybody's again
    #[arg(long, value_name = "WAY", value_parser = way_or_none)]
    pub way: OrNone<Way>,
    #[command(flatten)]
    pub run: DryRun,
}

/// A way, or the word that none is said.
fn way_or_none(text: &str) -> Result<OrNone<Way>, NameError> {
    client::or_none(if text == "none" { "" } else { text })
}

/// `netroot image test`
#[derive(Debug, Args)]
#[command(
    after_help = "The version boots as a client in mode shared does, with the kernel arguments of all \
    clients; what it writes is gone afterwards. It passes when its system reaches multi-user. Needs QEMU, \
    and neither root nor a network. Where `publish_gate` is set in netroot.toml, a version that \
    passes becomes current if nothing but this test kept it from that."
)]
pub(super) struct ImageTest {
    /// fc28 (its newest version), or fc28@3
    pub image: VersionSpec,
    /// Leave current what is current
    #[arg(long)]
    pub no_publish: bool,
    /// Minutes after which it has failed
    #[arg(long, value_name = "MINUTES", value_parser = at_least_one, default_value = "15", conflicts_with = "queue")]
    pub within: NonZeroU32,
    #[command(flatten)]
    pub queue: Queue,
    #[command(flatten)]
    pub run: DryRun,
}

/// `netroot image diff`
#[derive(Debug, Args)]
pub(super) struct ImageDiff {
    /// fc28 (its current version), or fc28@2
    pub from: VersionSpec,
    /// What to compare it with; without it, the version before an image's current one is compared
    /// with the current one
    pub to: Option<VersionSpec>,
    /// Tell changed modification times, too
    #[arg(long)]
    pub times: bool,
    /// Read the contents of all files, where both disks are copies of one file system also of those
    /// whose inode, size and times say that nobody changed them
    #[arg(long)]
    pub read_all: bool,
    /// Print every path, not only the first of each directory
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub queue: Queue,
}

/// `netroot image build`
#[derive(Debug, Args)]
pub(super) struct ImageBuild {
    /// The image; made if it is new, else it gets its next version
    pub name: ImageName,
    /// A distribution and its release (debian:bookworm), a chroot directory, a tar archive (plain, gz,
    /// xz, zst), or - for a tar archive on standard input, which needs --size in bytes and --kernel
    /// unless a recipe prepares it, since it can be read only once
    #[arg(long, value_name = "SOURCE", value_hint = ValueHint::AnyPath)]
    pub from: Source,
    /// Prepare the tree by this recipe, scrub it, make its initramfs; a distribution has its own
    #[arg(long, value_name = "NAME")]
    pub recipe: Option<String>,
    /// Where a distribution is bootstrapped from, instead of where its recipe says
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
    /// Install this package too; repeatable
    #[arg(long = "package", value_name = "NAME")]
    pub packages: Vec<String>,
    /// What its clients are called, unless DHCP tells them
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// root's password, hashed as `openssl passwd -6` does: a file with the hash, or the hash itself,
    /// which other users of this host can then see
    #[arg(long, value_name = "FILE|HASH", value_hint = ValueHint::FilePath)]
    pub root_password_hash: Option<String>,
    /// Let this SSH key log in as root: a line of authorized_keys, or a .pub file; repeatable
    #[arg(long = "authorized-key", value_name = "KEY", value_hint = ValueHint::FilePath)]
    pub authorized_keys: Vec<String>,
    /// Copy a file, or what is in a directory, into the image as root's; repeatable
    #[arg(long = "copy", value_name = "SRC:DEST")]
    pub copies: Vec<CopyIn>,
    /// Run this script or command line in the image; repeatable
    #[arg(long = "run", value_name = "SCRIPT", value_hint = ValueHint::FilePath)]
    pub scripts: Vec<OsString>,
    /// The file system of the root disk; erofs is compressed and read-only, for clients in mode
    /// shared only
    #[arg(long, value_name = "xfs|ext4|btrfs|erofs", default_value = "xfs")]
    pub fs: FileSystem,
    /// Size of the disk: a multiple of the tree's (1.5x) or absolute (20G) [default: 2x]
    #[arg(long, value_name = "SIZE")]
    pub size: Option<SizeSpec>,
    /// Boot this kernel, instead of the newest under /lib/modules
    #[arg(long, value_name = "VERSION")]
    pub kernel: Option<String>,
    /// Make the same disk from the same tree every time, dated no later than this (seconds since
    /// 1970): with --fs erofs or ext4, which then keeps times to the second
    #[arg(
        long,
        value_name = "SECONDS",
        env = "SOURCE_DATE_EPOCH",
        hide_env_values = true
    )]
    pub source_date: Option<SourceDate>,
    /// Leave out this path of the source, such as /var/cache/dnf, or of the tree that a distribution
    /// became; * and ? match within a name; repeatable
    #[arg(long, value_name = "PATH", value_parser = left_out)]
    pub exclude: Vec<String>,
    /// Accept an initramfs that does not look able to mount an iSCSI root
    #[arg(long)]
    pub no_initramfs_check: bool,
    /// Leave machine-id, SSH host keys and the like in the tree. They are taken out where a recipe,
    /// --package, --hostname, --copy, --run or the like change it; a directory or an archive that is
    /// taken as it is keeps them
    #[arg(long)]
    pub no_scrub: bool,
    /// Keep the draft if the build fails, and say how to look inside
    #[arg(long)]
    pub keep_failed: bool,
    #[command(flatten)]
    pub queue: Queue,
    #[command(flatten)]
    pub run: DryRun,
}

/// `netroot image upgrade`
#[derive(Debug, Args)]
pub(super) struct ImageUpgrade {
    /// The image to start from; its current version stays as it is
    pub from: VersionSpec,
    /// The image to make
    pub to: ImageName,
    /// Upgrade the distribution to this release, by its recipe
    #[arg(long, value_name = "RELEASE")]
    pub release: Option<String>,
    /// A script or command that runs in the image, with its arguments; after the upgrade, if both
    #[arg(last = true, num_args = 1.., value_name = "SCRIPT")]
    pub script: Vec<OsString>,
    #[command(flatten)]
    pub queue: Queue,
    #[command(flatten)]
    pub change: ChangeOptions,
}

/// `netroot image update`
#[derive(Debug, Args)]
#[command(
    after_help = "Where packages, kernel and recipe are what they were, there is no new version: this \
    is told, the exit code is 0, and --json prints {\"version\": null, \"from\": \"fc28@3\"}."
)]
pub(super) struct ImageUpdate {
    /// The image; its current version stays as it is
    pub image: VersionSpec,
    #[command(flatten)]
    pub queue: Queue,
    #[command(flatten)]
    pub change: ChangeOptions,
}

/// `netroot image exec`
#[derive(Debug, Args)]
pub(super) struct ImageExec {
    /// The image; its current version stays as it is
    pub image: VersionSpec,
    /// A command of the image, or a script of this host (./change.sh), with its arguments
    #[arg(last = true, required = true, num_args = 1.., value_name = "COMMAND")]
    pub command: Vec<OsString>,
    #[command(flatten)]
    pub change: ChangeOptions,
}

/// `netroot image shell`
#[derive(Debug, Args)]
pub(super) struct ImageShell {
    /// The image; its current version stays as it is
    pub image: VersionSpec,
    /// Throw away what was done; --json prints {"version": null, "from": "fc28@3"}
    #[arg(long, conflicts_with_all = ["kernel", "recipe", "no_initramfs_check", "no_scrub", "keep_failed"])]
    pub discard: bool,
    #[command(flatten)]
    pub change: ChangeOptions,
}

/// For commands that make a version from another one.
#[derive(Debug, Args)]
pub(super) struct ChangeOptions {
    /// Grow the disk: a multiple of its size (1.5x) or absolute (20G)
    #[arg(long, value_name = "SIZE")]
    pub size: Option<SizeSpec>,
    /// Boot this kernel, instead of the newest under /lib/modules
    #[arg(long, value_name = "VERSION")]
    pub kernel: Option<String>,
    /// Go by this recipe, instead of the one that it was made by or that is for its distribution
    #[arg(long, value_name = "NAME")]
    pub recipe: Option<String>,
    /// Accept an initramfs that does not look able to mount an iSCSI root
    #[arg(long)]
    pub no_initramfs_check: bool,
    /// Leave machine-id, SSH host keys, histories, package caches and the like as they are
    #[arg(long)]
    pub no_scrub: bool,
    /// Keep the draft if it fails, and say how to look inside
    #[arg(long)]
    pub keep_failed: bool,
    #[command(flatten)]
    pub run: DryRun,
}

/// `netroot image import`
#[derive(Debug, Args)]
#[command(
    after_help = "A disk with a partition table is taken as it is. Clients boot it by themselves, \
    as if it were a drive of theirs, which needs a boot loader on it, and a system that can run from \
    an iSCSI disk of the firmware (iBFT). Give it to clients in mode persistent or ephemeral: in mode \
    shared it is read-only, which few systems can boot from.\n\n\
    A bare file system (xfs, ext4, btrfs, erofs) is checked, and its kernel and initramfs are taken out, as \
    from a directory by `image build`."
)]
pub(super) struct ImageImport {
    /// The image; made if it is new, else it gets its next version
    pub name: ImageName,
    /// The file with the disk: raw, qcow2, vmdk or vhdx, and whole: one that names other files is
    /// refused
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub from: PathBuf,
    /// What the file is [default: told from its first bytes]
    #[arg(long, value_name = "raw|qcow2|vmdk|vhdx")]
    pub format: Option<DiskFormat>,
    /// Boot this kernel of a bare file system, instead of the newest under /lib/modules
    #[arg(long, value_name = "VERSION")]
    pub kernel: Option<String>,
    /// Go by this recipe with a bare file system, now and in updates of it, instead of the one for
    /// its distribution
    #[arg(long, value_name = "NAME")]
    pub recipe: Option<String>,
    /// Accept an initramfs that does not look able to mount an iSCSI root
    #[arg(long)]
    pub no_initramfs_check: bool,
    /// Leave machine-id, SSH host keys, histories, package caches and the like of a bare file system as
    /// they are
    #[arg(long)]
    pub no_scrub: bool,
    /// Keep the draft if it fails, and say how to look inside
    #[arg(long)]
    pub keep_failed: bool,
    #[command(flatten)]
    pub run: DryRun,
}

/// `netroot recipe …`
#[derive(Debug, Subcommand)]
pub(super) enum Recipe {
    /// List recipes: which distributions they are for, and what they can do
    List,
    /// Print a recipe; a changed copy of it in the library's recipes/ takes its place
    Show {
        /// Its name
        name: String,
    },
}

fn at_least_one(text: &str) -> Result<NonZeroU32, String> {
    if text.trim() == "0" {
        return Err(String::from(
            "the current version always stays: give 1 or more (`netroot image remove NAME` removes \
             an image)",
        ));
    }
    text.parse()
        .map_err(|_| String::from("give a number, 1 or more"))
}

fn left_out(text: &str) -> Result<String, String> {
    let mut names = text.split('/').filter(|name| !matches!(*name, "" | "."));
    match names.clone().next() {
        None => Err(String::from("that names nothing within the tree")),
        Some(_) if names.any(|name| name == "..") => Err(String::from(
            "give the path from the root of the tree, without ..",
        )),
        Some(_) => Ok(text.to_owned()),
    }
}
