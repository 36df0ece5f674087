//! What is printed: lines for people while it runs, or one document for programs at its end.

use std::fs;

use anyhow::Result;
use serde_json::{Value, json};

use super::Options;
use super::judge::{Outcome, Shown, Spread, Verdict, times};
use super::limits::{Limits, Rate};
use super::measure::{How, Slice};
use super::place::congestion;
use super::profile::Profile;
use super::scenario::Work;
use super::subject::Subject;
use crate::bench::median;

/// What the machine is, and what it could do at best.
#[derive(Debug)]
pub(super) struct Machine {
    processors: usize,
    model: String,
    kernel: String,
    congestion: String,
    limits: Vec<Limits>,
}

impl Machine {
    pub(super) fn new(limits: Vec<Limits>) -> Result<Self> {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let info = text("/proc/cpuinfo");
        let model = info
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        Ok(Machine {
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            model: model
                .unwrap_or("")
                .trim_start_matches([' ', '\t', ':'])
                .to_owned(),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            congestion: congestion()?,
            limits,
        })
    }

    /// A value of all the limits' measurements.
    fn limit(&self, value: impl Fn(&Limits) -> f64) -> f64 {
        median(&self.limits.iter().map(value).collect::<Vec<_>>())
    }

    fn rate(&self, of: impl Fn(&Limits) -> Rate) -> Rate {
        Rate {
            mib_a_second: self.limit(|limits| of(limits).mib_a_second),
            us_a_mib: self.limit(|limits| of(limits).us_a_mib),
        }
    }

    pub(super) fn print(&self) {
        println!(
            "{} x {}, Linux {}",
            self.processors, self.model, self.kernel
        );
        println!("congestion control of loopback: {}", self.congestion);
        let Rate {
            mib_a_second: mib,
            us_a_mib: us,
        } = self.rate(|limits| limits.sendfile);
        println!("\nwhat the machine does without a protocol, in chunks of 256 KiB:");
        println!("{mib:>12.0} MiB/s  {us:>7.1} us/MiB  sendfile over loopback");
        let Rate {
            mib_a_second: mib,
            us_a_mib: us,
        } = self.rate(|limits| limits.pread_send);
        println!("{mib:>12.0} MiB/s  {us:>7.1} us/MiB  pread and send over loopback");
        let mib = self.limit(|limits| limits.memcpy_mib_a_second);
        println!("{mib:>12.0} MiB/s                  memcpy");
        let preads = self.limit(|limits| limits.preads_a_second);
        println!("{preads:>12.0} /s                     pread of 4 KiB, cached");
    }

    fn json(&self) -> Value {
        json!({
            "processors": self.processors,
            "model": self.model,
            "kernel": self.kernel,
            "congestion": self.congestion,
            "limits": {
                "sendfile": rate(&self.rate(|limits| limits.sendfile)),
                "pread_send": rate(&self.rate(|limits| limits.pread_send)),
                "memcpy_mib_a_second": self.limit(|limits| limits.memcpy_mib_a_second),
                "preads_a_second": self.limit(|limits| limits.preads_a_second),
            },
        })
    }
}

/// A scenario, as soon as it is done.
pub(super) fn print(outcome: &Outcome) {
    let scenario = outcome.scenario;
    let unit = scenario.unit.beside_tgt(outcome.ours.name);
    let rounds = match outcome.ours.slices.len() {
        1 => "; one round",
        _ => "",
    };
    println!("\n{}: {} ({unit}{rounds})", scenario.name, scenario.what);
    let all = [
        Some(&outcome.peer),
        Some(&outcome.ours),
        outcome.null.as_ref(),
    ];
    for shown in all.into_iter().flatten() {
        println!("{}", line(outcome, shown));
    }
    if let Some(rate) = outcome.sendfile_median() {
        let (mib, us) = (rate.mib_a_second, rate.us_a_mib);
        println!(
            "  sendfile loop {:13} {mib:>8.1} MiB/s  {:19} {us:>8.1} us/MiB",
            "", ""
        );
    }
    let Spread {
        median,
        least,
        most,
    } = outcome.ratio();
    let (ours, peer) = (outcome.ours.name, outcome.peer.name);
    let (median, least, most) = (times(median), times(least), times(most));
    println!("  {ours} is {median} times as good as {peer} ({least} to {most})");
    println!("  where {ours}'s time goes: {}", told(&outcome.profile));
    for verdict in outcome.verdicts() {
        println!("  {}", verdict.told(peer));
    }
}

fn told(profile: &Profile) -> String {
    let parts = match profile {
        Profile::Parts(parts) => parts.iter(),
        Profile::Unknown(why) => return format!("nobody knows, since {why}"),
    };
    let parts = parts.map(|(part, share)| format!("{} {:.0} %", part.name(), share * 100.0));
    parts.collect::<Vec<_>>().join(", ")
}

fn line(outcome: &Outcome, shown: &Shown) -> String {
    let memory = shown.resident() as f64 / f64::from(1 << 20);
    let more: String = shown
        .more()
        .iter()
        .map(|(name, value)| format!("  {} {value:.2}", name.replace('_', " ")))
        .collect();
    let rates = match outcome.scenario.work {
        Work::Idle(_) => String::new(),
        Work::Logins => format!(
            "{:>10.0} /s  {:>8.2} us/login  {:>4.2} busy {:>4.2} load",
            shown.commands_a_second().median,
            shown.us_a_command(),
            shown.busy(),
            shown.load_busy(),
        ),
        _ => format!(
            "{:>10.0} /s {:>8.1} MiB/s  {:>8.2} us/command {:>8.1} us/MiB  {:>4.2} busy {:>4.2} load",
            shown.commands_a_second().median,
            shown.mib_a_second().median,
            shown.us_a_command(),
            shown.us_a_mib(),
            shown.busy(),
            shown.load_busy(),
        ),
    };
    format!(
        "  {:<14}{rates}  {memory:>6.1} MiB memory{more}",
        shown.name
    )
}

/// What the words of the lines mean, and what falls short.
pub(super) fn print_end(outcomes: &[Outcome]) {
    println!(
        "\nMedians of the rounds; us is the server's processor time, of all rounds together, busy how many\n\
         processors it kept busy, and load how many the load did. A server that is busy all the time is what\n\
         limits; one that is not waits for wake-ups, for its disks, or for a load that is busy. Where its time\n\
         goes is perf's word (package linux-perf) for one slice more; valgrind would see its own code only."
    );
    let verdicts = outcomes.iter().flat_map(|outcome| {
        let peer = outcome.peer.name;
        let name = outcome.scenario.name;
        outcome
            .verdicts()
            .into_iter()
            .map(move |verdict| (name, peer, verdict))
    });
    let (reached, short): (Vec<_>, Vec<_>) =
        verdicts.partition(|(_, _, verdict)| verdict.reaches());
    if reached.is_empty() && short.is_empty() {
        return;
    }
    println!(
        "\n{} floors are reached, {} are not",
        reached.len(),
        short.len()
    );
    for (name, peer, verdict) in short {
        println!("  {name:<18} {}", verdict.told(peer));
    }
}

/// All of it as a document.
pub(super) fn document(
    options: &Options,
    how: &How,
    subject: &Subject,
    machine: &Machine,
    outcomes: &[Outcome],
) -> Value {
    json!({
        "measured": subject.json(),
        "machine": machine.json(),
        "quick": options.quick,
        "peer": options.peer.name(),
        "rounds": options.rounds(),
        "seconds_a_slice": how.time.as_secs_f64(),
        "verify": how.verify,
        "tool": how.tool.name(),
        "scenarios": outcomes.iter().map(scenario).collect::<Vec<_>>(),
    })
}

fn scenario(outcome: &Outcome) -> Value {
    let all = [
        Some(&outcome.peer),
        Some(&outcome.ours),
        outcome.null.as_ref(),
    ];
    let floor = |verdict: &Verdict| {
        json!({
            "floor": format!("{:?}", verdict.floor),
            "found": verdict.found,
            "reaches": verdict.reaches(),
            "least_work": verdict.least_work.map(|least| json!({
                "name": least.name,
                "found": least.found,
            })),
        })
    };
    json!({
        "name": outcome.scenario.name,
        "what": outcome.scenario.what,
        "unit": outcome.scenario.unit.beside_tgt(outcome.ours.name),
        "contenders": all.into_iter().flatten().map(shown).collect::<Vec<_>>(),
        "ratio": spread(outcome.ratio()),
        "profile": profile(&outcome.profile),
        "sendfile": outcome.sendfile.iter().map(rate).collect::<Vec<_>>(),
        "floors": outcome.verdicts().iter().map(floor).collect::<Vec<_>>(),
    })
}

fn shown(shown: &Shown) -> Value {
    json!({
        "name": shown.name,
        "commands_a_second": spread(shown.commands_a_second()),
        "mib_a_second": spread(shown.mib_a_second()),
        "us_a_command": shown.us_a_command(),
        "us_a_mib": shown.us_a_mib(),
        "busy": shown.busy(),
        "load_busy": shown.load_busy(),
        "memory": shown.resident(),
        "more": shown.more(),
        "rounds": shown.slices.iter().map(round).collect::<Vec<_>>(),
    })
}

fn rate(rate: &Rate) -> Value {
    json!({ "mib_a_second": rate.mib_a_second, "us_a_mib": rate.us_a_mib })
}

fn round(slice: &Slice) -> Value {
    json!({
        "seconds": slice.seconds,
        "commands": slice.commands,
        "bytes": slice.bytes,
        "commands_a_second": slice.commands_a_second(),
        "mib_a_second": slice.mib_a_second(),
        "processor_seconds": slice.processor,
        "load_seconds": slice.load,
        "memory": slice.resident,
        "more": slice.more,
    })
}

fn profile(profile: &Profile) -> Value {
    let parts = match profile {
        Profile::Parts(parts) => parts.iter(),
        Profile::Unknown(why) => return json!({ "unknown": why }),
    };
    let parts = parts.map(|(part, share)| (part.name().to_owned(), json!(share)));
    json!({ "parts": parts.collect::<Value>() })
}

fn spread(spread: Spread) -> Value {
    json!({ "median": spread.median, "least": spread.least, "most": spread.most })
}
