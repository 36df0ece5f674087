//! A process that sees one tree of the host, and nothing else of it.
//!
//! A mere chroot is no wall: a root in it leaves by a second chroot, and then stands in the host's
//! files. So the process gets a mount namespace whose root is an empty directory in memory that
//! nobody can write to, with the tree in it; the host's own mounts are taken out of that namespace.
//! It is put into the tree by chroot on top of that, because the kernel makes no user namespace for
//! a process in a chroot.
//!
//! What is left to it: the host's network, because packages come over it, and the capabilities of
//! [`KEPT`]. Without `CAP_DAC_READ_SEARCH` no file is opened by its number, past all paths; without
//! `CAP_NET_RAW` and `CAP_NET_ADMIN` the network is only used.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use landlock::{Ruleset, RulesetAttr, RulesetCreatedAttr, Scope};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{chdir, chroot, pivot_root};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use super::child::{Session, before_exec, filter_calls};
use super::keyring;

/// What package managers and their scripts need, as practice with containers has shown.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// The parts of `/proc` that reach the whole machine: they become read-only.
const MACHINE: &[&std::ffi::CStr] = &[
    c"/proc/sys",
    c"/proc/sysrq-trigger",
    c"/proc/irq",
    c"/proc/bus",
    c"/proc/fs",
    c"/proc/acpi",
    c"/proc/asound",
    c"/proc/scsi",
];

const HARMLESS: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

/// A directory that every Linux has; the new root is mounted there, and moved away at once.
const FOOTHOLD: &str = "/proc";

/// Where the tree is from the new root.
const TREE: &str = "/tree";

/// Stands for the thread that started a process of a jail and must outlive it.
///
/// Dropping it waits until nothing of the jail's mounts is left, so that what is mounted in the tree
/// can be unmounted for good.
#[derive(Debug)]
pub(super) struct Keeper {
    release: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts `command` in the tree at `root`, as the first process of mount, PID, IPC and UTS
/// namespaces of its own.
///
/// A name without a slash is looked for in the tree, by the `PATH` of the command's environment.
/// Everything that it starts ends with it, and it ends with this process.
///
/// # Errors
/// When the kernel refuses one of this, or there is no such program.
pub(super) fn start(
    command: Command,
    root: &Path,
    session: Session,
) -> io::Result<(Child, Keeper)> {
    let root = root.to_owned();
    let (give, take) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .name(String::from("jail"))
        .spawn(move || keep(command, &root, session, &give, &released))?;
    let keeper = Keeper {
        release: Some(release),
        thread: Some(thread),
    };
    let child = take
        .recv()
        .map_err(|_| io::Error::other("the thread that starts it ended"))??;
    Ok((child, keeper))
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.release.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of a jail panicked");
        }
    }
}

/// The life of the thread: it is the one that the kernel ties the process to.
fn keep(
    command: Command,
    root: &Path,
    session: Session,
    give: &Sender<io::Result<Child>>,
    released: &Receiver<()>,
) {
    let mut back = None;
    let started = leave_host(root, &mut back).and_then(|()| spawn(command, session));
    // Whoever asked may have panicked; then there is nobody to answer.
    let _ = give.send(started);
    let _ = released.recv();
    // The end of a thread is noticed before its namespaces are given up. To go back gives them up
    // here and now.
    if let Some(namespace) = back
        && let Err(e) = setns(&namespace, CloneFlags::CLONE_NEWNS)
    {
        tracing::warn!("leaving the mounts of a jail: {e}");
    }
}

/// Gives this thread namespaces in which there is nothing of the host but the tree at `root`.
fn leave_host(root: &Path, back: &mut Option<File>) -> io::Result<()> {
    let home = File::open("/proc/thread-self/ns/mnt")?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS,
    )
    .map_err(about("making namespaces"))?;
    *back = Some(home);
    let size = Some("mode=755,size=64k,nr_inodes=8");
    mount(Some("tmpfs"), FOOTHOLD, Some("tmpfs"), HARMLESS, size)
        .map_err(about("mounting a new root"))?;
    let tree = format!("{FOOTHOLD}{TREE}");
    std::fs::create_dir(&tree)?;
    let whole = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(root), tree.as_str(), None::<&str>, whole, None::<&str>)
        .map_err(about("mounting the tree in the new root"))?;
    chdir(FOOTHOLD)?;
    // Both names at one place: the old root then lies over the new one, and is taken away from there.
    pivot_root(".", ".").map_err(about(
        "changing the root (a host that runs from its initramfs cannot)",
    ))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(about("taking the host's mounts away"))?;
    chdir("/")?;
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | HARMLESS;
    mount(None::<&str>, "/", None::<&str>, read_only, None::<&str>)
        .map_err(about("making the new root read-only"))?;
    lock_sockets()
}

/// Sockets with abstract names belong to the network, not to a file system: without this, a package's
/// script would talk as root to the host's iscsid and multipathd. Linux has it since 6.12; before,
/// they stay within reach.
fn lock_sockets() -> io::Result<()> {
    let scope = Scope::AbstractUnixSocket;
    Ruleset::default()
        .scope(scope)
        .and_then(Ruleset::create)
        .and_then(|rules| rules.no_new_privs(false).restrict_self())
        .map(drop)
        .map_err(io::Error::other)
}

fn spawn(mut command: Command, session: Session) -> io::Result<Child> {
    let parent = pidfd_open(getpid(), PidfdFlags::empty())?;
    let mut filter = keyring::filter();
    before_exec(&mut command, move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the line above; then nobody would send the signal. Its
        // number says nothing in a new PID namespace.
        let mut watched = [PollFd::new(&parent, PollFlags::IN)];
        if poll(&mut watched, Some(&Timespec::default()))? > 0 {
            return Err(Errno::EOWNERDEAD.into());
        }
        session.begin()?;
        chroot(TREE)?;
        chdir("/")?;
        own_proc()?;
        filter_calls(&mut filter)?;
        drop_capabilities()
    });
    command.spawn()
}

/// `/proc` must be mounted by a process of the new PID namespace. Whatever the tree has there is
/// looked up within the tree.
fn own_proc() -> io::Result<()> {
    let none = None::<&std::ffi::CStr>;
    mount(Some(c"proc"), c"/proc", Some(c"proc"), HARMLESS, none)?;
    for part in MACHINE {
        match mount(Some(*part), *part, none, MsFlags::MS_BIND, none) {
            // Which parts there are depends on the machine.
            Err(Errno::ENOENT) => continue,
            done => done?,
        }
        let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | HARMLESS;
        mount(none, *part, none, read_only, none)?;
    }
    Ok(())
}

fn drop_capabilities() -> io::Result<()> {
    clear_ambient_capability_set()?;
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if KEPT.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // One more than this kernel has.
            Err(rustix::io::Errno::INVAL) => break,
            done => done?,
        }
    }
    let sets = CapabilitySets {
        effective: KEPT,
        permitted: KEPT,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

fn about(doing: &'static str) -> impl FnOnce(Errno) -> io::Error {
    move |errno| io::Error::other(format!("{doing}: {}", errno.desc()))
}
