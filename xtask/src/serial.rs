//! A client's serial console: everything it says is kept, with the time, and can be waited for; lines
//! can be typed.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A line of the console.
#[derive(Debug, Clone)]
pub struct Line {
    /// Since the machine was switched on.
    pub at: Duration,
    /// Without line end and without the escapes that colour it.
    pub text: String,
}

/// The console. Lines are read on a thread of its own, which ends when the machine does.
#[derive(Debug)]
pub struct Serial {
    heard: Arc<Heard>,
    keyboard: UnixStream,
    log: PathBuf,
}

/// A mutex and not a channel: several may look at the same lines, and at older ones.
#[derive(Debug, Default)]
struct Heard {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    closed: bool,
}

impl Serial {
    /// Listens on QEMU's socket and keeps what it hears in the file `log` as well.
    ///
    /// # Errors
    /// When the socket does not answer or the file cannot be made.
    pub fn listen(socket: &Path, log: &Path, switched_on: Instant) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("connecting to the serial console")?;
        let keyboard = stream.try_clone()?;
        let heard = Arc::new(Heard::default());
        let mut file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let listener = Arc::clone(&heard);
        std::thread::Builder::new()
            .name("serial".into())
            .spawn(move || {
                let mut reader = BufReader::new(stream);
                let mut raw = Vec::new();
                while matches!(reader.read_until(b'\n', &mut raw), Ok(1..)) {
                    let text = plain(&raw);
                    let at = switched_on.elapsed();
                    // The log is for people; a full disk must not stop the listening.
                    let _ = writeln!(file, "{:8.3} {text}", at.as_secs_f64());
                    listener.lock().lines.push(Line { at, text });
                    listener.changed.notify_all();
                    raw.clear();
                }
                listener.lock().closed = true;
                listener.changed.notify_all();
            })?;
        Ok(Self {
            heard,
            keyboard,
            log: log.to_owned(),
        })
    }

    /// How many lines there have been: where to begin waiting for an answer to what comes now.
    pub fn position(&self) -> usize {
        self.heard.lock().lines.len()
    }

    /// Waits for a line, from `position` on, that holds `pattern`.
    ///
    /// # Errors
    /// When it does not come within `limit`, or the machine ends before; with the last lines.
    pub fn wait_for(&self, pattern: &str, position: usize, limit: Duration) -> Result<Line> {
        let deadline = Instant::now() + limit;
        let mut state = self.heard.lock();
        loop {
            let found = state.lines.iter().skip(position);
            if let Some(line) = found.into_iter().find(|line| line.text.contains(pattern)) {
                return Ok(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                let how = if state.closed {
                    "the machine ended".to_owned()
                } else {
                    format!("{} s have passed", limit.as_secs())
                };
                bail!(
                    "{how} without \"{pattern}\" on its console; the whole is in {}, the end of it:\n{}",
                    self.log.display(),
                    tail(&state.lines)
                );
            }
            state = self
                .heard
                .changed
                .wait_timeout(state, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
    }

    /// Whether a line, from `position` on, holds `pattern`.
    pub fn has(&self, pattern: &str, position: usize) -> bool {
        let state = self.heard.lock();
        state
            .lines
            .iter()
            .skip(position)
            .any(|line| line.text.contains(pattern))
    }

    /// The lines from `position` on, as they are now.
    pub fn lines(&self, position: usize) -> Vec<String> {
        let state = self.heard.lock();
        let lines = state.lines.iter().skip(position);
        lines.map(|line| line.text.clone()).collect()
    }

    /// Types a line.
    ///
    /// # Errors
    /// When the machine is gone.
    pub fn type_line(&self, line: &str) -> Result<()> {
        (&self.keyboard)
            .write_all(format!("{line}\n").as_bytes())
            .context("typing on the serial console")
    }
}

impl Heard {
    /// Only whole lines are ever pushed, so what a panicking thread left behind is sound.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tail(lines: &[Line]) -> String {
    let last = lines.iter().skip(lines.len().saturating_sub(25));
    last.map(|line| format!("{:8.1} {}\n", line.at.as_secs_f64(), line.text))
        .collect()
}

/// The text without escape sequences (`ESC [ … letter`), control characters and line end.
fn plain(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if c == '\u{1b}' {
            if characters.next_if_eq(&'[').is_some() {
                while characters.next_if(|c| !c.is_ascii_alphabetic()).is_some() {}
                characters.next();
            }
        } else if !c.is_control() {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn colours_are_taken_out() {
        assert_eq!(plain(b"[\x1b[0;32m  OK  \x1b[0m] Up\r\n"), "[  OK  ] Up");
        assert_eq!(plain(b"no end\x1b["), "no end");
    }

    #[test]
    fn lines_are_waited_for_and_typed() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let machine = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"Linux version 6\n").unwrap();
            let mut typed = String::new();
            BufReader::new(stream.try_clone().unwrap())
                .read_line(&mut typed)
                .unwrap();
            stream
                .write_all(format!("answer to {typed}").as_bytes())
                .unwrap();
        });
        let serial = Serial::listen(&socket, &dir.path().join("log"), Instant::now()).unwrap();
        let second = Duration::from_secs(5);
        serial.wait_for("Linux", 0, second).unwrap();
        let now = serial.position();
        serial.type_line("question").unwrap();
        let line = serial.wait_for("answer", now, second).unwrap();
        assert_eq!(line.text, "answer to question");
        machine.join().unwrap();
        let error = serial.wait_for("never", 0, second).unwrap_err();
        assert!(error.to_string().contains("the machine ended"), "{error}");
        assert!(error.to_string().contains("Linux version"), "{error}");
        assert!(serial.has("Linux", 0) && !serial.has("Linux", now));
        assert_eq!(serial.lines(now), ["answer to question"]);
    }
}
