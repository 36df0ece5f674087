//! Volumes of a library, as initiators meet them: who sees what, what outlives a restart, what happens
//! when there is no room.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use netroot::daemon::{Doors, Server, Targets};
use netroot::iscsi::wire::Stage;
use netroot::iscsi::{ServerConfig, serve};
use netroot::library::{Actor, Chap, InitOptions, Kept, Library, NewVolume, Paths, Secrets};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::peer::{Pdu, Peer};

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
        let doors = Doors::configured(library.config());
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
