//! schemathesis, from the Python package index, in an environment of its own under `target/lab`: it asks
//! an API for what its document allows and for what it does not.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::program::run;
use crate::workspace;

/// All packages, each of one version.
const PACKAGES: &str = include_str!("schemathesis.txt");

/// The seed of every run, unless `NETROOT_SEED` is set: what fails today fails tomorrow, and what is found
/// is found by whoever changed something.
const SEED: &str = "20261121";

/// A run with the project's settings (`tests/contract/schemathesis.toml`), to which the caller adds whom to
/// ask. Its reports go to [`reports`]`/NAME`.
///
/// # Errors
/// When the packages cannot be fetched.
pub fn command(name: &str) -> Result<Command> {
    let program = installed()?;
    let reports = reports().join(name);
    // What an earlier run has left would stand beside what this one finds. The first leaves nothing.
    let _ = std::fs::remove_dir_all(&reports);
    std::fs::create_dir_all(&reports).with_context(|| format!("making {}", reports.display()))?;
    let seed = std::env::var("NETROOT_SEED").unwrap_or_else(|_| SEED.to_owned());
    println!("schemathesis {name}: the seed is {seed}");
    let settings = workspace().join("tests/contract");
    let mut command = Command::new(program);
    command
        .env("SCHEMATHESIS_HOOKS", settings.join("hooks.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg("--config-file")
        .arg(settings.join("schemathesis.toml"))
        .args([
            "run",
            "--no-color",
            "--seed",
            &seed,
            "--report",
            "ndjson",
            "--report-dir",
        ])
        .arg(&reports)
        .current_dir(&reports);
    Ok(command)
}

/// Where runs write what they did.
pub fn reports() -> PathBuf {
    crate::lab_dir().join("contract")
}

/// Its program; made with its packages if this is the first run, or they were other ones.
fn installed() -> Result<PathBuf> {
    let home = crate::lab_dir().join("schemathesis");
    let (bin, known) = (home.join("bin"), home.join("packages.txt"));
    let is_there = std::fs::read_to_string(&known).is_ok_and(|there| there == PACKAGES);
    if !is_there {
        let wanted = home.with_extension("txt");
        std::fs::create_dir_all(crate::lab_dir()).context("making target/lab")?;
        std::fs::write(&wanted, PACKAGES)
            .with_context(|| format!("writing {}", wanted.display()))?;
        run(Command::new("/usr/bin/python3")
            .args(["-m", "venv", "--clear"])
            .arg(&home))?;
        run(Command::new(bin.join("pip"))
            .args(["install", "--quiet", "--no-deps", "--requirement"])
            .arg(&wanted))?;
        // Last, so that a run that was stopped in between begins again.
        std::fs::rename(&wanted, &known).with_context(|| format!("writing {}", known.display()))?;
    }
    Ok(bin.join("st"))
}
