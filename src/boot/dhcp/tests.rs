use std::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::v4::borrowed;
use proptest::prelude::*;

use super::*;
use crate::boot::Firmware;

/// What firmware sends when it looks for servers, seen on the wire: the fields, which are zero from the
/// hardware address to the magic number, and the options.
struct Seen {
    xid: u32,
    flags: u16,
    options: &'static str,
}

/// OVMF of November 2022, PXE over IPv4.
const UEFI_PXE: Seen = Seen {
    xid: 0x86a3_77c2,
    flags: 0x8000,
    options: "350101390205c037230102030405060c0d0f111216171c28292a2b3233363a3b3c4243618081828384858687\
              611100000000000000000000000000000000005e030103005d0200073c20505845436c69656e743a41726368\
              3a30303030373a554e44493a303033303030ff",
};

/// The same, HTTP boot over IPv4.
const UEFI_HTTP: Seen = Seen {
    xid: 0x3be0_a888,
    flags: 0x8000,
    options: "350101390205c0371b0102030405060c0d0f111216171c28292a2b3233363a3b3ceb4361611100000000000000\
              000000000000000000005e030103005d0200103c2148545450436c69656e743a417263683a30303031363a55\
              4e44493a303033303030ff",
};

/// The iPXE of January 2019 in the ROM of QEMU's network card, in a BIOS.
const IPXE_ROM: Seen = Seen {
    xid: 0x0230_fe04,
    flags: 0,
    options: "350101390205c05d0200005e030102013c20505845436c69656e743a417263683a30303030303a554e44493a\
              3030323030314d04695058453717010306070c0f111a2b3c4243778081828384858687afcbaf30b105011af4\
              1000eb030100001701012201011301011101012701011901012901011001022101011501011801011201013d\
              070152540012345661110000000000000000000000000000000000ff",
};

const GOLDEN: [&Seen; 3] = [&UEFI_PXE, &UEFI_HTTP, &IPXE_ROM];

impl Seen {
    fn packet(&self) -> Vec<u8> {
        packet(self.xid, self.flags, &self.options())
    }

    fn options(&self) -> Vec<u8> {
        let digits: Vec<char> = self.options.chars().collect();
        let byte = |two: &[char]| u8::from_str_radix(&two.iter().collect::<String>(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }
}

/// What firmware sends that looks for servers.
pub(crate) fn firmware_looks() -> Vec<u8> {
    UEFI_PXE.packet()
}

fn packet(xid: u32, flags: u16, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, 1, 6, 0];
    bytes.extend(xid.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(flags.to_be_bytes());
    bytes.extend([0; 16]);
    bytes.extend([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    bytes.resize(236, 0);
    bytes.extend([99, 130, 83, 99]);
    bytes.extend(options);
    bytes
}

/// A discovery of a PXE client of this architecture, with further options.
fn discovery(architecture: u16, more: &[u8]) -> Vec<u8> {
    let [high, low] = architecture.to_be_bytes();
    let mut options = vec![53, 1, 1, 93, 2, high, low, 60, 9];
    options.extend(b"PXEClient");
    options.extend(more);
    options.push(255);
    packet(1, 0x8000, &options)
}

fn parsed(packet: &[u8]) -> Query {
    Query::parse(packet).unwrap()
}

fn answered(query: &Query) -> Vec<u8> {
    query.answer(&Found {
        server: Ipv4Addr::new(192, 0, 2, 1),
        base: "http://192.0.2.1:8080",
    })
}

/// The options of an answer: number and bytes, in order.
fn told(answer: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let message = borrowed::Message::new(answer).unwrap();
    let options = message.opts();
    options
        .map(|option| (option.code().into(), option.data().to_vec()))
        .collect()
}

fn option(answer: &[u8], number: u8) -> Option<Vec<u8>> {
    let mut all = told(answer).into_iter();
    all.find_map(|(code, data)| (code == number).then_some(data))
}

#[test]
fn what_firmware_sends_is_read() {
    let check = |seen: &Seen, firmware, is_ipxe| {
        let query = parsed(&seen.packet());
        assert_eq!(query.mac, "52:54:00:12:34:56".parse().unwrap());
        assert_eq!((query.firmware, query.is_ipxe), (firmware, is_ipxe));
        assert!(!query.has_chosen && query.relay.is_none());
    };
    check(&UEFI_PXE, Firmware::EfiX64, false);
    check(&UEFI_HTTP, Firmware::HttpX64, false);
    check(&IPXE_ROM, Firmware::Bios, true);
}

#[test]
fn uefi_by_pxe_is_offered_a_loader_and_no_address() {
    let answer = answered(&parsed(&UEFI_PXE.packet()));
    // The fields of RFC 2131 §2: an answer, to the same question and machine, from this server.
    assert_eq!(answer[..4], [2, 1, 6, 0]);
    assert_eq!(answer[4..8], UEFI_PXE.xid.to_be_bytes());
    assert_eq!(answer[10..12], [0x80, 0]);
    assert_eq!(answer[12..20], [0; 8], "neither its address nor a new one");
    assert_eq!(answer[20..24], [192, 0, 2, 1]);
    assert_eq!(answer[28..34], [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    assert_eq!(&answer[108..121], b"ipxe-x64.efi\0");
    assert!(answer.len() >= 300);
    let expected: [(u8, &[u8]); 7] = [
        (43, &[6, 1, 8, 255]),
        (53, &[2]),
        (54, &[192, 0, 2, 1]),
        (60, b"PXEClient"),
        (66, b"192.0.2.1"),
        (67, b"ipxe-x64.efi"),
        (97, &[0; 17]),
    ];
    let expected = expected.map(|(number, data)| (number, data.to_vec()));
    assert_eq!(told(&answer), expected);
    // What gives addresses, routes or names is for the site's own server.
    for number in [1, 3, 6, 12, 15, 50, 51, 58, 59] {
        assert_eq!(option(&answer, number), None, "{number}");
    }
}

#[test]
fn uefi_by_http_is_offered_a_whole_url() {
    let answer = answered(&parsed(&UEFI_HTTP.packet()));
    let url = b"http://192.0.2.1:8080/ipxe/ipxe-x64.efi";
    assert_eq!(option(&answer, 67).unwrap(), url);
    assert_eq!(&answer[108..108 + url.len()], url);
    assert_eq!(option(&answer, 60).unwrap(), b"HTTPClient");
    assert_eq!(option(&answer, 43), None);
}

#[test]
fn ipxe_goes_on_with_the_script() {
    let url = b"http://192.0.2.1:8080/boot.ipxe";
    assert_eq!(
        option(&answered(&parsed(&IPXE_ROM.packet())), 67).unwrap(),
        url
    );
    // Either sign will do, and the word with its length before it.
    let signs: [&[u8]; 3] = [
        b"\xaf\x03\x10\x01\x02",
        b"\x4d\x04iPXE",
        b"\x4d\x05\x04iPXE",
    ];
    for sign in signs {
        let query = parsed(&discovery(7, sign));
        assert!(query.is_ipxe, "{sign:?}");
        assert_eq!(option(&answered(&query), 67).unwrap(), url);
    }
    assert!(!parsed(&discovery(7, b"\x4d\x04gPXE")).is_ipxe);
}

#[test]
fn each_architecture_gets_its_own_loader() {
    let file = |architecture| {
        let answer = answered(&parsed(&discovery(architecture, &[])));
        let end = answer[108..236].iter().position(|byte| *byte == 0).unwrap();
        String::from_utf8(answer[108..108 + end].to_vec()).unwrap()
    };
    assert_eq!(file(0), "undionly.kpxe");
    assert_eq!(file(6), "ipxe-ia32.efi");
    assert_eq!(file(7), "ipxe-x64.efi");
    assert_eq!(file(9), "ipxe-x64.efi");
    assert_eq!(file(11), "ipxe-arm64.efi");
    let unknown = Query::parse(&discovery(27, &[]));
    assert_eq!(unknown, Err(Ignored::Architecture(27)));
    // Of several the first that there is something for.
    let mut several = discovery(0, &[]);
    several.splice(243..247, [93, 4, 0, 27, 0, 11]);
    assert_eq!(parsed(&several).firmware, Firmware::EfiArm64);
    // One of old says none.
    let mut none = discovery(0, &[]);
    none.drain(243..247);
    assert_eq!(parsed(&none).firmware, Firmware::Bios);
}

#[test]
fn old_roms_are_told_no_more_than_they_ask() {
    let answer = answered(&parsed(&discovery(0, &[])));
    let numbers: Vec<u8> = told(&answer)
        .into_iter()
        .map(|(number, _)| number)
        .collect();
    assert_eq!(numbers, [43, 53, 54, 60]);
}

#[test]
fn a_packet_that_is_cut_off_anywhere_is_none() {
    for seen in GOLDEN {
        let packet = seen.packet();
        // Without its end mark it is whole: nothing of it is missing.
        for length in 0..packet.len() - 1 {
            let cut = Query::parse(&packet[..length]);
            let at_an_option = || {
                let whole = parsed(&packet);
                cut.as_ref().is_ok_and(|query| query.mac == whole.mac)
            };
            assert!(cut.is_err() || at_an_option(), "{length}");
        }
        assert_eq!(Query::parse(&packet[..239]), Err(Ignored::Malformed));
        assert_eq!(Query::parse(&packet[..241]), Err(Ignored::Malformed));
    }
}

#[test]
fn who_does_not_boot_from_the_network_is_left_alone() {
    let with = |change: fn(&mut Vec<u8>)| {
        let mut packet = UEFI_PXE.packet();
        change(&mut packet);
        Query::parse(&packet)
    };
    assert_eq!(with(|p| p[0] = 2), Err(Ignored::Answer));
    assert_eq!(with(|p| p[1] = 32), Err(Ignored::Hardware));
    assert_eq!(with(|p| p[2] = 255), Err(Ignored::Hardware));
    assert_eq!(with(|p| p[28..34].fill(0)), Err(Ignored::Hardware));
    assert_eq!(with(|p| p[236] = 0), Err(Ignored::Malformed));
    for kind in [4, 7, 8] {
        let mut packet = UEFI_PXE.packet();
        packet[242] = kind;
        assert_eq!(Query::parse(&packet), Err(Ignored::Address), "{kind}");
    }
    let laptop = packet(1, 0, b"\x35\x01\x01\x3c\x08MSFT 5.0\xff");
    assert_eq!(Query::parse(&laptop), Err(Ignored::NoBoot));
    assert_eq!(Query::parse(&packet(1, 0, &[])), Err(Ignored::Malformed));
    assert_eq!(Query::parse(&[1; 5000]), Err(Ignored::Malformed));
}

#[test]
fn options_that_are_split_or_stand_in_the_fields_for_names_are_joined() {
    // The class in two pieces, not side by side (RFC 3396).
    let split = packet(
        1,
        0,
        b"\x3c\x03PXE\x35\x01\x01\x3c\x06Client\x5d\x02\x00\x07\xff",
    );
    assert_eq!(parsed(&split).firmware, Firmware::EfiX64);
    // The rest of them in the fields for file and server (RFC 2132 §9.3).
    let mut moved = packet(1, 0, b"\x35\x01\x01\x34\x01\x03\xff");
    moved[108..108 + 12].copy_from_slice(b"\x3c\x09PXEClient\xff");
    moved[44..44 + 5].copy_from_slice(b"\x5d\x02\x00\x0b\xff");
    assert_eq!(parsed(&moved).firmware, Firmware::EfiArm64);
    // One that reaches beyond its field.
    moved[44..48].copy_from_slice(b"\x5d\xff\x00\x0b");
    assert_eq!(Query::parse(&moved), Err(Ignored::Malformed));
    // As long as options can be, and as many as there is room for: still what the first bytes say.
    let many = [93, 255].into_iter().chain([0; 255]).cycle();
    let oversized: Vec<u8> = many.take(257 * 14).collect();
    assert_eq!(parsed(&discovery(7, &oversized)).firmware, Firmware::EfiX64);
}

#[test]
fn answers_go_where_the_question_came_from_and_nowhere_else() {
    let from = |ip: [u8; 4], port| SocketAddrV4::new(ip.into(), port);
    let (nobody, machine) = (from([0; 4], 68), from([192, 0, 2, 7], 4011));
    let mut query = parsed(&discovery(7, &[]));
    assert_eq!(
        query.receiver(Door::Server, nobody, false),
        Some(Receiver::Everybody)
    );
    assert_eq!(
        query.receiver(Door::Boot, machine, true),
        None,
        "it has chosen nobody yet"
    );

    query.relay = Some([198, 51, 100, 1].into());
    let relay = Receiver::One(from([198, 51, 100, 1], 67));
    assert_eq!(query.receiver(Door::Server, machine, true), Some(relay));
    assert_eq!(
        query.receiver(Door::Server, machine, false),
        None,
        "to everybody"
    );
    query.hops = 17;
    assert_eq!(query.receiver(Door::Server, machine, true), None, "too far");
    query.hops = 1;
    for hostile in [[255; 4], [224, 0, 0, 1], [127, 0, 0, 1]] {
        query.relay = Some(hostile.into());
        assert_eq!(
            query.receiver(Door::Server, machine, true),
            None,
            "{hostile:?}"
        );
    }

    query.has_chosen = true;
    query.relay = None;
    assert_eq!(
        query.receiver(Door::Server, machine, true),
        None,
        "about an address"
    );
    assert_eq!(
        query.receiver(Door::Boot, machine, true),
        Some(Receiver::One(machine))
    );
    assert_eq!(query.receiver(Door::Boot, machine, false), None);
    assert_eq!(query.receiver(Door::Boot, nobody, true), None);
}

#[test]
fn who_has_chosen_is_told_again_with_the_item_that_it_asked_for() {
    let mut request = discovery(0, b"\x2b\x07\x47\x04\x80\x00\x00\x00\xff");
    request[242] = 3;
    request[12..16].copy_from_slice(&[192, 0, 2, 7]);
    let query = parsed(&request);
    assert!(query.has_chosen);
    let answer = answered(&query);
    assert_eq!(option(&answer, 53).unwrap(), [5]);
    assert_eq!(
        option(&answer, 43).unwrap(),
        [6, 1, 8, 71, 4, 0x80, 0, 0, 0, 255]
    );
    assert_eq!(answer[12..16], [192, 0, 2, 7]);
}

#[test]
fn other_servers_are_told_the_same() {
    let (server, base) = (Ipv4Addr::new(192, 0, 2, 1), "http://192.0.2.1:8080");
    let text = dnsmasq(server, base);
    let kea = kea(server, base);
    let classes = kea["Dhcp4"]["client-classes"].as_array().unwrap();
    assert_eq!(classes.len(), 1 + Firmware::ALL.len());
    for firmware in Firmware::ALL {
        let query = Query {
            firmware,
            ..parsed(&UEFI_PXE.packet())
        };
        let file = query.boot_file(base);
        assert!(
            text.contains(&format!("tag:!netroot-ipxe,{file}")),
            "{file} in {text}"
        );
        let is_it = |class: &&serde_json::Value| class["boot-file-name"] == file.as_str();
        assert!(classes.iter().any(|class| is_it(&class)), "{file} in {kea}");
    }
    assert!(!text.contains('@'), "{text}");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Query::parse(&bytes);
    }

    #[test]
    fn no_options_panic_and_what_is_read_can_be_answered(options in prop::collection::vec(any::<u8>(), 0..300), architecture in 0_u16..20) {
        let packet = discovery(architecture, &options);
        if let Ok(query) = Query::parse(&packet) {
            let answer = answered(&query);
            // What every client takes (RFC 2131 §2), and of an offer no address.
            prop_assert!((300..=548).contains(&answer.len()));
            prop_assert_eq!(&answer[16..20], [0; 4]);
        }
    }

    #[test]
    fn a_changed_byte_harms_nobody(which in 0_usize..3, at in 0_usize..400, byte: u8) {
        let mut packet = GOLDEN[which].packet();
        if let Some(place) = packet.get_mut(at) {
            *place = byte;
        }
        if let Ok(query) = Query::parse(&packet) {
            prop_assert!(answered(&query).len() <= 548);
        }
    }
}
