//! Long work, as somebody asks for it and follows it.

use std::time::Instant;

use crate::driver::{Browser, DESK, PATIENCE};
use crate::gallery::Faults;
use crate::room::Room;

/// Builds an image by the recipe `tiny`.
async fn ask_for_a_build(browser: &Browser, image: &str) {
    browser.go("/images/build").await;
    browser.fill("input[name=image]", image).await;
    browser.choose("select[name=from]", "tiny:1").await;
    browser.press("Build").await;
    browser.find("#job-head").await;
}

#[tokio::test]
async fn an_image_is_built_updated_upgraded_compared_and_removed() {
    let mut room = Room::empty();
    room.add_recipe();
    let browser = Browser::logged_in(&room, DESK).await;
    let mut faults = Faults::default();
    browser.go("/images/build").await;
    browser.choose("select[name=from]", "").await;
    browser.fill("input[name=image]", "one").await;
    browser.press("Build").await;
    browser.until("small.wrong", "choose one").await;
    faults.look_at(&browser, "build-wrong").await;

    ask_for_a_build(&browser, "one").await;
    browser.until("#job-head", "sudo netroot worker").await;
    faults.look_at(&browser, "job-queued").await;
    let job = browser.path().await;
    room.work();
    browser.until("#job-head", "waiting for the gate").await;
    browser.until("#log", "unpacking tiny 1").await;
    faults.look_at(&browser, "job-running").await;
    faults.visit(&browser, "images-building", "/images").await;
    // It is the same job for whoever comes later, and for the next server.
    room.serve_again();
    browser.go(&format!("{}{job}", room.dashboard)).await;
    browser.log_in_if_asked().await;
    browser.until("#job-head", "waiting for the gate").await;
    room.open_gate();
    browser.until("#job-head", "Sealed one@1").await;
    faults.look_at(&browser, "job-done").await;

    let browser = browser.moved_to(&room.dashboard);
    browser.go("/images/one").await;
    browser.press("Update").await;
    browser.until("#job-head", "Sealed one@2").await;
    browser.go("/images/one").await;
    browser.fill("input[name=release]", "2").await;
    browser.fill("input[name=to]", "two").await;
    browser.press("Upgrade").await;
    browser.until("#job-head", "Sealed two@1").await;
    browser.go("/images/one").await;
    browser.press("Compare with one@1").await;
    browser.press("Compare them").await;
    browser.until("#report", "vim").await;
    faults.look_at(&browser, "diff").await;

    browser.go("/images/one/1/current").await;
    browser.press("Make it current").await;
    browser.until(".notice.good", "one@1 is current").await;
    browser.press("Undo").await;
    browser.until("#image-line .current", "one@2").await;
    faults.look_at(&browser, "image-history").await;
    browser.press("Remove…").await;
    browser
        .until("h1", "Remove one with all its versions?")
        .await;
    faults.look_at(&browser, "image-removed").await;
    browser.press("Remove it").await;
    browser.until(".notice.good", "Removed one").await;
    browser.until("#images", "two").await;
    assert_eq!(browser.count("#images .card").await, 1);
    faults.visit(&browser, "jobs", "/jobs").await;
    browser.close().await;
}

#[tokio::test]
async fn jobs_wait_are_stopped_and_fail_with_a_reason() {
    let mut room = Room::empty();
    room.add_recipe();
    room.work();
    let browser = Browser::logged_in(&room, DESK).await;
    let mut faults = Faults::default();
    ask_for_a_build(&browser, "one").await;
    browser.until("#job-head", "waiting for the gate").await;
    let running = browser.path().await;
    ask_for_a_build(&browser, "other").await;
    browser.until("#job-head", "queued").await;
    browser.press("Cancel").await;
    browser.until("#job-head", "cancelled").await;
    browser.go(&running).await;
    browser.press("Cancel").await;
    browser.until("#job-head", "cancelled").await;
    faults.look_at(&browser, "job-cancelled").await;
    assert!(
        room.site
            .json(&["image", "list"])
            .unwrap()
            .as_array()
            .unwrap()
            .is_empty()
    );

    browser.go("/images/build").await;
    browser.fill("input[name=image]", "one").await;
    browser.fill("input[name=other]", "nosuch:1").await;
    browser.press("Build").await;
    browser
        .until("#job-head", "there is no recipe for `nosuch`")
        .await;
    faults.look_at(&browser, "job-failed").await;
    browser.close().await;
}

#[tokio::test]
async fn a_version_is_verified_and_a_disk_becomes_one() {
    let mut room = Room::new(1);
    let browser = Browser::logged_in(&room, DESK).await;
    let mut faults = Faults::default();
    browser.go("/images/fc28/2").await;
    browser.press("Verify").await;
    browser.until("#job-head", "queued").await;
    browser.until(".notice.good", "verify fc28@2").await;
    // Nobody has to stay, and no server has to: the job is done by a worker, whenever one comes.
    room.work();
    browser.until("#job-head", "fc28@2 is whole").await;
    browser.until("#log", "hashing").await;
    browser.go("/jobs").await;
    browser.until("#jobs", "verify fc28@2").await;
    browser.go("/clients/pc-001").await;
    browser.press("Make a version of it…").await;
    browser.fill("input[name=image]", "golden").await;
    browser.press("Preview").await;
    browser.until("#report", "What differs").await;
    faults.look_at(&browser, "job-preview").await;
    browser.go("/clients/pc-001").await;
    browser.press("Make a version of it…").await;
    browser.fill("input[name=image]", "golden").await;
    browser.press("Seal it as a version").await;
    browser.until("#job-head", "Sealed golden@1").await;
    browser.close().await;
}

#[tokio::test]
async fn who_is_logged_out_elsewhere_is_asked_to_log_in_and_comes_back() {
    let room = Room::new(3);
    let browser = Browser::logged_in(&room, DESK).await;
    browser.go("/?show=off").await;
    browser.until_there_are(3, "tbody tr").await;
    room.site.netroot(&["user", "invite", "admin"]).unwrap();
    // The role's change ends no login; removing and adding the user does.
    room.site
        .netroot(&["user", "add", "other", "--role", "operator"])
        .unwrap();
    room.site
        .netroot(&["user", "remove", "admin", "--yes"])
        .unwrap();
    let began = Instant::now();
    while !browser.path().await.starts_with("/login") {
        assert!(
            began.elapsed() < PATIENCE,
            "the page stayed at {}",
            browser.path().await
        );
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(browser.path().await, "/login?next=%2F%3Fshow%3Doff");
    browser.close().await;
}
