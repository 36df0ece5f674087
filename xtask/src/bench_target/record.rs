//! `cargo xtask bench record-boot`: a Debian client boots in QEMU, and what it reads of its disk becomes
//! the trace that `bench target` has fifty clients read at once.
//!
//! Somebody in the middle takes down each READ and hands everything on as it is.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use rustix::net::RecvFlags;

use super::cdb::{Direction, transfer};
use super::inbox::{Data, Inbox, Received, Sink};
use super::trace::FILE;
use super::wire::{Header, opcode};
use crate::bench::release_build;
use crate::debian;
use crate::lab_dir;
use crate::netns::{Leases, Network, SERVER};
use crate::qemu::{Accelerator, Machine, OnReset};
use crate::server::{Site, remove_library};

/// The port of the one in the middle, beside the target's own.
const MIDDLE: u16 = 3261;
const TARGET: u16 = 3260;

const MAC: &str = "52:54:00:12:34:56";

/// First block and blocks of each READ, in their order.
type Reads = Arc<Mutex<Vec<(u64, u32)>>>;

/// Records, and writes the file.
///
/// # Errors
/// When this is not root, the image cannot be made, or the client does not boot.
pub fn record_boot(binary: Option<PathBuf>) -> Result<()> {
    let binary = match binary {
        Some(binary) => std::path::absolute(binary)?,
        None => release_build()?,
    };
    let ready = debian::library(&binary)?;
    let dir = lab_dir().join("record-boot");
    remove_library(&dir)?;
    fs::create_dir_all(&dir)?;
    let site = Site::new(&binary, &dir.join("library"));
    debian::copy_library(&ready, site.library())?;
    let recorded = boot(&site, &dir);
    let recorded = recorded.with_context(|| format!("what was said is in {}", dir.display()))?;
    let path = crate::workspace().join(FILE);
    fs::write(&path, text(&recorded)).with_context(|| format!("writing {}", path.display()))?;
    println!("{} reads are in {}", recorded.len(), path.display());
    remove_library(&dir)
}

/// A boot until the client is up, through the one in the middle; what it read.
fn boot(site: &Site, dir: &Path) -> Result<Vec<(u64, u32)>> {
    let settings = site.library().join("netroot.toml");
    let text = fs::read_to_string(&settings)?;
    let announced = format!("announce = [\"{SERVER}:{MIDDLE}\"]");
    fs::write(&settings, text.replace("announce = []", &announced))?;
    let mut add = vec!["client", "add", MAC, "--image", debian::IMAGE];
    add.extend(["--mode", "persistent"]);
    for argument in debian::KERNEL_ARGS {
        add.extend(["--arg", argument]);
    }
    site.netroot(&add)?;
    let network = Network::create(Leases::Infinite)?;
    let server = site.serve(&network, &dir.join("serve.log"))?;
    let reads = Reads::default();
    listen(network.name(), &reads)?;
    let accelerator = Accelerator::find(&site.kernel(debian::IMAGE));
    let log = dir.join("client.log");
    let machine = Machine::start(&network, MAC, accelerator, OnReset::End, &log)?;
    machine.boot(|stage, at| println!("{:7.1} s  {stage}", at.as_secs_f64()))?;
    let recorded = reads.lock().unwrap_or_else(PoisonError::into_inner).clone();
    machine.power_off()?;
    server.stop()?;
    ensure!(
        !recorded.is_empty(),
        "the client did not come by the one in the middle"
    );
    Ok(recorded)
}

/// Takes connections in the laboratory's network, for as long as this program runs.
fn listen(network: &str, reads: &Reads) -> Result<()> {
    let (network, reads) = (network.to_owned(), reads.clone());
    let listening = thread::spawn(move || -> Result<()> {
        let namespace = File::open(format!("/run/netns/{network}"))?;
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let listener = TcpListener::bind((SERVER, MIDDLE))?;
        thread::spawn(move || {
            for near in listener.incoming().filter_map(Result::ok) {
                let reads = reads.clone();
                // A connection that breaks breaks for the client, who says so.
                thread::spawn(move || carry(near, &reads));
            }
        });
        Ok(())
    });
    let listening = listening
        .join()
        .map_err(|_| anyhow::anyhow!("the listener panicked"))?;
    listening.context("listening in the laboratory's network")
}

/// Carries what both sides say until both have ended. Threads are in the network of who starts them.
fn carry(mut near: TcpStream, reads: &Reads) -> io::Result<()> {
    let mut far = TcpStream::connect((SERVER, TARGET))?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (mut from_far, mut to_near) = (far.try_clone()?, near.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from_far, &mut to_near);
        let _ = to_near.shutdown(Shutdown::Write);
    });
    let (mut copy, heard) = UnixStream::pair()?;
    let mut clerk = Clerk {
        reads: reads.clone(),
    };
    thread::spawn(move || {
        let mut inbox = Inbox::new(Data::Taken);
        // What cannot be read is carried all the same.
        while matches!(
            inbox.receive(&heard, RecvFlags::empty(), &mut clerk),
            Ok(Received::Some)
        ) {}
    });
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len = near.read(&mut buffer)?;
        let bytes = buffer.get(..len).unwrap_or_default();
        if bytes.is_empty() {
            return far.shutdown(Shutdown::Write);
        }
        far.write_all(bytes)?;
        let _ = copy.write_all(bytes);
    }
}

/// Takes down what is read.
struct Clerk {
    reads: Reads,
}

impl Sink for Clerk {
    fn header(&mut self, header: &Header) -> Result<()> {
        if header.opcode() != opcode::SCSI_COMMAND {
            return Ok(());
        }
        if let Some((Direction::Read, lba, blocks)) = transfer(&header.cdb())
            && blocks > 0
        {
            let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
            reads.push((lba, blocks));
        }
        Ok(())
    }

    fn data(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The file.
fn text(reads: &[(u64, u32)]) -> String {
    let blocks: u64 = reads.iter().map(|(_, blocks)| u64::from(*blocks)).sum();
    let mut text = format!(
        "# What a client read of its disk from iPXE's way out until it was up: Debian 12 by netroot's\n\
         # recipe, in QEMU, recorded by `cargo xtask bench record-boot`. {} reads, {} MiB.\n\
         # First block and number of blocks, of 512 bytes.\n",
        reads.len(),
        blocks >> 11
    );
    for (lba, blocks) in reads {
        let _ = writeln!(text, "{lba} {blocks}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::cdb::cdb;
    use super::super::wire::Command;
    use super::*;

    #[test]
    fn reads_are_taken_down_and_nothing_else() {
        let mut clerk = Clerk {
            reads: Reads::default(),
        };
        for (direction, lba, blocks) in [
            (Direction::Read, 2048, 8),
            (Direction::Write, 5, 8),
            (Direction::Read, 1 << 33, 2048),
        ] {
            let command = Command {
                direction,
                lun: [0; 8],
                itt: 1,
                expected: blocks * 512,
                cmd_sn: 1,
                exp_stat_sn: 1,
                cdb: cdb(direction, lba, blocks),
                immediate: 0,
                is_final: true,
            };
            clerk.header(&Header(command.emit())).unwrap();
        }
        let reads = clerk.reads.lock().unwrap().clone();
        assert_eq!(reads, [(2048, 8), (1 << 33, 2048)]);
        assert!(text(&reads).ends_with("blocks, of 512 bytes.\n2048 8\n8589934592 2048\n"));
    }
}
