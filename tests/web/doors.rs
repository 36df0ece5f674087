//! The way in, while others try it too.

use netroot::library::Role;

use crate::network::{PASSWORD, Site};

#[test]
fn who_was_in_before_is_not_kept_out_by_whoever_guesses() {
    let site = Site::new("");
    site.users(&[("admin", Role::Operator)]);
    let server = site.serve();
    let answer = server.tries("admin", PASSWORD);
    assert_eq!(answer.status, 303, "{answer:?}");
    let device = answer
        .all("set-cookie")
        .find_map(|value| value.strip_prefix("netroot-device="))
        .and_then(|rest| rest.split(';').next())
        .expect("the browser is given a cookie to be known by");
    let device = format!("netroot-device={device}");
    // Somebody guesses from the same address, until the right password has to wait as well.
    while server.tries("admin", "not the password").status != 429 {}
    assert_eq!(server.tries("admin", PASSWORD).status, 429);
    let log_in = |cookie: &str, password: &str| {
        let body = format!("name=admin&password={}", password.replace(' ', "+"));
        server.post("/login", &[("Cookie", cookie)], &body)
    };
    assert_eq!(log_in(&device, PASSWORD).status, 303);
    // The cookie alone lets nobody in, and one that was made up helps nobody.
    let page = server.get("/account", &[("Cookie", &device)]);
    assert_eq!(
        (page.status, page.is("location")),
        (303, "/login?next=%2Faccount")
    );
    assert_eq!(log_in(&device, "not the password").status, 403);
    let made_up = "netroot-device=0123456789abcdef.00";
    assert_eq!(log_in(made_up, PASSWORD).status, 429);
}

#[test]
fn a_link_that_is_none_counts_for_nothing() {
    let site = Site::new("");
    site.users(&[("admin", Role::Operator)]);
    let server = site.serve();
    for _ in 0..40 {
        let body = "key=made-up&password=a+long+password+of+mine&again=a+long+password+of+mine";
        assert_eq!(server.post("/welcome", &[], body).status, 410);
    }
    assert_eq!(server.tries("admin", PASSWORD).status, 303);
}

/// A wish that is misspelt must not be taken for none.
#[test]
fn what_a_call_does_not_know_is_refused() {
    let site = Site::new("");
    site.users(&[("admin", Role::Operator)]);
    let server = site.serve();
    let admin = server.log_in("admin");
    let ask = |method, path, body| {
        let head = [
            admin.cookie(),
            ("X-CSRF-Token", admin.csrf()),
            ("Content-Type", "application/json"),
        ];
        server.ask(method, path, &head, body)
    };
    let client = r#"{"mac":"52:54:00:00:00:09","image":"fc28","mode":"shared","dryrun":true}"#;
    let answer = ask("POST", "/api/v1/clients", client);
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.text.contains("dryrun"), "{answer:?}");
    let answer = ask(
        "PATCH",
        "/api/v1/clients/52:54:00:00:00:09",
        r#"{"name":"x","dry-run":true}"#,
    );
    assert_eq!(answer.status, 400, "{answer:?}");
}
