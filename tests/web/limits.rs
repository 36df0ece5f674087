//! What one may take of the server, so that others have enough of it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use netroot::library::{Actor, Ending, Library, Role, Task, VerifyTask};
use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::network::{LoggedIn, Server, Site, exchange};

fn library(site: &Site) -> Library {
    Library::open(&site.library(), None).unwrap()
}

/// So many events, each of which an export has to read.
fn events(site: &Site, count: usize) {
    let line =
        json!({ "at": "2026-01-02T03:04:05Z", "by": "server", "what": "made-up", "to": "x" });
    let lines = format!("{line}\n").repeat(count);
    fs::write(site.library().join("events/2026-01-02-old.jsonl"), lines).unwrap();
}

/// A job with a report of so many files.
fn report(site: &Site, files: usize) -> String {
    // A temporary directory could not be removed.
    let own = site.library().join("netroot.toml");
    let text = fs::read_to_string(&own).unwrap();
    fs::write(&own, text.replace("immutable = true", "immutable = false")).unwrap();
    let library = library(site);
    let mut draft = library.draft(&"fc28".parse().unwrap()).unwrap();
    draft.create_sparse(1 << 20).unwrap();
    draft.add_kernel(&mut &b"a kernel"[..]).unwrap();
    draft.add_initramfs(&mut &b"an initramfs"[..]).unwrap();
    let sealed = draft
        .seal(Default::default(), &netroot::library::Quiet)
        .unwrap();
    let version = sealed.id().clone();
    let task = Task::Verify(VerifyTask { version });
    let id = library.queue_job(task, &Actor::command()).unwrap().id;
    let one =
        json!({ "path": "usr/share/doc/some/long/path/of/a/file", "kind": "file", "size": 1 });
    let many = vec![one.to_string(); files].join(",");
    let json = format!(
        r#"{{ "packages": null, "files": {{ "added": [{many}], "removed": [], "changed": [] }} }}"#
    );
    let claim = library.claim_job("w").unwrap().unwrap();
    let kept = claim.keep_report(json.as_bytes()).unwrap();
    claim.finish(Ending::Done(kept)).unwrap();
    id.to_string()
}

/// A request whose body has not come yet, and the rest of it.
fn parked(server: &Server, who: &LoggedIn, path: &str, body: &str) -> (TcpStream, String) {
    let (first, rest) = body.split_at(1);
    let stream = server.begin(&format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\nX-CSRF-Token: {}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{first}",
        server.admin,
        who.cookie,
        who.csrf,
        body.len()
    ));
    (stream, rest.to_owned())
}

fn finished((mut stream, rest): (TcpStream, String)) -> String {
    stream.write_all(rest.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn what_was_begun_before_a_removal_is_not_done_after_it() {
    let site = Site::new("");
    site.users(&[("admin", Role::Operator), ("evil", Role::Operator)]);
    let server = site.serve();
    let evil = server.log_in("evil");
    let user = r#"{ "name": "backdoor", "role": "operator" }"#;
    let token = r#"{ "name": "backtoken", "role": "operator", "expires": "never" }"#;
    let waiting = [("/api/v1/users", user), ("/api/v1/tokens", token)]
        .map(|(path, body)| parked(&server, &evil, path, body));
    // The heads are heard and judged before the removal.
    std::thread::sleep(Duration::from_millis(500));
    site.ok(&["user", "remove", "evil", "--yes"]);
    for request in waiting {
        let answer = finished(request);
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
    let names: Vec<_> = library(&site).users().unwrap();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(library(&site).tokens().unwrap().is_empty());
}

#[test]
fn who_is_a_viewer_when_the_body_comes_changes_nothing() {
    let site = Site::new("");
    site.users(&[("admin", Role::Operator), ("alice", Role::Operator)]);
    let server = site.serve();
    let alice = server.log_in("alice");
    let user = r#"{ "name": "friend", "role": "viewer" }"#;
    let waiting = parked(&server, &alice, "/api/v1/users", user);
    std::thread::sleep(Duration::from_millis(500));
    site.ok(&["user", "role", "alice", "viewer"]);
    let answer = finished(waiting);
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[test]
fn passwords_are_hashed_a_few_at_a_time_whoever_hangs_up() {
    let site = Site::new("");
    site.users(&[("admin", Role::Operator)]);
    let server = site.serve();
    for n in 0..24 {
        let body = format!("name=u{n}&password=wrong+password+x");
        let stream = server.begin(&format!(
            "POST /login HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{body}",
            server.admin,
            body.len()
        ));
        // Long enough for the work to begin.
        std::thread::sleep(Duration::from_millis(5));
        drop(stream);
    }
    // Two at a time have 92 MiB; all at once more than a thousand.
    std::thread::sleep(Duration::from_secs(2));
    let most = server.process("VmHWM") >> 10;
    assert!(most < 300, "{most} MiB");
}

#[test]
fn a_long_report_takes_no_memory_however_it_is_read() {
    let site = Site::new("");
    site.users(&[("alice", Role::Viewer), ("admin", Role::Operator)]);
    let id = report(&site, 200_000);
    let server = site.serve();
    let alice = server.log_in("alice");
    let before = server.process("VmHWM") >> 10;
    let admin = server.log_in("admin");
    let whole = server.get(&format!("/api/v1/jobs/{id}/report"), &[admin.cookie()]);
    assert_eq!(
        (whole.status, whole.is("content-type")),
        (200, "application/json")
    );
    let read: serde_json::Value = serde_json::from_str(&whole.text).unwrap();
    assert_eq!(read["files"]["added"].as_array().unwrap().len(), 200_000);
    let bytes = whole.text.len() >> 20;
    assert!(bytes >= 10, "{bytes} MiB");
    let unread: Vec<_> = (0..20)
        .map(|_| {
            let path = format!("/api/v1/jobs/{id}/report");
            let (host, cookie) = (&server.admin, &alice.cookie);
            server.begin(&format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n"
            ))
        })
        .collect();
    let page = server.get(&format!("/jobs/{id}"), &[alice.cookie()]);
    assert!(
        page.text.contains("<b>200000</b> files added"),
        "{}",
        page.status
    );
    assert!(page.text.contains("And 198000 more"), "it is cut");
    let after = server.process("VmHWM") >> 10;
    assert!(after < before + 40, "from {before} to {after} MiB");
    drop(unread);
}

#[test]
fn who_opens_every_connection_keeps_no_other_out() {
    netroot::exec::allow_many_files();
    let site = Site::new("");
    let server = site.serve();
    for door in [&server.boot, &server.admin] {
        let crowd: Vec<_> = (0..1100)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                let from: std::net::SocketAddr = "127.0.0.2:0".parse().unwrap();
                socket.bind(&from.into()).unwrap();
                let to: std::net::SocketAddr = door.parse().unwrap();
                socket.connect(&to.into()).unwrap();
                let mut stream = TcpStream::from(socket);
                // One that was closed for another may be gone already.
                let _ = stream.write_all(b"GET /boot.ipxe HTTP/1.1\r\nHost: x\r\n");
                stream
            })
            .collect();
        let begin = Instant::now();
        let mut honest = TcpStream::connect(door).unwrap();
        let path = if door == &server.boot {
            "/boot.ipxe"
        } else {
            "/healthz"
        };
        let answer = exchange(&mut honest, door, "GET", path, &[], "");
        assert_eq!(answer.status, 200);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}");
        drop(crowd);
    }
}

#[test]
fn heads_are_short() {
    let site = Site::new("");
    let server = site.serve();
    let filler = "x".repeat(20 << 10);
    assert_eq!(server.get("/healthz", &[("X-Filler", &filler)]).status, 431);
    let many: Vec<_> = (0..80).map(|n| format!("X-{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "x")).collect();
    assert_eq!(server.get("/healthz", &many).status, 431);
    let long = [("X-Filler", filler.get(..8 << 10).unwrap())];
    assert_eq!(server.get("/healthz", &long).status, 200);
}

#[test]
fn who_looks_for_events_keeps_no_machine_from_booting() {
    let site = Site::new("");
    site.users(&[("alice", Role::Viewer)]);
    events(&site, 400_000);
    let server = site.serve();
    let alice = server.log_in("alice");
    std::thread::scope(|scope| {
        let searches: Vec<_> = (0..24)
            .map(|_| {
                scope.spawn(|| {
                    let begin = Instant::now();
                    let found = server.get("/api/v1/events?q=nowhere", &[alice.cookie()]);
                    (found, begin.elapsed())
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(500));
        let begin = Instant::now();
        let mut stream = TcpStream::connect(&server.boot).unwrap();
        let path = "/boot.cfg?mac=525400000001";
        let cfg = exchange(&mut stream, &server.boot, "GET", path, &[], "");
        assert_eq!(cfg.status, 200, "{}", cfg.text);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
        let mut refused = 0;
        for search in searches {
            let (found, took) = search.join().unwrap();
            assert!(took < Duration::from_secs(15), "{took:?}");
            refused += usize::from(found.status == 503);
            if found.status == 200 {
                let found: serde_json::Value = serde_json::from_str(&found.text).unwrap();
                assert!(found["next"].is_string(), "there is more: {found}");
            }
        }
        assert!((12..24).contains(&refused), "{refused} of 24");
    });
}

#[test]
fn an_export_ends_with_the_login() {
    let site = Site::new("");
    site.users(&[("alice", Role::Viewer)]);
    events(&site, 400_000);
    let server = site.serve();
    let alice = server.log_in("alice");
    let mut export = server.begin(&format!(
        "GET /api/v1/events.jsonl HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\nConnection: close\r\n\r\n",
        server.admin, alice.cookie
    ));
    let mut bytes = vec![0; 4096];
    export.read_exact(&mut bytes).unwrap();
    assert!(bytes.starts_with(b"HTTP/1.1 200"));
    let out = server.post("/logout", &[alice.cookie()], &alice.form(""));
    assert_eq!(out.status, 303);
    std::thread::sleep(Duration::from_secs(4));
    let mut rest = Vec::new();
    // It may be cut off by a reset.
    let _ = export.read_to_end(&mut rest);
    assert!(rest.len() < 20 << 20, "all of it came: {}", rest.len());
    assert!(!rest.ends_with(b"\r\n0\r\n\r\n"), "it looks whole");
}

#[test]
fn a_viewer_with_many_pages_keeps_no_page_of_others_from_being_kept_up_to_date() {
    let site = Site::new("");
    site.users(&[("alice", Role::Viewer), ("admin", Role::Operator)]);
    let server = site.serve();
    let watch = |who: &LoggedIn| {
        let mut stream = server.begin(&format!(
            "GET /stream?topic=room HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\n\r\n",
            server.admin, who.cookie
        ));
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        (String::from_utf8_lossy(&status).into_owned(), stream)
    };
    let alice = server.log_in("alice");
    let streams: Vec<_> = (0..20).map(|_| watch(&alice)).collect();
    let open = streams
        .iter()
        .filter(|(status, _)| status == "HTTP/1.1 200");
    assert_eq!(open.count(), 16);
    assert_eq!(streams[19].0, "HTTP/1.1 503");
    let admin = server.log_in("admin");
    assert_eq!(watch(&admin).0, "HTTP/1.1 200");
    drop(streams);
    let begin = Instant::now();
    while watch(&alice).0 != "HTTP/1.1 200" {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "no place came back"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_library_is_the_servers_until_nothing_of_it_works_any_more() {
    let site = Site::new("");
    site.users(&[("alice", Role::Viewer)]);
    // Opening it never returns: work that cannot be called back.
    let stuck = site.library().join("events/2026-01-01-x.jsonl");
    nix::unistd::mkfifo(&stuck, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut server = site.serve();
    let alice = server.log_in("alice");
    let _asks = server.begin(&format!(
        "GET /api/v1/events HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\n\r\n",
        server.admin, alice.cookie
    ));
    std::thread::sleep(Duration::from_millis(500));
    server.terminate();
    let begin = Instant::now();
    let library = library(&site);
    while !server.is_over() {
        let locked = library.live_lock();
        // Between the two looks it may have ended.
        assert!(
            locked.is_err() || server.is_over(),
            "two act on one library"
        );
        assert!(begin.elapsed() < Duration::from_secs(30), "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(
        begin.elapsed() > Duration::from_secs(1),
        "nothing was stuck"
    );
    library.live_lock().unwrap();
}

#[test]
fn everybody_may_ask_whether_the_server_is_ready_and_it_looks_once_a_second() {
    let site = Site::new("");
    let server = site.serve();
    assert_eq!(server.get("/readyz", &[]).status, 200);
    let begin = Instant::now();
    fs::write(site.library().join("clients/525400000001.json"), "nonsense").unwrap();
    let again = server.get("/readyz", &[]).status;
    if begin.elapsed() < Duration::from_millis(800) {
        assert_eq!(again, 200, "it was looked at a moment ago");
    }
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(server.get("/readyz", &[]).status, 503);
}
