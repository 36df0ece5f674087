//! Groups and rollouts: what their page tells, and what its forms and programs do.

use netroot::library::{KernelArg, Mode};
use serde_json::Value;

use super::site::{Server, Site, hidden};

fn filled(
    server: &Server,
    from: &str,
    fields: &[(&'static str, &str)],
) -> Vec<(&'static str, String)> {
    let page = server.page(from);
    let mut all = vec![("csrf", hidden(&page, "csrf"))];
    if page.contains("name=\"seen\"") {
        all.push(("seen", hidden(&page, "seen")));
    }
    all.extend(
        fields
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned())),
    );
    all
}

fn post(server: &Server, path: &str, from: &str, fields: &[(&'static str, &str)]) -> String {
    server.post_and_look(path, &filled(server, from, fields))
}

#[test]
fn what_is_said_for_a_group_is_told_to_its_clients() {
    let site = Site::new();
    site.seal("fc28");
    let mac = site.add(1, "lab-1", Mode::Shared, &["quiet"]);
    let server = site.serve();
    let page = server.page("/groups");
    assert!(page.contains("href=\"/groups/lab\""), "{page}");
    let set = [
        ("args", "nosplash"),
        ("image", "fc28"),
        ("mode", "ephemeral"),
    ];
    let page = post(&server, "/groups/lab/set", "/groups/lab", &set);
    assert!(page.contains("Saved."), "{page}");
    let cfg = server.boot_cfg(&mac);
    assert!(
        cfg.contains(" nosplash quiet"),
        "the client's own come last: {cfg}"
    );
    let page = post(
        &server,
        "/groups/lab/set",
        "/groups/lab",
        &[("args", "root=/dev/sda")],
    );
    assert!(page.contains("Not saved: "), "{page}");
    let page = post(&server, "/groups", "/groups", &[("name", "Room 5")]);
    assert!(page.contains("Not made: "), "{page}");
    // It asks, and takes its members out.
    let page = server.page("/groups/lab/remove");
    assert!(page.contains("take lab-1 out of it"), "{page}");
    let page = post(&server, "/groups/lab/remove", "/groups/lab/remove", &[]);
    assert!(page.contains("No groups yet"), "{page}");
    assert!(site.client(&mac).groups.is_empty());
}

#[test]
fn a_word_that_is_refused_by_now_refuses_no_form_that_leaves_it() {
    let site = Site::new();
    site.seal("fc28");
    let mac = site.add(1, "lab-1", Mode::Shared, &["quiet"]);
    site.netroot(&["group", "set", "lab", "--arg", "nosplash"]);
    let kept = |path: &str, word: &str| {
        let path = site.lib.root().join(path);
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace(word, &format!("{word}, \"ip=dhcp\""));
        std::fs::write(&path, text).unwrap();
    };
    kept("groups/lab.json", "\"nosplash\"");
    kept(&format!("clients/{}.json", mac.bare()), "\"quiet\"");
    let server = site.serve();
    let group = "/groups/lab";
    assert!(server.page(group).contains("value=\"nosplash ip=dhcp\""));
    let args = |args: &[KernelArg]| {
        let words: Vec<&str> = args.iter().map(KernelArg::as_str).collect();
        words.join(" ")
    };
    let lab = "lab".parse().unwrap();
    let of_group = || args(&site.lib.group(&lab).unwrap().args);
    let page = format!("/clients/{mac}");
    let client = |words: &str| {
        let seen = site.client(&mac).edition().as_str().to_owned();
        let fields = [("name", "lab-1"), ("groups", "lab"), ("macs", "")];
        let mut all: Vec<_> = fields.map(|(name, value)| (name, value.to_owned())).into();
        all.extend([("args", words.to_owned()), ("edition", seen)]);
        all.push(("csrf", hidden(&server.page(&page), "csrf")));
        server.post_and_look(&format!("{page}/edit"), &all)
    };
    let of_client = || args(&site.client(&mac).args);
    for (words, is_taken) in [
        ("nosplash ip=dhcp", true),
        ("ip=dhcp debug", true),
        ("ip=dhcp ip=on", false),
        ("nosplash rw", false),
        ("nosplash", true),
        ("nosplash ip=dhcp", false),
    ] {
        let (before, own) = (of_group(), of_client());
        let set = [("args", words), ("mode", "shared")];
        let said = post(&server, "/groups/lab/set", group, &set);
        assert_eq!(said.contains("Saved."), is_taken, "{words}: {said}");
        let changed = client(words);
        assert_eq!(
            changed.contains("Not changed: "),
            !is_taken,
            "{words}: {changed}"
        );
        let now = |before: String| if is_taken { words.to_owned() } else { before };
        assert_eq!((of_group(), of_client()), (now(before), now(own)));
    }
}

#[test]
fn what_is_said_for_a_group_is_not_overwritten_by_who_did_not_see_it() {
    let site = Site::new();
    site.seal("fc28");
    let server = site.serve();
    let edit = |body: &str, on: &str| {
        let tag = format!("\"{on}\"");
        server.send("PATCH", "/api/v1/groups/room5", body, &[("if-match", &tag)])
    };
    let say = r#"{"args": ["quiet"], "image": "fc28", "settings": {"keep_discarded": "3d"}}"#;
    let said = server.send("PATCH", "/api/v1/groups/room5", say, &[]);
    assert_eq!(said.status, 200, "{}", said.text);
    let old = said.header("etag").trim_matches('"').to_owned();
    assert_eq!(
        server.get("/api/v1/groups/room5").header("etag"),
        format!("\"{old}\"")
    );
    // Its form was open while somebody else said something.
    let form = filled(&server, "/groups/room5", &[("args", "nosplash")]);
    let removal = filled(&server, "/groups/room5/remove", &[]);
    let new = edit(r#"{"args": ["quiet", "debug"]}"#, &old);
    assert_eq!(new.status, 200, "{}", new.text);
    assert_eq!(edit(r#"{"args": []}"#, &old).status, 412);
    let gone = server.send(
        "DELETE",
        "/api/v1/groups/room5",
        "{}",
        &[("if-match", &format!("\"{old}\""))],
    );
    assert_eq!(gone.status, 412, "{}", gone.text);
    for (path, fields) in [
        ("/groups/room5/set", form),
        ("/groups/room5/remove", removal),
    ] {
        let page = server.post_and_look(path, &fields);
        assert!(page.contains("meanwhile"), "{path}: {page}");
    }
    // Nor by who makes one of that name.
    let page = post(
        &server,
        "/groups",
        "/groups",
        &[("name", "room5"), ("args", "mine")],
    );
    assert!(page.contains("There is a group room5 already"), "{page}");
    let now: Value = serde_json::from_str(&server.get("/api/v1/groups/room5").text).unwrap();
    assert_eq!(now["args"], serde_json::json!(["quiet", "debug"]));
    assert_eq!(now["image"], "fc28");
    assert_eq!(now["settings"]["keep_discarded"], "3d");
}

#[test]
fn a_rollout_is_asked_about_begun_watched_and_stopped() {
    let site = Site::new();
    site.seal("fc28");
    site.seal("fc29");
    let macs = [1, 2, 3].map(|last| site.add(last, &format!("lab-{last}"), Mode::Shared, &[]));
    let server = site.serve();
    let wanted = [
        ("clients", "@lab"),
        ("image", "fc29"),
        ("canary", "1"),
        ("within", "10m"),
    ];
    for (name, wrong, why) in [
        ("within", "1m", "a time such as"),
        ("canary", "0", "how many"),
        ("canary", "3", "nobody is left to follow"),
        ("image", "fc99", "there is no image"),
    ] {
        let fields = wanted.map(|(key, value)| (key, if key == name { wrong } else { value }));
        let page = post(&server, "/rollouts", "/groups", &fields);
        assert!(page.contains(why), "{wrong}: {page}");
    }
    let asked = server.post("/rollouts", &filled(&server, "/groups", &wanted));
    let page = asked.text;
    assert!(page.contains("Roll fc29@1 out to @lab?"), "{page}");
    assert!(site.client(&macs[0]).armed.is_none(), "it only asks");
    let sure = [&wanted[..], &[("sure", "yes")]].concat();
    let page = post(&server, "/rollouts", "/groups", &sure);
    assert!(page.contains("has begun"), "{page}");
    assert!(site.client(&macs[0]).armed.is_some());
    assert!(site.client(&macs[1]).armed.is_none());

    let mut watching = server.watch("groups");
    let _running = site.boot(&server, &macs[0]);
    watching.hears("rollouts", "runs it, for");
    let one = server.get("/api/v1/rollouts/1").text;
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(one["stage"]["is"], "canaries");
    assert_eq!(one["progress"][0]["runs_it"], true);

    // Who types what their address might be.
    let typed = server.get("/rollouts");
    assert_eq!((typed.status, typed.header("location")), (303, "/groups"));
    let all = server.get("/api/v1/rollouts");
    let all: Value = serde_json::from_str(&all.text).unwrap();
    assert_eq!(all[0]["id"], 1);
    // The group's own page tells of it, too, and no other group's.
    let page = server.page("/groups/lab");
    assert!(page.contains("data-topic=\"group:lab\""), "{page}");
    assert!(page.contains("fc29@1 to @lab"), "{page}");
    let mut of_group = server.watch("group:lab");
    of_group.hears("rollouts", "runs it, for");
    site.netroot(&["group", "set", "room5", "--arg", "quiet"]);
    assert!(!server.page("/groups/room5").contains("fc29@1 to @lab"));

    let page = post(&server, "/rollouts/1/stop", "/rollouts/1/stop", &[]);
    assert!(page.contains("is stopped"), "{page}");
    assert_eq!(site.client(&macs[0]).image.to_string(), "fc28");
    let again = server.get("/rollouts/1/stop");
    assert_eq!(again.status, 409, "{}", again.text);
    assert!(again.text.contains("it is over"), "{}", again.text);
}
