//! Pages that keep themselves up to date.

use netroot::library::Mode;

use super::site::{Site, mac, pick};

#[test]
fn who_watches_the_room_sees_a_boot_and_its_end() {
    let site = Site::new();
    site.seal("fc28");
    let client = site.add(1, "lab-1", Mode::Persistent, &[]);
    let server = site.serve();
    let mut room = server.watch("room");
    room.hears("client-525400000001", ">off<");
    server.boot_cfg(&client);
    room.hears("client-525400000001", "script fetched");
    let peer = site.boot(&server, &client);
    room.hears("client-525400000001", ">up<");
    let mut page = server.watch(&format!("client:{client}"));
    page.hears("client-sessions", "from 127.0.0.1");
    drop(peer);
    room.hears("client-525400000001", ">off<");
    page.hears("client-facts", ">off<");
}

#[test]
fn what_one_does_another_sees_at_once() {
    let site = Site::new();
    site.seal("fc28");
    site.add(1, "lab-1", Mode::Shared, &[]);
    let server = site.serve();
    let mut room = server.watch("room");
    room.hears("client-525400000001", "lab-1");
    let fields = [
        pick(&site.client(&mac(1))),
        ("act", "join".into()),
        ("group", "hall".into()),
    ];
    server.post_and_look("/clients/act", &fields);
    room.hears("client-525400000001", ">hall<");
    server.boot_cfg(&mac(9));
    room.hears("strangers", "52:54:00:00:00:09");
    let new = [
        ("mac", "525400000009".to_owned()),
        ("image", "fc28".to_owned()),
        ("mode", "shared".to_owned()),
    ];
    server.post_and_look("/clients/new", &new);
    room.hears("clients", "client-525400000009");
    let fields = [
        pick(&site.client(&mac(9))),
        ("act", "remove".into()),
        ("sure", "yes".into()),
    ];
    server.post_and_look("/clients/act", &fields);
    room.hears("client-525400000009", "\"op\":\"remove\"");
}

#[test]
fn a_page_hears_what_changes_and_not_what_it_shows() {
    let site = Site::new();
    site.seal("fc28");
    let client = site.add(1, "lab-1", Mode::Shared, &[]);
    site.add(2, "lab-2", Mode::Shared, &[]);
    let server = site.serve();
    let shown = server.drawn("/");
    // The stream is opened a moment after the page was drawn.
    server.boot_cfg(&client);
    let mut first = server.watch_from("room", &shown);
    first.hears("client-525400000001", "script fetched");
    let shown = server.drawn("/?sort=-name");
    drop(first);
    let mut reloaded = server.watch_from("room", &shown);
    server.boot_cfg(&mac(9));
    reloaded.hears("strangers", "52:54:00:00:00:09");
    assert!(!reloaded.has_heard("lab-2"), "nothing happened to it");
    let mut restored = server.watch_from("room", "1000");
    restored.ends();
    assert!(restored.has_heard("event: reload"), "it knows too little");
}

#[test]
fn what_goes_over_the_wire_is_a_piece_of_its_own() {
    let site = Site::new();
    site.seal("fc28");
    let client = site.add(1, "lab-1", Mode::Shared, &[]);
    let server = site.serve();
    let mut peer = site.boot(&server, &client);
    let mut room = server.watch_from("room", &server.drawn("/"));
    site.reads(&mut peer);
    room.hears("client-525400000001", "<div id=\\\"flow-525400000001\\\">");
    room.hears("flow-525400000001", "KiB/s");
    let page = server.page("/");
    assert!(page.contains("<div id=\"flow-525400000001\">"), "{page}");
}

#[test]
fn a_stream_ends_with_the_server_and_there_is_none_of_nothing() {
    let site = Site::new();
    let mut server = site.serve();
    assert_eq!(server.get("/stream?topic=weather").status, 404);
    assert_eq!(server.get("/stream?topic=client:x").status, 404);
    assert_eq!(server.get("/stream").status, 400);
    let mut room = server.watch("room");
    room.hears("total-all", ">0<");
    server.stop();
    room.ends();
}
