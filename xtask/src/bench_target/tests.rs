//! The generator against the null target, over real sockets: whatever one of them does wrong, the other
//! one takes for an error.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::contender::INITIATOR;
use super::drive::{Done, Group, drive, total};
use super::load::{Load, Order, Source};
use super::login::{Door, Manner, log_in, log_out};
use super::nexus::Truth;
use super::null;
use super::pattern::{BLOCK, Expected, FRONT, Written};
use super::scenario::ALL;
use super::session::{Opening, Session};
use super::{Options, Peer, Tool, chosen};

const SIZE: u64 = 16 << 20;

/// A null target; its thread ends with the test.
fn null_target() -> Door {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let portal = listener.local_addr().unwrap();
    thread::spawn(move || null::serve(&listener, null::disk(SIZE)));
    Door {
        portal,
        target: "iqn.2026-01.example:null".into(),
        initiator: INITIATOR.into(),
        lun: 1,
    }
}

fn load(order: Order, reads: u32, bytes: u32) -> Load {
    let region = FRONT..SIZE / BLOCK;
    Load {
        order,
        reads,
        bytes,
        region,
    }
}

/// `sessions` of a load, for a moment; every byte is looked at.
fn play(door: &Door, manner: Manner, load: &Load, sessions: usize, depth: u32) -> Done {
    let written = Arc::new(Written::new(SIZE / BLOCK));
    let writes = load.reads < 100;
    let opening = Opening {
        manner,
        depth,
        bytes: load.bytes,
        truth: Truth {
            expected: if writes {
                Expected::Either
            } else {
                Expected::Exactly(written.clone())
            },
            written: writes.then(|| written.clone()),
        },
    };
    let mut group = Group::default();
    for number in 0..sessions {
        let session = Session::open(door, &opening).unwrap();
        group.push(session, Source::made(load, number));
    }
    let done = total(&drive(&mut [group], Some(Duration::from_millis(100))).unwrap());
    if writes {
        let reading = Load {
            reads: 100,
            order: Order::Sequential,
            ..load.clone()
        };
        let mut opening = opening;
        opening.truth = Truth {
            expected: Expected::Exactly(written),
            written: None,
        };
        let mut group = Group::default();
        let session = Session::open(door, &opening).unwrap();
        group.push(session, Source::made(&reading, 0));
        drive(&mut [group], Some(Duration::from_millis(100))).unwrap();
    }
    done
}

#[test]
fn loads_of_all_shapes_find_what_they_must() {
    for manner in [
        Manner::OPEN_ISCSI,
        Manner::OPEN_ISCSI.with_digests(),
        Manner::IPXE,
    ] {
        for (order, reads, bytes, sessions, depth) in [
            (Order::Sequential, 100, 1 << 20, 1, 8),
            (Order::Random, 100, 4096, 1, 1),
            (Order::Random, 100, 4096, 7, 4),
            (Order::Sequential, 0, 1 << 20, 1, 3),
            (Order::Random, 70, 4096, 1, 32),
            (Order::Random, 0, 4096, 5, 2),
        ] {
            let load = load(order, reads, bytes);
            let done = play(&null_target(), manner, &load, sessions, depth);
            assert!(done.tally.commands > 0, "{manner:?} {load:?}");
            assert_eq!(done.tally.bytes, done.tally.commands * u64::from(bytes));
            assert_eq!(done.each.len(), sessions);
        }
    }
}

#[test]
fn data_that_nobody_looks_at_are_counted() {
    let door = null_target();
    let opening = Opening {
        manner: Manner::OPEN_ISCSI,
        depth: 4,
        bytes: 1 << 20,
        truth: Truth {
            expected: Expected::Anything,
            written: None,
        },
    };
    let mut group = Group::default();
    let session = Session::open(&door, &opening).unwrap();
    group.push(
        session,
        Source::made(&load(Order::Sequential, 100, 1 << 20), 0),
    );
    let done = total(&drive(&mut [group], Some(Duration::from_millis(100))).unwrap());
    assert_eq!(done.tally.bytes, done.tally.commands << 20);
    assert!(done.tally.commands > 4);
}

#[test]
fn wrong_bytes_are_an_error() {
    let door = null_target();
    let mut opening = Opening {
        manner: Manner::OPEN_ISCSI,
        depth: 2,
        bytes: 4096,
        truth: Truth {
            expected: Expected::Anything,
            written: None,
        },
    };
    // Without `written`, a write brings something that stands nowhere.
    let writing = load(Order::Sequential, 0, 4096);
    let reading = load(Order::Sequential, 100, 4096);
    let time = Some(Duration::from_millis(50));
    let mut group = Group::default();
    let session = Session::open(&door, &opening).unwrap();
    group.push(session, Source::made(&writing, 0));
    drive(&mut [group], time).unwrap();
    opening.truth.expected = Expected::Either;
    let mut group = Group::default();
    let session = Session::open(&door, &opening).unwrap();
    group.push(session, Source::made(&reading, 0));
    let error = drive(&mut [group], time).unwrap_err();
    assert!(error.to_string().starts_with("wrong bytes"), "{error:#}");
}

#[test]
fn sessions_come_and_go() {
    let door = null_target();
    for _ in 0..100 {
        let (socket, agreed) = log_in(&door, &Manner::OPEN_ISCSI).unwrap();
        log_out(socket, &agreed).unwrap();
    }
}

#[test]
fn scenarios_are_chosen_by_how_their_names_begin() {
    let options = |names: &[&str], tool| Options {
        quick: true,
        rounds: None,
        json: false,
        verify: false,
        peer: Peer::Tgt,
        tool,
        scenarios: names.iter().map(|name| (*name).to_owned()).collect(),
        binary: None,
    };
    let names = |names: &[&str], tool| {
        let chosen = chosen(&options(names, tool)).unwrap();
        chosen
            .iter()
            .map(|scenario| scenario.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&[], Tool::Own).len(), ALL.len());
    assert_eq!(
        names(&["ipxe", "storm"], Tool::Own),
        ["ipxe-read", "ipxe-write", "storm"]
    );
    let by_perf = names(&["read-4k"], Tool::IscsiPerf);
    assert_eq!(by_perf, ["read-4k-qd1", "read-4k-qd32"]);
    assert!(chosen(&options(&["storm"], Tool::QemuImg)).is_err());
    let error = chosen(&options(&["nothing"], Tool::Own)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("there are idle-1000, read-1m-qd8")
    );
}
