//! Clients that boot from their own disk: what they are told, and what they tell.

use netroot::library::{Actor, Edit, MacAddr, Mode, NoServer};

use super::site::{Server, Site};

/// What the boot service answers: status and text.
fn asked(server: &Server, path: &str) -> (u16, String) {
    let answer = server.ask_boot(path);
    (answer.status, answer.text)
}

/// Where the latest boot of a client takes its kernel from.
fn kernel(server: &Server, mac: &MacAddr) -> String {
    let boots = server.get(&format!("/api/v1/clients/{mac}/boots")).text;
    let boots: serde_json::Value = serde_json::from_str(&boots).unwrap();
    boots[0]["kernel"].as_str().unwrap().to_owned()
}

fn stamp(site: &Site, image: &str) -> String {
    let version = site.lib.resolve(&image.parse().unwrap()).unwrap();
    version.manifest().boot.stamp().unwrap().to_string()
}

#[test]
fn a_client_with_the_right_files_is_told_to_take_them_and_others_are_told_of() {
    let site = Site::new();
    site.seal("fc28");
    let mac = site.add(1, "seat", Mode::Shared, &[]);
    let edit = Edit {
        settings: serde_json::from_str(r#"{"way": "esp"}"#).unwrap(),
        ..Edit::default()
    };
    let live = NoServer::new(site.lib.live_lock().unwrap());
    site.lib
        .edit_client(&mac, &edit, &live, &Actor::command())
        .unwrap();
    drop(live);
    let right = stamp(&site, "fc28");
    let wrong = right.chars().rev().collect::<String>();
    assert_ne!(right, wrong);
    let server = site.serve();
    let page = format!("/clients/{mac}");

    let (status, cfg) = asked(&server, &format!("/boot.cfg?mac={mac}&esp={right}"));
    assert_eq!(status, 200);
    assert!(cfg.contains("\nset prefix file:///linux\n"), "{cfg}");
    assert!(
        cfg.contains("/images/fc28/1\n"),
        "the way out is there: {cfg}"
    );
    assert!(!server.page(&page).contains("esp export"));
    assert_eq!(kernel(&server, &mac), "esp");

    let (_, cfg) = asked(&server, &format!("/boot.cfg?mac={mac}&esp={wrong}"));
    assert!(!cfg.contains("file:"), "{cfg}");
    assert_eq!(kernel(&server, &mac), "server");
    assert!(
        cfg.contains("\necho The ESP of this machine is not of this version"),
        "{cfg}"
    );
    assert!(
        server
            .page(&page)
            .contains("netroot esp export DIR --client seat")
    );
    let told = server.get("/api/v1/clients").text;
    assert!(told.contains("\"esp\":\"stale\""), "{told}");

    // Through its menu it still boots from there.
    drop(server);
    site.say("[clients]", "menu = \"always\"");
    let server = site.serve();
    let (_, menu) = asked(&server, &format!("/boot.cfg?mac={mac}&esp={right}"));
    let own = menu
        .split_whitespace()
        .find(|word| word.contains("menu=skip"));
    let path = own.unwrap().splitn(4, '/').nth(3).unwrap();
    let (_, cfg) = asked(&server, &format!("/{path}"));
    assert!(cfg.contains("\nset prefix file:///linux\n"), "{cfg}");
    let (_, cfg) = asked(
        &server,
        &format!("/boot.cfg?mac={mac}&menu=skip&esp={wrong}"),
    );
    assert!(cfg.contains("not of this version"), "{cfg}");

    // One whose boot.cfg boots by itself only tells.
    let (status, _) = asked(&server, &format!("/esp?mac={mac}&esp={right}"));
    assert_eq!(status, 200);
    assert!(!server.page(&page).contains("esp export"));
    let (status, _) = asked(&server, &format!("/esp?mac=52:54:00:ff:ff:ff&esp={right}"));
    assert_eq!(status, 404);
    for hostile in [
        "",
        "x",
        "../../etc/passwd",
        "0123456789abcdef0",
        "0123456789ABCDEF",
    ] {
        let (status, _) = asked(&server, &format!("/esp?mac={mac}&esp={hostile}"));
        assert_eq!(status, 400, "{hostile}");
        let (status, _) = asked(&server, &format!("/boot.cfg?mac={mac}&esp={hostile}"));
        assert_eq!(status, 400, "{hostile}");
    }
}

#[test]
fn nobody_tells_it_for_a_client_that_he_is_not() {
    let site = Site::new();
    site.seal("fc28");
    let mac = site.add(1, "seat", Mode::Shared, &[]);
    let right = stamp(&site, "fc28");
    let wrong = right.chars().rev().collect::<String>();
    let server = site.serve();
    let (status, _) = asked(&server, &format!("/esp?mac={mac}&esp={wrong}"));
    assert_eq!(status, 200, "who tells it learns nothing by that");
    let told = server.get("/api/v1/clients").text;
    assert!(!told.contains("\"esp\":\"stale\""), "{told}");
}
