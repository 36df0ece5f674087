//! Lines of a file from its end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How much is read at a time.
const BLOCK: u64 = 64 << 10;
/// Of a longer line, which is not one of ours, only the beginning is read.
const LONGEST: usize = 1 << 20;

/// Reads the lines of a file, the last one first. What is appended meanwhile is not seen.
pub(super) struct Backwards {
    file: File,
    /// Where `held` begins in the file: what is before was not read yet.
    begin: u64,
    /// Read and not given out.
    held: Vec<u8>,
}

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) bytes: Vec<u8>,
    /// Where it ends in the file.
    pub(super) end: u64,
}

impl Backwards {
    /// Of the first `length` bytes of `file`.
    pub(super) fn new(file: File, length: u64) -> Self {
        Self {
            file,
            begin: length,
            held: Vec::new(),
        }
    }

    /// How much was not given out.
    pub(super) fn left(&self) -> u64 {
        self.begin + self.held.len() as u64
    }

    /// The next line; nothing at the beginning of the file.
    pub(super) fn next_line(&mut self) -> io::Result<Option<Line>> {
        let end = self.left();
        if end == 0 {
            return Ok(None);
        }
        loop {
            // The last byte ends the line that is looked for, and not the one before it.
            let body = self.held.strip_suffix(b"\n").unwrap_or(&self.held);
            let before = body.iter().rposition(|byte| *byte == b'\n');
            let start = match before {
                Some(before) => before + 1,
                None if self.begin == 0 => 0,
                None => {
                    self.read_more()?;
                    continue;
                }
            };
            let bytes = body.get(start..).unwrap_or_default().to_vec();
            self.held.truncate(start);
            return Ok(Some(Line { bytes, end }));
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        let size = self.begin.min(BLOCK);
        let mut block = vec![0; usize::try_from(size).unwrap_or(0)];
        self.file.read_exact_at(&mut block, self.begin - size)?;
        if self.held.len() <= LONGEST {
            block.append(&mut self.held);
        }
        self.begin -= size;
        self.held = block;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Vec<(Vec<u8>, u64)> {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), text).unwrap();
        let mut lines = Backwards::new(path.reopen().unwrap(), text.len() as u64);
        let mut found = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            found.push((line.bytes, line.end));
        }
        found
    }

    #[test]
    fn lines_come_from_the_last_to_the_first() {
        let line = |text: &str, end| (text.as_bytes().to_vec(), end);
        assert_eq!(all(b""), []);
        assert_eq!(all(b"a\n"), [line("a", 2)]);
        assert_eq!(
            all(b"a\n\nbc\nhalf"),
            [line("half", 10), line("bc", 6), line("", 3), line("a", 2)]
        );
    }

    #[test]
    fn lines_that_cross_blocks_are_whole() {
        let mut text = Vec::new();
        for number in 0..20_000 {
            text.extend(format!("line {number}\n").bytes());
        }
        let found = all(&text);
        assert_eq!(found.len(), 20_000);
        assert_eq!(found[0].0, b"line 19999");
        assert_eq!(found[19_999], (b"line 0".to_vec(), 7));
    }

    #[test]
    fn a_line_without_end_takes_no_more_than_its_share() {
        let mut text = b"first\n".to_vec();
        text.extend(vec![b'x'; 5 << 20]);
        text.extend(b"\nlast\n");
        let found = all(&text);
        assert_eq!(found.len(), 3);
        assert_eq!(
            (found[0].0.as_slice(), found[2].0.as_slice()),
            (&b"last"[..], &b"first"[..])
        );
        assert!(found[1].0.len() <= LONGEST + 2 * BLOCK as usize);
    }
}
