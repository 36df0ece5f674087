//! A library: one directory that holds images, clones, clients and events, and the rules that keep
//! them safe.
//!
//! Plain files: disks, and JSON documents that only this module writes. [`Library`] is the way in.
//!
//! The rules, which other modules name by their numbers:
//!
//! 1. **A disk never changes under a running client.** Reset, undo and assignment are refused while a
//!    boot of it may be running, unless they wait for its next boot, or the running one is fenced
//!    first: none of its logins succeeds any more, because a polite request to log out would be
//!    followed by another login that writes an old cache into the new disk.
//! 2. **A new boot is told by its boot id**, which is part of the initiator's name. The id that the
//!    document holds is a reconnect and never resets anything; the first login with a newer one that
//!    this library issued fences the older boot. Fetching a script only arms.
//! 3. **The writer of a clone is one boot of one client**, with any number of sessions. Everybody
//!    else is refused.
//! 4. **A version has its own target.** The alias of an image is bound for each initiator, and does
//!    not move under one that uses it.
//! 5. **A persistent clone boots the kernel of the version that it was made from.** A moved
//!    `current` leaves it alone and shows as drift. What an assignment discards is kept, and undo
//!    brings back both disk and assignment.
//!
//! Where they are kept:
//!
//! - `names`, `bytes`, `mac`, `config`, `manifest`: what things are called, and what is known about them
//! - `document`, `lock`: how documents change, one writer at a time; `edition`: one admin at a time;
//!   `cache`: those that did not
//! - `store`: where disks are; drafts, sealing, clones, holds on them, hashes, and what cleans up after
//!   the killed
//! - `images`: versions, and which one is current
//! - `clients`: who boots what; reset, undo, assign (rules 1 and 5); `groups`: what they inherit
//! - `boots`: boot ids; `once`: those of other images than the assigned one; `proofs`: what they prove by
//!   CHAP; `identity`: what a client is known by over its boots; `mask`: what viewers are shown of them;
//!   `logins`: who may open what (rules 2
//!   and 3); `bindings`: aliases (rule 4)
//! - `persons`: people's own disks, wherever they log in
//! - `volumes`: files and devices that are published as they are, and for whom
//! - `accounts`: users of dashboard and API, and tokens of programs
//! - `jobs`: long work that is asked for, done by a worker; `wanted`: what may be asked for
//! - `rollouts`: an image for many clients, tried on a few of them first
//! - `timeline`: how boots went, as a server saw them
//! - `reservations`: what hosts that share a disk have agreed on, over restarts
//! - `owner`: whose the files are that root makes in somebody's library
//! - `strangers`: machines that asked what to boot and are nobody's clients
//! - `printable`: what strangers write, made harmless for terminals and pages; `network`: which
//!   addresses are one owner's
//! - `wire`: names of targets and initiators
//! - `live`: who is connected, asked of the server
//!
//! All calls may block; an asynchronous caller gives them a thread.

mod accounts;
mod bindings;
mod boots;
mod bytes;
mod cache;
mod clients;
pub mod config;
mod document;
mod edition;
mod error;
mod events;
mod groups;
mod identity;
mod images;
mod jobs;
mod json;
mod kernel_line;
mod live;
mod lock;
mod logins;
mod mac;
pub mod manifest;
mod mask;
mod names;
mod network;
mod once;
mod owner;
mod persons;
mod printable;
mod progress;
mod proofs;
mod reservations;
mod rollouts;
mod secrets;
mod store;
mod strangers;
mod timeline;
mod volumes;
mod wanted;
mod wire;

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use jiff::Timestamp;

pub use accounts::{
    Invitation, Lifetime, NewToken, NewUser, Revealed, Token, TokenView, User, UserView,
};
pub use boots::{Boot, BootId, BootState, BootTicket};
pub use bytes::{ByteSize, SizeOrNone};
pub use clients::{
    Act, Armed, AssignTo, Assignment, Before, COLUMNS, Client, ClientSelector, ClientState,
    ClientView, Discarded, Done, Edit, HeldTo, Import, KeptDisk, Known, Menu, MenuItem,
    MenuSeconds, MenuWhen, NewClient, NewSize, NewSnapshot, OwnEsp, Plan, Removing, SaidBy,
    Sayings, Settings, SettingsEdit, Snapshot, Step, Way, When,
};
pub use config::{Config, ConfigError, HostName, IqnPrefix};
pub use edition::Edition;
pub use error::{Error, Result};
pub use events::{Actor, Cursor, Event, Events, Filter, Format, Moment, Recorded};
pub use groups::{Group, GroupEdit, GroupPlan, GroupView};
pub use identity::{HostKey, Identity, PublicIdentity};
pub use images::{
    Followed, Followers, Image, ImageEdit, ImagePlan, ImageView, Pruned, Pruning, Publish, Removal,
    Rollback, Staying, Trial, UnderTrial, Use, Version, VersionView, caution_of_way,
};
pub use jobs::{
    BuildTask, Claim, DiffTask, Ending, Job, JobId, JobOutcome, JobProgress, JobState, LogPart,
    PromoteTask, Task, TestTask, UpdateTask, UpgradeTask, VerifyTask, this_worker,
};
pub use json::Object;
pub(crate) use json::object;
pub use kernel_line::{KERNEL_LINE, own_words, room_for_args};
pub use live::{Live, LiveSession, NoServer};
pub use lock::LiveLock;
pub use logins::{Caller, Entry, Grant, GrantedDisk, LoginError};
pub use mac::MacAddr;
pub use manifest::{Manifest, VersionFacts};
pub use mask::{BootIdMask, mask_boot_ids, masked};
pub use names::{
    ClientName, GroupName, ImageName, KernelArg, Mode, NameError, Role, SnapshotName, TokenName,
    UserName, VersionId, VersionSpec, VolumeName,
};
pub use network::network;
pub use persons::Person;
pub use printable::printable;
pub use progress::{Progress, Quiet};
pub use proofs::{ChapBy, Proof, Switch};
pub use reservations::KeptReservations;
pub use rollouts::{
    Keep, Member, MemberView, NewRollout, Rollout, RolloutPlan, RolloutView, Stage, TriedAgain,
    Watching, Within,
};
pub use store::clone::CloneInfo;
pub use store::{
    BLOCK_SIZE, CloneKind, CopyKind, DataDisk, Draft, HeldClone, Hold, OpenDisk, Swept, Usage,
};
pub use strangers::{Hardware, Stranger};
pub use timeline::{
    BootEnd, BootFailure, BootLine, BootOutcome, BootStage, BootStep, DrawnStep, FailedAt,
    Firmware, IpxeErrno, KernelFrom, merged as merged_boots, stretch,
};
pub use volumes::{
    Allow, Chap, Kept, NewVolume, OpenVolume, Paths, Publisher, ReadVolumes, Secrets, Volume,
    VolumeEdit, VolumePlan,
};
pub use wanted::{
    FileSystem, PackageName, PlainWord, ReleaseName, ReleaseSpec, SizeSpec, SshKey,
    UnknownFileSystem, WrongSize,
};
pub use wire::{Published, PublishedKind, Target};

pub(crate) use clients::said;

use cache::{Cache, Listing};
use error::Doing;
pub(crate) use events::Throttle;
use lock::WriteLock;
use store::Places;
use strangers::Strangers;

/// The configuration, at the root of every library.
const CONFIG: &str = "netroot.toml";

/// What a new library is to be.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// The name of this host.
    pub host: HostName,
    /// What the names of all targets begin with; made from the host and this month if not given.
    pub iqn_prefix: Option<IqnPrefix>,
    /// Whether sealed files are to be immutable where the file system can.
    pub immutable: bool,
}

/// An open library.
#[derive(Debug)]
pub struct Library {
    places: Places,
    /// The file with this server's own settings.
    own: Option<PathBuf>,
    // Held for a look or an exchange: whoever has looked keeps what it saw.
    config: RwLock<Arc<Config>>,
    /// Authenticates boot ids. Read when it is needed: not everybody who lists images may.
    boot_key: OnceLock<Vec<u8>>,
    /// Manifests and clients that were read, for those who look at many.
    manifests: Cache<VersionId, Manifest>,
    known: Cache<MacAddr, Client>,
    listed: Listing<Client>,
    users: Cache<UserName, User>,
    tokens: Cache<String, Token>,
    /// Refused logins that were recorded a short while ago.
    refusals: Throttle,
    /// Held while rollouts go on: nobody stops one between two steps.
    rollouts: Mutex<()>,
    /// Machines that asked what to boot and are nobody's clients.
    strangers: Strangers,
    /// Secrets that somebody was not given a short while ago.
    withheld: Throttle,
    /// What keeps clients from their data disks.
    data_troubles: store::Troubles,
}

/// Directories of a library, and who may look into them.
const DIRECTORIES: &[(&str, u32)] = &[
    ("images", 0o755),
    // A boot id lets its holder in as that boot, and these tell them.
    ("clients", 0o750),
    ("groups", 0o750),
    ("pending", 0o750),
    ("removed", 0o750),
    ("boots", 0o750),
    ("clones", 0o700),
    ("bindings", 0o750),
    ("events", 0o750),
    ("jobs", 0o750),
    ("rollouts", 0o750),
    ("trials", 0o755),
    // Who shares which disk with whom.
    ("reservations", 0o700),
    // What machines say of themselves that are nobody's clients.
    ("strangers", 0o750),
    // Who may have which disk.
    ("volumes", 0o750),
    ("recipes", 0o755),
    // Texts of their own in the place of ours.
    ("esp", 0o755),
    ("secrets", 0o700),
    // What only hashes protect.
    ("users", 0o700),
    ("tokens", 0o700),
];

const BOOT_KEY: &str = "boot.key";

impl Library {
    /// Makes a library in `dir`, which is empty or does not exist yet.
    pub fn init(dir: &Path, options: &InitOptions) -> Result<Library> {
        Self::check_init(dir)?;
        fs::create_dir_all(dir).doing("creating", dir)?;
        let places = Places::new(dir.canonicalize().doing("resolving", dir)?);
        for (name, permissions) in DIRECTORIES {
            let path = places.root().join(name);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(*permissions)
                .create(&path)
                .doing("creating", &path)?;
        }
        let mut key = [0; 32];
        getrandom::fill(&mut key)
            .map_err(std::io::Error::other)
            .doing("drawing a key for", places.root())?;
        let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        document::replace(&places.secrets().join(BOOT_KEY), key.as_bytes(), 0o600)?;
        create(&places.lock(), b"", lock::PRIVATE)?;
        // The configuration last: without it the directory is not taken for a library, and an
        // interrupted init can be repeated.
        let text = Self::init_config(options);
        document::replace(&places.config(), text.as_bytes(), 0o644)?;
        Library::open(dir, None)
    }

    /// What `init` would refuse, without doing it.
    pub fn check_init(dir: &Path) -> Result<()> {
        if dir.join(CONFIG).exists() {
            return Err(Error::Exists {
                kind: "library",
                name: dir.display().to_string(),
            });
        }
        let ours = |name: &String| {
            name == "lock"
                || name == "lost+found"
                || DIRECTORIES.iter().any(|(ours, _)| name == ours)
        };
        match document::entries(dir)?.into_iter().find(|name| !ours(name)) {
            None => Ok(()),
            Some(stranger) => Err(Error::refused(
                format!("making a library in {}", dir.display()),
                format!("`{stranger}` is there already"),
                "choose an empty directory",
            )),
        }
    }

    /// The `netroot.toml` that `init` would write.
    pub fn init_config(options: &InitOptions) -> String {
        let prefix = match &options.iqn_prefix {
            Some(prefix) => prefix.clone(),
            None => IqnPrefix::here(&options.host),
        };
        Config::template(&options.host, &prefix, options.immutable)
    }

    /// Opens the library in `dir`. `own` names a file with this server's own settings.
    pub fn open(dir: &Path, own: Option<&Path>) -> Result<Library> {
        let file = dir.join(CONFIG);
        if !file.exists() {
            return Err(Error::refused(
                format!("opening the library {}", dir.display()),
                "there is no netroot.toml in it",
                "make one with `netroot init`, or name another with --library",
            ));
        }
        let places = Places::new(dir.canonicalize().doing("resolving", dir)?);
        lock::keep_private(&places.lock());
        let own = own.map(std::path::absolute).transpose();
        let own = own.doing("resolving", dir)?;
        let config = read_config(&file, own.as_deref())?;
        Ok(Library {
            places,
            own,
            config: RwLock::new(Arc::new(config)),
            boot_key: OnceLock::new(),
            manifests: Cache::default(),
            known: Cache::default(),
            listed: Listing::default(),
            users: Cache::default(),
            tokens: Cache::default(),
            refusals: Throttle::default(),
            rollouts: Mutex::default(),
            strangers: Strangers::default(),
            withheld: Throttle::default(),
            data_troubles: store::Troubles::default(),
        })
    }

    /// The library's configuration, with this server's own settings.
    pub fn config(&self) -> Arc<Config> {
        let config = self.config.read();
        config.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the files say now. Nothing is taken on.
    pub fn reread_config(&self) -> Result<Config> {
        read_config(&self.places.config(), self.own.as_deref())
    }

    /// Goes by this configuration from now on.
    pub fn adopt_config(&self, config: Config) {
        let mut current = self.config.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(config);
    }

    /// The directory that holds everything.
    pub fn root(&self) -> &Path {
        self.places.root()
    }

    /// Where people put recipes of their own.
    pub fn recipes_dir(&self) -> PathBuf {
        self.places.root().join("recipes")
    }

    /// Where people put texts of their own in the place of those of `esp/`.
    pub fn esp_dir(&self) -> PathBuf {
        self.places.root().join("esp")
    }

    /// Where a running server listens for commands.
    pub fn control_socket(&self) -> PathBuf {
        self.places.root().join("control.sock")
    }

    /// Becomes the one who acts on live state: the server for its whole life, a command while no
    /// server runs.
    pub fn live_lock(&self) -> Result<LiveLock> {
        LiveLock::take(&self.places.lock())
    }

    pub(crate) fn write_lock(&self) -> Result<WriteLock> {
        WriteLock::take(&self.places.lock())
    }

    /// Whoever holds this is alone in moving rollouts on.
    pub(crate) fn driving(&self) -> MutexGuard<'_, ()> {
        self.rollouts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// Makes one of the library's directories, where the library is older than it.
    pub(crate) fn make_dir(&self, dir: &Path) -> Result<()> {
        let name = dir.file_name().and_then(|name| name.to_str());
        let known = DIRECTORIES.iter().find(|(ours, _)| Some(*ours) == name);
        let permissions = known.map_or(0o700, |(_, permissions)| *permissions);
        let made = owner::acting_for(self.root(), || {
            fs::DirBuilder::new().mode(permissions).create(dir)
        });
        match made {
            Ok(()) => document::sync_dir(self.root()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error).doing("creating", dir),
        }
    }

    pub(crate) fn boot_key(&self) -> Result<&[u8]> {
        if let Some(key) = self.boot_key.get() {
            return Ok(key);
        }
        let path = self.places.secrets().join(BOOT_KEY);
        let text = fs::read_to_string(&path).doing("reading", &path)?;
        let key = manifest::hex(text.trim()).filter(|key| key.len() >= 32);
        let key = key.ok_or_else(|| {
            Error::Invalid(format!(
                "{} is not a key of 32 bytes in hex; restore it from a backup, or put 64 random hex \
                 digits there: clients then have to boot again",
                path.display()
            ))
        })?;
        Ok(self.boot_key.get_or_init(|| key))
    }

    /// An empty one for a test, in a directory that is gone with it.
    #[cfg(test)]
    pub(crate) fn temporary() -> (tempfile::TempDir, Library) {
        let dir = tempfile::tempdir().unwrap();
        let options = InitOptions {
            host: "server-01.example.edu".parse().unwrap(),
            iqn_prefix: Some("iqn.2026-01.edu.example.server-01".parse().unwrap()),
            immutable: false,
        };
        let library = Library::init(&dir.path().join("library"), &options).unwrap();
        (dir, library)
    }

    /// The name of this server in the names of its files of events.
    fn server_name(&self) -> String {
        HostName::here()
            .unwrap_or_else(|| self.config().host.clone())
            .to_string()
    }
}

fn read_config(file: &Path, own: Option<&Path>) -> Result<Config> {
    let text = fs::read_to_string(file).doing("reading", file)?;
    let mut config = Config::parse(file, &text)?;
    if let Some(own) = own {
        let text = fs::read_to_string(own).doing("reading", own)?;
        config.override_from(own, &text)?;
    }
    Ok(config)
}

/// Milliseconds since the epoch.
pub(crate) fn now_millis() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// A moment as messages tell it: to the minute, in this host's time zone.
pub(crate) fn minute(at: Timestamp) -> String {
    let local = at.to_zoned(jiff::tz::TimeZone::system());
    local.strftime("%Y-%m-%d %H:%M").to_string()
}

fn create(path: &Path, bytes: &[u8], permissions: u32) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(permissions)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .doing("creating", path)
}
