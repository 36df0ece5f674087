//! EFI system partitions of clients, and what the doctor says.

use std::fs;

use serde_json::Value;

use super::{MAC, Site, stderr};

/// What was found of each file: path and word, in the order of the listing.
fn found(listing: &Value) -> Vec<(String, String)> {
    let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
    let all = listing.as_array().unwrap().iter();
    all.map(|one| (text(one, "path"), text(one, "found")))
        .collect()
}

/// The listing of a check that ends with 1.
fn stale(site: &Site, arguments: &[&str]) -> Vec<(String, String)> {
    let output = site.run(&[&["--json"], arguments].concat());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("netroot esp export"),
        "{}",
        stderr(&output)
    );
    found(&serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn a_partition_is_written_checked_and_found_stale_as_a_tree_and_as_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc29", "4.19.5");
    let loader = dir.path().join("ipxe.efi");
    fs::write(&loader, "MZ autoexec.ipxe").unwrap();
    let loader = loader.to_str().unwrap();
    let of = ["--image", "fc29", "--server", "192.0.2.1", "--ipxe", loader];
    for name in ["esp", "esp.img"] {
        let place = dir.path().join(name);
        let at = place.to_str().unwrap();
        let said = site.ok(&[&["esp", "export", at], &of[..], &["--dry-run"]].concat());
        assert!(said.contains("would write") && !place.exists(), "{said}");
        let said = site.ok(&[&["esp", "export", at], &of[..]].concat());
        assert_eq!(said.contains("dd if="), name == "esp.img", "{said}");
        let listing = site.json(&[&["esp", "check", at], &of[..]].concat());
        let found = found(&listing);
        assert_eq!(found.len(), 5);
        assert!(found.iter().all(|(_, found)| found == "same"), "{found:?}");
    }
    // Another server is another boot.cfg, and another place to ask.
    let elsewhere = ["--image", "fc29", "--server", "192.0.2.2", "--ipxe", loader];
    let image = dir.path().join("esp.img");
    let image = image.to_str().unwrap();
    let told = stale(&site, &[&["esp", "check", image], &elsewhere[..]].concat());
    let words: Vec<&str> = told.iter().map(|(_, found)| found.as_str()).collect();
    assert_eq!(words, ["same", "same", "stale", "stale", "same"]);
    // A newer version has other files; the older ones are in the way.
    site.build("fc29", "4.19.6");
    let told = stale(&site, &[&["esp", "check", image], &of[..]].concat());
    let of_path = |path: &str| {
        let mut all = told.iter();
        let one = all.find(|(found, _)| found == path);
        one.map(|(_, found)| found.as_str())
    };
    assert_eq!(of_path("linux/vmlinuz-4.19.6"), Some("missing"));
    assert_eq!(of_path("linux/boot.cfg"), Some("stale"));
    assert_eq!(of_path("linux/vmlinuz-4.19.5"), Some("foreign"));
    assert_eq!(of_path("efi/boot/bootx64.efi"), Some("same"));
    let nothing = site.run(&[&["esp", "check", "/dev/null"], &of[..]].concat());
    assert_eq!(nothing.status.code(), Some(1));
    assert!(
        stderr(&nothing).contains("/dev/null"),
        "{}",
        stderr(&nothing)
    );
    site.remove();
}

#[test]
fn a_client_of_way_esp_asks_the_server_in_any_mode() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc29", "4.19.5");
    site.ok(&[
        "client",
        "add",
        MAC,
        "--name",
        "lab-7",
        "--image",
        "fc29",
        "-m",
        "persistent",
    ]);
    let esp = dir.path().join("esp");
    let export = [
        "esp",
        "export",
        esp.to_str().unwrap(),
        "--client",
        "lab-7",
        "--server",
        "192.0.2.1",
    ];
    let refused = site.run(&export);
    assert!(
        stderr(&refused).contains("client set lab-7 --way esp"),
        "{}",
        stderr(&refused)
    );
    site.ok(&["client", "set", "lab-7", "--way", "esp", "--yes"]);
    site.ok(&export);
    let cfg = fs::read_to_string(esp.join("linux/boot.cfg")).unwrap();
    assert!(cfg.contains("\nset base http://192.0.2.1:"), "{cfg}");
    assert!(
        cfg.contains("/boot.cfg?mac=${netX/mac:hexhyp}&esp="),
        "{cfg}"
    );
    let shown = site.ok(&["boot", "show", "lab-7", "--server", "192.0.2.1"]);
    assert!(shown.contains("\nset prefix file:///linux\n"), "{shown}");
    let shown = site.ok(&[
        "boot",
        "show",
        "lab-7",
        "--server",
        "192.0.2.1",
        "--way",
        "http",
    ]);
    assert!(
        !shown.contains("file:") && shown.contains("netroot=iscsi:192.0.2.1:"),
        "{shown}"
    );
    site.ok(&["client", "set", "lab-7", "--way", "ibft", "--yes"]);
    let shown = site.ok(&["boot", "show", "lab-7", "--server", "192.0.2.1"]);
    assert!(
        shown.contains("\nsanhook --drive 0x80 iscsi:192.0.2.1:"),
        "{shown}"
    );
    assert!(
        shown.contains(" rd.iscsi.firmware=1 ") && !shown.contains("netroot=iscsi"),
        "{shown}"
    );
    site.remove();
}

#[test]
fn what_waits_for_a_boot_with_an_id_is_not_on_a_partition_that_boots_without_one() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc28", "4.19.5");
    site.build("fc29", "5.4.0");
    site.ok(&["client", "add", MAC, "--name", "lab-7", "--image", "fc28"]);
    site.ok(&["client", "assign", "lab-7", "fc29", "--at-next-boot"]);
    let esp = dir.path().join("esp");
    let esp = esp.to_str().unwrap();
    let of = ["--client", "lab-7", "--server", "192.0.2.1"];
    let export = |what: &str| site.run(&[&["esp", what, esp], &of[..]].concat());
    let files = || {
        let listing = site.json(&[&["esp", "check", esp], &of[..]].concat());
        let mut found = found(&listing);
        found.retain(|(_, found)| found != "foreign");
        assert!(found.iter().all(|(_, found)| found == "same"), "{found:?}");
        found[0].0.clone()
    };
    let cfg = || fs::read_to_string(dir.path().join("esp/linux/boot.cfg")).unwrap();
    let output = export("export");
    let told = "assign fc29 waits for the next boot of lab-7";
    assert!(stderr(&output).contains(told), "{}", stderr(&output));
    assert!(
        cfg().contains("vmlinuz-4.19.5 ") && cfg().contains(":fc28 "),
        "{}",
        cfg()
    );
    assert_eq!(files(), "linux/vmlinuz-4.19.5");
    // Who asks at each boot is told to boot what waits.
    site.ok(&["client", "set", "lab-7", "--way", "esp", "--yes"]);
    let output = export("export");
    assert!(!stderr(&output).contains("waits"), "{}", stderr(&output));
    assert_eq!(files(), "linux/vmlinuz-5.4.0");
    site.remove();
}

#[test]
fn arguments_that_would_not_arrive_are_refused_when_they_are_set() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc29", "4.19.5");
    site.ok(&["client", "add", MAC, "--name", "lab-7", "--image", "fc29"]);
    let wrong = site.run(&["client", "set", "lab-7", "--arg", "x=${uuid}"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        stderr(&wrong).contains("iPXE puts a setting of its own"),
        "{}",
        stderr(&wrong)
    );
    // Each fits, and all together do not.
    let long: Vec<String> = (0..4)
        .map(|number| format!("a{number}={}", "x".repeat(400)))
        .collect();
    let mut set = vec!["client", "set", "lab-7"];
    set.extend(long.iter().flat_map(|arg| ["--arg", arg.as_str()]));
    let refused = site.run(&set);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("cuts its line off at 2047 bytes"),
        "{}",
        stderr(&refused)
    );
    site.ok(&[
        "client", "set", "lab-7", "--arg", &long[0], "--arg", &long[1],
    ]);
    site.remove();
}

#[test]
fn the_doctor_tells_what_is_missing_and_ends_with_1_where_something_cannot_work() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc29", "4.19.5");
    site.ok(&["client", "add", MAC, "--name", "lab-7", "--image", "fc29"]);
    let config = site.library.join("netroot.toml");
    assert!(site.ok(&["config", "check"]).contains("no mistake"));
    let examined = |site: &Site| -> (Option<i32>, Vec<Value>) {
        let output = site.run(&["--json", "doctor"]);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), found.as_array().unwrap().clone())
    };
    let says = |found: &[Value], verdict: &str, text: &str| {
        found
            .iter()
            .any(|one| one["verdict"] == verdict && one["found"].as_str().unwrap().contains(text))
    };
    // A port that is somebody else's.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap();
    let own = fs::read_to_string(&site.config).unwrap();
    let boot = "[boot]\nlisten = [\"";
    let busy = own.replace(&format!("{boot}127.0.0.1:0"), &format!("{boot}{port}"));
    assert_ne!(busy, own);
    fs::write(&site.config, busy).unwrap();
    let (code, found) = examined(&site);
    assert_eq!(code, Some(1), "{found:?}");
    assert!(
        says(&found, "bad", &format!("nobody could listen on {port}")),
        "{found:?}"
    );
    assert_eq!(found[0]["verdict"], "bad", "the worst comes first");
    assert!(
        says(&found, "good", "1 known, each with something to boot"),
        "{found:?}"
    );
    assert!(
        says(&found, "good", "netroot.toml has no mistake"),
        "{found:?}"
    );
    fs::write(&site.config, own).unwrap();
    let (code, found) = examined(&site);
    assert_eq!(code, Some(0), "{found:?}");

    // A client whose version was taken away.
    site.ok(&["image", "remove", "fc29", "--force", "--yes"]);
    let (code, found) = examined(&site);
    assert_eq!(code, Some(1));
    assert!(says(&found, "bad", "lab-7 would not boot"), "{found:?}");

    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("lun = 1", "lun = 0")).unwrap();
    let (code, found) = examined(&site);
    assert_eq!(code, Some(1));
    assert!(says(&found, "bad", "iscsi.lun"), "{found:?}");
    let wrong = site.run(&["config", "check"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(stderr(&wrong).contains("iscsi.lun"), "{}", stderr(&wrong));
}
