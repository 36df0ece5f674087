//! libiscsi's own suite, `iscsi-test-cu`, against volumes that `netroot serve` publishes at two portals.
//!
//! What is not expected to pass stands in `libiscsi/*.txt`, with its reason; whatever differs from the
//! lists, in whichever direction, fails.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use self::expected::differences;
use self::output::{Report, Transcript, Verdict, parse};
use super::server::{SHARED, Server};

mod expected;
mod output;

const NETROOT: &str = env!("CARGO_BIN_EXE_netroot");
/// Tests of libiscsi 1.19.0 in the family that has all.
const ALL: usize = 230;
/// No more of these are skipped on a thin disk of 512-byte blocks; its list says why each is.
const MOST_SKIPPED: usize = 20;
/// A test that says nothing for so long hangs: the longest sleeps for a minute.
const SILENCE: Duration = Duration::from_secs(240);
/// Nothing runs longer, however much it says.
const LONGEST: Duration = Duration::from_secs(900);

/// A run of the tool on a volume of its own.
struct Run {
    /// The volume, and what it is added with.
    volume: &'static str,
    options: &'static [&'static str],
    /// The tool's own options.
    flags: &'static [&'static str],
    /// How many of the two portals the tool is told of.
    paths: usize,
    tests: &'static str,
    list: &'static str,
}

/// Initiators are told of blocks of 4096 bytes behind those of 512 unless they are told otherwise, and
/// one of the tests cannot do with that (see the lists); others want just that. So there are both.
const RUNS: [Run; 8] = [
    Run {
        volume: "thin-512",
        options: &["--physical-block-size", "512", "--allow-sanitize"],
        flags: &["-d", "-S"],
        paths: 2,
        tests: "ALL",
        list: include_str!("libiscsi/thin-512.txt"),
    },
    Run {
        volume: "thin-4096",
        options: &["--block-size", "4096", "--allow-sanitize"],
        flags: &["-d", "-S"],
        paths: 2,
        tests: "ALL",
        list: include_str!("libiscsi/thin-4096.txt"),
    },
    Run {
        volume: "one-path",
        options: &["--physical-block-size", "512", "--allow-sanitize"],
        flags: &["-d", "-S"],
        paths: 1,
        tests: "ALL",
        list: include_str!("libiscsi/one-path.txt"),
    },
    Run {
        volume: "read-only",
        options: &["--read-only"],
        flags: &[],
        paths: 2,
        tests: "ALL",
        list: include_str!("libiscsi/read-only.txt"),
    },
    Run {
        volume: "protected",
        options: &["--read-only"],
        flags: &["-d"],
        paths: 2,
        tests: "ALL.ReadOnly",
        list: "",
    },
    Run {
        volume: "linux",
        options: &[],
        flags: &["-d", "-S"],
        paths: 2,
        tests: "LINUX",
        list: include_str!("libiscsi/linux.txt"),
    },
    Run {
        volume: "scsi",
        options: &[],
        flags: &["-d", "-S"],
        paths: 2,
        tests: "SCSI",
        list: include_str!("libiscsi/scsi.txt"),
    },
    Run {
        volume: "iscsi",
        options: &[],
        flags: &["-d", "-S"],
        paths: 2,
        tests: "iSCSI",
        list: "",
    },
];

#[test]
fn libiscsis_own_suite_finds_nothing_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let all = names("ALL");
    assert_eq!(all.len(), ALL, "this is another version of libiscsi");
    let served = Served::start(dir.path());
    let runs: Vec<(&Run, Result<Report, String>)> = thread::scope(|scope| {
        let begun = RUNS
            .each_ref()
            .map(|run| (run, scope.spawn(|| served.run(run))));
        begun
            .map(|(run, thread)| (run, thread.join().unwrap()))
            .into()
    });
    let log = served.stop();
    let mut wrong = Vec::new();
    for (run, result) in runs {
        let found = match result {
            Err(error) => vec![error],
            Ok(report) => {
                tell(run, &report);
                let skipped = report.count(Verdict::Skipped);
                let few = run.volume != "thin-512" || skipped <= MOST_SKIPPED;
                assert!(few, "{skipped} tests are skipped");
                differences(&report, &names(run.tests), run.list)
            }
        };
        wrong.extend(
            found
                .iter()
                .map(|what| format!("{} on {}: {what}", run.tests, run.volume)),
        );
    }
    assert!(!log.contains("panicked"), "{log}");
    assert!(
        wrong.is_empty(),
        "{}\n\n{}",
        wrong.join("\n"),
        output::tail(&log)
    );
}

/// A clone has from its version's file what it has not written yet.
#[tokio::test]
async fn nor_with_a_disk_that_shares_its_bytes() {
    let server = Server::start().await;
    let portals = [server.v4.port(), server.dual.port()];
    let urls = portals.map(|port| format!("iscsi://127.0.0.1:{port}/{SHARED}/1"));
    let run = Run {
        volume: "shared",
        options: &[],
        flags: &["-d", "-S"],
        paths: 2,
        tests: "SCSI",
        list: concat!(
            include_str!("libiscsi/scsi.txt"),
            "skip WriteAtomic16.*: clones have no journal, by which writes are atomic\n"
        ),
    };
    let (run, report) = tokio::task::spawn_blocking(move || {
        let report = run.play(urls.into_iter());
        (run, report)
    })
    .await
    .unwrap();
    let report = report.unwrap();
    tell(&run, &report);
    let wrong = differences(&report, &names(run.tests), run.list);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    server.stop().await;
}

/// The tests that a part of the suite has, without the name of their family.
fn names(tests: &str) -> Vec<String> {
    let listed = Command::new("iscsi-test-cu").arg("--list").output();
    let listed = listed
        .expect("iscsi-test-cu is missing: install libiscsi-bin")
        .stdout;
    let is_in = |name: &str| name == tests || name.starts_with(&format!("{tests}."));
    let listed = String::from_utf8(listed).unwrap();
    let of_three = listed.lines().filter(|name| name.split('.').count() == 3);
    let names = of_three.filter(|name| is_in(name));
    names
        .map(|name| name.split_once('.').unwrap().1.to_owned())
        .collect()
}

/// A table for whoever reads what CI has printed: past what keeps the output of tests that pass.
fn tell(run: &Run, report: &Report) {
    let count = |verdict| report.count(verdict);
    let all: Duration = report.tests.values().map(|test| test.took).sum();
    let mut slow: Vec<_> = report.tests.iter().collect();
    slow.sort_by_key(|(_, test)| std::cmp::Reverse(test.took));
    let slow: Vec<String> = slow
        .iter()
        .take(3)
        .map(|(name, test)| format!("{name} {:.0}", test.took.as_secs_f64()))
        .collect();
    let line = format!(
        "iscsi-test-cu {:<18} {:<10} {:>3} passed {:>3} failed {:>3} skipped {:>4.0} s (most: {})\n",
        run.tests,
        run.volume,
        count(Verdict::Passed),
        count(Verdict::Failed),
        count(Verdict::Skipped),
        all.as_secs_f64(),
        slow.join(", "),
    );
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// A server with a volume for each run.
struct Served {
    child: Child,
    log: std::path::PathBuf,
    portals: [String; 2],
    prefix: String,
}

impl Served {
    fn start(dir: &Path) -> Self {
        let (library, own) = (dir.join("lib"), dir.join("own.toml"));
        let netroot = |args: &[&str]| {
            let mut command = Command::new(NETROOT);
            command
                .arg("--library")
                .arg(&library)
                .arg("--config")
                .arg(&own);
            command.args(args).stdin(Stdio::null());
            command
        };
        let ok = |args: &[&str]| {
            let output = netroot(args).output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{args:?}: {told}");
            output.stdout
        };
        let listen = "[iscsi]\nlisten = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\n\
                      [boot]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = [\"127.0.0.1:0\"]\n";
        fs::write(&own, "").unwrap();
        ok(&["init", "--host", "server-01.example.edu"]);
        fs::write(&own, listen).unwrap();
        for run in &RUNS {
            let add = ["volume", "add", run.volume, "--allow", "any"];
            // What is never written has to be there before.
            let file = dir.join(run.volume);
            if run.options.contains(&"--read-only") {
                fs::File::create(&file).unwrap().set_len(1 << 30).unwrap();
                ok(&[&add[..], &["--file", file.to_str().unwrap()], run.options].concat());
            } else {
                ok(&[&add[..], &["--size", "1G"], run.options].concat());
            }
        }
        let shown: Value =
            serde_json::from_slice(&ok(&["--json", "volume", "show", "thin-512"])).unwrap();
        let prefix = shown["iqn"]
            .as_str()
            .unwrap()
            .strip_suffix("thin-512")
            .unwrap()
            .to_owned();
        let log = dir.join("log");
        let mut child = netroot(&["--json", "serve"])
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let ready = BufReader::new(child.stdout.take().unwrap()).lines().next();
        let ready: Value = serde_json::from_str(&ready.unwrap().unwrap()).unwrap();
        let portal = |i: usize| ready["iscsi"][i].as_str().unwrap().to_owned();
        Served {
            child,
            log,
            portals: [portal(0), portal(1)],
            prefix,
        }
    }

    /// Runs the tool on a volume.
    fn run(&self, run: &Run) -> Result<Report, String> {
        let url = |portal| format!("iscsi://{portal}/{}{}/1", self.prefix, run.volume);
        run.play(self.portals.iter().take(run.paths).map(url))
    }

    /// Ends the server, and gives what it has logged.
    fn stop(mut self) -> String {
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Run {
    /// Runs the tool on a disk behind these paths.
    fn play(&self, urls: impl Iterator<Item = String>) -> Result<Report, String> {
        let (mut reader, writer) = pipe().unwrap();
        // Without a server the tool tries for ever: it ends with whoever has started it. Unbuffered, so
        // that the name of a test is here before its end.
        let mut tool = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "stdbuf", "-o0", "iscsi-test-cu"])
            .args(self.flags)
            .args(["-t", self.tests])
            .args(urls)
            .stdin(Stdio::null())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .spawn()
            .unwrap();
        let began = Instant::now();
        let (sender, pieces) = mpsc::channel();
        let reading = thread::spawn(move || {
            let mut buffer = [0; 64 * 1024];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                if sender
                    .send((buffer[..n].to_vec(), began.elapsed()))
                    .is_err()
                {
                    return;
                }
            }
        });
        let mut transcript = Transcript::default();
        let hung = loop {
            match pieces.recv_timeout(SILENCE) {
                Ok((bytes, at)) => transcript.push(&bytes, at),
                Err(mpsc::RecvTimeoutError::Disconnected) => break false,
                Err(mpsc::RecvTimeoutError::Timeout) => break true,
            }
            if began.elapsed() > LONGEST {
                break true;
            }
        };
        if hung {
            let _ = tool.kill();
        }
        tool.wait().unwrap();
        drop(pieces);
        reading.join().unwrap();
        match hung {
            true => Err(format!("{} hangs", transcript.current())),
            false => parse(&transcript),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Only where a test failed before it stopped the server.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
