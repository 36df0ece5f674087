//! tgt, the user-space target that people use with such systems: Debian's package, told to keep its
//! memory, or its large I/O would be 1.7 times as slow and easy to beat.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::contender::{Contender, INITIATOR, Unit, plain_copy, reflink};
use super::login::Door;
use super::place::{Ground, free_port};
use crate::program::{Background, bound, command, run};

/// Freed memory is not given back to the system with each request.
pub(super) const TUNABLES: &str =
    "glibc.malloc.mmap_threshold=67108864:glibc.malloc.trim_threshold=1073741824";

/// Where its management sockets are, by their numbers.
const SOCKETS: &str = "/var/run/tgtd/socket.";

/// Starts one, with plain files for what netroot has clones of. `sealed` is the file of the version: both
/// serve the same.
///
/// # Errors
/// When it does not start, or files cannot be copied.
pub(super) fn start(
    name: &'static str,
    sealed: &Path,
    xfs: &Ground,
    ext4: Option<&Ground>,
    room: usize,
) -> Result<Contender> {
    let mut tgt = Tgt::start(&xfs.dir.join(format!("{name}.log")))?;
    let file = |ground: &Ground, what: &str| ground.dir.join(format!("{name}-{what}.raw"));
    let mut units = vec![
        (Unit::Sealed, vec![sealed.to_owned()]),
        (
            Unit::Clone,
            vec![plain_copy(&xfs.disk, &file(xfs, "clone"))?],
        ),
        (
            Unit::Volume,
            vec![plain_copy(&xfs.disk, &file(xfs, "volume"))?],
        ),
    ];
    if let Some(ext4) = ext4 {
        let overlay = plain_copy(&ext4.disk, &file(ext4, "overlay"))?;
        units.push((Unit::Overlay, vec![overlay]));
    }
    if room > 0 {
        let clone = |n| reflink(&xfs.disk, &file(xfs, &format!("room-{n}")));
        units.push((Unit::Room, (0..room).map(clone).collect::<Result<_>>()?));
    }
    let mut contender = Contender::new(name);
    let published: Vec<_> = units
        .into_iter()
        .map(|(unit, files)| {
            let doors = files.iter().map(|file| tgt.publish(file));
            Ok((unit, doors.collect::<Result<Vec<_>>>()?, files))
        })
        .collect::<Result<_>>()?;
    contender.leaves(socket(tgt.control, ""));
    contender.leaves(socket(tgt.control, ".lock"));
    let server = contender.add_server(tgt.process);
    for (unit, doors, files) in published {
        contender.add(server, unit, doors, files);
    }
    Ok(contender)
}

/// The management socket of this number, or what lies beside it.
fn socket(control: u16, beside: &str) -> PathBuf {
    PathBuf::from(format!("{SOCKETS}{control}{beside}"))
}

/// A running one.
struct Tgt {
    process: Background,
    control: u16,
    port: u16,
    targets: u32,
}

impl Tgt {
    fn start(log: &Path) -> Result<Self> {
        let port = free_port()?;
        // One that was killed leaves its socket, which the next one takes.
        let taken = |control: &u16| UnixStream::connect(socket(*control, "")).is_ok();
        let control = (100..u16::MAX).find(|control| !taken(control));
        let control = control.context("no management socket of tgt is free")?;
        let portal = format!("portal=127.0.0.1:{port}");
        let control_text = control.to_string();
        let arguments = ["-f", "-C", &control_text, "--iscsi", &portal];
        let mut serve = bound("tgtd", arguments);
        let said = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        serve.stdout(said.try_clone()?).stderr(said);
        let process = Background::start(serve.env("GLIBC_TUNABLES", TUNABLES))?;
        let mut tgt = Tgt {
            process,
            control,
            port,
            targets: 0,
        };
        let began = Instant::now();
        while let Err(error) = tgt.admin(&["--mode", "sys", "--op", "show"]) {
            if !tgt.process.is_running() || began.elapsed() > Duration::from_secs(10) {
                let said = fs::read_to_string(log).unwrap_or_default();
                bail!("tgtd does not start: {error:#}\n{said}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(tgt)
    }

    /// A target with one file, for everybody.
    fn publish(&mut self, file: &Path) -> Result<Door> {
        self.targets += 1;
        let tid = self.targets.to_string();
        let target = format!("iqn.2026-01.example:tgt-{tid}");
        let file = file.to_str().context("the file's path must be UTF-8")?;
        let new = ["--op", "new", "--tid", &tid];
        self.admin(&[&["--mode", "target"], &new[..], &["-T", &target]].concat())?;
        let unit = ["--mode", "logicalunit"];
        self.admin(&[&unit, &new[..], &["--lun", "1", "-b", file]].concat())?;
        self.admin(&[
            "--mode", "target", "--op", "bind", "--tid", &tid, "-I", "ALL",
        ])?;
        // Initiators have them only if they ask, and only if it was told that they may.
        for digest in ["HeaderDigest", "DataDigest"] {
            let may = ["-n", digest, "-v", "CRC32C,None"];
            let update = ["--mode", "target", "--op", "update", "--tid", &tid];
            self.admin(&[&update[..], &may].concat())?;
        }
        Ok(Door {
            portal: ([127, 0, 0, 1], self.port).into(),
            target,
            initiator: INITIATOR.into(),
            lun: 1,
        })
    }

    fn admin(&self, arguments: &[&str]) -> Result<String> {
        let mut admin = command(
            "tgtadm",
            ["-C", &self.control.to_string(), "--lld", "iscsi"],
        );
        run(admin.args(arguments))
    }
}
