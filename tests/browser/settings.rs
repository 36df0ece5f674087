//! Settings of clients and groups, as somebody changes them and looks what has come of it.

use fantoccini::key::Key;
use serde_json::json;

use crate::driver::{Browser, DESK, Look, Script};
use crate::gallery::Faults;
use crate::room::{Room, mac};

/// What the card of a page says of a setting.
async fn says(browser: &Browser, label: &str) -> String {
    let script = format!(
        "const name = [...document.querySelectorAll('#settings dt')].find((dt) => dt.innerText === '{label}'); \
         return name.nextElementSibling.innerText"
    );
    let said = browser.eval(&script).await;
    said.as_str().unwrap().to_owned()
}

async fn shows(browser: &Browser, label: &str, wanted: &str) {
    let said = says(browser, label).await;
    assert_eq!(said.trim(), wanted, "{label}");
}

#[tokio::test]
async fn settings_are_changed_refused_and_inherited_again() {
    let room = Room::new(2);
    let mut faults = Faults::default();
    let browser = Browser::logged_in(&room, DESK).await;
    browser.go("/groups/row-1").await;
    shows(&browser, "Quota", "no limit built in").await;
    browser.press("Change settings…").await;
    browser.until("h1", "Settings of row-1").await;
    browser.choose("select[name=identity]", "off").await;
    browser.fill("input[name=quota]", "4G").await;
    browser.press("Save").await;
    browser.until(".notice.good", "at their next boot").await;
    shows(&browser, "Quota", "4G group row-1").await;
    faults.look_at(&browser, "group-settings-said").await;
    browser.press("Change settings…").await;
    browser.until("h1", "Settings of row-1").await;
    faults.look_at(&browser, "group-settings").await;

    browser.go(&format!("/clients/{}", mac(1))).await;
    shows(&browser, "Quota", "4G group row-1").await;
    shows(&browser, "Own identity", "off group row-1").await;
    browser.press("Change settings…").await;
    browser.until("h1", "Settings of pc-001").await;
    faults.look_at(&browser, "client-settings").await;
    browser.choose("select[name=chap]", "kernel-line").await;
    browser.choose("select[name=identity]", "on").await;
    browser.fill("input[name=size]", "100T").await;
    let keys = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 anna\nssh-ed25519 AAAAC3NzaC1lZDI1NTE6 bob";
    browser.fill("textarea[name=authorized_keys]", keys).await;
    browser.fill("input[name=data]", "1G").await;
    browser.press("Save").await;
    browser
        .until(".notice.bad", "see what is marked below")
        .await;
    browser
        .until("#wrong-size", "larger than any disk can be (64T)")
        .await;
    let at = "return document.activeElement.name";
    assert_eq!(browser.eval(at).await, "size", "where it is mended");
    faults.look_at(&browser, "client-settings-wrong").await;
    // All else is as it was filled in; the rest goes by keys.
    browser.fill("input[name=size]", "40G").await;
    browser.key(Key::Enter).await;
    browser
        .until(".notice.good", "counts from the next boot")
        .await;
    for (label, wanted) in [
        ("CHAP", "kernel-line its own"),
        ("Own identity", "on its own"),
        ("Size of new disks", "40G its own"),
        ("SSH keys of root", "anna, bob its own"),
        ("Data disk", "1G its own"),
        ("Quota", "4G group row-1"),
    ] {
        shows(&browser, label, wanted).await;
    }
    let shown = room.site.json(&["client", "show", "pc-001"]).unwrap();
    let own = &shown["settings"];
    assert_eq!(
        (&own["chap"], &own["data"], &own["quota"]),
        (&json!("kernel-line"), &json!("1G"), &json!(null))
    );
    faults.look_at(&browser, "client-settings-said").await;

    // Somebody works there: nothing is cut off, and what waits for a boot is said.
    let reader = room.connect(2);
    browser.go(&format!("/clients/{}", mac(2))).await;
    browser.until("#client-facts", "up").await;
    browser.press("Change settings…").await;
    browser
        .until(".notice.warn", "It runs, and is not disturbed")
        .await;
    browser.click("input[name=new_identity]").await;
    browser.press("Save").await;
    browser.until("h1", "Change the settings of pc-002?").await;
    browser.until("main", "draw another machine-id").await;
    faults.look_at(&browser, "client-settings-ask").await;
    browser.press("Change").await;
    browser
        .until(".notice.good", "counts from its next one")
        .await;
    browser.until("#client-facts", "up").await;
    drop(reader);
    browser.close().await;
}

#[tokio::test]
async fn settings_need_no_javascript() {
    let room = Room::new(1);
    let look = Look {
        script: Script::Off,
        ..DESK
    };
    let browser = Browser::logged_in(&room, look).await;
    let set = ["client", "set", "pc-001", "--way", "esp", "--quota", "2G"];
    room.site.netroot(&set).unwrap();
    browser.go(&format!("/clients/{}", mac(1))).await;
    browser.until("#settings", "2G its own").await;
    browser.press("Change settings…").await;
    browser.choose("select[name=way]", "").await;
    browser.fill("input[name=quota]", "").await;
    browser.choose("select[name=menu]", "key").await;
    browser.fill("input[name=menu_items]", "own fc29").await;
    browser.press("Save").await;
    browser.until(".notice.good", "Saved.").await;
    browser.until("#settings", "own fc29 its own").await;
    let shown = room.site.json(&["client", "show", "pc-001"]).unwrap();
    let own = json!({"menu": "key", "menu_items": ["own", "fc29"]});
    assert_eq!(shown["settings"], own);
    browser.close().await;
}
