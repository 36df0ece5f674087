//! One slice: a scenario against one contender for a moment.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::unistd::Pid;

use super::contender::{Contender, Disks};
use super::drive::{Done, Group, drive, total};
use super::load::Source;
use super::login::{Manner, log_in, log_out};
use super::nexus::Truth;
use super::pattern::Expected;
use super::place::{cached, cool};
use super::profile::{self, Profile};
use super::scenario::{Scenario, Shape, Work};
use super::session::{Opening, Session};
use super::tools::{self, Tool};
use super::trace::Trace;
use crate::bench::{processor, settle};

/// How it is measured.
#[derive(Debug, Clone)]
pub(super) struct How {
    /// How long a slice takes.
    pub(super) time: Duration,
    /// Storms at most: one takes as long as it takes.
    pub(super) storms: usize,
    /// Whether every byte is looked at.
    pub(super) verify: bool,
    pub(super) tool: Tool,
    pub(super) trace: Option<Trace>,
}

/// What a slice has shown.
#[derive(Debug, Clone, Default)]
pub(super) struct Slice {
    pub(super) commands: u64,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    /// Seconds of processors that the server used.
    pub(super) processor: f64,
    /// The same of the load, where this program makes it.
    pub(super) load: f64,
    /// Bytes of memory that it had in use afterwards.
    pub(super) resident: u64,
    /// What else this scenario shows.
    pub(super) more: BTreeMap<&'static str, f64>,
}

/// Bytes of memory that a session takes.
pub(super) const EACH: &str = "bytes_a_session";
/// Time of the slowest client, as a multiple of the fastest one's.
pub(super) const SLOWEST: &str = "slowest_to_fastest";
/// What clones have in the page cache by themselves, as a multiple of what one boot reads.
pub(super) const COPIES: &str = "cached_copies";
/// MiB that a boot reads.
const BOOT: &str = "boot_mib";
/// MiB a second that the flood gets.
const FLOOD: &str = "flood_mib_a_second";

/// A scenario's sessions with one contender, which stay from slice to slice.
#[derive(Debug)]
pub(super) struct Sessions<'a> {
    scenario: &'a Scenario,
    how: &'a How,
    contender: &'a Contender,
    disks: &'a Disks,
    groups: Vec<Group>,
}

impl<'a> Sessions<'a> {
    /// Opens them, and has the contender warm up.
    ///
    /// # Errors
    /// When it does not let them in.
    pub(super) fn open(
        scenario: &'a Scenario,
        how: &'a How,
        contender: &'a Contender,
    ) -> Result<Self> {
        let disks = contender.disks(scenario.unit)?;
        let mut sessions = Sessions {
            scenario,
            how,
            contender,
            disks,
            groups: Vec::new(),
        };
        match scenario.work {
            Work::Load(shape) if how.tool == Tool::Own => sessions.open_load(&shape)?,
            Work::Fairness { small, flood } => {
                for shape in [small, flood] {
                    let mut group = Group::default();
                    sessions.add(&mut group, &shape, 0)?;
                    sessions.groups.push(group);
                }
            }
            _ => {}
        }
        if !sessions.groups.is_empty() {
            drive(&mut sessions.groups, Some(how.time / 4))?;
        }
        Ok(sessions)
    }

    fn open_load(&mut self, shape: &Shape) -> Result<()> {
        let mut groups: Vec<Group> = Vec::new();
        groups.resize_with(threads().min(shape.sessions), Group::default);
        for number in 0..shape.sessions {
            let place = number % groups.len();
            if let Some(group) = groups.get_mut(place) {
                self.add(group, shape, number)?;
            }
        }
        self.groups = groups;
        Ok(())
    }

    /// Adds a session to a group.
    fn add(&self, group: &mut Group, shape: &Shape, number: usize) -> Result<()> {
        let door = self.disks.doors.first().context("a disk without a door")?;
        let opening = self.opening(shape);
        let session = Session::open(door, &opening)?;
        group.push(session, Source::made(&shape.load(), number));
        Ok(())
    }

    fn opening(&self, shape: &Shape) -> Opening {
        let (expected, written) = match (self.how.verify, shape.writes()) {
            (false, _) => (Expected::Anything, None),
            // Earlier loads have written here and there.
            (true, false) => (Expected::Exactly(self.disks.written.clone()), None),
            (true, true) => (Expected::Either, Some(self.disks.written.clone())),
        };
        Opening {
            manner: shape.manner,
            depth: shape.depth,
            bytes: shape.bytes,
            truth: Truth { expected, written },
        }
    }

    /// Measures for a moment.
    ///
    /// # Errors
    /// When an answer is not as it must be.
    pub(super) fn slice(&mut self) -> Result<Slice> {
        let unit = self.scenario.unit;
        if matches!(self.scenario.work, Work::Load(shape) if shape.writes()) {
            settle()?;
        }
        let before = self.contender.processor(unit)?;
        let load_before = processor(Pid::this())?;
        let mut slice = match self.scenario.work {
            Work::Load(shape) if self.how.tool != Tool::Own => self.foreign(&shape)?,
            Work::Load(_) => {
                let done = drive(&mut self.groups, Some(self.how.time))?;
                Slice::of(&total(&done))
            }
            Work::Fairness { .. } => self.fairness()?,
            Work::Logins => self.logins()?,
            Work::Idle(number) => return self.idle(number),
            Work::Storm(shape) => self.storm(&shape)?,
        };
        slice.processor = (self.contender.processor(unit)? - before).as_secs_f64();
        slice.load = (processor(Pid::this())? - load_before).as_secs_f64();
        slice.resident = self.contender.resident(unit)?;
        Ok(slice)
    }

    /// Looks for one more slice where the server's time goes.
    ///
    /// # Errors
    /// When an answer is not as it must be, or perf reports what nobody can read.
    pub(super) fn profile(&mut self, dir: &Path) -> Result<Profile> {
        if let Work::Idle(_) = self.scenario.work {
            return Ok(Profile::Unknown("there is nothing to do".to_owned()));
        }
        let pid = self.contender.pid(self.scenario.unit)?;
        profile::during(pid, dir, || self.slice().map(drop))
    }

    fn foreign(&self, shape: &Shape) -> Result<Slice> {
        let door = self.disks.doors.first().context("a disk without a door")?;
        tools::slice(self.how.tool, door, shape, self.how.time)
    }

    /// Only the small one's commands are counted.
    fn fairness(&mut self) -> Result<Slice> {
        let done = drive(&mut self.groups, Some(self.how.time))?;
        let mut all = done.iter().map(Slice::of);
        let mut small = all.next().context("nobody was measured")?;
        let flood = all.next().map(|flood| flood.mib_a_second());
        small.more.insert(FLOOD, flood.unwrap_or(0.0));
        Ok(small)
    }

    fn logins(&self) -> Result<Slice> {
        let door = self.disks.doors.first().context("a disk without a door")?;
        let (began, mut commands) = (Instant::now(), 0);
        while began.elapsed() < self.how.time {
            let (socket, agreed) = log_in(door, &Manner::OPEN_ISCSI)?;
            log_out(socket, &agreed)?;
            commands += 1;
        }
        Ok(Slice {
            commands,
            seconds: began.elapsed().as_secs_f64(),
            ..Slice::default()
        })
    }

    fn idle(&self, number: usize) -> Result<Slice> {
        let door = self.disks.doors.first().context("a disk without a door")?;
        let before = self.contender.resident(self.scenario.unit)?;
        let began = Instant::now();
        let mut sessions = Vec::new();
        for _ in 0..number {
            sessions.push(log_in(door, &Manner::OPEN_ISCSI)?);
        }
        let seconds = began.elapsed().as_secs_f64();
        let resident = self.contender.resident(self.scenario.unit)?;
        let each = resident.saturating_sub(before) as f64 / number as f64;
        Ok(Slice {
            seconds,
            resident,
            more: [(EACH, each)].into(),
            ..Slice::default()
        })
    }

    /// Every clone is as it is after a night: nothing of it is in memory, and all of the version is.
    fn storm(&self, shape: &Shape) -> Result<Slice> {
        let trace = self
            .how
            .trace
            .as_ref()
            .context("there is no trace of a boot")?;
        let mut opening = self.opening(shape);
        let blocks = trace.all.iter().map(|io| io.bytes()).max();
        opening.bytes = blocks.unwrap_or_default();
        let mut groups: Vec<Group> = Vec::new();
        groups.resize_with(threads().min(self.disks.doors.len()), Group::default);
        for (door, number) in self.disks.doors.iter().zip(0_usize..) {
            let session = Session::open(door, &opening)?;
            let place = number % groups.len();
            if let Some(group) = groups.get_mut(place) {
                group.push(session, Source::recorded(trace.all.clone()));
            }
        }
        for file in &self.disks.files {
            cool(file)?;
        }
        let done = total(&drive(&mut groups, None)?);
        let mut slice = Slice::of(&done);
        let seconds = done.each.iter().map(Duration::as_secs_f64);
        let (least, most) = crate::bench::spread(&seconds.collect::<Vec<_>>());
        slice.more.insert(SLOWEST, most / least);
        let copies = cached(&self.disks.files)? as f64 / trace.unique as f64;
        slice.more.insert(COPIES, copies);
        slice
            .more
            .insert(BOOT, trace.bytes as f64 / f64::from(1 << 20));
        Ok(slice)
    }

    /// Reads all that loads of this scenario could have written, and finds what they wrote.
    ///
    /// # Errors
    /// When something else is there.
    pub(super) fn read_back(&self) -> Result<()> {
        let Work::Load(shape) = self.scenario.work else {
            return Ok(());
        };
        let reading = Shape {
            reads: 100,
            order: super::load::Order::Sequential,
            bytes: 256 << 10,
            depth: 4,
            sessions: 1,
            ..shape
        };
        let region = shape.load().region;
        let blocks = reading.bytes / super::pattern::BLOCK as u32;
        let all = region.step_by(blocks as usize).map(|lba| super::load::Io {
            direction: super::cdb::Direction::Read,
            lba,
            blocks,
        });
        let door = self.disks.doors.first().context("a disk without a door")?;
        let session = Session::open(door, &self.opening(&reading))?;
        let mut group = Group::default();
        group.push(
            session,
            Source::recorded(std::sync::Arc::new(all.collect())),
        );
        drive(&mut [group], None).context("reading back what was written")?;
        Ok(())
    }
}

impl Slice {
    fn of(done: &Done) -> Self {
        Slice {
            commands: done.tally.commands,
            bytes: done.tally.bytes,
            seconds: done.took.as_secs_f64(),
            ..Slice::default()
        }
    }

    pub(super) fn commands_a_second(&self) -> f64 {
        self.commands as f64 / self.seconds
    }

    pub(super) fn mib(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20)
    }

    pub(super) fn mib_a_second(&self) -> f64 {
        self.mib() / self.seconds
    }
}

/// Threads that drive sessions: half of the processors are the server's.
fn threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).max(1)
}
