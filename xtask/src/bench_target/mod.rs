//! `cargo xtask bench target`: netroot's target beside tgt, over loopback, from the same disks.
//!
//! The two take turns in short slices. Each scenario tells commands a second, the server's processor
//! time and memory, and what it has to reach; a null target, which answers from memory at once, shows how
//! fast a target could be, and a few plain loops how fast the machine is. The load is made by a generator
//! of its own, which costs less than any server and looks at each answer.
//!
//! - the load, from the wire up: `wire` and `cdb`, `inbox` and `outbox`, `login`, `nexus` (one session's commands,
//!   without sockets), `session`, `drive` (threads), `load` and `trace` (which blocks; `record` makes
//!   the trace), `pattern` (what
//!   stands in them), `tools` (other people's generators)
//! - who is measured, and where: `stage`, `place`, `contender`, `subject` (which versions), `tgt`, `ours`, `null`,
//!   `limits`
//! - what, and what came of it: `scenario`, `measure` (one slice), `profile` (where the time goes), `judge`,
//!   `report`

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
mod profile;
mod record;
mod report;
mod scenario;
mod session;
mod stage;
mod subject;
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
use contender::Unit;
pub use contender::run_null;
use measure::How;
pub use record::record_boot;
use report::Machine;
use scenario::{ALL, Scenario};
use stage::Stage;
use subject::Subject;
pub use tools::Tool;

/// Which two are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// netroot with tgt.
    Tgt,
    /// tgt with another tgt, which shows the noise.
    TgtTgt,
}

impl Peer {
    /// What it is called.
    fn name(self) -> &'static str {
        match self {
            Peer::Tgt => "tgt",
            Peer::TgtTgt => "tgt-tgt",
        }
    }
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
    if cfg!(debug_assertions) {
        return run_optimised();
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
    let binary = match (options.peer, &options.binary) {
        (Peer::TgtTgt, _) => None,
        (Peer::Tgt, Some(binary)) => Some(std::path::absolute(binary)?),
        (Peer::Tgt, None) => Some(release_build()?),
    };
    let subject = Subject::new(binary.as_deref(), options)?;
    let storms = chosen.iter().any(|scenario| scenario.unit == Unit::Room);
    let how = How {
        time: Duration::from_millis(if options.quick { 500 } else { 2000 }),
        storms: if options.quick { 1 } else { usize::MAX },
        verify: options.verify,
        tool: options.tool,
        trace: if storms { Some(trace::load()?) } else { None },
    };
    let stage = Stage::set(binary.as_deref(), options.peer, &chosen)?;
    let limits = || limits::measure(&stage.sealed, how.time / 2);
    let limits = (0..options.rounds())
        .map(|_| limits())
        .collect::<Result<_>>()?;
    let machine = Machine::new(limits)?;
    if !options.json {
        subject.print();
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
        let document = report::document(options, &how, &subject, &machine, &outcomes);
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
fn run_optimised() -> Result<()> {
    let program = release_xtask()?;
    let arguments = std::env::args_os().skip(1);
    run_visibly(&mut command(&program.to_string_lossy(), arguments))
}
