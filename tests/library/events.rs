//! Events: of all servers, the newest first, whatever stands between them.

use std::fs::{self, OpenOptions};
use std::io::Write;

use netroot::library::*;

use crate::lab::Lab;

fn event(at: &str, by: &Actor, what: &str, to: &str) -> Event {
    let mut event = Event::new(by, what);
    event.at = at.parse().unwrap();
    event.to = Some(to.to_owned());
    event
}

fn user(name: &str) -> Actor {
    Actor::User {
        name: name.to_owned(),
        peer: "192.0.2.9:4711".to_owned(),
    }
}

/// As a server of this name would write it.
fn write(lab: &Lab, server: &str, event: &Event) {
    append(
        lab,
        server,
        &event.at.to_string()[..10],
        &serde_json::to_string(event).unwrap(),
    );
}

fn append(lab: &Lab, server: &str, day: &str, line: &str) {
    let path = lab.home().join(format!("events/{day}-{server}.jsonl"));
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    writeln!(file, "{line}").unwrap();
}

/// Two servers, three days.
fn lab() -> Lab {
    let lab = Lab::new();
    for (server, at, who, what, to) in [
        ("a", "2026-11-18T23:59:59Z", "carol", "client-add", "lab-01"),
        (
            "a",
            "2026-11-19T08:00:00Z",
            "alice",
            "client-reset",
            "lab-01",
        ),
        ("b", "2026-11-19T08:00:01Z", "bob", "client-reset", "lab-02"),
        (
            "a",
            "2026-11-19T08:00:02Z",
            "alice",
            "image-remove",
            "fc28@1",
        ),
        (
            "b",
            "2026-11-20T09:00:00Z",
            "alice",
            "client-assign",
            "lab-02",
        ),
        ("a", "2026-11-20T09:00:01Z", "Bob", "client-reset", "lab-03"),
    ] {
        write(&lab, server, &event(at, &user(who), what, to));
    }
    lab
}

fn told(page: &Events) -> Vec<String> {
    let events = page.events.iter();
    events
        .map(|one| format!("{} {}", one.server, one.event.to.as_deref().unwrap_or("-")))
        .collect()
}

fn found(lab: &Lab, filter: Filter) -> Vec<String> {
    told(&lab.lib.events(&filter).unwrap())
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn the_newest_of_all_servers_come_first() {
    let lab = lab();
    let page = lab.lib.events(&Filter::default()).unwrap();
    assert_eq!(
        told(&page),
        [
            "a lab-03", "b lab-02", "a fc28@1", "b lab-02", "a lab-01", "a lab-01"
        ]
    );
    assert_eq!((page.next, page.skipped), (None, 0));
    // What is recorded here comes first of all.
    lab.lib
        .record(&Event::new(&Actor::Server, "boot").of(&"lab-09"))
        .unwrap();
    let first = lab.lib.events(&Filter::default()).unwrap().events.remove(0);
    assert_eq!(first.event.to.as_deref(), Some("lab-09"));
}

#[test]
fn conditions_hold_together() {
    let lab = lab();
    let by = |filter: Filter| found(&lab, filter);
    let who = some("BOB");
    assert_eq!(
        by(Filter {
            who,
            ..Filter::default()
        }),
        ["a lab-03", "b lab-02"]
    );
    let what = some("client-re");
    assert_eq!(
        by(Filter {
            what,
            ..Filter::default()
        }),
        ["a lab-03", "b lab-02", "a lab-01"]
    );
    let to = some("FC28");
    assert_eq!(
        by(Filter {
            to,
            ..Filter::default()
        }),
        ["a fc28@1"]
    );
    let q = some("192.0.2.9");
    assert_eq!(
        by(Filter {
            q,
            ..Filter::default()
        })
        .len(),
        6
    );
    let moment = |text: &str| Some(text.parse().unwrap());
    let filter = Filter {
        since: moment("2026-11-19T08:00:00Z"),
        until: moment("2026-11-20T09:00:00Z"),
        who: some("alice"),
        ..Filter::default()
    };
    assert_eq!(by(filter), ["a fc28@1", "a lab-01"], "the end is not in it");
}

#[test]
fn pages_follow_each_other_whatever_is_written_meanwhile() {
    let lab = lab();
    let whole = found(&lab, Filter::default());
    for limit in 1..=7 {
        let mut filter = Filter {
            limit,
            ..Filter::default()
        };
        let mut pages = Vec::new();
        loop {
            let page = lab.lib.events(&filter).unwrap();
            assert!(page.events.len() <= usize::from(limit));
            pages.extend(told(&page));
            // A new server, and news of an old one.
            let later = event("2026-11-20T10:00:00Z", &Actor::Server, "boot", "later");
            write(&lab, "c", &later);
            write(&lab, "a", &later);
            let Some(next) = page.next else { break };
            // As it comes back from a page's link.
            filter.after = Some(next.to_string().parse().unwrap());
        }
        pages.retain(|line| !line.contains("later"));
        assert_eq!(pages, whole, "{limit} a page");
    }
}

#[test]
fn lines_that_nobody_wrote_so_are_left_out_and_counted() {
    let lab = lab();
    append(
        &lab,
        "a",
        "2026-11-20",
        "{\"at\":\"2026-11-20T09:00:02Z\",\"by\"",
    );
    append(&lab, "a", "2026-11-20", "\u{feff}nonsense");
    append(&lab, "b", "2026-11-19", "[]");
    write(
        &lab,
        "a",
        &event("2026-11-20T09:00:03Z", &Actor::Server, "boot", "last"),
    );
    for strange in [
        "notes.txt",
        "2026-11-20.jsonl",
        "2026-99-99-a.jsonl",
        "\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}.jsonl",
    ] {
        fs::write(lab.home().join("events").join(strange), "x\n").unwrap();
    }
    let page = lab.lib.events(&Filter::default()).unwrap();
    assert_eq!((page.events.len(), page.skipped), (7, 3));
    assert_eq!(told(&page)[0], "a last");
}

#[test]
fn a_page_of_something_rare_reads_so_much_and_no_more() {
    let lab = Lab::new();
    let one = event("2026-11-20T09:00:00Z", &Actor::Server, "boot", "lab-01");
    let line = serde_json::to_string(&one).unwrap() + "\n";
    let path = lab.home().join("events/2026-11-20-a.jsonl");
    fs::write(path, line.repeat(250_000)).unwrap();
    let rare = event(
        "2026-11-19T09:00:00Z",
        &Actor::Server,
        "client-add",
        "lab-01",
    );
    write(&lab, "a", &rare);
    let mut filter = Filter {
        what: some("client-add"),
        ..Filter::default()
    };
    let page = lab.lib.events(&filter).unwrap();
    assert!(page.events.is_empty());
    filter.after = Some(page.next.unwrap());
    let page = lab.lib.events(&filter).unwrap();
    assert_eq!((page.events.len(), page.next), (1, None));
}

#[test]
fn whoever_reads_events_is_let_in_as_no_boot() {
    let lab = Lab::new();
    lab.seal("fc28", "one");
    let mac = lab.add("52:54:00:12:34:56", "fc28", Mode::Persistent);
    let ticket = lab.script(&mac);
    let grant = lab.enter(&ticket).unwrap();
    lab.leave(&grant);
    let listed = Event::new(&Actor::Server, "list")
        .with("ids", vec![ticket.id.to_string(), "fc28".to_owned()])
        .with("why", format!("{} came back", ticket.initiator));
    lab.lib.record(&listed).unwrap();
    let id = ticket.id.to_string();
    let (known, secret) = id.split_at(id.len() - 16);
    let page = lab.lib.events(&Filter::default()).unwrap();
    let text = serde_json::to_string(&page).unwrap();
    assert!(text.contains(known), "{text}");
    assert!(text.contains("\u{2026} came back"), "{text}");
    assert!(!text.contains(secret), "{text}");
    let mut logins = page.events.iter().filter(|one| one.event.what != "list");
    assert!(logins.any(
        |one| matches!(&one.event.by, Actor::Client { initiator, .. } if initiator.contains(known))
    ));
    // Nor can it be found out piece by piece.
    let q = some(secret);
    assert!(
        found(
            &lab,
            Filter {
                q,
                ..Filter::default()
            }
        )
        .is_empty()
    );
    let plain = "client-525400123456 at 2026-11-20";
    assert_eq!(mask_boot_ids(plain), plain);
}
