//! How results look: aligned tables for people, JSON for programs.

use std::io::{IsTerminal, Write, stderr, stdout};

use anyhow::{Context, Result};
use rustix::termios::tcgetwinsize;
use serde::Serialize;

pub(super) use crate::build::chain;

/// Prints `value` as JSON.
pub(super) fn json(value: &impl Serialize) -> Result<()> {
    let mut out = stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).context("printing")?;
    writeln!(out).context("printing")
}

/// Prints lines as they are.
pub(super) fn lines<S: AsRef<str>>(lines: impl IntoIterator<Item = S>) -> Result<()> {
    let mut out = stdout().lock();
    for line in lines {
        writeln!(out, "{}", line.as_ref()).context("printing")?;
    }
    Ok(())
}

/// Writes bytes as they are.
pub(super) fn raw(bytes: &[u8]) -> Result<()> {
    stdout().lock().write_all(bytes).context("printing")
}

/// A line beside the result, on standard error.
///
/// Whoever read it may have gone (`2>&1 | head`): that stops nothing, and there is nobody to tell.
pub(super) fn aside(line: &str) {
    let _ = writeln!(stderr().lock(), "{line}");
}

/// Something that a person should know, which stops nothing.
pub(super) fn warning(text: &str) {
    aside(&as_warning(text));
}

/// How a warning looks.
pub(super) fn as_warning(text: &str) -> String {
    format!("netroot: warning: {text}")
}

/// How many columns the terminal has, if there is one.
pub(super) fn width() -> Option<usize> {
    let size = tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stderr()));
    // Some terminals do not know: then nothing is folded.
    size.ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|&width| width > 0)
}

/// Between two columns.
const GAP: &str = "  ";

/// A table with a heading line. Columns are as wide as their widest cell.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    /// How many of them are headings.
    headings: usize,
}

impl Table {
    /// An empty table with these headings.
    pub(super) fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![headings.iter().map(|text| (*text).to_owned()).collect()],
            headings: 1,
        }
    }

    /// Adds a row; an empty cell shows as `-`.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cell = |text: String| {
            if text.is_empty() {
                "-".to_owned()
            } else {
                printable(&text)
            }
        };
        self.rows.push(cells.into_iter().map(cell).collect());
    }

    /// The table's text.
    pub(super) fn text(&self, bold: bool) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            let line = cells.join(GAP);
            let line = line.trim_end();
            match number < self.headings && bold {
                true => text.push_str(&format!("\x1b[1m{line}\x1b[0m\n")),
                false => text.push_str(&format!("{line}\n")),
            }
        }
        text
    }

    /// The same with long cells in several lines, where it would be wider than `width` columns.
    fn folded(&self, width: usize) -> Self {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let longest = |column: usize, of: &dyn Fn(&str) -> usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| of(cell)).max().unwrap_or(0)
        };
        let whole = |cell: &str| cell.chars().count();
        let word = |cell: &str| cell.split(' ').map(whole).max().unwrap_or(0);
        let mut widths: Vec<usize> = (0..columns).map(|at| longest(at, &whole)).collect();
        let least: Vec<usize> = (0..columns).map(|at| longest(at, &word)).collect();
        let gaps = GAP.len() * columns.saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > width {
            let spare = widths.iter_mut().zip(&least);
            let widest = spare.filter(|(width, least)| **width > **least);
            // Words are not broken: they are there to be copied.
            let Some((widest, _)) = widest.max_by_key(|(width, _)| **width) else {
                break;
            };
            *widest -= 1;
        }
        let (mut rows, mut headings) = (Vec::new(), 0);
        for (number, row) in self.rows.iter().enumerate() {
            let cells: Vec<Vec<String>> = row
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| wrapped(cell, width))
                .collect();
            let lines = cells.iter().map(Vec::len).max().unwrap_or(0);
            rows.extend((0..lines).map(|line| {
                let part = |cell: &Vec<String>| cell.get(line).cloned().unwrap_or_default();
                cells.iter().map(part).collect()
            }));
            if number < self.headings {
                headings = rows.len();
            }
        }
        Self { rows, headings }
    }

    /// Prints it, or `nothing` where it has no rows.
    pub(super) fn print(&self, nothing: &str) -> Result<()> {
        let mut out = stdout().lock();
        if self.rows.len() < 2 {
            return writeln!(out, "{nothing}").context("printing");
        }
        let bold = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let text = match width().filter(|_| out.is_terminal()) {
            Some(width) => self.folded(width).text(bold),
            None => self.text(bold),
        };
        write!(out, "{text}").context("printing")
    }
}

/// Words of `text` in lines of at most `width` characters; a longer word is a line of its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A number of bytes as people read it: `1.4 GiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut size = count as f64;
    let mut units = UNITS.iter();
    let mut unit = units.next().unwrap_or(&"B");
    while size >= 1024.0 {
        let Some(next) = units.next() else { break };
        size /= 1024.0;
        unit = next;
    }
    match *unit {
        "B" => format!("{count} B"),
        unit if size < 10.0 => format!("{size:.1} {unit}"),
        unit => format!("{size:.0} {unit}"),
    }
}

/// A moment, to the minute, in this host's time zone.
pub(super) fn moment(at: jiff::Timestamp) -> String {
    at.to_zoned(jiff::tz::TimeZone::system())
        .strftime("%Y-%m-%d %H:%M")
        .to_string()
}

pub(super) use crate::library::printable;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "SIZE"]);
        table.row(["a-long-name".to_owned(), String::new()]);
        assert_eq!(table.text(false), "NAME         SIZE\na-long-name  -\n");
    }

    #[test]
    fn a_table_that_is_too_wide_has_cells_in_several_lines() {
        let mut table = Table::new(&["NAME", "SYSTEM", "SIZE"]);
        let system = "Debian GNU/Linux 12 (bookworm)";
        table.row(["fc28", system, "1.0 GiB"].map(str::to_owned));
        assert_eq!(table.folded(80).text(false), table.text(false));
        let narrow = "\
            NAME  SYSTEM            SIZE\n\
            fc28  Debian GNU/Linux  1.0 GiB\n\
            \x20     12 (bookworm)\n";
        assert_eq!(table.folded(32).text(false), narrow);
        // What cannot be folded any more stays whole.
        let longest = table.folded(1).text(false);
        assert!(longest.contains("GNU/Linux  ") && longest.contains("(bookworm)\n"));
        let mut heading = Table::new(&["ON DISK"]);
        heading.row(["7"].map(str::to_owned));
        let bold = "\x1b[1mON\x1b[0m\n\x1b[1mDISK\x1b[0m\n7\n";
        assert_eq!(heading.folded(4).text(true), bold);
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(100 << 30), "100 GiB");
        assert_eq!(bytes(u64::MAX), "16384 PiB");
    }

    #[test]
    fn a_client_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[31m\u{202e}b"), "a\u{fffd}[31m\u{fffd}b");
    }
}
