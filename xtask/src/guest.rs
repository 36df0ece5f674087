//! A guest that is nothing but an initiator: Debian's kernel and, in its memory, open-iscsi and the
//! programs that try a disk. It has no disk of its own, starts in seconds, and does what it is told on
//! its console.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::cached;
use crate::initramfs::Archive;
use crate::netns::Network;
use crate::program::{command, run};
use crate::qemu::{Accelerator, Machine};

/// What it is made of. fio brings the libraries of every kind of storage there is, which is most of its
/// size.
const PACKAGES: &str = "linux-image-cloud-amd64,open-iscsi,sg3-utils,fio,e2fsprogs,xfsprogs,\
                        util-linux,bash,busybox-static,libc-bin";

/// What it has of the packages; a `*` stands for the rest of a name. busybox does everything else.
const PROGRAMS: &[&str] = &[
    "bin/bash",
    "bin/busybox",
    "bin/dmesg",
    "bin/lsblk",
    "sbin/blkid",
    "sbin/blockdev",
    "sbin/e2fsck",
    "sbin/fstrim",
    "sbin/iscsiadm",
    "sbin/iscsid",
    "sbin/mke2fs",
    "sbin/mkfs.xfs",
    "sbin/xfs_repair",
    "usr/bin/fio",
    "usr/bin/sg_*",
];

/// Their settings.
const SETTINGS: &[&str] = &["etc/iscsi/iscsid.conf", "etc/mke2fs.conf"];

/// What the kernel is not made with; what they need comes with them.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_net",
    "crc32c_generic",
    "sd_mod",
    "sg",
    "iscsi_tcp",
    "xfs",
];

/// What its console says when it has started.
pub const STARTED: &str = "@0=0";

/// What the guest calls itself.
pub const INITIATOR: &str = "iqn.2026-01.edu.example:guest";

/// Its emulated processors may be away for a while on a busy host, which is no stall of its own.
const KERNEL_LINE: &str = "console=ttyS0,115200n8 loglevel=3 no_timer_check panic=-1 \
                           rcupdate.rcu_cpu_stall_suppress=1 nowatchdog";

const INIT: &str = include_str!("../lab/guest/init");

/// Under software emulation on a busy host; it takes some 15 s.
const START_LIMIT: Duration = Duration::from_secs(300);
/// Longer than the guest itself gives a step.
const STEP_LIMIT: Duration = Duration::from_secs(330);

/// A guest that runs.
#[derive(Debug)]
pub struct Guest {
    machine: Machine,
    steps: AtomicU32,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The exit status of its script.
    pub status: i32,
    /// All that was printed, standard error as well.
    pub said: String,
}

/// Kernel and initramfs of a guest, which says `@0=0` on its serial line when it is up. Both are fetched
/// and packed if they are not there yet.
///
/// # Errors
/// When they cannot be had.
pub fn files() -> Result<(PathBuf, PathBuf)> {
    let made = made()?;
    Ok((made.join("vmlinuz"), made.join("initramfs.img")))
}

impl Guest {
    /// Switches one on, with these addresses (`192.0.2.50/24`) in the laboratory's network, and waits until it takes steps.
    /// Kernel and programs are fetched and packed if they are not there yet.
    ///
    /// # Errors
    /// When they cannot be had, or QEMU or the guest does not start.
    pub fn start(network: &Network, mac: &str, addresses: &[&str], log: &Path) -> Result<Self> {
        let made = made()?;
        let kernel = made.join("vmlinuz");
        let accelerator = Accelerator::find(&kernel);
        let mut append = KERNEL_LINE.to_owned();
        for address in addresses {
            append += &format!(" lab.address={address}");
        }
        let initramfs = made.join("initramfs.img");
        let machine = Machine::start_kernel(
            network,
            mac,
            accelerator,
            (&kernel, &initramfs, &append),
            log,
        )?;
        machine.serial().wait_for("@0=", 0, START_LIMIT)?;
        let lines = machine.serial().lines(0);
        if let Some(line) = lines.iter().find(|line| line.contains("@0|")) {
            bail!("the guest has started, but not wholly: {line}");
        }
        Ok(Self {
            machine,
            steps: AtomicU32::new(0),
        })
    }

    /// Its kernel and initramfs, for who boots it by other ways. They are fetched and packed if they are
    /// not there yet.
    ///
    /// # Errors
    /// When they cannot be had.
    pub fn boot_files() -> Result<(PathBuf, PathBuf)> {
        let made = made()?;
        Ok((made.join("vmlinuz"), made.join("initramfs.img")))
    }

    /// Has bash run a script (`-eu -o pipefail`) to its end.
    ///
    /// # Errors
    /// When the guest does not answer any more.
    pub fn attempt(&self, script: &str) -> Result<Outcome> {
        let step = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        let serial = self.machine.serial();
        let position = serial.position();
        serial.type_line(&format!("{step} {}", BASE64_STANDARD.encode(script)))?;
        let end = format!("@{step}=");
        let line = serial
            .wait_for(&end, position, STEP_LIMIT)
            .with_context(|| format!("the guest was to do: {script}"))?;
        let status = line.text.rsplit('=').next().unwrap_or_default();
        let prefix = format!("@{step}|");
        // The kernel may have begun a line that the step's went on with.
        let said = serial
            .lines(position)
            .iter()
            .filter_map(|line| line.split_once(&prefix))
            .map(|(_, said)| format!("{said}\n"))
            .collect();
        Ok(Outcome {
            status: status
                .parse()
                .with_context(|| format!("the guest's status is no number: {status}"))?,
            said,
        })
    }

    /// Has bash run a script, and gives what it printed.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn run(&self, script: &str) -> Result<String> {
        let Outcome { status, said } = self.attempt(script)?;
        if status != 0 {
            bail!("in the guest, with status {status}: {script}\n{said}");
        }
        Ok(said)
    }

    /// Pulls the plug.
    pub fn pull_the_plug(self) {
        self.machine.pull_the_plug();
    }
}

/// The directory with the guest's kernel and initramfs (`vmlinuz`, `initramfs.img`), made if it is not
/// there. What the host's package lists change is not followed; `cargo clean` is for that.
///
/// # Errors
/// When its packages cannot be had.
pub fn made() -> Result<PathBuf> {
    let lists = [PROGRAMS, SETTINGS, MODULES].concat();
    let inputs = cached::hash_of_texts([INIT, PACKAGES].into_iter().chain(lists));
    cached::made("guest", &inputs, make)
}

fn make(draft: &Path) -> Result<()> {
    eprintln!("making the guest of Debian's packages (a minute)");
    let tree = draft.join("tree");
    let mut fetch = command(
        "mmdebstrap",
        ["--quiet", "--mode=root", "--variant=extract"],
    );
    fetch.env("LC_ALL", "C.UTF-8");
    fetch.arg(format!("--include={PACKAGES}")).arg("bookworm");
    run(fetch.arg(&tree)).context("fetching the guest's packages")?;
    pack(&tree, draft)?;
    fs::remove_dir_all(&tree).context("removing the unpacked packages")
}

/// Makes kernel and initramfs of the unpacked packages in `tree`.
fn pack(tree: &Path, to: &Path) -> Result<()> {
    let release = only(&tree.join("lib/modules"))?;
    let kernel = tree.join(format!("boot/vmlinuz-{release}"));
    fs::copy(&kernel, to.join("vmlinuz"))
        .with_context(|| format!("copying {}", kernel.display()))?;
    let programs = programs(tree)?;
    let modules = modules(tree, &release)?;
    let files: BTreeSet<String> = libraries(tree, &programs)?
        .into_iter()
        .chain(programs)
        .chain(modules.iter().cloned())
        .chain(SETTINGS.iter().map(|&name| name.to_owned()))
        .collect();

    let mut archive = Archive::default();
    let directories: BTreeSet<&Path> = files
        .iter()
        .flat_map(|name| Path::new(name).ancestors().skip(1))
        .filter(|name| *name != Path::new(""))
        .collect();
    for directory in directories {
        archive.directory(&directory.to_string_lossy());
    }
    for name in &files {
        let path = tree.join(name);
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        archive.file(name, 0o755, &text);
    }
    let order: String = modules
        .iter()
        .filter_map(|name| name.strip_prefix("lib/modules/"))
        .map(|name| format!("{name}\n"))
        .collect();
    archive.file("lib/modules/order", 0o644, order.as_bytes());
    archive.link("bin/sh", "bash");
    archive.file("init", 0o755, INIT.as_bytes());
    // Not compressed: an emulated processor would take longer to unpack it than QEMU takes to load it.
    fs::write(to.join("initramfs.img"), archive.finish()).context("writing the guest's initramfs")
}

/// The name of the only thing in a directory.
fn only(directory: &Path) -> Result<String> {
    let names: Vec<_> = fs::read_dir(directory)
        .and_then(Iterator::collect::<Result<_, _>>)
        .with_context(|| format!("reading {}", directory.display()))?;
    match names.as_slice() {
        [one] => Ok(one.file_name().to_string_lossy().into_owned()),
        _ => bail!(
            "{} holds {} kernels, not one",
            directory.display(),
            names.len()
        ),
    }
}

/// The names that [`PROGRAMS`] stands for.
fn programs(tree: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for wanted in PROGRAMS {
        let Some(beginning) = wanted.strip_suffix('*') else {
            found.push((*wanted).to_owned());
            continue;
        };
        let (directory, beginning) = beginning.rsplit_once('/').unwrap_or(("", beginning));
        for entry in fs::read_dir(tree.join(directory))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with(beginning) {
                found.push(format!("{directory}/{name}"));
            }
        }
    }
    Ok(found)
}

/// The libraries that programs are linked with, by the tree's own dynamic linker.
fn libraries(tree: &Path, programs: &[String]) -> Result<BTreeSet<String>> {
    let mut libraries = BTreeSet::new();
    for program in programs {
        // It fails for scripts and static programs, which need none.
        let mut ldd = command("chroot", [tree]);
        ldd.args(["bash", "/usr/bin/ldd"])
            .arg(format!("/{program}"));
        libraries.extend(linked(&run(&mut ldd).unwrap_or_default()));
    }
    if libraries.is_empty() {
        bail!("ldd finds no library in {}", tree.display());
    }
    Ok(libraries)
}

/// The paths in what ldd prints: `libc.so.6 => /lib/…/libc.so.6 (0x…)` and `/lib64/ld-… (0x…)`.
fn linked(ldd: &str) -> Vec<String> {
    let words = ldd.split_whitespace();
    let paths = words.filter_map(|word| word.strip_prefix('/'));
    paths.map(str::to_owned).collect()
}

/// The files of [`MODULES`] and of what they need, in the order in which they load.
fn modules(tree: &Path, release: &str) -> Result<Vec<String>> {
    run(command("depmod", ["-b"]).arg(tree).arg(release)).context("listing the guest's modules")?;
    let mut files: Vec<String> = Vec::new();
    for module in MODULES {
        let mut show = command("modprobe", ["--show-depends", "--set-version", release]);
        let shown = run(show.arg("--dirname").arg(tree).arg(module))?;
        for line in shown.lines() {
            // `insmod PATH`, or `builtin NAME`.
            let Some(path) = line.trim().strip_prefix("insmod ") else {
                continue;
            };
            let path = Path::new(path.split(' ').next().unwrap_or(path));
            let name = path
                .strip_prefix(tree)
                .with_context(|| format!("a module outside of the tree: {line}"))?
                .to_string_lossy()
                .into_owned();
            if !files.contains(&name) {
                files.push(name);
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldds_paths_are_taken() {
        let text = "\tlinux-vdso.so.1 (0x00007ffc)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = [
            "lib/x86_64-linux-gnu/libc.so.6",
            "lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(linked(text), expected);
    }
}
