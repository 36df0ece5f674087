//! Sessions under load: a thread drives all the sessions of its group.
//!
//! A session that has its thread to itself waits in its receive; several share an epoll. Either way one
//! call brings many answers, and the commands that follow them leave with one call.

use std::os::fd::OwnedFd;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::load::Source;
use super::nexus::Tally;
use super::session::{Session, Waiting};

/// A target that answers nothing for so long has failed.
const PATIENCE: Timespec = Timespec {
    tv_sec: 20,
    tv_nsec: 0,
};

/// Sessions with what they do.
#[derive(Debug, Default)]
pub(super) struct Group {
    sessions: Vec<(Session, Source)>,
}

/// What a group, or several together, have done.
#[derive(Debug, Clone, Default)]
pub(super) struct Done {
    pub(super) tally: Tally,
    /// From the start until the last answer.
    pub(super) took: Duration,
    /// The same for each session.
    pub(super) each: Vec<Duration>,
}

impl Group {
    pub(super) fn push(&mut self, session: Session, source: Source) {
        self.sessions.push((session, source));
    }

    /// Drives all of them until `end`, or until they have nothing to do any more; then waits for what is
    /// on its way.
    fn drive(&mut self, began: Instant, end: Option<Instant>) -> Result<Done> {
        let each = match self.sessions.as_mut_slice() {
            [(session, source)] => vec![drive_one(session, source, began, end)?],
            many => drive_many(many, began, end)?,
        };
        let mut done = Done {
            took: each.iter().copied().max().unwrap_or_default(),
            each,
            ..Done::default()
        };
        for (session, _) in &mut self.sessions {
            let tally = session.take_tally();
            done.tally.commands += tally.commands;
            done.tally.bytes += tally.bytes;
        }
        Ok(done)
    }
}

/// Drives groups, a thread for each, for so long (or to the end of their records); what each has done.
///
/// # Errors
/// When an answer is not as it must be.
pub(super) fn drive(groups: &mut [Group], time: Option<Duration>) -> Result<Vec<Done>> {
    let together = Barrier::new(groups.len());
    thread::scope(|scope| {
        let threads: Vec<_> = groups
            .iter_mut()
            .map(|group| {
                scope.spawn(|| {
                    together.wait();
                    let began = Instant::now();
                    group.drive(began, time.map(|time| began + time))
                })
            })
            .collect();
        let done = threads.into_iter().map(|thread| {
            let done = thread.join();
            done.unwrap_or_else(|_| Err(anyhow!("a thread of the load panicked")))
        });
        done.collect()
    })
}

/// All of it together.
pub(super) fn total(all: &[Done]) -> Done {
    let mut sum = Done::default();
    for done in all {
        sum.tally.commands += done.tally.commands;
        sum.tally.bytes += done.tally.bytes;
        sum.took = sum.took.max(done.took);
        sum.each.extend(&done.each);
    }
    sum
}

fn is_over(end: Option<Instant>) -> bool {
    end.is_some_and(|end| Instant::now() >= end)
}

fn drive_one(
    session: &mut Session,
    source: &mut Source,
    began: Instant,
    end: Option<Instant>,
) -> Result<Duration> {
    let mut goes_on = session.fill(source);
    loop {
        session.flush()?;
        if !goes_on && session.is_idle() {
            return Ok(began.elapsed());
        }
        if session.has_to_send() {
            // Neither side may wait for the other to read first.
            let both = PollFlags::IN | PollFlags::OUT;
            poll(&mut [PollFd::new(session.socket(), both)], Some(&PATIENCE))?;
            session.receive(Waiting::No)?;
        } else {
            session.receive(Waiting::Yes)?;
        }
        goes_on = goes_on && !is_over(end) && session.fill(source);
    }
}

/// A session among others.
struct Turn<'a> {
    session: &'a mut Session,
    source: &'a mut Source,
    goes_on: bool,
    /// Whether it is told when the socket takes more.
    awaits_room: bool,
    ended: Option<Duration>,
}

fn drive_many(
    sessions: &mut [(Session, Source)],
    began: Instant,
    end: Option<Instant>,
) -> Result<Vec<Duration>> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut turns = Vec::with_capacity(sessions.len());
    for (number, (session, source)) in sessions.iter_mut().enumerate() {
        let data = EventData::new_u64(number as u64);
        epoll::add(&epoll, session.socket(), data, EventFlags::IN)?;
        let mut turn = Turn {
            goes_on: session.fill(source),
            session,
            source,
            awaits_room: false,
            ended: None,
        };
        turn.send(&epoll, data)?;
        turns.push(turn);
    }
    let mut busy = turns.len();
    let mut events = Vec::with_capacity(turns.len().max(1));
    while busy > 0 {
        events.clear();
        let room = rustix::buffer::spare_capacity(&mut events);
        epoll::wait(&epoll, room, Some(&PATIENCE))?;
        ensure!(!events.is_empty(), "the target says nothing");
        let over = is_over(end);
        for event in &events {
            let number = event.data.u64() as usize;
            let turn = turns.get_mut(number).context("no such session")?;
            turn.session.receive(Waiting::No)?;
            turn.goes_on = turn.goes_on && !over && turn.session.fill(turn.source);
            turn.send(&epoll, event.data)?;
            if turn.ended.is_none() && !turn.goes_on && turn.session.is_idle() {
                turn.ended = Some(began.elapsed());
                busy -= 1;
            }
        }
    }
    Ok(turns
        .iter()
        .map(|turn| turn.ended.unwrap_or_default())
        .collect())
}

impl Turn<'_> {
    /// Sends what the socket takes, and asks to be told when it takes the rest.
    fn send(&mut self, epoll: &OwnedFd, data: EventData) -> Result<()> {
        self.session.flush()?;
        if self.session.has_to_send() != self.awaits_room {
            self.awaits_room = !self.awaits_room;
            let mut events = EventFlags::IN;
            events.set(EventFlags::OUT, self.awaits_room);
            epoll::modify(epoll, self.session.socket(), data, events)?;
        }
        Ok(())
    }
}
