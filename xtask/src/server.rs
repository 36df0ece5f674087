//! netroot as its users meet it: a program with a library, which is asked by commands and runs `serve`
//! in the laboratory's network.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::netns::{BOOT_PORT, BRIDGE, Network};
use crate::program::{Background, bound, command, show};

/// A library and the program that works on it.
#[derive(Debug)]
pub struct Site {
    binary: PathBuf,
    library: PathBuf,
}

impl Site {
    /// Names both; nothing is made yet.
    pub fn new(binary: &Path, library: &Path) -> Self {
        Self {
            binary: binary.to_owned(),
            library: library.to_owned(),
        }
    }

    /// The program.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The library's directory.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// The kernel of an image's first version.
    pub fn kernel(&self, image: &str) -> PathBuf {
        self.library.join("images").join(image).join("1/vmlinuz")
    }

    /// Makes a library whose sealed versions go with its directory: `cargo clean` and `rm -r target`
    /// could not remove immutable files.
    ///
    /// # Errors
    /// When `netroot init` fails, or its settings cannot be changed.
    pub fn init(&self) -> Result<()> {
        self.netroot(&["init", "--host", "server-01.example.edu", "--yes"])?;
        let settings = self.library.join("netroot.toml");
        let text = std::fs::read_to_string(&settings)?;
        let changed = text.replace("immutable = true", "immutable = false");
        std::fs::write(&settings, changed)
            .with_context(|| format!("changing {}", settings.display()))
    }

    /// Lets its server answer machines that ask the laboratory's network what to boot, before it is
    /// started.
    ///
    /// # Errors
    /// When the settings are not those that `netroot init` wrote, or cannot be changed.
    pub fn answer_dhcp(&self) -> Result<()> {
        let settings = self.library.join("netroot.toml");
        let text = fs::read_to_string(&settings)
            .with_context(|| format!("reading {}", settings.display()))?;
        let (off, everywhere) = ("mode = \"off\"", "interfaces = []");
        if !text.contains(off) || !text.contains(everywhere) {
            bail!("{} has no {off} or no {everywhere}", settings.display());
        }
        let changed = text.replace(off, "mode = \"proxy\"");
        let changed = changed.replace(everywhere, &format!("interfaces = [\"{BRIDGE}\"]"));
        fs::write(&settings, changed).with_context(|| format!("changing {}", settings.display()))
    }

    /// Runs one command of netroot; what it prints.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn netroot(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!(
                "netroot {}: {}\n{said}{}",
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(said)
    }

    /// Runs one command of netroot with `--json`; what it answers.
    ///
    /// # Errors
    /// When it fails or does not answer in JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let said = self.netroot(&all)?;
        serde_json::from_str(&said)
            .with_context(|| format!("netroot {} answered no JSON: {said}", all.join(" ")))
    }

    /// Runs one command that must be refused; why it was, as it says itself.
    ///
    /// # Errors
    /// When it is not refused, or by another exit code than 1.
    pub fn refused(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        if output.status.code() != Some(1) {
            bail!(
                "netroot {} was to be refused with exit code 1: {}",
                arguments.join(" "),
                output.status
            );
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Runs one command of netroot, with the terminal as its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn netroot_visibly(&self, arguments: &[&str]) -> Result<()> {
        let mut command = command(&path(&self.binary), ["--library", &path(&self.library)]);
        crate::program::run_visibly(command.args(arguments))
    }

    /// Starts `netroot serve` in `network` and waits until it answers.
    ///
    /// # Errors
    /// When it ends, or does not answer within half a minute; with what it said.
    pub fn serve(&self, network: &Network, log: &Path) -> Result<Server> {
        let file = File::options().create(true).append(true).open(log)?;
        let mut serve = network.command(&path(&self.binary));
        serve
            .args(["--library", &path(&self.library), "serve"])
            .stdout(file.try_clone()?)
            .stderr(file);
        let mut server = Server {
            process: Background::start(&mut serve)?,
            log: log.to_owned(),
        };
        let started = Instant::now();
        while !self.answers(network) {
            if !server.process.is_running() {
                bail!("netroot serve has ended:\n{}", server.said());
            }
            if started.elapsed() > Duration::from_secs(30) {
                bail!("netroot serve does not answer:\n{}", server.said());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// Starts `netroot serve` on this host, with the settings of `own` (see [`loopback`]), and waits until
    /// it has told its doors. What it complains of stands beside `own`, in a file that ends in `.log`.
    ///
    /// # Errors
    /// When it ends, or tells something else.
    pub(crate) fn serve_on_loopback(&self, own: &Path) -> Result<(Background, Value)> {
        let mut serve = bound(&path(&self.binary), ["--library", &path(&self.library)]);
        serve
            .arg("--config")
            .arg(own)
            .args(["--json", "serve"])
            .stdout(Stdio::piped())
            .stderr(File::create(own.with_extension("log"))?);
        let mut process = Background::start(&mut serve)?;
        let said = process.stdout().context("its standard output is taken")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        let ready = serde_json::from_str(&line)
            .with_context(|| format!("netroot serve does not tell its doors: {line:?}"))?;
        Ok((process, ready))
    }

    /// The sessions that the running server has, of initiators whose name holds `part`.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn sessions(&self, part: &str) -> Result<Vec<Value>> {
        let all = self.json(&["session", "list"])?;
        let list = all.as_array().context("session list --json is no list")?;
        Ok(list
            .iter()
            .filter(|session| {
                session
                    .get("initiator")
                    .and_then(Value::as_str)
                    .is_some_and(|name| name.contains(part))
            })
            .cloned()
            .collect())
    }

    /// Waits until there is a session of an initiator whose name holds `part`, or, with `wanted` 0,
    /// until there is none.
    ///
    /// # Errors
    /// When that does not come within `limit`.
    pub fn wait_for_sessions(&self, part: &str, wanted: usize, limit: Duration) -> Result<()> {
        let started = Instant::now();
        loop {
            let sessions = self.sessions(part)?;
            if sessions.len() == wanted {
                return Ok(());
            }
            if started.elapsed() > limit {
                bail!(
                    "after {} s {part} has {} sessions, not {wanted}: {sessions:?}",
                    limit.as_secs(),
                    sessions.len()
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn output(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = command(&path(&self.binary), ["--library", &path(&self.library)]);
        command.args(arguments);
        let shown = show(&command);
        command.output().with_context(|| format!("running {shown}"))
    }

    /// Whether the boot service and the control socket take connections.
    fn answers(&self, network: &Network) -> bool {
        let port = format!("exec 3<>/dev/tcp/{}/{BOOT_PORT}", crate::netns::SERVER);
        crate::program::run(network.command("bash").args(["-c", &port])).is_ok()
            && self.json(&["session", "list"]).is_ok()
    }
}

/// A running `netroot serve`. It is killed, hard, when this value ends.
#[derive(Debug)]
pub struct Server {
    process: Background,
    log: PathBuf,
}

impl Server {
    /// `kill -9`.
    ///
    /// # Errors
    /// When the process is gone already.
    pub fn kill(mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(Duration::from_secs(10)).map(drop)
    }

    /// Asks it to end, and gives the time that it took.
    ///
    /// # Errors
    /// When it does not end within a quarter of a minute, or not with success.
    pub fn stop(mut self) -> Result<Duration> {
        let asked = Instant::now();
        self.process.signal(Signal::SIGTERM)?;
        let status = self.process.wait(Duration::from_secs(15))?;
        if !status.success() {
            bail!("netroot serve ended with {status}:\n{}", self.said());
        }
        Ok(asked.elapsed())
    }

    /// Bytes of memory that it has in use and that are no file's.
    ///
    /// # Errors
    /// When it is gone.
    pub fn resident(&self) -> Result<u64> {
        crate::program::resident(self.process.pid())
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Settings of a server whose doors are on the loopback interface, at ports that the system chooses;
/// `iscsi` is what else is said of the target.
pub(crate) fn loopback(iscsi: &str) -> String {
    let doors = [("iscsi", iscsi), ("boot", ""), ("admin", "")];
    doors
        .map(|(part, more)| format!("[{part}]\nlisten = [\"127.0.0.1:0\"]\n{more}"))
        .concat()
}

/// Removes a library, sealed versions too, which are immutable where the file system can do that.
///
/// # Errors
/// When something of it cannot be removed.
pub fn remove_library(library: &Path) -> Result<()> {
    if !library.exists() {
        return Ok(());
    }
    // It fails on file systems that know no immutable files, and there it is not needed.
    let _ = command("chattr", ["-R", "-f", "-i", &path(library)]).status();
    fs::remove_dir_all(library).with_context(|| format!("removing {}", library.display()))
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
