//! `cargo xtask`: the project's own tools.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::packages::Consent;
use xtask::suite::{Boots, Length, Options};
use xtask::{bench_build, bench_image, bench_web, check, demo, suite};

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
