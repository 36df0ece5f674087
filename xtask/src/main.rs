//! `cargo xtask`: the project's own tools.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use xtask::bench_target::{Peer, Tool};
use xtask::packages::Consent;
use xtask::suite::{Boots, Length, Options};
use xtask::{bench_build, bench_image, bench_target, bench_web, check, demo, suite};

/// The project's own tools.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build a Debian image, serve it, boot a client from it in QEMU, and show each stage
    Demo {
        /// Install what is missing without asking
        #[arg(long)]
        yes: bool,
        /// Leave the library, the server and the client running until Enter is pressed
        #[arg(long)]
        keep: bool,
    },
    /// Install what the tests need and run all of them, as CI does
    Test {
        /// Install what is missing without asking
        #[arg(long)]
        yes: bool,
        /// Also the tests that take many minutes
        #[arg(long)]
        long: bool,
        /// Leave out the tests that boot machines
        #[arg(long)]
        no_boot: bool,
    },
    /// Measure netroot beside what it replaces
    #[command(subcommand)]
    Bench(Bench),
    /// Formatting, lints, documentation, floors, licences and advisories; lists every failure
    Check,
}

#[derive(Subcommand)]
enum Bench {
    /// Builds of one tree, in turn with mkfs.xfs, mount, cp -a, unmount and sync
    Build {
        /// The tree [default: one of 30,000 files, made for this]
        #[arg(long, value_name = "DIR")]
        tree: Option<PathBuf>,
        /// How often each way is taken
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Measure this program [default: a release build of this source]
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Upgrades of one image, in turn with a copy of its tree and a new disk of that
    Image {
        /// How often each way is taken
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Measure this program [default: a release build of this source]
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// The target beside tgt, over loopback, from the same disks; how long each takes, what the server
    /// uses of processors and memory, and whether it reaches what it has to
    Target {
        /// Shorter slices and 3 rounds: a few minutes
        #[arg(long)]
        quick: bool,
        /// How often each has its turn [default: 5]
        #[arg(long, value_name = "N")]
        rounds: Option<usize>,
        /// Look at every byte: disks hold what the number of a block says
        #[arg(long)]
        verify: bool,
        /// Who is compared: netroot with tgt, or tgt with another tgt, which shows the noise
        #[arg(long, value_name = "PEER", default_value = "tgt")]
        peer: PeerName,
        /// Who makes the load: this program, or one that others have made
        #[arg(long, value_name = "TOOL", default_value = "own")]
        tool: ToolName,
        /// Only these scenarios, or those whose names begin so
        #[arg(long, value_name = "NAME", num_args = 1..)]
        scenario: Vec<String>,
        /// Measure this program [default: a release build of this source]
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Boot a Debian client in QEMU, and record what it reads: the trace for `target`
    RecordBoot {
        /// Serve it by this program [default: a release build of this source]
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
    },
    /// Answer from memory at once: what the null target of `target` is
    #[command(hide = true)]
    NullTarget,
    /// The dashboard: the page of a room of 10, 1,000 and 10,000 clients, and an event's way to 100
    /// watching browsers
    Web {
        /// How often each page is asked for, and how many events are sent
        #[arg(long, default_value_t = 40)]
        rounds: usize,
        /// Measure this program [default: a release build of this source]
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Who is compared.
#[derive(Clone, Copy, ValueEnum)]
enum PeerName {
    /// netroot with tgt
    Tgt,
    /// tgt with another tgt
    TgtTgt,
}

/// Who makes the load.
#[derive(Clone, Copy, ValueEnum)]
enum ToolName {
    /// This program
    Own,
    /// libiscsi's: sequential and random reads of one session
    IscsiPerf,
    /// QEMU's: sequential reads and writes of one session
    QemuImg,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Demo { yes, keep } => demo::run(consent(yes), ending(keep)),
        Command::Test { yes, long, no_boot } => suite::run(Options {
            consent: consent(yes),
            long: if long { Length::Long } else { Length::Usual },
            boots: if no_boot {
                Boots::LeftOut
            } else {
                Boots::Included
            },
        }),
        Command::Bench(Bench::Build {
            tree,
            rounds,
            binary,
            json,
        }) => bench_build::run_bench(&bench_build::Options {
            tree,
            rounds,
            binary,
            json,
        }),
        Command::Bench(Bench::Image {
            rounds,
            binary,
            json,
        }) => bench_image::run_bench(&bench_image::Options {
            rounds,
            binary,
            json,
        }),
        Command::Bench(Bench::Web {
            rounds,
            binary,
            json,
        }) => bench_web::run_bench(&bench_web::Options {
            rounds,
            binary,
            json,
        }),
        Command::Bench(Bench::Target {
            quick,
            rounds,
            verify,
            peer,
            tool,
            scenario,
            binary,
            json,
        }) => bench_target::run_bench(&bench_target::Options {
            quick,
            rounds,
            json,
            verify,
            peer: match peer {
                PeerName::Tgt => Peer::Tgt,
                PeerName::TgtTgt => Peer::TgtTgt,
            },
            tool: match tool {
                ToolName::Own => Tool::Own,
                ToolName::IscsiPerf => Tool::IscsiPerf,
                ToolName::QemuImg => Tool::QemuImg,
            },
            scenarios: scenario,
            binary,
        }),
        Command::Bench(Bench::RecordBoot { binary }) => bench_target::record_boot(binary),
        Command::Bench(Bench::NullTarget) => bench_target::run_null(),
        Command::Check => check::run_all(),
    }
}

fn consent(yes: bool) -> Consent {
    if yes { Consent::Given } else { Consent::Ask }
}

fn ending(keep: bool) -> demo::Ending {
    if keep {
        demo::Ending::Keep
    } else {
        demo::Ending::PowerOff
    }
}
