//! `cargo xtask check`: everything that needs no machine to boot. All of it runs, and every failure is
//! named at the end.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::program::{command, exists, run, run_visibly};

/// Licences that go with `MIT OR Apache-2.0`; `deny.toml` would hold the same.
const LICENCES: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "0BSD",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
    "CC0-1.0",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
];

/// Licences that do for what only the tests are built with: none of it is in the program.
const LICENCES_OF_TESTS: &[&str] = &["MPL-2.0"];

/// A part of the check: what it is called, and what does it.
type Part = (&'static str, fn() -> Result<()>);

const PARTS: &[Part] = &[
    ("formatting", || cargo(&["fmt", "--all", "--check"])),
    ("clippy", || {
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ])
    }),
    // `--all-targets` leaves out what a plain `cargo test` does.
    ("clippy, boots", || {
        cargo(&[
            "clippy", "--test", "boot", "--test", "firmware", "--test", "parsers", "--", "-D",
            "warnings",
        ])
    }),
    ("documentation", || cargo_doc()),
    ("floors", || cargo(&["test", "--quiet", "--test", "layers"])),
    ("licences", || licences()),
    ("advisories", || advisories()),
];

/// Runs all parts.
///
/// # Errors
/// When a part fails; the error names all that did.
pub fn run_all() -> Result<()> {
    let mut failed = Vec::new();
    for (name, part) in PARTS {
        println!("check: {name}");
        if let Err(error) = part() {
            failed.push(format!("{name}: {error:#}"));
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!(
        "{} of {} failed:\n  {}",
        failed.len(),
        PARTS.len(),
        failed.join("\n  ")
    )
}

/// Cargo, in the workspace.
pub(crate) fn cargo(arguments: &[&str]) -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    run_visibly(command(&cargo, arguments).current_dir(crate::workspace()))
}

fn cargo_doc() -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    run_visibly(
        command(&cargo, ["doc", "--quiet", "--workspace", "--no-deps"])
            .current_dir(crate::workspace())
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

fn licences() -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let host = host_platform()?;
    let mut metadata = command(
        &cargo,
        // Of other platforms' crates nothing was downloaded.
        [
            "metadata",
            "--format-version=1",
            "--offline",
            "--filter-platform",
            &host,
        ],
    );
    let text = run(metadata.current_dir(crate::workspace()))?;
    let metadata: Value = serde_json::from_str(&text).context("reading cargo metadata")?;
    let packages = metadata
        .get("packages")
        .and_then(Value::as_array)
        .context("cargo metadata names no packages")?;
    let shipped = shipped(&metadata)?;
    let mut wrong = BTreeSet::new();
    for package in packages {
        let text = |key| package.get(key).and_then(Value::as_str);
        let name = text("name").unwrap_or("?");
        let is_fine = |licence: &str| {
            let for_tests = text("id").is_some_and(|id| !shipped.contains(id));
            LICENCES.contains(&licence) || for_tests && LICENCES_OF_TESTS.contains(&licence)
        };
        match text("license") {
            None => {
                wrong.insert(format!("{name}: no licence"));
            }
            Some(expression) if !is_allowed(expression, &is_fine) => {
                wrong.insert(format!("{name}: {expression}"));
            }
            Some(_) => {}
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("{}", Vec::from_iter(wrong).join(", "))
}

/// The identifiers of the packages that the workspace's programs are made of, the workspace's own first:
/// what is reached without going through a dependency of tests.
fn shipped(metadata: &Value) -> Result<BTreeSet<&str>> {
    let nodes = metadata
        .pointer("/resolve/nodes")
        .and_then(Value::as_array)
        .context("cargo metadata does not tell what depends on what")?;
    let nodes: BTreeMap<&str, &Value> = nodes
        .iter()
        .filter_map(|node| Some((node.get("id")?.as_str()?, node)))
        .collect();
    let list = |value: &'_ Value, key: &str| -> Vec<Value> {
        let list = value.get(key).and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    };
    let members = list(metadata, "workspace_members");
    let mut left: Vec<String> = members
        .iter()
        .filter_map(|id| id.as_str().map(str::to_owned))
        .collect();
    let mut shipped = BTreeSet::new();
    while let Some(id) = left.pop() {
        let (&id, node) = nodes
            .get_key_value(id.as_str())
            .with_context(|| format!("cargo metadata does not tell what {id} depends on"))?;
        if !shipped.insert(id) {
            continue;
        }
        for dependency in list(node, "deps") {
            let is_shipped = list(&dependency, "dep_kinds")
                .iter()
                .any(|kind| kind.get("kind").and_then(Value::as_str) != Some("dev"));
            if let Some(package) = dependency.get("pkg").and_then(Value::as_str)
                && is_shipped
            {
                left.push(package.to_owned());
            }
        }
    }
    Ok(shipped)
}

/// What this machine's compiler builds for, such as `x86_64-unknown-linux-gnu`.
fn host_platform() -> Result<String> {
    let version = run(&mut command("rustc", ["--version", "--verbose"]))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .context("rustc does not name its host")
}

/// Whether an SPDX expression can be satisfied by licences that `is_fine`: one branch of an OR, all of
/// an AND.
/// Licences that all of ours are compatible with need no finer reading of nested brackets: an AND binds
/// tighter than an OR, and a bracket is taken as a whole.
fn is_allowed(expression: &str, is_fine: &dyn Fn(&str) -> bool) -> bool {
    let expression = expression.trim();
    // The older form of OR.
    let either = split(expression, " OR ")
        .into_iter()
        .flat_map(|part| split(part, "/"));
    either.into_iter().any(|branch| {
        split(branch, " AND ").into_iter().all(|term| {
            let term = term.trim();
            match term
                .strip_prefix('(')
                .and_then(|term| term.strip_suffix(')'))
            {
                Some(inner) => is_allowed(inner, is_fine),
                None => is_fine(term),
            }
        })
    })
}

/// `text` cut at `separator`, but not inside of brackets.
fn split<'a>(text: &'a str, separator: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let mut rest = text;
    let mut from = 0;
    while let Some(found) = rest.get(from..).and_then(|tail| tail.find(separator)) {
        let at = from + found;
        let before = rest.get(..at).unwrap_or_default();
        let depth = before
            .matches('(')
            .count()
            .saturating_sub(before.matches(')').count());
        if depth == 0 {
            parts.push(before);
            rest = rest.get(at + separator.len()..).unwrap_or_default();
            from = 0;
        } else {
            from = at + separator.len();
        }
    }
    parts.push(rest);
    parts
}

/// Known vulnerabilities, as far as the host has the tool and its database: neither comes with Debian,
/// and a check must not depend on the network.
fn advisories() -> Result<()> {
    if !exists("cargo-deny") {
        println!("  cargo-deny is not installed; advisories are not looked up");
        return Ok(());
    }
    cargo(&["deny", "--offline", "check", "advisories"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read() {
        let is_allowed = |text: &str| is_allowed(text, &|licence| LICENCES.contains(&licence));
        for fine in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0 OR Apache-2.0",
            "MIT/Apache-2.0",
            "(MIT OR GPL-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        ] {
            assert!(is_allowed(fine), "{fine}");
        }
        for bad in [
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(GPL-2.0 OR AGPL-3.0) AND MIT",
            "",
        ] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }
}
