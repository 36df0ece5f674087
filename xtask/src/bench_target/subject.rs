//! What was measured: which netroot, beside which tgt, and when. Two documents can be compared only by that.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Options, tgt};
use crate::cached::hash_of_files;
use crate::program::{command, run};
use crate::workspace;

/// The commit of a source, and whether something was changed since.
const COMMIT: [&str; 5] = [
    "describe",
    "--always",
    "--dirty",
    "--abbrev=40",
    "--exclude=*",
];

/// All of it.
#[derive(Debug)]
pub(super) struct Subject {
    /// UTC, as RFC 3339 has it.
    date: String,
    tgt: String,
    netroot: Option<Netroot>,
}

/// The netroot that is measured.
#[derive(Debug)]
struct Netroot {
    version: String,
    program: PathBuf,
    /// Of the program: two builds may call themselves the same.
    hash: String,
    /// What it was built of, where it was built for this.
    commit: Option<String>,
}

impl Subject {
    /// Asks them all; `binary` is the netroot, if one is measured.
    ///
    /// # Errors
    /// When one of them does not answer.
    pub(super) fn new(binary: Option<&Path>, options: &Options) -> Result<Self> {
        let is_built = options.binary.is_none();
        let netroot = |program| Netroot::new(program, is_built);
        Ok(Subject {
            date: said_by("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"])?,
            tgt: said_by("tgtd", &["--version"])?,
            netroot: binary.map(netroot).transpose()?,
        })
    }

    pub(super) fn print(&self) {
        let Subject { date, tgt, netroot } = self;
        let netroot = netroot.as_ref().map_or_else(String::new, Netroot::told);
        println!("{date}: {netroot}tgt {tgt}");
    }

    pub(super) fn json(&self) -> Value {
        let netroot = self.netroot.as_ref().map(|netroot| {
            json!({
                "version": netroot.version,
                "program": netroot.program,
                "hash": netroot.hash,
                "commit": netroot.commit,
            })
        });
        json!({
            "date": self.date,
            "netroot": netroot,
            "tgt": { "version": self.tgt, "tunables": tgt::TUNABLES },
        })
    }
}

impl Netroot {
    fn new(program: &Path, is_built: bool) -> Result<Self> {
        let dir = program.parent().context("a program without a directory")?;
        // A source without its history has no commit, and is measured nevertheless.
        let commit = || run(command("git", COMMIT).current_dir(workspace())).ok();
        Ok(Netroot {
            version: said_by(&program.to_string_lossy(), &["--version"])?,
            program: program.to_owned(),
            hash: hash_of_files(dir, &[program.to_owned()])?,
            commit: is_built
                .then(commit)
                .flatten()
                .map(|commit| commit.trim().to_owned()),
        })
    }

    fn told(&self) -> String {
        let of = self
            .commit
            .clone()
            .unwrap_or_else(|| self.program.display().to_string());
        format!("{} ({of}), ", self.version)
    }
}

fn said_by(program: &str, arguments: &[&str]) -> Result<String> {
    Ok(run(&mut command(program, arguments))?.trim().to_owned())
}
