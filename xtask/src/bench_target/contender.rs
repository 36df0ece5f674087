//! Who is measured: netroot, tgt, and the null target, each a process that is asked for the same disks.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::Pid;

use super::login::Door;
use super::null;
use super::pattern::{BLOCK, Written};
use super::place::{SIZE, warm};
use crate::bench::processor;
use crate::program::{Background, bound, command, resident};

/// What kind of disk is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unit {
    /// A version, which nobody may write.
    Sealed,
    /// A client's clone that shares blocks with its version.
    Clone,
    /// A client's clone where blocks cannot be shared.
    Overlay,
    /// A file that is published as it is.
    Volume,
    /// Fifty clones of one image.
    Room,
}

impl Unit {
    /// What it is called in a report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Unit::Sealed => "sealed version",
            Unit::Clone => "reflink clone",
            Unit::Overlay => "overlay",
            Unit::Volume => "volume",
            Unit::Room => "50 reflink clones",
        }
    }

    /// The same beside tgt, which knows no clones: it serves a plain copy where only one client has one.
    pub(super) fn beside_tgt(self, ours: &str) -> String {
        match self {
            Unit::Clone | Unit::Overlay if ours == NETROOT => {
                format!("{}; tgt: a plain copy", self.name())
            }
            Unit::Clone | Unit::Overlay => "a plain copy".to_owned(),
            Unit::Sealed | Unit::Volume | Unit::Room => self.name().to_owned(),
        }
    }
}

/// A disk: its ways in (one for each, where there are many), its files.
#[derive(Debug)]
pub(super) struct Disks {
    pub(super) doors: Vec<Door>,
    pub(super) files: Vec<PathBuf>,
    /// What loads have written to it, where that is checked.
    pub(super) written: Arc<Written>,
    /// The process that serves it.
    server: usize,
}

/// One target, with whatever processes it takes.
#[derive(Debug)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    servers: Vec<Background>,
    disks: BTreeMap<Unit, Disks>,
    /// What loads have written, where all disks are one.
    written: Option<Arc<Written>>,
    /// Files outside that a server leaves when it is killed.
    left: Vec<PathBuf>,
}

impl Contender {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            servers: Vec::new(),
            disks: BTreeMap::new(),
            written: None,
            left: Vec::new(),
        }
    }

    /// Adds a process; its number.
    pub(super) fn add_server(&mut self, process: Background) -> usize {
        self.servers.push(process);
        self.servers.len() - 1
    }

    /// A file outside that is to be removed when all have ended.
    pub(super) fn leaves(&mut self, file: PathBuf) {
        self.left.push(file);
    }

    /// Adds a disk of the process `server`.
    pub(super) fn add(&mut self, server: usize, unit: Unit, doors: Vec<Door>, files: Vec<PathBuf>) {
        let disks = Disks {
            doors,
            files,
            written: self.written.clone().unwrap_or_else(untouched),
            server,
        };
        self.disks.insert(unit, disks);
    }

    /// The disks of a kind.
    ///
    /// # Errors
    /// When it has none.
    pub(super) fn disks(&self, unit: Unit) -> Result<&Disks> {
        let disks = self.disks.get(&unit);
        disks.with_context(|| format!("{} has no {}", self.name, unit.name()))
    }

    /// Whether it has such a disk.
    pub(super) fn has(&self, unit: Unit) -> bool {
        self.disks.contains_key(&unit)
    }

    /// Reads all of its disks, so that they are in the page cache. Clones of a room stay out of it.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn warm(&self) -> Result<()> {
        let disks = self.disks.iter().filter(|(unit, _)| **unit != Unit::Room);
        for file in disks.flat_map(|(_, disks)| &disks.files) {
            warm(file)?;
        }
        Ok(())
    }

    /// The time of processors that the server of a disk has used so far.
    ///
    /// # Errors
    /// When it is gone.
    pub(super) fn processor(&self, unit: Unit) -> Result<Duration> {
        processor(self.pid(unit)?)
    }

    /// The memory that it has in use.
    ///
    /// # Errors
    /// When it is gone.
    pub(super) fn resident(&self, unit: Unit) -> Result<u64> {
        resident(self.pid(unit)?)
    }

    /// The process of its server.
    ///
    /// # Errors
    /// When it has no such disk.
    pub(super) fn pid(&self, unit: Unit) -> Result<Pid> {
        let server = self.servers.get(self.disks(unit)?.server);
        Ok(server.context("a disk without a server")?.pid())
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        self.servers.clear();
        for file in &self.left {
            // Some of them are made only when they are needed.
            let _ = std::fs::remove_file(file);
        }
    }
}

fn untouched() -> Arc<Written> {
    Arc::new(Written::new(SIZE / BLOCK))
}

/// Starts the null target in a process of its own, so that its costs are counted like the others'.
///
/// # Errors
/// When it does not start.
pub(super) fn start_null() -> Result<Contender> {
    let program = std::env::current_exe().context("looking for this program")?;
    let mut serve = bound(&program.to_string_lossy(), ["bench", "null-target"]);
    let mut process = Background::start(serve.stdout(Stdio::piped()))?;
    let said = process.stdout().context("its standard output is taken")?;
    let mut line = String::new();
    BufReader::new(said).read_line(&mut line)?;
    let portal: SocketAddr = line
        .trim()
        .parse()
        .context("reading the null target's address")?;
    let mut contender = Contender::new("null");
    contender.written = Some(untouched());
    let server = contender.add_server(process);
    let door = Door {
        portal,
        target: "iqn.2026-01.example:null".into(),
        initiator: INITIATOR.into(),
        lun: 1,
    };
    for unit in [Unit::Sealed, Unit::Clone, Unit::Overlay, Unit::Volume] {
        contender.add(server, unit, vec![door.clone()], Vec::new());
    }
    Ok(contender)
}

/// The null target's process: tells where it listens, and serves.
///
/// # Errors
/// When it cannot listen.
pub fn run_null() -> Result<()> {
    let disk = null::disk(SIZE);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?);
    null::serve(&listener, disk)
}

/// The one that has to reach something.
pub(super) const NETROOT: &str = "netroot";

/// Who asks, where that does not matter.
pub(super) const INITIATOR: &str = "iqn.2026-01.example:bench";

/// A copy of a disk that shares no blocks with it.
///
/// # Errors
/// When cp(1) fails.
pub(super) fn plain_copy(from: &Path, to: &Path) -> Result<PathBuf> {
    copy("never", from, to)
}

/// A copy that shares all of them.
///
/// # Errors
/// When the file system cannot do that.
pub(super) fn reflink(from: &Path, to: &Path) -> Result<PathBuf> {
    copy("always", from, to)
}

fn copy(reflink: &str, from: &Path, to: &Path) -> Result<PathBuf> {
    let how = format!("--reflink={reflink}");
    crate::program::run(command("cp", [how]).args([from, to]))?;
    Ok(to.to_owned())
}
