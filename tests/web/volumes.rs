//! Volumes: what their pages tell and their forms do, and what programs may.

use std::fs;
use std::os::unix::fs::symlink;

use netroot::library::{Library, Role};
use serde_json::{Value, json};

use super::network;
use super::site::{Server, Site};

const SECRET: &str = "a secret of ours 1";

fn fields<const N: usize>(fields: [(&'static str, &str); N]) -> Vec<(&'static str, String)> {
    fields.map(|(name, value)| (name, value.to_owned())).into()
}

fn with_csrf(
    server: &Server,
    page: &str,
    more: Vec<(&'static str, String)>,
) -> Vec<(&'static str, String)> {
    let page = server.page(page);
    let mut all = vec![("csrf", hidden(&page, "csrf"))];
    all.extend(more);
    all
}

fn hidden(page: &str, name: &str) -> String {
    let (_, rest) = page
        .split_once(&format!("name=\"{name}\" value=\""))
        .unwrap_or_else(|| panic!("no {name} in {page}"));
    rest.split('"').next().unwrap().to_owned()
}

#[test]
fn forms_add_grow_copy_change_and_remove_a_volume() {
    let site = Site::new();
    let mut server = site.serve();
    assert!(server.page("/volumes").contains("No volumes yet"));
    let post =
        |path: &str, from: &str, more| server.post_and_look(path, &with_csrf(&server, from, more));
    let new = |size, allow, secret: &'static str| {
        let user = if secret.is_empty() { "" } else { "me<b>" };
        let given = [
            ("name", "data"),
            ("size", size),
            ("allow", allow),
            ("user", user),
            ("secret", secret),
        ];
        with_csrf(&server, "/volumes", fields(given))
    };
    // What is wrong is said beside what was filled in; a secret does not come back.
    for (wrong, why) in [
        (new("1x", "any", ""), "such as 20G"),
        (new("1M", "", ""), "nobody could see it"),
        (new("1M", "all", ""), "address range"),
        (new("1M", "", "too short"), "12 to 255"),
        (new("1000", "any", SECRET), "whole number of blocks"),
    ] {
        let answer = server.post("/volumes", &wrong);
        assert_eq!(answer.status, 422, "{why}: {}", answer.text);
        assert!(answer.text.contains(why), "{why}: {}", answer.text);
        assert!(answer.text.contains("value=\"data\""), "{}", answer.text);
        assert!(!answer.text.contains(SECRET) && !answer.text.contains("me<b>"));
    }
    let page = server.post_and_look("/volumes", &new("1M", "192.0.2.0/24", SECRET));
    assert!(page.contains("Added data"), "{page}");
    assert!(page.contains("192.0.2.0/24, CHAP me"), "{page}");
    assert!(!page.contains(SECRET) && !page.contains("me<b>"), "{page}");
    let mut watching = server.watch("volume:data");

    let page = post(
        "/volumes/data/grow",
        "/volumes/data",
        fields([("size", "2M")]),
    );
    assert!(page.contains("data has 2.0 MiB now"), "{page}");
    watching.hears("volume-facts", "2.0 MiB");
    let page = post(
        "/volumes/data/grow",
        "/volumes/data",
        fields([("size", "1M")]),
    );
    assert!(page.contains("would be lost"), "{page}");
    let page = post(
        "/volumes/data/snapshot",
        "/volumes/data",
        fields([("as", "copy")]),
    );
    assert!(
        page.contains("Copied data") && page.contains("nobody yet"),
        "{page}"
    );

    let seen = hidden(&server.page("/volumes/data"), "seen");
    let change = |seen: &str| {
        let more = [("seen", seen), ("allow", "any"), ("read_only", "yes")];
        post("/volumes/data/access", "/volumes/data", fields(more))
    };
    assert!(change(&seen).contains("Changed data"));
    let late = change(&seen);
    assert!(late.contains("changed by somebody else"), "{late}");
    let list = server.page("/volumes");
    assert!(
        list.contains("id=\"volume-data\"") && list.contains("read-only"),
        "{list}"
    );

    // The page that asks says what is lost, and the form is for what it showed.
    let asked = server.page("/volumes/copy/remove");
    assert!(
        asked.contains("gone for ever, with all that is on it"),
        "{asked}"
    );
    let seen = hidden(&asked, "seen");
    let more = vec![("seen", "another".to_owned())];
    let page = post("/volumes/copy/remove", "/volumes/copy/remove", more);
    assert!(page.contains("changed by somebody else"), "{page}");
    let more = vec![("seen", seen)];
    let page = post("/volumes/copy/remove", "/volumes/copy/remove", more);
    assert!(page.contains("Removed copy"), "{page}");
    assert_eq!(server.get("/volumes/copy").status, 404);
    let events = server.page("/events");
    assert!(events.contains("removed the volume"), "{events}");
    assert!(!events.contains(SECRET));
    server.stop();
}

#[test]
fn who_uses_a_volume_is_shown_and_cut_off_by_force_only() {
    let site = Site::new();
    let mut server = site.serve();
    let new = [("name", "data"), ("size", "1M"), ("allow", "any")];
    let new = with_csrf(&server, "/volumes", fields(new));
    server.post_and_look("/volumes", &new);
    let target = "iqn.2026-01.edu.example.server-01:data";
    let us = "iqn.2026-01.test:us";
    let peer = site.log_in(&server, us, target);
    let live = server.page("/live");
    assert!(live.contains("href=\"/volumes/data\""), "{live}");
    for page in ["/volumes", "/volumes/data"] {
        let page = server.page(page);
        assert!(page.contains(us), "{page}");
    }
    let asked = server.page("/volumes/data/remove");
    assert!(asked.contains("1 session uses its target"), "{asked}");
    assert!(
        asked.contains("By force") && asked.contains("end 1 session"),
        "{asked}"
    );
    let remove = |force: &'static str| {
        let seen = vec![
            ("seen", hidden(&asked, "seen")),
            ("force", force.to_owned()),
        ];
        let form = with_csrf(&server, "/volumes/data/remove", seen);
        server.post_and_look("/volumes/data/remove", &form)
    };
    assert!(remove("").contains("uses its target"));
    assert!(remove("yes").contains("Removed data"));
    assert!(!server.page("/live").contains(us));
    assert!(site.lib.volumes().unwrap().is_empty());
    drop(peer);
    server.stop();
}

/// Calls of somebody over the network, answered in JSON.
struct Caller<'a> {
    server: &'a network::Server,
    bearer: String,
}

impl Caller<'_> {
    fn call(&self, method: &str, path: &str, tag: Option<&str>, body: &Value) -> network::Answer {
        let mut head = vec![
            ("Authorization", self.bearer.as_str()),
            ("Content-Type", "application/json"),
        ];
        head.extend(tag.map(|tag| ("If-Match", tag)));
        let path = format!("/api/v1/volumes{path}");
        self.server.ask(method, &path, &head, &body.to_string())
    }

    fn status(&self, method: &str, path: &str, body: &Value) -> (u16, String) {
        let answer = self.call(method, path, None, body);
        (answer.status, answer.text)
    }
}

fn caller<'a>(site: &network::Site, server: &'a network::Server, role: Role) -> Caller<'a> {
    let (name, role) = (format!("of-{role}"), role.to_string());
    let made = site.json(&["token", "add", &name, "--role", &role]);
    Caller {
        server,
        bearer: format!("Bearer {}", made["secret"].as_str().unwrap()),
    }
}

#[test]
fn programs_change_volumes_as_their_role_allows() {
    let site = network::Site::new("");
    let server = site.serve();
    let operator = caller(&site, &server, Role::Operator);
    let viewer = caller(&site, &server, Role::Viewer);
    let new =
        json!({ "name": "data", "size": 1 << 20, "chap": { "user": "me", "secret": SECRET } });
    let mut planned = new.clone();
    planned["dry_run"] = true.into();
    assert_eq!(viewer.status("POST", "", &planned).0, 403);
    let (status, plan) = operator.status("POST", "", &planned);
    assert!(status == 200 && plan.contains("sparse file"), "{plan}");
    assert_eq!(operator.status("GET", "", &Value::Null).1, "[]");
    let made = operator.call("POST", "", None, &new);
    assert_eq!(
        (made.status, made.is("location")),
        (201, "/api/v1/volumes/data")
    );
    let tag = made.is("etag").to_owned();
    assert_eq!(operator.status("POST", "", &new).0, 409);
    let shown = viewer.call("GET", "/data", None, &Value::Null);
    assert_eq!((shown.status, shown.is("etag")), (200, tag.as_str()));

    let edit = json!({ "allow": ["any"], "chap": "none" });
    let edited = operator.call("PATCH", "/data", Some(&tag), &edit);
    assert_eq!(edited.status, 200, "{edited:?}");
    let row: Value = serde_json::from_str(&edited.text).unwrap();
    assert_eq!(
        (&row["allow"], &row["chap"]),
        (&json!(["any"]), &Value::Null)
    );
    for (method, path, body) in [
        ("PATCH", "/data", edit.clone()),
        ("POST", "/data/resize", json!({ "size": 2 << 20 })),
        ("DELETE", "/data", json!({})),
        ("DELETE", "/data", json!({ "dry_run": true })),
    ] {
        let late = operator.call(method, path, Some(&tag), &body);
        assert_eq!(late.status, 412, "{method} {path}: {late:?}");
        assert_eq!(viewer.status(method, path, &body).0, 403);
    }
    let (status, row) = operator.status("POST", "/data/resize", &json!({ "size": 2 << 20 }));
    let row: Value = serde_json::from_str(&row).unwrap();
    assert_eq!((status, &row["size"]), (200, &json!(2 << 20)));
    let smaller = operator.status("POST", "/data/resize", &json!({ "size": 1 << 20 }));
    assert_eq!(smaller.0, 409, "{smaller:?}");
    let copy = operator.status("POST", "/data/snapshot", &json!({ "as": "copy" }));
    assert_eq!(copy.0, 201, "{copy:?}");
    assert_eq!(viewer.status("POST", "/data/snapshot", &json!({})).0, 403);
    for name in ["data", "copy"] {
        let gone = operator.status("DELETE", &format!("/{name}"), &json!({}));
        assert_eq!(gone.0, 200, "{gone:?}");
    }
    let library = Library::open(&site.library(), None).unwrap();
    assert!(library.volumes().unwrap().is_empty());
    // What was said of all this has no secret in it.
    let events = site.ok(&["--json", "event", "list"]);
    assert!(events.contains("volume-snapshot") && !events.contains(SECRET));
    assert!(
        ![made, shown, edited]
            .iter()
            .any(|told| told.text.contains(SECRET))
    );
}

#[test]
fn no_program_reaches_files_that_the_configuration_does_not_list() {
    let home = tempfile::tempdir().unwrap();
    let listed = home.path().join("listed");
    fs::create_dir(&listed).unwrap();
    fs::write(home.path().join("secret"), [7; 4096]).unwrap();
    symlink("../secret", listed.join("link")).unwrap();
    let site = network::Site::new(&format!("[volumes]\ndirectories = [{listed:?}]\n"));
    let server = site.serve();
    let operator = caller(&site, &server, Role::Operator);
    let add = |path: &str, size: Value| {
        let body = json!({ "name": "disk", "file": path, "size": size, "allow": ["any"] });
        operator.status("POST", "", &body)
    };
    let of = |name: &str| format!("{}/{name}", listed.display());
    for outside in [
        "/etc/shadow".to_owned(),
        "/etc/nosuch".to_owned(),
        of("../secret"),
        of("link"),
        listed.display().to_string(),
    ] {
        let (status, told) = add(&outside, Value::Null);
        assert_eq!(status, 409, "{outside}: {told}");
        assert!(
            told.contains("not below") || told.contains("leads out of"),
            "{outside}: {told}"
        );
    }
    assert_eq!(add("relative", Value::Null).0, 400);
    let forced = json!({ "name": "disk", "device": of("sda"), "force": true, "allow": ["any"] });
    assert_eq!(operator.status("POST", "", &forced).0, 409);
    let (status, told) = add(&of("disk"), json!(1 << 20));
    assert_eq!(status, 201, "{told}");
    assert_eq!(fs::metadata(listed.join("disk")).unwrap().len(), 1 << 20);
    assert_eq!(operator.status("DELETE", "/disk", &json!({})).0, 200);
    assert!(listed.join("disk").exists(), "a file of somebody's stays");
}
