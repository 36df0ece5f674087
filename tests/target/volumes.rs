//! Volumes of a library, as initiators meet them: who sees what, what outlives a restart, what happens
//! when there is no room.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use netroot::daemon::{Doors, Server, Targets};
use netroot::exec::{Cancel, Program, in_private_mounts};
use netroot::iscsi::wire::{Opcode, ScsiResponse, Stage};
use netroot::iscsi::{ServerConfig, serve};
use netroot::library::{Actor, Chap, InitOptions, Kept, Library, NewVolume, Paths, Secrets};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::peer::{Pdu, Peer, read_10, write_10};
use super::tools;

const PREFIX: &str = "iqn.2026-01.edu.example.server-01";

/// A server of a library in a directory, which may be there from an earlier one.
pub(crate) struct Site {
    pub(crate) server: Arc<Server>,
    pub(crate) portals: Vec<SocketAddr>,
    shutdown: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Site {
    pub(crate) async fn start(dir: &Path) -> Self {
        let path = dir.join("library");
        let library = match path.exists() {
            true => Library::open(&path, None),
            false => Library::init(
                &path,
                &InitOptions {
                    host: "server-01.example.edu".parse().unwrap(),
                    iqn_prefix: Some(PREFIX.parse().unwrap()),
                    immutable: false,
                },
            ),
        };
        let library = library.unwrap();
        let listeners = vec![
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("[::]:0").await.unwrap(),
        ];
        let portals = listeners.iter().map(|one| one.local_addr().unwrap());
        let portals = portals.collect();
        let doors = Doors::configured(&library.config());
        let server = Server::new(library, tokio::runtime::Handle::current(), doors);
        let (shutdown, stopped) = oneshot::channel::<()>();
        let targets = Arc::new(Targets::new(server.clone()));
        let sessions = server.sessions().clone();
        let task = tokio::spawn(serve(
            listeners,
            targets,
            sessions,
            ServerConfig::default(),
            async {
                let _ = stopped.await;
            },
        ));
        let site = Site {
            server,
            portals,
            shutdown,
            task,
        };
        site.refresh().await;
        site
    }

    pub(crate) async fn stop(self) {
        let _ = self.shutdown.send(());
        self.task.await.unwrap();
    }

    /// Does what blocks where it may.
    pub(crate) async fn library<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Library, &Server) -> netroot::library::Result<T> + Send + 'static,
    ) -> T {
        let server = self.server.clone();
        let done = tokio::task::spawn_blocking(move || {
            let done = work(server.library(), &server).unwrap();
            server.refresh_volumes().unwrap();
            done
        });
        done.await.unwrap()
    }

    async fn refresh(&self) {
        self.library(|_, _| Ok(())).await;
    }

    pub(crate) async fn add(&self, new: NewVolume) {
        self.library(move |library, server| library.add_volume(&new, server, &Actor::Server))
            .await;
    }

    fn v4(&self) -> SocketAddr {
        self.portals[0]
    }
}

/// A volume for everybody, in the library.
pub(crate) fn volume(name: &str) -> NewVolume {
    NewVolume {
        name: name.parse().unwrap(),
        kept: Kept::Library,
        paths: Paths::Any,
        size: Some(8 << 20),
        block_size: 512,
        direct: false,
        physical_block_size: None,
        read_only: false,
        allow: vec!["any".parse().unwrap()],
        secrets: Secrets::default(),
        target: None,
        lun: None,
        allow_sanitize: false,
        force: false,
    }
}

fn iqn(name: &str) -> String {
    format!("{PREFIX}:{name}")
}

fn chap(user: &str, secret: &str) -> Option<Chap> {
    Some(Chap::new(user, secret).unwrap())
}

/// What a target answers to a script of the security stage, byte by byte, but for the challenge.
async fn transcript(site: &Site, from: u8, target: &str, script: &[&str]) -> Vec<Vec<u8>> {
    let from = SocketAddr::new(IpAddr::from([127, 0, 0, from]), 0);
    let mut peer = Peer::connect_from(from, site.v4()).await;
    let mut heard = Vec::new();
    for text in script {
        let text = text.replace("TARGET", &iqn(target)).replace(' ', "\0") + "\0";
        let request = peer.login_request(Stage::Security, Some(Stage::Operational));
        peer.send(request.emit(), text.as_bytes()).await;
        let Some(pdu) = peer.receive().await else {
            heard.push(b"closed".to_vec());
            break;
        };
        heard.push(without_challenge(&pdu));
    }
    heard
}

fn without_challenge(pdu: &Pdu) -> Vec<u8> {
    let text = pdu.text();
    let text = text.split(' ').map(|pair| match pair.split_once('=') {
        // Drawn, of one length but for the decimal digits of the identifier.
        Some(("CHAP_C", value)) => format!("CHAP_C={}", value.len()),
        Some(("CHAP_I", _)) => "CHAP_I".to_owned(),
        _ => pair.to_owned(),
    });
    let text: Vec<String> = text.collect();
    let mut bytes = pdu.bhs.to_vec();
    if text.iter().any(|pair| pair == "CHAP_I") {
        bytes[5..8].fill(0);
    }
    bytes.extend(text.join(" ").bytes());
    bytes
}

const NAMES: &str = "InitiatorName=iqn.test:peer TargetName=TARGET";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_of_others_is_answered_as_one_that_does_not_exist() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path()).await;
    let others = vec!["iqn.test:other".parse().unwrap()];
    site.add(NewVolume {
        allow: others.clone(),
        ..volume("listed")
    })
    .await;
    let skipping = format!("{NAMES} AuthMethod=None");
    let scripts = |skipping: &str| {
        let chap = format!("{NAMES} AuthMethod=CHAP,None");
        let response = "CHAP_N=anna CHAP_R=0x000102030405060708090a0b0c0d0e0f";
        let mutual = format!("{response} CHAP_I=1 CHAP_C=0x000102030405060708090a0b0c0d0e0f");
        let wrong = |last: &str| vec![chap.clone(), "CHAP_A=5".into(), last.to_owned()];
        [
            vec![skipping.to_owned()],
            vec![chap.clone(), "CHAP_A=9".into()],
            wrong(response),
            wrong(&mutual),
            wrong("CHAP_N=anna"),
        ]
    };

    // Where nobody has to prove anything, nobody is asked to.
    for script in scripts(&skipping) {
        let script: Vec<&str> = script.iter().map(String::as_str).collect();
        let absent = transcript(&site, 2, "absent", &script).await;
        assert_eq!(transcript(&site, 2, "listed", &script).await, absent);
        assert!(!absent.iter().any(|said| said.ends_with(b"CHAP_I")));
    }
    for target in ["listed", "absent"] {
        let mut peer = Peer::connect(site.v4()).await;
        assert_eq!(
            peer.try_login(&iqn(target), "").await.login_status(),
            0x0203
        );
    }

    let secrets = Secrets {
        chap: chap("anna", "secret of anna"),
        mutual: chap("tara", "secret of the target"),
    };
    // One that is for this initiator, but for the secret that it does not know; and one of others.
    site.add(NewVolume {
        secrets: secrets.clone(),
        ..volume("vault")
    })
    .await;
    site.add(NewVolume {
        allow: others,
        secrets,
        ..volume("safe")
    })
    .await;
    for script in scripts(&skipping) {
        let script: Vec<&str> = script.iter().map(String::as_str).collect();
        let absent = transcript(&site, 3, "absent", &script).await;
        let last = absent.last().unwrap();
        assert_eq!(last[36..38], [2, 1], "authentication failed");
        for (from, target) in [(4, "listed"), (5, "vault"), (6, "safe")] {
            let heard = transcript(&site, from, target, &script).await;
            assert!(heard == absent, "{target} {script:?}");
        }
    }
    for target in ["listed", "vault", "safe", "absent"] {
        let mut peer = Peer::connect(site.v4()).await;
        let answer = peer.try_login(&iqn(target), "").await;
        assert_eq!(answer.login_status(), 0x0201, "{target}");
    }
    site.stop().await;
}

/// A command that ends in CHECK CONDITION (status 2), and its sense key and code; nothing else in the
/// good case.
async fn sense(peer: &mut Peer, cdb: [u8; 16], data: &[u8]) -> (u8, Option<(u8, u8, u8)>) {
    let mut command = peer.scsi(cdb);
    command.write = !data.is_empty();
    command.expected_len = data.len() as u32;
    peer.send(command.emit(), data).await;
    let pdu = peer.receive().await.expect("an answer to the command");
    assert_eq!(pdu.opcode(), Opcode::ScsiResponse);
    let status = ScsiResponse::parse(&pdu.bhs).unwrap().status;
    // RFC 7143 §11.4.7.2: a length, and then the sense; fixed format (SPC-4 §4.5.3).
    let told = pdu.data.get(2..).filter(|sense| sense.len() >= 14);
    (
        status,
        told.map(|sense| (sense[2] & 0x0f, sense[12], sense[13])),
    )
}

const TEST_UNIT_READY: [u8; 16] = [0; 16];

fn persistent_reserve(service: u8, kind: u8) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1], cdb[2], cdb[8]) = (0x5f, service, kind, 24);
    cdb
}

fn keys(own: u64, new: u64, aptpl: u8) -> Vec<u8> {
    let mut list = [own.to_be_bytes(), new.to_be_bytes()].concat();
    list.extend([0, 0, 0, 0, aptpl, 0, 0, 0]);
    list
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hosts_have_reserved_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path()).await;
    site.add(volume("shared")).await;
    let mut holder = Peer::login(site.v4(), &iqn("shared"), 1).await;
    let register = persistent_reserve(0, 0);
    assert_eq!(holder.command(register, 0, &keys(0, 7, 1)).await.0, 0);
    // Write exclusive, registrants only.
    let reserve = persistent_reserve(1, 5);
    assert_eq!(holder.command(reserve, 0, &keys(7, 0, 0)).await.0, 0);
    drop(holder);
    site.stop().await;

    let site = Site::start(dir.path()).await;
    let block = [0x5a; 512];
    let mut other = Peer::login(site.v4(), &iqn("shared"), 2).await;
    let conflict = other.command(write_10(0, 1), 0, &block).await.0;
    assert_eq!(conflict, 0x18, "RESERVATION CONFLICT");
    let mut read_keys = [0; 16];
    (read_keys[0], read_keys[8]) = (0x5e, 32);
    let (status, list) = other.command(read_keys, 32, b"").await;
    assert_eq!(
        (status, &list[4..]),
        (0, &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7][..])
    );
    let mut holder = Peer::login(site.v4(), &iqn("shared"), 1).await;
    assert_eq!(holder.command(write_10(0, 1), 0, &block).await.0, 0);
    assert_eq!(
        other.command(read_10(0, 1), 512, b"").await,
        (0, block.to_vec())
    );
    site.stop().await;
}

#[test]
fn a_sanitization_that_a_restart_cuts_off_has_failed() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    };
    let mut block_erase = [0; 16];
    (block_erase[0], block_erase[1]) = (0x48, 0x80 | 0x02);
    let first = runtime();
    first.block_on(async {
        let site = Site::start(dir.path()).await;
        let new = NewVolume {
            allow_sanitize: true,
            ..volume("scratch")
        };
        site.add(new).await;
        let mut peer = Peer::login(site.v4(), &iqn("scratch"), 1).await;
        assert_eq!(sense(&mut peer, block_erase, b"").await, (0, None));
        let running = sense(&mut peer, TEST_UNIT_READY, b"").await;
        assert_eq!(running, (2, Some((2, 0x04, 0x1b))), "it takes place");
        site.stop().await;
    });
    // As a kill would: what still worked does not any more.
    first.shutdown_background();
    runtime().block_on(async {
        let site = Site::start(dir.path()).await;
        let mut peer = Peer::login(site.v4(), &iqn("scratch"), 1).await;
        // SBC-4 §4.11.5: SANITIZE COMMAND FAILED, until another one succeeds.
        for cdb in [TEST_UNIT_READY, read_10(0, 1)] {
            let failed = sense(&mut peer, cdb, b"").await;
            assert_eq!(failed, (2, Some((3, 0x31, 0x03))));
        }
        let mut exit = [0; 16];
        (exit[0], exit[1]) = (0x48, 0x1f);
        let (status, _) = sense(&mut peer, exit, b"").await;
        assert_eq!(status, 2, "AUSE was not set");
        site.stop().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_grows_is_told_of_and_is_one_disk_through_all_portals() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path()).await;
    let secrets = Secrets {
        chap: chap("anna", "secret-of-anna"),
        mutual: chap("tara", "secret-of-target"),
    };
    site.add(volume("data")).await;
    site.add(NewVolume {
        allow: Vec::new(),
        secrets,
        ..volume("vault")
    })
    .await;
    let mut peer = Peer::login(site.v4(), &iqn("data"), 1).await;
    let url = format!("iscsi://{}/{}/1", site.v4(), iqn("data"));
    let before = tools::run("iscsi-readcapacity16", &[&url]).await;
    assert!(before.contains("16383"), "{before}");
    site.library(|library, server| {
        let name = "data".parse().unwrap();
        library.resize_volume(&name, None, Some(16 << 20), server, &Actor::Server)
    })
    .await;
    let told = sense(&mut peer, TEST_UNIT_READY, b"").await;
    assert_eq!(
        told,
        (2, Some((6, 0x2a, 0x09))),
        "capacity data has changed"
    );
    assert_eq!(sense(&mut peer, TEST_UNIT_READY, b"").await, (0, None));
    let after = tools::run("iscsi-readcapacity16", &[&url]).await;
    assert!(after.contains("32767"), "{after}");

    // Through both portals it says that it is the same.
    let [v4, all] = site.portals[..] else {
        panic!("two portals");
    };
    let mut inquiry = [0; 16];
    (inquiry[0], inquiry[1], inquiry[2], inquiry[4]) = (0x12, 1, 0x83, 255);
    let other = SocketAddr::new(v4.ip(), all.port());
    let mut through = Peer::login(other, &iqn("data"), 2).await;
    let identity = peer.command(inquiry, 255, b"").await;
    assert_eq!(identity, through.command(inquiry, 255, b"").await);

    // All portals are told of, and what is for those who prove a secret is shown to them.
    let list = tools::run("iscsi-ls", &[&format!("iscsi://{v4}")]).await;
    for portal in [v4, other] {
        assert!(list.contains(&format!("Portal:{portal},1")), "{list}");
    }
    assert!(
        list.contains(&iqn("data")) && !list.contains("vault"),
        "{list}"
    );
    let list = tools::run("iscsi-ls", &[&format!("iscsi://anna%secret-of-anna@{v4}")]).await;
    assert!(
        list.contains(&iqn("data")) && list.contains(&iqn("vault")),
        "{list}"
    );
    tools::fails("iscsi-ls", &[&format!("iscsi://anna%another-secret@{v4}")]).await;
    let list = tools::run("iscsi-ls", &[&format!("iscsi://[::1]:{}", all.port())]).await;
    assert!(
        list.contains(&format!("Portal:[::1]:{},1", all.port())),
        "{list}"
    );

    // Each side proves itself to the other.
    let vault = format!("iscsi://anna%secret-of-anna@{v4}/{}/1", iqn("vault"));
    let mutual = format!("{vault}?target_user=tara&target_password=secret-of-target");
    tools::run("iscsi-readcapacity16", &[&mutual]).await;
    let wrong = format!("{vault}?target_user=tara&target_password=another-secret");
    tools::fails("iscsi-readcapacity16", &[&wrong]).await;
    site.stop().await;
}

/// 64 KiB, which is what may come with a command.
const PIECE: usize = 64 * 1024;
const BLOCKS: u16 = (PIECE / 512) as u16;

#[test]
fn a_full_file_system_is_told_and_the_initiator_goes_on_when_there_is_room() {
    for kind in ["ext4", "xfs"] {
        let dir = tempfile::tempdir().unwrap();
        let (image, place) = (dir.path().join("image"), dir.path().join("place"));
        std::fs::create_dir(&place).unwrap();
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(400 << 20).unwrap();
        let make = Program::new(format!("mkfs.{kind}"));
        make.arg("-q").arg(&image).run().unwrap();
        in_private_mounts(|mounts| {
            let mount = mounts.image(&image, kind, &[], &place, &Cancel::new());
            let mount = mount.unwrap();
            // Its threads begin in here, and see the mount.
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(until_it_is_full(dir.path(), &place));
            drop(runtime);
            mount.unmount().unwrap();
        })
        .expect("these tests make mounts: run them as root");
    }
}

async fn until_it_is_full(dir: &Path, place: &Path) {
    let site = Site::start(dir).await;
    site.add(NewVolume {
        kept: Kept::File(place.join("thin")),
        size: Some(1 << 30),
        ..volume("thin")
    })
    .await;
    site.add(volume("roomy")).await;
    // What is left is soon used up. Root may have what is reserved for it, too.
    let ballast = place.join("ballast");
    let free = nix::sys::statvfs::statvfs(place).unwrap();
    let free = free.blocks_free() as u64 * free.fragment_size() as u64;
    let file = std::fs::File::create(&ballast).unwrap();
    let len = i64::try_from(free - (12 << 20)).unwrap();
    nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, len).unwrap();
    drop(file);

    let mut peer = Peer::login(site.v4(), &iqn("thin"), 1).await;
    let mut other = Peer::login(site.v4(), &iqn("roomy"), 2).await;
    let piece = |i: usize| vec![(i % 251) as u8 + 1; PIECE];
    let at = |i: usize| i as u32 * u32::from(BLOCKS);
    let mut written = 0;
    let full = loop {
        let told = sense(&mut peer, write_10(at(written), BLOCKS), &piece(written)).await;
        if told.0 != 0 {
            break told;
        }
        written += 1;
        assert!(written < 1000, "there is no room for so much");
    };
    // SBC-3 §4.7.3.6: SPACE ALLOCATION FAILED WRITE PROTECT, with DATA PROTECT.
    assert_eq!(full, (2, Some((7, 0x27, 0x07))));
    assert!(written > 0);
    assert_eq!(other.command(write_10(0, BLOCKS), 0, &piece(0)).await.0, 0);
    let first = peer.command(read_10(0, BLOCKS), PIECE as u32, b"").await;
    assert!(first == (0, piece(0)), "what was acknowledged is there");

    std::fs::remove_file(&ballast).unwrap();
    for i in written..written + 4 {
        let told = sense(&mut peer, write_10(at(i), BLOCKS), &piece(i)).await;
        assert_eq!(told, (0, None), "there is room again");
    }
    let mut synchronize = [0; 16];
    synchronize[0] = 0x35;
    assert_eq!(sense(&mut peer, synchronize, b"").await, (0, None));
    for i in 0..written + 4 {
        let read = peer
            .command(read_10(at(i), BLOCKS), PIECE as u32, b"")
            .await;
        assert!(read == (0, piece(i)), "piece {i} of {written} and 4");
    }
    drop((peer, other));
    site.stop().await;
    std::fs::remove_file(place.join("thin")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_shrinks_or_vanishes_is_told_and_harms_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path()).await;
    let path = dir.path().join("disk");
    site.add(NewVolume {
        kept: Kept::File(path.clone()),
        ..volume("disk")
    })
    .await;
    let mut peer = Peer::login(site.v4(), &iqn("disk"), 1).await;
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(4096).unwrap();
    // MEDIUM ERROR, UNRECOVERED READ ERROR: what is gone is not zeros.
    let mut command = peer.scsi(read_10(64, 8));
    (command.read, command.expected_len) = (true, 4096);
    peer.send(command.emit(), b"").await;
    let answer = peer.receive().await.unwrap();
    assert_eq!(answer.opcode(), Opcode::ScsiResponse);
    assert_eq!(answer.data[4] & 0x0f, 3);
    assert_eq!(answer.data[14..16], [0x11, 0]);
    assert_eq!(peer.command(read_10(0, 8), 4096, b"").await.0, 0);
    drop(peer);
    site.stop().await;

    std::fs::remove_file(&path).unwrap();
    let site = Site::start(dir.path()).await;
    site.add(volume("other")).await;
    let mut peer = Peer::connect(site.v4()).await;
    let gone = peer.try_login(&iqn("disk"), "").await;
    assert_eq!(gone.login_status(), 0x0301, "service unavailable");
    Peer::login(site.v4(), &iqn("other"), 1).await;
    // It is back, and nobody has to tell the server.
    std::fs::write(&path, vec![7; 8 << 20]).unwrap();
    let mut peer = Peer::login(site.v4(), &iqn("disk"), 1).await;
    assert_eq!(
        peer.command(read_10(0, 1), 512, b"").await,
        (0, vec![7; 512])
    );
    site.stop().await;
}

/// A loop device, gone when it is dropped.
struct Loop(String);

impl Loop {
    fn new(file: &Path, sector: u32) -> Self {
        let sector = sector.to_string();
        let args = ["--find", "--show", "--sector-size", &sector];
        let made = Program::new("losetup").args(args).arg(file).run().unwrap();
        Loop(made.text().trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let gone = Program::new("losetup").args(["--detach", &self.0]).run();
        if let Err(error) = gone {
            eprintln!("{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn block_devices_are_told_of_truly_claimed_unmapped_and_seen_to_grow() {
    for (sector, direct) in [(512, false), (512, true), (4096, true)] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("backing");
        std::fs::write(&file, vec![9; 16 << 20]).unwrap();
        let device = Loop::new(&file, sector);
        let site = Site::start(dir.path()).await;
        site.add(NewVolume {
            kept: Kept::Device(device.0.clone().into()),
            size: None,
            block_size: sector,
            direct,
            ..volume("device")
        })
        .await;
        let claimed = std::os::unix::fs::OpenOptionsExt::custom_flags(
            std::fs::OpenOptions::new().read(true),
            libc::O_EXCL,
        )
        .open(&device.0);
        assert!(claimed.is_err(), "nobody mounts it meanwhile");

        let mut peer = Peer::login(site.v4(), &iqn("device"), 1).await;
        let mut capacity = [0; 16];
        (capacity[0], capacity[1], capacity[13]) = (0x9e, 0x10, 32);
        let (status, told) = peer.command(capacity, 32, b"").await;
        let last = (16 << 20) / u64::from(sector) - 1;
        assert_eq!((status, &told[..8]), (0, &last.to_be_bytes()[..]));
        assert_eq!(told[8..12], sector.to_be_bytes());
        assert_eq!(told[14] & 0xc0, 0xc0, "LBPME and LBPRZ");
        let block = vec![3; 4096];
        let blocks = (4096 / sector) as u16;
        assert_eq!(peer.command(write_10(0, blocks), 0, &block).await.0, 0);
        assert_eq!(
            peer.command(read_10(0, blocks), 4096, b"").await,
            (0, block)
        );

        // UNMAP of the second half: the file gives its space back, and it reads as zeros.
        let taken =
            |file: &Path| std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(file).unwrap());
        let before = taken(&file);
        let half = (8 << 20) / sector;
        let mut unmap = [0; 16];
        (unmap[0], unmap[8]) = (0x42, 24);
        let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
        list.extend(u64::from(half).to_be_bytes());
        list.extend(half.to_be_bytes());
        list.extend([0; 4]);
        assert_eq!(sense(&mut peer, unmap, &list).await, (0, None));
        let (status, zeros) = peer.command(read_10(half, blocks), 4096, b"").await;
        assert!(status == 0 && zeros.iter().all(|byte| *byte == 0));
        let after = taken(&file);
        assert!(after + (6 << 11) < before, "{before} {after}");

        // The device grows, and initiators hear of it.
        std::fs::OpenOptions::new()
            .write(true)
            .open(&file)
            .unwrap()
            .set_len(32 << 20)
            .unwrap();
        let grown = Program::new("losetup")
            .args(["--set-capacity", &device.0])
            .run();
        grown.unwrap();
        site.library(|library, server| {
            let name = "device".parse().unwrap();
            library.resize_volume(&name, None, None, server, &Actor::Server)
        })
        .await;
        let told = sense(&mut peer, TEST_UNIT_READY, b"").await;
        assert_eq!(told, (2, Some((6, 0x2a, 0x09))));
        let (_, told) = peer.command(capacity, 32, b"").await;
        let last = (32 << 20) / u64::from(sector) - 1;
        assert_eq!(told[..8], last.to_be_bytes());
        drop(peer);
        site.stop().await;
    }
}
