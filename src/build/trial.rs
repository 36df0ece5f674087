//! A version boots in QEMU before people get it.
//!
//! The machine is given kernel, initramfs and kernel line, and finds its disk over QEMU's user network:
//! neither root nor a bridge is needed. Whoever serves that disk stands above this floor. An image may be
//! anybody's, so the network ends there (`restrict`): the one address that the machine reaches beside
//! QEMU's own DHCP leads to that disk, by a program that QEMU starts for each connection. (Without a
//! program QEMU forwards one connection only, and an initiator makes several.)

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use super::watch::Watch;
use crate::exec::{self, Cancel, Line, Program, find_program};
use crate::library::manifest::BootFrom;
use crate::library::{Actor, Trial, Version};

/// Where a machine finds its disk behind QEMU's user network.
pub const TRIAL_HOST: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 0, 2, 100);

/// How long a boot may take: software emulation on a busy host needs minutes.
pub const TRIAL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// A kernel that says nothing for so long does not run: some hosts have a /dev/kvm with which no stock
/// kernel starts. On others QEMU itself ends there.
const SILENCE: Duration = Duration::from_secs(20);

/// How often somebody looks at the clock.
const LOOK: Duration = Duration::from_millis(200);

/// Lines of the console that tell why a boot failed.
const LAST: usize = 25;
/// So much of a line is kept: a console may write anything.
const WIDTH: usize = 300;

/// Memory of the machine, in MiB. What it writes stays there, too.
const MEMORY: u32 = 2048;

/// The serial port of the machine: a PC has a 16550, QEMU's board for ARM a PL011.
const CONSOLE: &str = match cfg!(target_arch = "aarch64") {
    true => "console=ttyAMA0,115200n8",
    false => "console=ttyS0,115200n8",
};

/// What a version needs on its kernel line so that its console tells how far it is. What goes wrong ends
/// the machine instead of waiting for somebody (dracut.cmdline(7), kernel-parameters).
pub const SPEAKS: [&str; 7] = [
    CONSOLE,
    "loglevel=6",
    "systemd.show_status=1",
    "panic=5",
    "no_timer_check",
    "rd.shell=0",
    "rd.emergency=reboot",
];

/// A machine that tries a version.
#[derive(Debug, Clone)]
pub struct TrialMachine {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initramfs: PathBuf,
    /// The kernel line.
    pub append: String,
    /// The port of [`TRIAL_HOST`] where it finds its disk.
    pub port: u16,
    /// What is run for each connection to that, words without a shell; its standard input is the
    /// connection.
    pub relay: Vec<String>,
}

impl TrialMachine {
    /// QEMU's user network for it (qemu(1), `-netdev user`).
    fn network(&self) -> String {
        // QEMU takes the command apart as a shell would, after a comma has ended the option.
        let quoted = |word: &String| format!("'{}'", word.replace('\'', r"'\''"));
        let relay: Vec<String> = self.relay.iter().map(quoted).collect();
        let relay = relay.join(" ").replace(',', ",,");
        let port = self.port;
        format!("user,id=net,ipv6=off,restrict=on,guestfwd=tcp:{TRIAL_HOST}:{port}-cmd:{relay}")
    }
}

/// How a boot came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// How long it took.
    pub took: Duration,
    /// Why it failed; nothing if the system came up.
    pub failed: Option<String>,
    /// The last lines of the console.
    pub console: Vec<String>,
}

/// What emulates the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accelerator {
    Kvm,
    Tcg,
}

/// Boots the machine until its system is up, it ends, or `limit` is over. `is_there` tells whether it
/// has logged in to its disk.
///
/// # Errors
/// When QEMU is missing or cannot run, or somebody stopped it. That the version does not boot is no
/// error.
pub fn boot_once(
    machine: &TrialMachine,
    limit: Duration,
    is_there: &(dyn Fn() -> bool + Sync),
    cancel: &Cancel,
    watch: &dyn Watch,
) -> Result<Tried> {
    let qemu = qemu()?;
    let began = Instant::now();
    if kvm_is_there() {
        watch.step("booting it (KVM)", None);
        let run = Run::new(watch, began + limit, Some(began + SILENCE));
        let ended = run.on(&program(&qemu, machine, Accelerator::Kvm), is_there, cancel)?;
        if ended.has_begun {
            return Ok(ended.tried(began, limit, is_there()));
        }
        watch.line("KVM is there, and the kernel says nothing under it: trying without");
    }
    watch.step("booting it (software emulation, which takes minutes)", None);
    let run = Run::new(watch, began + limit, None);
    let mut ended = run.on(&program(&qemu, machine, Accelerator::Tcg), is_there, cancel)?;
    // That says nothing about the version.
    if let (false, Some(error)) = (ended.has_begun, ended.error.take()) {
        return Err(error).context("starting a machine to test the image in");
    }
    Ok(ended.tried(began, limit, is_there()))
}

/// QEMU for this host's own kind of processor.
fn qemu() -> Result<PathBuf> {
    let arch = std::env::consts::ARCH;
    let name = format!("qemu-system-{arch}");
    find_program(&name).with_context(|| {
        let package = if arch == "x86_64" { "x86" } else { "arm" };
        format!(
            "testing an image needs {name}, which is not installed: apt-get install \
             qemu-system-{package}, or dnf install qemu-system-{package}"
        )
    })
}

fn kvm_is_there() -> bool {
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    opened.is_ok()
}

fn program(qemu: &std::path::Path, machine: &TrialMachine, accelerator: Accelerator) -> Program {
    let (accel, cpu) = match accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        Accelerator::Tcg => ("tcg,thread=multi", "max"),
    };
    let board = match std::env::consts::ARCH {
        "x86_64" => "pc",
        _ => "virt",
    };
    Program::new(qemu)
        .args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio", "-sandbox", "on"])
        .args(["-machine", board, "-accel", accel, "-cpu", cpu, "-smp", "2"])
        .args(["-m".to_owned(), MEMORY.to_string()])
        .args(["-netdev".to_owned(), machine.network()])
        .args(["-device", "virtio-net-pci,netdev=net,romfile="])
        .args(["-device", "virtio-rng-pci"])
        .arg("-kernel")
        .arg(&machine.kernel)
        .arg("-initrd")
        .arg(&machine.initramfs)
        .args(["-append".to_owned(), machine.append.clone()])
        .shown_as(format!("{} (test of an image)", qemu.display()))
}

/// One machine from power-on to its end.
struct Run<'a> {
    watch: &'a dyn Watch,
    deadline: Instant,
    /// By then its kernel must have said something.
    speaks_by: Option<Instant>,
    has_begun: bool,
    console: VecDeque<String>,
    /// A line that has no end yet.
    begun: Option<String>,
    is_up: bool,
    was_attached: bool,
}

/// How a machine ended.
struct Ended {
    console: Vec<String>,
    is_up: bool,
    /// Its kernel has said something.
    has_begun: bool,
    was_cut_off: bool,
    /// What QEMU ended with, where nobody ended it.
    error: Option<exec::Error>,
}

impl<'a> Run<'a> {
    fn new(watch: &'a dyn Watch, deadline: Instant, speaks_by: Option<Instant>) -> Self {
        Run {
            watch,
            deadline,
            speaks_by,
            has_begun: false,
            console: VecDeque::new(),
            begun: None,
            is_up: false,
            was_attached: false,
        }
    }

    fn on(
        mut self,
        program: &Program,
        is_there: &(dyn Fn() -> bool + Sync),
        cancel: &Cancel,
    ) -> Result<Ended> {
        let stop = Cancel::new();
        let program = program.clone().cancel(&stop);
        let (spoke, speaks) = mpsc::channel::<()>();
        let (over, is_over) = mpsc::channel::<()>();
        let (deadline, speaks_by) = (self.deadline, self.speaks_by);
        let ended = thread::scope(|scope| {
            let stop = &stop;
            scope.spawn(move || {
                let mut has_spoken = false;
                // Ends at once when the machine does: the other end is dropped then.
                while is_over.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
                    has_spoken |= speaks.try_recv().is_ok();
                    let now = Instant::now();
                    let is_silent = !has_spoken && speaks_by.is_some_and(|by| now >= by);
                    if cancel.is_cancelled() || now >= deadline || is_silent {
                        stop.cancel();
                    }
                }
            });
            let ended = program.stream_prompts(&mut |line| {
                self.hear(line, is_there);
                if self.has_begun {
                    // Nobody listens any more where the machine is being ended.
                    let _ = spoke.send(());
                }
                if self.is_up {
                    stop.cancel();
                }
            });
            drop(over);
            ended
        });
        cancel.check()?;
        if let Some(begun) = self.begun.take() {
            self.keep(begun);
        }
        let was_cut_off = stop.is_cancelled();
        Ok(Ended {
            console: self.console.into(),
            is_up: self.is_up,
            has_begun: self.has_begun,
            was_cut_off,
            error: ended.err().filter(|_| !was_cut_off),
        })
    }

    fn hear(&mut self, line: Line, is_there: &(dyn Fn() -> bool + Sync)) {
        let is_begun = matches!(line, Line::Begun(_));
        let text = plain(&line.text());
        self.begun = None;
        if text.is_empty() {
            return;
        }
        if !self.was_attached && is_there() {
            self.was_attached = true;
            self.watch
                .step("it has logged in to its disk; waiting for its system", None);
        }
        // QEMU itself may have something to say, too.
        self.has_begun |= text.contains("Linux");
        self.is_up |= is_up(&text) && is_there();
        if is_begun {
            self.begun = Some(text);
        } else {
            self.watch.line(&text);
            self.keep(text);
        }
    }

    fn keep(&mut self, text: String) {
        if self.console.len() == LAST {
            self.console.pop_front();
        }
        self.console.push_back(text);
    }
}

impl Ended {
    fn tried(self, began: Instant, limit: Duration, was_there: bool) -> Tried {
        let disk = match was_there {
            true => "it logged in to its disk, and its system did not come up",
            false => "it never logged in to its disk",
        };
        let failed = match (self.is_up, self.was_cut_off) {
            (true, _) => None,
            (false, true) => Some(format!("within {} min {disk}", limit.as_secs() / 60)),
            (false, false) => Some(format!("it switched itself off or restarted: {disk}")),
        };
        Tried {
            took: began.elapsed(),
            failed,
            console: self.console,
        }
    }
}

/// Whether a line of the console says that people can log in.
fn is_up(line: &str) -> bool {
    let reached = line
        .split_once("Reached target")
        .map(|(_, what)| what.to_lowercase());
    let multi_user = reached.is_some_and(|what| {
        ["multi-user", "graphical"]
            .iter()
            .any(|target| what.contains(target))
    });
    multi_user || is_prompt(line)
}

/// `lab login:`, as getty asks. What the kernel has to say then stands behind that on the same line.
fn is_prompt(line: &str) -> bool {
    let asks = |text: &str| text == "login:" || text.ends_with(" login:");
    let is_stamp = |at: &str| at.contains('.') && at.trim().parse::<f64>().is_ok();
    let with_more = line.split_once(" [").is_some_and(|(before, said)| {
        let stamp = said.split_once(']');
        asks(before) && stamp.is_some_and(|(at, _)| is_stamp(at))
    });
    with_more || asks(line)
}

/// A line as a log shows it: without colours and cursor movements (ECMA-48 §5.4), and not too long.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            if chars.next_if_eq(&'[').is_some() {
                let _ = chars.find(|c| ('@'..='~').contains(c));
            }
        } else if !c.is_control() && text.len() < WIDTH {
            text.push(c);
        }
    }
    text.trim_end().to_owned()
}

/// Refuses what cannot be tried like this.
///
/// # Errors
/// When the version boots from its own disk: its firmware and boot loader are not what is tested here.
pub fn ensure_can_be_tried(version: &Version) -> Result<()> {
    match version.manifest().boot {
        BootFrom::Kernel { .. } => Ok(()),
        BootFrom::Disk(_) => bail!(
            "testing {}: it boots from its own disk, and only versions with a kernel beside the disk can \
             be tested here; assign it to one client and look at that",
            version.id()
        ),
    }
}

/// What is to be written down about a boot that somebody asked for.
pub fn trial_of(version: &Version, tried: &Tried, by: &Actor, at: Timestamp) -> Trial {
    Trial {
        revision: 0,
        version: version.id().clone(),
        root: version.manifest().disk.root.to_string(),
        at,
        took: tried.took.as_secs(),
        by: by.clone(),
        failed: tried.failed.clone(),
        console: match tried.failed {
            Some(_) => tried.console.clone(),
            None => Vec::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::Quiet;

    #[test]
    fn a_system_is_up_when_people_can_log_in() {
        for (line, expected) in [
            ("[  OK  ] Reached target Multi-User System.", true),
            (
                "[  OK  ] Reached target \u{1b}[0;1;39mmulti-user.target\u{1b}[0m - Multi-User System.",
                true,
            ),
            (
                "[  OK  ] Reached target graphical.target - Graphical Interface.",
                true,
            ),
            ("lab login: ", true),
            ("login: ", true),
            ("lab login: [   12.345678] random: crng init done", true),
            ("[   12.3] iscsid: login: [2] failed", false),
            ("iscsi login: failed", false),
            ("Last login: Mon Jan  1", false),
            ("[  OK  ] Reached target initrd-root-fs.target.", false),
            ("[FAILED] Failed to start multi-user.target", false),
        ] {
            assert_eq!(is_up(&plain(line)), expected, "{line}");
        }
    }

    /// A machine that says this on its console; whether it has logged in to its disk; how long it may
    /// take.
    fn run(script: &str, is_there: bool, limit: Duration) -> Ended {
        let program = Program::new("sh").args(["-c", script]);
        let now = Instant::now();
        let run = Run::new(&Quiet, now + limit, Some(now + 2 * LOOK));
        run.on(&program, &|| is_there, &Cancel::new()).unwrap()
    }

    const BEGINS: &str = "echo '[    0.000000] Linux version 6.1.0'";

    #[test]
    fn a_machine_that_says_nothing_of_a_kernel_has_not_begun() {
        let run = |script: &str| run(script, false, SILENCE);
        // As QEMU does where KVM lacks what it wants.
        let aborted = run("echo 'qemu: error: failed to set MSR' >&2; kill -ABRT $$");
        assert!(!aborted.has_begun && aborted.error.is_some());
        let hangs = run("echo 'qemu: warning: no such feature' >&2; sleep 60");
        assert!(!hangs.has_begun && hangs.was_cut_off && hangs.error.is_none());
        let boots = run(&format!("{BEGINS}; sleep 1; exit 1"));
        assert!(boots.has_begun && !boots.was_cut_off && boots.error.is_some());
    }

    #[test]
    fn a_prompt_is_heard_though_its_line_has_no_end() {
        let asks = format!(r"{BEGINS}; printf '\r\nho'; printf 'st login: '; sleep 60");
        let began = Instant::now();
        let up = run(&asks, true, SILENCE).tried(began, SILENCE, true);
        assert_eq!(up.failed, None);
        assert_eq!(up.console.last().unwrap(), "host login:");
        assert!(began.elapsed() < SILENCE);
        // From RAM alone, it has proven nothing.
        assert!(!run(&asks, false, 10 * LOOK).is_up);
    }

    #[test]
    fn a_boot_that_failed_says_how_far_it_came() {
        let why = |ends: &str, is_there, limit| {
            let ended = run(&format!("{BEGINS}; {ends}"), is_there, limit);
            let tried = ended.tried(Instant::now(), TRIAL_LIMIT, is_there);
            (tried.failed.unwrap(), tried.console)
        };
        let asks = "printf 'Give root password for maintenance: '; sleep 60";
        let (late, console) = why(asks, true, 10 * LOOK);
        assert_eq!(
            late,
            "within 15 min it logged in to its disk, and its system did not come up"
        );
        // What it waits for is the reason.
        assert_eq!(
            console.last().unwrap(),
            "Give root password for maintenance:"
        );
        let (late, _) = why("sleep 60", false, 2 * LOOK);
        assert_eq!(late, "within 15 min it never logged in to its disk");
        let (off, _) = why("echo 'reboot: Restarting system'", true, SILENCE);
        assert_eq!(
            off,
            "it switched itself off or restarted: it logged in to its disk, and its system did not come up"
        );
    }

    #[test]
    fn a_machine_reaches_its_disk_and_nothing_else() {
        let machine = TrialMachine {
            kernel: PathBuf::new(),
            initramfs: PathBuf::new(),
            append: String::new(),
            port: 4711,
            relay: ["/opt/it's, here/netroot", "trial-relay", "4711"]
                .map(String::from)
                .into(),
        };
        assert_eq!(
            machine.network(),
            r"user,id=net,ipv6=off,restrict=on,guestfwd=tcp:10.0.2.100:4711-cmd:'/opt/it'\''s,, here/netroot' 'trial-relay' '4711'"
        );
    }

    #[test]
    fn a_console_is_shown_harmlessly() {
        assert_eq!(
            plain("\u{1b}[2J\u{1b}[0;32m  OK \u{1b}[0m\u{7}done \r"),
            "  OK done"
        );
        assert_eq!(plain("\u{1b}["), "");
        assert!(plain(&"x".repeat(5000)).len() <= WIDTH);
    }
}
