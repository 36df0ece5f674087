//! What is said for a client or a group beside what it boots: the form, and what comes of it.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use netroot::library::*;
use nix::fcntl::{FcntlArg, fcntl};
use serde_json::{Value, json};

use crate::network;
use crate::site::{Answer, PATIENCE, Server, Site, hidden};

/// Each setting: what is filled in, what the document says then, and what is refused.
fn each() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    vec![
        ("way", "esp", json!("esp"), "nfs"),
        ("menu", "key", json!("key"), "never"),
        (
            "menu_items",
            "own fc28 local",
            json!(["own", "fc28", "local"]),
            "own FC28",
        ),
        ("menu_timeout", "5", json!(5), "0"),
        ("identity", "off", json!("off"), "maybe"),
        (
            "authorized_keys",
            "ssh-ed25519 AAAAC3NzaC1 anna\r\n\r\nssh-ed25519 AAAAC3NzaC2 bob\r\n",
            json!([
                "ssh-ed25519 AAAAC3NzaC1 anna",
                "ssh-ed25519 AAAAC3NzaC2 bob"
            ]),
            "-----BEGIN OPENSSH PRIVATE KEY-----",
        ),
        ("chap", "kernel-line", json!("kernel-line"), "here"),
        ("mutual", "on", json!("on"), "yes"),
        ("quota", "20G", json!("20G"), "2x"),
        ("size", "40G", json!("40G"), "100T"),
        ("data", "1G", json!("1G"), "65T"),
        ("keep_discarded", "never", json!("never"), "3 weeks"),
    ]
}

/// The words by which a command refuses the same.
fn refused_by_command(site: &Site, set: &[&str], name: &str, value: &str) -> String {
    let option = match name {
        "menu_items" => "--menu-item".to_owned(),
        "authorized_keys" => "--authorized-key".to_owned(),
        name => format!("--{}", name.replace('_', "-")),
    };
    // A list is given word by word.
    let value = value.strip_prefix("own ").unwrap_or(value);
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_netroot"))
        .arg("--library")
        .arg(site.lib.root())
        .args(set)
        .arg(format!("{option}={value}"))
        .output()
        .unwrap();
    assert!(!done.status.success(), "{name} {value}");
    String::from_utf8(done.stderr).unwrap()
}

/// The text of an element, as people read it.
fn text(page: &str, begin: &str, end: &str) -> String {
    let (_, rest) = page
        .split_once(begin)
        .unwrap_or_else(|| panic!("no {begin} in {page}"));
    let text = rest.split(end).next().unwrap();
    let text = text.replace("&#34;", "\"").replace("&#39;", "'");
    text.replace("&#60;", "<")
        .replace("&#62;", ">")
        .replace("&#38;", "&")
}

/// Sends the form of a page, of whose fields it changes these.
fn send(server: &Server, page: &str, fields: &[(&'static str, &str)]) -> Answer {
    let path = format!("{page}/settings");
    let form = server.page(&path);
    let mut all = vec![
        ("csrf", hidden(&form, "csrf")),
        ("seen", hidden(&form, "seen")),
    ];
    all.extend(
        fields
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned())),
    );
    server.post(&path, &all)
}

fn save(server: &Server, page: &str, fields: &[(&'static str, &str)]) -> String {
    let answer = send(server, page, fields);
    assert_eq!(answer.status, 303, "{fields:?}: {}", answer.text);
    let page = server.page(answer.header("location"));
    assert!(page.contains("Saved. "), "{fields:?}: {page}");
    page
}

/// A value of the card of a page, and who says it.
fn counts(page: &str, label: &str) -> (String, String) {
    let line = text(page, &format!("<dt>{label}</dt><dd>"), "</dd>");
    let (value, by) = line.split_once(" <").unwrap();
    let by = by.split_once('>').unwrap().1.split("</").next().unwrap();
    (value.to_owned(), by.to_owned())
}

fn room() -> (Site, MacAddr, Server) {
    let site = Site::new();
    site.seal("fc28");
    let mac = site.add(1, "lab-1", Mode::Persistent, &[]);
    let server = site.serve();
    (site, mac, server)
}

/// Says each setting on a page, is refused, and leaves it to others again.
fn says_each(site: &Site, server: &Server, page: &str, set: &[&str], own: impl Fn(&str) -> Value) {
    for (name, good, said, wrong) in each() {
        save(server, page, &[(name, good)]);
        assert_eq!(own(name), said, "{name}");
        let refused = send(server, page, &[(name, wrong)]);
        assert_eq!(refused.status, 422, "{name}: {}", refused.text);
        let why = text(&refused.text, &format!("id=\"wrong-{name}\">"), "</small>");
        let told = refused_by_command(site, set, name, wrong);
        // The page says beside the field what the command says after `error: `.
        let words = why.split("; ").next().unwrap();
        assert!(told.contains(words), "{name}: {why} is not in {told}");
        assert!(refused.text.contains("see what is marked below"));
        let marked = format!("aria-describedby=\"wrong-{name}\"");
        assert_eq!(refused.text.matches("aria-invalid").count(), 1, "{name}");
        assert!(refused.text.contains(&marked), "{name}");
        assert_eq!(own(name), said, "{name} stays");
        save(server, page, &[(name, "")]);
        assert_eq!(own(name), Value::Null, "{name} is inherited again");
    }
}

#[test]
fn each_setting_of_a_client_is_said_refused_and_inherited_again() {
    let (site, mac, server) = room();
    let page = format!("/clients/{mac}");
    let own = |name: &str| serde_json::to_value(site.client(&mac).settings).unwrap()[name].clone();
    says_each(&site, &server, &page, &["client", "set", "lab-1"], own);
    server.until("/events?what=client-set", |page| page.contains("data disk"));
}

#[test]
fn each_setting_of_a_group_is_said_refused_and_inherited_again() {
    let (site, _mac, server) = room();
    let group: GroupName = "lab".parse().unwrap();
    let own = |name: &str| {
        let group = site.lib.group(&group).unwrap();
        serde_json::to_value(group.settings).unwrap()[name].clone()
    };
    says_each(&site, &server, "/groups/lab", &["group", "set", "lab"], own);
    server.until("/events?what=group-set", |page| page.contains("data disk"));
}

#[test]
fn a_page_tells_what_counts_and_who_says_it() {
    let site = Site::new();
    site.seal("fc28");
    let mac = site.add(1, "lab-1", Mode::Shared, &[]);
    site.say("[clients]", "quota = \"8G\"\nmenu = \"always\"");
    let server = site.serve();
    let client = format!("/clients/{mac}");
    let told = |label: &str| counts(&server.page(&client), label);
    let is = |value: &str, by: &str| (value.to_owned(), by.to_owned());
    assert_eq!(told("Way to boot"), is("http", "built in"));
    assert_eq!(told("The menu offers"), is("own local", "built in"));
    assert_eq!(told("The menu waits"), is("10 s", "built in"));
    assert_eq!(told("Old disks are kept"), is("14d", "built in"));
    assert_eq!(told("Size of new disks"), is("as the version", "built in"));
    assert_eq!(told("Quota"), is("8G", "everybody's"));
    save(
        &server,
        "/groups/lab",
        &[("quota", "4G"), ("identity", "off")],
    );
    assert_eq!(told("Quota"), is("4G", "group lab"));
    let form = server.page(&format!("{client}/settings"));
    assert!(form.contains("as inherited: 4G (group lab)"), "{form}");
    assert!(form.contains("as inherited: off (group lab)"), "{form}");
    save(&server, &client, &[("quota", "2G")]);
    assert_eq!(told("Quota"), is("2G", "its own"));
    let form = server.page(&format!("{client}/settings"));
    assert!(form.contains("as inherited: 4G (group lab)"), "{form}");
    let group = server.page("/groups/lab");
    assert_eq!(counts(&group, "Quota"), is("4G", "group lab"));
    assert_eq!(counts(&group, "Menu"), is("always", "everybody's"));
    // None is said, too, and is not what nobody says.
    let none = [("quota", "none"), ("data", "none")];
    save(&server, "/groups/lab", &[("data", "1G")]);
    assert_eq!(told("Data disk"), is("1G", "group lab"));
    save(&server, &client, &none);
    assert_eq!(told("Quota"), is("no limit", "its own"));
    assert_eq!(told("Data disk"), is("none", "its own"));
    let form = server.page(&format!("{client}/settings"));
    assert!(form.contains("name=\"quota\" value=\"none\""), "{form}");
    site.netroot(&["client", "set", "lab-1", "--quota=", "--data="]);
    assert_eq!(told("Data disk"), is("1G", "group lab"));
    site.netroot(&["client", "set", "lab-1", "--quota", "none", "--data=none"]);
    let shown = site.netroot(&["client", "show", "lab-1"]);
    assert!(shown.contains("none"), "{shown}");
    assert_eq!(told("Quota"), is("no limit", "its own"));
    // Who watches the page sees what others say.
    let mut watching = server.watch(&format!("client:{mac}"));
    site.netroot(&["group", "set", "lab", "--identity", "on"]);
    site.netroot(&["client", "set", "lab-1", "--quota="]);
    watching.hears("settings", "4G");
}

#[test]
fn what_a_form_leaves_as_it_is_stays_as_it_is() {
    let (site, mac, server) = room();
    let page = format!("/clients/{mac}");
    // What only a program can say stays, too: nobody, whatever the group says.
    let nobody = r#"{"settings": {"authorized_keys": [], "menu_items": []}}"#;
    let said = server.send("PATCH", &format!("/api/v1/clients/{mac}"), nobody, &[]);
    assert_eq!(said.status, 200, "{}", said.text);
    let form = server.page(&format!("{page}/settings"));
    let keys = text(&form, "name=\"authorized_keys\"", "</textarea>");
    assert!(keys.ends_with("\nnone"), "{keys}");
    let others = [
        ("authorized_keys", "none"),
        ("menu_items", "own"),
        ("way", ""),
    ];
    save(&server, &page, &[&others[..], &[("quota", "2G")]].concat());
    let now = site.client(&mac).settings;
    assert_eq!(now.authorized_keys, Some(Vec::new()));
    assert_eq!(now.menu_items, Some(Vec::new()));
    assert_eq!(now.quota, Some("2G".parse().unwrap()));
    assert_eq!(
        site.client(&mac).groups.len(),
        1,
        "nor is anything else changed"
    );
    let again = send(&server, &page, &[("quota", "2G")]);
    assert_eq!(again.status, 303);
    let page = server.page(again.header("location"));
    assert!(page.contains("Nothing has changed."), "{page}");
}

#[test]
fn who_was_slower_overwrites_nothing() {
    let (site, mac, server) = room();
    let path = format!("/clients/{mac}/settings");
    let form = server.page(&path);
    let fields = [
        ("csrf", hidden(&form, "csrf")),
        ("seen", hidden(&form, "seen")),
        ("quota", "2G".to_owned()),
    ];
    site.netroot(&["client", "set", "lab-1", "--quota", "4G"]);
    let page = server.post_and_look(&path, &fields);
    assert!(page.contains("meanwhile"), "{page}");
    assert!(page.contains("value=\"4G\""), "{page}");
    assert_eq!(
        site.client(&mac).settings.quota,
        Some("4G".parse().unwrap())
    );
}

/// Keeps everybody from writing.
fn hold(lock: &Path) -> File {
    let file = File::options().read(true).write(true).open(lock).unwrap();
    let write = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 1,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_SETLKW(&write)).unwrap();
    file
}

/// Waits until somebody waits for a lock of this file.
fn until_somebody_waits_for(file: &File) {
    let begun = std::time::Instant::now();
    let inode = format!(":{} ", file.metadata().unwrap().ino());
    let waits = |line: &str| line.contains("->") && line.contains(&inode);
    while !std::fs::read_to_string("/proc/locks")
        .unwrap()
        .lines()
        .any(waits)
    {
        assert!(begun.elapsed() < PATIENCE, "nobody waits for it");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn who_is_overtaken_while_it_is_saved_overwrites_nothing() {
    let (site, mac, server) = room();
    let path = format!("/clients/{mac}/settings");
    let form = server.page(&path);
    let fields = [
        ("csrf", hidden(&form, "csrf")),
        ("seen", hidden(&form, "seen")),
        ("quota", "2G".to_owned()),
    ];
    let saved = std::thread::scope(|scope| {
        let held = hold(&site.lib.root().join("lock"));
        let saving = scope.spawn(|| server.post(&path, &fields));
        until_somebody_waits_for(&held);
        let document = site.lib.root().join(format!("clients/{}.json", mac.bare()));
        let text = std::fs::read_to_string(&document).unwrap();
        let mut client: Value = serde_json::from_str(&text).unwrap();
        client["settings"]["quota"] = "4G".into();
        std::fs::write(&document, client.to_string()).unwrap();
        drop(held);
        saving.join().unwrap()
    });
    assert_eq!(saved.status, 303, "{}", saved.text);
    let again = server.page(saved.header("location"));
    assert!(again.contains("meanwhile"), "{again}");
    assert!(again.contains("value=\"4G\""), "{again}");
    let quota = site.client(&mac).settings.quota;
    assert_eq!(quota, Some("4G".parse().unwrap()));
}

#[test]
fn a_data_disk_goes_out_of_sight_after_a_question_and_comes_back() {
    let (site, mac, server) = room();
    let page = format!("/clients/{mac}");
    save(&server, &page, &[("data", "2M")]);
    let peer = site.boot(&server, &mac);
    let form = server.page(&format!("{page}/settings"));
    assert!(form.contains("It runs, and is not disturbed"), "{form}");
    let said = save(&server, &page, &[("data", "4M")]);
    assert!(said.contains("counts from its next one"), "{said}");
    // It never shrinks, and who asks for it is told before.
    let asked = send(&server, &page, &[("data", "1M")]);
    assert_eq!(asked.status, 200, "{}", asked.text);
    assert!(
        asked
            .text
            .contains("has 4M already and stays so: it only grows")
    );
    drop(peer);
    for (of, set) in [(&page[..], "lab-1"), ("/groups/lab", "lab")] {
        if set == "lab" {
            save(&server, of, &[("data", "4M")]);
            save(&server, &page, &[("data", ""), ("sure", "yes")]);
        }
        let asked = send(&server, of, &[("data", "")]);
        assert_eq!(asked.status, 200, "{}", asked.text);
        let question = format!("Change the settings of {set}?");
        assert!(asked.text.contains(&question), "{}", asked.text);
        if set == "lab" {
            let plan = site.netroot(&["group", "set", "lab", "--data=", "--dry-run", "--json"]);
            assert!(plan.contains("has no data disk"), "{plan}");
        }
        let lost = "from its next boot on lab-1 has no data disk; what is on it (4M) stays";
        assert!(asked.text.contains(lost), "{}", asked.text);
        assert!(
            site.lib
                .data_disk(&site.client(&mac))
                .unwrap()
                .unwrap()
                .published
        );
        // The answer has all that was filled in.
        let fields = ["csrf", "seen", "data", "sure"].map(|name| (name, hidden(&asked.text, name)));
        let done = server.post_and_look(&format!("{of}/settings"), &fields);
        assert!(done.contains("has no data disk"), "{done}");
        let disk = site.lib.data_disk(&site.client(&mac)).unwrap().unwrap();
        assert_eq!((disk.size, disk.published), (4 << 20, false));
        save(&server, &page, &[("data", "4M")]);
    }
    let warned = site.netroot(&["client", "set", "lab-1", "--data=", "--dry-run", "--json"]);
    assert!(warned.contains("has no data disk"), "{warned}");
}

#[test]
fn another_identity_is_drawn_after_a_question() {
    let (site, mac, server) = room();
    let page = format!("/clients/{mac}");
    let keys = || {
        let shown = site.netroot(&["client", "show", "lab-1", "--json"]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        shown["identity"].clone()
    };
    // It has one as soon as somebody asks for it.
    site.netroot(&["client", "set", "lab-1", "--new-identity"]);
    let before = keys();
    assert_ne!(before, Value::Null);
    let asked = send(&server, &page, &[("new_identity", "yes")]);
    assert_eq!(asked.status, 200, "{}", asked.text);
    assert!(
        asked.text.contains("draw another machine-id"),
        "{}",
        asked.text
    );
    assert_eq!(keys(), before);
    save(&server, &page, &[("new_identity", "yes"), ("sure", "yes")]);
    assert_ne!(keys(), before);
    server.until("/events?what=client-set", |page| {
        page.contains("draw another")
    });
    // A group has none.
    let group = send(&server, "/groups/lab", &[("new_identity", "yes")]);
    assert_eq!(group.status, 303, "{}", group.text);
    assert!(!server.page("/groups/lab/settings").contains("new_identity"));
}

#[test]
fn a_group_that_is_nobodys_is_made_and_unmade_by_what_is_said() {
    let (site, _mac, server) = room();
    save(&server, "/groups/room5", &[("way", "esp")]);
    let group = "room5".parse().unwrap();
    assert_eq!(site.lib.group(&group).unwrap().settings.way, Some(Way::Esp));
    let gone = send(&server, "/groups/room5", &[("way", "")]);
    assert_eq!((gone.status, gone.header("location")), (303, "/groups"));
    assert!(server.page("/groups").contains("Nothing is said for room5"));
    assert_eq!(server.get("/groups/room5").status, 404);
}

#[test]
fn viewers_look_and_forms_of_strangers_do_nothing() {
    let site = network::Site::new("");
    site.users(&[("admin", Role::Operator), ("alice", Role::Viewer)]);
    site.ok(&["group", "set", "lab", "--quota", "2G"]);
    let server = site.serve();
    let (admin, alice) = (server.log_in("admin"), server.log_in("alice"));
    let page = server.get("/groups/lab", &[alice.cookie()]);
    assert_eq!(counts(&page.text, "Quota").0, "2G");
    assert!(!page.text.contains("/groups/lab/settings"), "{}", page.text);
    let page = server.get("/groups/lab/settings", &[admin.cookie()]);
    let seen = hidden(&page.text, "seen");
    let quota = format!("seen={seen}&quota=4G");
    for path in [
        "/groups/lab/settings",
        "/clients/52:54:00:12:34:56/settings",
    ] {
        let answer = server.post(path, &[alice.cookie()], &alice.form(&quota));
        assert_eq!(answer.status, 403, "{}", answer.text);
        assert!(answer.text.contains("needs the role operator"));
        for form in [quota.clone(), alice.form(&quota), format!("csrf=&{quota}")] {
            let answer = server.post(path, &[admin.cookie()], &form);
            assert_eq!(answer.status, 403, "{form}: {}", answer.text);
        }
        assert_eq!(
            server.post(path, &[], &quota).status,
            303,
            "led to the login"
        );
    }
    let said = site.json(&["group", "show", "lab"]);
    assert_eq!(said["settings"]["quota"], "2G");
    let path = "/groups/lab/settings";
    let saved = server.post(path, &[admin.cookie()], &admin.form(&quota));
    assert_eq!((saved.status, saved.is("location")), (303, "/groups/lab"));
    let said = site.json(&["group", "show", "lab"]);
    assert_eq!(said["settings"]["quota"], "4G");
}

#[test]
fn an_image_says_the_way_to_boot_and_nothing_else() {
    let (site, mac, server) = room();
    let (image, client) = ("/images/fc28", format!("/clients/{mac}"));
    let told = |page: &str| counts(&server.page(page), "Way to boot");
    let is = |value: &str, by: &str| (value.to_owned(), by.to_owned());
    let way = || site.lib.image(&"fc28".parse().unwrap()).unwrap().way;
    assert_eq!(told(image), is("http", "built in"));
    let page = server.page(image);
    assert!(!page.contains("<dt>Quota</dt>"), "{page}");
    assert!(page.contains("href=\"/images/fc28/settings\""), "{page}");
    let form = server.page("/images/fc28/settings");
    assert!(form.contains("as inherited: http (built in)"), "{form}");
    assert!(!form.contains("name=\"quota\""), "{form}");
    // What its form does not have is not taken from it, either.
    let saved = save(&server, image, &[("way", "ibft"), ("quota", "1G")]);
    assert!(saved.contains("told at their next boot"), "{saved}");
    assert_eq!(way(), Some(Way::Ibft));
    assert_eq!(told(image), is("ibft", "image fc28"));
    assert_eq!(told(&client), is("ibft", "image fc28"));
    let form = server.page(&format!("{client}/settings"));
    assert!(form.contains("as inherited: ibft (image fc28)"), "{form}");
    let cfg = server.boot_cfg(&mac);
    assert!(
        cfg.contains("boot.cfg of lab-1 has a secret in it"),
        "{cfg}"
    );
    let events = server.until("/events?what=image-set", |page| page.contains("to ibft"));
    assert!(events.contains("set the way to boot of"), "{events}");
    let refused = send(&server, image, &[("way", "nfs")]);
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert!(refused.text.contains("id=\"wrong-way\""));
    // Who filled it in for what is no more so is told.
    let form = server.page("/images/fc28/settings");
    let late = [
        ("csrf", hidden(&form, "csrf")),
        ("seen", hidden(&form, "seen")),
        ("way", "http".to_owned()),
    ];
    save(&server, image, &[("way", "")]);
    assert_eq!(way(), None);
    let page = server.post_and_look("/images/fc28/settings", &late);
    assert!(
        page.contains("changed by somebody else meanwhile"),
        "{page}"
    );
    assert_eq!((way(), told(&client)), (None, is("http", "built in")));
}

#[test]
fn programs_say_the_way_of_an_image_as_they_have_read_it() {
    let (site, _mac, server) = room();
    site.seal("fc28");
    let path = "/api/v1/images/fc28";
    let patch = |body: &str, tag: &str| {
        let head = [("if-match", tag)];
        let head = if tag.is_empty() { &head[..0] } else { &head };
        server.send("PATCH", path, body, head)
    };
    let tag = || server.get(path).header("etag").to_owned();
    let image = |answer: &Answer| serde_json::from_str::<Value>(&answer.text).unwrap();
    let first = tag();
    let plan = patch(r#"{"way": "ibft", "dry_run": true}"#, "");
    assert_eq!(
        image(&plan)["steps"],
        json!(["set way to `ibft` instead of nothing"])
    );
    assert_eq!(tag(), first);
    let set = patch(r#"{"way": "ibft"}"#, &first);
    assert_eq!((set.status, &image(&set)["way"]), (200, &json!("ibft")));
    assert_eq!(set.header("etag"), tag());
    assert_ne!(tag(), first);
    assert_eq!(image(&server.get(path))["way"], "ibft");
    for dry_run in ["true", "false"] {
        let body = format!(r#"{{"way": null, "dry_run": {dry_run}}}"#);
        assert_eq!(patch(&body, &first).status, 412, "{dry_run}");
    }
    // A rollback is for what was read of it, too.
    let back = |tag: &str| {
        let head = [("if-match", tag)];
        server.send("POST", "/api/v1/images/fc28@1/rollback", "{}", &head)
    };
    assert_eq!(back(&first).status, 412);
    assert_eq!(back(&tag()).status, 200);
    // What is left out stays.
    assert_eq!(image(&patch("{}", &tag()))["way"], "ibft");
    assert_eq!(image(&patch(r#"{"way": null}"#, "*")).get("way"), None);
    for wrong in [r#"{"way": "nfs"}"#, r#"{"quota": "1G"}"#] {
        assert_eq!(patch(wrong, "").status, 400, "{wrong}");
    }
    let none = server.send("PATCH", "/api/v1/images/fc99", r#"{"way": null}"#, &[]);
    assert_eq!(none.status, 404);
    let mut draft = site.lib.draft(&"win".parse().unwrap()).unwrap();
    draft.create_sparse(1 << 20).unwrap();
    draft.boots_itself(manifest::TableFacts {
        kind: manifest::TableKind::Gpt,
        partitions: 1,
        bios: true,
        efi: false,
    });
    draft.seal(VersionFacts::default(), &Quiet).unwrap();
    let refused = server.send("PATCH", "/api/v1/images/win", r#"{"way": "http"}"#, &[]);
    assert_eq!(refused.status, 409);
    assert!(
        refused.text.contains("boots from its own disk"),
        "{}",
        refused.text
    );
    let page = server.page("/images/win");
    assert!(page.contains("boots from its own disk"), "{page}");
}
