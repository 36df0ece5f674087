//! Acts on a client's disk: planned, refused or done (rule 1).
//!
//! While a boot is fenced no lock is held, so that its sessions can end.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::change::DiskChange;
use super::{Armed, Client, ClientView, Ready, Step};
use crate::library::boots::BootState;
use crate::library::document;
use crate::library::error::{Error, Result};
use crate::library::events::{Actor, Event};
use crate::library::live::Live;
use crate::library::lock::WriteLock;
use crate::library::names::{ClientName, Mode, VersionId, VersionSpec};
use crate::library::store::clone::{self, CloneInfo};
use crate::library::{Edition, Library, MacAddr, json, minute, now_millis};

/// What can be done to a client's disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Back to a pristine clone; the old one is kept.
    Reset,
    /// Back to the clone and the assignment before the last reset or assignment. Where something
    /// waits for the next boot, that is called off, and nothing else is undone.
    Undo,
    /// Another image, version or mode.
    Assign(#[serde(deserialize_with = "json::object")] AssignTo),
    /// Back to one of the disks that are kept, and to what was assigned when it was set aside.
    Restore(#[serde(deserialize_with = "json::object")] KeptDisk),
}

/// What an assignment changes; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct AssignTo {
    /// The image, or one version of it.
    pub image: Option<VersionSpec>,
    /// What the disk is.
    pub mode: Option<Mode>,
}

/// A disk that a client had before, while it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct KeptDisk {
    /// The `clone.id` of one of its `discarded`.
    pub disk: String,
}

/// When to do it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// Now; refused while the client may be running on the disk.
    #[default]
    Now,
    /// When the client boots next.
    AtNextBoot,
    /// Now, and a running boot is fenced first.
    Force,
}

/// What would be done: printed by `--dry-run`, asked about before something is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// The client.
    pub client: ClientName,
    /// Its address.
    pub mac: MacAddr,
    /// What is to be done.
    pub what: String,
    /// What it takes, in order. Empty: nothing changes.
    pub steps: Vec<Step>,
    /// What a person would miss afterwards; to be asked about.
    pub loses: Option<String>,
    /// Why there is nothing to do: the act itself would be refused for it.
    #[serde(default)]
    pub nothing: Option<String>,
    /// What a person should know besides.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// What it took.
    pub plan: Plan,
    /// The client afterwards; nothing if it was removed, or left as it was.
    pub client: Option<ClientView>,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Act::Reset => f.write_str("reset"),
            Act::Undo => f.write_str("undo"),
            Act::Restore(KeptDisk { disk }) => write!(f, "restore {disk}"),
            Act::Assign(AssignTo { image, mode }) => match (image, mode) {
                (Some(image), Some(mode)) => write!(f, "assign {image} in mode {mode}"),
                (Some(image), None) => write!(f, "assign {image}"),
                (None, Some(mode)) => write!(f, "set mode {mode}"),
                (None, None) => f.write_str("assign"),
            },
        }
    }
}

impl Library {
    /// What `act` would do, or why it would be refused. Touches nothing.
    pub fn plan(&self, mac: &MacAddr, act: &Act, when: When, live: &dyn Live) -> Result<Plan> {
        let client = self.client(mac)?;
        let mut plan = Plan {
            client: client.name.clone(),
            mac: client.mac,
            what: act.to_string(),
            steps: Vec::new(),
            loses: None,
            nothing: client.nothing_for(act).map(str::to_owned),
            warnings: Vec::new(),
        };
        if plan.nothing.is_some() {
            return Ok(plan);
        }
        let ready = client.after(act)?;
        let fresh = self.source_of(&client, act, &ready)?;
        if client.is_already(act, &ready) {
            return Ok(plan);
        }
        let when = client.due(act, when);
        if when == When::AtNextBoot {
            plan.steps.push(Step::Arm);
        } else if touches_a_boot(&client, &ready, when, live) {
            if when == When::Now {
                return Err(still_running(&client, act, live));
            }
            plan.steps.push(Step::Fence {
                sessions: live.sessions_of(&client.mac).len(),
            });
        }
        plan.steps.extend(client.steps(&ready, fresh.as_ref()));
        if client.assignment() != ready.assignment {
            let version = self.resolve(&ready.assignment.image)?;
            plan.warnings.extend(version.caution(ready.assignment.mode));
        }
        if ready.disk != DiskChange::Stays {
            plan.loses = client.clone.as_ref().map(|clone| {
                format!(
                    "everything that it wrote since {} is lost (kept for undo)",
                    minute(clone.made)
                )
            });
        }
        Ok(plan)
    }

    /// Does `act`, unless a rule forbids it.
    pub fn perform(
        &self,
        mac: &MacAddr,
        act: &Act,
        when: When,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<Done> {
        self.perform_on(mac, None, act, when, live, actor)
    }

    /// Does `act`, unless a rule forbids it, or the client is not what it was in `edition`.
    pub fn perform_on(
        &self,
        mac: &MacAddr,
        edition: Option<&Edition>,
        act: &Act,
        when: When,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<Done> {
        let plan = self.plan(mac, act, when, live)?;
        let client = self.client(&plan.mac)?;
        client.ensure_edition(edition)?;
        let when = client.due(act, when);
        if plan.nothing.is_some() {
            client.after(act)?;
        }
        if plan.steps.is_empty() {
            return Ok(Done {
                client: Some(self.view(client, live)?),
                plan,
            });
        }
        let calls_off = plan.calls_off().is_some();
        let client = match when {
            When::AtNextBoot => self.arm(&plan.mac, edition, act)?,
            When::Force => {
                self.shut_out(&plan.mac, edition, act, live)?;
                self.act_now(&plan.mac, edition, act, when, live)?
            }
            When::Now => self.act_now(&plan.mac, edition, act, when, live)?,
        };
        let event = match when {
            _ if calls_off => "client-disarm".to_owned(),
            When::AtNextBoot => format!("{}-armed", act.event()),
            When::Now | When::Force => act.event(),
        };
        let event = Event::new(actor, &event)
            .of(&plan.mac)
            .with("what", plan.what.clone())
            .with(
                "steps",
                plan.steps.iter().map(Step::to_string).collect::<Vec<_>>(),
            );
        self.note(&event);
        Ok(Done {
            client: Some(self.view(client, live)?),
            plan,
        })
    }

    fn arm(&self, mac: &MacAddr, edition: Option<&Edition>, act: &Act) -> Result<Client> {
        let lock = self.write_lock()?;
        let mut client = self.client_to_change(&lock, mac)?;
        client.ensure_edition(edition)?;
        client.after(act)?;
        client.armed = Some(Armed {
            act: act.clone(),
            since: Timestamp::now(),
        });
        document::write(&lock, &self.places().client(&client.mac), &mut client)?;
        Ok(client)
    }

    /// Fences the boot that may be running, for an act that makes sense.
    fn shut_out(
        &self,
        mac: &MacAddr,
        edition: Option<&Edition>,
        act: &Act,
        live: &dyn Live,
    ) -> Result<()> {
        let lock = self.write_lock()?;
        let client = self.client_to_change(&lock, mac)?;
        client.ensure_edition(edition)?;
        client.after(act)?;
        self.fence(lock, client, live)
    }

    /// Fences the boot of a client that may be running.
    pub(crate) fn cut_off(&self, mac: &MacAddr, live: &dyn Live) -> Result<()> {
        let lock = self.write_lock()?;
        let client = self.client_to_change(&lock, mac)?;
        self.fence(lock, client, live)
    }

    /// First no login of it succeeds any more, then its sessions end.
    fn fence(&self, lock: WriteLock, mut client: Client, live: &dyn Live) -> Result<()> {
        if !is_running(&client, live) {
            return Ok(());
        }
        fence_document(&mut client);
        client.oldest = client.oldest.max(now_millis());
        document::write(&lock, &self.places().client(&client.mac), &mut client)?;
        drop(lock);
        live.fence(&client.mac, None);
        Ok(())
    }

    fn act_now(
        &self,
        mac: &MacAddr,
        edition: Option<&Edition>,
        act: &Act,
        when: When,
        live: &dyn Live,
    ) -> Result<Client> {
        let lock = self.write_lock()?;
        let client = self.client_to_change(&lock, mac)?;
        client.ensure_edition(edition)?;
        let ready = client.after(act)?;
        // Asked again under the lock, which every login takes too. After a fence nobody can be there.
        let sessions = when == When::Force && !live.sessions_of(&client.mac).is_empty();
        if sessions || touches_a_boot(&client, &ready, When::Now, live) {
            return Err(still_running(&client, act, live));
        }
        let fresh = self.source_of(&client, act, &ready)?;
        self.become_ready(&lock, &client, &ready, fresh.as_ref(), |after| {
            if ready.disk != DiskChange::Stays {
                // Rule 1: whoever still runs on the old disk is not let in again.
                if after
                    .boot
                    .as_ref()
                    .is_some_and(|boot| boot.mode.has_clone())
                {
                    fence_document(after);
                }
            }
            if client.assignment() != ready.assignment {
                // Scripts that were made before say something else.
                after.oldest = after.oldest.max(now_millis());
            }
        })
    }

    /// Makes a client what `ready` says: clone, document, moves, all or nothing. `also` changes the
    /// document further.
    pub(crate) fn become_ready(
        &self,
        lock: &WriteLock,
        client: &Client,
        ready: &Ready,
        fresh: Option<&VersionId>,
        also: impl FnOnce(&mut Client),
    ) -> Result<Client> {
        let made = match (&ready.disk, fresh) {
            (DiskChange::Fresh(_), Some(version)) => Some(self.make_clone(&client.mac, version)?),
            _ => None,
        };
        let mut change = client.become_ready(ready, made.clone(), Timestamp::now());
        also(&mut change.client);
        self.commit(lock, change).inspect_err(|_| {
            // Only if nothing points to it: once it is written down, the next command completes it.
            if let Some(made) = &made
                && !self.places().pending(&client.mac).exists()
            {
                clone::unmake(self.places(), &client.mac, made);
            }
        })
    }

    fn make_clone(&self, mac: &MacAddr, version: &VersionId) -> Result<CloneInfo> {
        clone::make(self.places(), mac, &self.version(version)?)
    }

    /// A client, to be changed under the lock, after whatever was left half-done was completed.
    pub(crate) fn client_to_change(&self, lock: &WriteLock, mac: &MacAddr) -> Result<Client> {
        // What is half-done stands under the client's first address, whichever the caller knows.
        let first = self.find_client(mac)?.map_or(*mac, |client| client.mac);
        self.finish_pending(lock, &first)?;
        self.client(mac)
    }

    /// The version that a new clone is made of.
    fn source_of(&self, client: &Client, act: &Act, ready: &Ready) -> Result<Option<VersionId>> {
        // Resolved for `shared` too: an assignment to an unknown image is refused.
        let version = self.resolve(&ready.assignment.image);
        if matches!(ready.disk, DiskChange::Restored(_)) {
            return Ok(None);
        }
        let version = version?;
        // Also where the disk stays for now: the next one would be made of this version.
        let title = || titled(&act.to_string(), &client.name);
        version.ensure_mode(ready.assignment.mode, title)?;
        let fresh = matches!(ready.disk, DiskChange::Fresh(_));
        Ok(fresh.then(|| version.id().clone()))
    }
}

/// `reset lab-07`, `assign fc29 for lab-07`.
pub(super) fn titled(what: &str, client: &ClientName) -> String {
    match what.contains(' ') {
        true => format!("{what} for {client}"),
        false => format!("{what} {client}"),
    }
}

impl Plan {
    /// What is to be done to whom: `reset lab-07`.
    pub fn title(&self) -> String {
        titled(&self.what, &self.client)
    }

    /// What it calls off that waited for the next boot, where it does nothing else.
    pub fn calls_off(&self) -> Option<&Act> {
        match self.steps.as_slice() {
            [Step::Disarm { act }] => Some(act),
            _ => None,
        }
    }
}

impl Client {
    /// When an act is to be done that was asked for at `when`: what waits is called off at once, and
    /// nobody needs to be fenced for it.
    fn due(&self, act: &Act, when: When) -> When {
        match self.calls_off(act) {
            Some(_) => When::Now,
            None => when,
        }
    }
}

impl Act {
    /// What the event is called that records it.
    pub(crate) fn event(&self) -> String {
        let word = match self {
            Act::Reset => "reset",
            Act::Undo => "undo",
            Act::Assign(_) => "assign",
            Act::Restore(_) => "restore",
        };
        format!("client-{word}")
    }
}

/// Whether somebody may have the client's disk in his hands. A boot that a killed server left `up`
/// counts: nobody saw it leave.
pub(crate) fn is_running(client: &Client, live: &dyn Live) -> bool {
    client.boot.as_ref().is_some_and(|boot| boot.may_run())
        || !live.sessions_of(&client.mac).is_empty()
}

/// Whether an act disturbs a running boot: it changes the disk that this boot writes. A shared boot
/// keeps its version whatever happens to the client, unless it is to be ended by force.
fn touches_a_boot(client: &Client, ready: &Ready, when: When, live: &dyn Live) -> bool {
    let shared = client
        .boot
        .as_ref()
        .is_some_and(|boot| boot.mode == Mode::Shared);
    let disturbs = ready.disk != DiskChange::Stays && !shared;
    is_running(client, live) && (disturbs || when == When::Force)
}

fn fence_document(client: &mut Client) {
    if let Some(boot) = &mut client.boot {
        boot.state = BootState::Fenced;
        client.oldest = client.oldest.max(boot.id.seq);
    }
}

fn still_running(client: &Client, act: &Act, live: &dyn Live) -> Error {
    let sessions = live.sessions_of(&client.mac);
    let why = match (sessions.first(), &client.boot) {
        (Some(session), _) => format!("it is running: {} has its disk open", session.peer),
        (None, Some(boot)) => format!(
            "it may still be running: nobody saw its boot of {} end, from {}",
            minute(boot.since),
            boot.peer
        ),
        (None, None) => "it may be running".to_owned(),
    };
    Error::refused(
        titled(&act.to_string(), &client.name),
        why,
        "shut it down first, or use --at-next-boot, or --force, which cuts it off its disk",
    )
}
