//! The room and its clients: what is shown, and what is done to those that are chosen.

use netroot::library::{Act, Actor, AssignTo, Mode, NoServer, When};

use super::site::{Server, Site, mac, pick};

/// Names of clients in the order in which a page shows them.
fn shown(page: &str) -> Vec<&str> {
    let rows = page.split("<th scope=\"row\"><a href=\"/clients/").skip(1);
    let name = |row: &str| row.find('>').map(|at| at + 1);
    rows.map(|row| {
        let rest = &row[name(row).unwrap()..];
        &rest[..rest.find('<').unwrap()]
    })
    .collect()
}

/// Three clients, of which one drifts.
fn three() -> Site {
    let site = Site::new();
    site.seal("fc28");
    site.add(2, "lab-2", Mode::Persistent, &[]);
    site.add(
        10,
        "lab-10",
        Mode::Shared,
        &["console=<script>alert(1)</script>"],
    );
    site.seal("fc28");
    site.add(1, "seat", Mode::Ephemeral, &[]);
    site
}

fn fields<const N: usize>(fields: [(&'static str, &str); N]) -> Vec<(&'static str, String)> {
    fields.map(|(name, value)| (name, value.to_owned())).into()
}

#[test]
fn an_empty_room_tells_how_to_begin() {
    let site = Site::new();
    let server = site.serve();
    let page = server.page("/");
    assert!(
        page.contains("No clients yet") && page.contains("/boot.ipxe"),
        "{page}"
    );
    assert!(
        page.contains("Build an image") && page.contains("netroot image build"),
        "{page}"
    );
}

#[test]
fn the_room_shows_sorts_and_finds() {
    let site = three();
    let server = site.serve();
    let page = server.page("/");
    assert_eq!(shown(&page), ["lab-2", "lab-10", "seat"], "as people count");
    assert!(page.contains("current is @2"), "{page}");
    assert!(page.contains("aria-sort=\"ascending\""), "{page}");
    for (query, names) in [
        ("sort=-name", &["seat", "lab-10", "lab-2"][..]),
        ("sort=mode", &["seat", "lab-2", "lab-10"]),
        ("show=drift", &["lab-2"]),
        ("show=up", &[]),
        ("q=LAB+52540000000a", &["lab-10"]),
        ("q=fc28@2+ephemeral", &["seat"]),
        ("group=lab", &["lab-2", "lab-10", "seat"]),
        ("group=none", &[]),
        (
            "sort=-colour&page=77&show=ripe",
            &["lab-2", "lab-10", "seat"],
        ),
    ] {
        let page = server.page(&format!("/?{query}"));
        assert_eq!(shown(&page), names, "{query}");
    }
    let page = server.page("/?pick=shown&q=lab-2");
    assert_eq!(page.matches(" checked").count(), 1, "{page}");
}

#[test]
fn what_people_write_is_text_wherever_it_shows() {
    let site = three();
    let server = site.serve();
    let hostile = "%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E%E2%80%AE";
    for path in [
        format!("/?q={hostile}"),
        format!("/?group={hostile}"),
        format!("/?sort={hostile}"),
        format!("/clients/new?mac={hostile}"),
        format!("/clients/{}", mac(10)),
        format!("/clients/{hostile}"),
        format!("/clients/{hostile}/promote"),
        format!("/clients/{}?x={hostile}", mac(10)),
    ] {
        let text = server.get(&path).text;
        assert!(!text.contains("<script>alert"), "{path}: {text}");
    }
    let page = server.page(&format!("/clients/{}", mac(10)));
    assert!(page.contains("alert(1)"), "it is shown: {page}");
    let wrong = fields([
        ("mac", "<script>alert(1)</script>"),
        ("image", "fc28"),
        ("mode", "shared"),
    ]);
    let answer = server.post("/clients/new", &wrong);
    assert_eq!(answer.status, 422);
    assert!(!answer.text.contains("<script>alert"), "{}", answer.text);
}

#[test]
fn more_clients_than_fit_one_page_have_pages() {
    let site = Site::new();
    site.seal("fc28");
    site.add(1, "lab-0", Mode::Shared, &[]);
    many(&site, 1000);
    let server = site.serve();
    let (first, second) = (server.page("/"), server.page("/?page=2"));
    assert_eq!(
        (shown(&first).len(), shown(&second)),
        (1000, vec!["lab-1000"])
    );
    assert!(first.contains("href=\"/?page=2\""));
    assert_eq!(
        shown(&server.page("/?page=3")),
        ["lab-1000"],
        "the last there is"
    );
}

/// Clients like the first one, as documents: adding them one by one takes longer than looking at them.
fn many(site: &Site, number: u32) {
    let dir = site.lib.root().join("clients");
    let text = std::fs::read_to_string(dir.join(format!("{}.json", mac(1).bare()))).unwrap();
    for n in 1..=number {
        let bare = format!("525401{n:06x}");
        let mac: netroot::library::MacAddr = bare.parse().unwrap();
        let text = text.replace(&super::site::mac(1).to_string(), &mac.to_string());
        let text = text.replace("\"lab-0\"", &format!("\"lab-{n}\""));
        std::fs::write(dir.join(format!("{bare}.json")), text).unwrap();
    }
}

#[test]
fn a_reset_asks_tells_what_is_lost_and_is_undone_from_the_same_page() {
    let site = three();
    let (server, client) = (site.serve(), mac(2));
    let before = site.client(&client);
    let disk = before.clone.clone().unwrap();
    let mut form = vec![pick(&before), ("act", "reset".to_owned())];
    let asked = server.post("/clients/act", &form);
    assert_eq!(asked.status, 200, "{}", asked.text);
    assert!(
        asked.text.contains("Reset lab-2 to pristine?"),
        "{}",
        asked.text
    );
    assert!(
        asked.text.contains("is lost (kept for undo)"),
        "{}",
        asked.text
    );
    assert_eq!(site.client(&client), before, "asking does nothing");
    form.extend(fields([("sure", "yes"), ("when", "now")]));
    let room = server.post_and_look("/clients/act", &form);
    assert!(room.contains("Reset lab-2."), "{room}");
    let undo = room.split("class=\"notice good\"").nth(1).unwrap();
    assert!(undo.contains("name=\"act\" value=\"undo\""), "{undo}");
    let after = site.client(&client);
    assert_ne!(after.clone.unwrap().id, disk.id);
    assert!(
        !server.page("/").contains("Reset lab-2."),
        "it is told once"
    );
    let page = server.page(&format!("/clients/{client}"));
    assert!(page.contains("Bring back"), "{page}");
    let form = fields([
        ("act", "undo"),
        ("pick", "525400000002"),
        ("sure", "yes"),
        ("when", "now"),
    ]);
    let room = server.post_and_look("/clients/act", &form);
    assert!(room.contains("Undone for lab-2."), "{room}");
    assert_eq!(site.client(&client).clone, Some(disk));
}

#[test]
fn many_at_once_are_told_apart_where_one_is_refused() {
    let site = three();
    let server = site.serve();
    // Somebody else was quicker with one of them.
    let stale = pick(&site.client(&mac(10)));
    let other = vec![
        pick(&site.client(&mac(10))),
        ("act", "args".into()),
        ("args", "quiet".into()),
    ];
    server.post_and_look("/clients/act", &other);
    let mut form = vec![stale, pick(&site.client(&mac(1)))];
    form.extend(fields([("act", "join"), ("group", "hall")]));
    let room = server.post_and_look("/clients/act", &form);
    assert!(room.contains("Added seat to hall."), "{room}");
    assert!(room.contains("Not done for lab-10"), "{room}");
    assert!(room.contains("changed by somebody else"), "{room}");
    let groups = |last| site.client(&mac(last)).groups.len();
    assert_eq!((groups(1), groups(10)), (2, 1));
    for (form, why) in [
        (fields([("act", "reset")]), "choose at least one client"),
        (
            fields([("act", "explode"), ("pick", "525400000001")]),
            "by its button",
        ),
        (
            fields([("act", "assign"), ("pick", "525400000001"), ("image", "")]),
            "choose an image",
        ),
    ] {
        let room = server.post_and_look("/clients/act", &form);
        assert!(room.contains(why), "{room}");
    }
}

#[test]
fn who_runs_on_its_disk_is_not_cut_off_by_an_unasked_choice() {
    let site = three();
    let (server, client) = (site.serve(), mac(2));
    let _peer = site.boot(&server, &client);
    server.until("/", |page| page.contains("data-state=\"up\""));
    let form = |server: &Server, more: &[(&'static str, &str)]| {
        let mut form = vec![pick(&site.client(&client)), pick(&site.client(&mac(1)))];
        form.push(("act", "reset".to_owned()));
        form.extend(
            more.iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        server.post("/clients/act", &form)
    };
    let asked = form(&server, &[]).text;
    assert!(asked.contains("it is running: 127.0.0.1"), "{asked}");
    assert!(
        asked.contains("the one that runs is left as it is"),
        "{asked}"
    );
    assert!(asked.contains("value=\"force\""), "{asked}");
    assert!(!asked.contains("value=\"force\" checked"), "{asked}");
    let disk = || site.client(&client).clone.unwrap().id;
    let (before, other) = (disk(), site.client(&mac(1)).clone.unwrap().id);
    assert_eq!(
        form(&server, &[("sure", "yes"), ("when", "now")]).status,
        303
    );
    assert_eq!(disk(), before, "it runs");
    assert_ne!(
        site.client(&mac(1)).clone.unwrap().id,
        other,
        "and this one does not"
    );
    assert!(server.page("/").contains("Not done for lab-2"));
    assert_eq!(
        form(&server, &[("sure", "yes"), ("when", "next-boot")]).status,
        303
    );
    assert_eq!(site.client(&client).armed.unwrap().act, Act::Reset);
    assert!(server.page("/").contains("reset at next boot"));
    assert_eq!(
        form(&server, &[("sure", "yes"), ("when", "force")]).status,
        303
    );
    assert_ne!(disk(), before);
    server.until("/", |page| !page.contains("data-state=\"up\""));
}

#[test]
fn a_machine_that_nobody_knows_shows_up_to_be_added() {
    let site = three();
    let server = site.serve();
    for _ in 0..3 {
        server.boot_cfg(&mac(9));
    }
    let room = server.page("/");
    let add = format!("/clients/new?mac={}", mac(9));
    assert!(room.contains(&add) && room.contains("3 times"), "{room}");
    let known = server.get("/api/v1/strangers");
    let known: serde_json::Value = serde_json::from_str(&known.text).unwrap();
    assert_eq!(known[0]["mac"], mac(9).to_string());
    assert_eq!(known[0]["times"], 3);
    let form = server.page(&add);
    assert!(form.contains(&format!("value=\"{}\"", mac(9))), "{form}");
    let mut new = fields([
        ("mac", "52-54-00-00-00-09"),
        ("image", "fc28@1"),
        ("mode", "shared"),
    ]);
    new.extend(fields([
        ("name", "lab-2"),
        ("groups", "lab hall"),
        ("args", "quiet"),
    ]));
    let answer = server.post("/clients/new", &new);
    assert_eq!(answer.status, 422, "that name is taken");
    assert!(
        answer.text.contains("lab hall"),
        "what was filled in is kept"
    );
    new.retain(|(name, _)| *name != "name");
    let page = server.post_and_look("/clients/new", &new);
    assert!(page.contains("Added client-525400000009"), "{page}");
    assert_eq!(site.client(&mac(9)).groups.len(), 2);
    assert!(!server.page("/").contains(&add));
}

#[test]
fn a_description_is_not_overwritten_unseen() {
    let site = three();
    let server = site.serve();
    let (client, path) = (site.client(&mac(10)), format!("/clients/{}/edit", mac(10)));
    let form = |name: &str| {
        let mut form = fields([
            ("name", name),
            ("groups", "hall"),
            ("args", ""),
            ("macs", ""),
        ]);
        form.push(("edition", client.edition().as_str().to_owned()));
        form
    };
    let page = server.post_and_look(&path, &form("anna"));
    assert!(
        page.contains("Changed.") && page.contains("<h1>anna</h1>"),
        "{page}"
    );
    let page = server.post_and_look(&path, &form("bert"));
    assert!(page.contains("changed by somebody else"), "{page}");
    assert_eq!(site.client(&mac(10)).name.as_str(), "anna");
}

#[test]
fn a_client_page_tells_all_and_no_boot_id() {
    let site = three();
    let (server, client) = (site.serve(), mac(2));
    let _peer = site.boot(&server, &client);
    let page = server.until(&format!("/clients/{client}"), |page| {
        page.contains("from 127.0.0.1")
    });
    for told in [
        "fc28@1",
        "current is @2",
        "persistent",
        "in place",
        "BOOT-ID",
        " booted <a href=\"/images/fc28/1\">",
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
    let id = site.client(&client).boot.unwrap().id.to_string();
    assert!(
        !page.contains(&id),
        "whoever reads it could log in as this boot"
    );
    assert!(!server.page("/").contains(&id));
    let answer = server.get("/clients/lab-2");
    assert!(
        answer.status == 303 && answer.head.contains(&client.to_string()),
        "{}",
        answer.head
    );
    assert_eq!(server.get("/clients/lab-99").status, 404);
}

#[test]
fn an_image_that_waits_is_told_and_called_off() {
    let site = three();
    let to = Act::Assign(AssignTo {
        image: Some("fc28@1".parse().unwrap()),
        mode: None,
    });
    let live = NoServer::new(site.lib.live_lock().unwrap());
    let actor = Actor::command();
    site.lib
        .perform(&mac(10), &to, When::AtNextBoot, &live, &actor)
        .unwrap();
    drop(live);
    let server = site.serve();
    assert!(server.page("/").contains("assign fc28@1 at next boot"));
    let undo = vec![pick(&site.client(&mac(10))), ("act", "undo".to_owned())];
    let room = server.post_and_look("/clients/act", &undo);
    assert!(
        room.contains("Undone for lab-10."),
        "nothing is lost, so nothing is asked: {room}"
    );
    assert!(site.client(&mac(10)).armed.is_none());
}

#[test]
fn why_there_is_nothing_to_boot_is_seen_in_the_room() {
    let site = three();
    let live = NoServer::new(site.lib.live_lock().unwrap());
    let image = "fc28".parse().unwrap();
    let removed = site
        .lib
        .remove(&image, When::Force, &live, &Actor::command());
    assert_eq!(removed.unwrap().dangling.len(), 3);
    drop(live);
    let server = site.serve();
    assert!(server.boot_cfg(&mac(10)).contains("echo netroot: "));
    let page = server.page("/?show=failed");
    assert_eq!(shown(&page), ["lab-10"]);
    assert!(
        page.contains("it asked what to boot, and there is nothing for it: "),
        "{page}"
    );
    // Once it has something, its next script is a new try.
    drop(server);
    site.seal("fc28");
    let server = site.serve();
    server.boot_cfg(&mac(10));
    assert_eq!(shown(&server.page("/?show=booting")), ["lab-10"]);
}
