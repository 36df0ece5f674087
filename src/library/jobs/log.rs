//! What a job said: lines, appended as they come, and read from any place on.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{JobId, Part};
use crate::library::error::{Doing, Result};
use crate::library::printable::is_printable;
use crate::library::{Library, owner};

/// A build that says more says nothing that anybody reads.
pub(super) const LONGEST: u64 = 4 << 20;
/// Longest line that is kept whole.
const LONGEST_LINE: usize = 4096;
/// How much is read at a time.
const PART: usize = 256 << 10;

const FULL: &str = "! the log ends here: it has 4 MiB; the work goes on\n";

/// A part of a job's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogPart {
    /// Whole lines. `* ` begins a step, `! ` a warning, two blanks what a program wrote.
    pub text: String,
    /// Where the next part begins.
    pub next: u64,
    /// Nothing more will come.
    pub ended: bool,
}

/// The log of a job that runs. Whoever has it open holds the job.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    length: u64,
}

impl Log {
    /// Opens the log, which is made if it is not there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let home = path.parent().unwrap_or(path);
        let file = owner::acting_for(home, || {
            OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o644)
                // A pipe that somebody put there is refused, instead of waited for.
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(path)
        })?;
        let length = file.metadata()?.len();
        Ok(Log { file, length })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Appends a line, in one write. `mark` tells what kind it is.
    pub(super) fn line(&mut self, mark: &str, text: &str) -> io::Result<()> {
        if self.length >= LONGEST {
            return Ok(());
        }
        let mut line = format!("{mark} {}\n", printable(text));
        if self.length + line.len() as u64 + FULL.len() as u64 > LONGEST {
            self.length = LONGEST;
            line = FULL.to_owned();
        } else {
            self.length += line.len() as u64;
        }
        self.file.write_all(line.as_bytes())
    }

    /// What is a result in the end has to be there after a crash, too.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

impl Library {
    /// What a job said from byte `from` of its log on.
    ///
    /// # Errors
    /// When there is no such job.
    pub fn job_log(&self, id: JobId, from: u64) -> Result<LogPart> {
        // Before the log: what was said before the end is in it then.
        let is_final = self.job(id)?.state.is_final();
        let path = self.job_file(id, Part::Log);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(LogPart {
                    text: String::new(),
                    next: 0,
                    ended: is_final,
                });
            }
            Err(error) => return Err(error).doing("opening", &path),
        };
        let length = file.metadata().doing("reading", &path)?.len();
        let from = from.min(length);
        let mut bytes = vec![0; PART.min(usize::try_from(length - from).unwrap_or(PART))];
        let read = file.read_at(&mut bytes, from).doing("reading", &path)?;
        bytes.truncate(read);
        // A line that is being written comes with the next part.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n');
        bytes.truncate(whole.map_or(0, |at| at + 1));
        let next = from + bytes.len() as u64;
        Ok(LogPart {
            text: String::from_utf8_lossy(&bytes).into_owned(),
            next,
            // A worker that was killed may have left half a line, which nobody completes.
            ended: is_final && (next >= length || bytes.is_empty()),
        })
    }
}

/// Programs in images are strangers: nothing of what they write steers a terminal.
fn printable(text: &str) -> String {
    let plain = |c: char| match is_printable(c) || c == '\t' {
        true => c,
        false => char::REPLACEMENT_CHARACTER,
    };
    let mut line: String = text.trim_end().chars().map(plain).collect();
    if line.len() > LONGEST_LINE {
        let end = (0..=LONGEST_LINE)
            .rev()
            .find(|at| line.is_char_boundary(*at));
        line.truncate(end.unwrap_or(0));
        line.push_str(" ...");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_bounded_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.log");
        let mut log = Log::open(&path).unwrap();
        for _ in 0..2000 {
            log.line(" ", &"x".repeat(10_000)).unwrap();
        }
        // The next worker that opens it goes on where the other one stopped.
        Log::open(&path).unwrap().line("*", "more").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.len() as u64 <= LONGEST, "{}", text.len());
        let last = text.lines().last().unwrap();
        assert!(last == FULL.trim_end() || last == "* more", "{last}");
        assert_eq!(text.matches("the log ends here").count(), 1);
        assert!(text.lines().all(|line| line.len() < LONGEST_LINE + 10));
    }

    #[test]
    fn a_line_is_one_line_whatever_is_in_it() {
        assert_eq!(
            printable("a\x1b[2J\rb\nc\n"),
            "a\u{fffd}[2J\u{fffd}b\u{fffd}c"
        );
        assert!(printable(&"\u{e4}".repeat(5000)).ends_with("\u{e4} ..."));
    }
}
