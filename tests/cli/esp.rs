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
    // What is secret goes over HTTPS alone where the site wants that, and the script tries nothing else.
    let config = site.library.join("netroot.toml");
    let text = fs::read_to_string(&config).unwrap();
    let own = "# tls = { certificate = \"/etc/ssl/boot.pem\"";
    let secure = text.replace(own, "tls = \"made\" # ");
    let exported = |text: &str| {
        fs::write(&config, text).unwrap();
        site.ok(&export);
        fs::read_to_string(esp.join("linux/boot.cfg")).unwrap()
    };
    let cfg = exported(&secure);
    assert!(cfg.contains(":8443 ||\nchain "), "{cfg}");
    let cfg = exported(&secure.replace("secrets = \"http\"", "secrets = \"https\""));
    assert!(
        cfg.contains("echo This iPXE has to know HTTPS") && cfg.contains(":8443\nchain "),
        "{cfg}"
    );
    fs::write(&config, &text).unwrap();
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

/// A program for UEFI, as kernels and loaders are, for this machine.
fn program(machine: u16) -> Vec<u8> {
    let mut bytes = b"MZ autoexec.ipxe".to_vec();
    bytes.resize(0x80, 0);
    bytes[0x3c] = 0x40;
    bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
    bytes[0x44..0x46].copy_from_slice(&machine.to_le_bytes());
    bytes
}

#[test]
fn the_loader_is_the_one_for_the_kernels_machines_and_the_sites_own_first() {
    const X64: u16 = 0x8664;
    const ARM64: u16 = 0xaa64;
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build_of("fc29", "4.19.5", &program(X64));
    site.build_of("arm", "6.1.0", &program(ARM64));
    site.build_of("packed", "6.2.0", b"\x1f\x8b");
    let file = |name: &str, machine: u16| {
        let path = dir.path().join(name);
        fs::write(&path, program(machine)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (own, arm) = (file("own.efi", X64), file("snponly-arm64.efi", ARM64));
    file("ipxe.efi", ARM64);
    let config = site.library.join("netroot.toml");
    let text = fs::read_to_string(&config).unwrap();
    let say = |ipxe_dir: &str, loaders: &str| {
        let lines = text.lines().map(|line| match line.split(' ').next() {
            Some("ipxe_dir") => format!("ipxe_dir = \"{ipxe_dir}\""),
            Some("loaders") => format!("loaders = {{ {loaders} }}"),
            _ => line.to_owned(),
        });
        fs::write(&config, lines.collect::<Vec<_>>().join("\n")).unwrap();
    };
    let esp = dir.path().join("esp");
    let at = esp.to_str().unwrap();
    let export = |image: &str, more: &[&str]| {
        let of = [
            "esp",
            "export",
            at,
            "--image",
            image,
            "--server",
            "192.0.2.1",
        ];
        site.run(&[&of[..], more].concat())
    };
    // The one that the site names goes before those of packages.
    let packaged = dir.path().to_str().unwrap();
    say(packaged, &format!("efi-x64 = \"{own}\""));
    assert!(export("fc29", &[]).status.success());
    let written = |name: &str| fs::read(esp.join("efi/boot").join(name)).ok();
    assert_eq!(written("bootx64.efi"), Some(program(X64)));
    assert_eq!(written("bootaa64.efi"), None);
    assert!(export("arm", &[]).status.success());
    assert_eq!(written("bootaa64.efi"), Some(program(ARM64)));
    let refused = export("fc29", &["--ipxe", &arm]);
    assert_eq!(refused.status.code(), Some(1));
    let why = stderr(&refused);
    assert!(
        why.contains("is for machines with UEFI on x86-64")
            && why.contains("on arm64; name another"),
        "{why}"
    );
    // A kernel that is packed does not tell: it is for whom the loader is.
    fs::remove_dir_all(&esp).unwrap();
    assert!(export("packed", &["--ipxe", &arm]).status.success());
    assert_eq!(written("bootaa64.efi"), Some(program(ARM64)));
    assert_eq!(written("bootx64.efi"), None);
    say(packaged, &format!("efi-x64 = \"{arm}\""));
    let refused = export("packed", &[]);
    assert_eq!(refused.status.code(), Some(1));
    let why = stderr(&refused);
    assert!(why.contains("on arm64; name another"), "{why}");
    say("/nonexistent", "");
    fs::remove_dir_all(&esp).unwrap();
    let output = export("arm", &[]);
    let told =
        "efi/boot/bootaa64.efi is not written: there is no iPXE for machines with UEFI on arm64";
    assert!(stderr(&output).contains(told), "{}", stderr(&output));
    assert!(output.status.success() && written("bootaa64.efi").is_none());
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
