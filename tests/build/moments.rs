//! Builds that are killed at moments nobody chose: whatever was going on, the next command finds nothing
//! half and leaves nothing behind, and the same build then succeeds.
//!
//! `NETROOT_TEST_SEED` repeats a run, as far as the machine is as fast as it was.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::kills::{assert_nothing_half, said, start, wait_until};
use crate::recipes::site_with_recipe;
use crate::site::{Site, entries};

const ROUNDS: u64 = 12;

/// Rounds with a real distribution, of which each takes a minute or two.
const LONG_ROUNDS: u64 = 6;

/// Long enough to be installing packages, and for most machines not to be finished.
const LONGEST: Duration = Duration::from_secs(120);

/// Numbers that a seed tells (SplitMix64).
struct Numbers(u64);

impl Numbers {
    /// Those of the seed that is asked for, or of another one each time; it is printed.
    fn new() -> Self {
        let asked = std::env::var("NETROOT_TEST_SEED").ok();
        let seed = asked.map_or_else(
            || {
                let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
                u64::from(now.subsec_nanos()) ^ now.as_secs() << 32
            },
            |text| text.parse().unwrap(),
        );
        println!("NETROOT_TEST_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn delay(&mut self, longest: Duration) -> Duration {
        let longest = u64::try_from(longest.as_micros()).unwrap();
        Duration::from_micros(self.next() % longest.max(1))
    }
}

/// Whether a process has something of `dir` mounted, or lives in it.
fn somebody_is_in(dir: &Path) -> Option<String> {
    let dir = dir.to_str().unwrap();
    for process in entries(Path::new("/proc")) {
        // Processes may end while they are looked at, and not everything there is one.
        let text = |name: &str| fs::read_to_string(process.join(name)).unwrap_or_default();
        let root = fs::read_link(process.join("root")).unwrap_or_default();
        if text("mountinfo").contains(dir) || root.starts_with(dir) {
            let command = text("cmdline").replace('\0', " ");
            return Some(format!("{}: {command}", process.display()));
        }
    }
    None
}

/// Kills a build after `delay`, and looks at what the next command makes of it. Tells whether it was
/// killed, or quicker than that.
fn kill_after(site: &Site, delay: Duration, arguments: &[&str]) -> bool {
    let mut child = start(site, None, arguments);
    std::thread::sleep(delay);
    // It may have ended before.
    let _ = child.kill();
    let status = child.wait().unwrap();
    let killed = status.signal() == Some(9);
    assert!(killed || status.success(), "{status}: {}", said(site));
    wait_until("whatever it started to end", || {
        somebody_is_in(site.dir.path()).is_none()
    });

    let dir = site.path("library");
    let next = Command::new(env!("CARGO_BIN_EXE_netroot"))
        .arg("--library")
        .arg(&dir)
        .args(["--json", "image", "list"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&next.stderr);
    assert!(next.status.success(), "{told}");
    if killed {
        let leftovers = told.matches("an earlier command was interrupted").count();
        assert_eq!(leftovers, told.lines().count(), "{told}");
    }
    assert_nothing_half(site);
    killed
}

/// One that was killed in its last moments may have published its version: a whole one.
fn assert_one_more_at_most(site: &Site, before: usize, was_killed: bool) {
    let after = versions(site);
    assert!(
        after == before + 1 || was_killed && after == before,
        "{before} versions became {after}"
    );
}

/// Builds a version, and tells how long that took.
fn succeed(site: &Site, build: &[&str]) -> Duration {
    let (began, before) = (Instant::now(), versions(site));
    let status = start(site, None, build).wait().unwrap();
    assert!(status.success(), "{build:?}: {}", said(site));
    assert_eq!(versions(site), before + 1);
    began.elapsed()
}

/// How many versions there are.
fn versions(site: &Site) -> usize {
    let images = site.library.images().unwrap();
    images.iter().map(|image| image.versions.len()).sum()
}

#[test]
fn a_build_by_a_recipe_that_is_killed_at_random_moments() {
    let site = site_with_recipe();
    let (tree, archive) = (site.path("tree"), site.path("tree.tar"));
    let (tree, archive) = (tree.to_str().unwrap(), archive.to_str().unwrap());
    let with = |source, filesystem| {
        let build = [
            "image", "build", "one", "--from", source, "--recipe", "tiny",
        ];
        [&build[..], &["--hostname", "lab", "--fs", filesystem]].concat()
    };
    let builds = [
        with("tiny:1", "xfs"),
        with(tree, "btrfs"),
        with(archive, "ext4"),
        with(tree, "erofs"),
    ];
    let wholes: Vec<Duration> = builds.iter().map(|build| succeed(&site, build)).collect();
    let mut numbers = Numbers::new();
    let mut killed = 0;
    for round in 0..ROUNDS {
        let choice = usize::try_from(round).unwrap() % builds.len();
        let (build, whole) = (&builds[choice], wholes[choice]);
        let (before, delay) = (versions(&site), numbers.delay(whole));
        println!("round {round}: {build:?} killed after {delay:?} of {whole:?}");
        let was_killed = kill_after(&site, delay, build);
        killed += u64::from(was_killed);
        assert_one_more_at_most(&site, before, was_killed);
        succeed(&site, build);
    }
    assert!(killed > ROUNDS / 3, "only {killed} builds were killed");
    assert_nothing_half(&site);
}

#[test]
fn a_bootstrap_of_debian_that_is_killed_at_random_moments() {
    if std::env::var_os("NETROOT_LONG_TESTS").is_none() {
        println!("left out: takes a quarter of an hour (cargo xtask test --long)");
        return;
    }
    let site = Site::new();
    let build = ["image", "build", "deb12", "--from", "debian:bookworm"];
    let mut numbers = Numbers::new();
    for round in 0..LONG_ROUNDS {
        let delay = numbers.delay(LONGEST);
        let before = versions(&site);
        println!("round {round}: killed after {delay:?}");
        let killed = kill_after(&site, delay, &build);
        let at = said(&site).lines().last().unwrap_or_default().to_owned();
        println!("round {round}: killed: {killed}, at: {at}");
        assert_one_more_at_most(&site, before, killed);
    }
    succeed(&site, &build);
    assert_nothing_half(&site);
}
