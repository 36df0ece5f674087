//! Too much at once: what thousands of connections and commands cost the target in memory.
//!
//! A process of its own, as the memory of a process is what is measured. Its tests take turns.

// Helpers of tests may panic as tests may; clippy knows test functions only. They are shared with the
// tests of the target, which need more of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    dead_code
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use netroot::iscsi::Limits;
use netroot::iscsi::wire::{DataOut, NopOut, Opcode, R2t, Serial, Stage, Tag};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Mutex, MutexGuard};

use peer::{LUN, Peer, read_10, write_10};
use server::{MEMORY, Server, WATCHED};

#[path = "../target/peer.rs"]
mod peer;
#[path = "../target/server.rs"]
mod server;

const MIB: u64 = 1 << 20;

/// One test at a time: each looks at the memory of all.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Bytes of memory that the process has in use.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

/// Both ends of each connection are in this process.
fn raise_descriptors(to: u64) {
    let now = getrlimit(Resource::Nofile);
    if now.current.is_some_and(|current| current < to) {
        let current = Some(now.maximum.map_or(to, |most| most.min(to)));
        let maximum = now.maximum;
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    }
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    assert!(
        now >= to,
        "this test needs {to} descriptors; the limit is {now}"
    );
}

/// The `i`th of many initiators, which share some addresses.
fn address(i: usize) -> SocketAddr {
    let last = 1 + (i % 20) as u8;
    (Ipv4Addr::new(127, 0, 9, last), 0).into()
}

/// A server that has little memory.
async fn small() -> Server {
    Server::with(Limits {
        memory: 64 * MIB,
        ..Limits::default()
    })
    .await
}

/// A session of one of many initiators.
async fn join(server: &Server, target: &str, i: usize, keys: &str) -> Peer {
    let mut peer = Peer::connect_from(address(i), server.v4).await;
    peer.isid[4..].copy_from_slice(&(100 + i as u16).to_be_bytes());
    assert_eq!(peer.try_login(target, keys).await.login_status(), 0);
    peer.command([0; 16], 0, b"").await;
    peer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_connections_at_once() {
    let _turn = turn().await;
    raise_descriptors(5000);
    let login = Duration::from_secs(20);
    let server = Server::with(Limits {
        login,
        strangers: 3000,
        ..Limits::default()
    })
    .await;
    let mut good = Peer::login(server.v4, MEMORY, 1).await;
    let before = resident();
    let mut crowd = Vec::new();
    for i in 0..2000 {
        let mut peer = Peer::connect_from(address(i), server.v4).await;
        let first = peer.login_request(Stage::Security, None);
        match i % 4 {
            // Says nothing.
            0 => {}
            // Half of it is closed.
            1 => peer.finish().await,
            // In the middle of a header.
            2 => peer.raw(&first.emit()[..47]).await,
            // In the middle of a login.
            _ => {
                let text = format!("InitiatorName=iqn.x:{i}\0TargetName={MEMORY}\0");
                peer.send(first.emit(), text.as_bytes()).await;
                assert_eq!(peer.receive().await.unwrap().login_status(), 0);
            }
        }
        crowd.push(peer);
        if i % 250 == 0 {
            assert_eq!(good.command(read_10(0, 1), 512, b"").await.0, 0);
        }
    }
    let grown = resident().saturating_sub(before);
    println!("2000 connections: {} KiB each", grown / 1024 / 2000);
    assert!(
        grown < 64 * MIB,
        "{grown} bytes for connections that are no sessions"
    );
    // Whoever means it gets in all the same.
    let mut late = join(&server, MEMORY, 3000, "").await;
    assert_eq!(late.command(read_10(0, 1), 512, b"").await.0, 0);
    // Those that do not are closed in time.
    for peer in &mut crowd {
        while peer.receive_within(login * 2).await.is_some() {}
    }
    assert_eq!(good.command(read_10(0, 1), 512, b"").await.0, 0);
    assert_eq!(server.sessions.list().len(), 2);
    drop((crowd, good, late));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_reads_whose_data_nobody_takes() {
    let _turn = turn().await;
    let server = small().await;
    let mut good = Peer::login(server.v4, MEMORY, 1).await;
    let before = resident();
    let keys = "MaxRecvDataSegmentLength=262144";
    let mut crowd = Vec::new();
    for i in 0..40 {
        let mut peer = join(&server, WATCHED, i, keys).await;
        for _ in 0..100 {
            let mut read = peer.scsi(read_10(0, 512));
            (read.read, read.expected_len) = (true, 262_144);
            peer.send(read.emit(), b"").await;
        }
        crowd.push(peer);
    }
    // One that wants more in a command than its share is.
    let mut large = crowd[0].scsi(read_10(0, 8192));
    (large.read, large.expected_len) = (true, 4 << 20);
    crowd[0].send(large.emit(), b"").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let grown = resident().saturating_sub(before);
    println!("4000 reads of 256 KiB, not taken: {} MiB", grown / MIB);
    assert!(
        grown < 96 * MIB,
        "{grown} bytes, where there are 64 MiB for all"
    );
    assert_eq!(good.command(read_10(0, 1), 512, b"").await.0, 0);
    // Those who take them after all get them all.
    let wanted = |i: usize| 100 * 262_144 + if i == 0 { 4 << 20 } else { 0 };
    for (i, peer) in crowd.iter_mut().enumerate() {
        let mut left = wanted(i);
        while left > 0 {
            let pdu = peer.receive().await.expect("data");
            assert_eq!(pdu.opcode(), Opcode::DataIn);
            left -= pdu.data.len();
        }
    }
    let read = server.watched.read.load(Ordering::SeqCst);
    assert_eq!(read, 1004 * MIB, "each was read once");
    drop((crowd, good));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_pings_whose_answers_nobody_reads() {
    let _turn = turn().await;
    let server = small().await;
    let mut good = Peer::login(server.v4, MEMORY, 1).await;
    let mut bad = Peer::login(server.v4, MEMORY, 2).await;
    let before = resident();
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
    let grown = resident().saturating_sub(before);
    println!("pings without end: {} KiB", grown / 1024);
    assert!(grown < 32 * MIB, "{grown} bytes");
    assert_eq!(good.command(read_10(0, 1), 512, b"").await.0, 0);
    drop((good, bad));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_pdus_that_come_faster_than_they_are_taken() {
    let _turn = turn().await;
    let server = small().await;
    let mut good = Peer::login(server.v4, MEMORY, 1).await;
    let mut bad = Peer::login(server.v4, MEMORY, 2).await;
    // Nobody answers those.
    let ping = NopOut {
        immediate: true,
        lun: [0; 8],
        itt: Tag::NONE,
        ttt: Tag::NONE,
        cmd_sn: Serial(bad.cmd_sn),
        exp_stat_sn: Serial(0),
    };
    let many = ping.emit().repeat(4096);
    let before = resident();
    let (mut sent, mut most) = (0, before);
    while sent < 48 * MIB {
        bad.raw(&many).await;
        sent += many.len() as u64;
        most = most.max(resident());
    }
    let grown = most - before;
    println!("{} MiB of small PDUs: {} KiB", sent / MIB, grown / 1024);
    assert!(grown < 16 * MIB, "{grown} bytes");
    assert_eq!(good.command(read_10(0, 1), 512, b"").await.0, 0);
    drop((good, bad));
    server.stop().await;
}

/// Sends what an R2T asks for.
async fn answer(peer: &mut Peer, r2t: &R2t) {
    let data = vec![3; r2t.len as usize];
    for (i, part) in data.chunks(65536).enumerate() {
        let at = i * 65536;
        let header = DataOut {
            last: at + part.len() == data.len(),
            lun: LUN,
            itt: r2t.itt,
            ttt: r2t.ttt,
            exp_stat_sn: Serial(0),
            data_sn: i as u32,
            offset: r2t.offset + at as u32,
        };
        peer.send(header.emit(), part).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_writes_of_many_share_the_memory_and_all_are_done() {
    let _turn = turn().await;
    let server = small().await;
    let mut crowd = Vec::new();
    for i in 0..30 {
        let mut peer = join(&server, MEMORY, i, "MaxBurstLength=4194304").await;
        // A quarter of the disk each, and more than a thirtieth of the memory.
        let mut write = peer.scsi(write_10(0, 4096));
        (write.write, write.expected_len) = (true, 2 << 20);
        peer.send(write.emit(), b"").await;
        crowd.push(peer);
    }
    // Whoever is asked answers, and so nobody waits for ever.
    let writing = crowd.into_iter().map(|mut peer| {
        tokio::spawn(async move {
            loop {
                let pdu = peer.receive().await.expect("an R2T or an answer");
                if pdu.opcode() == Opcode::ScsiResponse {
                    assert_eq!(pdu.bhs[3], 0);
                    return peer;
                }
                let r2t = R2t::parse(&pdu.bhs).unwrap();
                answer(&mut peer, &r2t).await;
            }
        })
    });
    for write in writing.collect::<Vec<_>>() {
        let mut peer = write.await.unwrap();
        let read = peer.command(read_10(4095, 1), 512, b"").await;
        assert_eq!(read, (0, vec![3; 512]));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_nobody_has_data_for_are_not_all_asked_for_at_once() {
    let _turn = turn().await;
    let server = small().await;
    let mut crowd = Vec::new();
    for i in 0..30 {
        let mut peer = join(&server, MEMORY, i, "MaxBurstLength=16776192").await;
        for _ in 0..16 {
            let mut write = peer.scsi(write_10(0, 8192));
            (write.write, write.expected_len) = (true, 4 << 20);
            peer.send(write.emit(), b"").await;
        }
        crowd.push(peer);
    }
    let (mut asked, moment) = (0, Duration::from_millis(100));
    for peer in &mut crowd {
        while let Ok(Some(pdu)) = tokio::time::timeout(moment, peer.receive()).await {
            asked += u64::from(R2t::parse(&pdu.bhs).unwrap().len);
        }
    }
    println!("480 writes of 4 MiB: {} MiB are asked for", asked / MIB);
    assert!(asked > 0 && asked <= 64 * MIB, "{asked} bytes");
    drop(crowd);
    server.stop().await;
}
