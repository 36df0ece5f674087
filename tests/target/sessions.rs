//! The life of sessions: discovery, logins anew, kicks, digests, and the end of the server.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use netroot::iscsi::End;
use netroot::iscsi::wire::{
    AsyncMessage, DataIn, LoginResponse, LogoutRequest, Opcode, R2t, Serial, Stage, Tag,
    TaskRequest, TaskResponse, TextRequest,
};

use super::peer::{LUN, Pdu, Peer, read_10, write_10};
use super::server::{COLD, MEMORY, OVERLAY, PRIVATE, READ_ONLY, SHARED, Server, WATCHED};

/// Waits until the directory has heard of this many ends.
pub(crate) async fn ends(server: &Server, n: usize) -> Vec<End> {
    for _ in 0..500 {
        let ends = server.ends.lock().unwrap().clone();
        if ends.len() >= n {
            return ends;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("only {:?} have ended", server.ends.lock().unwrap());
}

#[tokio::test]
async fn logins_that_are_refused_say_why() {
    let server = Server::start().await;
    for (target, more, status) in [
        ("iqn.2026-01.test:nothing", "", 0x0203),
        (PRIVATE, "", 0x0202),
        (MEMORY, "AuthMethod=CHAP", 0x0200),
        (MEMORY, "SessionType=Strange", 0x0209),
    ] {
        let mut peer = Peer::connect(server.v4).await;
        assert_eq!(peer.try_login(target, more).await.login_status(), status);
        assert!(peer.receive().await.is_none(), "and the connection closes");
    }
    let mut peer = Peer::connect(server.v4).await;
    let mut joining = peer.login_request(Stage::Operational, Some(Stage::FullFeature));
    joining.tsih = 4711;
    let text = format!("InitiatorName=iqn.x:y\0TargetName={MEMORY}\0");
    peer.send(joining.emit(), text.as_bytes()).await;
    assert_eq!(peer.receive().await.unwrap().login_status(), 0x020a);
    assert!(server.ends.lock().unwrap().is_empty());
    server.stop().await;
}

#[tokio::test]
async fn ovmf_hears_all_it_needs_in_two_responses() {
    let server = Server::start().await;
    let mut peer = Peer::connect(server.v4).await;
    let security = peer.login_request(Stage::Security, Some(Stage::Operational));
    let text = format!(
        "InitiatorName=iqn.x:ovmf\0TargetName={MEMORY}\0SessionType=Normal\0AuthMethod=None\0"
    );
    peer.send(security.emit(), text.as_bytes()).await;
    let first = peer.receive().await.unwrap();
    assert_eq!(
        first.text().trim(),
        "AuthMethod=None TargetPortalGroupTag=1"
    );

    let operational = peer.login_request(Stage::Operational, Some(Stage::FullFeature));
    let keys = "HeaderDigest=None,CRC32\0DataDigest=None,CRC32\0InitialR2T=No\0ImmediateData=Yes\0\
        MaxRecvDataSegmentLength=65536\0MaxBurstLength=262144\0FirstBurstLength=65536\0\
        MaxConnections=1\0DefaultTime2Wait=2\0DefaultTime2Retain=20\0MaxOutstandingR2T=16\0\
        DataPDUInOrder=Yes\0DataSequenceInOrder=Yes\0ErrorRecoveryLevel=0\0";
    peer.send(operational.emit(), keys.as_bytes()).await;
    let second = peer.receive().await.unwrap();
    let text = second.text();
    for pair in [
        "HeaderDigest=None",
        "DataDigest=None",
        "InitialR2T=Yes",
        "ImmediateData=Yes",
        "MaxBurstLength=262144",
        "FirstBurstLength=65536",
        "MaxConnections=1",
        "DefaultTime2Wait=2",
        "DefaultTime2Retain=0",
        "MaxOutstandingR2T=8",
        "ErrorRecoveryLevel=0",
    ] {
        assert!(text.split(' ').any(|p| p == pair), "{pair} in {text}");
    }
    // Status numbers follow each other from the first response on.
    let number = |pdu: &super::peer::Pdu| LoginResponse::parse(&pdu.bhs).unwrap().numbers.stat_sn;
    assert_eq!(number(&first).plus(1), number(&second));
    assert_ne!(LoginResponse::parse(&second.bhs).unwrap().tsih, 0);
    server.stop().await;
}

#[tokio::test]
async fn discovery_lists_what_may_be_seen_at_the_address_that_was_reached() {
    let server = Server::start().await;
    let mut peer = Peer::connect(server.v4).await;
    let login = peer.login_request(Stage::Operational, Some(Stage::FullFeature));
    peer.send(
        login.emit(),
        b"InitiatorName=iqn.x:y\0SessionType=Discovery\0",
    )
    .await;
    assert_eq!(peer.receive().await.unwrap().login_status(), 0);
    let ask = TextRequest {
        immediate: true,
        last: true,
        more: false,
        itt: Tag(1),
        ttt: Tag::NONE,
        cmd_sn: Serial(1),
        exp_stat_sn: Serial(0),
    };
    peer.send(ask.emit(), b"SendTargets=All\0").await;
    let list = peer.receive().await.unwrap().text();
    let address = format!("TargetAddress={},1", server.v4);
    assert!(list.contains(&format!("TargetName={READ_ONLY} {address}")));
    assert!(!list.contains(PRIVATE));
    assert!(server.sessions.list().is_empty(), "discovery is not listed");
    server.stop().await;
}

#[tokio::test]
async fn a_session_is_listed_and_counted() {
    let server = Server::start().await;
    let mut peer = Peer::login(server.v4, MEMORY, 5).await;
    peer.command(write_10(0, 4), 0, &[1; 2048]).await;
    peer.command(read_10(0, 2), 1024, b"").await;
    let list = server.sessions.list();
    let [session] = &list[..] else {
        panic!("{list:?}");
    };
    assert_eq!(session.initiator.as_str(), "iqn.test:peer");
    assert_eq!(session.target.as_str(), MEMORY);
    assert_eq!(session.isid.0[5], 5);
    assert_eq!(session.counters.writes.load(Ordering::Relaxed), 1);
    assert_eq!(session.counters.bytes_written.load(Ordering::Relaxed), 2048);
    assert_eq!(session.counters.reads.load(Ordering::Relaxed), 1);
    assert_eq!(session.counters.bytes_read.load(Ordering::Relaxed), 1024);
    drop(peer);
    assert_eq!(ends(&server, 1).await, [End::ConnectionLost]);
    assert!(server.sessions.list().is_empty());
    server.stop().await;
}

#[tokio::test]
async fn sessions_run_on_threads_of_their_own_and_not_longer_than_their_connections() {
    let mut server = Server::start().await;
    let mut peer = Peer::login(server.v4, WATCHED, 1).await;
    assert_eq!(peer.command(read_10(0, 1), 512, b"").await.0, 0);
    let readers = server.watched.readers.lock().unwrap().clone();
    let own = |reader: &String| reader.starts_with("sessions-");
    assert!(
        !readers.is_empty() && readers.iter().all(own),
        "{readers:?}"
    );
    server.vanish().await;
    assert!(peer.drain().await.is_empty());
    assert_eq!(ends(&server, 1).await, [End::ConnectionLost]);
}

#[tokio::test]
async fn the_same_initiator_takes_the_place_of_its_old_session() {
    let server = Server::start().await;
    let mut old = Peer::login(server.v4, MEMORY, 1).await;
    let mut other = Peer::login(server.v4, MEMORY, 2).await;
    let mut new = Peer::login(server.v4, MEMORY, 1).await;
    assert_eq!(ends(&server, 1).await, [End::Reinstated]);
    assert!(old.drain().await.is_empty());
    for peer in [&mut new, &mut other] {
        assert_eq!(peer.command(read_10(0, 1), 512, b"").await.0, 0);
    }
    assert_eq!(server.sessions.list().len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn what_a_session_has_written_is_flushed_before_anybody_hears_of_its_end() {
    let server = Server::start().await;
    let unflushed = || server.watched.unflushed.load(Ordering::SeqCst);
    let mut lost = Peer::login(server.v4, WATCHED, 1).await;
    lost.command(write_10(0, 1), 0, &[1; 512]).await;
    assert_eq!(unflushed(), 1);
    drop(lost);
    assert_eq!(ends(&server, 1).await, [End::ConnectionLost]);
    assert_eq!(unflushed(), 0);

    let mut old = Peer::login(server.v4, WATCHED, 1).await;
    old.command(write_10(0, 1), 0, &[2; 512]).await;
    let new = Peer::login(server.v4, WATCHED, 1).await;
    assert_eq!(unflushed(), 0);
    drop((old, new));
    server.stop().await;
}

#[tokio::test]
async fn a_kicked_session_is_told_and_ends() {
    let server = Server::start().await;
    let mut peer = Peer::login(server.v4, MEMORY, 1).await;
    let id = server.sessions.list()[0].id;
    let control = server.sessions.control(id).unwrap();
    control.end(End::Kicked);
    control.ended().await;
    // Whoever has waited finds that the directory knows already.
    assert_eq!(*server.ends.lock().unwrap(), [End::Kicked]);
    assert!(server.sessions.control(id).is_none());
    let last = peer.drain().await;
    assert_eq!(last.len(), 1);
    let message = AsyncMessage::parse(&last[0].bhs).unwrap();
    assert_eq!(message.event, AsyncMessage::DROPPED);
    server.stop().await;
}

#[tokio::test]
async fn the_shutdown_asks_for_a_logout_and_waits_for_it() {
    let server = Server::start().await;
    let ends = server.ends.clone();
    let mut polite = Peer::login(server.v4, MEMORY, 1).await;
    let mut deaf = Peer::login(server.v4, MEMORY, 2).await;
    let begun = Instant::now();
    let stopping = tokio::spawn(server.stop());
    for peer in [&mut polite, &mut deaf] {
        let message = peer.receive().await.unwrap();
        assert_eq!(message.opcode(), Opcode::AsyncMessage);
        let message = AsyncMessage::parse(&message.bhs).unwrap();
        assert_eq!(message.event, AsyncMessage::LOGOUT);
    }
    let logout = LogoutRequest {
        immediate: true,
        reason: 0,
        itt: Tag(77),
        cid: 0,
        cmd_sn: Serial(polite.cmd_sn),
        exp_stat_sn: Serial(0),
    };
    polite.send(logout.emit(), b"").await;
    assert_eq!(
        polite.receive().await.unwrap().opcode(),
        Opcode::LogoutResponse
    );
    assert!(polite.receive().await.is_none());
    // §11.9.1: who does not do as it was asked is told that the session is dropped.
    let told = deaf.drain().await;
    assert_eq!(told.len(), 1);
    let message = AsyncMessage::parse(&told[0].bhs).unwrap();
    assert_eq!(message.event, AsyncMessage::DROPPED);
    stopping.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(6));
    // Also of the one that did as it was asked: its client goes on with the next server.
    assert_eq!(*ends.lock().unwrap(), [End::ShutDown, End::ShutDown]);
}

#[tokio::test]
async fn digests_protect_both_directions() {
    let server = Server::start().await;
    let mut peer = Peer::connect(server.v4).await;
    let keys = "HeaderDigest=CRC32C DataDigest=CRC32C,None MaxRecvDataSegmentLength=65536";
    let answer = peer.try_login(READ_ONLY, keys).await;
    assert!(
        answer
            .text()
            .contains("HeaderDigest=CRC32C DataDigest=CRC32C")
    );
    let with_digest = |bytes: &[u8]| [bytes, &crc32c::crc32c(bytes).to_le_bytes()].concat();

    let mut ready = peer.scsi([0; 16]);
    peer.raw(&with_digest(&ready.emit())).await;
    // CHECK CONDITION (the power-on): a header, its digest, sense data, their digest.
    let response = peer.exact(48 + 4 + 20 + 4).await;
    assert_eq!(response[..52], with_digest(&response[..48]));
    assert_eq!(response[52..], with_digest(&response[52..72]));

    let mut read = peer.scsi(read_10(8, 16));
    (read.read, read.expected_len) = (true, 8192);
    peer.raw(&with_digest(&read.emit())).await;
    let data = peer.exact(48 + 4 + 8192 + 4).await;
    assert_eq!(data[52..52 + 8192], server.contents[4096..4096 + 8192]);
    assert_eq!(data[52..], with_digest(&data[52..52 + 8192]));

    // A header that has changed on its way ends the connection.
    ready = peer.scsi([0; 16]);
    let mut bad = with_digest(&ready.emit());
    bad[20] ^= 1;
    peer.raw(&bad).await;
    assert!(peer.receive().await.is_none());
    assert_eq!(ends(&server, 1).await, [End::ProtocolError]);
    server.stop().await;
}

#[tokio::test]
async fn large_reads_come_from_the_file_in_the_right_order() {
    let server = Server::start().await;
    for target in [READ_ONLY, OVERLAY, SHARED] {
        for max in [8192, 262_144] {
            let mut peer = Peer::connect(server.v4).await;
            let keys = format!("MaxRecvDataSegmentLength={max} MaxBurstLength=262144");
            assert_eq!(peer.try_login(target, &keys).await.login_status(), 0);
            peer.command([0; 16], 0, b"").await;
            let (status, data) = peer.command(read_10(17, 2048), 1 << 20, b"").await;
            assert_eq!(status, 0);
            assert!(data == server.contents[17 * 512..17 * 512 + (1 << 20)]);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_cached_is_read_before_what_has_to_be_waited_for() {
    let server = Server::start().await;
    let mut peer = Peer::login(server.v4, WATCHED, 1).await;
    peer.command([0; 16], 0, b"").await;
    let mut read = |lba| {
        let mut read = peer.scsi(read_10(lba, 8));
        (read.read, read.expected_len) = (true, 4096);
        read
    };
    let (cold, warm) = (read(COLD as u32), read(0));
    peer.send(cold.emit(), b"").await;
    peer.send(warm.emit(), b"").await;
    let answered = |pdu: Option<Pdu>| DataIn::parse(&pdu.unwrap().bhs).unwrap().itt;
    assert_eq!(answered(peer.receive().await), warm.itt);
    server.watched.arrived.add_permits(1);
    assert_eq!(answered(peer.receive().await), cold.itt);
    server.stop().await;
}

#[tokio::test]
async fn writes_larger_than_a_burst_are_asked_for_and_land_where_they_belong() {
    let server = Server::start().await;
    let mut peer = Peer::connect(server.v4).await;
    let keys = "MaxBurstLength=65536 ImmediateData=No InitialR2T=Yes MaxOutstandingR2T=1";
    assert_eq!(peer.try_login(OVERLAY, keys).await.login_status(), 0);
    peer.command([0; 16], 0, b"").await;
    let data: Vec<u8> = (0..200 * 512u32).map(|i| (i / 7) as u8).collect();
    let mut write = peer.scsi(write_10(3, 200));
    (write.write, write.expected_len) = (true, data.len() as u32);
    peer.send(write.emit(), b"").await;
    let mut asked = 0;
    while asked < data.len() {
        let r2t = R2t::parse(&peer.receive().await.unwrap().bhs).unwrap();
        assert_eq!(r2t.offset as usize, asked);
        assert!(r2t.len <= 65536);
        // As iPXE sends them.
        for (i, piece) in data[asked..asked + r2t.len as usize]
            .chunks(512)
            .enumerate()
        {
            let header = netroot::iscsi::wire::DataOut {
                last: (i + 1) * 512 >= r2t.len as usize,
                lun: LUN,
                itt: r2t.itt,
                ttt: r2t.ttt,
                exp_stat_sn: Serial(0),
                data_sn: i as u32,
                offset: r2t.offset + i as u32 * 512,
            };
            peer.send(header.emit(), piece).await;
        }
        asked += r2t.len as usize;
    }
    assert_eq!(peer.receive().await.unwrap().opcode(), Opcode::ScsiResponse);
    let (_, read) = peer.command(read_10(0, 210), 210 * 512, b"").await;
    assert!(read[..3 * 512] == server.contents[..3 * 512]);
    assert!(read[3 * 512..203 * 512] == data);
    assert!(read[203 * 512..] == server.contents[203 * 512..210 * 512]);
    server.stop().await;
}

#[tokio::test]
async fn a_reset_ends_what_others_have_under_way() {
    let server = Server::start().await;
    let mut one = Peer::login(server.v4, MEMORY, 1).await;
    let mut two = Peer::login(server.v4, MEMORY, 2).await;
    let mut write = two.scsi(write_10(0, 2));
    (write.write, write.expected_len) = (true, 1024);
    two.send(write.emit(), b"").await;
    assert_eq!(two.receive().await.unwrap().opcode(), Opcode::R2t);

    let reset = TaskRequest {
        immediate: true,
        function: 5,
        lun: LUN,
        itt: Tag(500),
        referenced_itt: Tag::NONE,
        cmd_sn: Serial(one.cmd_sn),
        exp_stat_sn: Serial(0),
        ref_cmd_sn: Serial(0),
    };
    one.send(reset.emit(), b"").await;
    let done = one.receive().await.unwrap();
    assert_eq!(
        TaskResponse::parse(&done.bhs).unwrap().response,
        TaskResponse::COMPLETE
    );
    // Each hears of it with its next command, and the write never happens.
    for peer in [&mut one, &mut two] {
        assert_eq!(peer.command([0; 16], 0, b"").await.0, 2);
        let (status, data) = peer.command(read_10(0, 2), 1024, b"").await;
        assert_eq!((status, data), (0, vec![0; 1024]));
    }
    server.stop().await;
}

#[tokio::test]
async fn numbers_of_data_follow_each_other() {
    let server = Server::start().await;
    let mut peer = Peer::connect(server.v4).await;
    peer.try_login(READ_ONLY, "MaxRecvDataSegmentLength=8192")
        .await;
    peer.command([0; 16], 0, b"").await;
    let mut read = peer.scsi(read_10(0, 512));
    (read.read, read.expected_len) = (true, 262_144);
    peer.send(read.emit(), b"").await;
    for i in 0..32 {
        let pdu = peer.receive().await.unwrap();
        let header = DataIn::parse(&pdu.bhs).unwrap();
        assert_eq!((header.data_sn, header.offset), (i, i * 8192));
        assert_eq!(header.status.is_some(), i == 31, "status with the last one");
        assert_eq!(header.last, i == 31);
    }
    server.stop().await;
}

/// TARGET WARM RESET or TARGET COLD RESET, and its answer.
async fn reset_target(peer: &mut Peer, function: u8) {
    let reset = TaskRequest {
        immediate: true,
        function,
        lun: [0; 8],
        itt: Tag(500),
        referenced_itt: Tag::NONE,
        cmd_sn: Serial(peer.cmd_sn),
        exp_stat_sn: Serial(0),
        ref_cmd_sn: Serial(0),
    };
    peer.send(reset.emit(), b"").await;
    let done = peer.receive().await.unwrap();
    let done = TaskResponse::parse(&done.bhs).unwrap();
    assert_eq!(
        (done.itt, done.response),
        (Tag(500), TaskResponse::COMPLETE)
    );
}

#[tokio::test]
async fn a_warm_reset_leaves_the_sessions_and_a_cold_one_ends_those_of_the_target() {
    let server = Server::start().await;
    let mut one = Peer::login(server.v4, MEMORY, 1).await;
    let mut two = Peer::login(server.v4, MEMORY, 2).await;
    let mut elsewhere = Peer::login(server.v4, WATCHED, 1).await;
    reset_target(&mut one, 6).await;
    for peer in [&mut one, &mut two] {
        assert_eq!(peer.sense([0; 16], 0, b"").await, (6, 0x2903));
        assert_eq!(peer.command([0; 16], 0, b"").await.0, 0);
    }
    // The answer comes first, then both hear that this is the end.
    reset_target(&mut one, 7).await;
    for peer in [&mut one, &mut two] {
        let last = peer.drain().await;
        assert_eq!(last.len(), 1);
        let message = AsyncMessage::parse(&last[0].bhs).unwrap();
        assert_eq!(message.event, AsyncMessage::DROPPED);
    }
    assert_eq!(ends(&server, 2).await, [End::Reset, End::Reset]);
    assert_eq!(elsewhere.command([0; 16], 0, b"").await.0, 0);
    let mut again = Peer::login(server.v4, MEMORY, 1).await;
    assert_eq!(again.command(read_10(0, 1), 512, b"").await.0, 0);
    drop((again, elsewhere));
    server.stop().await;
}

#[tokio::test]
async fn with_tas_a_command_that_another_clears_ends_with_a_status() {
    let server = Server::start().await;
    let mut one = Peer::login(server.v4, MEMORY, 1).await;
    let mut two = Peer::login(server.v4, MEMORY, 2).await;
    let mut select = [0; 16];
    (select[0], select[1], select[4]) = (0x15, 0x10, 16);
    let tas = [
        0, 0, 0, 0, 0x0a, 10, 2, 0x10, 0, 0x40, 0, 0, 0xff, 0xff, 0, 0,
    ];
    assert_eq!(one.command(select, 0, &tas).await.0, 0);
    assert_eq!(two.sense([0; 16], 0, b"").await, (6, 0x2a01));
    let mut write = two.scsi(write_10(0, 2));
    (write.write, write.expected_len) = (true, 1024);
    two.send(write.emit(), b"").await;
    let r2t = R2t::parse(&two.receive().await.unwrap().bhs).unwrap();
    let clear = TaskRequest {
        immediate: true,
        function: 4,
        lun: LUN,
        itt: Tag(500),
        referenced_itt: Tag::NONE,
        cmd_sn: Serial(one.cmd_sn),
        exp_stat_sn: Serial(0),
        ref_cmd_sn: Serial(0),
    };
    one.send(clear.emit(), b"").await;
    assert_eq!(one.receive().await.unwrap().opcode(), Opcode::TaskResponse);
    // Its data are on their way, and are waited for (RFC 7143 §4.2.3.3); then it ends.
    let data = netroot::iscsi::wire::DataOut {
        last: true,
        lun: LUN,
        itt: write.itt,
        ttt: r2t.ttt,
        exp_stat_sn: Serial(0),
        data_sn: 0,
        offset: 0,
    };
    two.send(data.emit(), &[1; 1024]).await;
    let ended = two.receive().await.unwrap();
    assert_eq!((ended.opcode(), ended.bhs[3]), (Opcode::ScsiResponse, 0x40));
    let read = two.command(read_10(0, 2), 1024, b"").await;
    assert_eq!(read, (0, vec![0; 1024]));
    drop((one, two));
    server.stop().await;
}
