//! Quotas, larger disks, snapshots and data disks, as a machine and its admin see them.

use std::process::Command;

use netroot::library::*;

use super::peer::{Peer, read_10, write_10};
use super::site::{Script, Server, Site, pick};

/// One write of a client: 8 KiB.
const PIECE: u32 = 16;

/// Runs a command as an admin of the running server.
fn command(site: &Site, args: &[&str]) -> String {
    let done = Command::new(env!("CARGO_BIN_EXE_netroot"))
        .arg("--library")
        .arg(site.lib.root())
        .args(args)
        .output()
        .unwrap();
    let told = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{args:?}: {told}");
    String::from_utf8(done.stdout).unwrap()
}

/// The first command of a session is told first that it is one.
async fn powered_on(peer: &mut Peer) {
    peer.command([0; 16], 0, b"").await;
}

async fn write(peer: &mut Peer, piece: u32) -> u8 {
    let data = vec![7; 512 * PIECE as usize];
    let cdb = write_10(piece * PIECE, PIECE as u16);
    peer.command(cdb, 0, &data).await.0
}

async fn refused(peer: &mut Peer, piece: u32) -> (u8, u16) {
    let data = vec![7; 512 * PIECE as usize];
    peer.sense(write_10(piece * PIECE, PIECE as u16), 0, &data)
        .await
}

/// READ CAPACITY(10), in blocks.
async fn blocks(peer: &mut Peer) -> u32 {
    let mut cdb = [0; 16];
    cdb[0] = 0x25;
    let (status, data) = peer.command(cdb, 8, b"").await;
    assert_eq!(status, 0);
    u32::from_be_bytes([data[0], data[1], data[2], data[3]]) + 1
}

fn room() -> (Site, MacAddr, Server) {
    let site = Site::new();
    site.seal("fc28");
    let mac = site.add(1, "lab-01", Mode::Persistent, &[]);
    let server = site.serve();
    (site, mac, server)
}

#[test]
fn a_client_at_its_quota_has_a_full_disk_and_goes_on_when_it_is_raised() {
    let (site, mac, server) = room();
    command(&site, &["client", "set", "lab-01", "--quota", "32K"]);
    let mut peer = site.boot(&server, &mac);
    site.wait(async {
        powered_on(&mut peer).await;
        for piece in [0, 1, 2, 40] {
            assert_eq!(write(&mut peer, piece).await, 0);
        }
        // DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT.
        assert_eq!(refused(&mut peer, 60).await, (7, 0x2707));
        assert_eq!(refused(&mut peer, 61).await, (7, 0x2707));
        assert_eq!(write(&mut peer, 1).await, 0, "what it holds it may write");
        let (status, read) = peer.command(read_10(0, 16), 8192, b"").await;
        assert_eq!((status, read), (0, vec![7; 8192]));
        let mut flush = [0; 16];
        flush[0] = 0x35;
        assert_eq!(peer.command(flush, 0, b"").await.0, 0);
    });
    let page = server.page(&format!("/clients/{mac}"));
    assert!(page.contains("It may hold 32K of its own"), "{page}");
    server.until("/events", |page| {
        page.contains("refused to write more than its quota")
    });
    let shown = command(&site, &["client", "show", "lab-01"]);
    assert!(shown.contains("32K, 32 KiB of it taken"), "{shown}");
    command(&site, &["client", "set", "lab-01", "--quota", "64K"]);
    site.wait(async {
        for piece in [60, 61, 62, 63] {
            assert_eq!(write(&mut peer, piece).await, 0);
        }
        assert_eq!(refused(&mut peer, 64).await, (7, 0x2707));
    });
    command(&site, &["client", "set", "lab-01", "--quota="]);
    site.wait(async { assert_eq!(write(&mut peer, 64).await, 0) });
}

#[test]
fn a_disk_grows_under_a_client_that_runs() {
    let (site, mac, server) = room();
    let mut peer = site.boot(&server, &mac);
    site.wait(async {
        powered_on(&mut peer).await;
        assert_eq!(blocks(&mut peer).await, 2048);
        assert_eq!(write(&mut peer, 0).await, 0);
    });
    let told = command(&site, &["client", "resize", "lab-01", "4M", "--dry-run"]);
    assert!(told.contains("would resize to 4M"), "{told}");
    let told = command(&site, &["client", "resize", "lab-01", "4M"]);
    assert!(told.contains("resized to 4M"), "{told}");
    site.wait(async {
        // UNIT ATTENTION, CAPACITY DATA HAS CHANGED.
        assert_eq!(peer.sense([0; 16], 0, b"").await, (6, 0x2a09));
        assert_eq!(blocks(&mut peer).await, 8192);
        assert_eq!(write(&mut peer, 500).await, 0);
        let (status, read) = peer.command(read_10(500 * PIECE, 16), 8192, b"").await;
        assert_eq!((status, read), (0, vec![7; 8192]));
    });
}

#[test]
fn a_page_makes_a_snapshot_and_brings_it_back() {
    let (site, mac, server) = room();
    let act = |act: &str, more: &[(&'static str, &str)]| {
        let client = site.client(&mac);
        let mut fields = vec![
            pick(&client),
            ("act", act.to_owned()),
            ("from", "client".into()),
        ];
        fields.extend(
            more.iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        server.post_and_look("/clients/act", &fields)
    };
    let page = act("snapshot", &[("name", "before")]);
    assert!(page.contains("Made a snapshot of lab-01"), "{page}");
    assert!(page.contains("value=\"restore:before\""), "{page}");
    let page = act("resize", &[("size", "3M")]);
    assert!(page.contains("Enlarged the disk of lab-01 to 3M"), "{page}");
    let sure = [("sure", "yes"), ("when", "now")];
    let page = act("restore:before", &sure);
    assert!(
        page.contains("Brought the kept disk of lab-01 back"),
        "{page}"
    );
    let page = act("forget:before", &sure);
    assert!(page.contains("Removed a kept disk of lab-01"), "{page}");
    assert!(site.client(&mac).snapshots.is_empty());
}

#[test]
fn a_data_disk_is_beside_the_root_or_in_a_target_of_its_own() {
    let (site, mac, server) = room();
    command(&site, &["client", "set", "lab-01", "--data", "2M"]);
    let mut peer = site.boot(&server, &mac);
    site.wait(async {
        powered_on(&mut peer).await;
        // REPORT LUNS: the controller, the root, the data disk.
        let mut luns = [0; 16];
        (luns[0], luns[9]) = (0xa0, 64);
        let (status, data) = peer.command(luns, 64, b"").await;
        assert_eq!((status, data[3]), (0, 24), "{data:?}");
        assert_eq!((data[8 + 9], data[8 + 17]), (1, 2));
    });
    drop(peer);
    let assigned = [
        "client", "set", "lab-01", "--mode", "shared", "--force", "--yes",
    ];
    command(&site, &assigned);
    let cfg = server.boot_cfg(&mac);
    let script = Script::of(&cfg);
    let own = cfg
        .split_whitespace()
        .find_map(|word| word.strip_prefix("netroot.data="));
    let (own, lun) = own.unwrap().rsplit_once(',').unwrap();
    assert_eq!(lun, "2");
    let _root = site.log_in(&server, &script.initiator, &script.target);
    let _data = site.log_in(&server, &script.initiator, own);
    let shown = command(&site, &["client", "show", "lab-01"]);
    assert!(shown.contains(&format!("LUN 2 of {own}")), "{shown}");
}
