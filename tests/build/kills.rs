//! Builds that are killed: the next command finds nothing half.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use netroot::build;
use netroot::exec::Cancel;
use netroot::library::{Library, Quiet};

use crate::awkward;
use crate::site::{KERNEL, Site};

/// Tells the test below which library to build in, when it runs as a child.
const CHILD: &str = "NETROOT_TEST_BUILD_IN";

/// Not a test of its own: a process that builds, for the tests below to kill.
#[test]
fn builder() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    let dir = std::path::PathBuf::from(dir);
    let library = Library::open(&dir.join("library"), None).unwrap();
    let request = build::BuildRequest {
        image: "fc28".parse().unwrap(),
        source: build::Source::Directory(dir.join("tree")),
        filesystem: build::FileSystem::Xfs,
        size: None,
        kernel: None,
        check: build::InitramfsCheck::Refuse,
        excludes: build::Excludes::default(),
    };
    build::image(&library, &request, &Cancel::new(), &Quiet).unwrap();
}

fn start(site: &Site, kill_before: Option<usize>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "kills::builder"])
        .env(CHILD, site.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(step) = kill_before {
        command.env("NETROOT_TEST_KILL_BEFORE_STEP", step.to_string());
    }
    command.spawn().unwrap()
}

/// What the next command does first, and what must be true afterwards.
fn assert_nothing_half(site: &Site) {
    let library = Library::open(&site.path("library"), None).unwrap();
    library.sweep().unwrap();
    site.assert_clean();
    for image in library.images().unwrap() {
        for number in image.versions {
            let version = library
                .resolve(&format!("fc28@{number}").parse().unwrap())
                .unwrap();
            library.verify(version.id(), &Quiet).unwrap();
        }
    }
}

#[test]
fn killed_before_each_step() {
    let site = Site::new();
    site.tree(KERNEL);
    for step in 0..=8 {
        let status = start(&site, Some(step)).wait().unwrap();
        assert_eq!(status.signal(), Some(9), "step {step}");
        assert_nothing_half(&site);
        let published = usize::from(step == 8);
        assert_eq!(
            site.library.images().unwrap().len(),
            published,
            "step {step}"
        );
    }
}

#[test]
fn killed_at_any_moment() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    awkward::fill(&tree);
    let began = Instant::now();
    assert!(start(&site, None).wait().unwrap().success());
    let whole = began.elapsed();
    for part in 1..=10 {
        let mut child = start(&site, None);
        std::thread::sleep(whole * part / 11);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_nothing_half(&site);
    }
    assert!(start(&site, None).wait().unwrap().success());
}
