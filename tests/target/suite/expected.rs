//! Lists of what is not expected to pass, each with its reason.

use super::output::{Report, Verdict};

/// One line of a list: `skip Suite.Test: why`, or `fail Suite.Test: why`. A name that ends with `*`
/// stands for all that begin so.
struct Entry<'a> {
    verdict: Verdict,
    name: &'a str,
}

impl Entry<'_> {
    fn parse(line: &str) -> Entry<'_> {
        let read = || {
            let (head, why) = line.split_once(": ")?;
            let (verdict, name) = head.split_once(' ')?;
            let verdict = match verdict {
                "skip" => Verdict::Skipped,
                "fail" => Verdict::Failed,
                _ => return None,
            };
            (!why.trim().is_empty()).then_some(Entry { verdict, name })
        };
        read().unwrap_or_else(|| panic!("not a line of a list: {line}"))
    }

    fn is_for(&self, test: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(start) => test.starts_with(start),
            None => test == self.name,
        }
    }
}

/// What differs between a run and what was expected of it: nothing, if all is well. `names` are those
/// that the tool says it has.
pub(super) fn differences(report: &Report, names: &[String], list: &str) -> Vec<String> {
    let lines = list
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entries: Vec<Entry<'_>> = lines.map(Entry::parse).collect();
    let mut wrong = Vec::new();
    for name in names {
        let Some(test) = report.tests.get(name) else {
            wrong.push(format!("{name} did not run"));
            continue;
        };
        let of_test: Vec<_> = entries.iter().filter(|entry| entry.is_for(name)).collect();
        let expected = match of_test[..] {
            [] => Verdict::Passed,
            [entry] => entry.verdict,
            _ => panic!("{name} is twice on the list"),
        };
        if test.verdict != expected {
            wrong.push(format!(
                "{name} {:?}, and not {expected:?}:\n{}",
                test.verdict,
                super::output::tail(&test.said)
            ));
        }
    }
    let unknown = report.tests.keys().filter(|name| !names.contains(name));
    wrong.extend(unknown.map(|name| format!("{name} is none of the tool's tests")));
    let idle = entries
        .iter()
        .filter(|entry| !names.iter().any(|name| entry.is_for(name)));
    wrong.extend(
        idle.map(|entry| format!("{} is on the list and there is no such test", entry.name)),
    );
    wrong
}
