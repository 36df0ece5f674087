//! Jobs and events on the command line and over the API; a server without root, a worker with it.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;

use super::*;

/// `nobody` of Debian: owns nothing, may do nothing.
const NOBODY: u32 = 65534;

/// Status, head and body of an answer of the control socket.
fn call(site: &Site, method: &str, path: &str, body: &str) -> (u16, String, String) {
    let mut stream = UnixStream::connect(site.library.join("control.sock")).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), text.to_owned())
}

fn state(site: &Site, id: u64) -> String {
    let job = site.json(&["job", "show", &id.to_string()]);
    job["state"]["is"].as_str().unwrap().to_owned()
}

#[test]
fn jobs_wait_for_a_worker_with_and_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc28", "5.10.1");
    site.build("fc28", "5.10.2");
    let verify = ["image", "verify", "fc28@1", "--queue"];
    assert_eq!(site.json(&verify)["id"], 1);
    assert!(site.ok(&verify).contains("queued as job 2: verify fc28@1"));
    let table = site.ok(&["job", "list"]);
    assert!(table.contains("2   queued  verify fc28@1"), "{table}");
    assert!(
        site.ok(&["job", "cancel", "2", "--dry-run"])
            .contains("would stop job 2")
    );
    assert_eq!(state(&site, 2), "queued");
    assert!(
        site.ok(&["job", "cancel", "2"])
            .contains("job 2 is cancelled")
    );
    site.ok(&["worker", "--once"]);
    assert_eq!(
        (state(&site, 1), state(&site, 2)),
        ("done".into(), "cancelled".into())
    );
    let shown = site.ok(&["job", "show", "1"]);
    assert!(shown.contains("found       fc28@1 is whole"), "{shown}");
    assert!(
        site.ok(&["job", "log", "1"])
            .contains("* checking the file system of fc28@1")
    );

    let server = site.serve();
    site.ok(&["image", "diff", "fc28", "--queue"]);
    let mut worker = site
        .command(&["worker"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let said = site.ok(&["job", "log", "3", "--follow"]);
    assert!(
        said.starts_with("* comparing fc28@1 with fc28@2\n"),
        "{said}"
    );
    let report = site.json(&["job", "report", "3"]);
    assert_eq!(report["to"], "fc28@2");
    let id = nix::unistd::Pid::from_raw(i32::try_from(worker.id()).unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(worker.wait().unwrap().success());
    let again = site.run(&["job", "cancel", "3"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        stderr(&again).contains("it is done already"),
        "{}",
        stderr(&again)
    );
    server.stop();
    site.remove();
}

#[test]
fn what_a_job_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc28", "5.10.1");
    for refused in [
        &["image", "build", "lab", "--from", "/", "--queue"][..],
        &[
            "image",
            "build",
            "lab",
            "--from",
            "debian:12",
            "--run",
            "id",
            "--queue",
        ],
        &[
            "image",
            "build",
            "lab",
            "--from",
            "debian:12",
            "--package",
            "-o",
            "--queue",
        ],
        &["image", "update", "fc28", "--no-scrub", "--queue"],
        &["image", "upgrade", "fc28", "fc29", "--queue", "--", "true"],
        &["image", "update", "fc29", "--queue"],
        &["image", "verify", "fc28@7", "--queue"],
        &["client", "promote", MAC, "tools", "--queue", "--yes"],
        &["job", "show", "1"],
    ] {
        let output = site.run(refused);
        assert!(!output.status.success(), "{refused:?}");
        assert!(stderr(&output).contains(": "), "{refused:?}");
    }
    let plan = [
        "image",
        "build",
        "lab",
        "--from",
        "debian:12",
        "--queue",
        "--dry-run",
    ];
    assert!(
        site.ok(&plan)
            .contains("would queue: build lab from debian:12")
    );
    assert_eq!(site.json(&["job", "list"]), Value::Array(vec![]));
    site.remove();
}

#[test]
fn the_api_has_jobs_and_events() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc28", "5.10.1");
    let server = site.serve();
    let task = r#"{"task":"verify","version":"fc28@1"}"#;
    let (status, head, job) = call(&site, "POST", "/api/v1/jobs", task);
    assert_eq!(status, 201, "{job}");
    assert!(head.contains("location: /api/v1/jobs/1"), "{head}");
    let job: Value = serde_json::from_str(&job).unwrap();
    assert_eq!(job["by"]["socket"]["uid"], 0);
    let status = |method, path, body| call(&site, method, path, body).0;
    for wrong in [
        r#"{"task":"exec","command":["id"]}"#,
        r#"{"task":"build","image":"lab","from":"/etc"}"#,
        r#"{"task":"verify","version":"fc28@1","command":"id"}"#,
        "{",
    ] {
        assert_eq!(status("POST", "/api/v1/jobs", wrong), 400, "{wrong}");
    }
    let missing = r#"{"task":"verify","version":"fc28@9"}"#;
    assert_eq!(status("POST", "/api/v1/jobs", missing), 404);
    assert_eq!(status("GET", "/api/v1/jobs/9", ""), 404);
    assert_eq!(status("GET", "/api/v1/jobs/1/report", ""), 409);
    assert_eq!(status("GET", "/api/v1/jobs/1/log?from=-1", ""), 400);
    assert_eq!(status("GET", "/api/v1/jobs/1/log?from=99999", ""), 200);
    assert_eq!(status("POST", "/api/v1/jobs/1/cancel", ""), 200);
    assert_eq!(status("POST", "/api/v1/jobs/1/cancel", ""), 409);

    // Fields that were left empty are no conditions, as forms send them.
    let path = "/api/v1/events?what=job-&who=&since=1h&until=&limit=1";
    let (_, _, page) = call(&site, "GET", path, "");
    let page: Value = serde_json::from_str(&page).unwrap();
    assert_eq!(page["events"][0]["what"], "job-cancel");
    assert_eq!(page["events"][0]["details"]["job"], 1);
    let next = format!("{path}&after={}", page["next"].as_str().unwrap());
    let (_, _, page) = call(&site, "GET", &next, "");
    let page: Value = serde_json::from_str(&page).unwrap();
    assert_eq!(page["events"][0]["what"], "job-queue");
    assert_eq!(status("GET", "/api/v1/events?since=yesterday", ""), 400);
    assert_eq!(status("GET", "/api/v1/events?wo=x", ""), 400);
    let (_, head, text) = call(&site, "GET", "/api/v1/events.csv?what=job-", "");
    assert!(
        head.contains("text/csv") && head.contains("events.csv"),
        "{head}"
    );
    assert!(text.contains("at,server,by,what,to,details\r\n"), "{text}");
    assert!(text.contains(",job-queue,fc28@1,"), "{text}");
    let (_, _, lines) = call(&site, "GET", "/api/v1/events.jsonl?what=job-", "");
    assert_eq!(lines.matches("\"what\":\"job-").count(), 2, "{lines}");

    // The same by commands, from the server and without it.
    let kinds = |site: &Site| -> Vec<String> {
        let events = site.json(&["event", "list", "--what", "job-", "--since", "1h"]);
        let events = events.as_array().unwrap().iter();
        events
            .map(|event| event["what"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(kinds(&site), ["job-cancel", "job-queue"]);
    server.stop();
    assert_eq!(kinds(&site), ["job-cancel", "job-queue"]);
    let csv = site.ok(&["event", "export", "--format", "csv", "-q", "VERIFY FC28"]);
    assert_eq!(csv.lines().count(), 3, "{csv}");
    let table = site.ok(&["event", "list", "--to", "fc28@1", "-n", "1"]);
    assert!(table.contains("job-cancel  fc28@1"), "{table}");
    site.remove();
}

/// Runs a command as nobody.
fn as_nobody(command: &mut Command) -> &mut Command {
    command.uid(NOBODY).gid(NOBODY).env("HOME", "/nonexistent")
}

#[test]
fn a_server_needs_no_root_and_serves_what_root_built() {
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    open(dir.path());
    // Where the program was built need not be a place that everybody may look into.
    let netroot = dir.path().join("netroot");
    fs::copy(NETROOT, &netroot).unwrap();
    open(&netroot);
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    let site = Site::new(&home);
    for entry in walkdir::WalkDir::new(&home) {
        chown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    site.build("fc28", "5.10.1");
    site.build("fc28", "5.10.2");
    let add = [
        "client",
        "add",
        MAC,
        "--image",
        "fc28@1",
        "--mode",
        "persistent",
        "--name",
        "lab-07",
    ];
    site.ok(&add);

    let mut command = Command::new(&netroot);
    command
        .arg("--library")
        .arg(&site.library)
        .arg("--config")
        .arg(&site.config);
    command.args(["--json", "serve"]).stdin(Stdio::null());
    let mut child = as_nobody(&mut command)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ready = BufReader::new(child.stdout.take().unwrap()).lines().next();
    let ready = ready.unwrap_or_else(|| {
        panic!(
            "{}",
            std::io::read_to_string(child.stderr.take().unwrap()).unwrap()
        )
    });
    let ready: Value = serde_json::from_str(&ready.unwrap()).unwrap();
    let door = |name: &str| ready[name][0].as_str().unwrap().to_owned();
    let server = Server {
        boot: door("boot"),
        iscsi: door("iscsi"),
        child,
    };

    // What root built and cloned is served: the version to anybody, the clone to its client.
    let targets = site.json(&["target", "list"]);
    let version = targets.as_array().unwrap().iter().find_map(|target| {
        let name = target["target"].as_str().unwrap();
        name.ends_with("fc28.2").then(|| name.to_owned())
    });
    drop(server.log_in("iqn.2026-01.edu.example:anybody", &version.unwrap()));
    let (status, cfg) = server.get(&format!("/boot.cfg?mac={MAC}"));
    assert_eq!(status, 200, "{cfg}");
    let word = |begin: &str| {
        let word = cfg
            .split_whitespace()
            .find_map(|word| word.strip_prefix(begin));
        word.unwrap_or_else(|| panic!("no {begin} in {cfg}"))
            .to_owned()
    };
    let initiator = word("rd.iscsi.initiator=");
    let target = word("netroot=iscsi:");
    let target = &target[target.find("iqn.").unwrap()..];
    drop(server.log_in(&initiator, target));

    // What the server asks for, the worker does; what it made the server removes.
    site.ok(&["image", "verify", "fc28@2", "--queue"]);
    let job = site.library.join("jobs/1.json");
    assert_eq!(job.metadata().unwrap().uid(), NOBODY);
    site.ok(&["worker", "--once"]);
    assert_eq!(state(&site, 1), "done");
    site.build("tools", "5.10.3");
    site.ok(&["image", "remove", "tools", "--yes"]);
    assert!(!site.library.join("images/tools").exists());
    // And it starts no jobs itself, nor does anybody without root.
    let mut worker = Command::new(&netroot);
    worker
        .arg("--library")
        .arg(&site.library)
        .args(["worker", "--once"]);
    let refused = as_nobody(&mut worker).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("needs root"),
        "{}",
        stderr(&refused)
    );
    let log = server.stop();
    assert!(!log.contains("ERROR"), "{log}");
}
