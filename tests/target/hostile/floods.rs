//! Too much, too slowly, and gone in the middle.

use netroot::iscsi::wire::{AsyncMessage, NopIn, NopOut, Stage};
use netroot::iscsi::{End, Limits};

use super::super::server::READ_ONLY;
use super::super::sessions::ends;
use super::*;

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
    finds_room(&server).await;
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
    finds_room(&server).await;
    server.stop().await;
}

/// Logs in as soon as there is room: a connection gives its back when its task has ended.
async fn finds_room(server: &Server) {
    let login = async {
        loop {
            let mut peer = Peer::connect(server.v4).await;
            let login = peer.login_request(Stage::Operational, Some(Stage::FullFeature));
            let text = format!("InitiatorName=iqn.x:y\0TargetName={READ_ONLY}\0");
            peer.send(login.emit(), text.as_bytes()).await;
            let answer = peer.receive().await;
            if answer.is_some_and(|pdu| pdu.login_status() == 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, login).await.expect("room");
}

/// Limits under which nobody has to wait long for the end of somebody slow.
fn impatient() -> Limits {
    Limits {
        login: Duration::from_millis(500),
        stalled: Duration::from_millis(500),
        discovery: Duration::from_millis(500),
        ..Limits::default()
    }
}

/// Sends bytes one by one, and slowly, until the target has had enough.
async fn trickle(peer: &mut Peer, bytes: &[u8]) {
    for byte in bytes {
        peer.raw(&[*byte]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn one_byte_after_the_other() {
    watch_panics();
    let server = Server::with(impatient()).await;
    // A login that takes longer than a login may.
    let mut slow = Peer::connect(server.v4).await;
    let login = slow.login_request(Stage::Security, None).emit();
    trickle(&mut slow, &login).await;
    assert!(slow.receive().await.is_none());

    // A command that never comes to its end.
    let mut slow = Peer::login(server.v4, MEMORY, 2).await;
    let mut good = Peer::login(server.v4, MEMORY, 1).await;
    let command = slow.scsi([0; 16]).emit();
    trickle(&mut slow, &command[..47]).await;
    let told = slow.drain().await;
    assert_eq!(event(&told), Some(AsyncMessage::DROPPED));
    assert_eq!(ends(&server, 1).await, [End::TimedOut]);

    // Data that were asked for and come byte by byte, in PDUs that are whole.
    let mut slow = Peer::login(server.v4, MEMORY, 2).await;
    let (itt, ttt) = asked(&mut slow).await;
    for i in 0..40 {
        let mut header = data_out(itt, ttt);
        (header.last, header.data_sn, header.offset) = (false, i, i);
        slow.send(header.emit(), &[1]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(event(&slow.drain().await), Some(AsyncMessage::DROPPED));
    assert_eq!(
        good.command(read_10(0, 1), 512, b"").await,
        (0, vec![0; 512])
    );
    drop(good);
    server.stop().await;
    assert_no_panics("slow peers");
}

/// The next ping of the target's.
async fn ping(peer: &mut Peer) -> NopIn {
    let pdu = peer.receive().await.expect("a ping");
    assert_eq!(pdu.opcode(), Opcode::NopIn);
    NopIn::parse(&pdu.bhs).unwrap()
}

#[tokio::test]
async fn who_pings_and_falls_silent_is_pinged_and_gone_without_an_answer() {
    let limits = Limits {
        silence: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = Server::with(limits).await;
    // As iPXE: it knows no pings, and may be silent for as long as it likes.
    let mut silent = Peer::login(server.v4, MEMORY, 1).await;
    let mut knows = Peer::login(server.v4, MEMORY, 2).await;
    let nop = NopOut {
        immediate: true,
        lun: [0; 8],
        itt: Tag(7),
        ttt: Tag::NONE,
        cmd_sn: Serial(knows.cmd_sn),
        exp_stat_sn: Serial(0),
    };
    knows.send(nop.emit(), b"").await;
    let pong = ping(&mut knows).await;
    assert_eq!(pong.itt, Tag(7));
    for _ in 0..3 {
        let asked = ping(&mut knows).await;
        assert_eq!(asked.itt, Tag::NONE);
        // §11.19.2: of the next status, which is still to come.
        assert_eq!(asked.numbers.stat_sn.0, pong.numbers.stat_sn.0 + 1);
        let answer = NopOut {
            itt: Tag::NONE,
            ttt: asked.ttt,
            ..nop
        };
        knows.send(answer.emit(), b"").await;
    }
    let told = knows.drain().await;
    assert_eq!(told.first().map(Pdu::opcode), Some(Opcode::NopIn));
    assert_eq!(event(&told), Some(AsyncMessage::DROPPED));
    assert_eq!(ends(&server, 1).await, [End::TimedOut]);
    let read = silent.command(read_10(0, 1), 512, b"").await;
    assert_eq!(read, (0, vec![0; 512]));
    drop(silent);
    server.stop().await;
}

/// What the last PDU announces, if that is what it does.
fn event(told: &[Pdu]) -> Option<u8> {
    let last = told.last()?;
    (last.opcode() == Opcode::AsyncMessage).then(|| last.bhs[36])
}

#[tokio::test]
async fn data_that_are_asked_for_and_never_come() {
    let server = Server::with(impatient()).await;
    let mut silent = Peer::login(server.v4, MEMORY, 2).await;
    let mut good = Peer::login(server.v4, MEMORY, 1).await;
    asked(&mut silent).await;
    assert_eq!(event(&silent.drain().await), Some(AsyncMessage::DROPPED));
    assert_eq!(ends(&server, 1).await, [End::TimedOut]);
    // Who owes nothing may be silent for as long as it likes.
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(
        good.command(read_10(100, 1), 512, b"").await,
        (0, vec![0; 512])
    );
    drop(good);
    server.stop().await;
}

#[tokio::test]
async fn answers_that_are_read_byte_by_byte() {
    let server = Server::with(impatient()).await;
    let mut slow = Peer::connect(server.v4).await;
    let keys = "MaxRecvDataSegmentLength=262144";
    assert_eq!(slow.try_login(MEMORY, keys).await.login_status(), 0);
    slow.command([0; 16], 0, b"").await;
    for _ in 0..16 {
        let mut read = slow.scsi(read_10(0, 8192));
        (read.read, read.expected_len) = (true, 4 << 20);
        slow.send(read.emit(), b"").await;
    }
    let reading = async {
        loop {
            slow.exact(1).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = reading => {}
        ended = ends(&server, 1) => assert_eq!(ended, [End::TimedOut]),
    }
    server.stop().await;
}

#[tokio::test]
async fn resets_in_the_middle_of_reads_and_writes() {
    watch_panics();
    let server = Server::start().await;
    let mut good = Peer::login(server.v4, MEMORY, 1).await;
    assert_eq!(good.command(write_10(BLOCK, 1), 0, &[7; 512]).await.0, 0);
    let untouched = contents(&server).await;
    for round in 0..60usize {
        let mut bad = Peer::login(server.v4, MEMORY, 2).await;
        match round % 4 {
            // Reads whose data are on their way.
            0 => {
                for _ in 0..4 {
                    let mut read = bad.scsi(read_10(0, 8192));
                    (read.read, read.expected_len) = (true, 4 << 20);
                    bad.send(read.emit(), b"").await;
                }
                bad.exact(round * 1000 + 1).await;
            }
            // Data of a write, not all of them.
            1 => {
                let (itt, ttt) = asked(&mut bad).await;
                let mut header = data_out(itt, ttt);
                header.last = false;
                bad.send(header.emit(), &[1; 512]).await;
            }
            // A part of a PDU with data.
            2 => {
                let mut write = bad.scsi(write_10(BLOCK, 1));
                (write.write, write.expected_len) = (true, 512);
                let mut bhs = write.emit();
                netroot::iscsi::wire::set_lengths(&mut bhs, 512);
                bad.raw(&bhs).await;
                bad.raw(&vec![1; round * 8]).await;
            }
            // Commands that wait for data, and a part of a header.
            _ => {
                asked(&mut bad).await;
                bad.raw(&[0x05; 30]).await;
            }
        }
        bad.reset();
        assert_eq!(
            good.command(read_10(BLOCK, 1), 512, b"").await,
            (0, vec![7; 512])
        );
    }
    // Each was replaced by the next, or had ended before.
    assert_eq!(ends(&server, 60).await.len(), 60);
    assert!(contents(&server).await == untouched);
    assert_eq!(server.sessions.list().len(), 1);
    drop(good);
    server.stop().await;
    assert_no_panics("resets");
}

#[tokio::test]
async fn a_storm_of_logins_in_one_place_leaves_one_session() {
    let server = Server::start().await;
    let storm: Vec<_> = (0..100)
        .map(|_| {
            let to = server.v4;
            tokio::spawn(async move {
                let mut peer = Peer::connect(to).await;
                let status = peer.try_login(MEMORY, "").await.login_status();
                (peer, status)
            })
        })
        .collect();
    let mut peers = Vec::new();
    for login in storm {
        let (peer, status) = login.await.unwrap();
        assert_eq!(status, 0);
        peers.push(peer);
    }
    assert_eq!(ends(&server, 99).await, [End::Reinstated; 99]);
    assert_eq!(server.sessions.list().len(), 1);
    drop(peers);
    server.stop().await;
}
