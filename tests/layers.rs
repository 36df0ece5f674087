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
    ("web", &["library", "boot", "build", "daemon"]),
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
        let inner = tail.strip_prefix('{').unwrap_or(tail);
        let group = if tail.starts_with('{') {
            inner.split('}').next().unwrap_or("")
        } else {
            inner
        };
        let parts: Vec<&str> = if tail.starts_with('{') {
            group.split(',').collect()
        } else {
            vec![group]
        };
        for part in parts {
            let name: String = part
                .trim()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if !name.is_empty() {
                found.push(name);
            }
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

#[test]
fn the_import_reader_sees_every_form() {
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
