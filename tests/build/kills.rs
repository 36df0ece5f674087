//! Builds and upgrades that are killed: the next command finds nothing half.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use netroot::build::FileSystem;
use netroot::library::{Library, Quiet};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::awkward;
use crate::imports::bare;
use crate::promotes::{MAC, site_with_client};
use crate::recipes::site_with_recipe;
use crate::site::{KERNEL, Site};
use crate::upgrades::site_with_programs;

/// Long enough for any part of a small build, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(60);

/// The command that a person would run, with what it says in a file.
pub(crate) fn start(site: &Site, kill_before: Option<usize>, arguments: &[&str]) -> Child {
    let said = File::create(site.path("said")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_netroot"));
    command
        .arg("--library")
        .arg(site.path("library"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(said.try_clone().unwrap())
        .stderr(said);
    if let Some(step) = kill_before {
        command.env("NETROOT_TEST_KILL_BEFORE_STEP", step.to_string());
    }
    command.spawn().unwrap()
}

fn start_build(site: &Site, kill_before: Option<usize>) -> Child {
    let tree = site.path("tree");
    let arguments = ["image", "build", "fc28", "--from", tree.to_str().unwrap()];
    start(site, kill_before, &arguments)
}

pub(crate) fn said(site: &Site) -> String {
    std::fs::read_to_string(site.path("said")).unwrap()
}

fn assert_killed(site: &Site, status: ExitStatus, when: &str) {
    assert_eq!(status.signal(), Some(9), "{when}: {status}: {}", said(site));
}

/// Waits until `done`, which says what it still waits for.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < LIMIT, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn runs(words: &str) -> bool {
    let found = Command::new("pgrep").args(["-f", words]).output().unwrap();
    found.status.success()
}

/// What the next command does first, and what must be true afterwards.
pub(crate) fn assert_nothing_half(site: &Site) {
    let library = Library::open(&site.path("library"), None).unwrap();
    let has_drafts = || {
        let images = crate::site::entries(&site.path("library/images"));
        let names = images.iter().flat_map(|image| crate::site::entries(image));
        names
            .into_iter()
            .any(|path| path.to_str().unwrap().contains("/.draft-"))
    };
    // A child that was being started when its parent was killed has the draft's lock for a moment.
    wait_until("a killed build's draft to be swept", || {
        library.sweep().unwrap();
        !has_drafts()
    });
    site.assert_clean();
    for image in library.images().unwrap() {
        for number in image.versions {
            let spec = format!("{}@{number}", image.name);
            let version = library.resolve(&spec.parse().unwrap()).unwrap();
            library.verify(version.id(), &Quiet).unwrap();
        }
    }
}

#[test]
fn a_build_that_is_killed_before_each_step() {
    let site = Site::new();
    site.tree(KERNEL);
    for step in 0..=8 {
        let status = start_build(&site, Some(step)).wait().unwrap();
        assert_killed(&site, status, &format!("step {step}"));
        assert_nothing_half(&site);
        let published = usize::from(step == 8);
        assert_eq!(
            site.library.images().unwrap().len(),
            published,
            "step {step}"
        );
    }
}

/// How many steps the plan of a command has.
fn steps(site: &Site, arguments: &[&str]) -> usize {
    let library = site.path("library");
    let said = Command::new(env!("CARGO_BIN_EXE_netroot"))
        .args(["--json", "--library", library.to_str().unwrap()])
        .args(arguments)
        .arg("--dry-run")
        .output()
        .unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    plan["steps"].as_array().unwrap().len()
}

/// Kills a command before each step of its plan; `made` tells whether it has made its version.
fn kill_before_each_step(site: &Site, arguments: &[&str], made: impl Fn(&Library) -> bool) {
    let last = steps(site, arguments);
    assert!(last > 8, "{last} steps of {arguments:?}");
    for step in 0..=last {
        let status = start(site, Some(step), arguments).wait().unwrap();
        assert_killed(site, status, &format!("step {step} of {arguments:?}"));
        assert_nothing_half(site);
        let library = Library::open(&site.path("library"), None).unwrap();
        assert_eq!(made(&library), step == last, "step {step} of {arguments:?}");
    }
}

#[test]
fn a_recipe_that_is_killed_before_each_step() {
    let site = site_with_recipe();
    let has = |library: &Library, spec: &str| library.resolve(&spec.parse().unwrap()).is_ok();
    let build = ["image", "build", "one", "--from", "tiny:1"];
    kill_before_each_step(&site, &build, |library| has(library, "one"));
    let packed = [
        "image", "build", "kiosk", "--from", "tiny:1", "--fs", "erofs",
    ];
    kill_before_each_step(&site, &packed, |library| has(library, "kiosk"));
    let update = ["image", "update", "one"];
    kill_before_each_step(&site, &update, |library| has(library, "one@2"));
    let upgrade = ["image", "upgrade", "one", "two", "--release", "2"];
    kill_before_each_step(&site, &upgrade, |library| has(library, "two"));
}

#[test]
fn a_promotion_that_is_killed_before_each_step() {
    let site = site_with_client(FileSystem::Ext4);
    let promote = ["client", "promote", "lab-07", "tools", "--yes"];
    kill_before_each_step(&site, &promote, |library| {
        // Whatever held the client's disk is gone, too.
        drop(library.hold_clone(&MAC.parse().unwrap()).unwrap());
        library.resolve(&"tools".parse().unwrap()).is_ok()
    });
}

#[test]
fn an_import_that_is_killed_before_each_step() {
    let site = Site::new();
    let disk = bare(&site, &["mkfs.ext4", "-q", "-F"], &site.tree(KERNEL));
    let import = ["image", "import", "old", "--from", disk.to_str().unwrap()];
    kill_before_each_step(&site, &import, |library| {
        library.resolve(&"old".parse().unwrap()).is_ok()
    });
}

#[test]
fn a_build_that_is_killed_at_any_moment() {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    awkward::fill(&tree);
    let began = Instant::now();
    let status = start_build(&site, None).wait().unwrap();
    assert!(status.success(), "{}", said(&site));
    let whole = began.elapsed();
    for part in 1..=8 {
        let mut child = start_build(&site, None);
        std::thread::sleep(whole * part / 9);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_nothing_half(&site);
    }
    let status = start_build(&site, None).wait().unwrap();
    assert!(status.success(), "{}", said(&site));
}

#[test]
fn a_build_that_is_interrupted_cleans_up_itself() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let site = Site::new();
        let tree = site.tree(KERNEL);
        // Large enough to be interrupted within the copy.
        std::fs::write(tree.join("large"), vec![1; 400 << 20]).unwrap();
        let mut child = start_build(&site, None);
        wait_until("the copy to begin", || said(&site).contains("copying"));
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(1), "{}", said(&site));
        assert!(said(&site).contains("interrupted"), "{}", said(&site));
        // No sweep before this: nothing was left for it.
        site.assert_clean();
        assert!(site.library.images().unwrap().is_empty());
    }
}

#[test]
fn an_upgrade_that_is_killed_takes_its_script_along() {
    let site = site_with_programs();
    let script = "echo begun; sleep 73.1 & sleep 73.1; :";
    let arguments = ["image", "upgrade", "fc28", "fc29", "--", script];
    let mut child = start(&site, None, &arguments);
    wait_until("the script to begin", || runs("^sleep 73[.]1"));
    child.kill().unwrap();
    assert_killed(&site, child.wait().unwrap(), "in the script");
    wait_until("the script's children to end", || !runs("^sleep 73[.]1"));
    assert_nothing_half(&site);
    assert_eq!(site.library.images().unwrap().len(), 1);
}

#[test]
fn an_upgrade_that_is_interrupted_cleans_up_itself() {
    let site = site_with_programs();
    let script = "echo begun; sleep 74.2 & sleep 74.2; :";
    let arguments = ["image", "upgrade", "fc28", "fc29", "--", script];
    let mut child = start(&site, None, &arguments);
    wait_until("the script to begin", || runs("^sleep 74[.]2"));
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{}", said(&site));
    assert!(!runs("^sleep 74[.]2"), "a child of the script runs on");
    site.assert_clean();
    assert_eq!(site.library.images().unwrap().len(), 1);
}
