//! Who may use a unit, and who not.

use std::io;
use std::sync::Mutex;

use super::*;

const TUR: [u8; 6] = [0; 6];
const READ: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const WRITE: [u8; 10] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const MODE_SENSE: [u8; 6] = [0x1a, 0, 0x3f, 0, 255, 0];
const RESERVE_6: [u8; 6] = [0x16, 0, 0, 0, 0, 0];
const RELEASE_6: [u8; 6] = [0x17, 0, 0, 0, 0, 0];

const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const RELEASE: u8 = 2;
const CLEAR: u8 = 3;
const PREEMPT: u8 = 4;
const PREEMPT_AND_ABORT: u8 = 5;
const REGISTER_AND_IGNORE: u8 = 6;
const REGISTER_AND_MOVE: u8 = 7;

const SPEC_I_PT: u8 = 0x08;
const ALL_TG_PT: u8 = 0x04;
const APTPL: u8 = 0x01;

const TYPES: [u8; 6] = [1, 3, 5, 6, 7, 8];

/// What a command ended with.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Good,
    Conflict,
    Sense(u8, u16),
}
use End::{Conflict, Good, Sense as Bad};

fn end(nexus: &Nexus, cdb: &[u8], data: &[u8]) -> End {
    match run(nexus, DISK, cdb, data) {
        (Status::Good, None, _) => Good,
        (Status::ReservationConflict, None, data) if data.is_empty() => Conflict,
        (Status::CheckCondition, Some((key, code)), _) => Bad(key, code),
        other => panic!("{other:?}"),
    }
}

/// A PERSISTENT RESERVE OUT with a parameter list.
fn with_list(nexus: &Nexus, action: u8, kind: u8, list: &[u8]) -> End {
    let mut cdb = vec![0x5f, action, kind, 0, 0];
    cdb.extend((list.len() as u32).to_be_bytes());
    cdb.push(0);
    end(nexus, &cdb, list)
}

fn list(key: u64, new: u64, flags: u8) -> Vec<u8> {
    let mut list = key.to_be_bytes().to_vec();
    list.extend(new.to_be_bytes());
    list.extend([0, 0, 0, 0, flags, 0, 0, 0]);
    list
}

fn out(nexus: &Nexus, action: u8, kind: u8, key: u64, new: u64) -> End {
    with_list(nexus, action, kind, &list(key, new, 0))
}

fn read(nexus: &Nexus, action: u8) -> Vec<u8> {
    good(nexus, &[0x5e, action, 0, 0, 0, 0, 0, 0xff, 0xff, 0], b"")
}

/// PRGENERATION and the keys.
fn keys(nexus: &Nexus) -> (u32, Vec<u64>) {
    let data = read(nexus, 0);
    let number = |bytes: &[u8]| bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b));
    assert_eq!(number(&data[4..8]) as usize, data.len() - 8);
    let keys = data[8..].chunks(8).map(number).collect();
    (number(&data[..4]) as u32, keys)
}

/// Key and type of the reservation.
fn reserved(nexus: &Nexus) -> Option<(u64, u8)> {
    let data = read(nexus, 1);
    let key = data.get(8..16)?;
    assert_eq!(data.len(), 24);
    Some((u64::from_be_bytes(key.try_into().unwrap()), data[21]))
}

/// Three initiators of one disk.
struct Three(Arc<Device>, [Nexus; 3]);

fn three() -> Three {
    let device = device(MemoryDisk::new(512, BLOCKS));
    let nexuses = [1, 2, 3].map(|n| ready_from(&device, n));
    Three(device, nexuses)
}

/// The same, all registered by the numbers 1 to 3.
fn registered() -> Three {
    let three = three();
    for (nexus, key) in three.1.iter().zip(1..) {
        assert_eq!(out(nexus, REGISTER, 0, 0, key), Good);
    }
    three
}

#[test]
fn who_gets_through_is_as_the_tables_have_it() {
    for kind in TYPES {
        let Three(_, [holder, registrant, stranger]) = three();
        assert_eq!(out(&holder, REGISTER, 0, 0, 1), Good);
        assert_eq!(out(&registrant, REGISTER, 0, 0, 2), Good);
        assert_eq!(out(&holder, RESERVE, kind, 1, 0), Good);
        let ends = |nexus: &Nexus| {
            [
                end(nexus, &TUR, b""),
                end(nexus, &READ, b""),
                end(nexus, &MODE_SENSE, b""),
                end(nexus, &WRITE, &[0; 512]),
            ]
        };
        assert_eq!(ends(&holder), [Good, Good, Good, Good]);
        let reading = [Good, Good, Good, Conflict];
        let nothing = [Good, Conflict, Conflict, Conflict];
        let (registrants, strangers) = match kind {
            1 => (&reading, &reading),
            3 => (&nothing, &nothing),
            5 | 7 => (&[Good, Good, Good, Good], &reading),
            _ => (&[Good, Good, Good, Good], &nothing),
        };
        assert_eq!(ends(&registrant), *registrants, "type {kind}");
        assert_eq!(ends(&stranger), *strangers, "type {kind}");
        // START STOP UNIT that only starts, and what tells how things are.
        assert_eq!(end(&stranger, &[0x1b, 0, 0, 0, 1, 0], b""), Good);
        assert_eq!(end(&stranger, &[0x1b, 0, 0, 0, 0, 0], b""), Conflict);
        assert_eq!(end(&stranger, &[0x1e, 0, 0, 0, 0, 0], b""), Good);
        assert_eq!(end(&stranger, &[0x1e, 0, 0, 0, 1, 0], b""), Conflict);
        assert_eq!(
            end(&stranger, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], b""),
            Good
        );
        assert_eq!(end(&stranger, &[0x12, 0, 0, 0, 36, 0], b""), Good);
        assert_eq!(
            end(&stranger, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], b""),
            Conflict
        );
        // Its own command is refused before what is wrong with it counts.
        assert_eq!(
            end(&stranger, &[0x2a, 0xe0, 0, 0, 0, 0, 0, 0, 1, 0], b""),
            Conflict
        );
    }
}

#[test]
fn a_registration_needs_the_key_that_there_is() {
    let Three(_, [one, two, _]) = three();
    assert_eq!(out(&one, REGISTER, 0, 7, 1), Conflict);
    assert_eq!(keys(&one), (0, vec![]));
    assert_eq!(out(&one, REGISTER, 0, 0, 1), Good);
    assert_eq!(out(&one, REGISTER, 0, 9, 2), Conflict);
    assert_eq!(out(&one, REGISTER, 0, 1, 2), Good);
    assert_eq!(out(&two, REGISTER_AND_IGNORE, 0, 99, 3), Good);
    assert_eq!(keys(&two), (3, vec![2, 3]));
    // Unregistering somebody who is not registered is no error.
    assert_eq!(out(&one, REGISTER, 0, 2, 0), Good);
    assert_eq!(out(&one, REGISTER, 0, 0, 0), Good);
    assert_eq!(keys(&two), (4, vec![3]));
    for action in [RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT] {
        assert_eq!(out(&one, action, 1, 0, 3), Conflict, "not registered");
        assert_eq!(out(&two, action, 1, 4, 3), Conflict, "another key");
    }
    assert_eq!(keys(&two), (4, vec![3]));
}

#[test]
fn a_reservation_is_made_kept_and_released_by_its_holder() {
    for kind in TYPES {
        let Three(_, [one, two, three]) = registered();
        assert_eq!(reserved(&one), None);
        assert_eq!(out(&one, RESERVE, kind, 1, 0), Good);
        assert_eq!(out(&one, RESERVE, kind, 1, 0), Good, "again");
        let for_all = kind >= 7;
        assert_eq!(reserved(&two), Some((if for_all { 0 } else { 1 }, kind)));
        let other = if kind == 1 { 3 } else { 1 };
        assert_eq!(out(&one, RESERVE, other, 1, 0), Conflict, "another type");
        assert_eq!(out(&one, RELEASE, other, 1, 0), Bad(5, 0x2604));
        let (same, released) = if for_all {
            (Good, None)
        } else {
            (Conflict, Some((1, kind)))
        };
        assert_eq!(out(&two, RESERVE, kind, 2, 0), same);
        // Of those for all registrants, each is the holder.
        assert_eq!(out(&two, RELEASE, kind, 2, 0), Good);
        assert_eq!(reserved(&two), released);
        if !for_all {
            assert_eq!(out(&one, RELEASE, kind, 1, 0), Good);
        }
        // Those are told whom it has let in.
        let others = if for_all {
            [&one, &three]
        } else {
            [&two, &three]
        };
        let told = if kind >= 5 { Bad(6, 0x2a04) } else { Good };
        for other in others {
            assert_eq!(end(other, &TUR, b""), told);
            assert_eq!(reserved(other), None);
        }
        assert_eq!(out(&one, RELEASE, kind, 1, 0), Good, "nothing to release");
    }
}

#[test]
fn a_holder_that_unregisters_gives_up_what_it_held() {
    for kind in TYPES {
        let Three(_, [one, two, _]) = registered();
        assert_eq!(out(&one, RESERVE, kind, 1, 0), Good);
        assert_eq!(out(&one, REGISTER, 0, 1, 0), Good);
        let stays = kind >= 7;
        let told = if matches!(kind, 5 | 6) {
            Bad(6, 0x2a04)
        } else {
            Good
        };
        assert_eq!(end(&two, &TUR, b""), told);
        assert_eq!(reserved(&two).is_some(), stays);
    }
    // The last of all registrants takes the reservation along.
    let Three(_, [one, two, _]) = three();
    assert_eq!(out(&one, REGISTER, 0, 0, 1), Good);
    assert_eq!(out(&one, RESERVE, 8, 1, 0), Good);
    assert_eq!(out(&one, REGISTER_AND_IGNORE, 0, 0, 0), Good);
    assert_eq!(reserved(&two), None);
    assert_eq!(end(&two, &WRITE, &[0; 512]), Good);
}

#[test]
fn clear_takes_everything_away_and_tells_the_others() {
    let Three(_, [one, two, three]) = registered();
    assert_eq!(out(&one, RESERVE, 6, 1, 0), Good);
    assert_eq!(out(&two, CLEAR, 0, 2, 0), Good);
    assert_eq!(end(&one, &TUR, b""), Bad(6, 0x2a03));
    assert_eq!(end(&three, &TUR, b""), Bad(6, 0x2a03));
    assert_eq!(end(&two, &TUR, b""), Good);
    assert_eq!(keys(&two), (4, vec![]));
    assert_eq!(reserved(&two), None);
}

#[test]
fn preempt_removes_registrations_and_takes_over() {
    let Three(_, [one, two, three]) = registered();
    // No reservation: registrations only.
    assert_eq!(out(&one, PREEMPT, 5, 1, 3), Good);
    assert_eq!(end(&three, &TUR, b""), Bad(6, 0x2a05));
    assert_eq!(keys(&one), (4, vec![1, 2]));
    assert_eq!(reserved(&one), None);
    assert_eq!(out(&one, PREEMPT, 5, 1, 3), Conflict, "nobody has that key");
    assert_eq!(out(&one, PREEMPT, 5, 1, 0), Bad(5, 0x2600));
    // A reservation of somebody else.
    assert_eq!(out(&three, REGISTER, 0, 0, 3), Good);
    assert_eq!(out(&one, RESERVE, 5, 1, 0), Good);
    assert_eq!(out(&two, PREEMPT, 2, 2, 1), Bad(5, 0x2400), "no such type");
    assert_eq!(out(&two, PREEMPT, 3, 2, 1), Good);
    assert_eq!(reserved(&two), Some((2, 3)));
    assert_eq!(end(&one, &TUR, b""), Bad(6, 0x2a05));
    assert_eq!(end(&one, &READ, b""), Conflict);
    // The type is another: who is still registered is told that it may do less.
    assert_eq!(end(&three, &TUR, b""), Bad(6, 0x2a04));
    // Its own, to change the type.
    assert_eq!(out(&two, PREEMPT, 1, 2, 2), Good);
    assert_eq!(reserved(&two), Some((2, 1)));
    assert_eq!(end(&three, &TUR, b""), Bad(6, 0x2a04));
    assert_eq!(keys(&two).1, [2, 3]);
}

#[test]
fn preempt_of_all_registrants_leaves_one() {
    let Three(_, [one, two, three]) = registered();
    assert_eq!(out(&one, RESERVE, 7, 1, 0), Good);
    // One of them: the reservation stays.
    assert_eq!(out(&two, PREEMPT, 7, 2, 3), Good);
    assert_eq!(reserved(&two), Some((0, 7)));
    assert_eq!(end(&three, &TUR, b""), Bad(6, 0x2a05));
    assert_eq!(out(&two, PREEMPT, 3, 2, 0), Good);
    assert_eq!(end(&one, &TUR, b""), Bad(6, 0x2a05));
    assert_eq!(keys(&two).1, [2]);
    assert_eq!(reserved(&two), Some((2, 3)));
}

#[test]
fn preempt_and_abort_silences_those_that_it_preempts() {
    preempt_and_abort(0x00, Status::Silent);
}

#[test]
fn preempt_and_abort_tells_those_that_it_preempts_where_tas_is_set() {
    preempt_and_abort(0x40, Status::TaskAborted);
}

/// PREEMPT AND ABORT of one by another, and what the command of the first ends with.
fn preempt_and_abort(tas: u8, expected: Status) {
    let Three(_, [one, two, three]) = registered();
    let mut page = vec![0, 0, 0, 0, 0x0a, 10, 0x02, 0x10, 0, tas];
    page.extend([0, 0, 0xff, 0xff, 0, 0]);
    good(&three, &[0x15, 0x10, 0, 0, page.len() as u8, 0], &page);
    for nexus in [&one, &two].iter().filter(|_| tas != 0) {
        assert_eq!(end(nexus, &TUR, b""), Bad(6, 0x2a01));
    }
    assert_eq!(out(&one, RESERVE, 5, 1, 0), Good);
    let mut block = [0; 16];
    block[..10].copy_from_slice(&WRITE);
    let open = |nexus: &Nexus| match nexus.start(Lun::new(DISK), block) {
        Start::Data(pending) => pending,
        Start::Done(_) => panic!("a write needs data"),
    };
    let (victim, bystander) = (open(&one), open(&three));
    assert_eq!(out(&two, PREEMPT_AND_ABORT, 5, 2, 1), Good);
    let finish = |pending: Pending| match pending.finish(vec![Bytes::from(vec![1; 512])]) {
        block::Answer::Now(response) => response.status,
        block::Answer::Later(_) => panic!("memory answers at once"),
    };
    assert_eq!(finish(victim), expected);
    assert_eq!(good(&two, &READ, b""), [0; 512]);
    assert_eq!(finish(bystander), Status::Good);
    assert_eq!(good(&two, &READ, b""), [1; 512]);
    assert_eq!(end(&one, &TUR, b""), Bad(6, 0x2a05));
    assert_eq!(end(&one, &WRITE, &[2; 512]), Conflict);
}

#[test]
fn a_reservation_moves_with_its_registration() {
    let Three(_, [one, two, stranger]) = three();
    assert_eq!(out(&one, REGISTER, 0, 0, 1), Good);
    let to = |n: u8, port: u16, flags: u8| {
        let id = path_of(n).initiator;
        let mut list = 1u64.to_be_bytes().to_vec();
        list.extend(9u64.to_be_bytes());
        list.extend([0, flags]);
        list.extend(port.to_be_bytes());
        list.extend((id.as_bytes().len() as u32).to_be_bytes());
        list.extend(id.as_bytes());
        list
    };
    assert_eq!(
        with_list(&one, REGISTER_AND_MOVE, 0, &to(2, 1, 0)),
        Conflict
    );
    assert_eq!(out(&one, RESERVE, 3, 1, 0), Good);
    assert_eq!(
        with_list(&one, REGISTER_AND_MOVE, 0, &to(2, 2, 0)),
        Bad(5, 0x2600)
    );
    assert_eq!(
        with_list(&one, REGISTER_AND_MOVE, 0, &to(1, 1, 0)),
        Bad(5, 0x2600)
    );
    assert_eq!(
        with_list(&one, REGISTER_AND_MOVE, 0, &to(2, 1, APTPL)),
        Bad(5, 0x2600)
    );
    let mut liar = to(2, 1, 0);
    liar[23] += 4;
    assert_eq!(with_list(&one, REGISTER_AND_MOVE, 0, &liar), Bad(5, 0x1a00));
    assert_eq!(
        with_list(&stranger, REGISTER_AND_MOVE, 0, &to(2, 1, 0)),
        Conflict
    );
    assert_eq!(with_list(&one, REGISTER_AND_MOVE, 0, &to(2, 1, 0x02)), Good);
    assert_eq!(reserved(&two), Some((9, 3)));
    assert_eq!(keys(&two).1, [9]);
    assert_eq!(end(&two, &WRITE, &[0; 512]), Good);
    assert_eq!(end(&one, &READ, b""), Conflict);
}

#[test]
fn others_are_registered_by_their_names() {
    let Three(_, [one, two, three]) = three();
    let named = |ids: &[&[u8]]| {
        let ids = ids.concat();
        let mut list = list(0, 5, SPEC_I_PT | ALL_TG_PT);
        list.extend((ids.len() as u32).to_be_bytes());
        list.extend(ids);
        list
    };
    let two_id = path_of(2).initiator;
    let good_list = named(&[two_id.as_bytes()]);
    assert_eq!(
        with_list(&one, REGISTER_AND_IGNORE, 0, &good_list),
        Bad(5, 0x2600)
    );
    assert_eq!(
        with_list(&one, REGISTER, 0, &named(&[b"\x45\0\0\x04abc\0"])),
        Bad(5, 0x2600)
    );
    let mut long = good_list.clone();
    long[27] += 1;
    assert_eq!(with_list(&one, REGISTER, 0, &long), Bad(5, 0x1a00));
    assert_eq!(keys(&one), (0, vec![]), "none of them");
    assert_eq!(with_list(&one, REGISTER, 0, &good_list), Good);
    assert_eq!(keys(&one), (1, vec![5, 5]));
    assert_eq!(out(&two, RESERVE, 1, 5, 0), Good);
    // Who is registered registers nobody else.
    let mut again = good_list;
    again[7] = 5;
    assert_eq!(with_list(&one, REGISTER, 0, &again), Bad(5, 0x2600));
    // A name without a port is that of all its ports here.
    let name = b"\x05\0\0\x14iqn.2026-01.test:i\0\0";
    assert_eq!(with_list(&three, REGISTER, 0, &named(&[name])), Good);
    assert_eq!(keys(&one).1, [5, 5, 5]);
    let nobody = b"\x05\0\0\x14iqn.2026-01.test:j\0\0";
    let Three(_, [lonely, _, _]) = super::reservations::three();
    assert_eq!(
        with_list(&lonely, REGISTER, 0, &named(&[nobody])),
        Bad(5, 0x2600)
    );
}

#[test]
fn parameter_lists_have_the_length_that_they_say() {
    let Three(_, [one, _, _]) = three();
    for len in [0usize, 23, 25, 28] {
        assert_eq!(
            with_list(&one, REGISTER, 0, &vec![0; len]),
            Bad(5, 0x1a00),
            "{len}"
        );
    }
    let cdb = [0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0];
    assert_eq!(
        end(&one, &cdb, &[0; 20]),
        Bad(5, 0x1a00),
        "less than announced"
    );
    assert_eq!(
        end(&one, &[0x5f, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0], b""),
        Bad(5, 0x1a00)
    );
    for action in 8..=0x1f {
        assert_eq!(out(&one, action, 0, 0, 1), Bad(5, 0x2400));
        assert_eq!(
            end(&one, &[0x5e, action, 0, 0, 0, 0, 0, 1, 0, 0], b""),
            Bad(5, 0x2400)
        );
    }
    assert_eq!(out(&one, REGISTER, 0, 0, 1), Good);
    for scope_and_type in [0x00, 0x02, 0x04, 0x09, 0x11, 0x23] {
        assert_eq!(out(&one, RESERVE, scope_and_type, 1, 0), Bad(5, 0x2400));
    }
}

#[test]
fn there_are_only_so_many_registrations() {
    let Three(_, [one, two, _]) = three();
    let mut ids: Vec<u8> = Vec::new();
    for n in 0..1023u32 {
        let [_, _, high, low] = n.to_be_bytes();
        let id = TransportId::iscsi("iqn.2026-01.test:many", [0, 0, 0, 0, high, low]);
        ids.extend(id.as_bytes());
    }
    let mut many = list(0, 5, SPEC_I_PT);
    many.extend((ids.len() as u32).to_be_bytes());
    many.extend(ids);
    assert_eq!(with_list(&one, REGISTER, 0, &many), Good);
    assert_eq!(out(&two, REGISTER, 0, 0, 2), Bad(5, 0x5504));
    assert_eq!(keys(&one).0, 1);
    assert_eq!(out(&one, REGISTER, 0, 5, 0), Good);
    assert_eq!(out(&two, REGISTER, 0, 0, 2), Good);
}

#[test]
fn full_status_tells_who_they_are() {
    let Three(_, [one, two, _]) = three();
    assert_eq!(out(&one, REGISTER, 0, 0, 0x1122_3344), Good);
    assert_eq!(out(&two, REGISTER, 0, 0, 2), Good);
    assert_eq!(out(&two, RESERVE, 5, 2, 0), Good);
    let data = read(&one, 3);
    let id = path_of(1).initiator;
    let len = 24 + id.as_bytes().len();
    assert_eq!(data.len(), 8 + 2 * len);
    let (first, second) = data[8..].split_at(len);
    assert_eq!(first[..8], 0x1122_3344u64.to_be_bytes());
    assert_eq!(first[12..14], [0, 0]);
    assert_eq!(first[18..20], [0, 1]);
    assert_eq!(&first[24..], id.as_bytes());
    assert_eq!(second[12..14], [1, 5]);
    // Cut where the initiator has no more room, with the lengths untouched.
    let cut = good(&one, &[0x5e, 3, 0, 0, 0, 0, 0, 0, 10, 0], b"");
    assert_eq!(cut, data[..10]);
    // CRH, SIP_C, ATP_C, TMV, all six types; nothing is kept here.
    assert_eq!(read(&one, 2), [0, 8, 0x1c, 0xb0, 0xea, 0x01, 0, 0]);
}

#[test]
fn registrations_outlive_sessions_and_resets() {
    let Three(device, [one, two, _]) = registered();
    assert_eq!(out(&one, RESERVE, 3, 1, 0), Good);
    drop(one);
    assert_eq!(end(&two, &READ, b""), Conflict);
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(two.reset(Reset::Device));
    assert_eq!(end(&two, &TUR, b""), Bad(6, 0x2903));
    assert_eq!(end(&two, &READ, b""), Conflict);
    // The same initiator port is the same registrant.
    let one = ready_from(&device, 1);
    assert_eq!(end(&one, &READ, b""), Good);
    assert_eq!(out(&one, RELEASE, 3, 1, 0), Good);
}

#[test]
fn reserve_holds_until_release_reset_or_the_end_of_the_session() {
    let Three(_, [one, two, three]) = three();
    for begin in [&RESERVE_6[..], &[0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
        assert_eq!(end(&one, begin, b""), Good);
        assert_eq!(end(&one, begin, b""), Good);
        for cdb in [
            &TUR[..],
            &READ,
            &MODE_SENSE,
            begin,
            &[0x5e, 0, 0, 0, 0, 0, 0, 0, 8, 0],
        ] {
            assert_eq!(end(&two, cdb, b""), Conflict, "{cdb:02x?}");
        }
        assert_eq!(out(&two, REGISTER, 0, 0, 2), Conflict);
        assert_eq!(out(&one, REGISTER, 0, 0, 1), Conflict, "not even its own");
        assert_eq!(end(&two, &[0x12, 0, 0, 0, 36, 0], b""), Good);
        assert_eq!(end(&two, &[0x03, 0, 0, 0, 18, 0], b""), Good);
        assert_eq!(end(&two, &RELEASE_6, b""), Good);
        assert_eq!(
            end(&two, &READ, b""),
            Conflict,
            "another's release changes nothing"
        );
        assert_eq!(end(&one, &RELEASE_6, b""), Good);
        assert_eq!(end(&two, &READ, b""), Good);
    }
    assert_eq!(end(&one, &[0x16, 0x10, 0, 0, 0, 0], b""), Bad(5, 0x2400));
    assert_eq!(end(&one, &RESERVE_6, b""), Good);
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(two.reset(Reset::Unit(Lun::new(DISK).unwrap())));
    assert_eq!(end(&three, &TUR, b""), Bad(6, 0x2903));
    assert_eq!(end(&three, &RESERVE_6, b""), Good);
    drop(three);
    assert_eq!(end(&two, &TUR, b""), Bad(6, 0x2903));
    assert_eq!(end(&two, &READ, b""), Good);
}

#[test]
fn reserve_beside_registrations_changes_nothing() {
    let Three(_, [one, two, stranger]) = three();
    assert_eq!(out(&one, REGISTER, 0, 0, 1), Good);
    assert_eq!(out(&two, REGISTER, 0, 0, 2), Good);
    for nexus in [&one, &stranger] {
        assert_eq!(end(nexus, &RESERVE_6, b""), Conflict);
        assert_eq!(end(nexus, &RELEASE_6, b""), Conflict);
    }
    assert_eq!(out(&one, RESERVE, 1, 1, 0), Good);
    for (nexus, expected) in [(&one, Good), (&two, Conflict), (&stranger, Conflict)] {
        assert_eq!(end(nexus, &RESERVE_6, b""), expected);
    }
    assert_eq!(out(&one, PREEMPT, 5, 1, 1), Good);
    assert_eq!(end(&two, &TUR, b""), Bad(6, 0x2a04));
    for (nexus, expected) in [(&one, Good), (&two, Good), (&stranger, Conflict)] {
        assert_eq!(end(nexus, &RESERVE_6, b""), expected);
    }
    assert_eq!(reserved(&one), Some((1, 5)));
}

/// Keeps reservations in memory, and fails when it is told to.
#[derive(Default)]
struct Store {
    kept: Mutex<Option<Vec<u8>>>,
    fails: std::sync::atomic::AtomicBool,
}

impl Store {
    fn check(&self) -> io::Result<()> {
        match self.fails.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err(io::Error::other("worn out")),
            false => Ok(()),
        }
    }

    /// A device that has just come up, and three initiators.
    fn start(self: &Arc<Self>) -> [Nexus; 3] {
        let options = Options {
            reservations: Some(self.clone()),
            ..Options::default()
        };
        let disk = Arc::new(MemoryDisk::new(512, BLOCKS));
        let device = Device::new("c").with_disk(Lun::new(DISK).unwrap(), "d", disk, options);
        let device = Arc::new(device);
        [1, 2, 3].map(|n| ready_from(&device, n))
    }
}

impl ReservationStore for Store {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        self.check()?;
        Ok(self.kept.lock().unwrap().clone())
    }

    fn save(&self, state: &[u8]) -> io::Result<()> {
        self.check()?;
        *self.kept.lock().unwrap() = Some(state.to_vec());
        Ok(())
    }
}

#[test]
fn what_is_to_persist_persists() {
    let store = Arc::new(Store::default());
    let [one, two, _] = store.start();
    assert_eq!(with_list(&one, REGISTER, 0, &list(0, 1, APTPL)), Good);
    assert_eq!(out(&one, RESERVE, 3, 1, 0), Good);
    assert_eq!(read(&one, 2)[2..4], [0x1d, 0xb1]);
    // A stranger cannot make the server forget them.
    assert_eq!(out(&two, REGISTER_AND_IGNORE, 0, 0, 0), Good);
    assert_eq!(read(&one, 2)[2..4], [0x1d, 0xb1]);
    assert_eq!(end(&two, &READ, b""), Conflict);

    let [one, two, _] = store.start();
    assert_eq!(keys(&one), (0, vec![1]));
    assert_eq!(reserved(&two), Some((1, 3)));
    assert_eq!(end(&two, &READ, b""), Conflict);
    assert_eq!(end(&one, &WRITE, &[0; 512]), Good);
    // The last registration says that nothing is to be kept any more.
    assert_eq!(out(&two, REGISTER, 0, 0, 2), Good);

    let [one, two, _] = store.start();
    assert_eq!(keys(&one), (0, vec![]));
    assert_eq!(end(&two, &WRITE, &[0; 512]), Good);
}

#[test]
fn what_cannot_be_kept_is_not_done() {
    let store = Arc::new(Store::default());
    let [one, two, _] = store.start();
    assert_eq!(with_list(&one, REGISTER, 0, &list(0, 1, APTPL)), Good);
    store.fails.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(out(&one, RESERVE, 3, 1, 0), Bad(4, 0x4400));
    assert_eq!(reserved(&one), None);
    assert_eq!(end(&two, &READ, b""), Good);
    // Without a store there is nothing to keep them in.
    let Three(_, [one, _, _]) = three();
    assert_eq!(
        with_list(&one, REGISTER, 0, &list(0, 1, APTPL)),
        Bad(5, 0x2600)
    );
    assert_eq!(keys(&one), (0, vec![]));
}

#[test]
fn a_unit_that_does_not_know_whose_it_is_stays_closed() {
    let store = Arc::new(Store::default());
    *store.kept.lock().unwrap() = Some(b"garbage".to_vec());
    let [one, _, _] = store.start();
    for cdb in [&TUR[..], &READ, &WRITE, &[0x5e, 0, 0, 0, 0, 0, 0, 0, 8, 0]] {
        assert_eq!(end(&one, cdb, b""), Bad(2, 0x0403));
    }
    assert_eq!(end(&one, &[0x12, 0, 0, 0, 36, 0], b""), Good);
}

#[test]
fn a_disk_that_is_opened_anew_keeps_who_may_use_it() {
    let device = device(MemoryDisk::new(512, BLOCKS));
    let (one, two) = (ready_from(&device, 1), ready_from(&device, 2));
    assert_eq!(out(&one, REGISTER, 0, 0, 7), Good);
    assert_eq!(out(&one, RESERVE, 5, 7, 0), Good);
    assert_eq!(end(&two, &WRITE, &[1; 512]), Conflict);
    let lun = Lun::new(DISK).unwrap();
    let again = |identity| {
        let disk = Arc::new(MemoryDisk::new(512, BLOCKS));
        drop(device.add_disk(lun, identity, disk, Options::default()));
        for nexus in [&one, &two] {
            // The power-on, and that the units are others.
            while run(nexus, DISK, &TUR, b"").1.is_some() {}
        }
    };
    again("disk");
    assert_eq!(end(&two, &WRITE, &[1; 512]), Conflict);
    assert_eq!(end(&one, &WRITE, &[1; 512]), Good);
    // Another disk has nothing of it.
    again("another");
    assert_eq!(end(&two, &WRITE, &[1; 512]), Good);
}
