//! The configuration of a running server changes, and sessions stay.

use std::fs;
use std::net::TcpStream;
use std::process::Command;

use super::{Server, Site, stderr};

const US: &str = "iqn.2026-01.test:us";

fn configured(site: &Site, iscsi: &str) {
    let own = format!(
        "[iscsi]\n{iscsi}\n[boot]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = [\"127.0.0.1:0\"]\n"
    );
    fs::write(&site.config, own).unwrap();
}

/// What discovery tells at a portal.
fn told(portal: &str) -> String {
    let listed = Command::new("timeout")
        .args(["60", "iscsi-ls", "-i", US, &format!("iscsi://{portal}")])
        .output()
        .unwrap();
    assert_ne!(listed.status.code(), Some(127), "libiscsi-bin is missing");
    String::from_utf8_lossy(&listed.stdout).into_owned()
}

fn sessions(site: &Site) -> usize {
    let sessions = site.json(&["session", "list"]);
    sessions.as_array().unwrap().len()
}

/// A port that was free a moment ago.
fn free() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn events(site: &Site) -> usize {
    site.ok(&["event", "list"]).matches("config-reload").count()
}

fn hang_up(server: &Server) {
    let id = nix::unistd::Pid::from_raw(i32::try_from(server.child.id()).unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGHUP).unwrap();
}

#[test]
fn portals_come_and_go_while_sessions_stay() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    let none = site.run(&["config", "reload"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(
        stderr(&none).contains("no server runs"),
        "{}",
        stderr(&none)
    );
    site.ok(&["volume", "add", "data", "--size", "1M", "--allow", "any"]);
    let (first, second) = (free(), free());
    configured(&site, &format!("listen = [\"127.0.0.1:{first}\"]"));
    let server = site.serve();
    let volume = site.json(&["volume", "show", "data"]);
    let mut session = server.log_in(US, volume["iqn"].as_str().unwrap());
    assert!(
        site.ok(&["config", "reload"])
            .contains("nothing has changed")
    );

    // Another one comes, also by IPv6.
    configured(
        &site,
        &format!("listen = [\"127.0.0.1:{first}\", \"[::1]:{second}\", \"127.0.0.1:{second}\"]"),
    );
    let reloaded = site.json(&["config", "reload"]);
    assert_eq!(reloaded["changed"], serde_json::json!(["iscsi.listen"]));
    assert_eq!(reloaded["opened"].as_array().unwrap().len(), 2);
    let list = told(&format!("127.0.0.1:{second}"));
    for port in [first, second] {
        assert!(
            list.contains(&format!("Portal:127.0.0.1:{port},1")),
            "{list}"
        );
    }
    assert!(told(&format!("[::1]:{second}")).contains(&format!("Portal:[::1]:{second},1")));

    // A mistake, and an address that somebody else has, change nothing.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    for (wrong, why) in [
        ("listen = [\"nowhere\"]".to_owned(), "own.toml:2"),
        (format!("listen = [\"{taken}\"]"), "Nothing was changed"),
    ] {
        let listener = std::net::TcpListener::bind(taken);
        configured(&site, &wrong);
        let refused = site.run(&["config", "reload"]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(stderr(&refused).contains(why), "{}", stderr(&refused));
        drop(listener);
        TcpStream::connect(("127.0.0.1", first)).unwrap();
    }

    // The first goes; whoever came by it stays. What is announced is told in place of all.
    configured(
        &site,
        &format!(
            "listen = [\"127.0.0.1:{second}\"]\nannounce = [\"198.51.100.7\", \"2001:db8::7\"]"
        ),
    );
    let text = site.ok(&["config", "reload"]);
    assert!(text.contains("sessions stay until they end"), "{text}");
    assert!(TcpStream::connect(("127.0.0.1", first)).is_err());
    assert_eq!(sessions(&site), 1);
    ping(&mut session);
    let list = told(&format!("127.0.0.1:{second}"));
    for portal in ["198.51.100.7:3260", "[2001:db8::7]:3260"] {
        assert!(list.contains(&format!("Portal:{portal},1")), "{list}");
    }

    // What cannot be changed is named; a signal does what the command does.
    let library = site.library.join("netroot.toml");
    let text = fs::read_to_string(&library).unwrap();
    fs::write(&library, text.replace("lun = 1", "lun = 2")).unwrap();
    let reloaded = site.json(&["config", "reload"]);
    assert_eq!(reloaded["at_restart"], serde_json::json!(["iscsi.lun"]));
    configured(&site, &format!("listen = [\"127.0.0.1:{first}\"]"));
    let before = events(&site);
    hang_up(&server);
    while events(&site) == before {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    TcpStream::connect(("127.0.0.1", first)).unwrap();
    ping(&mut session);
    drop(session);
    let log = server.stop();
    assert!(log.contains("nothing was changed"), "{log}");
}

#[test]
fn what_nobody_goes_by_any_more_is_told_whenever_the_configuration_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    configured(&site, "listen = [\"127.0.0.1:0\"]");
    let server = site.serve();
    assert_eq!(
        site.json(&["config", "reload"])["warnings"],
        serde_json::json!([])
    );
    // A word that could be set until netroot began to write it itself.
    let library = site.library.join("netroot.toml");
    let text = fs::read_to_string(&library).unwrap();
    let args = "kernel_args = [\"quiet\", \"ip=dhcp\"]";
    fs::write(&library, text.replace("kernel_args = []", args)).unwrap();
    let warning = "warning: [boot] kernel_args: `ip=dhcp` is not a kernel argument of yours";
    for command in [
        &["config", "check"][..],
        &["config", "reload", "--dry-run"],
        &["config", "reload"],
    ] {
        let told = site.run(command);
        assert_eq!(told.status.code(), Some(0), "{}", stderr(&told));
        let told = stderr(&told);
        assert_eq!(told.matches(warning).count(), 1, "{command:?}: {told}");
        assert!(!told.contains("quiet"), "{told}");
    }
    let again = site.json(&["config", "reload"]);
    let told = again["warnings"][0].as_str().unwrap();
    assert!(told.ends_with("it is left out"), "{told}");
    let log = server.stop();
    assert_eq!(log.matches("[boot] kernel_args").count(), 2, "{log}");
}

/// A NOP-Out that wants its answer (RFC 7143 §11.18).
fn ping(session: &mut TcpStream) {
    use std::io::{Read, Write};
    let mut request = [0; 48];
    (request[0], request[1], request[19]) = (0x40, 0x80, 9);
    request[20..24].fill(0xff);
    request[27] = 1;
    session.write_all(&request).unwrap();
    let mut answer = [0; 48];
    session.read_exact(&mut answer).unwrap();
    assert_eq!((answer[0] & 0x3f, answer[19]), (0x20, 9));
}
