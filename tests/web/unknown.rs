//! Machines that nobody knows: what they get, and what is remembered of them.

use netroot::library::{Library, Mode};
use serde_json::Value;

use crate::site::{Script, Server, Site, encoded, mac};

fn site(policy: &str) -> Site {
    let site = Site::new();
    site.seal("fc28");
    site.add(1, "lab-1", Mode::Shared, &[]);
    site.say_of_boots("unknown", &format!("unknown = {policy}"));
    site
}

fn strangers(server: &Server) -> Value {
    serde_json::from_str(&server.get("/api/v1/strangers").text).unwrap()
}

#[test]
fn by_default_it_is_told_how_it_is_made_known_and_goes_on_to_its_own_disk() {
    let site = Site::new();
    let server = site.serve();
    let answer = server.ask_boot(&format!("/boot.cfg?mac={}", mac(9)));
    assert_eq!(answer.status, 200);
    let script = answer.text;
    assert!(
        script.contains("netroot client add 52:54:00:00:00:09 --image IMAGE"),
        "{script}"
    );
    assert!(
        script.contains("\nchoose --default local --timeout 30000 chosen ")
            && script.ends_with(":local\nexit\n"),
        "{script}"
    );
    for service in ["kernel", "initrd", "sanboot", "shell"] {
        let starts = |line: &str| line.starts_with(service);
        assert!(!script.lines().any(starts), "{script}");
    }
}

#[test]
fn it_may_go_on_at_once_or_get_nothing() {
    let local = site("\"local\"");
    let server = local.serve();
    let script = server.ask_boot(&format!("/boot.cfg?mac={}", mac(9))).text;
    assert!(script.starts_with("#!ipxe\n") && script.ends_with("\nexit\n"));
    assert_eq!(
        script.lines().filter(|line| !line.starts_with('#')).count(),
        1
    );
    let refusing = site("\"refuse\"");
    let server = refusing.serve();
    let answer = server.ask_boot(&format!("/boot.cfg?mac={}", mac(9)));
    assert_eq!(answer.status, 404);
    assert!(
        answer.text.contains("there is no client"),
        "{}",
        answer.text
    );
    assert_eq!(strangers(&server)[0]["mac"], mac(9).to_string());
}

#[test]
fn it_may_boot_an_image_that_it_cannot_write_to() {
    let site = site("{ image = \"fc28\" }");
    let server = site.serve();
    let cfg = server.boot_cfg(&mac(9));
    assert!(cfg.contains(" systemd.volatile=overlay"), "{cfg}");
    let script = Script::of(&cfg);
    assert_eq!(
        script.initiator,
        "iqn.2026-01.edu.example.server-01:unknown-525400000009"
    );
    assert!(script.target.ends_with(":fc28.1"), "{}", script.target);
    let mut peer = site.log_in(&server, &script.initiator, &script.target);
    site.reads(&mut peer);
    // A second machine gets a name of its own, and keeps nobody out.
    let mut other = site.boot(&server, &mac(8));
    site.reads(&mut other);
    site.reads(&mut peer);
}

#[test]
fn an_image_that_is_not_there_is_told() {
    let site = site("{ image = \"fc99\" }");
    let server = site.serve();
    let script = server.boot_cfg(&mac(9));
    assert!(
        script.starts_with("#!ipxe\necho netroot: there is no image `fc99`"),
        "{script}"
    );
}

#[test]
fn what_it_tells_of_itself_is_kept_over_a_restart_until_somebody_adopts_it() {
    let site = site("\"menu\"");
    let mut server = site.serve();
    let path = format!(
        "/boot.cfg?mac={}&uuid=a-b&serial={}&asset=&platform=efi&arch=x86_64",
        mac(9),
        encoded("4711 <b>\u{1b}[2J\u{202e}\n${uuid}"),
    );
    let script = server.ask_boot(&path).text;
    assert!(!script.contains("4711"), "{script}");
    let page = server.page("/");
    assert!(
        page.contains("4711 &#60;b&#62;") && !page.contains('\u{1b}'),
        "{page}"
    );
    server.stop();
    // Also without a server.
    let library = Library::open(site.lib.root(), None).unwrap();
    let known = library.strangers(jiff::Timestamp::now());
    assert_eq!(known.len(), 1);
    let server = site.serve();
    let known = &strangers(&server)[0];
    let hardware = &known["hardware"];
    assert_eq!(known["mac"], mac(9).to_string());
    assert_eq!(hardware["uuid"], "a-b");
    assert_eq!(
        hardware["serial"],
        "4711 <b>\u{fffd}[2J\u{fffd}\u{fffd}${uuid}"
    );
    assert_eq!(hardware["asset"], Value::Null);
    assert_eq!(
        (&hardware["platform"], &hardware["arch"]),
        (&"efi".into(), &"x86_64".into())
    );
    let adopt = [
        ("mac", mac(9).to_string()),
        ("image", "fc28".to_owned()),
        ("mode", "shared".to_owned()),
    ];
    let page = server.post_and_look("/clients/new", &adopt);
    assert!(page.contains("Added client-525400000009"), "{page}");
    assert_eq!(strangers(&server).as_array().unwrap().len(), 0);
    assert!(server.boot_cfg(&mac(9)).contains("netroot=iscsi:"));
}

#[test]
fn a_flood_of_them_fills_neither_memory_nor_disk() {
    let site = site("\"menu\"");
    let mut server = site.serve();
    for last in 10..110 {
        let long = "x".repeat(4000);
        let path = format!("/boot.cfg?mac={}&serial={long}", mac(last));
        assert_eq!(server.ask_boot(&path).status, 200);
    }
    let known = strangers(&server);
    assert_eq!(
        known.as_array().unwrap().len(),
        8,
        "they are all at one address"
    );
    server.stop();
    let dir = site.lib.root().join("strangers");
    let files: Vec<_> = std::fs::read_dir(dir).unwrap().collect();
    assert_eq!(files.len(), 1);
    let size = files[0].as_ref().unwrap().metadata().unwrap().len();
    assert!(size < 8 << 10, "{size}");
}

#[test]
fn what_cannot_be_an_address_is_refused() {
    let site = site("\"menu\"");
    let server = site.serve();
    for query in [
        "",
        "mac=",
        "mac=ff:ff:ff:ff:ff:ff",
        "mac=${net0/mac}",
        "uuid=x",
    ] {
        assert_eq!(
            server.ask_boot(&format!("/boot.cfg?{query}")).status,
            400,
            "{query}"
        );
    }
    assert_eq!(strangers(&server).as_array().unwrap().len(), 0);
}
