//! Events for other programs: JSON lines, or CSV for a spreadsheet.

use std::str::FromStr;

use super::read::Recorded;
use crate::library::{NameError, printable};

/// How events are written for other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Jsonl,
    /// Comma-separated values, RFC 4180, with a line of headings.
    Csv,
}

impl Format {
    /// What stands before the first event.
    pub fn heading(self) -> &'static str {
        match self {
            Format::Jsonl => "",
            Format::Csv => "at,server,by,what,to,details\r\n",
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Jsonl => "application/jsonl",
            Format::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    /// An event as a line, with its end.
    pub fn line(self, recorded: &Recorded) -> String {
        let json = |value: serde_json::Result<String>| value.unwrap_or_default();
        if self == Format::Jsonl {
            // Text and numbers can always be written.
            return json(serde_json::to_string(recorded)) + "\n";
        }
        let Recorded { event, server } = recorded;
        let details = match event.details.is_empty() {
            true => String::new(),
            false => json(serde_json::to_string(&event.details)),
        };
        let by = event.by.to_string();
        let at = event.at.to_string();
        let to = event.to.as_deref().unwrap_or_default();
        let cells = [&at, server, &by, &event.what, to, &details];
        let cells: Vec<String> = cells.into_iter().map(cell).collect();
        cells.join(",") + "\r\n"
    }
}

impl FromStr for Format {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "jsonl" => Ok(Format::Jsonl),
            "csv" => Ok(Format::Csv),
            _ => Err(NameError::new(text, "a format: jsonl or csv")),
        }
    }
}

/// Names come from strangers, and a spreadsheet takes what begins like a formula for one: an
/// apostrophe makes it text.
/// What a terminal would obey is none, either.
fn cell(text: &str) -> String {
    let text = &printable(text);
    let guard = match text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => "'",
        false => "",
    };
    let quoted = text.contains([',', '"', '\n', '\r']);
    match quoted {
        true => format!("\"{guard}{}\"", text.replace('"', "\"\"")),
        false => format!("{guard}{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::{Actor, Event};

    #[test]
    fn a_name_is_no_formula_and_breaks_no_line() {
        let initiator = "=HYPERLINK(\"http://example.org\",\"x\")\n".to_owned();
        let by = Actor::Client {
            initiator,
            peer: "192.0.2.7:1024".to_owned(),
        };
        let mut event = Event::new(&by, "login-refused").with("why", "a, b");
        event.at = "2026-11-20T09:12:00Z".parse().unwrap();
        let server = "server-01".to_owned();
        let recorded = Recorded { event, server };
        assert_eq!(
            Format::Csv.line(&recorded),
            "2026-11-20T09:12:00Z,server-01,\"'=HYPERLINK(\"\"http://example.org\"\",\"\"x\"\")\u{fffd} at \
             192.0.2.7:1024\",login-refused,,\"{\"\"why\"\":\"\"a, b\"\"}\"\r\n"
        );
        let line = Format::Jsonl.line(&recorded);
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(serde_json::from_str::<Recorded>(&line).unwrap(), recorded);
    }
}
