//! Jobs as a worker does them: a process of its own, ended, killed and told to stop.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use netroot::build::FileSystem;
use netroot::library::{
    Actor, BuildTask, DiffTask, Job, JobId, JobOutcome, JobState, PromoteTask, Task, UpdateTask,
    UpgradeTask, VerifyTask,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::promotes::{Left, MAC, as_the_client, site_with_client};
use crate::recipes::site_with_recipe;
use crate::site::Site;

const LIMIT: Duration = Duration::from_secs(60);

/// A worker in a process of its own, ended with its guard.
struct Worker(Child);

impl Worker {
    fn start(site: &Site, arguments: &[&str]) -> Self {
        let said = File::create(site.path("said")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_netroot"))
            .arg("--library")
            .arg(site.path("library"))
            .arg("worker")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Does what waits.
    fn once(site: &Site) {
        let status = Self::start(site, &["--once"]).0.wait().unwrap();
        let said = fs::read_to_string(site.path("said")).unwrap();
        assert!(status.success(), "{said}");
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that has ended cannot be killed, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn queue(site: &Site, task: Task) -> JobId {
    site.library.queue_job(task, &Actor::command()).unwrap().id
}

fn build_task(image: &str) -> Task {
    Task::Build(BuildTask {
        image: image.parse().unwrap(),
        from: "tiny:1".parse().unwrap(),
        packages: vec!["vim".parse().unwrap()],
        hostname: Some("lab".parse().unwrap()),
        authorized_keys: Vec::new(),
        filesystem: FileSystem::Ext4,
        size: None,
    })
}

fn update() -> Task {
    let image = "one".parse().unwrap();
    Task::Update(UpdateTask { image, size: None })
}

/// What a job came to, its log if it did not.
fn outcome(site: &Site, id: JobId) -> JobOutcome {
    match site.library.job(id).unwrap().state {
        JobState::Done { result, .. } => result,
        state => panic!("{state:?}\n{}", log(site, id)),
    }
}

fn version(site: &Site, id: JobId) -> String {
    match outcome(site, id) {
        JobOutcome::Version { version, .. } => version.to_string(),
        other => panic!("{other:?}"),
    }
}

fn log(site: &Site, id: JobId) -> String {
    site.library.job_log(id, 0).unwrap().text
}

fn wait_for(site: &Site, id: JobId, what: &str, is: impl Fn(&Job) -> bool) -> Job {
    let began = Instant::now();
    loop {
        let job = site.library.job(id).unwrap();
        if is(&job) {
            return job;
        }
        let said = fs::read_to_string(site.path("said")).unwrap();
        assert!(
            began.elapsed() < LIMIT,
            "waited in vain for {what}: {job:?}\n{}\n{said}",
            log(site, id)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A library with `one@1`, whose updates take more than a minute.
fn site_with_slow_updates(seconds: &str) -> Site {
    let site = site_with_recipe();
    queue(&site, build_task("one"));
    Worker::once(&site);
    let path = site.path("library/recipes/tiny.toml");
    let recipe = fs::read_to_string(&path).unwrap();
    let slow = format!("echo begun; sleep {seconds}; echo updated");
    fs::write(&path, recipe.replace("echo updated", &slow)).unwrap();
    site
}

fn wait_until_it_sleeps(site: &Site, id: JobId) {
    wait_for(site, id, "the update to begin", |_| {
        log(site, id).contains("  begun\n")
    });
}

fn sleeps(seconds: &str) -> bool {
    let words = format!("^sleep {}", seconds.replace('.', "[.]"));
    let found = Command::new("pgrep").args(["-f", &words]).output();
    found.unwrap().status.success()
}

#[test]
fn a_worker_builds_updates_upgrades_compares_and_verifies() {
    let site = site_with_recipe();
    let mut task = build_task("one");
    if let Task::Build(task) = &mut task {
        task.filesystem = FileSystem::Xfs;
    }
    let build = queue(&site, task);
    Worker::once(&site);
    assert_eq!(version(&site, build), "one@1");
    let said = log(&site, build);
    assert!(said.contains("* preparing tiny 1\n"), "{said}");
    assert!(said.contains("* hashing one\n"), "{said}");
    let one = site.version("one");
    assert_eq!(one.manifest().facts.filesystem.kind, "xfs");
    site.look_into(&one, |root| {
        let text = |path| fs::read_to_string(root.join(path)).unwrap();
        assert_eq!(text("root/packages"), "vim\n");
        assert_eq!(text("etc/hostname"), "lab\n");
    });
    let updated = queue(&site, update());
    let upgraded = queue(
        &site,
        Task::Upgrade(UpgradeTask {
            from: "one@1".parse().unwrap(),
            to: "two".parse().unwrap(),
            release: "2".parse().unwrap(),
            size: Some("1.5x".parse().unwrap()),
        }),
    );
    Worker::once(&site);
    assert_eq!(version(&site, updated), "one@2");
    assert_eq!(version(&site, upgraded), "two@1");
    assert!(site.version("two").manifest().disk.size > one.manifest().disk.size);
    let (a, b) = ("one@1".parse().unwrap(), "one@2".parse().unwrap());
    let diff = queue(&site, Task::Diff(DiffTask { a, b }));
    let version = "one@2".parse().unwrap();
    let verified = queue(&site, Task::Verify(VerifyTask { version }));
    Worker::once(&site);
    assert!(matches!(outcome(&site, diff), JobOutcome::Report { bytes } if bytes > 0));
    let report: Value = serde_json::from_slice(&site.library.job_report(diff).unwrap()).unwrap();
    let changed = report["files"]["changed"].as_array().unwrap();
    let paths: Vec<&str> = changed
        .iter()
        .filter_map(|one| one["path"].as_str())
        .collect();
    assert!(paths.contains(&"root/changes"), "{paths:?}");
    assert!(matches!(
        outcome(&site, verified),
        JobOutcome::Verdict { damage: None, .. }
    ));
    site.assert_clean();
}

#[test]
fn a_promotion_is_looked_at_before_it_is_done() {
    let site = site_with_client(FileSystem::Ext4);
    as_the_client(&site, Left::ShutDown, |root| {
        fs::write(root.join("root/made-by-client"), "x").unwrap();
    });
    let task = PromoteTask {
        client: MAC.parse().unwrap(),
        image: "tools".parse().unwrap(),
    };
    let preview = queue(&site, Task::PreviewPromotion(task.clone()));
    Worker::once(&site);
    let report: Value = match outcome(&site, preview) {
        JobOutcome::Report { .. } => {
            serde_json::from_slice(&site.library.job_report(preview).unwrap()).unwrap()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(report["from"], "fc28@1");
    let added = report["changes"]["files"]["added"].as_array().unwrap();
    assert!(
        added.iter().any(|one| one["path"] == "root/made-by-client"),
        "{added:?}"
    );
    assert_eq!(site.library.images().unwrap().len(), 1, "nothing was made");
    site.assert_clean();
    let promoted = queue(&site, Task::Promote(task));
    Worker::once(&site);
    assert_eq!(version(&site, promoted), "tools@1");
}

#[test]
fn a_job_that_fails_says_why_and_stops_no_other() {
    let site = site_with_recipe();
    let mut unknown = build_task("one");
    if let Task::Build(task) = &mut unknown {
        task.from = "nosuch:1".parse().unwrap();
    }
    let failed = queue(&site, unknown);
    let done = queue(&site, build_task("one"));
    Worker::once(&site);
    match site.library.job(failed).unwrap().state {
        JobState::Failed { why, .. } => assert!(why.contains("no recipe for `nosuch`"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(log(&site, failed).contains("! "), "{}", log(&site, failed));
    assert_eq!(version(&site, done), "one@1");
}

#[test]
fn a_job_is_cancelled_while_it_runs() {
    let site = site_with_slow_updates("75.3");
    let id = queue(&site, update());
    let _worker = Worker::start(&site, &[]);
    wait_until_it_sleeps(&site, id);
    let running = wait_for(&site, id, "progress", |job| job.progress.is_some());
    assert!(running.progress.unwrap().step > 1);
    site.library.cancel_job(id, &Actor::command()).unwrap();
    let job = wait_for(&site, id, "the end", |job| job.state.is_final());
    assert_eq!(job.state.word(), "cancelled");
    assert!(!sleeps("75.3"), "a child of the job runs on");
    site.assert_clean();
    assert_eq!(site.version("one").id().number, 1);
}

#[test]
fn a_worker_that_is_told_to_end_leaves_its_job_to_the_next() {
    let site = site_with_slow_updates("76.4");
    let id = queue(&site, update());
    let mut worker = Worker::start(&site, &[]);
    wait_until_it_sleeps(&site, id);
    worker.signal(Signal::SIGTERM);
    assert!(worker.0.wait().unwrap().success());
    assert!(!sleeps("76.4"), "a child of the job runs on");
    // No sweep before this: nothing was left for it.
    site.assert_clean();
    assert_eq!(site.library.job(id).unwrap().state, JobState::Queued);
    let path = site.path("library/recipes/tiny.toml");
    let recipe = fs::read_to_string(&path).unwrap();
    fs::write(&path, recipe.replace("sleep 76.4", ":")).unwrap();
    Worker::once(&site);
    assert_eq!(version(&site, id), "one@2");
}

#[test]
fn a_worker_that_is_killed_has_failed() {
    let site = site_with_slow_updates("77.5");
    let id = queue(&site, update());
    let next = queue(&site, update());
    let mut worker = Worker::start(&site, &[]);
    wait_until_it_sleeps(&site, id);
    worker.signal(Signal::SIGKILL);
    worker.0.wait().unwrap();
    // A program that was being started has the lock for a moment.
    let began = Instant::now();
    while site.library.settle_jobs().unwrap() != [id] {
        assert!(began.elapsed() < LIMIT, "nobody noticed");
        std::thread::sleep(Duration::from_millis(20));
    }
    match site.library.job(id).unwrap().state {
        JobState::Failed { why, .. } => assert!(why.contains("worker was killed"), "{why}"),
        other => panic!("{other:?}"),
    }
    while sleeps("77.5") {
        assert!(began.elapsed() < LIMIT, "a child of the job runs on");
        std::thread::sleep(Duration::from_millis(20));
    }
    let path = site.path("library/recipes/tiny.toml");
    let recipe = fs::read_to_string(&path).unwrap();
    fs::write(&path, recipe.replace("sleep 77.5", ":")).unwrap();
    Worker::once(&site);
    // The next one is done, after what the killed one left was cleaned up.
    assert_eq!(version(&site, next), "one@2");
    site.assert_clean();
}

/// Whoever owns a library runs its server, and has to read and remove what root built there.
#[test]
fn what_root_makes_in_the_library_of_somebody_else_is_theirs() {
    const SOMEBODY: u32 = 65534;
    let site = site_with_recipe();
    let library = site.path("library");
    for entry in walkdir::WalkDir::new(&library) {
        let path = entry.unwrap().into_path();
        if path != site.path("library/recipes/tiny.toml") {
            chown(path, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
        }
    }
    let build = queue(&site, build_task("one"));
    Worker::once(&site);
    assert_eq!(version(&site, build), "one@1");
    for entry in walkdir::WalkDir::new(&library) {
        let entry = entry.unwrap();
        if entry.file_name() != "tiny.toml" {
            let owner = entry.metadata().unwrap().uid();
            assert_eq!(owner, SOMEBODY, "{}", entry.path().display());
        }
    }
    // A recipe that is not root's would make somebody root.
    let recipe = library.join("recipes/tiny.toml");
    fs::set_permissions(&recipe, fs::Permissions::from_mode(0o666)).unwrap();
    let refused = queue(&site, build_task("one"));
    Worker::once(&site);
    match site.library.job(refused).unwrap().state {
        JobState::Failed { why, .. } => assert!(why.contains("others than root"), "{why}"),
        other => panic!("{other:?}"),
    }
}
