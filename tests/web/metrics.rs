//! `/metrics`, read as strictly as by anything that reads its format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats>, version 0.0.4).

use std::collections::{BTreeMap, BTreeSet};

use netroot::library::{Mode, mask_boot_ids};

use crate::site::{Server, Site, mac};

type Labels = BTreeMap<String, String>;

/// A family of values.
#[derive(Debug)]
struct Family {
    kind: String,
    /// Name and labels as they stand, and the value.
    samples: Vec<(String, Labels, f64)>,
}

impl Family {
    /// The value with these labels.
    fn value(&self, labels: &[(&str, &str)]) -> f64 {
        let is = |(_, found, _): &&(String, Labels, f64)| {
            found.len() == labels.len()
                && labels
                    .iter()
                    .all(|(key, value)| found.get(*key).is_some_and(|found| found == value))
        };
        let found = self.samples.iter().find(is);
        found.unwrap_or_else(|| panic!("{labels:?} in {self:?}")).2
    }
}

/// Reads a page, and panics at whatever a strict reader would refuse.
fn read(page: &str) -> BTreeMap<String, Family> {
    assert!(page.ends_with('\n'), "the last line ends, too");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut series = BTreeSet::new();
    let mut current = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, about) = help.split_once(' ').unwrap();
            assert!(is_name(name) && about.len() > 5, "{line}");
            let kind = lines.next().and_then(|line| line.strip_prefix("# TYPE "));
            let kind = kind.and_then(|kind| kind.strip_prefix(&format!("{name} ")));
            let kind = kind
                .unwrap_or_else(|| panic!("no type after {line}"))
                .to_owned();
            assert!(
                ["counter", "gauge", "histogram"].contains(&kind.as_str()),
                "{kind}"
            );
            // promtool check metrics
            assert_eq!(
                name.ends_with("_total"),
                kind == "counter",
                "{name} is a {kind}"
            );
            current = name.to_owned();
            let family = Family {
                kind,
                samples: Vec::new(),
            };
            let there = families.insert(current.clone(), family);
            assert!(there.is_none(), "{current} is told twice, or in two places");
            continue;
        }
        let (name, labels, value) = sample(line);
        assert!(
            series.insert((name.clone(), labels.clone())),
            "twice: {line}"
        );
        let family = families
            .get_mut(&current)
            .unwrap_or_else(|| panic!("{line}"));
        let rest = name
            .strip_prefix(&current)
            .unwrap_or_else(|| panic!("{line} in {current}"));
        match family.kind.as_str() {
            "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&rest), "{line}"),
            kind => {
                assert_eq!(rest, "", "{line}");
                assert!(value >= 0.0, "a negative {kind}: {line}");
            }
        }
        family.samples.push((name, labels, value));
    }
    for (name, family) in &families {
        assert!(!family.samples.is_empty(), "{name} has no value");
        if family.kind == "histogram" {
            whole(name, family);
        }
    }
    families
}

/// Buckets grow, end at infinity, and hold all that was counted.
fn whole(name: &str, family: &Family) {
    // The bounds and counts of each histogram, by its other labels.
    let mut of: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    let others = |labels: &Labels| -> Labels {
        let mut others = labels.clone();
        others.remove("le");
        others
    };
    for (of_it, labels, value) in &family.samples {
        if of_it.ends_with("_bucket") {
            let bound: f64 = labels["le"].replace("+Inf", "inf").parse().unwrap();
            of.entry(others(labels)).or_default().push((bound, *value));
        }
    }
    for (labels, buckets) in of {
        let grows = |pair: &[(f64, f64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
        assert!(
            buckets.windows(2).all(grows),
            "{name} {labels:?}: {buckets:?}"
        );
        let (last, all) = buckets[buckets.len() - 1];
        assert!(last.is_infinite());
        let of_them = |ending: &str| {
            let name = format!("{name}{ending}");
            let found = family.samples.iter();
            let mut found = found.filter(|(one, its, _)| *one == name && others(its) == labels);
            found
                .next()
                .unwrap_or_else(|| panic!("no {name} {labels:?}"))
                .2
        };
        assert_eq!(of_them("_count"), all);
        assert!(of_them("_sum") >= 0.0);
    }
}

/// `name{label="value",…} 1.5`
fn sample(line: &str) -> (String, Labels, f64) {
    let (head, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
    let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
    let (name, labels) = match head.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').unwrap()),
        None => (head, ""),
    };
    assert!(is_name(name), "{line}");
    let mut all = BTreeMap::new();
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (key, value) = label.split_once('=').unwrap();
        let value = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'));
        let value = value.unwrap_or_else(|| panic!("{line}"));
        assert!(is_name(key) && !key.contains(':'), "{line}");
        assert!(!value.contains(['"', '\\', '\n']), "{line}");
        assert!(
            all.insert(key.to_owned(), value.to_owned()).is_none(),
            "{line}"
        );
    }
    (name.to_owned(), all, value)
}

fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.chars().all(plain) && text.starts_with(|c: char| c.is_ascii_alphabetic())
}

fn metrics(server: &Server) -> BTreeMap<String, Family> {
    let answer = server.get("/metrics");
    assert!(
        answer
            .head
            .contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{}",
        answer.head
    );
    assert_eq!(mask_boot_ids(&answer.text), answer.text);
    read(&answer.text)
}

#[test]
fn what_is_counted_is_what_has_happened() {
    let site = Site::new();
    site.seal("fc28");
    let client = site.add(1, "lab-1", Mode::Persistent, &[]);
    let server = site.serve();
    let before = metrics(&server);
    let clients = |families: &BTreeMap<String, Family>, state| {
        families["netroot_clients"].value(&[("state", state)])
    };
    for state in ["failed", "lost", "booting", "up", "off"] {
        let count = f64::from(u8::from(state == "off"));
        assert_eq!(clients(&before, state), count, "{state}");
    }
    assert_eq!(
        before["netroot_boots_total"].value(&[("outcome", "up")]),
        0.0
    );

    server.boot_cfg(&client);
    assert_eq!(clients(&metrics(&server), "booting"), 1.0);
    let peer = site.boot(&server, &client);
    for path in ["/", "/jobs", "/no-such-page", "/api/v1/clients", "/healthz"] {
        server.get(path);
    }
    let after = metrics(&server);
    assert_eq!(clients(&after, "up"), 1.0);
    assert_eq!(after["netroot_sessions"].value(&[]), 1.0);
    assert_eq!(after["netroot_boot_scripts_total"].value(&[]), 2.0);
    let boots = |outcome| after["netroot_boots_total"].value(&[("outcome", outcome)]);
    assert_eq!(
        (boots("up"), boots("refused"), boots("lost")),
        (1.0, 0.0, 0.0)
    );
    let requests = |endpoint, code| {
        after["netroot_http_requests_total"].value(&[("endpoint", endpoint), ("code", code)])
    };
    assert_eq!(requests("boot-script", "2xx"), 2.0);
    assert_eq!(requests("boot-file", "2xx"), 0.0);
    assert_eq!(
        (requests("page", "2xx"), requests("page", "4xx")),
        (2.0, 1.0)
    );
    assert_eq!(requests("api", "2xx"), 1.0);
    assert_eq!(
        requests("watch", "2xx"),
        3.0,
        "two of them for these counts"
    );
    assert_eq!(requests("page", "5xx"), 0.0);
    drop(peer);
}

#[test]
fn there_are_as_many_series_whatever_is_asked_for() {
    let site = Site::new();
    let server = site.serve();
    let series = |families: &BTreeMap<String, Family>| -> usize {
        families.values().map(|family| family.samples.len()).sum()
    };
    let before = series(&metrics(&server));
    for n in 0..20 {
        server.get(&format!("/made-up-{n}"));
        server.get(&format!("/api/v1/made-up-{n}/x"));
    }
    server.boot_cfg(&mac(9));
    assert_eq!(series(&metrics(&server)), before);
}
