//! Running one program to its end.

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::child::{Session, die_with_parent};
use super::jail::{self, Keeper};
use super::terminal::Lent;
use super::{Cancel, Cancelled, Error, Result};

/// Where programs are looked for: not where the caller's environment says, since that may be an
/// unprivileged user's.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables that a program may need to reach the network.
const PASSED_ON: &[&str] = &[
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];

/// The end of what a program said that an error keeps.
const STDERR_KEPT: usize = 8 * 1024;

/// How long a request to stop may go unnoticed while a program runs.
const CANCEL_POLL: Duration = Duration::from_millis(100);

/// A line that nothing follows for so long is a prompt: somebody is to type. It has no end.
const PROMPT: Duration = Duration::from_secs(1);

/// More bytes than these are not one line: one without end must not fill the memory.
const LONGEST_LINE: usize = 64 * 1024;

/// How long the pipes of a program that has ended are read, where somebody else holds them open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A program to run: arguments as they are, no shell, an environment of its own.
///
/// Nothing to read, C locale, killed when this thread ends.
#[derive(Debug, Clone)]
pub struct Program {
    name: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    /// The tree that is all it sees; else it is a program of the host.
    inside: Option<PathBuf>,
    input: Vec<u8>,
    cancel: Cancel,
    shown_as: Option<String>,
}

/// What a program that succeeded wrote.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// A line that a running program wrote, without its line end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// To its standard output.
    Out(String),
    /// To its standard error.
    Err(String),
    /// The beginning of one to its standard output, which nothing has followed for a moment. The line
    /// comes whole when it ends.
    Begun(String),
}

impl Line {
    /// What it says.
    pub fn text(self) -> String {
        let (Line::Out(text) | Line::Err(text) | Line::Begun(text)) = self;
        text
    }
}

/// The full path of `name`, as [`Program`] would run it.
pub fn find_program(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let name = name.as_ref();
    let executable = |path: &Path| {
        path.metadata()
            .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    if name.as_encoded_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(|path| executable(path));
    }
    PATH.split(':')
        .map(|dir| Path::new(dir).join(name))
        .find(|path| executable(path))
}

impl Program {
    /// The program `name`, or the one at a path with a slash in it.
    pub fn new(name: impl Into<OsString>) -> Self {
        Self {
            name: name.into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            inside: None,
            input: Vec::new(),
            cancel: Cancel::new(),
            shown_as: None,
        }
    }

    /// The program `name` of the tree at `root`, where it runs apart from the host ([`jail`]).
    pub(super) fn inside(root: &Path, name: impl Into<OsString>) -> Self {
        Self {
            inside: Some(root.to_owned()),
            ..Self::new(name)
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// A variable of its environment, which otherwise holds only `PATH` and `LC_ALL`.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// The directory that it runs in.
    #[must_use]
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// What it reads on its standard input; nothing by default.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Who may stop it.
    #[must_use]
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// Passes on how this host reaches the network, for programs that fetch packages.
    #[must_use]
    pub fn with_proxies(mut self) -> Self {
        for name in PASSED_ON {
            if let Some(value) = std::env::var_os(name) {
                self = self.env(*name, value);
            }
        }
        self
    }

    /// What it is called in errors, where its command line says less than this.
    #[must_use]
    pub fn shown_as(mut self, text: impl Into<String>) -> Self {
        self.shown_as = Some(text.into());
        self
    }

    /// The command line, quoted so that it can be pasted into a shell.
    pub fn command_line(&self) -> String {
        if let Some(shown) = &self.shown_as {
            return shown.clone();
        }
        std::iter::once(&self.name)
            .chain(&self.args)
            .map(|word| quoted(word))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Runs it to its end and gives what it wrote.
    ///
    /// # Errors
    /// When it is missing, cannot be started, was stopped, or ends with anything but 0; then with
    /// the command line and what it said.
    pub fn run(&self) -> Result<Output> {
        let mut stdout = Vec::new();
        let mut stderr = Vec::new();
        let status = self.watch(|chunk| match chunk {
            Chunk::Out(bytes) => stdout.extend(bytes),
            Chunk::Err(bytes) => stderr.extend(bytes),
            Chunk::Nothing => {}
        })?;
        self.succeeded(status, &stderr)?;
        Ok(Output { stdout, stderr })
    }

    /// Runs it to its end and gives each line to `each` as soon as it is written.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn stream(&self, each: &mut dyn FnMut(Line)) -> Result<()> {
        self.follow(b"\n", |line| match line {
            Line::Begun(_) => {}
            whole => each(whole),
        })
    }

    /// As [`stream`](Self::stream), where a carriage return ends a line too: what tells how far it is
    /// writes the same line again and again.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn stream_updates(&self, each: &mut dyn FnMut(Line)) -> Result<()> {
        self.follow(b"\r\n", |line| match line {
            Line::Begun(_) => {}
            whole => each(whole),
        })
    }

    /// As [`stream`](Self::stream), and gives what a line has so far where nothing follows: a prompt.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn stream_prompts(&self, each: &mut dyn FnMut(Line)) -> Result<()> {
        self.follow(b"\n", each)
    }

    fn follow(&self, ends: &'static [u8], mut each: impl FnMut(Line)) -> Result<()> {
        let mut said = Vec::new();
        let mut out = Lines::ended_by(ends);
        let mut err = Lines::ended_by(ends);
        let status = self.watch(|chunk| match chunk {
            Chunk::Out(bytes) => out.take(&bytes, |line| each(Line::Out(line))),
            Chunk::Err(bytes) => {
                err.take(&bytes, |line| each(Line::Err(line)));
                said.extend(&bytes);
                if said.len() > 4 * STDERR_KEPT {
                    said.drain(..said.len() - STDERR_KEPT);
                }
            }
            Chunk::Nothing => out.pause(|begun| each(Line::Begun(begun))),
        })?;
        out.finish(|line| each(Line::Out(line)));
        err.finish(|line| each(Line::Err(line)));
        self.succeeded(status, &said)
    }

    /// Gives it the terminal, and returns when a person is done with it.
    ///
    /// It stays in our process group, so that the terminal is its own: Ctrl-C reaches it and us, and
    /// means it alone while this runs.
    ///
    /// # Errors
    /// As [`run`](Self::run), but for what it said, which the person has seen.
    pub fn interactive(&self) -> Result<()> {
        self.cancel.check()?;
        let status = self.cancel.while_interrupts_are_anothers(|| {
            let mut command = self.command()?;
            command
                .stdin(Stdio::inherit())
                .stdout(Stdio::inherit())
                .stderr(Stdio::inherit());
            let terminal = Lent::standard_input();
            let mut running = self.spawn(command, Session::Ours)?;
            let status = self.wait(&mut running.child);
            // All that ran in an image ends with its first process: nobody types any more.
            drop(running);
            if let Some(terminal) = terminal {
                terminal.take_back();
            }
            status
        })?;
        self.succeeded(status, &[])
    }

    fn succeeded(&self, status: ExitStatus, stderr: &[u8]) -> Result<()> {
        if status.success() {
            return Ok(());
        }
        let kept = stderr.len().saturating_sub(STDERR_KEPT);
        Err(Error::Failed {
            command: self.command_line(),
            status,
            stderr: String::from_utf8_lossy(stderr.get(kept..).unwrap_or_default()).into_owned(),
        })
    }

    /// Starts it and hands on what it writes until it has ended.
    fn watch(&self, mut each: impl FnMut(Chunk)) -> Result<ExitStatus> {
        self.cancel.check()?;
        let mut running = self.start()?;
        let child = &mut running.child;
        let (send, chunks) = mpsc::channel();
        if let Some(pipe) = child.stdout.take() {
            read_apart(pipe, Chunk::Out, send.clone());
        }
        if let Some(pipe) = child.stderr.take() {
            read_apart(pipe, Chunk::Err, send);
        }
        self.feed(child);
        loop {
            match chunks.recv_timeout(CANCEL_POLL) {
                Ok(chunk) => each(chunk),
                // Both pipes are closed: it has ended, or is about to.
                Err(RecvTimeoutError::Disconnected) => return self.wait(child),
                Err(RecvTimeoutError::Timeout) => {
                    // A daemon that it left behind may hold the pipes open for ever; but on a busy
                    // host what it wrote itself may not have been read yet.
                    if let Some(status) = child.try_wait().map_err(|e| self.cannot(e))? {
                        let deadline = Instant::now() + LAST_WORDS;
                        let left = || deadline.saturating_duration_since(Instant::now());
                        while let Ok(chunk) = chunks.recv_timeout(left()) {
                            each(chunk);
                        }
                        return Ok(status);
                    }
                    each(Chunk::Nothing);
                }
            }
            if self.cancel.is_cancelled() {
                kill(child);
                return Err(Cancelled.into());
            }
        }
    }

    fn start(&self) -> Result<Running> {
        let mut command = self.command()?;
        command
            .stdin(if self.input.is_empty() {
                // Not the host's /dev/null: whoever has it open may change its permissions.
                let (nothing, _) = std::io::pipe().map_err(|e| self.cannot(e))?;
                nothing.into()
            } else {
                Stdio::piped()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.spawn(command, Session::Own)
    }

    fn command(&self) -> Result<Command> {
        let mut command = match &self.inside {
            // Looked for where it runs.
            Some(_) => Command::new(&self.name),
            None => Command::new(find_program(&self.name).ok_or_else(|| Error::Missing {
                program: self.name.to_string_lossy().into_owned(),
            })?),
        };
        command
            .args(&self.args)
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C.UTF-8")
            .envs(self.env.iter().map(|(k, v)| (k, v)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        Ok(command)
    }

    fn spawn(&self, mut command: Command, session: Session) -> Result<Running> {
        let Some(root) = &self.inside else {
            die_with_parent(&mut command, session);
            let child = command.spawn().map_err(|e| self.cannot(e))?;
            return Ok(Running {
                child,
                _keeper: None,
            });
        };
        let (child, keeper) = jail::start(command, root, session).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::MissingInside {
                program: self.name.to_string_lossy().into_owned(),
            },
            _ => self.cannot(e),
        })?;
        Ok(Running {
            child,
            _keeper: Some(keeper),
        })
    }

    /// Gives it its input from a thread, so that neither side waits for the other.
    fn feed(&self, child: &mut Child) {
        if let Some(mut pipe) = child.stdin.take() {
            let input = self.input.clone();
            std::thread::spawn(move || {
                // A program that stops reading early tells why by its exit status.
                let _ = pipe.write_all(&input);
            });
        }
    }

    /// Waits for the end of a program that has closed its output.
    fn wait(&self, child: &mut Child) -> Result<ExitStatus> {
        let mut pause = Duration::from_micros(50);
        loop {
            if let Some(status) = child.try_wait().map_err(|e| self.cannot(e))? {
                return Ok(status);
            }
            if self.cancel.is_cancelled() {
                kill(child);
                return Err(Cancelled.into());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(CANCEL_POLL);
        }
    }

    fn cannot(&self, source: std::io::Error) -> Error {
        Error::Start {
            command: self.command_line(),
            source,
        }
    }
}

impl Output {
    /// Its standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// A program on its way. The order of the fields is that of their ends.
struct Running {
    child: Child,
    _keeper: Option<Keeper>,
}

enum Chunk {
    Out(Vec<u8>),
    Err(Vec<u8>),
    /// It has written nothing for a moment.
    Nothing,
}

/// Makes lines of what comes piece by piece.
struct Lines {
    ends: &'static [u8],
    begun: Vec<u8>,
    /// When the last piece came, until the beginning of the line was handed on.
    paused: Option<Instant>,
}

impl Lines {
    fn ended_by(ends: &'static [u8]) -> Self {
        Lines {
            ends,
            begun: Vec::new(),
            paused: None,
        }
    }

    fn take(&mut self, piece: &[u8], mut each: impl FnMut(String)) {
        let is_end = |byte: &u8| self.ends.contains(byte);
        for part in piece.split_inclusive(is_end) {
            self.begun.extend(part);
            if part.last().is_some_and(is_end) || self.begun.len() >= LONGEST_LINE {
                each(text_of(&self.begun));
                self.begun.clear();
            }
        }
        self.paused = (!self.begun.is_empty()).then(Instant::now);
    }

    /// The beginning of a line, once, where nothing has followed for a while.
    fn pause(&mut self, each: impl FnOnce(String)) {
        let since = self.paused.take_if(|since| since.elapsed() >= PROMPT);
        if since.is_some() {
            each(text_of(&self.begun));
        }
    }

    /// The last line, which may have no end.
    fn finish(&self, each: impl FnOnce(String)) {
        if !self.begun.is_empty() {
            each(text_of(&self.begun));
        }
    }
}

fn read_apart<R: Read + Send + 'static>(
    mut pipe: R,
    kind: fn(Vec<u8>) -> Chunk,
    to: mpsc::Sender<Chunk>,
) {
    std::thread::spawn(move || {
        let mut piece = [0; 8 * 1024];
        loop {
            let read = match pipe.read(&mut piece) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read,
            };
            let Some(read) = read.ok().and_then(|read| piece.get(..read)) else {
                return;
            };
            if read.is_empty() || to.send(kind(read.to_vec())).is_err() {
                return;
            }
        }
    });
}

/// Ends the whole process group and waits for the program, so that nothing of it runs on.
fn kill(child: &mut Child) {
    // One that has the terminal has no group of its own; then this ends it alone. In a tree, the
    // kernel ends all others with the first process.
    let _ = child.kill();
    if let Ok(pid) = i32::try_from(child.id()) {
        // It may have ended by itself; it is not reaped yet, so the number is still its own.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = child.wait();
}

fn text_of(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned()
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+^".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_writes_comes_back() {
        let output = Program::new("sh")
            .args(["-c", "cat; echo there >&2"])
            .input("here")
            .run()
            .unwrap();
        assert_eq!(output.text(), "here");
        assert_eq!(output.stderr, b"there\n");
    }

    #[test]
    fn a_failure_names_the_command_and_what_it_said() {
        let error = Program::new("sh")
            .args(["-c", "echo 'no such disk' >&2; exit 3"])
            .run()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`sh -c 'echo '\\''no such disk'\\'' >&2; exit 3'` failed (exit status: 3): no such disk"
        );
    }

    #[test]
    fn a_missing_program_says_so() {
        let error = Program::new("mkfs.none").run().unwrap_err();
        assert_eq!(
            error.to_string(),
            "mkfs.none is not installed on this host: install it and try again"
        );
    }

    #[test]
    fn the_environment_is_not_the_callers() {
        let output = Program::new("env").env("ONE", "1").run().unwrap();
        let mut lines: Vec<_> = output.text().lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(lines, ["LC_ALL=C.UTF-8", "ONE=1", &format!("PATH={PATH}")]);
    }

    #[test]
    fn lines_come_as_they_are_written() {
        let mut lines = Vec::new();
        Program::new("sh")
            .args(["-c", "echo one; printf two"])
            .stream(&mut |line| lines.push(line))
            .unwrap();
        assert_eq!(lines, [Line::Out("one".into()), Line::Out("two".into())]);
    }

    #[test]
    fn a_prompt_comes_before_its_line_has_an_end() {
        let mut lines = Vec::new();
        Program::new("sh")
            .args([
                "-c",
                "printf 'ho'; printf 'st login: '; sleep 2; echo me; printf 'a\\rb'",
            ])
            .stream_prompts(&mut |line| lines.push(line))
            .unwrap();
        assert_eq!(
            lines,
            [
                Line::Begun("host login: ".into()),
                Line::Out("host login: me".into()),
                Line::Out("a\rb".into())
            ]
        );
    }

    #[test]
    fn what_is_written_over_itself_comes_as_it_is_written() {
        let mut lines = Vec::new();
        Program::new("sh")
            .args([
                "-c",
                "printf '1%%\\r2%%'; sleep 1.5; printf '\\r3%%\\ndone'",
            ])
            .stream_updates(&mut |line| lines.push(line.text()))
            .unwrap();
        assert_eq!(lines, ["1%", "2%", "3%", "done"]);
    }

    #[test]
    fn a_line_without_end_does_not_fill_the_memory() {
        let mut longest = 0;
        Program::new("head")
            .args(["-c", "300000", "/dev/zero"])
            .stream(&mut |line| longest = longest.max(line.text().len()))
            .unwrap();
        assert!(longest <= 2 * LONGEST_LINE, "{longest}");
    }

    #[test]
    fn a_cancelled_program_is_ended_with_its_children() {
        let cancel = Cancel::new();
        let later = cancel.clone();
        let asker = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            later.cancel();
        });
        let began = std::time::Instant::now();
        let error = Program::new("sh")
            .args(["-c", "sleep 61.7 & sleep 61.7; :"])
            .cancel(&cancel)
            .run()
            .unwrap_err();
        asker.join().unwrap();
        assert!(matches!(error, Error::Cancelled(_)), "{error}");
        assert!(began.elapsed() < Duration::from_secs(10));
        let left = Program::new("pgrep").args(["-f", "sleep 61[.]7"]).run();
        assert!(left.is_err(), "a child of the program runs on");
    }

    #[test]
    fn a_daemon_that_keeps_the_pipes_does_not_keep_us() {
        let began = std::time::Instant::now();
        let output = Program::new("sh")
            .args(["-c", "sleep 5 & echo done"])
            .run()
            .unwrap();
        assert_eq!(output.text(), "done\n");
        assert!(began.elapsed() < Duration::from_secs(4));
    }
}
