//! Volumes, as somebody adds, grows and removes one.

use crate::driver::{Browser, DESK};
use crate::room::Room;

#[tokio::test]
async fn a_volume_is_added_grown_and_removed() {
    let room = Room::empty();
    let browser = Browser::logged_in(&room, DESK).await;
    browser.go("/").await;
    browser.click("nav a[href='/volumes']").await;
    browser.until("main", "No volumes yet").await;
    browser.fill("input[name=name]", "data").await;
    browser.fill("input[name=size]", "1M").await;
    browser.press("Add").await;
    // What was filled in is still there, but for the secret.
    browser.until(".notice.bad", "nobody could see it").await;
    browser.fill("input[name=allow]", "any").await;
    browser.press("Add").await;
    browser.until(".notice.good", "Added data").await;
    browser.until("#volume-facts", "1.0 MiB").await;

    // Who looks at the list sees what a command does.
    let other = Browser::open(&room.dashboard, DESK).await;
    other.go("/volumes").await;
    other.log_in_if_asked().await;
    other.find("nav").await;
    other.go("/volumes").await;
    other.until("#volume-data", "ready").await;
    let resize = ["volume", "resize", "data", "2M"];
    room.site.netroot(&resize).unwrap();
    other.until("#volume-data", "2.0 MiB").await;
    browser.until("#volume-facts", "2.0 MiB").await;

    browser.press("Remove…").await;
    browser.until("h1", "Remove data?").await;
    browser.press("Remove it").await;
    browser.until(".notice.good", "Removed data").await;
    other.until_there_are(0, "tbody#volumes tr").await;
    other.close().await;
    browser.close().await;
}
