//! Coming in, and being put out.

use std::collections::BTreeSet;
use std::fs;

use netroot::library::Role;

use crate::network::{LoggedIn, PASSWORD, Server, Site};

fn key_of(link: &str) -> &str {
    link.split_once("key=")
        .unwrap()
        .1
        .split(['"', '<', '\n'])
        .next()
        .unwrap()
}

fn choose(key: &str, password: &str) -> String {
    let password = password.replace(' ', "+");
    format!("key={key}&password={password}&again={password}")
}

fn may_look(server: &Server, who: &LoggedIn) -> bool {
    server.get("/account", &[who.cookie()]).status == 200
}

#[test]
fn the_first_user_comes_in_by_a_link_that_holds_once() {
    let site = Site::new("");
    let server = site.serve();
    let start = server.get("/", &[]);
    assert_eq!((start.status, start.is("location")), (303, "/login"));
    let login = server.get("/login", &[]);
    assert!(
        login.text.contains("netroot user add --first"),
        "{}",
        login.text
    );
    assert!(!login.text.contains("name=\"password\""), "{}", login.text);

    assert_eq!(
        site.json(&["user", "add", "--first", "--dry-run"])["name"],
        "admin"
    );
    assert_eq!(site.json(&["user", "list"]), serde_json::json!([]));
    let added = site.json(&["user", "add", "--first"]);
    assert_eq!(added["user"]["role"], "operator");
    let link = added["link"].as_str().unwrap().to_owned();
    assert!(link.starts_with("http://127.0.0.1:"), "{link}");
    let second = site.run(&["user", "add", "--first"], "");
    assert_eq!(second.status.code(), Some(1));
    assert!(server.get("/login", &[]).text.contains("name=\"password\""));

    let key = key_of(&link);
    let page = server.get(&format!("/welcome?key={key}"), &[]);
    assert_eq!(page.status, 200);
    assert!(page.text.contains("Welcome, admin"), "{}", page.text);
    let differ = server.post(
        "/welcome",
        &[],
        &format!("key={key}&password=one+password&again=another+one"),
    );
    assert_eq!(differ.status, 422);
    let short = server.post("/welcome", &[], &choose(key, "short"));
    assert_eq!(short.status, 422);
    assert!(short.text.contains("10 characters"), "{}", short.text);
    let chosen = server.post("/welcome", &[], &choose(key, PASSWORD));
    assert_eq!(
        (chosen.status, chosen.is("location")),
        (303, "/"),
        "{chosen:?}"
    );
    let admin = server.logged_in(&chosen);
    assert!(may_look(&server, &admin));
    for again in [
        server.get(&format!("/welcome?key={key}"), &[]),
        server.post("/welcome", &[], &choose(key, "another password")),
        server.get("/welcome?key=guessed", &[]),
        server.get("/welcome", &[]),
    ] {
        assert_eq!(again.status, 410, "{again:?}");
        assert!(again.is("set-cookie").is_empty());
    }
    server.log_in("admin");
    let events = site.ok(&["event", "list"]);
    for what in ["user-add", "password-set", "login"] {
        assert!(events.contains(what), "{events}");
    }
}

#[test]
fn a_cookie_is_for_this_server_alone_and_new_at_every_login() {
    let site = Site::new("");
    site.users(&[("admin", Role::Operator)]);
    let server = site.serve();
    let answer = server.tries("admin", PASSWORD);
    let cookie = answer.is("set-cookie");
    let (held, rest) = cookie.split_once(';').unwrap();
    assert_eq!(rest, " Path=/; HttpOnly; SameSite=Strict");
    assert_eq!(held.len(), "netroot=".len() + 43, "{held}");
    let first = server.logged_in(&answer);
    // One that was foisted on the browser before is not taken over.
    let body = format!("name=admin&password={}", PASSWORD.replace(' ', "+"));
    let again = server.post("/login", &[first.cookie()], &body);
    let second = server.logged_in(&again);
    assert_ne!((&first.cookie, &first.csrf), (&second.cookie, &second.csrf));
    assert!(!may_look(&server, &first) && may_look(&server, &second));
    let out = server.post("/logout", &[second.cookie()], &second.form(""));
    assert_eq!((out.status, out.is("location")), (303, "/login"));
    assert!(
        out.is("set-cookie").starts_with("netroot=; ")
            && out.is("set-cookie").ends_with("Max-Age=0")
    );
    assert!(!may_look(&server, &second), "the server forgets it, too");
    let to = |next: &str| {
        let body = format!(
            "name=admin&password={}&next={next}",
            PASSWORD.replace(' ', "+")
        );
        server.post("/login", &[], &body).is("location").to_owned()
    };
    assert_eq!(to("%2Fusers"), "/users");
    assert_eq!(to("https%3A%2F%2Fevil.example"), "/");
    assert_eq!(to("%2F%2Fevil.example"), "/");
}

#[test]
fn guessing_is_slowed_down_and_tells_nothing() {
    let site = Site::new("");
    site.users(&[("admin", Role::Operator), ("alice", Role::Viewer)]);
    let server = site.serve();
    // A slow machine may have waited long enough by the time of the next try, so this goes on until one
    // try follows another quickly enough.
    let told = |name: &str| {
        let mut told = BTreeSet::new();
        for tried in 0..30 {
            let wrong = server.tries(name, "not the password");
            assert!([403, 429].contains(&wrong.status), "{wrong:?}");
            assert!(wrong.status == 403 || tried >= 3, "people mistype");
            let seconds = |c: char| if c.is_ascii_digit() { '0' } else { c };
            let text: String = wrong
                .text
                .replace(name, "NAME")
                .chars()
                .map(seconds)
                .collect();
            told.insert((wrong.status, text.replace("00", "0")));
            // Even the right one has to wait.
            if wrong.status == 429 && server.tries(name, PASSWORD).status == 429 {
                return told;
            }
        }
        panic!("nobody is slowed down: {told:?}");
    };
    let (known, unknown) = (told("admin"), told("nobody"));
    assert_eq!(known.len(), 2, "wrong, and too often: {known:?}");
    assert_eq!(known, unknown, "the same for who is no user");
    // Another user does not wait.
    server.log_in("alice");
    let events = site.ok(&["event", "list", "--what", "login-refused"]);
    assert!(
        events.contains("admin") && events.contains("nobody"),
        "{events}"
    );
}

#[test]
fn what_a_user_may_do_is_what_the_document_says_now() {
    let site = Site::new("");
    site.users(&[("admin", Role::Operator), ("bob", Role::Operator)]);
    let server = site.serve();
    let bob = server.log_in("bob");
    let makes = |name: &str| {
        let body = bob.form(&format!("name={name}&role=viewer&expires=30d"));
        server.post("/tokens/add", &[bob.cookie()], &body)
    };
    let made = makes("first");
    assert_eq!(made.status, 200, "{made:?}");
    let secret = made
        .text
        .split("<pre class=\"copy\"><code>")
        .nth(1)
        .unwrap();
    let secret = secret.split('<').next().unwrap();
    let bearer = format!("Bearer {secret}");
    let shows = |server: &Server| {
        server
            .get("/api/v1/clients", &[("Authorization", &bearer)])
            .status
    };
    assert_eq!(shows(&server), 200);
    assert!(
        !server.get("/users", &[bob.cookie()]).text.contains(secret),
        "it is shown once"
    );

    site.ok(&["user", "role", "bob", "viewer", "--yes"]);
    assert_eq!(makes("second").status, 403, "at once");
    assert!(may_look(&server, &bob));
    site.ok(&["user", "remove", "bob", "--yes"]);
    assert!(!may_look(&server, &bob));
    assert_eq!(shows(&server), 401, "what bob made goes with bob");
    // Somebody else of that name is not let in by the old cookie.
    site.users(&[("bob", Role::Operator)]);
    assert!(!may_look(&server, &bob));
}

#[test]
fn another_password_ends_every_other_login() {
    let site = Site::new("");
    site.users(&[("alice", Role::Viewer)]);
    let server = site.serve();
    let (here, there) = (server.log_in("alice"), server.log_in("alice"));
    let change = |old: &str, new: &str, again: &str| {
        let fields = format!("old={old}&new={new}&again={again}").replace(' ', "+");
        server.post("/account/password", &[here.cookie()], &here.form(&fields))
    };
    let wrong = change("not the old one", "another password", "another password");
    assert_eq!(wrong.status, 400, "{wrong:?}");
    assert_eq!(
        change(PASSWORD, "another password", "and another one").status,
        422
    );
    assert_eq!(change(PASSWORD, "short", "short").status, 400);
    assert!(may_look(&server, &there), "nothing has changed yet");
    let changed = change(PASSWORD, "another password", "another password");
    assert_eq!(
        (changed.status, changed.is("location")),
        (303, "/account"),
        "{changed:?}"
    );
    assert!(may_look(&server, &here) && !may_look(&server, &there));
    assert_eq!(server.tries("alice", PASSWORD).status, 403);
    let again = server.tries("alice", "another password");
    let there = server.logged_in(&again);
    // The other one is ended from here, and only one's own.
    let page = server.get("/account", &[here.cookie()]).text;
    let (_, rest) = page.split_once("name=\"number\" value=\"").unwrap();
    let number = rest.split('"').next().unwrap();
    let fields = here.form(&format!("number={number}"));
    let ended = server.post("/account/logins/end", &[here.cookie()], &fields);
    assert_eq!(ended.status, 303, "{ended:?}");
    assert!(may_look(&server, &here) && !may_look(&server, &there));
    // A new link does the same to all of them.
    let link = site.json(&["user", "invite", "alice"])["link"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(may_look(&server, &here), "a link alone changes nothing");
    assert_eq!(
        server
            .post("/welcome", &[], &choose(key_of(&link), PASSWORD))
            .status,
        303
    );
    assert!(!may_look(&server, &here));
}

#[test]
fn a_token_is_for_programs_and_holds_until_its_day() {
    let site = Site::new("");
    let server = site.serve();
    let made = site.json(&[
        "token",
        "add",
        "backup",
        "--role",
        "operator",
        "--expires",
        "12h",
    ]);
    let secret = made["secret"].as_str().unwrap();
    let bearer = format!("Bearer {secret}");
    let head = [("Authorization", bearer.as_str())];
    assert_eq!(server.get("/metrics", &head).status, 200);
    assert_eq!(server.get("/", &head).status, 200);
    // No cookie goes with it, so nothing has to prove that a page of ours sent it.
    let json = [head[0], ("Content-Type", "application/json")];
    let call = r#"{"mac":"52:54:00:12:34:56","image":"fc28","mode":"shared","dry_run":true}"#;
    let answer = server.ask("POST", "/api/v1/clients", &json, call);
    assert_eq!(
        answer.status, 404,
        "let in, and there is no such image: {answer:?}"
    );
    // It cannot make what outlives it.
    for (path, body) in [
        ("/users/add", "name=bob&role=operator"),
        ("/tokens/add", "name=more&role=viewer&expires=never"),
    ] {
        assert_eq!(server.post(path, &head, body).status, 403);
    }
    let account = server.post("/account/password", &head, "old=a&new=b&again=b");
    assert_eq!(account.status, 403, "{account:?}");
    site.ok(&["token", "add", "looker", "--role", "viewer"]);
    let list = site.json(&["token", "list"]);
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert!(
        list[0]["last_used"].is_string() && list[1]["last_used"].is_null(),
        "{list}"
    );

    let id = secret.split('_').nth(1).unwrap();
    let path = site.library().join(format!("tokens/{id}.json"));
    let text = fs::read_to_string(&path).unwrap();
    let until = made["token"]["until"].as_str().unwrap();
    fs::write(&path, text.replace(until, "2026-01-01T00:00:00Z")).unwrap();
    let over = server.get("/api/v1/clients", &head);
    assert_eq!(over.status, 401, "{over:?}");
    assert!(
        over.is("content-type")
            .starts_with("application/problem+json")
    );
    site.ok(&["token", "remove", "looker", "--yes"]);
    assert_eq!(
        site.run(&["token", "remove", "looker", "--yes"], "")
            .status
            .code(),
        Some(1)
    );
}

#[test]
fn a_name_that_is_not_this_servers_is_refused() {
    let site = Site::new("names = [\"netroot.example.edu\"]\nmetrics = \"open\"\n");
    let server = site.serve();
    for own in [
        "localhost",
        "localhost:8081",
        "127.0.0.1:1",
        "[::1]:8081",
        "server-01.example.edu",
        "server-01:8081",
        "netroot.example.edu:443",
    ] {
        let answer = server.get("/login", &[("Host", own)]);
        assert_eq!(answer.status, 200, "{own}: {answer:?}");
    }
    for other in [
        "evil.example",
        "evil.example:8081",
        "netroot.example.edu.evil.example",
        "a@b",
        "",
    ] {
        for path in ["/login", "/", "/healthz", "/api/v1/clients"] {
            let answer = server.get(path, &[("Host", other)]);
            assert_eq!(answer.status, 421, "{other} {path}: {answer:?}");
        }
    }
    // Told to be open, /metrics is, and nothing else.
    assert_eq!(server.get("/metrics", &[]).status, 200);
    assert_eq!(server.ask("POST", "/metrics", &[], "").status, 401);
    assert_eq!(server.get("/api/v1/clients", &[]).status, 401);
}

#[test]
fn a_password_may_be_given_on_standard_input() {
    let site = Site::new("");
    let short = site.run(
        &[
            "user",
            "add",
            "alice",
            "--role",
            "viewer",
            "--password-stdin",
        ],
        "short\n",
    );
    assert_eq!(short.status.code(), Some(1));
    let args = [
        "user",
        "add",
        "alice",
        "--role",
        "viewer",
        "--password-stdin",
    ];
    let added = site.run(&args, &format!("{PASSWORD}\n"));
    assert!(added.status.success(), "{added:?}");
    let server = site.serve();
    server.log_in("alice");
    let list = site.ok(&["user", "list"]);
    assert!(list.contains("alice  viewer  chosen"), "{list}");
    let nobody = site.run(&["user", "add", "bob"], "");
    assert_eq!(nobody.status.code(), Some(2), "a role is needed");
}

#[test]
fn pages_of_users_show_who_may_come_in() {
    let site = Site::new("");
    site.users(&[("admin", Role::Operator), ("alice", Role::Viewer)]);
    let server = site.serve();
    let (admin, alice) = (server.log_in("admin"), server.log_in("alice"));
    let seen = server.get("/users", &[alice.cookie()]).text;
    assert!(
        seen.contains("admin") && !seen.contains("/users/add"),
        "{seen}"
    );
    let post = |path: &str, fields: &str| server.post(path, &[admin.cookie()], &admin.form(fields));
    let wrong = post("/users/add", "name=Not+A+Name&role=viewer");
    assert_eq!(wrong.status, 422, "{wrong:?}");
    let twice = post("/users/add", "name=alice&role=viewer");
    assert_eq!(twice.status, 409, "{twice:?}");
    let invited = post("/users/alice/invite", "");
    let key = key_of(&invited.text);
    assert!(
        invited
            .text
            .contains(&format!("http://{}/welcome?key=", server.admin)),
        "{}",
        invited.text
    );
    assert_eq!(server.get(&format!("/welcome?key={key}"), &[]).status, 200);
    assert_eq!(post("/users/alice/role", "role=operator").status, 303);
    assert!(
        server
            .get("/users", &[alice.cookie()])
            .text
            .contains("/users/add")
    );
    let asked = server.get("/users/alice/remove", &[admin.cookie()]);
    assert!(asked.text.contains("Remove alice?"), "{}", asked.text);
    assert!(may_look(&server, &alice), "asking removes nobody");
    assert_eq!(post("/users/alice/remove", "").status, 303);
    assert!(!may_look(&server, &alice));
    let own = post("/users/admin/remove", "");
    assert_eq!(own.status, 303);
    assert!(
        server
            .get("/users", &[admin.cookie()])
            .text
            .contains("that is you")
    );
    assert_eq!(post("/tokens/nothing/remove", "").status, 303);
    assert!(
        server
            .get("/users", &[admin.cookie()])
            .text
            .contains("no token `nothing`")
    );
    assert!(may_look(&server, &admin));
}

#[test]
fn the_api_manages_users_and_tokens_for_people() {
    let site = Site::new("");
    site.users(&[("admin", Role::Operator)]);
    let server = site.serve();
    let admin = server.log_in("admin");
    let call = |method: &str, path: &str, body: &str| {
        let head = [
            admin.cookie(),
            ("X-CSRF-Token", admin.csrf.as_str()),
            ("Content-Type", "application/json"),
        ];
        let body = if body.is_empty() { "{}" } else { body };
        let answer = server.ask(method, &format!("/api/v1{path}"), &head, body);
        let value = serde_json::from_str(&answer.text).unwrap_or(serde_json::Value::Null);
        (answer.status, value)
    };
    let dry = r#"{"name":"bob","role":"operator","dry_run":true}"#;
    assert_eq!(call("POST", "/users", dry).0, 204);
    assert_eq!(call("GET", "/users", "").1.as_array().unwrap().len(), 1);
    let (status, added) = call("POST", "/users", r#"{"name":"bob","role":"operator"}"#);
    assert_eq!((status, &added["user"]["name"]), (201, &"bob".into()));
    assert_eq!(call("POST", "/users", dry).0, 409);
    let key = added["key"].as_str().unwrap();
    let dry = r#"{"dry_run":true}"#;
    assert_eq!(call("POST", "/users/bob/invite", dry).0, 204);
    assert_eq!(call("POST", "/users/eve/invite", dry).0, 404);
    assert_eq!(server.get(&format!("/welcome?key={key}"), &[]).status, 200);
    let (status, newer) = call("POST", "/users/bob/invite", "");
    assert_eq!(status, 201);
    assert_eq!(server.get(&format!("/welcome?key={key}"), &[]).status, 410);
    let key = newer["key"].as_str().unwrap();
    assert_eq!(
        server.post("/welcome", &[], &choose(key, PASSWORD)).status,
        303
    );

    let (status, made) = call("POST", "/tokens", r#"{"name":"backup","role":"operator"}"#);
    assert_eq!(status, 201, "{made}");
    let bearer = format!("Bearer {}", made["secret"].as_str().unwrap());
    let by_token = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
    ];
    let (status, token) = call("DELETE", "/tokens/backup", dry);
    assert_eq!((status, &token["name"]), (200, &"backup".into()));
    assert_eq!(call("DELETE", "/tokens/other", dry).0, 404);
    let users = server.get("/api/v1/users", &by_token[..1]);
    assert_eq!(users.status, 200);
    assert!(!users.text.contains("argon2"), "{}", users.text);
    for (method, path, body) in [
        ("POST", "/users", r#"{"name":"eve","role":"operator"}"#),
        ("PATCH", "/users/bob", r#"{"role":"viewer"}"#),
        ("DELETE", "/users/bob", "{}"),
        ("POST", "/users/bob/invite", "{}"),
        ("POST", "/tokens", r#"{"name":"more","role":"viewer"}"#),
        ("DELETE", "/tokens/backup", "{}"),
    ] {
        let answer = server.ask(method, &format!("/api/v1{path}"), &by_token, body);
        assert_eq!(answer.status, 403, "{method} {path}: {answer:?}");
    }
    assert_eq!(call("PATCH", "/users/bob", r#"{"role":"viewer"}"#).0, 200);
    assert_eq!(call("DELETE", "/users/admin", "").0, 409, "oneself");
    assert_eq!(call("DELETE", "/users/bob", r#"{"dry_run":true}"#).0, 200);
    assert_eq!(call("DELETE", "/users/bob", "").0, 200);
    assert_eq!(call("DELETE", "/users/bob", "").0, 404);
    assert_eq!(call("DELETE", "/tokens/backup", "").0, 200);
    assert_eq!(server.get("/api/v1/users", &by_token[..1]).status, 401);
}

#[test]
fn two_operators_do_not_overwrite_each_other() {
    let site = Site::new("");
    site.users(&[("admin", Role::Operator), ("bob", Role::Viewer)]);
    let server = site.serve();
    let admin = server.log_in("admin");
    let call = |method: &str, path: &str, tag: &str, body: &str| {
        let head = [
            admin.cookie(),
            ("X-CSRF-Token", admin.csrf.as_str()),
            ("Content-Type", "application/json"),
            ("If-Match", tag),
        ];
        let head = if tag.is_empty() {
            &head[..3]
        } else {
            &head[..]
        };
        server.ask(method, &format!("/api/v1{path}"), head, body)
    };
    let tag_of = |path: &str| {
        let answer = call("GET", path, "", "");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.is("etag").to_owned()
    };
    let seen = tag_of("/users/bob");
    let made = call("PATCH", "/users/bob", &seen, r#"{"role":"operator"}"#);
    assert_eq!(made.status, 200, "{made:?}");
    // Whoever looked before that is told, whatever they want to do.
    for (method, path, body) in [
        ("PATCH", "/users/bob", r#"{"role":"viewer"}"#),
        ("PATCH", "/users/bob", r#"{"role":"viewer","dry_run":true}"#),
        ("POST", "/users/bob/invite", "{}"),
        ("DELETE", "/users/bob", "{}"),
    ] {
        let late = call(method, path, &seen, body);
        assert_eq!(late.status, 412, "{method} {path}: {late:?}");
        assert!(late.text.contains("/api#changed"), "{late:?}");
    }
    assert_eq!(call("POST", "/users/bob/invite", "bob", "{}").status, 400);
    let now = tag_of("/users/bob");
    assert_eq!(
        call(
            "POST",
            "/users/bob/invite",
            &format!("\"other\", {now}"),
            "{}"
        )
        .status,
        201
    );
    assert_eq!(call("DELETE", "/users/bob", &now, "{}").status, 412);
    assert_eq!(call("DELETE", "/users/bob", "*", "{}").status, 200);

    // A token of the same name is another one.
    let make = || {
        call(
            "POST",
            "/tokens",
            "",
            r#"{"name":"backup","role":"viewer"}"#,
        )
    };
    let secret = |made: &str| {
        let made: serde_json::Value = serde_json::from_str(made).unwrap();
        format!("Bearer {}", made["secret"].as_str().unwrap())
    };
    let shown = secret(&make().text);
    let first = tag_of("/tokens/backup");
    assert_eq!(
        server.get("/metrics", &[("Authorization", &shown)]).status,
        200
    );
    assert_eq!(tag_of("/tokens/backup"), first, "its use changes nothing");
    assert_eq!(call("DELETE", "/tokens/backup", "", "{}").status, 200);
    assert_eq!(make().status, 201);
    assert_eq!(call("DELETE", "/tokens/backup", &first, "{}").status, 412);
    let second = tag_of("/tokens/backup");
    assert_eq!(call("DELETE", "/tokens/backup", &second, "{}").status, 200);
}

#[test]
fn what_is_kept_up_to_date_ends_with_the_login() {
    let site = Site::new("");
    site.users(&[("admin", Role::Operator), ("alice", Role::Viewer)]);
    let server = site.serve();
    let alice = server.log_in("alice");
    let secret = site.json(&["token", "add", "looker", "--role", "viewer"])["secret"].clone();
    let bearer = format!("Bearer {}", secret.as_str().unwrap());
    std::thread::scope(|scope| {
        let watches = |head: (&'static str, String)| {
            let server = &server;
            // An answer is whole when the server ends it.
            scope.spawn(move || {
                server
                    .get("/stream?topic=room", &[(head.0, &head.1)])
                    .status
            })
        };
        let browser = watches(("Cookie", alice.cookie.clone()));
        let program = watches(("Authorization", bearer));
        // Both are let in before they are put out.
        std::thread::sleep(std::time::Duration::from_secs(1));
        assert!(!browser.is_finished() && !program.is_finished());
        site.ok(&["user", "remove", "alice", "--yes"]);
        site.ok(&["token", "remove", "looker", "--yes"]);
        assert_eq!(
            (browser.join().unwrap(), program.join().unwrap()),
            (200, 200)
        );
    });
}
