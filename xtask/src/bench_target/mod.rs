//! `cargo xtask bench target`: netroot's target beside tgt, over loopback, from the same disks.
//!
//! The two take turns in short slices. Each scenario tells commands a second, the server's processor
//! time and memory, and what it has to reach; a null target, which answers from memory at once, shows how
//! fast a target could be, and a few plain loops how fast the machine is. The load is made by a generator
//! of its own, which costs less than any server and looks at each answer.
//!
//! - the load, from the wire up: `wire` and `cdb`, `inbox` and `outbox`, `login`, `nexus` (one session's commands,
//!   without sockets), `session`, `drive` (threads), `load` and `trace` (which blocks), `pattern` (what
//!   stands in them), `tools` (other people's generators)
//! - who is measured, and where: `place`, `contender`, `tgt`, `ours`, `null`, `limits`
//! - what, and what came of it: `scenario`, `measure` (one slice), `judge`, `report`

mod cdb;
mod contender;
mod drive;
mod inbox;
mod judge;
mod limits;
mod load;
mod login;
mod measure;
mod nexus;
mod null;
mod ours;
mod outbox;
mod pattern;
mod place;
mod report;
mod scenario;
mod session;
#[cfg(test)]
mod tests;
mod tgt;
mod tools;
mod trace;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::bench::{release_build, release_xtask};
use crate::program::{command, exists, run_visibly};
pub use contender::run_null;
use contender::{Contender, Unit, start_null};
use judge::{Outcome, Shown};
use measure::{How, Sessions};
use ours::Library;
use place::{Kind, Place, warm};
use report::Machine;
use scenario::{ALL, Floor, ROOM, Scenario, Work};
pub use tools::Tool;

/// Which two are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// netroot with tgt.
    Tgt,
    /// tgt with another tgt, which shows the noise.
    TgtTgt,
}

/// What is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// Shorter slices and fewer rounds.
    pub quick: bool,
    /// How often each contender has its turn.
    pub rounds: Option<usize>,
    /// Whether the result is printed as JSON.
    pub json: bool,
    /// Whether every byte is looked at.
    pub verify: bool,
    /// Who is compared.
    pub peer: Peer,
    /// Who makes the load.
    pub tool: Tool,
    /// Only these scenarios, or those whose names begin so.
    pub scenarios: Vec<String>,
    /// The program to measure; a release build of this source if none is given.
    pub binary: Option<PathBuf>,
}

impl Options {
    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 3 } else { 5 })
    }
}

/// Measures, and prints the result.
///
/// # Errors
/// When a program is missing, a server fails, or an answer is not as it must be.
pub fn run_bench(options: &Options) -> Result<()> {
    ensure!(
        options.rounds() > 0,
        "there is nothing to measure in 0 rounds"
    );
    let chosen = chosen(options)?;
    let binary = match &options.binary {
        Some(binary) => std::path::absolute(binary)?,
        None => release_build()?,
    };
    if cfg!(debug_assertions) {
        return run_optimised(&binary, options);
    }
    for (program, package) in [
        ("tgtd", "tgt"),
        ("mkfs.xfs", "xfsprogs"),
        ("fincore", "util-linux"),
    ] {
        ensure!(
            exists(program),
            "there is no {program}: apt-get install {package}"
        );
    }
    let storms = chosen.iter().any(|scenario| scenario.unit == Unit::Room);
    let how = How {
        time: Duration::from_millis(if options.quick { 500 } else { 2000 }),
        verify: options.verify,
        tool: options.tool,
        trace: if storms { Some(trace::load()?) } else { None },
    };
    let stage = Stage::set(options, &chosen, &binary)?;
    let limits = || limits::measure(&stage.sealed, how.time / 2);
    let limits = (0..options.rounds())
        .map(|_| limits())
        .collect::<Result<_>>()?;
    let machine = Machine::new(limits)?;
    if !options.json {
        machine.print();
    }
    let mut outcomes = Vec::new();
    for scenario in chosen {
        let outcome = stage
            .play(scenario, &how, options.rounds())
            .with_context(|| format!("in scenario {}", scenario.name))?;
        if !options.json {
            report::print(&outcome);
        }
        outcomes.push(outcome);
    }
    if options.json {
        let document = report::document(options, &how, &machine, &outcomes);
        println!("{document:#}");
    } else {
        report::print_end(&outcomes);
    }
    Ok(())
}

/// The scenarios that are asked for and that the tool can do.
fn chosen(options: &Options) -> Result<Vec<&'static Scenario>> {
    for name in &options.scenarios {
        let names = || {
            ALL.iter()
                .map(|scenario| scenario.name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        ensure!(
            ALL.iter()
                .any(|scenario| scenario.name.starts_with(name.as_str())),
            "there is no scenario {name}; there are {}",
            names()
        );
    }
    let is_asked = |scenario: &&Scenario| {
        let mut names = options.scenarios.iter();
        names.len() == 0 || names.any(|name| scenario.name.starts_with(name.as_str()))
    };
    let all = ALL.iter().filter(is_asked);
    let all: Vec<_> = all.filter(|scenario| options.tool.can(scenario)).collect();
    if all.is_empty() {
        bail!("{} can do none of these scenarios", options.tool.name());
    }
    Ok(all)
}

/// Has an optimised build of this program do it: a slow load would hide what servers cost.
fn run_optimised(binary: &std::path::Path, options: &Options) -> Result<()> {
    let program = release_xtask()?;
    let arguments = std::env::args_os().skip(1);
    let mut again = command(&program.to_string_lossy(), arguments);
    if options.binary.is_none() {
        again.arg("--binary").arg(binary);
    }
    run_visibly(&mut again)
}

/// Everybody, ready.
struct Stage {
    peer: Contender,
    ours: Contender,
    null: Contender,
    sealed: PathBuf,
    // Its directory goes with it, after everybody has ended.
    _place: Place,
}

impl Stage {
    /// Makes disks, and starts all servers.
    fn set(options: &Options, chosen: &[&Scenario], binary: &std::path::Path) -> Result<Self> {
        let mut place = Place::enter()?;
        let has = |unit| chosen.iter().any(|scenario| scenario.unit == unit);
        let room = if has(Unit::Room) { ROOM } else { 0 };
        let xfs = place.ground(Kind::Xfs)?;
        let ext4 = has(Unit::Overlay)
            .then(|| place.ground(Kind::Ext4))
            .transpose()?;
        let (ours, sealed) = match options.peer {
            Peer::Tgt => {
                let mut ours = Contender::new("netroot");
                let mut library = Library::new(binary, &xfs)?;
                let sealed = library.sealed();
                library.add_clients(Unit::Sealed, 1)?;
                library.add_clients(Unit::Clone, 1)?;
                library.add_clients(Unit::Room, room)?;
                library.add_volume(&xfs.disk)?;
                library.serve(&mut ours)?;
                if let Some(ext4) = &ext4 {
                    let mut library = Library::new(binary, ext4)?;
                    library.add_clients(Unit::Overlay, 1)?;
                    warm(&library.sealed())?;
                    library.serve(&mut ours)?;
                }
                (ours, sealed)
            }
            Peer::TgtTgt => {
                let disk = xfs.disk.clone();
                (
                    tgt::start("tgt again", &disk, &xfs, ext4.as_ref(), room)?,
                    disk,
                )
            }
        };
        let peer = tgt::start("tgt", &sealed, &xfs, ext4.as_ref(), room)?;
        for contender in [&peer, &ours] {
            contender.warm()?;
        }
        Ok(Stage {
            peer,
            ours,
            null: start_null()?,
            sealed,
            _place: place,
        })
    }

    /// A scenario in all its rounds.
    fn play(&self, scenario: &'static Scenario, how: &How, rounds: usize) -> Result<Outcome> {
        // Memory that was used once is not given back: it shows in the first round only.
        let is_memory = matches!(scenario.work, Work::Idle(_));
        let rounds = if is_memory { 1 } else { rounds };
        let with_null = !is_memory && self.null.has(scenario.unit);
        let with_sendfile = scenario
            .floors
            .iter()
            .any(|floor| matches!(floor, Floor::OfSendfile(_)));
        let mut all = [&self.peer, &self.ours, &self.null]
            .into_iter()
            .take(if with_null { 3 } else { 2 })
            .map(|contender| {
                let sessions = Sessions::open(scenario, how, contender);
                let sessions = sessions.with_context(|| contender.name)?;
                Ok((
                    sessions,
                    Shown {
                        name: contender.name,
                        slices: Vec::new(),
                    },
                ))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut sendfile = Vec::new();
        for _ in 0..rounds {
            for (sessions, shown) in &mut all {
                let slice = sessions.slice().with_context(|| shown.name)?;
                shown.slices.push(slice);
            }
            if with_sendfile {
                let rate = limits::sendfile(&self.sealed, how.time)?;
                sendfile.push(rate.mib_a_second);
            }
        }
        if how.verify {
            for (sessions, shown) in &all {
                sessions.read_back().with_context(|| shown.name)?;
            }
        }
        let mut all = all.into_iter().map(|(_, shown)| shown);
        Ok(Outcome {
            scenario,
            peer: all.next().context("the peer is missing")?,
            ours: all.next().context("netroot is missing")?,
            null: all.next(),
            sendfile,
        })
    }
}
