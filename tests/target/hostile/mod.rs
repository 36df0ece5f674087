//! What nobody should send. Each case says what the target answers, and whether the connection goes on;
//! another session works all the while, no byte of the disk changes, and nothing panics.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use netroot::block::{self, Disk};
use netroot::iscsi::wire::{DataOut, Opcode, Reject, Serial, Tag};

use super::peer::{LUN, Pdu, Peer, read_10, write_10};
use super::server::{MEMORY, SIZE, Server};

mod commands;
mod data;
mod digests;
mod floods;
mod garbage;
mod lengths;
mod proofs;
mod stages;
mod text;
mod window;

/// What becomes of the connection of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// The target closes it.
    Closed,
    /// It goes on, and the session on it works.
    Alive,
}

use Ends::{Alive, Closed};

/// One thing that nobody should do.
struct Case {
    name: String,
    ends: Ends,
    /// Whether it begins after the login.
    inside: bool,
    run: Run,
}

/// What is done, to a peer that is given back.
type Run = Box<dyn FnOnce(Peer) -> Pin<Box<dyn Future<Output = Peer>>>>;

/// A thing and what makes it wrong.
type Change<T> = (&'static str, fn(&mut T));

/// A case that begins with the connection.
fn outside<F>(name: impl Into<String>, run: impl FnOnce(Peer) -> F + 'static) -> Case
where
    F: Future<Output = Peer> + 'static,
{
    Case {
        name: name.into(),
        ends: Closed,
        inside: false,
        run: Box::new(|peer| Box::pin(run(peer))),
    }
}

/// A case within a session.
fn inside<F>(name: impl Into<String>, ends: Ends, run: impl FnOnce(Peer) -> F + 'static) -> Case
where
    F: Future<Output = Peer> + 'static,
{
    Case {
        ends,
        inside: true,
        ..outside(name, run)
    }
}

/// Where the good sessions work; no case has a business there.
const BLOCK: u32 = 8;
const BUSY: u32 = 16;

/// Plays cases, one after the other, against a server with good sessions beside them.
async fn play(cases: Vec<Case>) {
    watch_panics();
    let server = Server::start().await;
    let mut good = Peer::login(server.v4, MEMORY, 1).await;
    assert_eq!(good.command(write_10(BLOCK, 1), 0, &[7; 512]).await.0, 0);
    assert_eq!(good.command(write_10(BUSY, 8), 0, &[9; 4096]).await.0, 0);
    let untouched = contents(&server).await;
    for case in cases {
        let name = case.name;
        // Shown where a case fails.
        println!("case: {name}");
        let busy = Busy::start(&server).await;
        let mut bad = Peer::connect(server.v4).await;
        bad.isid[5] = 2;
        if case.inside {
            assert_eq!(bad.try_login(MEMORY, "").await.login_status(), 0);
            bad.command([0; 16], 0, b"").await;
        }
        let mut bad = (case.run)(bad).await;
        match case.ends {
            Closed => {
                bad.drain().await;
            }
            Alive => {
                let read = bad.command(read_10(BLOCK, 1), 512, b"").await;
                assert_eq!(read, (0, vec![7; 512]), "{name}: its own session");
            }
        }
        busy.stop(&name).await;
        let read = good.command(read_10(BLOCK, 1), 512, b"").await;
        assert_eq!(read, (0, vec![7; 512]), "{name}: the good session");
        assert!(contents(&server).await == untouched, "{name}: the disk");
        assert_no_panics(&name);
    }
    drop(good);
    tokio::time::timeout(Duration::from_secs(10), server.stop())
        .await
        .expect("the server does not end");
    assert_no_panics("the end of the server");
}

/// All bytes of the disk.
async fn contents(server: &Server) -> bytes::Bytes {
    let geometry = server.memory.geometry();
    let whole = geometry.extent(0, SIZE / 512).unwrap();
    let segments = server.memory.read(whole).wait().await.unwrap();
    block::load(segments).wait().await.unwrap()
}

/// A session that reads and writes as long as a case lasts.
struct Busy {
    over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<u32>,
}

impl Busy {
    async fn start(server: &Server) -> Self {
        let mut peer = Peer::login(server.v4, MEMORY, 3).await;
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let task = tokio::spawn(async move {
            let mut rounds = 0;
            loop {
                let last = ends.load(Ordering::SeqCst);
                assert_eq!(peer.command(write_10(BUSY, 8), 0, &[9; 4096]).await.0, 0);
                let read = peer.command(read_10(BUSY, 8), 4096, b"").await;
                assert_eq!(read, (0, vec![9; 4096]));
                rounds += 1;
                if last {
                    return rounds;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        Busy { over, task }
    }

    async fn stop(self, name: &str) {
        self.over.store(true, Ordering::SeqCst);
        let rounds = self.task.await;
        assert!(rounds.is_ok_and(|n| n > 0), "{name}: the busy session");
    }
}

/// Panics of the target, by their places. Those of tests are told by the tests.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map(ToString::to_string);
            let place = place.unwrap_or_default();
            if !place.starts_with("tests/") {
                PANICS.lock().unwrap().push(place);
            }
            usual(panic);
        }));
    });
}

fn assert_no_panics(after: &str) {
    let panics = PANICS.lock().unwrap();
    assert!(panics.is_empty(), "{after}: panics at {panics:?}");
}

/// The next PDU is a Reject for this reason, with the header of the PDU that it rejects.
async fn rejected(peer: &mut Peer, reason: u8, itt: Tag) -> Pdu {
    let reject = peer.receive().await.expect("a Reject");
    assert_eq!(reject.opcode(), Opcode::Reject);
    assert_eq!(Reject::parse(&reject.bhs).unwrap().reason, reason);
    assert_eq!(reject.data[16..20], itt.0.to_be_bytes());
    reject
}

/// A login is answered with this status, and nothing more.
async fn login_refused(peer: &mut Peer, status: u16) {
    let answer = peer.receive().await.expect("an answer to the login");
    assert_eq!(answer.opcode(), Opcode::LoginResponse);
    assert_eq!(
        answer.login_status(),
        status,
        "{:#06x}",
        answer.login_status()
    );
}

/// A write of two blocks whose data are asked for; gives its tag and that of the R2T.
async fn asked(peer: &mut Peer) -> (Tag, Tag) {
    let mut write = peer.scsi(write_10(100, 2));
    (write.write, write.expected_len) = (true, 1024);
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

/// Bytes without a pattern, but always the same.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(step).collect()
}

#[test]
fn there_are_enough_cases_and_each_has_a_name_of_its_own() {
    let all = [
        commands::cases(),
        data::cases(),
        digests::cases(),
        garbage::cases(),
        lengths::cases(),
        proofs::cases(),
        stages::cases(),
        text::cases(),
        window::cases(),
    ];
    let mut names: Vec<String> = all.into_iter().flatten().map(|case| case.name).collect();
    let count = names.len();
    println!("{count} cases of bad input, and the floods");
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(count >= 60, "{count}");
}
