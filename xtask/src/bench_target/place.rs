//! Where it all happens: a network and file systems that nobody else has a hand in.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::pattern::write_disk;
use crate::lab_dir;
use crate::mounts::mount_privately;
use crate::program::{command, run};

/// Bytes of the disks.
pub(super) const SIZE: u64 = 1 << 30;

/// Of the file systems, which take only what is written.
const ROOM: u64 = 20 << 30;

/// Descriptors: a thousand sessions, and as many in a target.
const DESCRIPTORS: u64 = 8192;

/// Which congestion control is Debian's default. Others pace what goes over loopback, and then all
/// targets are as slow as that.
const CONGESTION: &str = "cubic";

/// A file system with a disk on it.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) dir: PathBuf,
    /// The disk that all others are copies of.
    pub(super) disk: PathBuf,
}

/// A directory for one run.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    mounts: Vec<PathBuf>,
    _lock: Flock<File>,
}

impl Place {
    /// Goes to a network namespace of its own, with a loopback interface that is used by nobody else.
    /// What this thread starts is there, too.
    ///
    /// # Errors
    /// When this is not root.
    pub(super) fn enter() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context("a network of its own (this needs root)")?;
        run(&mut command("ip", ["link", "set", "lo", "up"]))?;
        for addresses in ["127.0.0.0/8", "127.0.0.1"] {
            let route = [
                "route", "replace", "local", addresses, "dev", "lo", "table", "local",
            ];
            let kernels = ["proto", "kernel", "scope", "host", "src", "127.0.0.1"];
            let paced = ["congctl", CONGESTION];
            // Where it is not there, the system's own stays, which the report tells.
            let _ = run(&mut command("ip", [&route[..], &kernels, &paced].concat()));
        }
        let limit = getrlimit(Resource::Nofile);
        let enough = |now: Option<u64>| now.map(|now| now.max(DESCRIPTORS));
        let wanted = Rlimit {
            current: enough(limit.current),
            maximum: enough(limit.maximum),
        };
        setrlimit(Resource::Nofile, wanted).context("raising the number of open files")?;
        fs::create_dir_all(lab_dir())?;
        let lock = File::create(lab_dir().join("bench-target.lock"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| errno)
            .context("two measurements at once would measure each other")?;
        let dir = lab_dir().join("bench-target");
        if dir.exists() {
            fs::remove_dir_all(&dir).context("removing what a killed run left")?;
        }
        fs::create_dir(&dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(Place {
            dir,
            mounts: Vec::new(),
            _lock: lock,
        })
    }

    /// A new file system of the kind `mkfs` makes, with a disk on it.
    ///
    /// # Errors
    /// When a program fails, or the room is not there.
    pub(super) fn ground(&mut self, kind: Kind) -> Result<Ground> {
        let (name, mkfs, arguments) = match kind {
            Kind::Xfs => ("xfs", "mkfs.xfs", &["-q", "-m", "reflink=1"][..]),
            // Nothing is left to be done in the background while somebody measures.
            Kind::Ext4 => (
                "ext4",
                "mkfs.ext4",
                &["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"][..],
            ),
        };
        let image = self.dir.join(format!("{name}.img"));
        let dir = self.dir.join(name);
        File::create(&image)
            .and_then(|file| file.set_len(ROOM))
            .with_context(|| format!("creating {}", image.display()))?;
        run(command(mkfs, arguments).arg(&image))?;
        mount_privately("loop", &image, &dir)?;
        self.mounts.push(dir.clone());
        let disk = dir.join("disk.raw");
        write_disk(&disk, SIZE)?;
        Ok(Ground { dir, disk })
    }
}

impl Place {
    /// A folder of its own.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let all = self
            .mounts
            .iter()
            .map(|mount| run(&mut command("umount", [mount])));
        let errors: Vec<_> = all.filter_map(Result::err).collect();
        let removed = if errors.is_empty() {
            fs::remove_dir_all(&self.dir).map_err(Into::into)
        } else {
            Ok(())
        };
        for error in errors.into_iter().chain(removed.err()) {
            eprintln!("{} stays until the next run: {error:#}", self.dir.display());
        }
    }
}

/// A kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Files can share blocks: clones are reflinks.
    Xfs,
    /// They cannot: clones are overlays.
    Ext4,
}

/// How connections are paced that a server here has accepted and left as they are.
///
/// # Errors
/// When there is no loopback.
pub(super) fn congestion() -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let _near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    Ok(rustix::net::sockopt::tcp_congestion(&far)?)
}

/// A port that nobody listens on now.
///
/// # Errors
/// When there is none.
pub(super) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a port")?;
    Ok(listener.local_addr()?.port())
}

/// Reads the data of a file, so that they are in the page cache. A hole has none: what an overlay does not
/// hold, its server never reads there.
///
/// # Errors
/// When it cannot be read.
pub(super) fn warm(path: &Path) -> Result<()> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut at = 0;
    while let Some(data) = next(&file, rustix::fs::SeekFrom::Data(at))? {
        at = next(&file, rustix::fs::SeekFrom::Hole(data))?.unwrap_or(data);
        file.seek(SeekFrom::Start(data))?;
        std::io::copy(&mut (&file).take(at - data), &mut std::io::sink())?;
    }
    Ok(())
}

/// Where data or a hole begin next; nothing behind the last (lseek(2)).
fn next(file: &File, from: rustix::fs::SeekFrom) -> Result<Option<u64>> {
    match rustix::fs::seek(file, from) {
        Ok(at) => Ok(Some(at)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error).context("looking for the data of a file"),
    }
}

/// Has the system forget what it holds of a file in the page cache.
///
/// # Errors
/// When the file cannot be synced.
pub(super) fn cool(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    file.sync_all()?;
    rustix::fs::fadvise(file.as_fd(), 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

/// Bytes of these files in the page cache, as fincore(1) tells them.
///
/// # Errors
/// When it fails.
pub(super) fn cached(files: &[PathBuf]) -> Result<u64> {
    let mut fincore = command("fincore", ["--bytes", "--noheadings", "--output", "RES"]);
    let told = run(fincore.args(files))?;
    let sum = told.split_whitespace().map(str::parse::<u64>);
    sum.sum::<Result<u64, _>>()
        .context("reading what fincore told")
}
