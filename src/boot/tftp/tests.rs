use proptest::prelude::*;

use super::*;

fn request(file: &str, mode: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = vec![0, 1];
    let pairs = options.iter().flat_map(|(name, value)| [*name, *value]);
    for text in [file, mode].into_iter().chain(pairs) {
        bytes.extend(text.as_bytes());
        bytes.push(0);
    }
    bytes
}

fn asked(options: &[(&str, &str)]) -> ReadRequest {
    ReadRequest::parse(&request("f", "octet", options)).unwrap()
}

fn ack(number: u16) -> Vec<u8> {
    packet(4, number)
}

/// The numbers of the blocks in a step.
fn sent(step: Step) -> Vec<u16> {
    let Step::Send(packets) = step else {
        panic!("nothing is sent: {step:?}");
    };
    numbers(&packets)
}

fn numbers(packets: &[Vec<u8>]) -> Vec<u16> {
    let number = |packet: &Vec<u8>| {
        assert_eq!(packet[..2], [0, 3], "data");
        u16::from_be_bytes([packet[2], packet[3]])
    };
    packets.iter().map(number).collect()
}

/// What UEFI's PXE driver sends, seen with OVMF of 2022.
const UEFI: &[u8] = b"\0\x01ipxe-x64.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0";

#[test]
fn uefis_request_is_read_and_answered() {
    let request = ReadRequest::parse(UEFI).unwrap();
    assert_eq!(request.file, "ipxe-x64.efi");
    let mut transfer = Transfer::new(&request, Bytes::from(vec![7; 3000]), 1468);
    let oack = b"\0\x06blksize\x001468\0windowsize\x004\0tsize\x003000\0";
    assert_eq!(transfer.begin(), [oack]);
    let Step::Send(packets) = transfer.received(&ack(0)) else {
        panic!("the window follows");
    };
    let lengths: Vec<usize> = packets.iter().map(|packet| packet.len() - 4).collect();
    assert_eq!(lengths, [1468, 1468, 64]);
    assert_eq!(numbers(&packets), [1, 2, 3]);
    assert_eq!(transfer.received(&ack(3)), Step::Done);
}

#[test]
fn a_request_that_is_cut_off_anywhere_is_none() {
    let (names, whole) = (2 + 13 + 6, UEFI.len());
    for length in 0..whole {
        match ReadRequest::parse(&UEFI[..length]) {
            Ok(_) => assert!(length >= names, "{length}"),
            Err(Refused::Ignored) => assert!(length < 2, "{length}"),
            Err(Refused::Told(packet)) => assert_eq!(packet[..4], [0, 5, 0, 4], "{length}"),
        }
    }
}

#[test]
fn what_is_not_given_is_refused_with_the_reason() {
    let refused = |bytes: &[u8]| match ReadRequest::parse(bytes) {
        Err(Refused::Told(packet)) => (packet[3], String::from_utf8(packet[4..].to_vec()).unwrap()),
        other => panic!("{other:?}"),
    };
    let (code, text) = refused(&request("f", "netascii", &[]));
    assert!(code == 0 && text.contains("octet"), "{text}");
    assert_eq!(refused(&request("f", "mail", &[])).0, 4);
    let mut write = request("f", "octet", &[]);
    write[1] = 2;
    assert_eq!(refused(&write).0, 2);
    assert_eq!(refused(b"\0\x01f\xff\0octet\0").0, 4);
    for stray in [&ack(1)[..], &[0], &[], &[9, 9], &[0, 1].repeat(300)] {
        assert_eq!(
            ReadRequest::parse(stray),
            Err(Refused::Ignored),
            "{stray:?}"
        );
    }
}

#[test]
fn options_without_sense_count_as_not_asked_for() {
    for (name, value) in [
        ("blksize", "7"),
        ("blksize", "65465"),
        ("blksize", "-1"),
        ("windowsize", "0"),
        ("timeout", "0"),
        ("timeout", "11"),
        ("timeout", "255"),
        ("timeout", "256"),
        ("tsize", "x"),
        ("multicast", ""),
    ] {
        let mut transfer = Transfer::new(&asked(&[(name, value)]), Bytes::new(), 1468);
        assert_eq!(numbers(&transfer.begin()), [1], "{name} {value}: no OACK");
    }
    let large = asked(&[
        ("BLKSIZE", "65464"),
        ("windowsize", "65535"),
        ("Timeout", "3"),
    ]);
    let mut transfer = Transfer::new(&large, Bytes::new(), 1428);
    assert_eq!(
        transfer.begin(),
        [b"\0\x06blksize\x001428\0windowsize\x0032\0timeout\x003\0"]
    );
    transfer.received(&ack(0));
    assert_eq!(transfer.patience(), Duration::from_secs(3));
}

#[test]
fn a_file_of_whole_blocks_ends_with_an_empty_one() {
    let mut transfer = Transfer::new(&asked(&[]), Bytes::from(vec![1; 1024]), 1468);
    assert_eq!(transfer.begin()[0].len(), 4 + 512);
    assert_eq!(sent(transfer.received(&ack(1))), [2]);
    let Step::Send(last) = transfer.received(&ack(2)) else {
        panic!("the empty block follows");
    };
    assert_eq!(last, [[0, 3, 0, 3]]);
    assert_eq!(transfer.received(&ack(3)), Step::Done);
}

#[test]
fn a_lost_block_of_a_window_is_sent_again_from_there() {
    let window = [("blksize", "8"), ("windowsize", "4")];
    let mut transfer = Transfer::new(&asked(&window), Bytes::from(vec![1; 100]), 1468);
    transfer.begin();
    assert_eq!(sent(transfer.received(&ack(0))), [1, 2, 3, 4]);
    // The third was lost.
    assert_eq!(sent(transfer.received(&ack(2))), [3, 4, 5, 6]);
    // The first of the next window was, which is told once for each block that came after it.
    assert_eq!(sent(transfer.received(&ack(2))), [3, 4, 5, 6]);
    assert_eq!(transfer.received(&ack(2)), Step::Wait);
    // Acknowledgements of blocks that were never sent, or were had long ago, change nothing.
    assert_eq!(transfer.received(&ack(7)), Step::Wait);
    assert_eq!(transfer.received(&ack(1)), Step::Wait);
    assert_eq!(sent(transfer.received(&ack(6))), [7, 8, 9, 10]);
    assert_eq!(sent(transfer.received(&ack(10))), [11, 12, 13]);
    assert_eq!(transfer.received(&ack(13)), Step::Done);
}

#[test]
fn single_blocks_never_double() {
    let mut transfer = Transfer::new(&asked(&[]), Bytes::from(vec![1; 2000]), 1468);
    transfer.begin();
    assert_eq!(sent(transfer.received(&ack(1))), [2]);
    assert_eq!(transfer.received(&ack(1)), Step::Wait);
    assert_eq!(sent(transfer.timed_out()), [2]);
}

#[test]
fn numbers_begin_anew_after_65535() {
    let options = [("blksize", "8"), ("windowsize", "32")];
    let data = Bytes::from(vec![1; 8 * 70_000]);
    let mut transfer = Transfer::new(&asked(&options), data, 1468);
    transfer.begin();
    let mut blocks = 0;
    let mut step = transfer.received(&ack(0));
    while let Step::Send(packets) = step {
        blocks += packets.len();
        step = transfer.received(&ack(*numbers(&packets).last().unwrap()));
    }
    assert_eq!((step, blocks), (Step::Done, 70_001));
}

#[test]
fn who_does_not_answer_is_given_up_and_who_stops_is_let_go() {
    let waits = |transfer: &mut Transfer, block| {
        let mut waited = transfer.patience();
        while let Step::Send(packets) = transfer.timed_out() {
            assert_eq!(numbers(&packets), [block]);
            waited += transfer.patience();
        }
        waited.as_secs()
    };
    let mut transfer = Transfer::new(&asked(&[]), Bytes::from(vec![1; 600]), 1468);
    transfer.begin();
    transfer.received(&ack(1));
    assert_eq!(waits(&mut transfer, 2), 1 + 2 + 4 + 8 * 4);
    // Nobody may be there at all.
    let mut transfer = Transfer::new(&asked(&[]), Bytes::from(vec![1; 600]), 1468);
    transfer.begin();
    assert_eq!(waits(&mut transfer, 1), 1 + 2 + 2);
    assert_eq!(transfer.timed_out(), Step::GivenUp);
    assert_eq!(transfer.received(b"\0\x05\0\x08no\0"), Step::Stopped);
}

proptest! {
    #[test]
    fn no_bytes_panic(first in prop::collection::vec(any::<u8>(), 0..600), then in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..8), 0..20)) {
        let _ = ReadRequest::parse(&first);
        let mut transfer = Transfer::new(&asked(&[("windowsize", "3")]), Bytes::from(first), 1468);
        transfer.begin();
        for packet in then {
            transfer.received(&packet);
        }
    }

    #[test]
    fn every_request_that_is_read_is_answered_within_its_limits(options in prop::collection::vec(("blksize|windowsize|timeout|tsize|x", "[0-9]{0,6}"), 0..6)) {
        let options: Vec<(&str, &str)> = options.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        let mut transfer = Transfer::new(&asked(&options), Bytes::from(vec![0; 100_000]), 1468);
        transfer.begin();
        if let Step::Send(packets) = transfer.received(&ack(0)) {
            prop_assert!(packets.len() <= 32);
            prop_assert!(packets.iter().all(|packet| packet.len() <= 4 + 1468));
        }
    }
}
