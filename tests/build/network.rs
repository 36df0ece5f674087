//! The script of Debian's recipe that keeps the network that a root is behind: run as it stands in the
//! recipe, in a network of its own with a kernel line and an iSCSI connection that are made up.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const RECIPE: &str = include_str!("../../images/debian.toml");
const KEEP_NETWORK: &str = "/usr/local/lib/netroot/keep-network";

/// Makes the surroundings, runs the script at `$1/script`, and leaves what it wrote in `$1/run`. The
/// interface is a bridge, because every kernel that runs the laboratory has them.
const AROUND: &str = r#"
set -e
mount -t tmpfs none /run
mount -t tmpfs none /sys/class
mkdir -p /sys/class/iscsi_connection/connection1:0 /sys/class/net/boot0/lower_port0 /sys/class/net/port0
echo 192.0.2.1 >/sys/class/iscsi_connection/connection1:0/persistent_address
mount --bind "$1/cmdline" /proc/cmdline
ip link add boot0 type bridge
ip link set boot0 up
ip address add 192.0.2.100/24 dev boot0 valid_lft 120 preferred_lft 120
sh "$1/script"
ip -4 -o address show dev boot0 >/run/addresses
cp -r /run "$1/run"
"#;

/// What the script leaves behind.
struct Kept(tempfile::TempDir);

impl Kept {
    fn text(&self, path: &str) -> String {
        let path = self.0.path().join("run").join(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn network(&self) -> String {
        self.text("systemd/network/00-netroot-boot0.network")
    }
}

fn keep(cmdline: &str) -> Kept {
    assert!(
        nix::unistd::geteuid().is_root(),
        "namespaces and mounts need root"
    );
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("script"), script(KEEP_NETWORK)).unwrap();
    fs::write(dir.path().join("cmdline"), format!("{cmdline}\n")).unwrap();
    let output = shell(
        &["unshare", "--mount", "--net", "sh", "-c", AROUND, "sh"],
        dir.path(),
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    Kept(dir)
}

fn shell(words: &[&str], last: &Path) -> Output {
    let [program, arguments @ ..] = words else {
        panic!("no program")
    };
    Command::new(program)
        .args(arguments)
        .arg(last)
        .output()
        .unwrap()
}

/// The text of a file that the recipe writes.
fn script(path: &str) -> String {
    let recipe: toml::Table = RECIPE.parse().unwrap();
    let services = recipe["services"].as_array().unwrap();
    let step = services
        .iter()
        .find(|step| step.get("write").and_then(toml::Value::as_str) == Some(path));
    step.unwrap()["text"].as_str().unwrap().to_owned()
}

#[test]
fn the_interface_of_the_root_is_kept_and_taken_from_everybody_else() {
    let kept = keep("rw ip=dhcp rd.iscsi.initiator=iqn.2026-01.edu.example:a quiet");
    let network = kept.network();
    for line in [
        "Name=boot0",
        "DHCP=ipv4",
        "KeepConfiguration=yes",
        "IgnoreCarrierLoss=yes",
        "ClientIdentifier=mac",
        "UseDNS=yes",
    ] {
        assert!(
            network.lines().any(|found| found == line),
            "{line}: {network}"
        );
    }
    assert!(!network.contains("DNS=1"), "{network}");
    for name in ["boot0", "port0"] {
        let unmanaged = kept.text(&format!("NetworkManager/conf.d/netroot-{name}.conf"));
        assert!(unmanaged.contains(&format!("match-device=interface-name:{name}")));
        assert!(unmanaged.contains("managed=0"));
        assert_eq!(kept.text(&format!("netroot/interfaces/{name}")), "");
    }
    let excluded = kept.text("netroot/ifupdown");
    assert!(excluded.contains("boot0 port0"), "{excluded}");
    let addresses = kept.text("addresses");
    assert!(
        addresses.contains("valid_lft forever"),
        "the kernel takes no address away: {addresses}"
    );
}

#[test]
fn name_servers_of_the_kernel_line_take_the_place_of_offered_ones() {
    let kept = keep("ip=dhcp rd.peerdns=0 nameserver=192.0.2.91 nameserver=[2001:db8::53]");
    let network = kept.network();
    for line in ["DNS=192.0.2.91", "DNS=2001:db8::53", "UseDNS=no"] {
        assert!(
            network.lines().any(|found| found == line),
            "{line}: {network}"
        );
    }
}

#[test]
fn a_fixed_address_is_no_lease() {
    let fixed = keep("ip=192.0.2.100::192.0.2.1:255.255.255.0:lab:boot0:none");
    assert!(fixed.network().contains("DHCP=no"));
    for leased in ["ip=boot0:dhcp", "ip=::::lab:boot0:dhcp", "ip=on", "quiet"] {
        assert!(keep(leased).network().contains("DHCP=ipv4"), "{leased}");
    }
}

#[test]
fn scripts_of_the_recipe_are_sound() {
    let recipe: toml::Table = RECIPE.parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut checked = 0;
    for step in recipe.values().filter_map(toml::Value::as_array).flatten() {
        let run = step.get("run").and_then(toml::Value::as_array);
        let words: Vec<_> = run
            .into_iter()
            .flatten()
            .filter_map(toml::Value::as_str)
            .collect();
        let text = step.get("text").and_then(toml::Value::as_str);
        let script = match words.as_slice() {
            ["sh", "-ec", script] => *script,
            _ => match text.filter(|text| text.starts_with("#!/bin/sh\n")) {
                Some(text) => text,
                None => continue,
            },
        };
        let file = dir.path().join("script");
        fs::write(&file, script).unwrap();
        let output = shell(&["sh", "-n"], &file);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{script}");
        checked += 1;
    }
    assert!(checked >= 8, "only {checked} scripts were found");
}
