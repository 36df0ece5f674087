//! Every route there is, and who is let through to it.
//!
//! The routes are read from the source, as in `tests/layers.rs`, and from the API's own document: one
//! that is added is tried without anybody thinking of it.

use std::fs;
use std::path::Path;

use netroot::library::Role;
use serde_json::Value;

use crate::network::{Answer, LoggedIn, Server, Site};

/// What needs no login.
const OPEN: [&str; 5] = ["/login", "/welcome", "/assets/", "/healthz", "/readyz"];

/// What viewers may change: only what is theirs.
const OWN: [&str; 3] = ["/logout", "/account/password", "/account/logins/end"];

const METHODS: [&str; 5] = ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// All paths.
pub(crate) fn routes(document: &Value) -> Vec<String> {
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web");
    let mut found = Vec::new();
    in_source(&web, &mut found);
    let described = document["paths"].as_object().unwrap().keys();
    found.extend(described.cloned());
    found.sort();
    found.dedup();
    found
}

/// A path with these in the place of what it names.
pub(crate) fn filled(path: &str, names: &[(&str, &str)]) -> String {
    let mut filled = path.to_owned();
    for (name, value) in names {
        filled = filled.replace(&format!("{{{name}}}"), value);
    }
    while let (Some(from), Some(to)) = (filled.find('{'), filled.find('}')) {
        filled.replace_range(from..=to, "x");
    }
    filled
}

fn in_source(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            in_source(&path, found);
            continue;
        }
        // The boot service is for machines, on a listener of its own.
        if path.ends_with("src/web/boot.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for call in text.split(".route(").skip(1) {
            let named = call.trim_start().strip_prefix('"');
            let named = named.and_then(|rest| rest.split('"').next());
            found.push(
                named
                    .unwrap_or_else(|| panic!("a route without a name in {path:?}"))
                    .to_owned(),
            );
        }
    }
}

fn is_open(path: &str) -> bool {
    OPEN.iter()
        .any(|open| path == *open || (open.ends_with('/') && path.starts_with(open)))
}

fn is_for_programs(path: &str) -> bool {
    path.starts_with("/api/v1") || ["/stream", "/metrics"].contains(&path)
}

struct Room {
    _site: Site,
    server: Server,
    admin: LoggedIn,
    viewer: LoggedIn,
    routes: Vec<String>,
}

fn room() -> Room {
    let site = Site::new("");
    site.users(&[("admin", Role::Operator), ("alice", Role::Viewer)]);
    let server = site.serve();
    let (admin, viewer) = (server.log_in("admin"), server.log_in("alice"));
    let document = server.get("/api/v1/openapi.json", &[admin.cookie()]);
    let names = [("mac", "52:54:00:12:34:56"), ("id", "1")];
    let routes: Vec<String> = routes(&serde_json::from_str(&document.text).unwrap())
        .iter()
        .map(|path| filled(path, &names))
        .collect();
    let many = [
        "/",
        "/users",
        "/clients/act",
        "/api/v1/clients",
        "/stream",
        "/metrics",
        "/logout",
    ];
    assert!(
        many.iter()
            .all(|path| routes.iter().any(|route| route == path)),
        "{routes:?}"
    );
    Room {
        _site: site,
        server,
        admin,
        viewer,
        routes,
    }
}

#[test]
fn nobody_comes_in_without_a_login() {
    let room = room();
    let strangers: [&[(&str, &str)]; 4] = [
        &[],
        &[("Cookie", "netroot=guessed")],
        &[("Authorization", "Bearer netroot_000000000000_guessed")],
        &[("Authorization", "Basic YWRtaW46YWRtaW4=")],
    ];
    for path in room.routes.iter().filter(|path| !is_open(path)) {
        for head in strangers {
            for method in ["GET", "HEAD"].iter().chain(&METHODS) {
                let answer = room.server.ask(method, path, head, "");
                let told = format!("{method} {path} {head:?}: {answer:?}");
                if is_for_programs(path) || head.first().is_some_and(|(name, _)| *name != "Cookie")
                {
                    assert_eq!(answer.status, 401, "{told}");
                    assert!(
                        answer.is("www-authenticate").starts_with("Bearer"),
                        "{told}"
                    );
                } else {
                    assert_eq!(answer.status, 303, "{told}");
                    assert!(answer.is("location").starts_with("/login"), "{told}");
                }
                assert!(answer.is("set-cookie").is_empty(), "{told}");
            }
        }
    }
    let to = room.server.get("/clients/52:54:00:12:34:56?a=b%20c", &[]);
    assert_eq!(
        to.is("location"),
        "/login?next=%2Fclients%2F52%3A54%3A00%3A12%3A34%3A56%3Fa%3Db%2520c"
    );
    let nowhere = room.server.get("/no-such-page", &[]);
    assert_eq!(
        nowhere.status, 303,
        "what there is not is told nobody, either"
    );
}

#[test]
fn a_viewer_looks_at_everything_and_changes_nothing() {
    let room = room();
    let own = [room.viewer.cookie(), ("X-CSRF-Token", &room.viewer.csrf)];
    for path in room.routes.iter().filter(|path| !is_open(path)) {
        if *path != "/stream" {
            let looked = room.server.get(path, &own);
            let is_sent_away = looked.is("location").starts_with("/login");
            assert!(
                ![401, 403].contains(&looked.status) && !is_sent_away,
                "GET {path}: {looked:?}"
            );
            assert!(looked.status < 500, "GET {path}: {looked:?}");
        }
        for method in METHODS {
            if OWN.contains(&path.as_str()) && method == "POST" {
                continue;
            }
            let answer = room.server.ask(method, path, &own, "");
            if OWN.contains(&path.as_str()) {
                assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
                continue;
            }
            assert_eq!(answer.status, 403, "{method} {path}: {answer:?}");
            assert!(
                answer.text.contains("role operator"),
                "{method} {path}: {answer:?}"
            );
        }
    }
}

#[test]
fn nothing_is_changed_by_another_site_or_without_what_only_our_pages_know() {
    let room = room();
    let server = &room.server;
    let cookie = room.admin.cookie();
    let right = ("X-CSRF-Token", room.admin.csrf.as_str());
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let refused = |path: &str, head: &[(&str, &str)], body: &str| {
        let answer: Answer = server.ask("POST", path, head, body);
        assert_eq!(
            answer.status, 403,
            "POST {path} {head:?} {body}: {answer:?}"
        );
    };
    let others = format!("csrf={}", room.viewer.csrf);
    let twice = format!("csrf=&csrf={}", room.admin.csrf);
    for path in room.routes.iter().filter(|path| !is_open(path)) {
        refused(path, &[cookie], "");
        refused(path, &[cookie, form], "");
        refused(path, &[cookie, form], "csrf=");
        refused(path, &[cookie, form], &others);
        refused(path, &[cookie, form], &twice);
        refused(
            path,
            &[cookie, ("X-CSRF-Token", room.viewer.csrf.as_str())],
            "",
        );
        refused(path, &[cookie, ("X-CSRF-Token", "")], "");
        for foreign in [
            ("Origin", "https://evil.example"),
            ("Origin", "null"),
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Site", "same-site"),
        ] {
            refused(path, &[cookie, right, foreign], "");
        }
    }
    // Logging somebody in as somebody else is a change, too.
    for path in ["/login", "/welcome"] {
        let answer = server.post(path, &[("Origin", "https://evil.example")], "name=admin");
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    let users = room._site.json(&["user", "list"]);
    assert_eq!(users.as_array().unwrap().len(), 2, "nothing was changed");
    // And with all of it, it is.
    let origin = format!("http://{}", server.admin);
    let head = [
        cookie,
        ("Origin", &origin),
        ("Sec-Fetch-Site", "same-origin"),
    ];
    let added = server.post(
        "/users/add",
        &head,
        &room.admin.form("name=bob&role=viewer"),
    );
    assert_eq!(added.status, 200, "{added:?}");
    assert!(added.text.contains("/welcome?key="), "{added:?}");
}

#[test]
fn every_answer_tells_the_browser_what_it_may_do() {
    let room = room();
    for path in &room.routes {
        if path == "/stream" {
            continue;
        }
        for head in [&[][..], &[room.viewer.cookie()]] {
            let answer = room.server.get(path, head);
            let told = format!("{path}: {answer:?}");
            let csp = answer.is("content-security-policy");
            assert!(
                csp.starts_with("default-src 'none'; script-src 'self';"),
                "{told}"
            );
            assert!(
                csp.contains("frame-ancestors 'none'") && !csp.contains("unsafe"),
                "{told}"
            );
            assert_eq!(answer.is("x-content-type-options"), "nosniff", "{told}");
            assert_eq!(answer.is("x-frame-options"), "DENY", "{told}");
            assert_eq!(answer.is("referrer-policy"), "same-origin", "{told}");
            assert_eq!(
                answer.is("cross-origin-opener-policy"),
                "same-origin",
                "{told}"
            );
            assert_eq!(answer.is("cache-control"), "no-store", "{told}");
            assert_eq!(answer.is("strict-transport-security"), "", "{told}");
        }
    }
    let page = room.server.get("/", &[room.viewer.cookie()]);
    assert!(
        !page.text.contains(" style=") && !page.text.contains("<style"),
        "{}",
        page.text
    );
    let (_, rest) = page.text.split_once("href=\"/assets/").unwrap();
    let asset = format!("/assets/{}", rest.split('"').next().unwrap());
    let asset = room.server.get(&asset, &[]);
    assert_eq!(
        (asset.status, asset.is("x-content-type-options")),
        (200, "nosniff")
    );
    assert!(asset.is("cache-control").contains("immutable"), "{asset:?}");
}

#[test]
fn every_call_of_the_api_is_in_its_document() {
    let room = room();
    let own = [
        room.admin.cookie(),
        ("X-CSRF-Token", room.admin.csrf.as_str()),
    ];
    // Calls are registered together with what the document tells of them; only what answers for paths
    // that are not there is no call.
    let mut registered = Vec::new();
    let api = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web/api");
    in_source(&api, &mut registered);
    assert_eq!(registered, ["/api/v1/{*nowhere}"]);
    let document = room.server.get("/api/v1/openapi.json", &own);
    let document: Value = serde_json::from_str(&document.text).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        let asked = filled(path, &[("id", "1")]);
        for (method, call) in item.as_object().unwrap() {
            let told = format!("{method} {path}");
            assert!(call["summary"].is_string(), "{told} says what it does");
            assert!(call["tags"][0].is_string(), "{told} has a place");
            assert!(call["responses"]["401"].is_object(), "{told}");
            assert!(call["security"][0]["token"].is_array(), "{told}");
            let (method, text) = (method.to_uppercase(), ("Content-Type", "text/plain"));
            let answer = room
                .server
                .ask(&method, &asked, &[&own[..], &[text]].concat(), "");
            assert_ne!(answer.status, 405, "{told}: {answer:?}");
            assert!(
                !answer.text.contains("no such resource"),
                "{told}: {answer:?}"
            );
            let status = answer.status.to_string();
            assert!(call["responses"][&status].is_object(), "{told}: {answer:?}");
        }
    }
}
