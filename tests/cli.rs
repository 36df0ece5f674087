//! The command line as people and scripts meet it: a process with arguments, output and exit code.
//!
//! Needs root, since building an image mounts its disk.

// clippy.toml exempts functions marked #[test]; here the whole file is a test.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "cli/usage.rs"]
mod usage;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

#[path = "cli/esp.rs"]
mod esp;
#[path = "cli/jobs.rs"]
mod jobs;
#[path = "cli/netboot.rs"]
mod netboot;
#[path = "cli/portals.rs"]
mod portals;
#[path = "cli/volumes.rs"]
mod volumes;
#[path = "cli/wake.rs"]
mod wake;

const NETROOT: &str = env!("CARGO_BIN_EXE_netroot");
const MAC: &str = "52:54:00:12:34:56";

/// What boot.cfg says on the system that netroot replaces, byte for byte.
const DESCRIBED: &str = "\
#!ipxe
kernel --name kernel.efi ${prefix}/vmlinuz-4.19.5-300.fc29.x86_64 initrd=initrd.img ro ip=dhcp rd.peerdns=0 nameserver=192.0.2.91 nameserver=192.0.2.92 root=/dev/disk/by-path/ip-192.0.2.158:3260-iscsi-iqn.edu.example.server-01:fc29-lun-1 netroot=iscsi:192.0.2.158::::iqn.edu.example.server-01:fc29 console=tty0 console=ttyS0,115200n8 audit=0 selinux=0 quiet
initrd --name initrd.img ${prefix}/initramfs-4.19.5-300.fc29.x86_64.img
boot || exit
";

#[test]
fn the_help_is_the_one_that_was_reviewed() {
    let mut text = String::new();
    help(&[], &mut text);
    let snapshot = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help.txt");
    if std::env::var_os("NETROOT_BLESS").is_some() {
        fs::write(&snapshot, &text).unwrap();
    }
    let reviewed = fs::read_to_string(&snapshot).unwrap();
    assert!(
        text == reviewed,
        "the help changed: look at it, then accept it with NETROOT_BLESS=1 cargo test --test cli\n{text}"
    );
}

#[test]
fn wrong_usage_and_refusals_have_codes_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    for wrong in [
        &["client", "add", "52:54:00:12:34", "--image", "fc28"][..],
        &["client", "add", MAC, "--image", "FC28"],
        &["client", "add", MAC, "--image", "fc28", "--mode", "loud"],
        &[
            "client",
            "add",
            MAC,
            "--image",
            "fc28",
            "--arg",
            "root=/dev/sda",
        ],
        &["client", "reset", MAC, "--force", "--at-next-boot"],
        &["image", "build", "fc28", "--from", "/no/such/tree"],
        &["image", "build", "fc28", "--from", "/", "--size", "much"],
        &["frobnicate"],
    ] {
        let output = site.run(wrong);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{wrong:?}: {}",
            stderr(&output)
        );
    }
    for refused in [
        &["client", "add", MAC, "--image", "fc28"][..],
        &["client", "show", "lab-07"],
        &["image", "verify", "fc28@2"],
        &["session", "kick", "1", "--yes"],
        &["init"],
    ] {
        let output = site.run(refused);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{refused:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).starts_with("netroot: "),
            "{refused:?}: {}",
            stderr(&output)
        );
    }
    assert_eq!(
        site.json(&["client", "list"]),
        Value::Array(vec![]),
        "nothing was changed"
    );
}

#[test]
fn init_says_what_it_would_do_and_never_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    let library = dir.path().join("lib");
    let init = |args: &[&str]| {
        let mut command = Command::new(NETROOT);
        command
            .arg("--library")
            .arg(&library)
            .args(["init", "--host", "server-01.example.edu"]);
        command.args(args).output().unwrap()
    };
    assert!(init(&["--dry-run"]).status.success());
    assert!(!library.exists(), "a dry run touches nothing");
    assert!(init(&[]).status.success());
    let config = fs::read_to_string(library.join("netroot.toml")).unwrap();
    assert!(config.contains("iqn_prefix = \"iqn."), "{config}");
    let again = init(&[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        stderr(&again).contains("exists already"),
        "{}",
        stderr(&again)
    );
    assert_eq!(
        fs::read_to_string(library.join("netroot.toml")).unwrap(),
        config
    );
}

#[test]
fn a_mistake_in_the_configuration_is_told_with_line_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    let path = site.library.join("netroot.toml");
    let sound = fs::read_to_string(&path).unwrap();
    for (from, to, key) in [
        ("lun = 1", "lun = 0", "iscsi.lun"),
        ("lun = 1", "luns = 1", "luns"),
        (
            "listen = [\"[::]:3260\"]",
            "listen = [\"everywhere\"]",
            "iscsi.listen",
        ),
        ("format = 1", "format = 2", "format"),
    ] {
        let text = sound.replace(from, to);
        assert_ne!(text, sound);
        let line = text.lines().position(|line| line.contains(to)).unwrap() + 1;
        fs::write(&path, text).unwrap();
        let told = stderr(&site.run(&["image", "list"]));
        assert!(
            told.contains(&format!("netroot.toml:{line}: ")) && told.contains(key),
            "{told}"
        );
    }
}

#[test]
fn the_described_inputs_export_the_described_esp() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    let path = site.library.join("netroot.toml");
    let config = fs::read_to_string(&path).unwrap();
    let prefix = config
        .lines()
        .find(|line| line.starts_with("iqn_prefix"))
        .unwrap();
    let config = config
        .replace(prefix, "iqn_prefix = \"iqn.edu.example.server-01\"")
        .replace("announce = []", "announce = [\"192.0.2.158\"]")
        .replace("nameservers = []", "nameservers = [\"192.0.2.91\", \"192.0.2.92\"]")
        .replace(
            "kernel_args = []",
            "kernel_args = [\"console=tty0\", \"console=ttyS0,115200n8\", \"audit=0\", \"selinux=0\", \"quiet\"]",
        );
    fs::write(&path, config).unwrap();
    site.build("fc29", "4.19.5-300.fc29.x86_64");
    let esp = dir.path().join("esp");
    let export = ["esp", "export", esp.to_str().unwrap(), "--image", "fc29"];
    site.ok(&[&export[..], &["--dry-run"]].concat());
    assert!(!esp.exists(), "a dry run touches nothing");
    site.ok(&export);
    assert_eq!(
        fs::read_to_string(esp.join("linux/boot.cfg")).unwrap(),
        DESCRIBED
    );
    let kernel = fs::read(esp.join("linux/vmlinuz-4.19.5-300.fc29.x86_64")).unwrap();
    assert_eq!(kernel, b"a kernel");
    assert!(
        esp.join("linux/initramfs-4.19.5-300.fc29.x86_64.img")
            .is_file()
    );
    assert!(esp.join("autoexec.ipxe").is_file());

    site.ok(&[
        "client",
        "add",
        MAC,
        "--image",
        "fc29",
        "--mode",
        "persistent",
    ]);
    let refused = site.run(&["esp", "export", esp.to_str().unwrap(), "--client", MAC]);
    assert!(
        stderr(&refused).contains("each boot needs an id"),
        "{}",
        stderr(&refused)
    );
    site.remove();
}

#[test]
fn acts_that_destroy_ask_and_dry_runs_touch_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc28", "5.10.1");
    let add = [
        "client",
        "add",
        MAC,
        "--image",
        "fc28",
        "--mode",
        "persistent",
        "--name",
        "lab-07",
    ];
    site.ok(&[&add[..], &["--dry-run"]].concat());
    assert_eq!(site.json(&["client", "list"]), Value::Array(vec![]));
    site.ok(&add);
    let twice = site.run(&["client", "add", MAC, "--image", "fc28"]);
    assert!(
        stderr(&twice).contains("exists already"),
        "{}",
        stderr(&twice)
    );

    let disk = |site: &Site| site.json(&["client", "show", "lab-07"])["clone"]["id"].clone();
    let before = disk(&site);
    let silent = site.run(&["client", "reset", "lab-07"]);
    assert_eq!(silent.status.code(), Some(1));
    assert!(stderr(&silent).contains("--yes"), "{}", stderr(&silent));
    let plan = site.ok(&["client", "reset", "lab-07", "--dry-run"]);
    assert!(plan.contains("lab-07: would reset"), "{plan}");
    assert_eq!(disk(&site), before);
    site.ok(&["client", "reset", "lab-07", "--yes"]);
    assert_ne!(disk(&site), before);
    site.ok(&["client", "undo", "lab-07", "--yes"]);
    assert_eq!(disk(&site), before);

    let used = site.run(&["image", "remove", "fc28", "--yes"]);
    assert!(stderr(&used).contains("lab-07"), "{}", stderr(&used));
    site.ok(&[
        "client", "set", "lab-07", "--arg", "quiet", "--group", "room5",
    ]);
    assert!(
        site.ok(&["boot", "show", "@room5", "--server", "192.0.2.1"])
            .contains(" quiet\n")
    );
    site.ok(&["client", "set", "lab-07", "--arg=", "--name", "lab-08"]);
    assert!(!site.ok(&["boot", "show", "lab-08"]).contains(" quiet"));
    site.remove();
}

#[test]
fn the_history_of_an_image_is_shown_compared_and_gone_back_in() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc28", "5.10.1");
    site.build("fc28", "5.10.2");
    let add = ["client", "add", MAC, "--image", "fc28", "--name", "lab-07"];
    site.ok(&add);
    let list = site.ok(&["image", "list"]);
    let headings = list.lines().next().unwrap();
    assert!(headings.contains("ON DISK  OWN"), "{list}");
    let shown = site.json(&["image", "show", "fc28"]);
    assert_eq!(shown["current"], 2);
    let versions = shown["versions"].as_array().unwrap();
    assert_eq!(versions.len(), 2);
    assert!(versions[0]["usage"]["allocated"].as_u64().unwrap() > 0);
    assert_eq!(versions[1]["uses"][0]["client"], "lab-07");
    let table = site.ok(&["image", "show", "fc28"]);
    assert!(table.contains("assigned: lab-07"), "{table}");
    let whole = site.json(&["image", "show", "fc28@1"]);
    assert_eq!(whole["kernel_version"], "5.10.1");
    assert_eq!(whole["now"]["current"], false);

    let found = site.json(&["image", "diff", "fc28"]);
    assert_eq!(
        (&found["from"], &found["to"]),
        (&"fc28@1".into(), &"fc28@2".into())
    );
    let added: Vec<_> = found["files"]["added"].as_array().unwrap().iter().collect();
    assert!(
        added
            .iter()
            .any(|entry| entry["path"] == "lib/modules/5.10.2/vmlinuz"),
        "{added:?}"
    );
    let told = site.ok(&["image", "diff", "fc28@2", "fc28@1"]);
    assert!(
        told.contains("  - /lib/modules/5.10.2/  with 1 entries, 8 B\n"),
        "{told}"
    );
    let alone = stderr(&site.run(&["image", "diff", "fc28@2"]));
    assert!(alone.contains("with what?"), "{alone}");

    let asked = stderr(&site.run(&["image", "rollback", "fc28"]));
    assert!(
        asked.starts_with("netroot: fc28@1 becomes current instead of fc28@2\n")
            && asked.contains("lab-07 (shared) gets fc28@1 at its next boot")
            && asked.contains("--yes"),
        "{asked}"
    );
    let plan = site.json(&["image", "rollback", "fc28", "--dry-run"]);
    assert_eq!(plan["to"], "fc28@1");
    assert_eq!(site.json(&["image", "show", "fc28"])["current"], 2);
    site.ok(&["image", "rollback", "fc28", "--yes"]);
    assert_eq!(site.json(&["image", "show", "fc28"])["current"], 1);
    // Forward again, while a server runs: it is the server that moves it.
    let server = site.serve();
    let told = site.ok(&["image", "rollback", "fc28", "2", "--yes"]);
    assert!(
        told.starts_with("fc28@2 is current instead of fc28@1\n"),
        "{told}"
    );
    assert_eq!(site.json(&["image", "show", "fc28"])["current"], 2);
    let again = site.ok(&["image", "rollback", "fc28@2"]);
    assert_eq!(again, "fc28@2 is current already: nothing to do\n");
    server.stop();
    site.remove();
}

#[test]
fn an_image_says_the_way_to_boot_for_all_who_boot_it() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc28", "5.10.1");
    let add = ["client", "add", MAC, "--image", "fc28", "--name", "lab-07"];
    site.ok(&[&add[..], &["--mode", "persistent"]].concat());
    let set = |way: &str| site.ok(&["image", "set", "fc28", "--way", way]);
    let dry = ["image", "set", "fc28", "--way", "esp", "--dry-run"];
    let would = "fc28: would\n  set way to `esp` instead of nothing\n";
    assert_eq!(site.ok(&dry), would);
    assert_eq!(site.json(&["image", "show", "fc28"]).get("way"), None);
    assert_eq!(
        set("esp"),
        "fc28: way esp, where neither a client nor a group of it says another\n"
    );
    let told = site.ok(&["image", "show", "fc28@1"]);
    assert!(
        told.contains("way         esp, as is said of fc28"),
        "{told}"
    );
    let ticket = site.json(&["boot", "show", "lab-07", "--server", "192.0.2.1"]);
    assert_eq!(ticket["ticket"]["way"], "esp");
    let stick = dir.path().join("stick");
    let stick = stick.to_str().unwrap();
    let export = [
        "esp",
        "export",
        "--client",
        "lab-07",
        "--server",
        "192.0.2.1",
        stick,
    ];
    site.ok(&export);
    let server = site.serve();
    let image = site.json(&["image", "set", "fc28", "--way", "http"]);
    assert_eq!(image["way"], "http");
    assert_eq!(site.json(&["image", "list"])[0]["way"], "http");
    assert_eq!(site.json(&["image", "show", "fc28"])["way"], "http");
    let dry = ["image", "set", "fc28", "--way", "http", "--dry-run"];
    assert_eq!(site.ok(&dry), "fc28: nothing to change\n");
    assert_eq!(set("none"), "fc28: no way of its own\n");
    server.stop();
    let alone = stderr(&site.run(&export));
    assert!(
        alone.contains("let it ask the server at each boot"),
        "{alone}"
    );
    let wrong = stderr(&site.run(&["image", "set", "fc28", "--way", "nfs"]));
    assert!(
        wrong.contains("a way to boot: http, ibft or esp"),
        "{wrong}"
    );
    site.remove();
}

#[test]
fn what_is_used_goes_by_force_only_and_its_clients_are_told_why_they_boot_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    for kernel in ["5.10.1", "5.10.2", "5.10.3"] {
        site.build("fc28", kernel);
    }
    let add = [
        "client",
        "add",
        MAC,
        "--name",
        "lab-07",
        "--mode",
        "persistent",
    ];
    site.ok(&[&add[..], &["--image", "fc28@1"]].concat());
    let server = site.serve();
    let refused = stderr(&site.run(&["image", "remove", "fc28@1", "--yes"]));
    assert!(
        refused.contains("lab-07 has a clone of it") && refused.contains("--force"),
        "{refused}"
    );
    let asked = stderr(&site.run(&["image", "remove", "fc28@1", "--force"]));
    assert!(
        asked.contains("lab-07: the disk that was made from it")
            && asked.contains("lab-07: stays assigned to what is gone")
            && asked.contains("--yes"),
        "{asked}"
    );
    let pruned = site.json(&["image", "prune", "--keep", "1", "--dry-run"]);
    assert_eq!(pruned["removes"][0]["version"], "fc28@2");
    assert_eq!(pruned["stays"][0]["version"], "fc28@1");
    let told = site.ok(&["image", "prune", "fc28", "--keep", "1", "--yes"]);
    assert!(
        told.starts_with("removed fc28@2, which frees at least ")
            && told.contains("\nfc28@1 stays: client lab-07 is assigned to it"),
        "{told}"
    );
    let nothing = site.ok(&["image", "prune", "--keep", "1"]);
    assert!(nothing.ends_with("nothing to remove\n"), "{nothing}");
    site.ok(&["image", "remove", "fc28@1", "--force", "--yes"]);
    let view = site.ok(&["client", "show", "lab-07"]);
    assert!(view.contains("boots     nothing"), "{view}");
    let (status, script) = server.get(&format!("/boot.cfg?mac={MAC}"));
    assert_eq!(status, 200);
    assert!(
        script.starts_with(
            "#!ipxe\necho netroot: booting client lab-07: refused, because it is assigned to fc28@1"
        ) && script.ends_with("\nsleep 30\nexit 1\n"),
        "{script}"
    );
    site.ok(&["client", "assign", "lab-07", "fc28@3"]);
    let (_, script) = server.get(&format!("/boot.cfg?mac={MAC}"));
    assert!(script.contains("/images/fc28/3\n"), "{script}");
    server.stop();
    site.remove();
}

#[test]
fn verify_tells_of_every_version_and_fails_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc28", "5.10.1");
    site.build("fc28", "5.10.2");
    let one = site.json(&["image", "verify", "fc28"]);
    assert_eq!(
        (&one["version"], &one["filesystem"]),
        (&"fc28@2".into(), &"ext4".into())
    );
    let all = site.json(&["image", "verify", "--all"]);
    assert_eq!(all.as_array().unwrap().len(), 2);
    let kernel = site.library.join("images/fc28/1/vmlinuz");
    // Sealed files may be immutable: root has to say twice that he means it.
    let _ = Command::new("chattr").arg("-i").arg(&kernel).output();
    fs::write(&kernel, "another").unwrap();
    let damaged = site.run(&["image", "verify", "--all", "fc28"]);
    assert_eq!(damaged.status.code(), Some(1));
    let told = String::from_utf8(damaged.stdout.clone()).unwrap();
    assert!(
        told.contains("fc28@1 is not what was sealed: the hash of ")
            && told.contains("\nfc28@2 is whole: "),
        "{told}"
    );
    assert!(
        stderr(&damaged).contains("1 of 2 versions are damaged: fc28@1"),
        "{}",
        stderr(&damaged)
    );
    site.remove();
}

#[test]
fn an_act_on_a_group_tells_of_each_client() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc28", "5.10.1");
    for (number, mode) in [(1, "persistent"), (2, "persistent"), (3, "shared")] {
        let (mac, name) = (format!("52:54:00:00:00:0{number}"), format!("lab-{number}"));
        let add = ["client", "add", &mac, "--image", "fc28", "--name", &name];
        let told = site.ok(&[&add[..], &["--mode", mode, "--group", "room5"]].concat());
        assert!(told.starts_with(&format!("{name}: added\n")), "{told}");
    }
    for only_one_has in [["--name", "desk"], ["--mac", "52:54:00:00:00:09"]] {
        let refused = site.run(&[&["client", "set", "@room5"], &only_one_has[..]].concat());
        assert_eq!(refused.status.code(), Some(1));
        assert!(
            stderr(&refused).contains("it is 3 clients"),
            "{}",
            stderr(&refused)
        );
    }
    // One of them has no disk to reset: that is a failure only if it was meant alone.
    let told = site.ok(&["client", "reset", "@room5", "--yes"]);
    assert!(
        told.contains("lab-1: reset\n") && told.contains("lab-3: nothing to do: "),
        "{told}"
    );
    let told = site.ok(&["client", "undo", "@room5", "--yes"]);
    assert!(told.contains("lab-2: undone\n"), "{told}");
    let alone = stderr(&site.run(&["client", "reset", "lab-3", "--yes"]));
    assert!(
        alone.starts_with("netroot: reset lab-3: there is nothing to do: its mode is shared"),
        "{alone}"
    );
    // A failure midway tells what was done before it.
    let in_the_way = site.library.join("clones/525400000002/discarded");
    fs::rename(&in_the_way, dir.path().join("discarded")).unwrap();
    fs::write(&in_the_way, "").unwrap();
    let half = site.run(&["--json", "client", "reset", "@room5", "--yes"]);
    assert_eq!(half.status.code(), Some(1));
    let done: Value = serde_json::from_slice(&half.stdout).unwrap();
    assert_eq!(done.as_array().unwrap().len(), 1);
    assert_eq!(done[0]["plan"]["client"], "lab-1");
    assert!(
        stderr(&half).contains("stopped at lab-2; those after it are as they were"),
        "{}",
        stderr(&half)
    );
    fs::remove_file(&in_the_way).unwrap();
    fs::rename(dir.path().join("discarded"), &in_the_way).unwrap();
    site.remove();
}

#[test]
fn what_is_told_of_an_act_is_what_happens() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc28", "5.10.1");
    let add = ["client", "add", MAC, "--image", "fc28", "--name", "lab-07"];
    site.ok(&[&add[..], &["--mode", "persistent"]].concat());
    let asked = stderr(&site.run(&["client", "reset", "lab-07"]));
    let (minute, _) = asked
        .strip_prefix("netroot: reset lab-07: everything that it wrote since ")
        .and_then(|rest| rest.split_once(" is lost (kept for undo)"))
        .expect(&asked);
    assert_eq!(minute.len(), "2026-11-21 01:42".len(), "{asked}");
    for expected in ["undo brings it back", "set aside"] {
        site.ok(&["client", "reset", "lab-07", "--yes"]);
        let shown = site.ok(&["client", "show", "lab-07"]);
        assert_eq!(shown.matches("undo brings").count(), 1, "{shown}");
        assert!(shown.contains(expected), "{shown}");
    }
    let arm = ["client", "reset", "lab-07", "--at-next-boot"];
    let told = site.ok(&[&arm[..], &["--dry-run"]].concat());
    assert!(
        told.starts_with("lab-07: would arm: reset at its next boot\n"),
        "{told}"
    );
    let told = site.ok(&[&arm[..], &["--yes"]].concat());
    assert!(
        told.starts_with("lab-07: armed: reset at its next boot\n"),
        "{told}"
    );
    let told = site.ok(&["client", "set", "lab-07", "--mode", "persistent"]);
    assert_eq!(told, "lab-07: nothing to change\n");
    let told = site.ok(&["client", "undo", "lab-07"]);
    assert!(
        told.starts_with("lab-07: called off: reset at its next boot\n"),
        "{told}"
    );
    let told = site.ok(&[
        "client", "set", "lab-07", "--mode", "shared", "--arg", "quiet", "--yes",
    ]);
    assert!(
        told.starts_with("lab-07: set mode shared\n") && told.contains("`quiet`"),
        "{told}"
    );
    let missing = stderr(&site.run(&["image", "show", "fc28@9"]));
    assert_eq!(missing, "netroot: fc28 has no version 9, only 1\n");
    // A client without a disk is asked about too: what is known about it is lost.
    site.ok(&[
        "client",
        "add",
        "52:54:00:00:00:02",
        "--image",
        "fc28",
        "--name",
        "lab-08",
    ]);
    let asked = stderr(&site.run(&["client", "remove", "lab-08"]));
    assert!(
        asked.starts_with("netroot: remove lab-08: what is known about it is lost"),
        "{asked}"
    );
    site.remove();
}

#[test]
fn a_running_server_does_what_the_command_alone_does() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc28", "5.10.1");
    site.ok(&[
        "client",
        "add",
        MAC,
        "--image",
        "fc28",
        "--mode",
        "ephemeral",
    ]);
    let listings = [
        &["client", "list"][..],
        &["target", "list"],
        &["session", "list"],
    ];
    let alone: Vec<Value> = listings.iter().map(|listing| site.json(listing)).collect();
    let unknown = stderr(&site.run(&["client", "show", "nobody"]));

    let server = site.serve();
    let served: Vec<Value> = listings.iter().map(|listing| site.json(listing)).collect();
    assert_eq!(served, alone);
    assert_eq!(stderr(&site.run(&["client", "show", "nobody"])), unknown);
    site.ok(&["client", "reset", MAC, "--yes"]);
    site.ok(&[
        "client",
        "add",
        "52:54:00:00:00:02",
        "--image",
        "fc28",
        "--group",
        "room5",
    ]);
    assert_eq!(
        site.json(&["client", "list", "--group", "room5"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
    site.build("fc28", "5.10.2");
    let second = site.run(&["serve"]);
    assert!(
        stderr(&second).contains("control socket"),
        "{}",
        stderr(&second)
    );

    server.stop();
    assert!(!site.library.join("control.sock").exists());
    let events = fs::read_dir(site.library.join("events"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let events = fs::read_to_string(events.path()).unwrap();
    assert!(
        events.contains("\"socket\":{\"uid\":0"),
        "who asked is recorded: {events}"
    );
    site.remove();
}

#[test]
fn a_client_is_told_its_boot_over_http_and_nobody_is_told_more() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc28", "5.10.1");
    site.ok(&["client", "add", MAC, "--image", "fc28", "--arg", "quiet"]);
    let other = "52:54:00:12:34:99";
    site.ok(&["client", "set", MAC, "--mac", other]);
    let server = site.serve();
    let base = format!("http://{}", server.boot);

    let (status, script) = server.get("/boot.ipxe");
    assert_eq!(status, 200);
    assert!(
        script.contains(&format!(
            "set base {base}\nset at script\nchain --autofree ${{base}}/boot.cfg?mac=${{netX/mac:hexhyp}}&uuid=${{uuid}}"
        )),
        "{script}"
    );
    assert_eq!(server.get("/autoexec.ipxe").1, script);
    // Beside the loader lies what leads an iPXE there that was told nothing by DHCP.
    let (status, beside) = server.get("/ipxe/autoexec.ipxe");
    assert_eq!(status, 200, "{beside}");
    let leads = format!("\nchain --autofree {base}/boot.ipxe ");
    assert!(
        beside.starts_with("#!ipxe\n") && beside.contains(&leads),
        "{beside}"
    );
    let (status, cfg) = server.get("/boot.cfg?mac=52-54-00-12-34-56");
    assert_eq!(status, 200, "{cfg}");
    assert!(
        cfg.contains(&format!("set prefix {base}/images/fc28/1\n")),
        "{cfg}"
    );
    assert!(
        cfg.contains(":fc28.1 rd.iscsi.initiator=iqn."),
        "its version's own target: {cfg}"
    );
    assert!(cfg.contains(" quiet\n"), "{cfg}");
    // Ids are drawn by the clock, to the millisecond.
    std::thread::sleep(std::time::Duration::from_millis(2));
    let again = server.get("/boot.cfg?mac=525400123456").1;
    assert_ne!(cfg, again, "each script has a boot id of its own");
    // By a further address it is the same client, which is named by its first one.
    let (status, by_other) = server.get("/boot.cfg?mac=52-54-00-12-34-99");
    assert_eq!(status, 200, "{by_other}");
    let whose = ":client-525400123456.";
    assert!(
        cfg.contains(whose) && by_other.contains(whose),
        "{by_other}"
    );
    assert!(
        by_other.contains(" BOOTIF=01-52-54-00-12-34-99"),
        "{by_other}"
    );
    assert_eq!(
        server.get("/images/fc28/1/vmlinuz-5.10.1"),
        (200, "a kernel".to_owned())
    );

    for (nothing, expected) in [
        ("/boot.cfg", 400),
        ("/boot.cfg?mac=52:54", 400),
        ("/images/fc28/1/manifest.json", 404),
        ("/images/fc28/1/disk.img", 404),
        ("/images/fc28/1/..%2f..%2f..%2fsecrets%2fboot.key", 404),
        ("/images/../../secrets/boot.key", 404),
        ("/images/..%2f..%2fsecrets/1/boot.key", 400),
        ("/images/fc28/2/vmlinuz", 404),
        ("/images", 404),
        ("/", 404),
        ("/api/v1/clients", 404),
    ] {
        let (status, text) = server.get(nothing);
        assert_eq!(status, expected, "{nothing}: {text}");
        assert!(text.contains("\"detail\""), "{nothing}: {text}");
    }
    server.stop();
    site.remove();
}

#[test]
fn a_disk_that_boots_itself_is_imported_and_given_to_clients() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    // An MBR with boot code and one partition.
    let mut disk = vec![0; 1 << 20];
    disk[0] = 0xeb;
    disk[450] = 0x83;
    disk[454] = 64;
    disk[458] = 128;
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let file = dir.path().join("win.raw");
    fs::write(&file, disk).unwrap();
    let import = ["image", "import", "win", "--from", file.to_str().unwrap()];
    let plan = site.json(&[&import[..], &["--dry-run"]].concat());
    assert_eq!(plan["steps"][1]["table"]["kind"], "mbr");
    assert_eq!(site.json(&["image", "list"]), Value::Array(vec![]));
    let said = site.ok(&import);
    assert!(said.starts_with("sealed win@1\n"), "{said}");
    assert!(said.contains("MBR with 1 partition, for BIOS"), "{said}");
    assert!(said.contains("--image win --mode persistent"), "{said}");

    let mac = "52:54:00:12:34:56";
    site.ok(&["client", "add", mac, "--image", "win", "-m", "persistent"]);
    let shown = site.ok(&["boot", "show", mac, "--server", "192.0.2.1"]);
    assert!(shown.contains("\nsanboot iscsi:192.0.2.1::"), "{shown}");
    assert!(!shown.contains("vmlinuz"), "{shown}");
    assert!(
        shown.contains("\nset username 525400123456\nset password \u{2026}\n"),
        "{shown}"
    );
    site.ok(&["client", "set", mac, "--chap", "off"]);
    let open = site.ok(&["boot", "show", mac, "--server", "192.0.2.1"]);
    assert!(
        open.contains("\nsanboot ") && !open.contains("\nset password "),
        "{open}"
    );
    let esp = dir.path().join("esp");
    let refused = site.run(&["esp", "export", esp.to_str().unwrap(), "--image", "win"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("it boots from its own disk"));
    assert!(!esp.exists());

    let other = ["image", "import", "x", "--from", "Cargo.toml", "--format"];
    let wrong = site.run(&[&other[..], &["vdi"]].concat());
    assert_eq!(wrong.status.code(), Some(2), "{}", stderr(&wrong));
    let refused = site.run(&other[..5]);
    assert_eq!(refused.status.code(), Some(1));
    let why = stderr(&refused);
    assert!(
        why.contains("is taken, and a bare file system: xfs"),
        "{why}"
    );
    site.remove();
}

#[test]
fn a_clients_disk_becomes_an_image_while_the_server_runs() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc28", "5.10.1");
    let mac = "52:54:00:12:34:56";
    site.ok(&["client", "add", mac, "--image", "fc28", "-m", "persistent"]);
    let server = site.serve();
    let promote = ["client", "promote", mac, "tools", "--no-initramfs-check"];
    let planned = site.json(&[&promote[..], &["--dry-run"]].concat());
    assert_eq!(planned["steps"][0]["step"], "copy-clone");

    let ticket = &site.json(&["boot", "show", mac])["ticket"];
    let word = |key: &str| ticket[key].as_str().unwrap();
    let session = server.log_in(word("initiator"), word("target"));
    let yes = [&promote[..], &["--yes"]].concat();
    let refused = site.run(&yes);
    assert_eq!(refused.status.code(), Some(1));
    let why = stderr(&refused);
    assert!(why.contains("it may be running"), "{why}");

    drop(session);
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while site.json(&["client", "show", mac])["state"] != "off" {
        assert!(
            std::time::Instant::now() < limit,
            "the session does not end"
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // Where nobody can be asked, it has to be said before.
    let asked = site.run(&promote);
    assert_eq!(asked.status.code(), Some(1));
    assert!(stderr(&asked).contains("this needs --yes"));
    let promoted = site.run(&yes);
    assert!(promoted.status.success(), "{}", stderr(&promoted));
    let told = stderr(&promoted);
    assert!(told.contains("files: no differences"), "{told}");
    let said = String::from_utf8(promoted.stdout).unwrap();
    assert!(said.starts_with("sealed tools@1\n"), "{said}");
    let shown = site.json(&["image", "show", "tools@1"]);
    assert_eq!(shown["parent"], "fc28@1");
    assert_eq!(
        shown["source"],
        format!("the disk of client client-{}", mac.replace(':', ""))
    );
    // And the client boots on.
    let ticket = &site.json(&["boot", "show", mac])["ticket"];
    let word = |key: &str| ticket[key].as_str().unwrap();
    let session = server.log_in(word("initiator"), word("target"));
    server.stop();
    drop(session);
    site.ok(&["client", "remove", mac, "--purge", "--yes", "--force"]);
    site.remove();
}

#[test]
fn who_is_connected_is_listed_and_can_be_sent_away() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc28", "5.10.1");
    let server = site.serve();
    let targets = site.json(&["target", "list"]);
    let target = targets[0]["target"].as_str().unwrap();
    assert!(target.ends_with(":fc28"), "{targets}");
    let mut session = server.log_in("iqn.2026-01.edu.example:reader", target);

    let listed = site.json(&["target", "list"]);
    let sessions = listed[0]["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 1, "{listed}");
    assert_eq!(sessions[0]["initiator"], "iqn.2026-01.edu.example:reader");
    assert!(
        sessions[0]["peer"]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );
    assert_eq!(
        (&listed[0]["lun"], &listed[0]["read_only"]),
        (&1.into(), &true.into())
    );
    assert!(
        listed[0]["backing"]
            .as_str()
            .unwrap()
            .ends_with("images/fc28/1/disk.img")
    );
    let used = site.run(&["image", "remove", "fc28", "--yes"]);
    assert!(
        stderr(&used).contains("iqn.2026-01.edu.example:reader"),
        "{}",
        stderr(&used)
    );

    let id = sessions[0]["id"].to_string();
    assert_eq!(
        site.run(&["session", "kick", &id]).status.code(),
        Some(1),
        "it asks first"
    );
    site.ok(&["session", "kick", &id, "--yes"]);
    assert_eq!(site.json(&["session", "list"]), Value::Array(vec![]));
    // An asynchronous message may come first; then the connection is closed.
    session.read_to_end(&mut Vec::new()).unwrap();
    server.stop();
    site.remove();
}

/// As after `2>&1 | head -1`.
#[test]
fn work_goes_on_when_nobody_reads_what_is_told_about_it() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc28", "6.1.0-21-amd64");
    let tree = dir.path().join("tree-fc28-6.1.0-21-amd64");
    let build = &["image", "build", "fc28", "--from", tree.to_str().unwrap()][..];
    let build = &[build, &["--fs", "ext4", "--no-initramfs-check"]].concat()[..];
    for (wanted, args) in [
        (Some(0), build),
        (Some(0), &["completions", "bash"]),
        (Some(0), &["image", "list"]),
        (Some(1), &["image", "show", "fc29"]),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = site.command(args);
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        assert_eq!(command.status().unwrap().code(), wanted, "{args:?}");
    }
    let listed = site.json(&["image", "list"]);
    assert_eq!(listed[1]["version"], "fc28@2", "{listed}");
    site.ok(&["image", "verify", "fc28@2"]);
    site.remove();
}

#[test]
fn a_server_outlives_who_read_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    let mut server = site.serve();
    drop(server.child.stderr.take());
    let asked = server.get("/no/such/page");
    assert_eq!(asked.0, 404, "{}", asked.1);
    let id = nix::unistd::Pid::from_raw(i32::try_from(server.child.id()).unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
    // It logs that it ends.
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_server_that_only_loopback_can_reach_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    let server = site.serve();
    let log = server.stop();
    assert!(log.contains("iSCSI listens on 127.0.0.1 only"), "{log}");
    site.remove();
}

/// A library of its own for each test.
struct Site {
    dir: PathBuf,
    library: PathBuf,
    config: PathBuf,
}

impl Site {
    fn new(dir: &Path) -> Self {
        let site = Site {
            dir: dir.to_owned(),
            library: dir.join("lib"),
            config: dir.join("own.toml"),
        };
        let own = ["iscsi", "boot", "admin"]
            .map(|part| format!("[{part}]\nlisten = [\"127.0.0.1:0\"]\n"))
            .concat();
        let mut init = Command::new(NETROOT);
        init.arg("--library")
            .arg(&site.library)
            .args(["init", "--host", "server-01.example.edu"]);
        let made = init.output().unwrap();
        assert!(made.status.success(), "{}", stderr(&made));
        fs::write(&site.config, own).unwrap();
        site
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(NETROOT);
        command
            .arg("--library")
            .arg(&self.library)
            .arg("--config")
            .arg(&self.config)
            .args(args);
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[&["--json"], args].concat())).unwrap()
    }

    /// A version of an image that is whole, and small: nothing in it would boot.
    fn build(&self, image: &str, kernel: &str) -> String {
        self.build_of(image, kernel, b"a kernel")
    }

    fn build_of(&self, image: &str, kernel: &str, vmlinuz: &[u8]) -> String {
        let tree = self.dir.join(format!("tree-{image}-{kernel}"));
        let modules = tree.join("lib/modules").join(kernel);
        fs::create_dir_all(&modules).unwrap();
        fs::create_dir_all(tree.join("boot")).unwrap();
        fs::write(modules.join("vmlinuz"), vmlinuz).unwrap();
        fs::write(
            tree.join(format!("boot/initramfs-{kernel}.img")),
            "an initramfs",
        )
        .unwrap();
        let from = tree.to_str().unwrap();
        self.ok(&[
            "image",
            "build",
            image,
            "--from",
            from,
            "--fs",
            "ext4",
            "--no-initramfs-check",
        ])
    }

    fn serve(&self) -> Server {
        let mut command = self.command(&["--json", "serve"]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ready = BufReader::new(child.stdout.take().unwrap()).lines().next();
        let ready: Value = serde_json::from_str(&ready.unwrap().unwrap()).unwrap();
        let door = |name: &str| ready[name][0].as_str().unwrap().to_owned();
        Server {
            boot: door("boot"),
            iscsi: door("iscsi"),
            child,
        }
    }

    /// Sealed files may be immutable, which a temporary directory does not know.
    fn remove(self) {
        for client in self.json(&["client", "list"]).as_array().unwrap() {
            let mac = client["mac"].as_str().unwrap();
            self.ok(&["client", "remove", mac, "--purge", "--yes"]);
        }
        for image in self.json(&["image", "list"]).as_array().unwrap() {
            let name = image["version"]
                .as_str()
                .unwrap()
                .split('@')
                .next()
                .unwrap();
            let _ = self.run(&["image", "remove", name, "--yes"]);
        }
        assert_eq!(self.json(&["image", "list"]), Value::Array(vec![]));
    }
}

struct Server {
    child: Child,
    /// Where its boot service listens.
    boot: String,
    /// Where its target listens.
    iscsi: String,
}

impl Server {
    /// Status and text of what is there.
    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.boot).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.boot
        );
        stream.write_all(request.as_bytes()).unwrap();
        let answer = std::io::read_to_string(stream).unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, text.to_owned())
    }

    /// A session of the full feature phase, by the shortest login there is (RFC 7143 §11.12).
    fn log_in(&self, initiator: &str, target: &str) -> TcpStream {
        let keys = format!("InitiatorName={initiator}\0TargetName={target}\0SessionType=Normal\0");
        let mut request = vec![0; 48];
        // A login that goes from operational negotiation to the full feature phase at once.
        request[..2].copy_from_slice(&[0x43, 0x87]);
        request[7] = u8::try_from(keys.len()).unwrap();
        // A random ISID, and tags that are all 1.
        request[8] = 0x80;
        request[19] = 1;
        request[27] = 1;
        request.extend(keys.as_bytes());
        request.resize(request.len().next_multiple_of(4), 0);
        let mut stream = TcpStream::connect(&self.iscsi).unwrap();
        stream.write_all(&request).unwrap();
        let mut response = [0; 48];
        stream.read_exact(&mut response).unwrap();
        assert_eq!(
            (response[0], response[36], response[37]),
            (0x23, 0, 0),
            "the login is answered"
        );
        let data = usize::from(u16::from_be_bytes([response[6], response[7]]));
        stream
            .read_exact(&mut vec![0; data.next_multiple_of(4)])
            .unwrap();
        stream
    }

    /// Ends it as a service manager would, and gives what it logged.
    fn stop(mut self) -> String {
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
        let log = std::io::read_to_string(self.child.stderr.take().unwrap()).unwrap();
        assert!(self.child.wait().unwrap().success(), "{log}");
        log
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Only where a test failed before it stopped the server.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The help of a command and of all below it.
fn help(path: &[&str], into: &mut String) {
    let output = Command::new(NETROOT)
        .args(path)
        .arg("--help")
        .env_remove("NETROOT_LIBRARY")
        .env_remove("NETROOT_CONFIG")
        .env_remove("COLUMNS")
        .output()
        .unwrap();
    assert!(output.status.success(), "{path:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    into.push_str(&format!("$ netroot {} --help\n{text}\n", path.join(" ")));
    let commands = text.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names: Vec<String> = commands
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|name| name != "help")
        .collect();
    for name in &names {
        help(&[path, &[name.as_str()]].concat(), into);
    }
}
