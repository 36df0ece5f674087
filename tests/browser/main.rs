//! The dashboard in a real browser (Debian's Chromium), with real initiators.
//!
//! `cargo test --test browser -- --nocapture [NAME]`; pictures of all pages are written to
//! `target/screenshots`.

// clippy.toml exempts functions marked #[test]; here the whole crate is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod axe;
mod driver;
mod gallery;
mod jobs;
mod keys;
mod room;
mod settings;
mod volumes;

use driver::{Browser, DESK, Look, Script};
use room::{PASSWORD, Room, mac, row};

impl Browser {
    /// A browser in which the room's first user is logged in.
    async fn logged_in(room: &Room, look: Look) -> Self {
        let browser = Browser::open(&room.dashboard, look).await;
        browser.go(&room.first_link()).await;
        browser.choose_password().await;
        browser
    }

    /// Fills in the page that a one-time link leads to.
    async fn choose_password(&self) {
        self.fill("input[name=password]", PASSWORD).await;
        self.fill("input[name=again]", PASSWORD).await;
        self.click("main form button").await;
        self.find("nav a[href='/images']").await;
    }

    /// Logs in, where it was led to the page for it.
    async fn log_in_if_asked(&self) {
        if self.path().await.starts_with("/login") {
            self.fill("input[name=name]", "admin").await;
            self.fill("input[name=password]", PASSWORD).await;
            self.click("main form button").await;
        }
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
    let client = room.site.json(&["client", "show", &mac(2)]).unwrap();
    assert_eq!(client["image"], "fc29");
    browser.press("Undo").await;
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
    browser.click("main form button.main").await;
    browser.find(".notice.good").await;
    assert_ne!(disk(), before);
    browser.press("Undo").await;
    browser.until("h1", "Undo the last change of pc-001?").await;
    browser.click("main form button.main").await;
    browser.until(".notice.good", "Undone for pc-001").await;
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
