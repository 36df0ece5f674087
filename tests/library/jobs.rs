//! Jobs: queued, claimed by one worker, ended in one way, and told when their worker is gone.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Mutex;

use netroot::library::*;

use crate::lab::{Lab, refused};

fn verify(lab: &Lab, version: &str) -> Result<Job> {
    let version = version.parse()?;
    let task = Task::Verify(VerifyTask { version });
    lab.lib.queue_job(task, &Actor::command())
}

fn lab() -> Lab {
    let lab = Lab::new();
    lab.seal("fc28", "one");
    lab
}

fn whole() -> Ending {
    Ending::Done(JobOutcome::Verdict {
        version: "fc28@1".parse().unwrap(),
        damage: None,
    })
}

#[test]
fn a_job_goes_from_its_queue_to_its_end() {
    let lab = lab();
    let job = verify(&lab, "fc28@1").unwrap();
    assert_eq!((job.id.number(), job.state.word()), (1, "queued"));
    let claim = lab.lib.claim_job("worker-1").unwrap().unwrap();
    assert_eq!(claim.job().id, job.id);
    assert!(lab.lib.claim_job("worker-2").unwrap().is_none());
    claim.log_step("hashing fc28@1");
    claim.log_line("a program's line\x1b[2J");
    let says = "hashing fc28@1".to_owned();
    let progress = JobProgress {
        step: 1,
        says,
        fraction: Some(0.5),
    };
    claim.show_progress(&progress);
    let running = lab.lib.job(job.id).unwrap();
    assert_eq!(running.progress, Some(progress));
    assert!(matches!(&running.state, JobState::Running { worker, .. } if worker == "worker-1"));
    let part = lab.lib.job_log(job.id, 0).unwrap();
    assert_eq!(
        part.text,
        "* hashing fc28@1\n  a program's line\u{fffd}[2J\n"
    );
    assert!(!part.ended);
    let done = claim.finish(whole()).unwrap();
    assert_eq!(done.state.word(), "done");
    assert_eq!(
        lab.lib.job(job.id).unwrap(),
        done,
        "no progress after the end"
    );
    let rest = lab.lib.job_log(job.id, part.next).unwrap();
    assert_eq!((rest.text.as_str(), rest.ended), ("", true));
    assert!(refused(lab.lib.cancel_job(job.id, &Actor::command())).contains("done already"));
    assert!(refused(lab.lib.job_report(job.id)).contains("has none"));
}

#[test]
fn what_could_only_fail_is_refused_at_once() {
    let lab = lab();
    assert!(matches!(
        verify(&lab, "fc28@2"),
        Err(Error::NoVersion { .. })
    ));
    assert!(matches!(verify(&lab, "fc29@1"), Err(Error::Unknown { .. })));
    for _ in 0..100 {
        verify(&lab, "fc28@1").unwrap();
    }
    assert!(refused(verify(&lab, "fc28@1")).contains("100 jobs wait"));
    assert_eq!(lab.lib.jobs().unwrap().len(), 100);
}

#[test]
fn each_job_has_one_worker() {
    let lab = lab();
    for _ in 0..20 {
        verify(&lab, "fc28@1").unwrap();
    }
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for name in ["worker-1", "worker-2", "worker-3"] {
            let (lab, done) = (&lab, &done);
            scope.spawn(move || {
                while let Some(claim) = lab.lib.claim_job(name).unwrap() {
                    done.lock().unwrap().push(claim.job().id);
                    claim.finish(whole()).unwrap();
                }
            });
        }
    });
    let done = done.into_inner().unwrap();
    let distinct: BTreeSet<JobId> = done.iter().copied().collect();
    assert_eq!((done.len(), distinct.len()), (20, 20));
}

#[test]
fn a_job_is_cancelled_before_or_while_it_runs() {
    let lab = lab();
    let waiting = verify(&lab, "fc28@1").unwrap().id;
    let cancelled = lab.lib.cancel_job(waiting, &Actor::command()).unwrap();
    assert_eq!(cancelled.state.word(), "cancelled");
    assert!(lab.lib.claim_job("w").unwrap().is_none());
    let running = verify(&lab, "fc28@1").unwrap().id;
    let claim = lab.lib.claim_job("w").unwrap().unwrap();
    assert!(!claim.is_cancelled().unwrap());
    let asked = lab.lib.cancel_job(running, &Actor::command()).unwrap();
    assert_eq!((asked.state.word(), asked.cancel), ("running", true));
    assert!(claim.is_cancelled().unwrap());
    // Two say so at a time: that is no conflict.
    lab.lib.cancel_job(running, &Actor::command()).unwrap();
    claim.finish(Ending::Cancelled).unwrap();
    let job = lab.lib.job(running).unwrap();
    assert_eq!(job.state.word(), "cancelled");
    assert!(job.revision > asked.revision);
}

#[test]
fn a_worker_that_ends_leaves_its_job_to_the_next() {
    let lab = lab();
    let id = verify(&lab, "fc28@1").unwrap().id;
    let claim = lab.lib.claim_job("w").unwrap().unwrap();
    assert_eq!(claim.finish(Ending::Again).unwrap().state, JobState::Queued);
    let claim = lab.lib.claim_job("w").unwrap().unwrap();
    assert_eq!(claim.job().id, id);
    // Who cancelled it meanwhile does not see it run again.
    lab.lib.cancel_job(id, &Actor::command()).unwrap();
    assert_eq!(
        claim.finish(Ending::Again).unwrap().state.word(),
        "cancelled"
    );
}

#[test]
fn a_worker_that_is_gone_is_told() {
    let lab = lab();
    let id = verify(&lab, "fc28@1").unwrap().id;
    let claim = lab.lib.claim_job("w").unwrap().unwrap();
    assert!(lab.lib.settle_jobs().unwrap().is_empty(), "it is held");
    drop(claim);
    let swept = lab.lib.sweep().unwrap();
    assert_eq!(swept, [Swept::Job { id }]);
    assert_eq!(swept[0].to_string(), "job 1 failed: its worker was killed");
    match lab.lib.job(id).unwrap().state {
        JobState::Failed { why, .. } => assert!(why.contains("nothing half"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(lab.lib.sweep().unwrap().is_empty());
    // One whose log is gone as well.
    let id = verify(&lab, "fc28@1").unwrap().id;
    drop(lab.lib.claim_job("w").unwrap());
    fs::remove_file(lab.home().join(format!("jobs/{id}.log"))).unwrap();
    assert_eq!(lab.lib.settle_jobs().unwrap(), [id]);
}

#[test]
fn old_jobs_go_with_all_that_is_theirs_and_numbers_count_on() {
    let lab = lab();
    for number in 1..=205 {
        let job = verify(&lab, "fc28@1").unwrap();
        assert_eq!(job.id.number(), number);
        let claim = lab.lib.claim_job("w").unwrap().unwrap();
        claim.log_line("said");
        let report = claim.keep_report(b"{}").unwrap();
        claim.finish(Ending::Done(report)).unwrap();
    }
    verify(&lab, "fc28@1").unwrap();
    let jobs = lab.lib.jobs().unwrap();
    assert_eq!(jobs.len(), 201, "200 that are done, and one that waits");
    assert_eq!(jobs[0].id.number(), 206);
    let last = jobs.last().unwrap().id;
    assert_eq!(last.number(), 6);
    assert_eq!(lab.lib.job_report(last).unwrap(), b"{}");
    let files = fs::read_dir(lab.home().join("jobs")).unwrap();
    let old: Vec<_> = files
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("5."))
        .collect();
    assert!(old.is_empty(), "{old:?}");
}

#[test]
fn a_document_of_somebody_else_hides_no_job() {
    let lab = lab();
    verify(&lab, "fc28@1").unwrap();
    let jobs = lab.home().join("jobs");
    fs::write(jobs.join("2.json"), r#"{"task":"exec"}"#).unwrap();
    fs::write(jobs.join("x.json"), "{").unwrap();
    let third = verify(&lab, "fc28@1").unwrap();
    assert_eq!(third.id.number(), 3);
    let ids: Vec<u64> = lab
        .lib
        .jobs()
        .unwrap()
        .iter()
        .map(|job| job.id.number())
        .collect();
    assert_eq!(ids, [3, 1]);
    for id in [1, 3] {
        let claim = lab.lib.claim_job("w").unwrap().unwrap();
        assert_eq!(claim.job().id.number(), id);
        claim.finish(whole()).unwrap();
    }
    assert!(lab.lib.claim_job("w").unwrap().is_none());
}

#[test]
fn a_library_from_before_jobs_gets_their_place() {
    let lab = lab();
    fs::remove_dir(lab.home().join("jobs")).unwrap();
    assert!(lab.lib.jobs().unwrap().is_empty());
    assert!(lab.lib.claim_job("w").unwrap().is_none());
    assert!(matches!(
        lab.lib.job("1".parse().unwrap()),
        Err(Error::Unknown { .. })
    ));
    assert_eq!(verify(&lab, "fc28@1").unwrap().id.number(), 1);
}

/// Root works in the library of somebody who may not be trusted with root's files.
#[test]
fn root_follows_no_link_of_the_librarys_owner() {
    const OWNER: u32 = 65534;
    let lab = lab();
    verify(&lab, "fc28@1").unwrap();
    let root = lab.lib.root();
    // Somewhere that its owner reaches.
    let everybody = fs::Permissions::from_mode(0o755);
    fs::set_permissions(root.parent().unwrap(), everybody).unwrap();
    let give = |path: &Path| std::os::unix::fs::lchown(path, Some(OWNER), Some(OWNER)).unwrap();
    give(root);
    for dir in ["events", "jobs", "clients", "images", "images/fc28"] {
        give(&root.join(dir));
    }
    for entry in fs::read_dir(root.join("jobs")).unwrap() {
        give(&entry.unwrap().path());
    }
    // What is root's: a file, and a directory that only root may write to.
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "root's").unwrap();
    let link = |to: &Path, at: &Path| {
        symlink(to, at).unwrap();
        give(at);
    };
    // The events of today, by their file's name.
    let events: Vec<_> = fs::read_dir(root.join("events"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    for path in &events {
        fs::remove_file(path).unwrap();
        link(&victim, path);
    }
    assert!(!events.is_empty());
    let claim = lab.lib.claim_job("worker-1").unwrap().unwrap();
    let job = claim.job().clone();
    link(&victim, &root.join(format!("jobs/{}.progress.new", job.id)));
    claim.show_progress(&JobProgress {
        step: 1,
        says: "hashing".to_owned(),
        fraction: None,
    });
    claim.finish(whole()).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "root's");
    assert_eq!(fs::metadata(&victim).unwrap().uid(), 0);
    // What root made is the owner's.
    let document = root.join(format!("jobs/{}.json", job.id));
    assert_eq!(fs::metadata(&document).unwrap().uid(), OWNER);
    // A whole directory in another place: nothing is written there.
    fs::rename(root.join("jobs"), root.join("away")).unwrap();
    link(outside.path(), &root.join("jobs"));
    assert!(verify(&lab, "fc28@1").is_err());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}
