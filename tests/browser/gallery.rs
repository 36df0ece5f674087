//! Every page in every state that people meet, as it looks: light and dark, on a desk and on a
//! telephone. Each is looked at by axe, and none may be wider than its window.

use xtask::program::Background;

use crate::axe::{self, Rules};
use crate::driver::{Browser, DESK, Look, PHONE};
use crate::room::{PASSWORD, Room, mac};

/// The looks of each picture, by the end of its name.
const LOOKS: [(&str, Look); 4] = [
    ("light", DESK),
    ("dark", Look { dark: true, ..DESK }),
    ("phone", PHONE),
    (
        "phone-dark",
        Look {
            dark: true,
            ..PHONE
        },
    ),
];

/// A desk's window, at twice the size of everything.
const ZOOMED: Look = Look {
    width: 640,
    height: 450,
    ..DESK
};

/// No picture is higher: of long lists their beginning is enough.
const HIGHEST: u32 = 1800;

/// What pages were found to be wrong in.
#[derive(Default)]
pub(crate) struct Faults(Vec<String>);

impl Drop for Faults {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "{}", self.0.join("\n"));
        }
    }
}

impl Faults {
    /// Pictures of the page that is open, in all looks, and what axe says of it.
    pub(crate) async fn look_at(&mut self, browser: &Browser, name: &str) {
        self.picture(browser, name).await;
        for (scheme, rules) in [(false, Rules::All), (true, Rules::Colours)] {
            browser
                .look(Look {
                    dark: scheme,
                    ..DESK
                })
                .await;
            let found = axe::violations(browser, rules).await;
            let found = found
                .into_iter()
                .map(|what| format!("{name}, dark {scheme}: {what}"));
            self.0.extend(found);
        }
        browser.look(DESK).await;
    }

    /// Pictures of the page that is open, in all looks.
    async fn picture(&mut self, browser: &Browser, name: &str) {
        for (look_name, look) in LOOKS {
            browser.look(look).await;
            let height = browser.height().await.clamp(look.height, HIGHEST);
            browser.look(Look { height, ..look }).await;
            browser.picture(&format!("{name}-{look_name}")).await;
            self.ensure_it_fits(browser, name, look).await;
        }
        self.ensure_it_fits_zoomed(browser, name).await;
    }

    async fn ensure_it_fits_zoomed(&mut self, browser: &Browser, name: &str) {
        browser.look(ZOOMED).await;
        self.ensure_it_fits(browser, name, ZOOMED).await;
        browser.look(DESK).await;
    }

    async fn ensure_it_fits(&mut self, browser: &Browser, name: &str, look: Look) {
        let width = browser.width().await;
        if width > look.width {
            self.0.push(format!(
                "{name} is {width} wide in a window of {}",
                look.width
            ));
        }
    }

    /// Goes to a page, and takes its pictures.
    pub(crate) async fn visit(&mut self, browser: &Browser, name: &str, path: &str) {
        browser.go(path).await;
        browser.find("h1").await;
        self.look_at(browser, name).await;
    }
}

#[tokio::test]
async fn an_empty_dashboard_says_what_to_do_first() {
    let room = Room::empty();
    let mut faults = Faults::default();
    let browser = Browser::open(&room.dashboard, DESK).await;
    faults.visit(&browser, "login-nobody", "/").await;
    let link = room.first_link();
    faults.visit(&browser, "welcome", &link).await;
    browser.fill("input[name=password]", PASSWORD).await;
    browser.fill("input[name=again]", "something else").await;
    browser.click("main form button").await;
    browser.find(".notice.bad").await;
    faults.look_at(&browser, "welcome-wrong").await;
    browser.fill("input[name=password]", PASSWORD).await;
    browser.fill("input[name=again]", PASSWORD).await;
    browser.click("main form button").await;
    browser.find("nav a[href='/images']").await;
    for (name, path) in [
        ("room", "/"),
        ("client-new", "/clients/new"),
        ("images", "/images"),
        ("build", "/images/build"),
        ("diff", "/images/diff"),
        ("groups", "/groups"),
        ("volumes", "/volumes"),
        ("live", "/live"),
        ("events", "/events"),
        ("jobs", "/jobs"),
        ("users", "/users"),
        ("account", "/account"),
        ("api", "/api"),
        ("nowhere", "/nowhere"),
    ] {
        faults.visit(&browser, &format!("{name}-empty"), path).await;
    }
    for (path, said) in [
        ("/", "netroot image build"),
        ("/jobs", "Nothing was asked for yet"),
        ("/live", "Nobody is connected"),
    ] {
        browser.go(path).await;
        browser.until("main", said).await;
    }
    browser.click("details.who summary").await;
    browser.press("Log out").await;
    browser.find("input[name=password]").await;
    browser.fill("input[name=name]", "admin").await;
    browser
        .fill("input[name=password]", "not the password")
        .await;
    browser.click("main form button").await;
    browser.find(".notice.bad").await;
    faults.look_at(&browser, "login-wrong").await;
    faults.visit(&browser, "welcome-used", &link).await;
    browser.close().await;
}

/// Volumes with rules of all kinds, one of them without its file.
fn volumes(room: &Room) {
    let netroot = |arguments: &[&str]| room.site.netroot(arguments).unwrap();
    let long = "iqn.2026-01.edu.example:a-very-long-name-of-an-initiator-in-the-machine-room*";
    let secret = room.site.library().with_file_name("secret");
    std::fs::write(&secret, "a secret of ours 1").unwrap();
    let secret = secret.to_str().unwrap();
    let add = ["volume", "add", "data", "--size", "20G", "--allow", long];
    let proved = ["--chap", "node-1", "--chap-secret-file", secret];
    netroot(&[&add[..], &["--allow", "2001:db8::/64"], &proved].concat());
    let logs = ["volume", "add", "logs", "--size", "1G", "--target", "data"];
    netroot(&[&logs[..], &["--read-only"]].concat());
    let file = room.site.library().with_file_name("a-file-that-is-missing");
    let name = "a-very-long-name-of-32-character";
    let path = file.to_str().unwrap();
    netroot(&[
        "volume", "add", name, "--file", path, "--size", "1G", "--allow", "any",
    ]);
    std::fs::remove_file(file).unwrap();
}

/// Clients in all states; the readers are to be kept.
fn busy_room() -> (Room, Background) {
    let room = Room::new(7);
    let netroot = |arguments: &[&str]| room.site.netroot(arguments).unwrap();
    let reader = room.connect(2);
    netroot(&["client", "reset", "pc-001", "--yes"]);
    netroot(&["client", "reset", "pc-001", "--yes"]);
    netroot(&[
        "client",
        "assign",
        "pc-002",
        "fc29",
        "--at-next-boot",
        "--yes",
    ]);
    netroot(&[
        "client",
        "set",
        "pc-003",
        "--name",
        "a-very-long-name-of-32-character",
    ]);
    netroot(&[
        "client",
        "set",
        &mac(3),
        "--group",
        "row-1",
        "--group",
        "ward-for-long-names-of-groups-xx",
    ]);
    netroot(&[
        "client",
        "set",
        &mac(3),
        "--arg",
        "console=ttyS0,115200n8",
        "--arg",
        "systemd.log_level=debug",
    ]);
    room.come_too_late(4);
    room.boot_cfg(6);
    disks(&room);
    rollout(&room);
    netroot(&["image", "rollback", "fc28", "1", "--yes"]);
    volumes(&room);
    room.ask_for_boot_cfg("52:54:00:ab:cd:ef");
    room.ask_for_boot_cfg("52:54:00:ab:cd:f0");
    (room, reader)
}

/// A client with disks of all kinds.
fn disks(room: &Room) {
    let netroot = |arguments: &[&str]| room.site.netroot(arguments).unwrap();
    let set = ["client", "set", "pc-001"];
    netroot(&[&set[..], &["--quota", "2G", "--data", "1G"]].concat());
    netroot(&["client", "snapshot", "pc-001", "--name", "before-the-exam"]);
}

/// A group of which much is said, and an image on its way to it.
fn rollout(room: &Room) {
    let netroot = |arguments: &[&str]| room.site.netroot(arguments).unwrap();
    const GROUP: &str = "ward-for-long-names-of-groups-xx";
    netroot(&["client", "set", &mac(7), "--group", GROUP]);
    let set = ["group", "set", GROUP, "--arg", "systemd.show_status=0"];
    let new = ["--image", "fc28", "--mode", "shared"];
    netroot(&[&set[..], &["--menu", "key"], &new].concat());
    let assign = ["client", "assign", &format!("@{GROUP}"), "fc29"];
    let first = ["--canary", "1", "--within", "2h", "--yes"];
    netroot(&[&assign[..], &first].concat());
}

#[tokio::test]
async fn every_page_can_be_read_by_everybody_and_on_a_telephone() {
    let (room, reader) = busy_room();
    let browser = Browser::logged_in(&room, DESK).await;
    let mut faults = Faults::default();
    browser.go("/").await;
    browser.until(&crate::row(4), "failed").await;
    browser.until(&crate::row(2), "MiB/s").await;
    for (name, path) in [
        ("room", "/"),
        ("room-failed", "/?show=failed"),
        ("room-nobody", "/?q=nosuch"),
        ("client", "/clients/52:54:00:00:00:01"),
        ("client-up", "/clients/52:54:00:00:00:02"),
        ("client-long", "/clients/52:54:00:00:00:03"),
        ("client-failed", "/clients/52:54:00:00:00:04"),
        ("client-new", "/clients/new?mac=52:54:00:ab:cd:ef"),
        ("client-promote", "/clients/52:54:00:00:00:01/promote"),
        ("groups", "/groups"),
        ("group", "/groups/ward-for-long-names-of-groups-xx"),
        ("group-remove", "/groups/row-1/remove"),
        ("rollout-stop", "/rollouts/1/stop"),
        ("images", "/images"),
        ("image", "/images/fc28"),
        ("version", "/images/fc28/2"),
        ("version-current", "/images/fc28/2/current"),
        ("version-remove", "/images/fc28/2/remove"),
        ("image-prune", "/images/fc28/prune?keep=1"),
        ("image-remove", "/images/fc29/remove"),
        ("build", "/images/build"),
        ("diff-asked", "/images/diff?a=fc28@1&b=fc28@2"),
        ("volumes", "/volumes"),
        ("volume", "/volumes/data"),
        ("volume-remove", "/volumes/data/remove"),
        ("live", "/live"),
        ("events", "/events"),
        ("events-found", "/events?to=pc-001&what=client-reset"),
        ("events-none", "/events?q=nosuch"),
        ("users", "/users"),
        ("account", "/account"),
    ] {
        faults.visit(&browser, name, path).await;
    }
    let session = room.site.json(&["session", "list"]).unwrap()[0]["id"].to_string();
    faults
        .visit(&browser, "live-end", &format!("/live/{session}/end"))
        .await;
    acts(&browser, &mut faults).await;
    people(&room, &browser, &mut faults).await;
    drop(reader);
    browser.close().await;
}

/// The bar of what is done to chosen clients, and the page that asks.
async fn acts(browser: &Browser, faults: &mut Faults) {
    browser.go("/").await;
    browser.pick(&[1, 2]).await;
    browser.click("details.more summary").await;
    faults.look_at(browser, "room-chosen").await;
    browser.press("Reset…").await;
    browser.until("main", "everything that it wrote").await;
    faults.look_at(browser, "confirm").await;
    browser.go("/clients/new").await;
    browser.fill("input[name=mac]", "52:54:00:00:00:01").await;
    browser.press("Add").await;
    browser.find(".notice.bad").await;
    faults.look_at(browser, "client-new-wrong").await;
}

/// What is shown once, and what a viewer sees.
async fn people(room: &Room, browser: &Browser, faults: &mut Faults) {
    browser.go("/users").await;
    browser
        .fill("form[action='/users/add'] input[name=name]", "alice")
        .await;
    browser.press("Add a user").await;
    browser.until("main", "/welcome?key=").await;
    faults.look_at(browser, "users-link").await;
    browser
        .fill("form[action='/tokens/add'] input[name=name]", "prometheus")
        .await;
    browser.press("Make a token").await;
    browser.until("main", "The secret of prometheus").await;
    faults.look_at(browser, "users-secret").await;
    faults
        .visit(browser, "user-remove", "/users/alice/remove")
        .await;
    let viewer = Browser::open(&room.dashboard, DESK).await;
    viewer.go(&room.link(&["user", "invite", "alice"])).await;
    viewer.choose_password().await;
    faults.visit(&viewer, "viewer-room", "/").await;
    faults
        .visit(&viewer, "viewer-client", "/clients/52:54:00:00:00:01")
        .await;
    faults.visit(&viewer, "viewer-image", "/images/fc28").await;
    // A form from before they were made a viewer.
    viewer
        .eval("document.body.innerHTML = '<form method=post action=/images/build><button>x</button></form>'; document.forms[0].submit()")
        .await;
    viewer.until("h1", "Forbidden").await;
    faults.look_at(&viewer, "forbidden").await;
    viewer.close().await;
}

#[tokio::test]
async fn a_room_of_three_hundred_is_searched_while_somebody_types() {
    let room = Room::new(300);
    let browser = Browser::logged_in(&room, DESK).await;
    let mut faults = Faults::default();
    for (name, path) in [("room-300", "/"), ("image-300", "/images/fc28")] {
        browser.go(path).await;
        browser.find("h1").await;
        // What axe says of a row it says of the smaller room, too, and much sooner.
        faults.picture(&browser, name).await;
    }
    browser.go("/").await;
    browser.until_there_are(300, "tbody tr").await;
    browser.fill("#find", "pc-21").await;
    let shown =
        "return [...document.querySelectorAll('tbody tr')].filter((row) => !row.hidden).length";
    assert_eq!(browser.eval(shown).await, 10);
    browser.press("Select all shown").await;
    browser.until("#picked", "10 chosen").await;
    faults.picture(&browser, "room-300-chosen").await;
    browser.close().await;
}
