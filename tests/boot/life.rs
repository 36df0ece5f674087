//! The life of an image on a real distribution: bootstrapped by its recipe, upgraded to the next release,
//! booted; and the network that its root is behind, for longer than a lease.

use std::fs;
use std::time::{Duration, Instant};

use xtask::debian;
use xtask::netns::Leases;
use xtask::qemu::{ANSWER_LIMIT, Machine, OnReset};

use crate::lab::{IMAGE, Lab, Storage, is_left_out, run_in};

const MAC: &str = "52:54:00:00:0c:01";
const UPGRADED: &str = "deb13";

/// Longer than two leases.
const STAYS: Duration = Duration::from_secs(5 * 60);

#[test]
fn debian_is_bootstrapped_and_upgraded_and_outlives_its_lease() {
    if is_left_out(30) {
        return;
    }
    let lab = Lab::new("life", Storage::Reflink, Leases::TwoMinutes);
    bootstrap(&lab);
    let before = sealed(&lab);
    lab.site
        .netroot_visibly(&["image", "upgrade", IMAGE, UPGRADED, "--release", "trixie"])
        .unwrap();
    lab.tell("upgraded");
    lab.site.netroot(&["image", "verify", IMAGE]).unwrap();
    assert_eq!(sealed(&lab), before, "the image upgraded from is as it was");

    lab.add_client(MAC, UPGRADED, "persistent");
    let server = lab.serve();
    let client = lab.switch_on_with(MAC, OnReset::BootAgain);
    let said = lab.wait_until_up(MAC, &client);
    assert!(
        said.contains("root=xfs iscsid=active kernel=6.12."),
        "{said}"
    );
    assert_is_trixie(&client);
    client.write_nonce("of-the-first-boot").unwrap();
    let first_boot = lab.boot_id(MAC);

    assert_outlives_its_lease(&lab, &client);

    let said = client.reboot(|stage, at| {
        lab.tell(&format!("rebooted {:6.1} s  {stage}", at.as_secs_f64()));
    });
    let said = said.unwrap_or_else(|error| panic!("{error:#}\nserve said:\n{}", lab.server_said()));
    assert!(said.contains("kernel=6.12."), "{said}");
    assert_ne!(
        lab.boot_id(MAC),
        first_boot,
        "it came back through its firmware"
    );
    assert_eq!(
        client.nonce().unwrap().as_deref(),
        Some("of-the-first-boot")
    );
    client.power_off().unwrap();
    lab.wait_until_gone(MAC);

    server.stop().unwrap();
    lab.site.netroot(&["image", "verify", UPGRADED]).unwrap();
    lab.clean_up();
}

fn bootstrap(lab: &Lab) {
    lab.site
        .netroot(&["init", "--host", "server-01.example.edu", "--yes"])
        .unwrap();
    lab.site.answer_dhcp().unwrap();
    // Room for the packages of two releases.
    let build = [
        "image",
        "build",
        IMAGE,
        "--from",
        "debian:bookworm",
        "--size",
        "6G",
    ];
    let build = [&build.map(str::to_owned)[..], &debian::hand()].concat();
    let build: Vec<_> = build.iter().map(String::as_str).collect();
    lab.site.netroot_visibly(&build).unwrap();
    lab.tell("bootstrapped");
}

/// What is sealed of the first image: its manifest, which has the disk's hash, byte by byte.
fn sealed(lab: &Lab) -> String {
    let manifest = lab
        .site
        .library()
        .join("images")
        .join(IMAGE)
        .join("1/manifest.json");
    fs::read_to_string(manifest).unwrap()
}

fn assert_is_trixie(client: &Machine) {
    let release = ". /etc/os-release; echo $VERSION_ID $VERSION_CODENAME";
    assert_eq!(run_in(client, release), "13 trixie");
    let held = run_in(client, "apt-mark showhold");
    assert!(
        held.contains("linux-image-amd64"),
        "only netroot changes kernels: {held}"
    );
    // A root disk is waited for.
    let patience = run_in(client, "cat /sys/class/iscsi_session/*/recovery_tmo");
    assert_eq!(patience, "86400");
}

/// It renews its lease again and again, keeps its address and its one session, and its disk answers.
fn assert_outlives_its_lease(lab: &Lab, client: &Machine) {
    let given = || {
        let log = lab.network.dhcp_log().unwrap();
        log.lines()
            .filter(|line| line.contains("DHCPACK") && line.contains(MAC))
            .count()
    };
    let address = run_in(client, "ip -4 -o address show scope global");
    let sessions = lab.site.sessions(&MAC.replace(':', "")).unwrap();
    let (started, at_first) = (Instant::now(), given());
    while started.elapsed() < STAYS {
        std::thread::sleep(Duration::from_secs(30));
        let touched = client.ask("touch on", ANSWER_LIMIT).unwrap();
        assert_eq!(touched, "touched on", "after {:?}", started.elapsed());
    }
    let renewed = given() - at_first;
    lab.tell(&format!("it has renewed its lease {renewed} times"));
    // At half of it, says RFC 2131 §4.4.5.
    assert!(renewed >= 4, "{}", lab.network.dhcp_log().unwrap());
    assert_eq!(
        run_in(client, "ip -4 -o address show scope global"),
        address
    );
    assert_eq!(
        ids(&lab.site.sessions(&MAC.replace(':', "")).unwrap()),
        ids(&sessions)
    );
}

fn ids(sessions: &[serde_json::Value]) -> Vec<serde_json::Value> {
    sessions
        .iter()
        .map(|session| session["id"].clone())
        .collect()
}
