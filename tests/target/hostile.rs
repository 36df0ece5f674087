//! What nobody should send. Each case has a connection of its own, which may end; a good session goes on
//! all the while, and what it has written stays as it was.

use std::sync::atomic::Ordering;
use std::time::Duration;

use netroot::iscsi::Limits;
use netroot::iscsi::wire::{
    DataOut, LoginRequest, NopOut, Opcode, Reject, Serial, Stage, Tag, TextRequest,
};

use super::peer::{LUN, Peer, read_10, write_10};
use super::server::{MEMORY, READ_ONLY, Server, WATCHED};
use super::sessions::ends;

/// What may become of the connection of a case.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Closed,
    Alive,
}

use Outcome::{Alive, Closed};

/// Runs a case against a fresh server with a good session beside it.
async fn check<F>(name: &str, expected: Outcome, case: impl FnOnce(Peer) -> F)
where
    F: Future<Output = Peer>,
{
    let server = Server::start().await;
    let mut good = Peer::login(server.v4, MEMORY, 1).await;
    assert_eq!(good.command(write_10(0, 1), 0, &[7; 512]).await.0, 0);
    let mut bad = case(Peer::connect(server.v4).await).await;
    match expected {
        Closed => {
            bad.drain().await;
        }
        Alive => assert_eq!(bad.command(read_10(0, 1), 512, b"").await.0, 0, "{name}"),
    }
    let read = good.command(read_10(0, 1), 512, b"").await;
    assert_eq!(read, (0, vec![7; 512]), "{name}: the good session");
    drop((good, bad));
    tokio::time::timeout(Duration::from_secs(10), server.stop())
        .await
        .unwrap_or_else(|_| panic!("{name}: the server does not end"));
}

/// The same, logged in.
async fn logged_in<F>(name: &str, expected: Outcome, case: impl FnOnce(Peer) -> F)
where
    F: Future<Output = Peer>,
{
    check(name, expected, |mut peer| async {
        peer.isid[5] = 2;
        assert_eq!(peer.try_login(MEMORY, "").await.login_status(), 0);
        peer.command([0; 16], 0, b"").await;
        case(peer).await
    })
    .await;
}

/// A write of two blocks whose data are asked for; gives the tag of the R2T.
async fn asked(peer: &mut Peer) -> (Tag, Tag) {
    let mut write = peer.scsi(write_10(100, 2));
    write.write = true;
    write.expected_len = 1024;
    peer.send(write.emit(), b"").await;
    let r2t = peer.receive().await.unwrap();
    assert_eq!(r2t.opcode(), Opcode::R2t);
    let ttt = u32::from_be_bytes(r2t.bhs[20..24].try_into().unwrap());
    (write.itt, Tag(ttt))
}

fn data_out(itt: Tag, ttt: Tag) -> DataOut {
    DataOut {
        last: true,
        lun: LUN,
        itt,
        ttt,
        exp_stat_sn: Serial(0),
        data_sn: 0,
        offset: 0,
    }
}

#[tokio::test]
async fn bytes_that_are_no_iscsi() {
    check("HTTP", Closed, |mut peer| async {
        peer.raw(b"GET / HTTP/1.1\r\nHost: example\r\nAccept: */*\r\nUser-Agent: x\r\n\r\n")
            .await;
        peer
    })
    .await;
    for byte in [0x00, 0x01, 0xa5, 0xff] {
        check("one byte over and over", Closed, |mut peer| async move {
            peer.raw(&[byte; 4096]).await;
            peer
        })
        .await;
    }
}

#[tokio::test]
async fn commands_before_the_login() {
    check("a command at once", Closed, |mut peer| async {
        let command = peer.scsi(read_10(0, 1));
        peer.send(command.emit(), b"").await;
        peer
    })
    .await;
    check("a command within the login", Closed, |mut peer| async {
        let first = peer.login_request(Stage::Security, None);
        peer.send(
            first.emit(),
            b"InitiatorName=iqn.x:y\0SessionType=Discovery\0",
        )
        .await;
        assert_eq!(peer.receive().await.unwrap().login_status(), 0);
        let command = peer.scsi(read_10(0, 1));
        peer.send(command.emit(), b"").await;
        assert_eq!(peer.receive().await.unwrap().login_status(), 0x020b);
        peer
    })
    .await;
}

#[tokio::test]
async fn oversized_login_data() {
    // CVE-2011-0001: a data segment longer than what was declared.
    for len in [8193, 0x00ff_ffff] {
        check("a long segment", Closed, |mut peer| async move {
            let mut bhs = peer.login_request(Stage::Security, None).emit();
            netroot::iscsi::wire::set_lengths(&mut bhs, len);
            peer.raw(&bhs).await;
            peer.raw(&[b'x'; 9000]).await;
            peer
        })
        .await;
    }
}

#[tokio::test]
async fn login_text_without_sense() {
    // CVE-2013-2850: long unknown keys. CVE-2021-28361: continuation without end.
    let long_key = format!("{}=1", "k".repeat(4000));
    let many = (0..700).map(|i| format!("key{i}=1 ")).collect::<String>();
    for text in [
        long_key.as_str(),
        many.as_str(),
        "\u{1}\u{2}\u{3}",
        "=",
        "HeaderDigest=None HeaderDigest=None",
    ] {
        check("text", Closed, |mut peer| async move {
            let answer = peer.try_login(MEMORY, text).await;
            assert_eq!(answer.login_status() >> 8, 2, "{text:.40}");
            peer
        })
        .await;
    }
    check("continuation without end", Closed, |mut peer| async {
        let more = LoginRequest {
            more: true,
            ..peer.login_request(Stage::Security, None)
        };
        for _ in 0..200 {
            peer.send(more.emit(), b"a").await;
        }
        peer
    })
    .await;
}

#[tokio::test]
async fn additional_headers() {
    check("on a login", Closed, |mut peer| async {
        let mut bhs = peer.login_request(Stage::Security, None).emit();
        bhs[4] = 255;
        peer.raw(&bhs).await;
        peer.raw(&[0; 2048]).await;
        peer
    })
    .await;
    logged_in("on a command", Alive, |mut peer| async {
        let mut bhs = peer.scsi([0; 16]).emit();
        bhs[4] = 255;
        peer.raw(&bhs).await;
        peer.raw(&[0xff; 255 * 4]).await;
        assert_eq!(peer.receive().await.unwrap().opcode(), Opcode::ScsiResponse);
        peer
    })
    .await;
}

#[tokio::test]
async fn data_that_were_not_asked_for() {
    logged_in("for no command", Alive, |mut peer| async {
        peer.send(data_out(Tag(4711), Tag(3)).emit(), &[1; 512])
            .await;
        peer
    })
    .await;
    for (name, change) in [
        (
            "beyond the command",
            (|d| d.offset = 0xffff_fe00) as fn(&mut DataOut),
        ),
        ("not from the start", |d| d.offset = 512),
        ("for another transfer", |d| d.ttt = Tag(d.ttt.0 + 1)),
        ("unsolicited", |d| d.ttt = Tag::NONE),
        ("ended too early", |d| d.last = true),
    ] {
        logged_in(name, Closed, |mut peer| async move {
            let (itt, ttt) = asked(&mut peer).await;
            let mut header = data_out(itt, ttt);
            change(&mut header);
            peer.send(header.emit(), &[1; 512]).await;
            let reject = peer.receive().await.unwrap();
            assert_eq!(reject.opcode(), Opcode::Reject, "{name}");
            assert_eq!(
                Reject::parse(&reject.bhs).unwrap().reason,
                Reject::PROTOCOL_ERROR
            );
            // The rejected header comes back.
            assert_eq!(reject.data[16..20], header.itt.0.to_be_bytes());
            peer
        })
        .await;
    }
    logged_in("more than asked for", Closed, |mut peer| async {
        let (itt, ttt) = asked(&mut peer).await;
        peer.send(data_out(itt, ttt).emit(), &[1; 4096]).await;
        peer
    })
    .await;
}

#[tokio::test]
async fn more_data_with_a_command_than_agreed_on() {
    logged_in("than the command takes", Closed, |mut peer| async {
        let mut write = peer.scsi(write_10(0, 1));
        write.write = true;
        write.expected_len = 512;
        peer.send(write.emit(), &[1; 1024]).await;
        peer
    })
    .await;
    logged_in("than the first burst", Closed, |mut peer| async {
        let mut write = peer.scsi(write_10(0, 600));
        write.write = true;
        write.expected_len = 600 * 512;
        peer.send(write.emit(), &vec![1; 600 * 512]).await;
        peer
    })
    .await;
    logged_in("with a read", Closed, |mut peer| async {
        let mut read = peer.scsi(read_10(0, 1));
        read.read = true;
        read.expected_len = 512;
        peer.send(read.emit(), &[1; 512]).await;
        peer
    })
    .await;
    logged_in("than a segment may have", Closed, |mut peer| async {
        let mut bhs = peer.scsi([0; 16]).emit();
        netroot::iscsi::wire::set_lengths(&mut bhs, 0x00ff_fffc);
        peer.raw(&bhs).await;
        peer
    })
    .await;
}

#[tokio::test]
async fn commands_outside_of_the_window_and_twice() {
    logged_in("far ahead, and old", Alive, |mut peer| async {
        for wrong in [5000u32, 0x8000_0000, u32::MAX] {
            let mut command = peer.scsi(read_10(0, 1));
            peer.cmd_sn = peer.cmd_sn.wrapping_sub(1);
            command.cmd_sn = Serial(peer.cmd_sn.wrapping_add(wrong));
            peer.send(command.emit(), b"").await;
        }
        peer
    })
    .await;
    logged_in("the same tag twice", Alive, |mut peer| async {
        let (itt, _) = asked(&mut peer).await;
        let mut again = peer.scsi([0; 16]);
        again.itt = itt;
        peer.send(again.emit(), b"").await;
        let reject = peer.receive().await.unwrap();
        assert_eq!(
            Reject::parse(&reject.bhs).unwrap().reason,
            Reject::TASK_IN_PROGRESS
        );
        peer
    })
    .await;
}

#[tokio::test]
async fn floods_of_immediate_commands() {
    logged_in("more than anybody needs", Closed, |mut peer| async {
        let mut rejected = false;
        for _ in 0..200 {
            let mut write = peer.scsi(write_10(0, 2));
            peer.cmd_sn -= 1;
            write.immediate = true;
            write.write = true;
            write.expected_len = 1024;
            peer.send(write.emit(), b"").await;
            let answer = peer.receive().await.unwrap();
            rejected |= answer.opcode() == Opcode::Reject;
        }
        assert!(rejected);
        peer.send(data_out(Tag(999), Tag::NONE).emit(), b"").await;
        // The good session is served while hundreds of commands wait here; then this peer goes.
        let (itt, ttt) = (Tag(2), Tag(77));
        peer.send(data_out(itt, ttt).emit(), &[1; 512]).await;
        peer
    })
    .await;
}

#[tokio::test]
async fn pings_whose_answers_nobody_reads() {
    let server = Server::start().await;
    let mut good = Peer::login(server.v4, MEMORY, 1).await;
    let mut bad = Peer::login(server.v4, MEMORY, 2).await;
    let ping = NopOut {
        immediate: true,
        lun: [0; 8],
        itt: Tag(5),
        ttt: Tag::NONE,
        cmd_sn: Serial(0),
        exp_stat_sn: Serial(0),
    };
    // Far more than the target keeps for a peer that does not read: it stops receiving.
    let flood = tokio::time::timeout(Duration::from_secs(2), async {
        for _ in 0..100_000 {
            bad.send(ping.emit(), &[1; 8192]).await;
        }
    });
    assert!(flood.await.is_err(), "the target takes everything");
    assert_eq!(good.command(read_10(0, 1), 512, b"").await.0, 0);
    drop((good, bad));
    server.stop().await;
}

#[tokio::test]
async fn reads_whose_data_nobody_takes() {
    let server = Server::start().await;
    let mut bad = Peer::connect(server.v4).await;
    let keys = "MaxRecvDataSegmentLength=262144";
    assert_eq!(bad.try_login(WATCHED, keys).await.login_status(), 0);
    bad.command([0; 16], 0, b"").await;
    let len = 4 << 20;
    for _ in 0..64 {
        let mut read = bad.scsi(read_10(0, 8192));
        (read.read, read.expected_len) = (true, len);
        bad.send(read.emit(), b"").await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // What is kept for a peer, and as much again for what lies in the sockets.
    let read = server.watched.read.load(Ordering::SeqCst);
    assert!(read <= 32 << 20, "{read} bytes were read for nobody");
    // A peer that takes them after all gets them all.
    let mut left = 64 * u64::from(len);
    while left > 0 {
        let pdu = bad.receive().await.expect("data");
        assert_eq!(pdu.opcode(), Opcode::DataIn);
        left -= pdu.data.len() as u64;
    }
    assert_eq!(bad.command(read_10(0, 1), 512, b"").await.0, 0);
    drop(bad);
    server.stop().await;
}

#[tokio::test]
async fn text_in_the_full_feature_phase() {
    let text = |more: bool, ttt: Tag| TextRequest {
        immediate: true,
        last: !more,
        more,
        itt: Tag(9),
        ttt,
        cmd_sn: Serial(0),
        exp_stat_sn: Serial(0),
    };
    logged_in("without end", Closed, |mut peer| async move {
        peer.send(text(true, Tag::NONE).emit(), &[b'x'; 8000]).await;
        peer.receive().await.unwrap();
        peer.send(text(true, Tag(1)).emit(), &[b'x'; 8000]).await;
        peer
    })
    .await;
    logged_in("that is no text", Closed, |mut peer| async move {
        peer.send(text(false, Tag::NONE).emit(), &[0xff; 100]).await;
        peer
    })
    .await;
    logged_in("keys of the login", Alive, |mut peer| async move {
        peer.send(text(false, Tag::NONE).emit(), b"MaxBurstLength=512\0X=1\0")
            .await;
        let answer = peer.receive().await.unwrap();
        assert_eq!(
            answer.text().trim(),
            "MaxBurstLength=Reject X=NotUnderstood"
        );
        peer
    })
    .await;
}

#[tokio::test]
async fn pdus_that_are_not_known_or_not_for_a_target() {
    for opcode in [0x07, 0x10, 0x1c, 0x20, 0x21, 0x25, 0x31, 0x3f] {
        logged_in("an opcode", Alive, |mut peer| async move {
            let mut bhs = peer.scsi([0; 16]).emit();
            peer.cmd_sn -= 1;
            bhs[0] = opcode | 0x40;
            peer.send(bhs, b"").await;
            assert_eq!(peer.receive().await.unwrap().opcode(), Opcode::Reject);
            peer
        })
        .await;
    }
    logged_in("a second login", Closed, |mut peer| async {
        let login = peer.login_request(Stage::Security, None);
        peer.send(login.emit(), b"").await;
        peer
    })
    .await;
}

#[tokio::test]
async fn connections_that_go_away_at_any_moment() {
    let server = Server::start().await;
    let mut good = Peer::login(server.v4, MEMORY, 1).await;
    let mut stream = Vec::new();
    let mut script = Peer::connect(server.v4).await;
    script.isid[5] = 3;
    let login = script.login_request(Stage::Operational, Some(Stage::FullFeature));
    let text = format!("InitiatorName=iqn.x:y\0TargetName={MEMORY}\0");
    for (mut bhs, data) in [
        (login.emit(), text.as_bytes()),
        (script.scsi([0; 16]).emit(), b""),
        (
            {
                let mut write = script.scsi(write_10(50, 1));
                (write.write, write.expected_len) = (true, 512);
                write.emit()
            },
            &[9; 512],
        ),
    ] {
        netroot::iscsi::wire::set_lengths(&mut bhs, data.len());
        stream.extend_from_slice(&bhs);
        stream.extend_from_slice(data);
        stream.resize(stream.len().next_multiple_of(4), 0);
    }
    for len in (1..stream.len()).step_by(7) {
        let mut peer = Peer::connect(server.v4).await;
        peer.raw(&stream[..len]).await;
    }
    assert_eq!(good.command(read_10(0, 1), 512, b"").await.0, 0);
    drop((good, script));
    server.stop().await;
}

#[tokio::test]
async fn one_peer_with_all_the_connections() {
    let limits = Limits {
        connections_per_address: 4,
        ..Limits::default()
    };
    let server = Server::with(limits).await;
    let mut mine = Vec::new();
    for isid in 1..=4 {
        mine.push(Peer::login(server.v4, MEMORY, isid).await);
    }
    let mut fifth = Peer::connect(server.v4).await;
    assert!(fifth.receive().await.is_none());
    // Others find room, and so does this one when it has given some back.
    let other = "127.0.0.2:0".parse().unwrap();
    let mut other = Peer::connect_from(other, server.v4).await;
    other.isid[5] = 9;
    assert_eq!(other.try_login(MEMORY, "").await.login_status(), 0);
    drop(mine.pop());
    ends(&server, 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    Peer::login(server.v4, MEMORY, 5).await;
    drop((mine, other));
    server.stop().await;
}

#[tokio::test]
async fn peers_that_connect_and_say_nothing() {
    let limits = Limits {
        connections: 8,
        login: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = Server::with(limits).await;
    // CVE-2014-0255: connections without end. Those beyond the limit are closed at once, the others
    // when they have not logged in in time.
    let mut silent = Vec::new();
    for _ in 0..30 {
        silent.push(Peer::connect(server.v4).await);
    }
    for peer in &mut silent {
        assert!(peer.receive().await.is_none());
    }
    // There is room again once those that were slow are gone.
    tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let mut peer = Peer::connect(server.v4).await;
            let login = peer.login_request(Stage::Operational, Some(Stage::FullFeature));
            let text = format!("InitiatorName=iqn.x:y\0TargetName={READ_ONLY}\0");
            peer.send(login.emit(), text.as_bytes()).await;
            if peer
                .receive()
                .await
                .is_some_and(|pdu| pdu.login_status() == 0)
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    server.stop().await;
}
