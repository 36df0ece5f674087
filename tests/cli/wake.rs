//! Wake-on-LAN, as a network card hears it.

use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::{MAC, Site};

fn ip(args: &str) {
    let done = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(done.status.success(), "ip {args}: {done:?}");
}

/// The frames that both addresses of a client are called by, on a network of this test alone.
#[test]
fn all_cards_of_a_client_are_called() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc28", "6.1.0");
    site.ok(&["client", "add", MAC, "--name", "lab-07", "--image", "fc28"]);
    site.ok(&["client", "set", "lab-07", "--mac", "52:54:00:12:34:57"]);
    // What a thread unshares is its own; programs that it starts are there with it.
    let heard = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this makes a network namespace: run it as root");
        let nowhere = site.run(&["client", "wake", "lab-07"]);
        let said = super::stderr(&nowhere);
        assert!(said.contains("no interface of this host"), "{said}");
        ip("link add lan type veth peer name machine");
        ip("address add 192.0.2.1/24 broadcast 192.0.2.255 dev lan");
        ip("link set lan up");
        ip("link set machine up");
        let (family, kind) = (AddressFamily::Packet, SockType::Raw);
        let card = socket(family, kind, SockFlag::empty(), SockProtocol::EthAll).unwrap();
        setsockopt(&card, ReceiveTimeout, &TimeVal::milliseconds(200)).unwrap();
        let planned = site.ok(&["client", "wake", "lab-07", "--dry-run"]);
        assert!(
            planned.contains("would call") && planned.contains("lan (192.0.2.255)"),
            "{planned}"
        );
        let woken = site.json(&["client", "wake", "lab-07"]);
        assert_eq!(woken[0]["by"][0]["to"], "192.0.2.255:9");
        let mut heard = Vec::new();
        let patience = Instant::now() + Duration::from_secs(10);
        while heard.len() < 2 && Instant::now() < patience {
            let mut frame = [0; 2048];
            let Ok(length) = recv(card.as_raw_fd(), &mut frame, MsgFlags::empty()) else {
                continue;
            };
            let frame = frame[..length].to_vec();
            // Both ends of the cable are in this namespace: each frame is seen twice.
            if magic(&frame).is_some() && !heard.contains(&frame) {
                heard.push(frame);
            }
        }
        heard
    });
    let heard = heard.join().unwrap();
    let called: Vec<_> = heard.iter().filter_map(|frame| magic(frame)).collect();
    let own = [0x52, 0x54, 0, 0x12, 0x34];
    let macs = [
        [own.as_slice(), &[0x56]].concat(),
        [own.as_slice(), &[0x57]].concat(),
    ];
    assert_eq!(called, macs);
    for frame in &heard {
        assert_eq!(frame[..6], [0xff; 6], "to everybody on the network");
        assert_eq!(frame[30..34], [192, 0, 2, 255]);
    }
}

/// The address that a frame calls: behind Ethernet, IPv4 and UDP to port 9.
fn magic(frame: &[u8]) -> Option<Vec<u8>> {
    let is_udp = frame.len() >= 42 + 102 && frame[12..14] == [8, 0] && frame[23] == 17;
    if !is_udp || frame[36..38] != [0, 9] {
        return None;
    }
    let (head, calls) = frame[42..42 + 102].split_at(6);
    let mac = calls[..6].to_vec();
    (head == [0xff; 6] && calls == mac.repeat(16)).then_some(mac)
}
