//! What those must not see who may only look: boot ids, which let their holder in to a client's disk.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use netroot::library::{
    Actor, Ending, Event, Library, Mode, NewClient, NoServer, Role, Task, VerifyTask,
    mask_boot_ids, this_worker,
};
use serde_json::Value;

use crate::network::{Server, Site};
use crate::peer::Peer;
use crate::routes::{filled, routes};
use crate::site::{Script, boot_cfg, mac, seal};

/// A room whose one client has booted twice and runs. Its ids are in its document, its sessions, events,
/// and in the log and the report of a job.
struct Room {
    site: Site,
    server: Server,
    _running: Vec<Peer>,
    /// What proves each of the boots.
    codes: [String; 2],
}

impl Room {
    fn new() -> Self {
        let site = Site::new("");
        site.users(&[("admin", Role::Operator), ("alice", Role::Viewer)]);
        let library = Library::open(&site.library(), None).unwrap();
        let version = seal(&library, "fc28");
        let new = NewClient {
            mac: mac(1),
            name: Some("lab-1".parse().unwrap()),
            image: "fc28".parse().unwrap(),
            mode: Mode::Persistent,
            args: Vec::new(),
            groups: ["lab".parse().unwrap()].into(),
            settings: Default::default(),
        };
        let live = NoServer::new(library.live_lock().unwrap());
        library.add_client(&new, &live, &Actor::command()).unwrap();
        drop(live);
        let server = site.serve();
        let iscsi: SocketAddr = server.iscsi.parse().unwrap();
        let script = || Script::of(&boot_cfg(&server.boot, &mac(1)));
        let scripts = [script(), script()];
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let [old, new] = &scripts;
        let running = runtime.block_on(async {
            drop(old.log_in(iscsi).await);
            let disk = new.log_in(iscsi).await;
            // The same machine reads a version by its alias, too.
            let alias = old.initiator.replace("client-", "spare-");
            let mut reader = Peer::connect(iscsi).await;
            let target = new.target.replace("client-525400000001", "fc28");
            let answer = reader.try_login_as(&alias, &target, "").await;
            assert_eq!(answer.login_status(), 0, "{}", answer.text());
            // And is refused by its older boot.
            let mut late = Peer::connect(iscsi).await;
            let refused = late.try_login_as(&old.initiator, &old.target, "").await;
            assert_eq!(refused.login_status(), 0x0202);
            vec![disk, reader]
        });
        let [old, new] = scripts.map(|script| script.initiator);
        let task = Task::Verify(VerifyTask { version });
        library.queue_job(task, &Actor::command()).unwrap();
        let job = library.claim_job(&this_worker()).unwrap().unwrap();
        job.log_line(&format!("booted as {old}"));
        let report = format!("{{\"changed\":[\"{new}\"]}}");
        let report = job.keep_report(report.as_bytes()).unwrap();
        job.finish(Ending::Done(report)).unwrap();
        let event = Event::new(&Actor::command(), "told").with("why", format!("{new} was seen"));
        library.record(&event).unwrap();
        let code = |name: String| name[name.len() - 16..].to_owned();
        Room {
            site,
            server,
            _running: running,
            codes: [code(old), code(new)],
        }
    }

    /// Everything that can be looked at, and what it is asked with.
    fn paths(&self, head: (&str, &str)) -> Vec<String> {
        let document = self.server.get("/api/v1/openapi.json", &[head]);
        let names = [
            ("mac", "52:54:00:00:00:01"),
            ("client", "52:54:00:00:00:01"),
            ("image", "fc28"),
            ("number", "1"),
            ("version", "fc28@1"),
            ("id", "1"),
        ];
        let found = routes(&serde_json::from_str(&document.text).unwrap());
        let mut paths: Vec<String> = found.iter().map(|path| filled(path, &names)).collect();
        paths.extend(["/?q=lab", "/events?what=login", "/api/v1/clients/@lab"].map(str::to_owned));
        paths.retain(|path| path != "/stream");
        paths
    }

    fn ensure_masked(&self, what: &str, text: &str) {
        for code in &self.codes {
            assert!(!text.contains(code), "{what}: {text}");
        }
        // Those of scripts that were made for the answer are nobody's business, either.
        assert_eq!(mask_boot_ids(text), text, "{what}");
    }
}

#[test]
fn whoever_may_only_look_is_let_in_as_no_boot() {
    let room = Room::new();
    let server = &room.server;
    let alice = server.log_in("alice");
    let made = room
        .site
        .json(&["token", "add", "looker", "--role", "viewer"]);
    let bearer = format!("Bearer {}", made["secret"].as_str().unwrap());
    for head in [alice.cookie(), ("Authorization", bearer.as_str())] {
        let paths = room.paths(head);
        assert!(paths.len() > 40, "{paths:?}");
        let mut seen = 0;
        for path in &paths {
            let answer = server.get(path, &[head]);
            room.ensure_masked(path, &format!("{answer:?}"));
            seen += usize::from(answer.status == 200);
        }
        assert!(seen > 30, "most of it can be looked at: {seen}");
        for topic in [
            "room",
            "live",
            "jobs",
            "job:1",
            "images",
            "image:fc28",
            "events",
            "client:52:54:00:00:00:01",
        ] {
            let heard = watched(server, topic, head);
            assert!(heard.contains("event: patch"), "{topic}: {heard}");
            room.ensure_masked(topic, &heard);
        }
    }
}

#[test]
fn what_is_masked_can_still_be_told_apart_and_operators_see_all_of_it() {
    let room = Room::new();
    let server = &room.server;
    let (alice, admin) = (server.log_in("alice"), server.log_in("admin"));
    let boot_of = |text: &str| -> String {
        let clients: Value = serde_json::from_str(text).unwrap();
        clients[0]["boot"]["id"].as_str().unwrap().to_owned()
    };
    let whole = boot_of(&server.get("/api/v1/clients", &[admin.cookie()]).text);
    assert!(whole.ends_with(&room.codes[1]), "{whole}");
    let shown = boot_of(&server.get("/api/v1/clients", &[alice.cookie()]).text);
    assert_eq!(shown, mask_boot_ids(&whole));
    assert_ne!(shown, whole);
    // The command line stands behind the control socket.
    let listed = room.site.json(&["client", "list"]);
    assert_eq!(listed[0]["boot"]["id"], whole.as_str());
    let cfg = "/api/v1/clients/52:54:00:00:00:01/boot.cfg";
    let (shown, whole) = (
        server.get(cfg, &[alice.cookie()]),
        server.get(cfg, &[admin.cookie()]),
    );
    assert!(shown.text.contains("-1-\u{2026}"), "{shown:?}");
    assert_ne!(mask_boot_ids(&whole.text), whole.text);
    // Whoever asks for the head is told the length of what there is to be seen.
    let head = server.ask("HEAD", cfg, &[alice.cookie()], "");
    assert_eq!(head.is("content-length"), shown.is("content-length"));
    assert_eq!(shown.is("content-length"), shown.text.len().to_string());
    // What is the same is so for both.
    let tag = |head| {
        let answer = server.get("/api/v1/clients/lab-1", &[head]);
        answer.is("etag").to_owned()
    };
    assert_eq!(tag(alice.cookie()), tag(admin.cookie()));
}

/// What is heard of a topic in its first second.
fn watched(server: &Server, topic: &str, head: (&str, &str)) -> String {
    let mut stream = TcpStream::connect(&server.admin).unwrap();
    let mut request = format!("GET /stream?topic={topic}&since=0 HTTP/1.1\r\n");
    write!(
        request,
        "Host: {}\r\n{}: {}\r\n\r\n",
        server.admin, head.0, head.1
    )
    .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let begin = Instant::now();
    let (mut heard, mut bytes) = (Vec::new(), vec![0; 64 << 10]);
    while begin.elapsed() < Duration::from_secs(1) {
        match stream.read(&mut bytes) {
            Ok(len) => heard.extend_from_slice(&bytes[..len]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
    String::from_utf8_lossy(&heard).into_owned()
}
