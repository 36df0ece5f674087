//! How boots are followed, told and kept: by machines that are made to stop somewhere.

use netroot::iscsi::wire::{NopIn, NopOut, Serial, Tag};
use netroot::library::manifest::InitramfsFacts;
use netroot::library::{MacAddr, Mode, Quiet, VersionFacts};
use serde_json::Value;

use super::site::{Script, Server, Site};

/// What the API tells of a client's boots.
fn boots(server: &Server, mac: &MacAddr) -> Vec<Value> {
    let answer = server.get(&format!("/api/v1/clients/{mac}/boots"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    serde_json::from_str(&answer.text).unwrap()
}

fn stages(boot: &Value) -> Vec<&str> {
    let steps = boot["steps"].as_array().unwrap().iter();
    steps.map(|step| step["stage"].as_str().unwrap()).collect()
}

/// The files that a boot.cfg names, as paths of the boot service.
fn files(cfg: &str) -> [String; 2] {
    let word = |key: &str| {
        let line = cfg.lines().find(|line| line.starts_with(key)).unwrap();
        line.split(' ').find(|word| word.contains("${prefix}"))
    };
    let prefix = cfg
        .lines()
        .find_map(|line| line.strip_prefix("set prefix "));
    let path = prefix.unwrap().splitn(4, '/').nth(3).unwrap();
    ["kernel ", "initrd "].map(|key| {
        let file = word(key).unwrap();
        file.replace("${prefix}", &format!("/{path}"))
    })
}

#[test]
fn a_boot_is_told_stage_by_stage_and_after_a_restart() {
    let site = Site::new();
    site.seal("fc28");
    let client = site.add(1, "lab-1", Mode::Persistent, &[]);
    let mut server = site.serve();
    let page = format!("/clients/{client}");
    assert!(server.page(&page).contains("None was seen yet"));
    let mut watched = server.watch(&format!("client:{client}"));
    let cfg = server.boot_cfg(&client);
    watched.hears("client-boots", "booting");
    for file in files(&cfg) {
        let answer = server.ask_boot(&file);
        assert_eq!(answer.status, 200, "{file}");
    }
    let mut peer = site.boot_by(&server, &Script::of(&cfg));
    watched.hears("client-boots", "system login");
    site.reads(&mut peer);
    site.writes(&mut peer);
    drop(peer);
    server.until(&page, |page| page.contains("data-outcome=\"ended\""));
    let told = boots(&server, &client);
    let boot = &told[0];
    assert_eq!(
        stages(boot),
        [
            "script",
            "kernel",
            "initramfs",
            "system",
            "first-read",
            "first-write",
            "end"
        ]
    );
    let kernel = &boot["steps"][1];
    assert_eq!(kernel["bytes"], "a kernel".len());
    assert_eq!(kernel["of"], "a kernel".len());
    assert!(kernel["until"].is_string());
    assert_eq!(boot["version"], "fc28@1");
    // Whoever reads it cannot log in by it.
    let id = site.client(&client).boot.unwrap().id.to_string();
    assert!(!server.page(&page).contains(&id));
    assert!(!boot.to_string().contains(&id), "{boot}");
    server.stop();
    // Without a server, and with the next one.
    let shown = site.netroot(&["client", "show", "lab-1"]);
    for word in ["ended after ", " s kernel ", "first read", "8 B in"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    let kept: Value =
        serde_json::from_str(&site.netroot(&["client", "show", "lab-1", "--boots", "--json"]))
            .unwrap();
    assert_eq!(kept[0]["began"], boot["began"]);
    let server = site.serve();
    assert_eq!(boots(&server, &client), told);
}

#[test]
fn a_boot_goes_on_over_a_restart_of_the_server() {
    let site = Site::new();
    site.seal("fc28");
    let client = site.add(1, "lab-1", Mode::Persistent, &[]);
    let mut server = site.serve();
    let script = Script::of(&server.boot_cfg(&client));
    let peer = site.boot_by(&server, &script);
    server.until(&format!("/clients/{client}"), |page| {
        page.contains("data-outcome=\"up\"")
    });
    let began = boots(&server, &client)[0]["began"].clone();
    server.stop();
    drop(peer);
    let server = site.serve();
    let _peer = site.boot_by(&server, &script);
    let told = boots(&server, &client);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["began"], began);
    assert_eq!(told[0]["reconnects"], 1);
    assert_eq!(told[0]["outcome"], "up");
}

#[test]
fn a_boot_on_its_way_goes_on_over_a_restart_of_the_server() {
    let site = Site::new();
    site.seal("fc28");
    let client = site.add(1, "lab-1", Mode::Persistent, &[]);
    let second = site.add(2, "lab-2", Mode::Persistent, &[]);
    let mut server = site.serve();
    let cfg = server.boot_cfg(&client);
    let [kernel, initramfs] = files(&cfg);
    assert_eq!(server.ask_boot(&kernel).status, 200);
    server.boot_cfg(&second);
    let began = [client, second].map(|mac| boots(&server, &mac)[0]["began"].clone());
    server.stop();
    let shown = site.netroot(&["client", "show", "lab-1"]);
    assert!(shown.contains("kernel fetched"), "{shown}");
    let server = site.serve();
    for (mac, began) in [client, second].iter().zip(&began) {
        let told = boots(&server, mac);
        assert_eq!((told.len(), &told[0]["began"]), (1, began), "{told:?}");
        assert_eq!(told[0]["outcome"], "booting");
    }
    assert!(server.page("/").contains("script fetched"));
    // Who comes now is the one that was waited for.
    let _peer = site.boot_by(&server, &Script::of(&cfg));
    let told = boots(&server, &client);
    assert_eq!((told.len(), &told[0]["began"]), (1, &began[0]), "{told:?}");
    assert_eq!(told[0]["outcome"], "up");
    assert_eq!(stages(&told[0])[..3], ["script", "kernel", "system"]);
    // What the second one fetches is its own: the first is on its way no more.
    assert_eq!(server.ask_boot(&initramfs).status, 200);
    assert_eq!(stages(&boots(&server, &second)[0]), ["script", "initramfs"]);
}

#[test]
fn a_system_that_reads_nothing_is_told_so() {
    let site = Site::new();
    site.seal("fc28");
    let client = site.add(1, "lab-1", Mode::Persistent, &[]);
    let server = site.serve();
    let page = format!("/clients/{client}");
    let script = Script::of(&server.boot_cfg(&client));
    let peer = site.boot_by(&server, &script);
    let words = "its system logged in, and has read nothing yet";
    server.until(&page, |page| page.contains(words));
    let shown = site.netroot(&["client", "show", "lab-1"]);
    assert!(shown.contains(words), "{shown}");
    drop(peer);
    server.until(&page, |page| {
        page.contains("and it did not come back; it never read from its disk")
    });
    // It comes back, and reads.
    let mut peer = site.boot_by(&server, &script);
    site.reads(&mut peer);
    server.until(&page, |page| {
        !page.contains(words) && page.contains("first read")
    });
}

#[test]
fn the_firmware_alone_is_no_system_that_is_up() {
    let site = Site::new();
    site.seal("fc28");
    let client = site.add(1, "lab-1", Mode::Persistent, &[]);
    let server = site.serve();
    let script = Script::of(&server.boot_cfg(&client));
    let firmware = site.firmware_boots_by(&server, &script);
    let page = format!("/clients/{client}");
    server.until(&page, |page| {
        page.contains("data-state=\"booting\"") && page.contains("its firmware has its disk")
    });
    let _system = site.boot_by(&server, &script);
    server.until(&page, |page| page.contains("data-state=\"up\""));
    drop(firmware);
    assert_eq!(
        stages(&boots(&server, &client)[0]),
        ["script", "firmware", "system"]
    );
}

#[test]
fn what_ipxe_could_not_do_is_told_and_believed_only_where_it_boots() {
    let site = Site::new();
    site.seal("fc28");
    let client = site.add(1, "lab-1", Mode::Shared, &[]);
    let server = site.serve();
    let failed = |mac: &str, rest: &str| {
        let answer = server.ask_boot(&format!("/failed?mac={mac}&at={rest}"));
        answer.status
    };
    let bare = client.hyphens();
    assert_eq!(failed(&bare, "boot&errno=0x2d0c613b"), 200);
    assert!(boots(&server, &client).is_empty(), "it has not begun");
    for wrong in [
        "shell",
        "boot&errno=$(reboot)",
        "boot&errno=0x123456789",
        "",
        "../../etc/passwd",
    ] {
        assert_eq!(failed(&bare, wrong), 400, "{wrong}");
    }
    assert_eq!(failed("${netX/mac}", "boot"), 400);
    assert_eq!(failed("52-54-00-00-00-99", "boot"), 200, "nobody's");
    let [kernel, _] = files(&server.boot_cfg(&client));
    let version = site.lib.version(&"fc28@1".parse().unwrap()).unwrap();
    std::fs::remove_file(version.kernel_path()).unwrap();
    assert_eq!(server.ask_boot(&kernel).status, 404);
    assert_eq!(failed(&bare, "boot&errno=0x2d0c613b"), 200);
    let told = "fetched boot.cfg, iPXE could not do what its script says: there is no such file \
                (https://ipxe.org/2d0c613b)";
    assert_eq!(boots(&server, &client)[0]["told"], told);
    let room = server.page("/?show=failed");
    assert!(
        room.contains("iPXE could not do what its script says"),
        "{room}"
    );
    // It is written down within a moment, as an event, too.
    server.until("/events", |page| page.contains("saw the boot of"));
    // In way `ibft` the firmware has the disk already, and has it for a while yet.
    let script = Script::of(&server.boot_cfg(&client));
    let firmware = site.firmware_boots_by(&server, &script);
    let page = format!("/clients/{client}");
    server.until(&page, |page| page.contains("its firmware has its disk"));
    assert_eq!(failed(&bare, "initramfs&errno=0x4c0a6035"), 200);
    server.until(&page, |page| page.contains("data-state=\"failed\""));
    drop(firmware);
    let told = "fetched boot.cfg, its firmware logged in, iPXE could not fetch the initramfs: nobody \
                answered in time (https://ipxe.org/4c0a6035)";
    assert_eq!(boots(&server, &client)[0]["told"], told);
}

#[test]
fn a_wrong_name_is_told_with_the_right_one() {
    let site = Site::new();
    site.seal("fc28");
    let client = site.add(1, "lab-1", Mode::Shared, &[]);
    let second = site.add(2, "lab-2", Mode::Shared, &[]);
    let server = site.serve();
    let script = Script::of(&server.boot_cfg(&client));
    let _reader = site.log_in(&server, "iqn.2026-01.edu.example:other", &script.target);
    let boot = &boots(&server, &client)[0];
    assert_eq!(boot["other_name"], "iqn.2026-01.edu.example:other");
    let own = boot["own_name"].as_str().unwrap();
    let begin = script.initiator.rsplit_once('-').unwrap().0;
    assert!(own.starts_with(begin) && own.ends_with('\u{2026}'), "{own}");
    // With a second machine behind the same address it could be either's.
    server.boot_cfg(&second);
    let _other = site.log_in(&server, "iqn.2026-01.edu.example:third", &script.target);
    for client in [client, second] {
        let boots = boots(&server, &client);
        assert_ne!(boots[0]["other_name"], "iqn.2026-01.edu.example:third");
    }
}

#[test]
fn what_is_a_machines_alone_is_not_given_to_who_sits_before_its_running_system() {
    let site = Site::new();
    let mut draft = site.lib.draft(&"fc28".parse().unwrap()).unwrap();
    draft.create_sparse(1 << 20).unwrap();
    draft.add_kernel(&mut &b"a kernel"[..]).unwrap();
    draft.add_initramfs(&mut &b"an initramfs"[..]).unwrap();
    let facts = VersionFacts {
        kernel_version: "6.1.0".into(),
        early: InitramfsFacts {
            systemd: true,
            ..InitramfsFacts::default()
        },
        ..VersionFacts::default()
    };
    draft.seal(facts, &Quiet).unwrap();
    let client = site.add(1, "lab-1", Mode::Shared, &[]);
    site.say_of_boots("trusted", "trusted = [\"127.0.0.1\"]");
    let server = site.serve();
    let cfg = server.boot_cfg(&client);
    assert!(cfg.contains("/identity.img\n"), "{cfg}");
    let mut firmware = site.firmware_boots_by(&server, &Script::of(&cfg));
    let mut system = site.boot_by(&server, &Script::of(&cfg));

    // A machine that was reset says nothing.
    let cfg = server.boot_cfg(&client);
    assert!(cfg.contains("/identity.img\n"), "{cfg}");
    let identity = cfg
        .split_whitespace()
        .find(|word| word.ends_with("/identity.img"));
    let identity = format!("/{}", identity.unwrap().splitn(4, '/').nth(3).unwrap());

    let mut asks_while_it_runs = |path: &str| {
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| server.ask_boot(path));
            site.wait(async {
                // Some came before, to which nobody answered.
                while !asking.is_finished() {
                    let moment = std::time::Duration::from_millis(100);
                    let Ok(ping) = tokio::time::timeout(moment, system.receive()).await else {
                        continue;
                    };
                    let ping = NopIn::parse(&ping.unwrap().bhs).unwrap();
                    assert_eq!(ping.itt, Tag::NONE);
                    let answer = NopOut {
                        immediate: true,
                        lun: ping.lun,
                        itt: Tag::NONE,
                        ttt: ping.ttt,
                        cmd_sn: Serial(system.cmd_sn),
                        exp_stat_sn: Serial(0),
                    };
                    system.send(answer.emit(), b"").await;
                }
            });
            asking.join().unwrap()
        })
    };
    let answer = asks_while_it_runs(&format!("/boot.cfg?mac={client}"));
    assert_eq!(answer.status, 200);
    assert!(!answer.text.contains("identity"), "{}", answer.text);
    let answer = asks_while_it_runs(&identity);
    assert_eq!(answer.status, 403, "{}", answer.text);
    assert!(
        answer.text.contains("its system is running"),
        "{}",
        answer.text
    );
    let events = site.netroot(&["event", "list"]);
    assert!(
        events.contains("secret-withheld") || events.contains("its identity"),
        "{events}"
    );
    let silence = std::time::Duration::from_millis(100);
    let heard = async { tokio::time::timeout(silence, firmware.receive()).await };
    assert!(site.wait(heard).is_err(), "firmware is never pinged");
}
