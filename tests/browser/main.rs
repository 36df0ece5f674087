//! The dashboard in a real browser (Debian's Chromium), with real initiators.
//!
//! `cargo test --test browser -- --nocapture [NAME]`; pictures of all pages are written to
//! `target/screenshots`.

// clippy.toml exempts functions marked #[test]; here the whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod axe;
mod driver;
mod room;

use driver::{Browser, DESK, Look, PHONE, Script};
use room::{PASSWORD, Room, mac, row};

impl Browser {
    /// A browser in which the room's first user is logged in.
    async fn logged_in(room: &Room, look: Look) -> Self {
        let browser = Browser::open(&room.dashboard, look).await;
        browser.go(&room.first_link()).await;
        browser.fill("input[name=password]", PASSWORD).await;
        browser.fill("input[name=again]", PASSWORD).await;
        browser.click("main form button").await;
        browser.find("nav a[href='/images']").await;
        browser
    }

    /// Chooses clients of the room by their boxes.
    async fn pick(&self, numbers: &[usize]) {
        for number in numbers {
            self.click(&format!("{} input[name=pick]", row(*number)))
                .await;
        }
    }
}

#[tokio::test]
async fn who_has_the_link_comes_in_and_nobody_else() {
    let room = Room::new(3);
    let browser = Browser::open(&room.dashboard, DESK).await;
    browser.go("/").await;
    assert!(browser.path().await.starts_with("/login"));
    assert!(
        browser
            .text("main")
            .await
            .contains("netroot user add --first")
    );
    browser.picture("login").await;
    browser.close().await;

    let browser = Browser::logged_in(&room, DESK).await;
    browser.go("/").await;
    browser.until_there_are(3, "tbody#clients tr").await;
    browser.click("details.who summary").await;
    browser.press("Log out").await;
    browser.find("input[name=password]").await;
    browser.go("/").await;
    assert!(browser.path().await.starts_with("/login"));
    browser.fill("input[name=name]", "admin").await;
    browser.fill("input[name=password]", PASSWORD).await;
    browser.click("main form button").await;
    browser.find("tbody#clients").await;
    browser.close().await;
}

#[tokio::test]
async fn many_are_assigned_at_once_and_it_is_undone() {
    let room = Room::new(3);
    let browser = Browser::logged_in(&room, DESK).await;
    browser.go("/").await;
    browser.pick(&[2, 3]).await;
    browser.choose("select[name=image]", "fc29").await;
    browser.choose("select[name=when]", "now").await;
    browser.press("Assign").await;
    for number in [2, 3] {
        browser.until(&row(number), "fc29@1").await;
    }
    browser.find(".notice.good").await;
    browser.picture("room-3-assigned").await;
    let client = room.site.json(&["client", "show", &mac(2)]).unwrap();
    assert_eq!(client["image"], "fc29");
    browser.press("Undo").await;
    // What it takes back may be asked about first.
    if browser.count("input[name=sure]").await > 0 {
        browser.click("main form button.main").await;
    }
    for number in [2, 3] {
        browser.until(&row(number), "fc28@2").await;
    }
    browser.close().await;
}

#[tokio::test]
async fn a_clients_state_changes_while_somebody_looks() {
    let room = Room::new(3);
    let browser = Browser::logged_in(&room, DESK).await;
    browser.go("/").await;
    browser.until(&row(2), "off").await;
    // It would be gone if the page were loaded anew.
    browser.eval("document.body.dataset.same = 'yes'").await;
    browser.pick(&[3]).await;
    let reader = room.connect(2);
    browser.until(&row(2), "up").await;
    let picked = format!("{} input:checked", row(3));
    assert_eq!(browser.count(&picked).await, 1, "what was chosen stays so");
    browser.picture("room-3-up").await;
    drop(reader);
    browser.until(&row(2), "off").await;
    assert_eq!(
        browser.eval("return document.body.dataset.same").await,
        "yes"
    );
    browser.close().await;
}

#[tokio::test]
async fn a_disk_is_reset_after_a_question_and_brought_back() {
    let room = Room::new(3);
    let browser = Browser::logged_in(&room, DESK).await;
    browser.go("/").await;
    let disk = || {
        let shown = room.site.json(&["client", "show", &mac(1)]).unwrap();
        shown["clone"]["id"].as_str().unwrap().to_owned()
    };
    let before = disk();
    browser.pick(&[1]).await;
    browser.press("Reset…").await;
    browser.until("main", "everything that it wrote").await;
    browser.picture("confirm").await;
    browser.click("main form button.main").await;
    browser.find(".notice.good").await;
    assert_ne!(disk(), before);
    browser.press("Undo").await;
    if browser.count("input[name=sure]").await > 0 {
        browser.click("main form button.main").await;
        browser.find(".notice.good").await;
    }
    assert_eq!(disk(), before);
    browser.close().await;
}

#[tokio::test]
async fn everything_works_without_javascript() {
    let room = Room::new(3);
    let look = Look {
        script: Script::Off,
        ..DESK
    };
    let browser = Browser::logged_in(&room, look).await;
    for page in [
        "/",
        "/images",
        "/images/fc28",
        "/live",
        "/events",
        "/jobs",
        "/users",
        "/api",
    ] {
        browser.go(page).await;
        browser.find("h1").await;
    }
    browser.go("/").await;
    browser.fill("input[name=q]", "pc-002").await;
    browser.press("Search").await;
    browser.until_there_are(1, "tbody tr").await;
    browser.pick(&[2]).await;
    browser.choose("select[name=image]", "fc29@1").await;
    browser.choose("select[name=when]", "now").await;
    browser.press("Assign").await;
    browser.until(".notice.good", "pc-002").await;
    let client = room.site.json(&["client", "show", &mac(2)]).unwrap();
    assert_eq!(client["image"], "fc29@1");
    browser.close().await;
}

/// Every page, by the name of its picture.
const PAGES: [(&str, &str); 12] = [
    ("room", "/"),
    ("client", "/clients/52:54:00:00:00:01"),
    ("client-new", "/clients/new"),
    ("images", "/images"),
    ("image", "/images/fc28"),
    ("version", "/images/fc28/2"),
    ("build", "/images/build"),
    ("live", "/live"),
    ("events", "/events"),
    ("jobs", "/jobs"),
    ("users", "/users"),
    ("account", "/account"),
];

#[tokio::test]
async fn every_page_can_be_read_by_everybody_and_on_a_telephone() {
    let room = Room::new(3);
    let reader = room.connect(2);
    let browser = Browser::logged_in(&room, DESK).await;
    let mut wrong = Vec::new();
    for dark in [false, true] {
        let scheme = if dark { "dark" } else { "light" };
        browser.look(Look { dark, ..DESK }).await;
        for (name, path) in PAGES {
            browser.go(path).await;
            browser.find("h1").await;
            let found = axe::violations(&browser).await;
            wrong.extend(
                found
                    .into_iter()
                    .map(|what| format!("{path} in {scheme}: {what}")),
            );
            browser.picture(&format!("{name}-3-{scheme}")).await;
        }
    }
    browser.look(PHONE).await;
    for (name, path) in PAGES {
        browser.go(path).await;
        browser.find("h1").await;
        let width = browser
            .eval("return document.documentElement.scrollWidth")
            .await;
        if width.as_u64().unwrap() > u64::from(PHONE.width) {
            wrong.push(format!("{path} is {width} wide on a telephone"));
        }
        browser.picture(&format!("{name}-3-phone")).await;
    }
    drop(reader);
    browser.close().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_room_of_three_hundred_is_searched_while_somebody_types() {
    let room = Room::new(300);
    let browser = Browser::logged_in(&room, DESK).await;
    browser.go("/").await;
    browser.until_there_are(300, "tbody tr").await;
    for dark in [false, true] {
        browser.look(Look { dark, ..DESK }).await;
        let scheme = if dark { "dark" } else { "light" };
        browser.picture(&format!("room-300-{scheme}")).await;
    }
    browser.fill("#find", "pc-21").await;
    let shown =
        "return [...document.querySelectorAll('tbody tr')].filter((row) => !row.hidden).length";
    assert_eq!(browser.eval(shown).await, 10);
    browser.close().await;
}

#[tokio::test]
async fn a_job_is_followed_to_its_end() {
    let mut room = Room::new(1);
    let browser = Browser::logged_in(&room, DESK).await;
    browser.go("/images/fc28/2").await;
    browser.press("Verify").await;
    browser.until("#job-head", "queued").await;
    browser.until(".notice.good", "verify fc28@2").await;
    // Nobody has to stay, and no server has to: the job is done by a worker, whenever one comes.
    room.work();
    browser.until("#job-head", "fc28@2 is whole").await;
    browser.until("#log", "hashing").await;
    browser.picture("job").await;
    browser.go("/jobs").await;
    browser.until("#jobs", "verify fc28@2").await;
    browser.close().await;
}
