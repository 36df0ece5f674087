//! Jobs, events and sessions, as their pages show them.

use netroot::library::*;

use super::site::{Site, mac, pick};

fn site() -> Site {
    let site = Site::new();
    site.seal("fc28");
    site.add(1, "seat", Mode::Persistent, &[]);
    site
}

fn verify(site: &Site) -> JobId {
    let version = "fc28@1".parse().unwrap();
    let task = Task::Verify(VerifyTask { version });
    site.lib.queue_job(task, &Actor::command()).unwrap().id
}

#[test]
fn a_job_is_watched_from_its_queue_to_its_end() {
    let site = site();
    let server = site.serve();
    assert!(server.page("/jobs").contains("Nothing was asked for yet"));
    let mut list = server.watch("jobs");
    let id = verify(&site);
    list.hears("jobs", "verify fc28@1");
    let path = format!("/jobs/{id}");
    assert!(server.page(&path).contains("waits for"), "no worker yet");
    let mut page = server.watch(&format!("job:{id}"));
    page.hears("job-head", "queued");
    let claim = site.lib.claim_job("worker-1").unwrap().unwrap();
    claim.log_step("hashing fc28@1");
    claim.log_line("<script>alert(1)</script>");
    page.hears("log", "hashing fc28@1");
    claim.show_progress(&JobProgress {
        step: 2,
        says: "checking <b>".to_owned(),
        fraction: Some(0.25),
    });
    page.hears("job-head", "value=\\\"25\\\"");
    list.hears("job-1", "25 %");
    let shown = server.page(&path);
    assert!(
        shown.contains("worker-1") && shown.contains("alert(1)"),
        "{shown}"
    );
    assert!(
        !shown.contains("<script>alert") && !shown.contains("checking <b>"),
        "{shown}"
    );
    let version: VersionId = "fc28@1".parse().unwrap();
    let damage = Some("chunk 0 is not what was sealed".to_owned());
    claim
        .finish(Ending::Done(JobOutcome::Verdict { version, damage }))
        .unwrap();
    page.hears("job-head", "is damaged");
    assert!(server.page("/jobs").contains("badge bad"));
}

#[test]
fn jobs_are_cancelled_from_their_page() {
    let site = site();
    let server = site.serve();
    let (waiting, running) = (verify(&site), verify(&site));
    let claim = site.lib.claim_job("w").unwrap().unwrap();
    assert_eq!(claim.job().id, waiting, "the oldest first");
    let page = server.post_and_look(&format!("/jobs/{running}/cancel"), &[]);
    assert!(
        page.contains(&format!("Job {running} is cancelled.")),
        "{page}"
    );
    let page = server.post_and_look(&format!("/jobs/{waiting}/cancel"), &[]);
    assert!(page.contains("is being stopped"), "{page}");
    assert!(claim.is_cancelled().unwrap());
    claim.finish(Ending::Cancelled).unwrap();
    let page = server.post_and_look(&format!("/jobs/{waiting}/cancel"), &[]);
    assert!(page.contains("nothing is left to stop"), "{page}");
    for wrong in ["/jobs/0", "/jobs/x", "/jobs/01"] {
        assert_eq!(server.get(wrong).status, 400, "{wrong}");
    }
    assert_eq!(server.get("/jobs/4711").status, 404);
}

#[test]
fn a_job_whose_worker_is_gone_has_failed() {
    let site = site();
    let server = site.serve();
    let id = verify(&site);
    drop(site.lib.claim_job("w").unwrap());
    let page = server.page(&format!("/jobs/{id}"));
    assert!(page.contains("the worker was killed"), "{page}");
}

#[test]
fn events_are_sentences_and_are_searched_and_exported() {
    let site = site();
    let server = site.serve();
    let mut watching = server.watch("events");
    let act = [
        pick(&site.client(&mac(1))),
        ("act", "reset".into()),
        ("sure", "yes".into()),
        ("when", "now".into()),
    ];
    server.post_and_look("/clients/act", &act);
    watching.hears("events", "reset <a href=");
    let id = verify(&site);
    let page = server.page("/events");
    let client = format!("<a href=\"/clients/{}\">seat</a>", mac(1));
    for told in [
        &format!("reset {client}"),
        &format!("added {client}"),
        &format!("asked for a job: <a href=\"/jobs/{id}\">verify fc28@1</a>"),
        "<dt>server</dt><dd>",
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
    let has = |query: &str, what: &str| server.page(&format!("/events?{query}")).contains(what);
    // A client is found by its name as well as by its address.
    for to in ["seat", "52:54:00:00:00:01"] {
        assert!(has(&format!("to={to}"), "reset <a"), "{to}");
        assert!(!has(&format!("to={to}"), "asked for a job"), "{to}");
    }
    assert!(has("what=job-&since=1h", "verify fc28@1"));
    assert!(!has("what=job-", "reset <a"));
    assert!(has("who=nobody", "Nothing like that has happened"));
    assert!(
        has("since=2026-01-01", "since 2026-01-01"),
        "an own time is kept"
    );
    assert_eq!(server.get("/events?since=yesterday").status, 400);
    let hostile = server.page("/events?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E");
    assert!(!hostile.contains("<script>alert"), "{hostile}");
    let export = hostile.split("/api/v1/events.csv?").nth(1).unwrap();
    let export = export.split('"').next().unwrap().replace("&amp;", "&");
    let csv = server.get(&format!(
        "/api/v1/events.csv?{}",
        export.replace("&#38;", "&")
    ));
    assert_eq!(csv.status, 200);
    let all = server.get("/api/v1/events.jsonl?what=client-").text;
    assert!(all.lines().count() >= 2, "{all}");
}

#[test]
fn events_have_pages() {
    let site = site();
    for _ in 0..90 {
        verify(&site);
    }
    let server = site.serve();
    for _ in 0..30 {
        let group = [
            pick(&site.client(&mac(1))),
            ("act", "join".into()),
            ("group", "hall".into()),
        ];
        server.post_and_look("/clients/act", &group);
    }
    let first = server.page("/events?who=root");
    let rows = |page: &str| page.matches("<tr id=\"event-").count();
    assert_eq!(rows(&first), 100);
    let older = first.split("<nav class=\"pages\"").nth(1).unwrap();
    let older = older.split("href=\"").nth(1).unwrap();
    let older = older.split('"').next().unwrap();
    let older = older.replace("&amp;", "&").replace("&#38;", "&");
    let second = server.page(&older);
    assert!((21..100).contains(&rows(&second)), "{}", rows(&second));
    assert!(
        second.contains("added <a"),
        "the first event of all: {second}"
    );
}

#[test]
fn a_session_shows_what_was_negotiated_and_is_ended_after_a_question() {
    let site = site();
    let client = mac(1);
    let server = site.serve();
    assert!(server.page("/live").contains("Nobody is connected"));
    let mut watching = server.watch("live");
    watching.hears("live-total", "<b>0</b> sessions");
    let _peer = site.boot(&server, &client);
    watching.hears("sessions", "seat");
    let page = server.page("/live");
    for told in [
        "fc28@1",
        "bursts of",
        "127.0.0.1",
        "href=\"/clients/52:54:00:00:00:01\"",
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
    let boot = site.client(&client).boot.unwrap().id.to_string();
    assert!(
        !page.contains(&boot),
        "whoever reads it could log in as this boot: {page}"
    );
    let end = page.split("href=\"/live/").nth(1).unwrap();
    let end = format!("/live/{}", end.split('"').next().unwrap());
    let asked = server.page(&end);
    assert!(asked.contains("End the session of"), "{asked}");
    assert!(!asked.contains(&boot), "{asked}");
    let live = server.post_and_look(&end, &[]);
    assert!(live.contains("Ended the session of"), "{live}");
    assert!(!live.contains(&boot), "{live}");
    server.until("/live", |page| page.contains("Nobody is connected"));
    assert_eq!(server.get(&end).status, 404);
}
