//! Without a mouse, and with names that try to be something else.

use fantoccini::key::Key;
use serde_json::Value;

use crate::driver::{Browser, DESK};
use crate::room::{HOSTILE, Room, row};

/// What has the focus: its text or name, and whether that can be seen.
async fn focus(browser: &Browser) -> (String, bool) {
    let script = "const at = document.activeElement; const style = getComputedStyle(at); \
        return [(at.innerText || at.name || at.id).trim(), style.outlineStyle !== 'none' && style.outlineWidth !== '0px']";
    match browser.eval(script).await {
        Value::Array(found) => (
            found[0].as_str().unwrap().to_owned(),
            found[1].as_bool().unwrap(),
        ),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_room_is_used_by_keys_alone() {
    let room = Room::new(3);
    let browser = Browser::logged_in(&room, DESK).await;
    browser.go("/").await;
    browser.until_there_are(3, "tbody tr").await;
    browser.key(Key::Tab).await;
    assert_eq!(focus(&browser).await, ("To the content".to_owned(), true));
    browser.key(Key::Enter).await;
    let order = [
        "Add a client",
        "3 all",
        "0 up",
        "0 booting",
        "0 failed or lost",
        "3 off",
        "0 with drift",
        "q",
        "Search",
        "row-1 3",
        "Select all shown",
    ];
    for expected in order {
        browser.key(Key::Tab).await;
        let (found, seen) = focus(&browser).await;
        assert_eq!(found.replace('\n', " "), expected);
        assert!(seen, "nobody sees that `{expected}` has the focus");
    }
    browser.key(Key::Enter).await;
    browser.until("#picked", "3 chosen").await;
    // The bar of acts is where the rows end, and its menu opens and closes.
    browser
        .eval("document.querySelector('details.more summary').focus()")
        .await;
    browser.key(Key::Enter).await;
    browser.find("details.more[open]").await;
    browser.key(Key::Escape).await;
    browser.until_there_are(0, "details.more[open]").await;
    assert_eq!(focus(&browser).await.0, "More");
    // Enter in a field of that bar does nothing that its button would not say.
    browser.key(Key::Enter).await;
    browser
        .eval("document.querySelector('input[name=args]').focus()")
        .await;
    browser.key(Key::Enter).await;
    browser
        .until(".notice.bad", "choose what to do by its button")
        .await;
    browser.close().await;
}

#[tokio::test]
async fn a_box_that_is_chosen_stays_the_one_that_was_clicked() {
    let room = Room::new(3);
    let browser = Browser::logged_in(&room, DESK).await;
    let reader = room.connect(2);
    browser.go("/").await;
    browser.until(&row(2), "MiB/s").await;
    let script = format!("window.same = document.querySelector('{} input')", row(2));
    browser.eval(&script).await;
    browser.pick(&[2]).await;
    let first = browser.text(&format!("{} .rate", row(2))).await;
    let began = std::time::Instant::now();
    // Its row is drawn again with every change of its rate.
    while browser.text(&format!("{} .rate", row(2))).await == first {
        assert!(
            began.elapsed() < crate::driver::PATIENCE,
            "its rate stays {first}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let script = format!(
        "return window.same === document.querySelector('{} input:checked')",
        row(2)
    );
    assert_eq!(browser.eval(&script).await, true);
    drop(reader);
    browser.close().await;
}

#[tokio::test]
async fn an_unknown_machine_shows_up_while_somebody_looks_and_is_added() {
    let room = Room::new(1);
    let browser = Browser::logged_in(&room, DESK).await;
    browser.go("/").await;
    browser.until_there_are(1, "tbody tr").await;
    room.ask_for_boot_cfg("52:54:00:ab:cd:ef");
    browser.until("#strangers", "52:54:00:ab:cd:ef").await;
    browser.click("#strangers a").await;
    browser.fill("input[name=name]", "newcomer").await;
    browser.choose("select[name=image]", "fc29").await;
    browser.press("Add").await;
    browser.until("h1", "newcomer").await;
    browser.until(".notice.good", "Added newcomer").await;
    browser.close().await;
}

/// What strangers can write that is shown: what an image calls its packages, and what a link searches for.
#[tokio::test]
async fn what_strangers_write_is_text() {
    let room = Room::new(1);
    let browser = Browser::logged_in(&room, DESK).await;
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("q", HOSTILE)
        .finish();
    for path in ["/", "/events", "/images/fc28/2"] {
        browser.go(&format!("{path}?{query}")).await;
        browser.find("h1").await;
        assert_eq!(browser.count("main script").await, 0, "{path}");
        let title = browser.page.title().await.unwrap();
        assert_ne!(title, "owned", "{path}");
    }
    browser.go("/images/fc28/2").await;
    browser
        .until(
            "#package-list",
            "<script>document.title='owned'</script>\u{fffd}txt",
        )
        .await;
    browser.close().await;
}
