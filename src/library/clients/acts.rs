//! Acts on a client's disk: planned, refused or done (rule 1).
//!
//! While a boot is fenced no lock is held, so that its sessions can end.

use jiff::Timestamp;

use super::act::titled;
use super::beside::{Beside, ensure_quick};
use super::change::DiskChange;
use super::edit::plan;
use super::{Act, Armed, Client, Done, Plan, Ready, Step, When};
use crate::library::boots::BootState;
use crate::library::document;
use crate::library::error::{Error, Result};
use crate::library::events::{Actor, Event};
use crate::library::live::Live;
use crate::library::lock::WriteLock;
use crate::library::names::{Mode, VersionId};
use crate::library::store::Copying;
use crate::library::store::clone::{self, CloneInfo};
use crate::library::{ByteSize, Edition, Library, MacAddr, minute, now_millis};

impl Library {
    /// What `act` would do, or why it would be refused. Touches nothing.
    pub fn plan(&self, mac: &MacAddr, act: &Act, when: When, live: &dyn Live) -> Result<Plan> {
        let client = self.client(mac)?;
        if let Some(beside) = Beside::of(act) {
            return self.plan_beside(&client, &beside, live);
        }
        let mut plan = plan(&client, &act.to_string(), Vec::new());
        plan.nothing = client.nothing_for(act).map(str::to_owned);
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
            ensure_quick(&client, act, &ready)?;
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
            let settings = self.settings_booting(&client, &version.id().image)?;
            plan.warnings.extend(version.caution_of_way(&settings));
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
        if let Some(beside) = Beside::of(act) {
            return self.perform_beside(mac, edition, &beside, live, actor);
        }
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
            When::AtNextBoot => self.arm(&plan.mac, edition, Armed::now(act), None)?,
            When::Force => {
                self.shut_out(&plan.mac, edition, act, live)?;
                self.act_now(&plan.mac, edition, act, when, live)?
            }
            When::Now => self.act_now(&plan.mac, edition, act, when, live)?,
        };
        let event = match when {
            _ if calls_off => "client-disarm".to_owned(),
            When::AtNextBoot => armed(act),
            When::Now | When::Force => act.event(),
        };
        self.note(&plan.event(&event, actor));
        Ok(Done {
            client: Some(self.view(client, live)?),
            plan,
        })
    }

    /// Lets something wait for a client's next boot for a rollout, which the client's own document says
    /// from that moment on. Nothing where the client is what that would make of it; refused where it is
    /// not what it was in `edition`.
    pub(crate) fn arm_for(
        &self,
        rollout: u64,
        mac: &MacAddr,
        edition: &Edition,
        waits: Armed,
        live: &dyn Live,
    ) -> Result<()> {
        let plan = self.plan(mac, &waits.act, When::AtNextBoot, live)?;
        if plan.steps.is_empty() {
            return Ok(());
        }
        let event = plan.event(&armed(&waits.act), &Actor::Server);
        self.arm(&plan.mac, Some(edition), waits, Some(rollout))?;
        self.note(&event);
        Ok(())
    }

    fn arm(
        &self,
        mac: &MacAddr,
        edition: Option<&Edition>,
        waits: Armed,
        rollout: Option<u64>,
    ) -> Result<Client> {
        let lock = self.write_lock()?;
        let mut client = self.client_to_change(&lock, mac)?;
        client.ensure_edition(edition)?;
        client.after(&waits.act)?;
        client.armed = Some(waits);
        client.rollout = rollout.or(client.rollout);
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
        // What takes its time is copied before: nobody logs in while the lock is held.
        let copied = self.copy_ahead(&self.client(mac)?, act)?;
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
        let made = self.make_for(&lock, &client, &ready, fresh.as_ref(), copied)?;
        self.become_ready(&lock, &client, &ready, made, |after| {
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

    /// Makes the disk that `ready` asks for, beside its place: of the version `fresh`, or of a snapshot,
    /// whose copy may be there already.
    pub(crate) fn make_for(
        &self,
        lock: &WriteLock,
        client: &Client,
        ready: &Ready,
        fresh: Option<&VersionId>,
        copied: Option<Copying>,
    ) -> Result<Option<CloneInfo>> {
        match (&ready.disk, fresh) {
            (DiskChange::Fresh(_), Some(version)) => {
                let size = self.settings(client)?.size.map(ByteSize::bytes);
                let version = self.version(version)?;
                clone::make(self.places(), &client.mac, &version, size).map(Some)
            }
            (DiskChange::Copied(snapshot), _) => {
                self.copy_of(lock, client, snapshot, copied).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Makes a client what `ready` says: document and moves, all or nothing. `made` is the disk that was
    /// made for it; `also` changes the document further.
    pub(crate) fn become_ready(
        &self,
        lock: &WriteLock,
        client: &Client,
        ready: &Ready,
        made: Option<CloneInfo>,
        also: impl FnOnce(&mut Client),
    ) -> Result<Client> {
        let mut change = client.become_ready(ready, made.clone(), Timestamp::now());
        // Who had this address before may have left something, which is this client's from now on.
        change.swap.prunes = client.revision == 0;
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
        if matches!(ready.disk, DiskChange::Restored(_) | DiskChange::Copied(_)) {
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

impl Armed {
    /// From now on.
    pub(crate) fn now(act: &Act) -> Self {
        Armed {
            act: act.clone(),
            since: Timestamp::now(),
        }
    }
}

impl Plan {
    /// The event that it was done.
    fn event(&self, what: &str, actor: &Actor) -> Event {
        let steps: Vec<String> = self.steps.iter().map(Step::to_string).collect();
        Event::new(actor, what)
            .of(&self.mac)
            .with("what", self.what.clone())
            .with("steps", steps)
    }
}

/// The event that `act` waits for the next boot.
fn armed(act: &Act) -> String {
    format!("{}-armed", act.event())
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
