//! Secrets and identities go to the machines that they belong to, and to nobody else: a real server, and
//! machines in network namespaces that are its real neighbours.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like tests"
)]

mod lab;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use lab::{Lab, Script};
use nix::sys::signal::Signal;
use xtask::netns::{SERVER, Station};

const A: &str = "52:54:00:00:5e:0a";
const B: &str = "52:54:00:00:5e:0b";
const C: &str = "52:54:00:00:5e:0c";

fn station(lab: &Lab, mac: &str, last: u8) -> Station {
    let (v4, v6) = (format!("192.0.2.{last}/24"), format!("2001:db8::{last}/64"));
    lab.network.station(mac, &[&v4, &v6]).unwrap()
}

#[test]
fn a_boot_proves_its_own_secret_and_no_other_lets_it_in() {
    let lab = Lab::new();
    lab.add(A, &["--chap", "kernel-line", "--mutual", "on"]);
    let server = lab.serve();
    let machine = station(&lab, A, 7);

    let first = Script::of(&lab.boot_cfg(&machine, A));
    assert_eq!(first.user, A.replace(':', ""));
    let logs_in = |script: &Script, secret: &str| lab.logs_in(&machine, script, secret, None);
    assert!(!logs_in(&first, "00000000000000000000"), "a wrong secret");
    assert!(!lab.logs_in_without(&machine, &first), "no secret");
    assert!(logs_in(&first, &first.secret));
    let target = Some(first.target_secret.as_str());
    assert!(lab.logs_in(&machine, &first, &first.secret, target));
    let wrong = Some("00000000000000000000");
    assert!(
        !lab.logs_in(&machine, &first, &first.secret, wrong),
        "the target proves its own"
    );

    // The server may come and go: it remembers nothing that it could forget.
    server.stop().unwrap();
    let server = lab.serve();
    assert!(logs_in(&first, &first.secret));

    let second = Script::of(&lab.boot_cfg(&machine, A));
    assert_ne!(first.secret, second.secret);
    assert!(!logs_in(&second, &first.secret), "another boot's secret");
    assert!(logs_in(&second, &second.secret));
    assert!(!logs_in(&first, &first.secret), "a newer boot has begun");

    // What is said anew counts from the next boot on, and disturbs none that runs.
    let third = Script::of(&lab.boot_cfg(&machine, A));
    lab.site
        .netroot(&["client", "set", A, "--chap", "off"])
        .unwrap();
    assert!(logs_in(&second, &second.secret));
    assert!(!logs_in(&third, &third.secret), "made before that");
    let fourth = lab.boot_cfg(&machine, A);
    assert!(!fourth.contains("password"), "{fourth}");
    server.stop().unwrap();
}

#[test]
fn secrets_go_to_the_machine_itself_and_to_trusted_networks() {
    let lab = Lab::new();
    lab.add(A, &["--chap", "kernel-line"]);
    let server = lab.serve();
    let (machine, other) = (station(&lab, A, 7), station(&lab, B, 8));

    let cfg = lab.boot_cfg(&machine, A);
    let script = Script::of(&cfg);
    assert_eq!(lab.get(&other, &lab::cfg_of(A)).status, 403);
    let refused = lab.get(&other, &script.identity);
    assert_eq!(refused.status, 403, "{}", refused.text);
    assert!(refused.text.contains(B), "{}", refused.text);
    assert_eq!(lab.get(&machine, &script.identity).status, 200);
    let events = lab.site.json(&["event", "list"]).unwrap().to_string();
    for part in [
        "secret-withheld",
        "the secret of its boot",
        "its identity",
        B,
    ] {
        assert!(events.contains(part), "{part} in {events}");
    }
    let told = lab.site.netroot(&["client", "show", A]).unwrap();
    assert!(!told.contains(&script.secret), "{told}");
    let shown = lab.site.netroot(&["boot", "show", A]).unwrap();
    assert!(shown.contains("rd.iscsi.password=\u{2026} "), "{shown}");

    // The same over IPv6, where a machine has several addresses.
    for server in ["[2001:db8::1]", &lab.link_local()] {
        let at = |machine, path: &str| lab.get_at(machine, server, path);
        let given = at(&machine, &lab::cfg_of(A));
        assert!(
            given.text.contains("rd.iscsi.password="),
            "{server}: {}",
            given.text
        );
        // Its system sets up IPv4.
        let portal = format!(" netroot=iscsi:{SERVER}:");
        assert!(given.text.contains(&portal), "{server}: {}", given.text);
        assert_eq!(at(&other, &lab::cfg_of(A)).status, 403, "{server}");
    }
    server.stop().unwrap();

    lab.set("trusted = []", "trusted = [\"192.0.2.8\"]");
    let server = lab.serve();
    assert_eq!(lab.get(&other, &lab::cfg_of(A)).status, 200);
    assert_eq!(
        lab.get_at(&other, "[2001:db8::1]", &lab::cfg_of(A)).status,
        403
    );
    server.stop().unwrap();

    // Over HTTPS where the loader can, which it is made to try.
    lab.set(
        "# tls = { certificate = \"/etc/ssl/boot.pem\"",
        "tls = \"made\" # ",
    );
    let server = lab.serve();
    let script = lab.get(&machine, "/boot.ipxe").text;
    let secure = format!("https://{SERVER}:8443");
    let tries = format!(
        "{secure}/local.ipxe && imgfree tls && set base {secure} ||\nchain --autofree ${{base}}/"
    );
    assert!(script.contains(&tries), "{script}");
    assert!(
        script.contains(&format!("\nset base http://{SERVER}\n")),
        "{script}"
    );
    assert!(
        Script::of(&lab.boot_cfg(&machine, A))
            .identity_url
            .starts_with("http://")
    );
    let given = lab.get_over_tls(&machine, &lab::cfg_of(A));
    assert!(
        Script::of(&given).identity_url.starts_with(&secure),
        "{given}"
    );
    server.stop().unwrap();

    // Over HTTPS only, and this asks over HTTP.
    lab.set("secrets = \"http\"", "secrets = \"https\"");
    let server = lab.serve();
    let refused = lab.get(&machine, &lab::cfg_of(A));
    assert_eq!(refused.status, 403);
    assert!(refused.text.contains("asked over HTTP"), "{}", refused.text);
    let script = lab.get(&machine, "/boot.ipxe").text;
    let secure = format!("set base {secure}\nchain --autofree ${{base}}/boot.cfg");
    assert!(script.contains(&secure), "{script}");
    let given = lab.get_over_tls(&machine, &lab::cfg_of(A));
    let script = Script::of(&given);
    assert!(script.identity_url.starts_with("https://"), "{given}");
    server.stop().unwrap();
}

#[test]
fn who_sits_before_a_running_system_is_given_nothing_at_whichever_address() {
    let lab = Lab::new();
    lab.add(A, &["--chap", "kernel-line"]);
    lab.site.netroot(&["client", "set", A, "--mac", B]).unwrap();
    lab.add(C, &[]);
    let server = lab.serve();
    let (machine, card) = (station(&lab, A, 7), station(&lab, B, 8));
    let other = station(&lab, C, 9);
    let link = lab.link_local();
    // Another family, an address of the link alone, and the machine's other card.
    let ways = [
        (&machine, SERVER),
        (&machine, "[2001:db8::1]"),
        (&machine, link.as_str()),
        (&card, SERVER),
    ];
    let is_given = || {
        ways.map(|(from, to)| {
            let answer = lab.get_at(from, to, &lab::cfg_of(A));
            let told = answer.text.contains("its system is running");
            assert_eq!(told, answer.status == 403, "{to}: {}", answer.text);
            answer.status == 200
        })
    };

    let theirs = Script::of(&lab.boot_cfg(&other, C));
    let _other = lab.runs(&other, (&theirs.initiator, "", &theirs.target));
    assert_eq!(is_given(), [true; 4], "that is another machine's");

    let script = Script::of(&lab.boot_cfg(&machine, A));
    let proof = format!("{}%{}@", script.user, script.secret);
    let system = lab.runs(&machine, (&script.initiator, &proof, &script.target));
    assert_eq!(is_given(), [false; 4]);
    for (from, to) in ways {
        let answer = lab.get_at(from, to, &script.identity);
        assert_eq!(answer.status, 403, "{to}: {}", answer.text);
    }
    // As a machine that was reset.
    system.signal(Signal::SIGSTOP).unwrap();
    assert_eq!(is_given(), [true; 4]);
    drop(system);

    // Whoever's disk it is that the machine runs.
    let by_hand = "iqn.2026-01.edu.example:by-hand";
    let (alias, _) = script.target.rsplit_once('.').unwrap();
    let _by_hand = lab.runs(&machine, (by_hand, "", alias));
    assert_eq!(is_given(), [false; 4]);
    server.stop().unwrap();
}

#[test]
fn who_sits_before_a_system_that_has_lost_its_session_or_its_server_is_given_nothing() {
    let lab = Lab::new();
    lab.add(A, &["--chap", "kernel-line"]);
    let server = lab.serve();
    let machine = station(&lab, A, 7);
    let script = Script::of(&lab.boot_cfg(&machine, A));
    let proof = format!("{}%{}@", script.user, script.secret);
    let system = lab.runs(&machine, (&script.initiator, &proof, &script.target));
    // Its session has ended, and it takes a while to come back.
    let sessions = lab.site.json(&["session", "list"]).unwrap();
    let id = sessions[0]["id"].to_string();
    system.signal(Signal::SIGSTOP).unwrap();
    let kick = ["session", "kick", &id, "--yes"];
    lab.site.netroot(&kick).unwrap();
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(1));
            system.signal(Signal::SIGCONT).unwrap();
        });
        lab.get(&machine, &lab::cfg_of(A))
    });
    assert_eq!(answer.status, 403, "{}", answer.text);

    server.kill().unwrap();
    // The next one knows of nobody, until the system has come back.
    let server = lab.serve();
    let answer = lab.get(&machine, &lab::cfg_of(A));
    assert_eq!(answer.status, 403, "{}", answer.text);
    assert!(
        answer.text.contains("its system is running"),
        "{}",
        answer.text
    );
    // A machine that was switched off meanwhile does not come back: it is heard, a little later.
    server.kill().unwrap();
    drop(system);
    let server = lab.serve();
    lab.boot_cfg(&machine, A);
    server.stop().unwrap();
}

#[test]
fn who_may_keep_a_system_from_coming_back_is_given_nothing() {
    let lab = Lab::new();
    lab.add(A, &["--chap", "kernel-line"]);
    let server = lab.serve();
    let machine = station(&lab, A, 7);
    let script = Script::of(&lab.boot_cfg(&machine, A));
    let proof = format!("{}%{}@", script.user, script.secret);
    let system = lab.runs(&machine, (&script.initiator, &proof, &script.target));
    let sessions = lab.site.json(&["session", "list"]).unwrap();
    let id = sessions[0]["id"].to_string();
    // It does not come back, as if somebody there took all the room that its address has.
    system.signal(Signal::SIGSTOP).unwrap();
    let kick = ["session", "kick", &id, "--yes"];
    lab.site.netroot(&kick).unwrap();
    let portal: SocketAddr = format!("{SERVER}:3260").parse().unwrap();
    let knock = || {
        let connected = machine.enter(|| TcpStream::connect(portal).unwrap());
        connected.unwrap()
    };
    let there = knock();
    let answer = lab.get(&machine, &lab::cfg_of(A));
    assert_eq!(answer.status, 403, "{}", answer.text);
    drop(there);
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(1));
            drop(knock());
        });
        lab.get(&machine, &lab::cfg_of(A))
    });
    assert_eq!(answer.status, 403, "comes and goes: {}", answer.text);
    lab.boot_cfg(&machine, A);
    drop(system);
    server.stop().unwrap();
}

#[test]
fn a_system_on_a_volume_runs_and_a_session_from_elsewhere_does_not() {
    let lab = Lab::new();
    lab.add(A, &[]);
    lab.add(B, &["--chap", "kernel-line"]);
    let add = [
        "volume",
        "add",
        "vault",
        "--size",
        "1M",
        "--allow",
        "192.0.2.0/24",
    ];
    lab.site.netroot(&add).unwrap();
    let server = lab.serve();
    let (a, b) = (station(&lab, A, 7), station(&lab, B, 8));
    let volumes = lab.site.json(&["volume", "list"]).unwrap();
    let vault = volumes[0]["iqn"].as_str().unwrap().to_owned();
    lab.boot_cfg(&b, B);
    let by_hand = "iqn.2026-01.edu.example:by-hand";
    let system = lab.runs(&b, (by_hand, "", &vault));
    let answer = lab.get(&b, &lab::cfg_of(B));
    assert_eq!(answer.status, 403, "{}", answer.text);
    server.kill().unwrap();
    let server = lab.serve();
    let answer = lab.get(&b, &lab::cfg_of(B));
    assert_eq!(answer.status, 403, "{}", answer.text);
    drop(system);

    // The other machine's user has taken the first one's disk, which needs no secret: that keeps nothing
    // from the machine itself.
    let taken = Script::of(&lab.boot_cfg(&b, A));
    let _taken = lab.runs(&b, (&taken.initiator, "", &taken.target));
    let (_identity, _) = lab.identity(&a, A);
    server.stop().unwrap();
}

#[test]
fn another_machine_writes_nothing_of_a_clients_boots() {
    let lab = Lab::new();
    lab.add(A, &["--way", "esp"]);
    let server = lab.serve();
    let (machine, other) = (station(&lab, A, 7), station(&lab, B, 8));
    let asks_of = |machine: &Station| {
        let path = format!("{}&esp=0123456789abcdef", lab::cfg_of(A));
        assert_eq!(lab.get(machine, &path).status, 200);
        lab.site.json(&["client", "show", A]).unwrap().to_string()
    };
    let told = asks_of(&other);
    assert!(told.contains("\"state\":\"off\""), "{told}");
    assert!(!told.contains("stale"), "{told}");
    let events = lab.site.json(&["event", "list"]).unwrap().to_string();
    assert!(events.contains("192.0.2.8"), "{events}");
    let told = asks_of(&machine);
    assert!(told.contains("\"state\":\"booting\""), "{told}");
    assert!(told.contains("\"esp\":\"stale\""), "{told}");
    // Whoever asks then from elsewhere is still no part of it.
    asks_of(&other);
    let boots = ["client", "show", A, "--boots"];
    let boots = lab.site.json(&boots).unwrap().to_string();
    assert!(!boots.contains("192.0.2.8"), "{boots}");
    assert_eq!(boots.matches("\"began\"").count(), 1, "{boots}");
    server.stop().unwrap();
}

#[test]
fn each_client_is_somebody_else_and_the_same_at_every_boot() {
    let lab = Lab::new();
    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBtKqmpXYdlT8lEJPGHCPzCPVqWHVOWSFqF2mcTCCkSp anna";
    lab.add(A, &["--authorized-key", KEY, "--name", "lab-a"]);
    lab.add(B, &["--name", "lab-b"]);
    let server = lab.serve();
    let (a, b) = (station(&lab, A, 7), station(&lab, B, 8));

    let (first, script) = lab.identity(&a, A);
    let read = |name: &str| fs::read_to_string(first.path().join(name)).unwrap();
    assert_eq!(read("netroot/identity/hostname"), "lab-a\n");
    assert_eq!(read("netroot/identity/authorized_keys"), format!("{KEY}\n"));
    let name = format!("InitiatorName={}\n", script.initiator);
    assert_eq!(read("netroot/identity/initiatorname.iscsi"), name);
    let wanted = first
        .path()
        .join("etc/systemd/system/initrd.target.wants/netroot-identity.service");
    assert_eq!(
        fs::read_link(wanted).unwrap().to_str(),
        Some("../netroot-identity.service")
    );
    let private = first
        .path()
        .join("netroot/identity/ssh/ssh_host_ed25519_key");
    let mode = fs::metadata(&private).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // sshd's own tool reads them, and they belong together.
    for kind in ["ed25519", "ecdsa"] {
        let key = format!("netroot/identity/ssh/ssh_host_{kind}_key");
        let derived = lab.public_key(&first.path().join(&key));
        let public = read(&format!("{key}.pub"));
        assert!(public.starts_with(&derived), "{public} {derived}");
    }

    let known = lab::known(&first);
    assert_eq!(known, lab::known(&lab.identity(&a, A).0), "another boot");
    let other = lab::known(&lab.identity(&b, B).0);
    assert!(known.iter().all(|one| !other.contains(one)), "{other:?}");
    let shown = lab.site.netroot(&["client", "show", "lab-a"]).unwrap();
    assert_eq!(shown.matches("SHA256:").count(), 2, "{shown}");

    let secret = lab
        .site
        .library()
        .join("secrets/identity-525400005e0a.json");
    let mode = fs::metadata(&secret).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    lab.site
        .netroot(&["client", "set", "lab-a", "--new-identity"])
        .unwrap();
    let renewed = lab::known(&lab.identity(&a, A).0);
    assert!(
        known.iter().all(|one| !renewed.contains(one)),
        "{renewed:?}"
    );
    lab.site
        .netroot(&["client", "set", "lab-b", "--identity", "off"])
        .unwrap();
    let plain = lab.boot_cfg(&b, B);
    assert!(!plain.contains("identity"), "{plain}");
    let id = Script::of(&plain).initiator;
    let (_, id) = id.rsplit_once('.').unwrap();
    let path = format!("/identity/{}/{id}/identity.img", B.replace(':', ""));
    assert_eq!(lab.get(&b, &path).status, 404, "nor to who asks for it");
    lab.site
        .netroot(&["client", "remove", "lab-a", "--yes", "--force"])
        .unwrap();
    assert!(!secret.exists(), "it goes with the client");
    server.stop().unwrap();
}

#[test]
fn a_person_is_the_same_at_every_machine_and_proves_what_it_has_to() {
    let lab = Lab::new();
    lab.set("login = false", "login = \"insecure\"");
    lab.add(A, &["--chap", "kernel-line", "--name", "lab-a"]);
    lab.add(B, &["--name", "lab-b"]);
    lab.user("anna");
    let server = lab.serve();
    let (a, b) = (station(&lab, A, 7), station(&lab, B, 8));

    let cfg = lab.person_cfg(&a, A, "anna");
    let here = Script::of(&cfg);
    assert!(!lab.logs_in_without(&a, &here), "the machine has a secret");
    assert!(lab.logs_in(&a, &here, &here.secret, None));
    let at_a = lab.unpacked(&a, &here);
    let read = |name: &str| fs::read_to_string(at_a.path().join(name)).unwrap();
    assert_eq!(read("netroot/identity/hostname"), "person-anna\n");
    let name = format!("InitiatorName={}\n", here.initiator);
    assert_eq!(read("netroot/identity/initiatorname.iscsi"), name);
    let own = lab::known(&lab.identity(&a, A).0);
    let known = lab::known(&at_a);
    assert!(known.iter().all(|one| !own.contains(one)), "the machine's");

    // Boot id and addresses stand on a kernel line, and are no way to another's keys.
    assert_eq!(lab.get(&b, &here.identity).status, 403, "another machine");
    let (bare_a, bare_b) = (A.replace(':', ""), B.replace(':', ""));
    let elsewhere = here.identity.replace(&bare_a, &bare_b);
    assert_ne!(elsewhere, here.identity);
    assert_eq!(lab.get(&b, &elsewhere).status, 404, "another place");
    let (plain, _) = here.identity.split_once(&format!("/{bare_a}/")).unwrap();
    for path in [
        format!("{plain}/identity.img"),
        format!("{plain}/{bare_a}/x/identity.img"),
    ] {
        assert_eq!(lab.get(&a, &path).status, 404, "{path}");
    }
    let shown = lab.site.netroot(&["boot", "show", "person-anna"]).unwrap();
    assert!(shown.contains("/\u{2026}/\u{2026}/identity.img"), "{shown}");

    let there = Script::of(&lab.person_cfg(&b, B, "anna"));
    assert_eq!((there.secret.as_str(), &there.target), ("", &here.target));
    assert!(lab.logs_in_without(&b, &there), "that machine has none");
    assert_eq!(lab::known(&lab.unpacked(&b, &there)), known);
    assert_eq!(lab.get(&a, &here.identity).status, 403, "it was left");
    server.stop().unwrap();
}

/// What it does to a root, by the shell of this host in place of the initramfs's.
#[test]
fn an_identity_is_applied_to_what_is_missing_and_to_what_it_was() {
    let lab = Lab::new();
    lab.add(A, &["--name", "lab-a", "--mode", "persistent"]);
    let server = lab.serve();
    let a = station(&lab, A, 7);
    let root = tempfile::tempdir().unwrap();
    let file = |name: &str| root.path().join(name);
    let read = |name: &str| fs::read_to_string(file(name)).unwrap();
    for dir in ["etc/ssh", "root/.ssh"] {
        fs::create_dir_all(file(dir)).unwrap();
    }
    fs::write(file("etc/machine-id"), "").unwrap();
    fs::write(file("etc/hostname"), "image\n").unwrap();
    fs::write(file("etc/ssh/ssh_host_ecdsa_key"), "somebody's\n").unwrap();
    fs::write(file("etc/ssh/ssh_host_ecdsa_key.pub"), "somebody's\n").unwrap();
    fs::write(file("root/.ssh/authorized_keys"), "mine\n").unwrap();

    lab.apply(&lab.identity(&a, A).0, root.path());
    assert_eq!(read("etc/hostname"), "lab-a\n", "the image's is nobody's");
    assert_eq!(read("etc/machine-id").trim().len(), 32);
    assert_eq!(read("etc/ssh/ssh_host_ecdsa_key"), "somebody's\n");
    let key = file("etc/ssh/ssh_host_ed25519_key");
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(read("root/.ssh/authorized_keys"), "mine\n");

    // What somebody has chosen on the machine stays; what came from here is replaced by what it is now.
    fs::write(file("etc/hostname"), "chosen\n").unwrap();
    let before = read("etc/machine-id");
    lab.site
        .netroot(&[
            "client",
            "set",
            A,
            "--new-identity",
            "--authorized-key",
            "ssh-ed25519 AAAA x",
        ])
        .unwrap();
    for _ in 0..2 {
        lab.apply(&lab.identity(&a, A).0, root.path());
        assert_eq!(read("etc/hostname"), "chosen\n");
        assert_ne!(read("etc/machine-id"), before);
        let keys = "mine\n# netroot: begin\nssh-ed25519 AAAA x\n# netroot: end\n";
        assert_eq!(read("root/.ssh/authorized_keys"), keys);
    }

    // A root that is the image's at every boot gets all of it.
    lab.site
        .netroot(&["client", "set", A, "--mode", "shared", "--yes"])
        .unwrap();
    lab.apply(&lab.identity(&a, A).0, root.path());
    assert_eq!(read("etc/hostname"), "lab-a\n");
    assert!(read("etc/ssh/ssh_host_ecdsa_key").contains("OPENSSH PRIVATE KEY"));
    server.stop().unwrap();
}
