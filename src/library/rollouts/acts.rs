//! A rollout begins, goes on, and is stopped.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::course::{Facts, Next, Seen, Standing};
use super::{Member, PATIENCE, Rollout, Stage, TriedAgain, Within, assign, gives};
use crate::library::clients::{Act, Armed, Client, ClientSelector, DiskChange, Plan, Step, When};
use crate::library::error::{Error, Result, chain};
use crate::library::events::Actor;
use crate::library::live::Live;
use crate::library::names::{ClientName, VersionId, VersionSpec};
use crate::library::{Library, MacAddr, document};

/// A rollout that is to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewRollout {
    /// Whom it is for.
    pub clients: ClientSelector,
    /// What they are to boot.
    pub image: VersionSpec,
    /// How many of them go first.
    #[schema(value_type = u32, minimum = 1)]
    pub canary: NonZeroU32,
    /// How long those have to boot, to log in and to stay for two minutes.
    #[serde(default)]
    pub within: Within,
}

/// What a rollout would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolloutPlan {
    /// Whom it is for.
    pub clients: ClientSelector,
    /// What they are to boot.
    pub image: VersionSpec,
    /// The version that this means.
    pub version: VersionId,
    /// How long the canaries have.
    pub within: Within,
    /// Who goes first: by name.
    pub canaries: Vec<ClientName>,
    /// Who follows when they stayed.
    pub rest: Vec<ClientName>,
    /// Who boots it already, and is left alone.
    pub already: Vec<ClientName>,
    /// What people would miss afterwards; to be asked about.
    pub loses: Vec<String>,
    /// What a person should know besides.
    pub warnings: Vec<String>,
}

/// The time, and since when somebody watches the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watching {
    /// The time.
    pub now: Timestamp,
    /// Since when clients are watched: when the server began.
    pub since: Timestamp,
}

/// How far something came with one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// It is done, or will never be.
    ToAnEnd,
    /// Somebody else has changed the client since it was looked at: it is looked at again, as if nothing
    /// had been tried.
    Nowhere,
    /// The operating system refused: it is tried again when somebody looks next.
    Later,
}

/// More steps than these are not done in a row for one rollout: the clock is asked again.
const AT_ONCE: usize = 8;

impl Library {
    /// What `begin_rollout` would do, or why it would be refused.
    pub fn plan_rollout(&self, new: &NewRollout, live: &dyn Live) -> Result<RolloutPlan> {
        self.prepare(new, live).map(|(plan, _)| plan)
    }

    /// Gives an image to the canaries of a group, and to the others when those have stayed with it.
    pub fn begin_rollout(
        &self,
        new: &NewRollout,
        watching: Watching,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<Rollout> {
        let driving = self.driving();
        let (plan, members) = self.prepare(new, live)?;
        self.make_dir(&self.places().rollouts())?;
        let lock = self.write_lock()?;
        let last = self.rollout_ids()?.last().copied().unwrap_or(0);
        let mut rollout = Rollout {
            revision: 0,
            id: last + 1,
            clients: plan.clients,
            image: plan.image,
            version: plan.version,
            within: plan.within,
            by: actor.clone(),
            began: watching.now,
            stage: Stage::Canaries,
            members,
        };
        document::write(&lock, &self.rollout_place(rollout.id), &mut rollout)?;
        self.prune_rollouts(&lock)?;
        drop(lock);
        self.note(
            &rollout.event("rollout-begin", actor).with(
                "canaries",
                plan.canaries
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>(),
            ),
        );
        self.advance(&mut rollout, watching, live)?;
        drop(driving);
        Ok(rollout)
    }

    /// Ends a rollout: those who were given the image are set back, or keep it.
    ///
    /// # Errors
    /// When it is over already.
    pub fn stop_rollout(
        &self,
        id: u64,
        keep: Keep,
        watching: Watching,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<Rollout> {
        let _driving = self.driving();
        let mut rollout = self.rollout(id)?;
        rollout.ensure_open()?;
        let by = actor.to_string();
        for member in &mut rollout.members {
            member.failing = None;
        }
        rollout.stage = match keep {
            Keep::Image => Stage::Stopped {
                at: watching.now,
                by,
            },
            Keep::Nothing => Stage::Back {
                why: format!("{by} stopped it"),
            },
        };
        self.write_rollout(&mut rollout)?;
        self.note(&rollout.event("rollout-stop", actor));
        self.advance(&mut rollout, watching, live)?;
        Ok(rollout)
    }

    /// Does what is next for every rollout. One that fails does not hold up the others; the first
    /// failure is told. Tells whether anything was done.
    pub fn advance_rollouts(&self, watching: Watching, live: &dyn Live) -> Result<bool> {
        let _driving = self.driving();
        let mut first = Ok(());
        let mut moved = false;
        for mut rollout in self.rollouts()?.into_iter().filter(Rollout::is_open) {
            let before = rollout.revision;
            let done = self.advance(&mut rollout, watching, live);
            moved |= rollout.revision != before;
            first = first.and(done);
        }
        first.map(|()| moved)
    }

    fn advance(&self, rollout: &mut Rollout, watching: Watching, live: &dyn Live) -> Result<()> {
        for _ in 0..AT_ONCE {
            let facts = self.facts_of(rollout, watching, live)?;
            if rollout.note_stays(&facts) {
                self.write_rollout(rollout)?;
            }
            match rollout.next(&facts) {
                Next::Wait => return Ok(()),
                Next::Give(macs) => {
                    if self.give(rollout, &macs, watching, live)? == Came::Later {
                        return Ok(());
                    }
                }
                Next::TakeBack(macs) => {
                    if self.take_back(rollout, &macs, watching, live)? == Came::Later {
                        return Ok(());
                    }
                }
                Next::Proven => {
                    rollout.stage = Stage::Rest;
                    self.write_rollout(rollout)?;
                    self.note(&rollout.event("rollout-proven", &Actor::Server));
                }
                Next::Fail(why) => {
                    rollout.stage = Stage::Back { why };
                    self.write_rollout(rollout)?;
                }
                Next::End(stage) => self.end(rollout, stage)?,
            }
        }
        Ok(())
    }

    fn end(&self, rollout: &mut Rollout, stage: Stage) -> Result<()> {
        rollout.stage = stage;
        self.write_rollout(rollout)?;
        let event = match &rollout.stage {
            Stage::SetBack { why, .. } => rollout
                .event("rollout-set-back", &Actor::Server)
                .with("why", why.clone()),
            _ => rollout.event("rollout-done", &Actor::Server),
        };
        let troubles = rollout.members.iter().filter_map(|member| {
            let trouble = member.trouble.as_ref()?;
            Some(format!("{}: {trouble}", member.name))
        });
        let troubles: Vec<String> = troubles.collect();
        self.note(&match troubles.is_empty() {
            true => event,
            false => event.with("not", troubles),
        });
        Ok(())
    }

    fn facts_of(&self, rollout: &Rollout, watching: Watching, live: &dyn Live) -> Result<Facts> {
        let mut clients = BTreeMap::new();
        for member in &rollout.members {
            match self.client(&member.mac) {
                Ok(client) if client.mac == member.mac => {
                    clients.insert(member.mac, seen(rollout, &client, live));
                }
                Ok(_) | Err(Error::Unknown { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let means = match self.resolve(&rollout.image) {
            Ok(version) => Some(version.id().clone()),
            Err(Error::Unknown { .. } | Error::NoVersion { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(Facts {
            now: watching.now,
            watching: watching.since,
            means,
            clients,
        })
    }

    /// Arms the assignment. It is written down first: what is killed in between has given it to nobody
    /// of whom that is not known, and goes on with those who have not got it yet. Who has got it says so
    /// itself, since the moment that it was given it: what somebody gives it afterwards stays.
    fn give(
        &self,
        rollout: &mut Rollout,
        macs: &[MacAddr],
        watching: Watching,
        live: &dyn Live,
    ) -> Result<Came> {
        rollout.mark(macs, |one| (one.given, one.giving) = (true, true));
        self.write_rollout(rollout)?;
        let mut all = Came::ToAnEnd;
        for mac in macs {
            match self.on_one(rollout, mac, watching, |rollout| {
                self.give_one(rollout, mac, live)
            }) {
                Came::ToAnEnd => rollout.mark(&[*mac], |one| one.giving = false),
                other => all = all.and(other),
            }
        }
        self.write_rollout(rollout)?;
        Ok(all)
    }

    fn give_one(&self, rollout: &mut Rollout, mac: &MacAddr, live: &dyn Live) -> Result<()> {
        let client = self.client(mac)?;
        if client.rollout == Some(rollout.id) {
            return Ok(());
        }
        let has_it = Standing::of(&client, rollout) != Standing::Otherwise;
        if !has_it && !rollout.is_as_before(&client) {
            return Err(Error::refused(
                format!("giving {} to {}", rollout.image, client.name),
                "somebody has given it something else since the rollout began",
                "assign it by itself, if it is to have this as well",
            ));
        }
        // What an earlier try has found may not be there any more.
        let waits = client.armed.as_ref();
        let waited = waits.filter(|waits| !has_it && waits.act == Act::Reset);
        let waited = waited.map(|waits| waits.since);
        if rollout.member(mac).is_some_and(|one| one.waited != waited) {
            rollout.mark(&[*mac], |one| one.waited = waited);
            self.write_rollout(rollout)?;
        }
        if has_it {
            return Ok(());
        }
        let waits = Armed::now(&rollout.act());
        self.arm_for(rollout.id, mac, &client.edition(), waits, live)
    }

    /// Of each it is written down as soon as it is set back: what somebody gives it afterwards stays.
    fn take_back(
        &self,
        rollout: &mut Rollout,
        macs: &[MacAddr],
        watching: Watching,
        live: &dyn Live,
    ) -> Result<Came> {
        let mut all = Came::ToAnEnd;
        for mac in macs {
            match self.on_one(rollout, mac, watching, |rollout| {
                self.take_back_one(rollout, mac, live)
            }) {
                Came::ToAnEnd => rollout.mark(&[*mac], |one| one.back = true),
                other => all = all.and(other),
            }
            self.write_rollout(rollout)?;
        }
        Ok(all)
    }

    /// Tells how far `act` came with a member, and notes why it did not work.
    fn on_one(
        &self,
        rollout: &mut Rollout,
        mac: &MacAddr,
        watching: Watching,
        act: impl FnOnce(&mut Rollout) -> Result<()>,
    ) -> Came {
        let done = act(rollout);
        let before = rollout.member(mac).and_then(|one| one.failing.clone());
        rollout.mark(&[*mac], |one| one.failing = None);
        let error = match done {
            // It was removed meanwhile, which the next look at the facts tells.
            Ok(()) | Err(Error::Unknown { kind: "client", .. }) => return Came::ToAnEnd,
            Err(Error::Moved { .. }) => return Came::Nowhere,
            Err(error) => error,
        };
        let why = chain(&error);
        if before.as_ref().is_none_or(|failing| failing.why != why) {
            tracing::warn!(rollout = rollout.id, client = %mac, why, "a rollout met trouble");
        }
        // Nobody has tried while no server ran.
        let since = before.map_or(watching.now, |failing| failing.since.max(watching.since));
        let tried_for = watching.now.duration_since(since);
        if matches!(error, Error::Io { .. }) && tried_for < PATIENCE {
            let failing = TriedAgain { since, why };
            rollout.mark(&[*mac], |one| one.failing = Some(failing.clone()));
            return Came::Later;
        }
        rollout.mark(&[*mac], |one| one.trouble = Some(why.clone()));
        Came::ToAnEnd
    }

    /// Whoever has the image gets again what it had: at once where no disk is in somebody's hands, else
    /// at its next boot (rule 1). A reset that had waited for its next boot waits for that again. Whoever got
    /// something else from somebody keeps that.
    fn take_back_one(&self, rollout: &Rollout, mac: &MacAddr, live: &dyn Live) -> Result<()> {
        let client = self.client(mac)?;
        let edition = client.edition();
        let Some(member) = rollout.member(mac) else {
            return Ok(());
        };
        let standing = Standing::of(&client, rollout);
        if standing == Standing::Otherwise {
            return Ok(());
        }
        if let Some(waits) = self.waits_again(member, &client, standing, live)? {
            return self.arm_for(rollout.id, mac, &edition, waits, live);
        }
        if standing == Standing::Applied && client.armed.is_some() {
            // It is about the disk that goes.
            let (undo, server) = (Act::Undo, Actor::Server);
            self.perform_on(mac, Some(&edition), &undo, When::Now, live, &server)?;
            return self.take_back_one(rollout, mac, live);
        }
        let before = &member.before;
        let is_last = client.before.as_ref();
        let is_last = is_last.is_some_and(|last| last.assignment == *before);
        let act = match standing {
            // Somebody has reset it since: then undo means that.
            Standing::Applied if !is_last => Act::Assign(before.clone().into()),
            // Where it waits only, that is called off.
            _ => Act::Undo,
        };
        match self.perform_on(mac, Some(&edition), &act, When::Now, live, &Actor::Server) {
            Err(Error::Refused { .. }) => {
                self.arm_for(rollout.id, mac, &edition, Armed::now(&act), live)?;
            }
            done => drop(done?),
        }
        member.waited.map_or(Ok(()), |_| {
            Err(Error::refused(
                format!(
                    "letting a reset wait again for the next boot of {}",
                    client.name
                ),
                "that cannot be done with what it has now",
                "it is set back; reset it where that is still wanted",
            ))
        })
    }

    /// The reset that waited for a member's next boot until it was given the image, so that it comes to the
    /// same for the client as it is now. Nothing where there was none, or where it would not.
    fn waits_again(
        &self,
        member: &Member,
        client: &Client,
        standing: Standing,
        live: &dyn Live,
    ) -> Result<Option<Armed>> {
        let Some(since) = member.waited else {
            return Ok(None);
        };
        let act = match standing {
            // That was to be a new disk of what it was assigned to.
            Standing::Applied => Act::Assign(member.before.clone().into()),
            _ => Act::Reset,
        };
        let waits = Armed { act, since };
        match self.plan(&client.mac, &waits.act, When::AtNextBoot, live) {
            Ok(plan) if plan.steps.is_empty() => return Ok(None),
            Ok(_) => {}
            Err(error @ Error::Io { .. }) => return Err(error),
            Err(_) => return Ok(None),
        }
        let ready = client.after(&waits.act)?;
        // Where the rollout's own disk would stay, it would not be set back.
        let goes = ready.disk != DiskChange::Stays || !ready.assignment.mode.has_clone();
        Ok((standing == Standing::Armed || goes).then_some(waits))
    }

    fn prepare(&self, new: &NewRollout, live: &dyn Live) -> Result<(RolloutPlan, Vec<Member>)> {
        let what = || format!("rolling {} out to {}", new.image, new.clients);
        let version = self.resolve(&new.image)?.id().clone();
        let act = assign(&new.image);
        let mut clients = self.select(&new.clients)?;
        clients.sort_by(|a, b| a.name.cmp(&b.name));
        let mut plan = RolloutPlan {
            clients: new.clients.clone(),
            image: new.image.clone(),
            version,
            within: new.within,
            canaries: Vec::new(),
            rest: Vec::new(),
            already: Vec::new(),
            loses: Vec::new(),
            warnings: Vec::new(),
        };
        let canaries = usize::try_from(new.canary.get()).unwrap_or(usize::MAX);
        let mut members = Vec::new();
        for client in clients {
            if let Some(other) = self.rollout_of(&client)? {
                return Err(Error::refused(
                    what(),
                    format!(
                        "{} is in rollout {} of {}",
                        client.name, other.id, other.image
                    ),
                    format!(
                        "wait until that is over, or stop it: netroot rollout stop {}",
                        other.id
                    ),
                ));
            }
            // Before anything is said of what it boots: that may be about to change.
            if let Some(waits) = &client.armed
                && waits.act != Act::Reset
                && waits.act != act
            {
                return Err(self.waits_for_else(what(), &client, &waits.act));
            }
            let of_one = self.plan(&client.mac, &act, When::AtNextBoot, live)?;
            if of_one.steps.is_empty() {
                plan.already.push(client.name);
                continue;
            }
            plan.take(&of_one);
            let canary = members.len() < canaries;
            let list = if canary {
                &mut plan.canaries
            } else {
                &mut plan.rest
            };
            list.push(client.name.clone());
            members.push(member(&client, canary));
        }
        if plan.rest.is_empty() {
            let there = members.len();
            return Err(Error::refused(
                what(),
                format!(
                    "{canaries} are to try it first, of {there} that would get it ({} boot it already), so \
                     nobody is left to follow",
                    plan.already.len()
                ),
                "name fewer canaries, or assign it without --canary",
            ));
        }
        plan.warnings.sort();
        plan.warnings.dedup();
        Ok((plan, members))
    }

    /// Why a client cannot be in a rollout for whose next boot something else waits.
    fn waits_for_else(&self, what: String, client: &Client, act: &Act) -> Error {
        let name = &client.name;
        let last = client.rollout.and_then(|id| self.rollout(id).ok());
        match last.filter(|last| last.sets_back(client).is_some()) {
            Some(last) => Error::refused(
                what,
                format!(
                    "`{act}` waits for the next boot of {name}, by which rollout {} sets it back",
                    last.id
                ),
                format!(
                    "let it boot first: where that is called off, it keeps {}",
                    last.image
                ),
            ),
            None => Error::refused(
                what,
                format!(
                    "`{act}` waits for the next boot of {name}, and would be lost if it is set back"
                ),
                format!("let it boot first, or call that off: netroot client undo {name}"),
            ),
        }
    }
}

impl RolloutPlan {
    fn take(&mut self, of_one: &Plan) {
        let loses = of_one.loses.as_ref();
        self.loses
            .extend(loses.map(|loses| format!("{}: {loses}", of_one.title())));
        for step in &of_one.steps {
            if let Step::Disarm { act } = step
                && !gives(act, &self.image)
            {
                self.loses.push(format!(
                    "{}: what waits for its next boot ({act}) waits again only if it is set back",
                    of_one.client
                ));
            }
        }
        self.warnings.extend(of_one.warnings.iter().cloned());
    }
}

impl Came {
    /// How far both came: what is to be tried later is not tried at once.
    fn and(self, other: Came) -> Came {
        match (self, other) {
            (Came::Later, _) | (_, Came::Later) => Came::Later,
            (Came::ToAnEnd, other) => other,
            (Came::Nowhere, _) => Came::Nowhere,
        }
    }
}

/// What becomes of those who were given the image when a rollout is stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// They are set back.
    #[default]
    Nothing,
    /// They keep it.
    Image,
}

impl Rollout {
    /// Refuses to stop what is over.
    pub fn ensure_open(&self) -> Result<()> {
        match self.is_open() {
            true => Ok(()),
            false => Err(Error::refused(
                format!("stopping rollout {}", self.id),
                format!("it is over: {}", self.stage.word()),
                "assign its clients what they shall boot",
            )),
        }
    }
}

fn member(client: &Client, canary: bool) -> Member {
    Member {
        mac: client.mac,
        name: client.name.clone(),
        canary,
        before: client.assignment(),
        waited: None,
        given: false,
        giving: false,
        stayed: false,
        back: false,
        failing: None,
        trouble: None,
    }
}

/// What is known of a member.
pub(super) fn seen(rollout: &Rollout, client: &Client, live: &dyn Live) -> Seen {
    let boot = client.boot.as_ref();
    let sessions = live.sessions_of(&client.mac).into_iter();
    // A loader that has the disk is no system that came up.
    let of_boot = sessions
        .filter(|one| one.boot.is_some() && one.boot == boot.map(|boot| boot.id))
        .filter(|one| !one.firmware);
    Seen {
        standing: Standing::of(client, rollout),
        boot: boot.map(|boot| (boot.version.clone(), boot.since)),
        here: of_boot.map(|session| session.since).min(),
    }
}
