//! `cargo xtask test`: what the tests need, then all of them, as CI does.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::check;
use crate::packages::{Consent, install_missing};
use crate::program::command;

/// What to run beside the tests that always run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Ask before packages are installed.
    pub consent: Consent,
    /// Also the tests that take many minutes.
    pub long: Length,
    /// Whether machines are booted.
    pub boots: Boots,
}

/// How much patience there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// The tests of every change.
    Usual,
    /// Also what takes many minutes: properties are tried on far more cases (`NETROOT_LONG_TESTS`,
    /// `PROPTEST_CASES`).
    Long,
}

/// Whether machines are booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boots {
    /// Yes.
    Included,
    /// No: a quick run while working.
    LeftOut,
}

/// Runs everything and prints each step with its time; the last line counts all tests.
///
/// # Errors
/// When a step fails; all others run nevertheless.
pub fn run(options: Options) -> Result<()> {
    let mut report = Report::default();
    report.step("packages", || install_missing(options.consent));
    if !report.failed.is_empty() {
        // Without them every other step would fail for the same reason.
        return report.finish();
    }
    report.step("check", check::run_all);
    report.tests(
        "tests",
        &["test", "--workspace", "--no-fail-fast"],
        options.long,
    );
    let browser = ["test", "--test", "browser", "--", "--nocapture"];
    report.tests("browser", &browser, options.long);
    let contract = ["test", "--test", "contract", "--", "--nocapture"];
    report.tests("contract", &contract, options.long);
    let parsers = ["test", "--test", "parsers", "--", "--nocapture"];
    report.tests("parsers", &parsers, options.long);
    if options.boots == Boots::Included {
        let machines = [
            ("boots", "boot"),
            ("firmware", "firmware"),
            ("initiator", "initiator"),
        ];
        for (name, test) in machines {
            let arguments = ["test", "--test", test, "--", "--nocapture"];
            report.tests(name, &arguments, options.long);
        }
    }
    report.finish()
}

#[derive(Default)]
struct Report {
    times: Vec<(&'static str, Duration)>,
    failed: Vec<String>,
    passed_tests: u64,
    failed_tests: u64,
}

impl Report {
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<()>) {
        println!("\n=== {name}");
        let started = Instant::now();
        if let Err(error) = work() {
            println!("{name} failed: {error:#}");
            self.failed.push(name.to_owned());
        }
        self.times.push((name, started.elapsed()));
    }

    fn tests(&mut self, name: &'static str, arguments: &[&str], length: Length) {
        let mut counts = (0, 0);
        self.step(name, || {
            counts = count_tests(arguments, length)?;
            if counts.1 > 0 {
                bail!("{} tests failed", counts.1);
            }
            if counts.0 == 0 {
                bail!("no test ran");
            }
            Ok(())
        });
        self.passed_tests += counts.0;
        self.failed_tests += counts.1;
    }

    fn finish(self) -> Result<()> {
        println!();
        for (name, time) in &self.times {
            println!("{name:<14} {:6.1} s", time.as_secs_f64());
        }
        // A step that failed without a failed test (it did not compile, a lint) must not look green.
        let failed = self.failed_tests.max(self.failed.len() as u64);
        println!("{} passed, {failed} failed", self.passed_tests);
        if self.failed.is_empty() {
            return Ok(());
        }
        bail!("failed: {}", self.failed.join(", "))
    }
}

/// Runs cargo, shows what it prints, and sums its result lines: passed and failed.
fn count_tests(arguments: &[&str], length: Length) -> Result<(u64, u64)> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = command(&cargo, arguments);
    command
        .current_dir(crate::workspace())
        .stdout(Stdio::piped());
    if length == Length::Long {
        // The first is asked by tests that know what is too much for every change; the second makes
        // proptest try each of its properties so often.
        command
            .env("NETROOT_LONG_TESTS", "1")
            .env("PROPTEST_CASES", "4096");
    }
    let mut child = command.spawn().context("running cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut counts = (0, 0);
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let text = String::from_utf8_lossy(&line);
        println!("{text}");
        std::io::stdout().flush()?;
        if let Some((passed, failed)) = result_line(&text) {
            counts = (counts.0 + passed, counts.1 + failed);
        }
    }
    let status = child.wait()?;
    if !status.success() && counts.1 == 0 {
        bail!("cargo {}: {status}", arguments.join(" "));
    }
    Ok(counts)
}

/// Reads `test result: ok. 12 passed; 0 failed; …`.
fn result_line(line: &str) -> Option<(u64, u64)> {
    let rest = line.trim().strip_prefix("test result: ")?;
    let number = |word: &str| -> Option<u64> {
        let before = rest.split(word).next()?;
        before.split_whitespace().next_back()?.parse().ok()
    };
    Some((number(" passed")?, number(" failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_summed() {
        let ok = "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out";
        assert_eq!(result_line(ok), Some((12, 0)));
        let bad = "test result: FAILED. 3 passed; 2 failed; 0 ignored";
        assert_eq!(result_line(bad), Some((3, 2)));
        assert_eq!(result_line("test nothing ... ok"), None);
    }

    #[test]
    fn a_step_that_fails_without_a_test_is_counted() {
        let mut report = Report::default();
        report.step("broken", || bail!("it does not compile"));
        report.step("fine", || Ok(()));
        let error = report.finish().unwrap_err();
        assert_eq!(error.to_string(), "failed: broken");
    }
}
