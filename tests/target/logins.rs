//! Logins that have to prove something, and logins that are sent elsewhere.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use md5::{Digest, Md5};
use netroot::block::MemoryDisk;
use netroot::iscsi::wire::{Serial, Stage, Tag, TextRequest};
use netroot::iscsi::{
    Authentication, BoxFuture, Credential, Directory, End, Guard, Initiator, IscsiName, Opened,
    Refusal, ServerConfig, SessionControl, Sessions, serve,
};
use netroot::scsi::{Device, Lun, Options};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::peer::{Pdu, Peer};
use super::tools;

const TARGET: &str = "iqn.2026-01.test:guarded";
const NAMES: &str = "InitiatorName=iqn.test:peer TargetName=iqn.2026-01.test:guarded";

/// Where nobody may come from.
const STRANGER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66)), 0);

/// Who is none that knocks.
const FIRMWARE: [u8; 6] = [0x40, 0x00, 0x27, 0x23, 0, 1];

/// A target for whoever knows a secret, or one that is somewhere else.
struct Guarded {
    device: Arc<Device>,
    authentication: Authentication,
    moved: Option<Refusal>,
    /// CHAP names of the sessions that were opened.
    names: Arc<Mutex<Vec<Option<String>>>>,
}

struct Nobody;

impl Guard for Nobody {
    fn ended(self: Box<Self>, _: End) {}
}

impl Directory for Guarded {
    fn targets<'a>(&'a self, _: &'a Initiator) -> BoxFuture<'a, Vec<IscsiName>> {
        Box::pin(async { vec![TARGET.parse().unwrap()] })
    }

    fn authentication<'a>(
        &'a self,
        _: &'a Initiator,
        _: Option<&'a IscsiName>,
    ) -> BoxFuture<'a, Authentication> {
        Box::pin(async { self.authentication.clone() })
    }

    fn knocks(&self, who: &Initiator) -> bool {
        who.isid.0 != FIRMWARE
    }

    fn admits<'a>(
        &'a self,
        who: &'a Initiator,
        _: &'a IscsiName,
    ) -> BoxFuture<'a, Result<(), Refusal>> {
        let stranger = who.peer.ip() == STRANGER.ip();
        Box::pin(async move {
            match stranger {
                true => Err(Refusal::Forbidden),
                false => Ok(()),
            }
        })
    }

    fn open<'a>(
        &'a self,
        who: &'a Initiator,
        _: &'a IscsiName,
        _: SessionControl,
    ) -> BoxFuture<'a, Result<Opened, Refusal>> {
        Box::pin(async move {
            if let Some(moved) = self.moved {
                return Err(moved);
            }
            let name = who.proved.as_ref().map(|proved| proved.name().to_owned());
            self.names.lock().unwrap().push(name);
            Ok(Opened {
                device: self.device.clone(),
                guard: Box::new(Nobody),
            })
        })
    }
}

struct Server {
    address: SocketAddr,
    sessions: Sessions,
    names: Arc<Mutex<Vec<Option<String>>>>,
    shutdown: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(authentication: Authentication, moved: Option<Refusal>) -> Self {
        let disk = Arc::new(MemoryDisk::new(512, 2048));
        let lun = Lun::new(1).unwrap();
        let device = Device::new(TARGET).with_disk(lun, TARGET, disk, Options::default());
        let names = Arc::new(Mutex::new(Vec::new()));
        let directory = Arc::new(Guarded {
            device: Arc::new(device),
            authentication,
            moved,
            names: names.clone(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (shutdown, stopped) = oneshot::channel::<()>();
        let sessions = Sessions::new();
        Server {
            address: listener.local_addr().unwrap(),
            sessions: sessions.clone(),
            names,
            shutdown,
            task: tokio::spawn(serve(
                vec![listener],
                directory,
                sessions,
                ServerConfig::default(),
                async {
                    let _ = stopped.await;
                },
            )),
        }
    }

    async fn stop(self) {
        let _ = self.shutdown.send(());
        self.task.await.unwrap();
    }

    fn url(&self, user: &str) -> String {
        format!("iscsi://{user}{}/{TARGET}/1", self.address)
    }
}

fn chap() -> Authentication {
    Authentication::Chap {
        initiator: vec![Credential::new("anna", "secret of anna").unwrap()],
        target: Some(Credential::new("tara", "secret of the target").unwrap()),
    }
}

#[tokio::test]
async fn who_is_none_that_knocks_is_told_until_that_is_known() {
    let server = Server::start(chap(), Some(Refusal::Unavailable)).await;
    let knocks = server.sessions.knocks();
    let many = || knocks.within(Duration::from_secs(6)).unwrap().len();
    let mut firmware = Peer::connect(server.address).await;
    firmware.isid = FIRMWARE;
    for _ in 0..500 {
        if many() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(many(), 1, "it may be anybody");
    say(&mut firmware, &format!("{NAMES} AuthMethod=CHAP")).await;
    assert_eq!(many(), 0);
    drop(firmware);
    let (system, ..) = challenged(server.address).await;
    assert_eq!(many(), 1);
    drop(system);
    server.stop().await;
}

/// Says something in the security stage, and hears the answer.
async fn say(peer: &mut Peer, text: &str) -> Pdu {
    let request = peer.login_request(Stage::Security, Some(Stage::Operational));
    let text = text.replace(' ', "\0") + "\0";
    peer.send(request.emit(), text.as_bytes()).await;
    peer.receive().await.expect("an answer to the login")
}

/// Logs in up to the challenge, and gives CHAP_I and CHAP_C.
async fn challenged(to: SocketAddr) -> (Peer, u8, Vec<u8>) {
    let mut peer = Peer::connect(to).await;
    say(&mut peer, &format!("{NAMES} AuthMethod=CHAP")).await;
    let told = say(&mut peer, "CHAP_A=5").await.text();
    let value = |key: &str| {
        let at = told.find(key).unwrap() + key.len() + 1;
        told[at..].split(' ').next().unwrap().to_owned()
    };
    let hex = value("CHAP_C").strip_prefix("0x").unwrap().to_owned();
    let challenge = (0..hex.len()).step_by(2);
    let challenge = challenge.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
    (peer, value("CHAP_I").parse().unwrap(), challenge.collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// CHAP_N and CHAP_R.
fn response(name: &str, secret: &str, id: u8, challenge: &[u8]) -> String {
    let hash = Md5::new().chain_update([id]).chain_update(secret);
    let hash = hash.chain_update(challenge).finalize();
    format!("CHAP_N={name} CHAP_R=0x{}", hex(&hash))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libiscsi_and_qemu_prove_that_they_know_a_secret() {
    let server = Server::start(chap(), None).await;
    let good = server.url("anna%secret of anna@").replace(' ', "%20");
    // libiscsi takes secrets as they stand.
    let good = good.replace("%20", " ");
    tools::run("iscsi-inq", &[&good]).await;
    assert_eq!(*server.names.lock().unwrap(), [Some("anna".to_owned())]);
    let mutual = format!("{good}?target_user=tara&target_password=secret of the target");
    tools::run("iscsi-readcapacity16", &[&mutual]).await;
    tools::run("qemu-io", &["-f", "raw", "-c", "write -P 7 0 4k", &good]).await;
    tools::run("qemu-io", &["-f", "raw", "-c", "read -P 7 0 4k", &good]).await;
    let discovery = format!("iscsi://anna%secret of anna@{}", server.address);
    let list = tools::run("iscsi-ls", &[&discovery]).await;
    assert!(list.contains(TARGET), "{list}");

    for (user, arguments) in [
        ("", ""),
        ("anna%secret of otto@", ""),
        ("otto%secret of anna@", ""),
        // The target does not know this one.
        (
            "anna%secret of anna@",
            "?target_user=tara&target_password=another secret",
        ),
    ] {
        let url = server.url(user) + arguments;
        tools::fails("iscsi-inq", &[&url]).await;
    }
    tools::fails("iscsi-ls", &[&format!("iscsi://{}", server.address)]).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn initiators_follow_a_target_that_has_moved() {
    // libiscsi 1.19 goes on at the new place in the stage that it was in at the old one, so that it can
    // prove itself at one of them only.
    let home = Server::start(Authentication::None, None).await;
    let temporarily = Refusal::MovedTemporarily(home.address);
    let old = Server::start(Authentication::None, Some(temporarily)).await;
    tools::run("iscsi-inq", &[&old.url("")]).await;
    assert_eq!(home.names.lock().unwrap().len(), 1);
    old.stop().await;

    for (moved, status) in [
        (temporarily, 0x0101),
        (Refusal::MovedPermanently(home.address), 0x0102),
    ] {
        let old = Server::start(Authentication::None, Some(moved)).await;
        let mut peer = Peer::connect(old.address).await;
        let told = peer.try_login(TARGET, "").await;
        assert_eq!(told.login_status(), status);
        let address = format!("TargetAddress={}", home.address);
        assert_eq!(told.text().trim(), address);
        assert!(peer.receive().await.is_none(), "and the connection closes");
        old.stop().await;
    }
    home.stop().await;
}

#[tokio::test]
async fn nobody_comes_in_without_the_proof_and_nobody_is_put_out() {
    let server = Server::start(chap(), None).await;
    let (mut anna, id, challenge) = challenged(server.address).await;
    let answer = response("anna", "secret of anna", id, &challenge);
    assert_eq!(say(&mut anna, &answer).await.login_status(), 0);
    let request = anna.login_request(Stage::Operational, Some(Stage::FullFeature));
    anna.send(request.emit(), b"").await;
    assert_eq!(anna.receive().await.unwrap().login_status(), 0);
    anna.command([0; 16], 0, b"").await;

    // The same names and the same ISID, without the secret: a reinstatement that must not happen.
    let mut thief = Peer::connect(server.address).await;
    assert_eq!(thief.try_login(TARGET, "").await.login_status(), 0x0201);
    let (mut thief, id, challenge) = challenged(server.address).await;
    let answer = response("anna", "secret of otto", id, &challenge);
    assert_eq!(say(&mut thief, &answer).await.login_status(), 0x0201);
    assert!(thief.receive().await.is_none(), "and the connection closes");
    // Anna's own words, said again.
    let (mut thief, ..) = challenged(server.address).await;
    assert_eq!(say(&mut thief, &answer).await.login_status(), 0x0201);

    assert_eq!(anna.command([0; 16], 0, b"").await.0, 0);
    assert_eq!(server.sessions.list().len(), 1);
    drop(anna);
    server.stop().await;
}

#[tokio::test]
async fn a_stranger_with_the_right_name_ends_nobodys_session() {
    let server = Server::start(Authentication::None, None).await;
    let mut good = Peer::connect(server.address).await;
    assert_eq!(good.try_login(TARGET, "").await.login_status(), 0);
    good.command([0; 16], 0, b"").await;
    let mut stranger = Peer::connect_from(STRANGER, server.address).await;
    assert_eq!(stranger.isid, good.isid);
    assert_eq!(stranger.try_login(TARGET, "").await.login_status(), 0x0202);
    assert_eq!(good.command([0; 16], 0, b"").await.0, 0);
    drop(good);
    server.stop().await;
}

#[tokio::test]
async fn challenges_of_other_connections_are_not_answered() {
    let server = Server::start(chap(), None).await;
    let (other, other_id, other_challenge) = challenged(server.address).await;
    let (mut peer, id, challenge) = challenged(server.address).await;
    assert_ne!(challenge, other_challenge);
    let answer = response("anna", "secret of anna", id, &challenge);
    let reflected = format!(
        "{answer} CHAP_I={other_id} CHAP_C=0x{}",
        hex(&other_challenge)
    );
    let refused = say(&mut peer, &reflected).await;
    assert_eq!(
        (refused.login_status(), refused.text()),
        (0x0201, String::new())
    );
    drop(other);
    server.stop().await;
}

#[tokio::test]
async fn who_guesses_waits_and_others_do_not() {
    let server = Server::start(chap(), None).await;
    let guess = async || {
        let (mut peer, id, challenge) = challenged(server.address).await;
        let begun = Instant::now();
        let answer = response("anna", "a wrong secret", id, &challenge);
        assert_eq!(say(&mut peer, &answer).await.login_status(), 0x0201);
        begun.elapsed()
    };
    for _ in 0..6 {
        guess().await;
    }
    assert!(guess().await >= Duration::from_millis(400));
    // From another address, at once; from this one, later, but it gets in.
    let (mut here, id, challenge) = challenged(server.address).await;
    let begun = Instant::now();
    let answer = response("anna", "secret of anna", id, &challenge);
    assert_eq!(say(&mut here, &answer).await.login_status(), 0);
    assert!(begun.elapsed() >= Duration::from_millis(800));
    let mut there = Peer::connect_from("127.0.0.77:0".parse().unwrap(), server.address).await;
    let begun = Instant::now();
    assert_eq!(there.try_login(TARGET, "").await.login_status(), 0x0201);
    assert!(begun.elapsed() < Duration::from_millis(800));
    server.stop().await;
}

#[tokio::test]
async fn a_session_has_one_connection() {
    let server = Server::start(Authentication::None, None).await;
    let mut first = Peer::connect(server.address).await;
    assert_eq!(first.try_login(TARGET, "").await.login_status(), 0);
    let tsih = server.sessions.list()[0].tsih;
    for (tsih, isid, status) in [
        (tsih, first.isid, 0x0206),
        (tsih.wrapping_add(1), first.isid, 0x020a),
        // Whose session it is not learns nothing of it.
        (tsih, [0x80, 0, 0, 0, 0, 9], 0x020a),
    ] {
        let mut second = Peer::connect(server.address).await;
        second.isid = isid;
        let mut request = second.login_request(Stage::Operational, Some(Stage::FullFeature));
        (request.tsih, request.cid) = (tsih, 1);
        let text = NAMES.replace(' ', "\0") + "\0";
        second.send(request.emit(), text.as_bytes()).await;
        assert_eq!(second.receive().await.unwrap().login_status(), status);
    }
    first.command([0; 16], 0, b"").await;
    assert_eq!(first.command([0; 16], 0, b"").await.0, 0);
    drop(first);
    server.stop().await;
}

#[tokio::test]
async fn text_goes_on_over_several_pdus_both_ways() {
    let server = Server::start(Authentication::None, None).await;
    let mut peer = Peer::connect(server.address).await;
    // A login in three parts, cut in the middle of pairs, with an answer in several.
    let keys: String = (0..30).map(|i| format!("X-com.example.{i}=1 ")).collect();
    let text = format!("{NAMES} MaxRecvDataSegmentLength=512 {keys}").replace(' ', "\0");
    let (one, rest) = text.as_bytes().split_at(70);
    let (two, three) = rest.split_at(300);
    for part in [one, two] {
        let mut request = peer.login_request(Stage::Operational, None);
        request.more = true;
        peer.send(request.emit(), part).await;
        let empty = peer.receive().await.unwrap();
        assert_eq!((empty.login_status(), empty.data.len()), (0, 0));
    }
    let last = peer.login_request(Stage::Operational, Some(Stage::FullFeature));
    peer.send(last.emit(), three).await;
    let mut answer = Vec::new();
    loop {
        let part = peer.receive().await.unwrap();
        assert_eq!(part.login_status(), 0);
        assert!(part.data.len() <= 512);
        answer.extend_from_slice(&part.data);
        if part.bhs[1] & 0x40 == 0 {
            break;
        }
        peer.send(last.emit(), b"").await;
    }
    assert_eq!(
        String::from_utf8_lossy(&answer)
            .matches("NotUnderstood")
            .count(),
        30
    );

    // And in the full feature phase.
    let mut ask = TextRequest {
        immediate: true,
        last: false,
        more: true,
        itt: Tag(9),
        ttt: Tag::NONE,
        cmd_sn: Serial(1),
        exp_stat_sn: Serial(0),
    };
    peer.send(ask.emit(), b"SendTar").await;
    let part = peer.receive().await.unwrap();
    assert!(part.data.is_empty());
    ask.ttt = Tag(u32::from_be_bytes(part.bhs[20..24].try_into().unwrap()));
    (ask.last, ask.more) = (true, false);
    peer.send(ask.emit(), b"gets=\0").await;
    let list = peer.receive().await.unwrap().text();
    assert!(
        list.starts_with(&format!("TargetName={TARGET} TargetAddress=")),
        "{list}"
    );
    server.stop().await;
}
