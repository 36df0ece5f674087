//! Imports go down the floors only. The table says who may know whom; any other arrow fails.

// clippy.toml exempts functions marked #[test]; here the whole file is a test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

/// Each module of the crate's root, and the modules that it may name besides itself.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("block", &[]),
    ("exec", &[]),
    ("scsi", &["block"]),
    ("iscsi", &["block", "scsi"]),
    ("library", &["block", "exec"]),
    ("build", &["block", "exec", "library"]),
    ("boot", &["library"]),
    (
        "daemon",
        &["block", "exec", "scsi", "iscsi", "library", "boot"],
    ),
    ("web", &["iscsi", "library", "boot", "build", "daemon"]),
    (
        "cli",
        &["exec", "library", "build", "boot", "daemon", "web"],
    ),
];

/// The modules that `text` names by `crate::`.
fn named(text: &str) -> Vec<String> {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = Vec::new();
    for tail in code.split("crate::").skip(1) {
        match tail.strip_prefix('{') {
            None => found.extend(first_name(tail)),
            Some(group) => found.extend(entries(group).into_iter().filter_map(first_name)),
        }
    }
    found
}

/// The name that `text` begins with.
fn first_name(text: &str) -> Option<String> {
    let part = |c: &char| c.is_alphanumeric() || *c == '_';
    let name: String = text.trim_start().chars().take_while(part).collect();
    (!name.is_empty()).then_some(name)
}

/// The entries of a `{...}` group, which begins behind its brace; groups within entries stay whole.
fn entries(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            '}' => {
                found.push(&group[start..at]);
                break;
            }
            ',' if depth == 0 => {
                found.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

fn rust_files(dir: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn imports_go_down_the_floors_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut wrong = Vec::new();
    for file in &files {
        let inside = file.strip_prefix(&src).unwrap();
        let module = inside
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap();
        if matches!(module, "lib.rs" | "main.rs") {
            continue;
        }
        let Some((_, allowed)) = MAY_KNOW.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!(
                "{}: the table does not know `{module}`",
                inside.display()
            ));
            continue;
        };
        for name in named(&fs::read_to_string(file).unwrap()) {
            if name != module && !allowed.contains(&name.as_str()) {
                wrong.push(format!(
                    "{}: {module} must not know {name}",
                    inside.display()
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that go up or across:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn only_exec_runs_programs() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let wrong: Vec<_> = files
        .iter()
        .filter(|file| !file.starts_with(src.join("exec")))
        .filter(|file| {
            let text = fs::read_to_string(file).unwrap();
            text.contains("process::Command") || text.contains("Command::new(")
        })
        .map(|file| file.strip_prefix(&src).unwrap().display().to_string())
        .collect();
    assert!(
        wrong.is_empty(),
        "programs are run outside of exec: {wrong:?}"
    );
}

/// Files of `iscsi` that may know tokio: those that drive the state machines.
const DRIVERS: &[&str] = &[
    "connection",
    "link",
    "knocks",
    "memory",
    "output",
    "portals",
    "progress",
    "runner",
    "server",
    "sessions",
    "threads",
];

#[test]
fn state_machines_know_no_runtime() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src.join("iscsi"), &mut files);
    let wrong: Vec<_> = files
        .iter()
        .map(|file| file.strip_prefix(&src).unwrap())
        .filter(|file| {
            let part = file.components().nth(1).unwrap().as_os_str();
            let name = part.to_str().unwrap().trim_end_matches(".rs");
            file.file_stem().unwrap() != "tests" && !DRIVERS.contains(&name)
        })
        .filter(|file| {
            let text = fs::read_to_string(src.join(file)).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            code.contains("tokio::")
        })
        .collect();
    assert!(wrong.is_empty(), "these must not know tokio: {wrong:?}");
}

#[test]
fn the_import_reader_sees_every_form() {
    assert_eq!(
        named("use crate::{block::{Disk, Extent}, scsi::Device};"),
        ["block", "scsi"]
    );
    assert_eq!(named("use crate::block::Disk;"), ["block"]);
    assert_eq!(
        named("use crate::{block, scsi::Device};"),
        ["block", "scsi"]
    );
    assert_eq!(
        named("// crate::block\nlet a = crate::exec::run();"),
        ["exec"]
    );
}
