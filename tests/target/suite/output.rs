//! What `iscsi-test-cu` prints, read strictly: it says "passed" of a test that it has skipped, and
//! exits with 0 whatever has failed.

use std::collections::BTreeMap;
use std::time::Duration;

/// What became of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Passed,
    /// All of it, or a part.
    Skipped,
    Failed,
}

/// One test.
#[derive(Debug, Clone)]
pub(super) struct Test {
    pub(super) verdict: Verdict,
    pub(super) took: Duration,
    /// All that it said.
    pub(super) said: String,
}

/// A run of the tool, by the names of tests without their family: `Read10.Simple`.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) tests: BTreeMap<String, Test>,
}

/// Output as it came: each piece with the time at which it was there.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    text: String,
    pieces: Vec<(usize, Duration)>,
}

impl Transcript {
    pub(super) fn push(&mut self, bytes: &[u8], at: Duration) {
        self.text.push_str(&String::from_utf8_lossy(bytes));
        self.pieces.push((self.text.len(), at));
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// When the byte at `place` was there.
    fn time(&self, place: usize) -> Duration {
        let piece = self.pieces.iter().find(|(end, _)| place < *end);
        piece.or(self.pieces.last()).map_or(Duration::ZERO, |p| p.1)
    }

    /// The last test that has begun.
    pub(super) fn current(&self) -> String {
        let begun = begun(&self.text);
        begun
            .last()
            .map_or("nothing yet".to_owned(), |t| t.0.clone())
    }
}

const SUITE: &str = "\nSuite: ";
const TEST: &str = "\n  Test: ";
const SUMMARY: &str = "\nRun Summary:";

/// Each test with the place where it begins and the place after its name.
fn begun(text: &str) -> Vec<(String, usize, usize)> {
    let mut begun = Vec::new();
    let mut suite = "";
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let (suite_at, test_at) = (rest.find(SUITE), rest.find(TEST));
        if let Some(place) = suite_at.filter(|s| test_at.is_none_or(|t| *s < t)) {
            let name = &rest[place + SUITE.len()..];
            suite = name.lines().next().unwrap_or(name);
            at += place + SUITE.len();
        } else if let Some(place) = test_at {
            let name = &rest[place + TEST.len()..];
            let Some((name, _)) = name.split_once(" ...") else {
                return begun;
            };
            let after = at + place + TEST.len() + name.len() + " ...".len();
            begun.push((format!("{suite}.{name}"), at + place, after));
            at = after;
        } else {
            return begun;
        }
    }
}

/// Takes a whole run apart.
///
/// # Errors
/// When it is not whole, or its own summary tells of other numbers than those that were counted.
pub(super) fn parse(transcript: &Transcript) -> Result<Report, String> {
    let text = transcript.text();
    let Some(summary) = text.find(SUMMARY) else {
        return Err(format!(
            "the tool ended without a summary, in {}:\n{}",
            transcript.current(),
            tail(text)
        ));
    };
    let begun = begun(&text[..summary]);
    let mut report = Report::default();
    for (i, (name, from, after)) in begun.iter().enumerate() {
        let end = begun.get(i + 1).map_or(summary, |next| next.1);
        let said = &text[*after..end];
        let (verdict, place) = verdict(said).ok_or_else(|| format!("{name} has no end: {said}"))?;
        let test = Test {
            verdict,
            took: transcript.time(after + place) - transcript.time(*from),
            said: said.trim().to_owned(),
        };
        if report.tests.insert(name.clone(), test).is_some() {
            return Err(format!("{name} ran twice"));
        }
    }
    let failed = report.count(Verdict::Failed);
    let told = summed_up(&text[summary..]);
    if told != Some((report.tests.len(), report.tests.len() - failed, failed)) {
        return Err(format!(
            "counted {} tests, {failed} failed, and the tool tells of {told:?}",
            report.tests.len()
        ));
    }
    Ok(report)
}

/// The verdict in what a test said, and where it stands: on a line of its own or right after the name.
/// What comes behind it belongs to the clean-up.
fn verdict(said: &str) -> Option<(Verdict, usize)> {
    let starts = std::iter::once(0).chain(said.match_indices('\n').map(|(at, _)| at + 1));
    for at in starts {
        if said[at..].starts_with("FAILED") {
            return Some((Verdict::Failed, at));
        }
        if said[at..].starts_with("passed") {
            let skipped = said[..at].contains("[SKIPPED]");
            let verdict = if skipped {
                Verdict::Skipped
            } else {
                Verdict::Passed
            };
            return Some((verdict, at));
        }
    }
    None
}

/// How many tests ran, passed and failed, as the tool sums up, if none was left out.
fn summed_up(summary: &str) -> Option<(usize, usize, usize)> {
    let line = summary
        .lines()
        .find(|l| l.trim_start().starts_with("tests "))?;
    let numbers: Vec<usize> = line
        .split_whitespace()
        .skip(1)
        .map_while(|n| n.parse().ok())
        .collect();
    match numbers[..] {
        [total, ran, passed, failed, 0] if total == ran => Some((ran, passed, failed)),
        _ => None,
    }
}

impl Report {
    pub(super) fn count(&self, verdict: Verdict) -> usize {
        self.tests
            .values()
            .filter(|test| test.verdict == verdict)
            .count()
    }
}

pub(super) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// From a run of libiscsi 1.19, cut short.
const EXAMPLE: &str = "\
found matching LU device identifier for all (2) paths


     CUnit - A unit testing framework for C - Version 2.1-3


Suite: ModeSense6
  Test: AllPages ...passed
  Test: Residuals ...passed    [FAILED] PRIN command: failed with sense. SENSE KEY:UNIT_ATTENTION(6)

Suite: PreventAllow
  Test: Simple ...    [SKIPPED] Logical unit is not removable. Skipping test.
passed
Suite: Sanitize
  Test: Readonly ...    [INFO] TESTUNITREADY command: failed with sense.
    [SKIPPED] SANITIZE CRYPTO_ERASE is not implemented according to REPORT_SUPPORTED_OPCODES.
passed
  Test: Reset ...    [FAILED] TESTUNITREADY failed with wrong sense.
    [SKIPPED] in part
FAILED
    1. test_sanitize_reset.c:97  - CU_ASSERT_EQUAL(_r,0)

Run Summary:    Type  Total    Ran Passed Failed Inactive
              suites      3      3    n/a      0        0
               tests      5      5      4      1        0
             asserts     20     20     19      1      n/a

Tests completed with return value: 0
";

fn transcript(text: &str) -> Transcript {
    let mut transcript = Transcript::default();
    transcript.push(text.as_bytes(), Duration::ZERO);
    transcript
}

#[test]
fn a_skipped_test_is_not_taken_for_one_that_passed() {
    let report = parse(&transcript(EXAMPLE)).unwrap();
    let verdicts: Vec<(&str, Verdict)> = report
        .tests
        .iter()
        .map(|(name, test)| (name.as_str(), test.verdict))
        .collect();
    assert_eq!(
        verdicts,
        [
            ("ModeSense6.AllPages", Verdict::Passed),
            ("ModeSense6.Residuals", Verdict::Passed),
            ("PreventAllow.Simple", Verdict::Skipped),
            ("Sanitize.Readonly", Verdict::Skipped),
            ("Sanitize.Reset", Verdict::Failed),
        ]
    );
}

#[test]
fn a_run_that_is_not_whole_is_no_report() {
    let (cut, _) = EXAMPLE.split_once("Run Summary").unwrap();
    let error = parse(&transcript(cut)).unwrap_err();
    assert!(
        error.contains("without a summary, in Sanitize.Reset"),
        "{error}"
    );
    let hung = EXAMPLE.replace("FAILED\n    1.", "\n    1.");
    let error = parse(&transcript(&hung)).unwrap_err();
    assert!(error.contains("Sanitize.Reset has no end"), "{error}");
    for (line, other) in [
        (
            "      5      5      4      1        0",
            "      5      5      5      0        0",
        ),
        (
            "      5      5      4      1        0",
            "      6      5      4      1        1",
        ),
    ] {
        assert!(parse(&transcript(&EXAMPLE.replace(line, other))).is_err());
    }
}
