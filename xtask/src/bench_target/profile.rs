//! Where a server's processor time goes: what perf(1) finds in it during a slice.
//!
//! Where perf cannot count, nobody else is asked: valgrind sees the server's own code only, and most of the
//! time is the kernel's.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::program::{Background, command, exists, run};

/// How often a second it is looked what the server does.
const LOOKS: &str = "997";
/// How long perf gets to begin, and to write down what it has found.
const PATIENCE: Duration = Duration::from_secs(20);
/// Looks below which parts are worth nothing.
const LEAST: usize = 50;

/// Where a server's processor time goes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Profile {
    /// The parts of it, the largest first.
    Parts(Vec<(Part, f64)>),
    /// Nobody knows, and why.
    Unknown(String),
}

/// What it is spent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// The server's own code.
    Own,
    /// Memory that is asked for and given back.
    Allocation,
    /// Bytes that are moved, in the kernel or outside.
    Copying,
    /// TCP, IP and loopback.
    Network,
    /// File systems and the page cache.
    Files,
    /// To sleep and to wake others.
    Waking,
    /// The way into the kernel and out of it.
    Calls,
    /// All else.
    Others,
}

impl Part {
    pub(super) fn name(self) -> &'static str {
        match self {
            Part::Own => "its own code",
            Part::Allocation => "allocation",
            Part::Copying => "copying",
            Part::Network => "network",
            Part::Files => "files",
            Part::Waking => "sleeping and waking",
            Part::Calls => "system calls",
            Part::Others => "others",
        }
    }

    /// What a symbol is part of, by the object that it is in.
    fn of(program: &str, object: &str, symbol: &str) -> Part {
        let is_one = |beginnings: &[&str]| {
            let bare = symbol.trim_start_matches('_');
            beginnings.iter().any(|one| bare.starts_with(one))
        };
        if is_one(COPYING) {
            return Part::Copying;
        }
        if object != "[kernel.kallsyms]" {
            return match () {
                () if object.starts_with("libc") && is_one(ALLOCATION) => Part::Allocation,
                () if object == program => Part::Own,
                () if object.starts_with("libc") => Part::Calls,
                () => Part::Others,
            };
        }
        let parts = [
            (Part::Network, NETWORK),
            (Part::Waking, WAKING),
            (Part::Files, FILES),
            (Part::Calls, CALLS),
        ];
        let part = parts.into_iter().find(|(_, beginnings)| is_one(beginnings));
        part.map_or(Part::Others, |(part, _)| part)
    }
}

// How functions begin, but for underscores; those of libc and of Linux 6.
const COPYING: &[&str] = &[
    "copy_",
    "memcpy",
    "memmove",
    "memset",
    "rep_movs",
    "clear_page",
    "skb_copy",
    "csum_",
    "crc32",
];
const ALLOCATION: &[&str] = &[
    "int_malloc",
    "int_free",
    "malloc",
    "free",
    "calloc",
    "realloc",
    "cfree",
    "unlink_chunk",
    "tcache",
];
const NETWORK: &[&str] = &[
    "tcp_",
    "ip_",
    "ip6",
    "inet",
    "sk_",
    "skb_",
    "sock_",
    "net_",
    "netif",
    "napi",
    "dev_",
    "loopback",
    "process_backlog",
    "alloc_skb",
    "kfree_skb",
    "build_skb",
    "consume_skb",
    "nf_",
    "eth_",
    "ipv4",
    "ipv6",
    "lock_sock",
    "release_sock",
    "bpf_",
    "splice",
    "sendmsg",
    "recvmsg",
    "import_iovec",
];
const WAKING: &[&str] = &[
    "schedule",
    "sched_",
    "finish_task",
    "try_to_wake",
    "ttwu",
    "futex",
    "do_futex",
    "ep_",
    "epoll",
    "do_epoll",
    "eventfd",
    "pick_",
    "enqueue_",
    "dequeue_",
    "update_",
    "select_task",
    "switch_",
    "raw_spin_unlock_irq",
    "hrtimer",
    "wake_",
    "prepare_task",
    "put_prev",
    "set_next",
    "native_send_call",
    "psi_",
    "available_idle",
    "rseq",
];
const FILES: &[&str] = &[
    "ext4_",
    "xfs_",
    "iomap_",
    "filemap_",
    "folio_",
    "xas_",
    "generic_",
    "block_",
    "vfs_",
    "mark_",
    "jbd2",
    "balance_dirty",
    "create_empty_buffers",
    "down_",
    "up_",
    "find_get",
    "alloc_pages",
    "alloc_frozen",
    "get_page",
    "free_unref",
    "rw_verify",
    "file_",
    "touch_",
    "workingset",
    "lru_",
    "mod_",
    "percpu_counter",
    "pagecache",
];
const CALLS: &[&str] = &[
    "entry_",
    "do_syscall",
    "syscall",
    "x64_sys",
    "x64_call",
    "exit_to_user",
    "fdget",
    "fget",
    "fput",
    "irqentry",
    "do_pwritev",
    "do_preadv",
    "import_",
    "audit",
    "seccomp",
    "get_user",
    "put_user",
    "check_",
];

/// Does `work`, and looks meanwhile where the time of this process goes.
///
/// # Errors
/// When the work fails, or perf reports what nobody can read.
pub(super) fn during(pid: Pid, dir: &Path, work: impl FnOnce() -> Result<()>) -> Result<Profile> {
    if !exists("perf") {
        work()?;
        let missing = "there is no perf: apt-get install linux-perf";
        return Ok(Profile::Unknown(missing.to_owned()));
    }
    let found = dir.join("perf.data");
    let out = found.to_string_lossy();
    let pid_text = pid.to_string();
    // With --quiet it would not say why it cannot.
    let look = ["record", "-F", LOOKS, "-p", &pid_text, "-o", &out];
    let said = dir.join("perf.log");
    let log = File::create(&said).with_context(|| format!("creating {}", said.display()))?;
    let mut perf = Background::start(command("perf", look).stdout(Stdio::null()).stderr(log))?;
    // It is there before the work is half done; what comes before it looks is like what comes after.
    let done = work();
    // One that may not count has gone by itself.
    let counts = perf.is_running();
    if counts {
        perf.signal(Signal::SIGINT)?;
    }
    perf.wait(PATIENCE)?;
    done?;
    if !counts {
        let said = fs::read_to_string(&said)?;
        let why = complaint(&said);
        return Ok(Profile::Unknown(format!("perf cannot count: {why}")));
    }
    let report = [
        "report",
        "--stdio",
        "-i",
        &out,
        "--no-children",
        "-g",
        "none",
        "-F",
        "sample,dso,sym",
        "-t",
        "\t",
    ];
    let told = match run(command("perf", report).stderr(Stdio::null())) {
        Ok(told) => told,
        Err(error) => return Ok(Profile::Unknown(format!("{error:#}"))),
    };
    let program = fs::read_link(format!("/proc/{pid}/exe"))?;
    let program = program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    parts(&program, &told)
}

/// What a program that failed has said, without its advice.
fn complaint(said: &str) -> &str {
    let mut lines = said.lines().map(str::trim);
    let is_one = |line: &&str| !["", "Error:"].contains(line);
    lines.find(is_one).unwrap_or("it does not say why")
}

/// The parts that a report of perf's tells.
fn parts(program: &str, report: &str) -> Result<Profile> {
    let mut all = std::collections::BTreeMap::<Part, usize>::new();
    for line in report.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split('\t').map(str::trim);
        let (samples, object, symbol) = (words.next(), words.next(), words.next());
        let samples = samples.and_then(|samples| samples.parse::<usize>().ok());
        let (Some(samples), Some(object), Some(symbol)) = (samples, object, symbol) else {
            ensure!(false, "perf reports something else than it did: {line}");
            continue;
        };
        let symbol = symbol.split_once("] ").map_or(symbol, |(_, name)| name);
        *all.entry(Part::of(program, object, symbol)).or_default() += samples;
    }
    let sum: usize = all.values().sum();
    if sum < LEAST {
        return Ok(Profile::Unknown(format!(
            "perf found it at work {sum} times only"
        )));
    }
    let mut parts: Vec<_> = all
        .into_iter()
        .map(|(part, samples)| (part, samples as f64 / sum as f64))
        .collect();
    parts.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    Ok(Profile::Parts(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_taken_apart() {
        let report = "# Samples: 100\n#\n\
                      40\t[kernel.kallsyms]\t[k] __tcp_transmit_skb\n\
                      20\tnetroot\t[.] netroot::iscsi::frame::Decoder::next\n\
                      10\tlibc.so.6\t[.] _int_malloc\n\
                      10\t[kernel.kallsyms]\t[k] ext4_block_write_begin\n\
                      10\t[kernel.kallsyms]\t[k] finish_task_switch.isra.0\n\
                      5\tlibc.so.6\t[.] __memmove_avx512_unaligned_erms\n\
                      5\t[kernel.kallsyms]\t[k] strange\n";
        let Profile::Parts(found) = parts("netroot", report).unwrap() else {
            panic!("nobody knows");
        };
        let part = |wanted| found.iter().find(|(part, _)| *part == wanted).unwrap().1;
        assert_eq!(found[0], (Part::Network, 0.4));
        assert_eq!(part(Part::Own), 0.2);
        assert_eq!(part(Part::Allocation), 0.1);
        assert_eq!(part(Part::Files), 0.1);
        assert_eq!(part(Part::Waking), 0.1);
        assert_eq!(part(Part::Copying), 0.05);
        assert_eq!(part(Part::Others), 0.05);
        let said = "Error:\nAccess to performance monitoring is limited.\nConsider\n";
        assert_eq!(
            complaint(said),
            "Access to performance monitoring is limited."
        );
        let few = parts("netroot", "3\tnetroot\t[.] main\n").unwrap();
        let why = "perf found it at work 3 times only";
        assert_eq!(few, Profile::Unknown(why.to_owned()));
        assert!(parts("netroot", "else\n").is_err());
    }
}
