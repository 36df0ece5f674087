//! Volumes, as their owners and initiators of other people meet them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use super::{NETROOT, Server, Site, stderr};

const US: &str = "iqn.2026-01.test:us";
const SECRET: &str = "a secret of ours 1";

/// One of libiscsi's tools; `{}` in its last argument is where the server listens.
fn tool(server: &Server, args: &[&str], initiator: &str) -> Output {
    let mut command = Command::new("timeout");
    command.args(["60", args[0], "-i", initiator]);
    for arg in &args[1..] {
        command.arg(arg.replace("{}", &server.iscsi));
    }
    let output = command.output().unwrap();
    assert_ne!(output.status.code(), Some(127), "libiscsi-bin is missing");
    output
}

fn said(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    format!("{out}{}", stderr(output))
}

fn target(site: &Site, name: &str) -> String {
    let volume = site.json(&["volume", "show", name]);
    volume["iqn"].as_str().unwrap().to_owned()
}

#[test]
fn a_volume_is_for_whom_it_is_allowed_and_grows_under_a_session() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.ok(&["volume", "add", "scratch", "--size", "1M", "--allow", US]);
    let server = site.serve();
    let iqn = target(&site, "scratch");
    let list = |who| said(&tool(&server, &["iscsi-ls", "iscsi://{}"], who));
    assert!(list(US).contains(&iqn), "{}", list(US));
    assert!(!list("iqn.2026-01.test:other").contains("scratch"));

    let url = format!("iscsi://{{}}/{iqn}/1");
    let capacity = |who| tool(&server, &["iscsi-readcapacity16", &url], who);
    assert!(
        said(&capacity(US)).contains("2047"),
        "{}",
        said(&capacity(US))
    );
    assert!(!capacity("iqn.2026-01.test:other").status.success());

    let session = server.log_in(US, &iqn);
    let before = site.json(&["session", "list"]);
    site.ok(&["volume", "resize", "scratch", "2M"]);
    assert!(
        said(&capacity(US)).contains("4095"),
        "{}",
        said(&capacity(US))
    );
    assert_eq!(site.json(&["session", "list"])[0]["id"], before[0]["id"]);
    let smaller = site.run(&["volume", "resize", "scratch", "1M"]);
    assert!(
        stderr(&smaller).contains("would be lost"),
        "{}",
        stderr(&smaller)
    );

    let used = site.run(&["volume", "remove", "scratch", "--yes"]);
    assert!(stderr(&used).contains("1 session use"), "{}", stderr(&used));
    // Whoever loses the right to it loses the session.
    site.ok(&["volume", "set", "scratch", "--allow", "192.0.2.0/24"]);
    assert_eq!(site.json(&["session", "list"]).as_array().unwrap().len(), 0);
    assert!(!capacity(US).status.success());
    drop(session);
    site.ok(&["volume", "remove", "scratch", "--yes"]);
    let left = fs::read_dir(site.library.join("volumes")).unwrap().count();
    assert_eq!(left, 0, "the library's own file goes with the volume");
    server.stop();
}

#[test]
fn a_secret_is_asked_for_and_kept_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    let file = dir.path().join("secret");
    let secret = file.to_str().unwrap();
    let add = [
        "volume",
        "add",
        "vault",
        "--size",
        "1M",
        "--chap",
        "me",
        "--chap-secret-file",
        secret,
    ];
    fs::write(&file, "too short\n").unwrap();
    assert!(stderr(&site.run(&add)).contains("12 to 255"));
    fs::write(&file, format!("{SECRET}\n")).unwrap();
    let server = site.serve();
    let told = site.ok(&add);
    let id = site.json(&["volume", "show", "vault"])["id"].clone();
    let kept = format!("secrets/volume-{}-0.json", id.as_str().unwrap());
    let kept = site.library.join(kept);
    assert_eq!(
        fs::metadata(&kept).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let shown = format!(
        "{told}{}{}",
        site.ok(&["--json", "volume", "show", "vault"]),
        site.ok(&["event", "list"])
    );
    assert!(!shown.contains(SECRET), "{shown}");

    let iqn = target(&site, "vault");
    let read = |user: &str| {
        let url = format!("iscsi://{user}{{}}/{iqn}/1");
        tool(&server, &["iscsi-readcapacity16", &url], US)
    };
    let right = read(&format!("me%{SECRET}@"));
    assert!(said(&right).contains("2047"), "{}", said(&right));
    assert!(!read("").status.success());
    assert!(!read("me%another secret 1@").status.success());
    assert!(!read(&format!("you%{SECRET}@")).status.success());
    let list = said(&tool(&server, &["iscsi-ls", "iscsi://{}"], US));
    assert!(!list.contains("vault"), "{list}");
    server.stop();
}

#[test]
fn what_would_destroy_or_expose_a_disk_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    let file = dir.path().join("disk");
    let link = dir.path().join("link");
    fs::write(&file, vec![7; 1 << 20]).unwrap();
    fs::hard_link(&file, &link).unwrap();
    let refused = |args: &[&str], why: &str| {
        let output = site.run(&[&["volume", "add"], args].concat());
        let said = stderr(&output);
        assert!(
            !output.status.success() && said.contains(why),
            "{args:?}: {said}"
        );
    };
    let [file, link] = [&file, &link].map(|path| path.to_str().unwrap());
    refused(&["one", "--file", file], "nobody could see it");
    site.ok(&["volume", "add", "one", "--file", file, "--allow", "any"]);
    refused(&["two", "--file", link, "--allow", "any"], "kept in");
    refused(&["one", "--size", "1M", "--allow", "any"], "exists already");
    refused(&["two", "--allow", "any"], "needs --size");
    refused(
        &["two", "--device", file, "--allow", "any"],
        "no block device",
    );
    let config = site.library.join("netroot.toml");
    refused(
        &["two", "--file", config.to_str().unwrap(), "--allow", "any"],
        "in the library",
    );
    refused(
        &["two", "--size", "1M", "--target", "one", "--lun", "1"],
        "1 of one",
    );

    // A file that is missing keeps nobody else from being served.
    site.ok(&["volume", "add", "two", "--size", "1M", "--target", "one"]);
    fs::remove_file(file).unwrap();
    let server = site.serve();
    let list = site.json(&["volume", "list"]);
    assert!(
        list[0]["failed"].as_str().unwrap().contains("opening"),
        "{list}"
    );
    assert!(list[1]["failed"].is_null(), "{list}");
    let iqn = target(&site, "one");
    let second = tool(
        &server,
        &["iscsi-readcapacity16", &format!("iscsi://{{}}/{iqn}/2")],
        US,
    );
    assert!(said(&second).contains("2047"), "{}", said(&second));
    server.stop();
    site.ok(&["volume", "remove", "two", "--yes"]);
    site.ok(&["volume", "remove", "one", "--yes"]);
    assert!(fs::metadata(link).is_ok(), "a file of somebody's stays");
}

/// Neither root nor the library's owner.
const MEMBER: u32 = 65_534;

#[test]
fn a_member_of_the_servers_group_changes_volumes_and_names_no_file_of_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    open(dir.path());
    // Where the program was built need not be a place that everybody may look into.
    let netroot = dir.path().join("netroot");
    fs::copy(NETROOT, &netroot).unwrap();
    open(&netroot);
    let site = Site::new(dir.path());
    let server = site.serve();
    open(&site.library);
    // As if the group of the socket were theirs.
    let socket = site.library.join("control.sock");
    chown(&socket, None, Some(MEMBER)).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o660)).unwrap();
    let member = |args: &[&str]| {
        let mut command = Command::new(&netroot);
        command.arg("--library").arg(&site.library).args(args);
        command.uid(MEMBER).gid(MEMBER).output().unwrap()
    };
    let ok = |args: &[&str]| {
        let output = member(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let add = ["volume", "add", "data", "--size", "1M", "--allow", "any"];
    let planned = ok(&[&add[..], &["--dry-run"]].concat());
    assert!(planned.contains("would add"), "{planned}");
    ok(&add);
    ok(&["volume", "resize", "data", "2M"]);
    ok(&["volume", "set", "data", "--read-only", "true"]);
    let copied = ok(&["volume", "snapshot", "data"]);
    assert!(copied.starts_with("data-20"), "{copied}");
    assert!(ok(&["volume", "list"]).contains("2.0 MiB"));
    for (path, flag) in [("/etc/shadow", "--file"), ("/dev/loop0", "--device")] {
        let add = ["volume", "add", "stolen", flag, path, "--allow", "any"];
        for args in [&add[..], &[&add[..], &["--dry-run"]].concat()] {
            let refused = member(args);
            assert!(!refused.status.success());
            assert!(
                stderr(&refused).contains("not below"),
                "{}",
                stderr(&refused)
            );
        }
    }
    ok(&["volume", "remove", "data", "--yes"]);
    let by = format!("\"uid\":{MEMBER}");
    let events = site.ok(&["--json", "event", "list", "--what", "volume-remove"]);
    let events = events.split_whitespace().collect::<String>();
    assert!(events.contains(&by), "{events}");
    server.stop();
    // Without a server there is nobody who would do it for them.
    let alone = member(&["volume", "list"]);
    assert!(!alone.status.success(), "{}", stderr(&alone));
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.ok(&["volume", "add", "data", "--size", "1M", "--allow", "any"]);
    let before = site.json(&["volume", "list"]);
    for (args, told) in [
        (
            &["add", "more", "--size", "1M", "--allow", "any"][..],
            "make a sparse file of 1048576 bytes",
        ),
        (&["set", "data", "--allow", US], "sessions of others end"),
        (&["resize", "data", "2M"], "by a hole"),
        (&["snapshot", "data", "copy"], "for nobody yet"),
        (&["remove", "data"], "lost: all that is on it"),
    ] {
        let args = [&["volume"], args, &["--dry-run"]].concat();
        let said = site.ok(&args);
        assert!(said.contains(told), "{args:?}: {said}");
    }
    for (args, why) in [
        (
            &["add", "data", "--size", "1M", "--allow", "any"][..],
            "exists already",
        ),
        (
            &["add", "more", "--size", "1000", "--allow", "any"],
            "whole number",
        ),
        (&["resize", "data", "1K"], "would be lost"),
        (&["snapshot", "data", "data"], "exists already"),
        (&["snapshot", "nosuch"], "no volume"),
        (&["set", "data", "--mutual-chap", "", "--chap", ""], ""),
    ] {
        let args = [&["volume"], args, &["--dry-run"]].concat();
        let output = site.run(&args);
        assert_eq!(output.status.success(), why.is_empty(), "{args:?}");
        assert!(stderr(&output).contains(why), "{}", stderr(&output));
    }
    assert_eq!(site.json(&["volume", "list"]), before);
    // Without a terminal nobody can be asked.
    let unasked = site.run(&["volume", "remove", "data"]);
    assert!(stderr(&unasked).contains("--yes"), "{}", stderr(&unasked));
}
