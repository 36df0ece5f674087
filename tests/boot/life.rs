//! The life of an image on a real distribution: bootstrapped by its recipe, upgraded to the next release,
//! booted; and the network that its root is behind, for longer than a lease.

use std::time::{Duration, Instant};

use xtask::netns::Leases;
use xtask::qemu::{ANSWER_LIMIT, OnReset};

use crate::lab::{IMAGE, Lab, Storage};

const MAC: &str = "52:54:00:00:0c:01";

#[test]
fn experiment() {
    let lab = Lab::new("life", Storage::Reflink, Leases::TwoMinutes);
    let tree = std::env::var("TREE").unwrap();
    lab.site.netroot_visibly(&["image", "build", IMAGE, "--from", &tree, "--size", "4G"]).unwrap();
    lab.add_client(MAC, IMAGE, "persistent");
    let _server = lab.serve();
    let client = lab.switch_on_with(MAC, OnReset::BootAgain);
    println!("{}", lab.wait_until_up(MAC, &client));
    let ask = |what: &str| println!("{what}: {}", client.ask(&format!("run {what}"), ANSWER_LIMIT).unwrap());
    ask("systemctl is-system-running; systemctl --failed --no-legend; systemctl --no-pager status netroot-network systemd-networkd netroot-iscsid | head -40");
    ask("ip addr; ip route; networkctl status --no-pager; cat /etc/resolv.conf /run/systemd/network/* /run/netroot/ifupdown; ls -l /run/NetworkManager/conf.d; cat /run/initiatorname.iscsi; hostname");
    ask("systemd-analyze; systemd-analyze blame | head -20");
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(300) {
        std::thread::sleep(Duration::from_secs(60));
        ask("ip -o -4 addr; systemctl is-active systemd-networkd");
        println!("{}", client.ask("touch again", ANSWER_LIMIT).unwrap());
    }
    println!("{}", lab.network.dhcp_log().unwrap());
    println!("{}", client.reboot(|stage, at| println!("{stage} {at:?}")).unwrap());
    client.power_off().unwrap();
    println!("{}", lab.network.dhcp_log().unwrap());
}
