//! What machines offer to who stands before them, and people who log in there.

use netroot::library::{Actor, Library, MacAddr, Mode, NewUser, Role, Use};
use serde_json::Value;

use crate::site::{Answer, Script, Server, Site, encoded, mac};

const PASSWORD: &str = "correct horse battery";

/// Two images, and two clients of the first whose machines show a menu with the second.
fn site(menu: &str, login: &str) -> Site {
    let site = Site::new();
    site.seal("fc28");
    site.seal("fc29");
    site.add(1, "lab-1", Mode::Persistent, &["console=ttyS0"]);
    site.add(2, "lab-2", Mode::Ephemeral, &[]);
    site.say_of_boots("login", &format!("login = {login}"));
    site.say(
        "[clients]",
        &format!("menu = \"{menu}\"\nmenu_items = [\"own\", \"fc29\", \"login\", \"local\"]"),
    );
    let new = NewUser {
        name: "anna".parse().unwrap(),
        role: Role::Viewer,
    };
    site.lib
        .add_user_with_password(&new, false, PASSWORD, &Actor::command())
        .unwrap();
    site
}

/// The URL that an item of a menu leads to.
fn leads_to(menu: &str, item: &str) -> String {
    let begin = format!(":{item}\n");
    let (_, action) = menu
        .split_once(&begin)
        .unwrap_or_else(|| panic!("{begin} in {menu}"));
    let mut words = action.split_whitespace();
    let url = words.find(|word| word.starts_with("http://")).unwrap();
    let path = url.splitn(4, '/').nth(3).unwrap();
    format!("/{}", path.split('#').next().unwrap())
}

fn last_boot(server: &Server, mac: &MacAddr) -> Value {
    let answer = server.get(&format!("/api/v1/clients/{mac}/boots"));
    let boots: Value = serde_json::from_str(&answer.text).unwrap();
    boots[0].clone()
}

fn log_in(server: &Server, last: u8, name: &str, password: &str) -> Answer {
    let body = format!("name={}&password={}", encoded(name), encoded(password));
    server.boots_post(&format!("/login?mac={}", mac(last)), &body)
}

#[test]
fn at_every_boot_a_machine_offers_what_it_is_to_offer() {
    let site = site("always", "false");
    let server = site.serve();
    let menu = server.boot_cfg(&mac(1));
    assert!(menu.contains("\nmenu netroot: lab-1 "), "{menu}");
    assert!(
        menu.contains("\nitem own fc28@1 in mode persistent\n"),
        "{menu}"
    );
    assert!(!menu.contains("login"), "nobody can log in: {menu}");
    assert!(!menu.contains("\nshell"), "{menu}");
    let own = server.ask_boot(&leads_to(&menu, "own")).text;
    assert!(Script::of(&own).target.ends_with(":client-525400000001"));
    let local = server.ask_boot(&leads_to(&menu, "local")).text;
    assert!(local.ends_with("\nexit\n"), "{local}");
    let once = server.ask_boot(&leads_to(&menu, "image.fc29")).text;
    let script = Script::of(&once);
    assert!(script.target.ends_with(":fc29.1") && once.contains(" console=ttyS0"));
    assert!(once.contains(" systemd.volatile=overlay"), "{once}");
    let _peer = site.log_in(&server, &script.initiator, &script.target);
    server.until("/", |page| page.contains("data-state=\"up\""));
    let uses = site.lib.uses_of(&"fc29@1".parse().unwrap(), &[]).unwrap();
    let client = site.client(&mac(1)).name;
    assert!(uses.contains(&Use::Runs { client }), "{uses:?}");
    let refused = server
        .ask_boot(&format!("/boot.cfg?mac={}&image=fc28", mac(1)))
        .text;
    assert!(refused.contains("does not offer that image"), "{refused}");
    for wrong in ["image=../x", "image=FC", "menu=1"] {
        let answer = server.ask_boot(&format!("/boot.cfg?mac={}&{wrong}", mac(1)));
        assert_eq!(answer.status, 400, "{wrong}");
    }
}

#[test]
fn what_fails_behind_a_menu_is_told_and_a_mistyped_password_is_no_failure() {
    let site = site("always", "\"insecure\"");
    let server = site.serve();
    let menu = server.boot_cfg(&mac(1));
    let (_, failed) = menu.split_once("\n:failed\n").unwrap();
    let url = failed.split_whitespace().find(|word| word.contains("://"));
    let url = url
        .unwrap()
        .replace("${netX/mac:hexhyp}", &mac(1).hyphens());
    let path = format!("/{}", url.splitn(4, '/').nth(3).unwrap());
    let tells = |at: &str, errno: &str| {
        let path = path.replace("${at}", at).replace("${errno}", errno);
        assert_eq!(server.ask_boot(&path).status, 200, "{path}");
    };
    let told = || last_boot(&server, &mac(1))["told"].clone();
    // The script that a wrong password is answered with ends with 1.
    tells("login", "0x00000001");
    assert_eq!(told(), "it shows its menu");
    let own = server.ask_boot(&leads_to(&menu, "own")).text;
    let (_, next) = own.split_once("\nset at ").unwrap();
    assert!(next.starts_with("kernel\nkernel "), "{own}");
    tells("kernel", "0x2d0c613b");
    assert_eq!(
        told(),
        "fetched boot.cfg, iPXE could not fetch the kernel: there is no such file \
         (https://ipxe.org/2d0c613b)"
    );
}

#[test]
fn what_is_chosen_in_a_menu_in_place_of_the_machines_own_is_no_failure_of_it() {
    let site = site("always", "\"insecure\"");
    let mut server = site.serve();
    let menu = server.boot_cfg(&mac(1));
    // Of nobody that could be told.
    for asked in ["/local.ipxe", "/local.ipxe?mac=${netX/mac}"] {
        let answer = server.ask_boot(asked);
        assert_eq!(answer.status, 200, "{asked}");
        assert!(answer.text.ends_with("\nexit\n"), "{}", answer.text);
    }
    assert_eq!(last_boot(&server, &mac(1))["told"], "it shows its menu");
    let local = server.ask_boot(&leads_to(&menu, "local")).text;
    assert!(local.ends_with("\nexit\n"), "{local}");
    let boot = last_boot(&server, &mac(1));
    assert_eq!(boot["told"], "it went on to its local disk");
    assert_eq!(
        (&boot["outcome"], &boot["end"]),
        (&"ended".into(), &"local-disk".into())
    );
    let page = server.page(&format!("/clients/{}", mac(1)));
    assert!(page.contains("data-outcome=\"ended\""), "{page}");

    server.boot_cfg(&mac(2));
    let cfg = log_in(&server, 2, "anna", PASSWORD).text;
    let disk = Script::of(&cfg).target;
    let (_, hers) = disk.split_once(":client-").unwrap();
    let hers: MacAddr = hers.parse().unwrap();
    let words = "somebody logged in there, and it boots as person-anna";
    assert_eq!(last_boot(&server, &mac(2))["told"], words);
    let failed = format!("/failed?mac={}&at=kernel&errno=0x2d0c613b", mac(2));
    assert_eq!(server.ask_boot(&failed).status, 200);
    let boot = last_boot(&server, &hers);
    assert_eq!(boot["outcome"], "failed");
    let why = boot["told"].as_str().unwrap();
    assert!(why.contains("iPXE could not fetch the kernel"), "{why}");
    assert_eq!(last_boot(&server, &mac(2))["outcome"], "ended");
    server.stop();
    let shown = site.netroot(&["client", "show", "lab-2", "--boots"]);
    assert!(shown.contains(words), "{shown}");
}

#[test]
fn behind_a_key_a_machine_boots_unless_somebody_presses_it() {
    let site = site("key", "false");
    let server = site.serve();
    let cfg = server.boot_cfg(&mac(1));
    assert!(Script::of(&cfg).target.ends_with(":client-525400000001"));
    let (prompt, _) = cfg.split_once("\nset prefix").unwrap();
    assert!(prompt.starts_with("#!ipxe\nprompt --key 0x02 "), "{prompt}");
    let to_menu = prompt
        .split_whitespace()
        .find(|word| word.starts_with("http://"));
    let path = to_menu.unwrap().splitn(4, '/').nth(3).unwrap();
    let menu = server.ask_boot(&format!("/{path}")).text;
    assert!(
        menu.contains("\nchoose --default own --timeout 10000 "),
        "{menu}"
    );
}

#[test]
fn a_menu_that_a_site_wrote_is_taken_as_long_as_it_is_right() {
    let site = site("always", "false");
    let dir = site.lib.root().join("esp");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("menu.ipxe"), "#!ipxe\necho Ours for @NAME@\n").unwrap();
    let server = site.serve();
    assert_eq!(server.boot_cfg(&mac(1)), "#!ipxe\necho Ours for lab-1\n");
    std::fs::write(dir.join("menu.ipxe"), "#!ipxe\necho @PASSWORD@\n").unwrap();
    assert!(server.boot_cfg(&mac(1)).contains("\nchoose "));
}

#[test]
fn a_person_finds_their_disk_at_every_machine() {
    let site = site("always", "\"insecure\"");
    let server = site.serve();
    let menu = server.boot_cfg(&mac(1));
    assert!(
        leads_to(&menu, "login").starts_with("/login?mac=52-54"),
        "{menu}"
    );
    let cfg = log_in(&server, 1, "anna", PASSWORD).text;
    let here = Script::of(&cfg);
    let disk = here.target.clone();
    assert!(!disk.contains("525400000001"), "{disk}");
    assert!(
        cfg.contains("BOOTIF=01-52-54-00-00-00-01"),
        "the machine's: {cfg}"
    );
    assert!(cfg.contains(" console=ttyS0"), "the machine's: {cfg}");
    let mut at_here = site.log_in(&server, &here.initiator, &disk);
    site.reads(&mut at_here);
    let there = Script::of(&log_in(&server, 2, "anna", PASSWORD).text);
    assert_eq!(there.target, disk);
    let mut at_there = site.log_in(&server, &there.initiator, &disk);
    site.reads(&mut at_there);
    assert!(
        !site.is_let_in(&server, &here.initiator, &disk),
        "the machine that was left is fenced"
    );
    let page = server.page("/");
    assert!(page.contains("person-anna"), "{page}");
    // The address that stands on the kernel line is no way around the password.
    let (_, hers) = disk.split_once(":client-").unwrap();
    let without = server.ask_boot(&format!("/boot.cfg?mac={hers}")).text;
    assert!(
        without.contains("not known here") && !without.contains("iqn."),
        "{without}"
    );
    let answer = server.boots_post(
        &format!("/login?mac={hers}"),
        &format!("name=anna&password={}", encoded(PASSWORD)),
    );
    assert_eq!(answer.status, 404, "no machine has it: {}", answer.text);
    // The machines' own disks stay theirs.
    let library = Library::open(site.lib.root(), None).unwrap();
    assert_eq!(library.client(&mac(2)).unwrap().boot, None);
}

#[test]
fn who_guesses_waits_and_nobody_logs_in_where_that_is_not_said() {
    let site = site("always", "\"insecure\"");
    let server = site.serve();
    let wrong = |name: &str| log_in(&server, 1, name, "wrong").text;
    let refused =
        "#!ipxe\necho netroot: name and password do not belong together\nsleep 3\nexit 1\n";
    assert_eq!(wrong("anna"), refused);
    assert_eq!(wrong("nobody\n${x}"), refused);
    while wrong("anna") == refused {}
    let told = wrong("anna");
    assert!(told.contains("wrong too often; wait "), "{told}");
    let told = log_in(&server, 1, "anna", PASSWORD).text;
    assert!(
        told.contains("wrong too often"),
        "also when it is right: {told}"
    );
    assert_eq!(log_in(&server, 1, &"x".repeat(20_000), "").status, 413);
    assert_eq!(server.boots_post("/login", "name=a").status, 400);
    drop(server);
    // `true` is for HTTPS.
    for login in ["false", "true"] {
        site.say_of_boots("login", &format!("login = {login}"));
        let server = site.serve();
        let answer = log_in(&server, 1, "anna", PASSWORD);
        assert_eq!(answer.status, 403, "{}", answer.text);
        assert!(!server.boot_cfg(&mac(1)).contains("login"));
    }
}
