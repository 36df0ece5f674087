//! Boots that are made to fail at each stage, by a clock of the test's own.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::iscsi::{End, Isid};
use crate::library::{
    BootEnd, BootFailure, BootId, BootLine, BootOutcome, BootStage, BootTicket, ClientState,
    FailedAt, Firmware, IpxeErrno, KernelFrom, MacAddr, Mode, Proof, VersionId, Way,
};

const KERNEL: u64 = 38 << 20;
/// Long enough for a boot to have failed.
const SILENCE: i64 = 180;
/// How long a menu waits.
const MENU: SignedDuration = SignedDuration::from_secs(10);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn mac(last: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, last]).unwrap()
}

fn peer(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn said(last: u8) -> AskedFrom {
    AskedFrom::Said(peer(last))
}

fn version() -> VersionId {
    "fc28@3".parse().unwrap()
}

fn id(boot: u64) -> BootId {
    format!("{boot:012x}-3-0123456789abcdef").parse().unwrap()
}

fn ticket(client: u8, boot: u64) -> BootTicket {
    BootTicket {
        client: mac(client),
        id: id(boot),
        initiator: format!("iqn.a:client-{}.{}", mac(client).bare(), id(boot)),
        target: "iqn.a:fc28.3".to_owned(),
        version: version(),
        mode: Mode::Shared,
        way: Way::Http,
        proof: Proof::None,
        lun: 1,
        args: Vec::new(),
    }
}

/// The session of iPXE, or of open-iscsi.
fn session(number: u64, boot: u64, begins: bool) -> Entered {
    let isid = match number % 2 {
        1 => Isid([0x40, 0, 0x27, 0x23, 0, 1]),
        _ => Isid([0, 2, 0x3d, 0, 0, 1]),
    };
    Entered {
        boot: id(boot),
        session: number,
        who: Initiates::of(isid),
        peer: peer(1),
        begins,
    }
}

/// Odd numbers are the firmware's sessions.
const FIRMWARE: u64 = 1;
const SYSTEM: u64 = 2;

fn latest(boots: &mut Timelines, client: u8, now: i64) -> BootLine {
    boots.boots(at(now));
    let mut lines = boots.lines(&mac(client));
    lines.pop().unwrap()
}

fn told(boots: &mut Timelines, client: u8, now: i64) -> String {
    latest(boots, client, now).told
}

/// A client that has fetched its script at second 10.
fn begun() -> Timelines {
    let mut boots = Timelines::default();
    boots.dhcp(mac(1), None, Firmware::EfiX64, at(0));
    boots.loader(Whose::Peer(peer(1)), "snponly.efi", at(2));
    boots.asks(&ticket(1, 1), said(1), at(10));
    boots
}

/// One that has fetched all that its script names, until second 30.
fn fetched() -> Timelines {
    let mut boots = begun();
    for (stage, now) in [(BootStage::Kernel, 12), (BootStage::Initramfs, 20)] {
        boots.fetched_whole(stage, now);
    }
    boots
}

impl Timelines {
    /// A client fetches its script, by which the server gives it all.
    fn asks(&mut self, ticket: &BootTicket, from: AskedFrom, now: Timestamp) {
        self.script((ticket, KernelFrom::Server), from, now);
    }

    fn fetched_whole(&mut self, stage: BootStage, now: i64) {
        self.fetched(peer(1), &version(), (stage, KERNEL), at(now))
            .sent_at(KERNEL, at(now + 5));
    }
}

#[test]
fn a_boot_is_told_from_dhcp_to_its_first_write() {
    let mut boots = fetched();
    boots.discovery(Some(mac(1)), "", peer(1), at(40));
    boots.entered(mac(1), session(SYSTEM, 1, true), at(41));
    boots.io(&mac(1), SYSTEM, (Some(at(42)), None));
    boots.io(&mac(1), SYSTEM, (Some(at(42)), Some(at(70))));
    let line = latest(&mut boots, 1, 100);
    let stages: Vec<(BootStage, i64)> = line
        .steps
        .iter()
        .map(|step| (step.stage, line.after(step.at).as_secs()))
        .collect();
    assert_eq!(
        stages,
        [
            (BootStage::Dhcp, 0),
            (BootStage::Loader, 2),
            (BootStage::Script, 10),
            (BootStage::Kernel, 12),
            (BootStage::Initramfs, 20),
            (BootStage::Discovery, 40),
            (BootStage::System, 41),
            (BootStage::FirstRead, 42),
            (BootStage::FirstWrite, 70),
        ]
    );
    let kernel = line.step(BootStage::Kernel).unwrap();
    assert_eq!((kernel.bytes, kernel.until), (Some(KERNEL), Some(at(17))));
    assert_eq!(line.outcome, BootOutcome::Up);
    assert_eq!(line.firmware, Some(Firmware::EfiX64));
    boots.left(&mac(1), SYSTEM, End::Logout, at(500));
    let line = latest(&mut boots, 1, 10_000);
    assert_eq!(
        (line.outcome, line.told.as_str()),
        (BootOutcome::Ended, "its system logged out")
    );
    assert!(!line.boot.unwrap().contains("0123456789abcdef"));
}

#[test]
fn each_stage_that_a_boot_stops_at_is_named_with_the_cause() {
    let stops = |boots: &mut Timelines, last: i64, words: &str| {
        let before = latest(boots, 1, last + SILENCE - 1);
        assert_eq!(before.outcome, BootOutcome::Booting, "{words}");
        let line = latest(boots, 1, last + SILENCE);
        assert_eq!(line.outcome, BootOutcome::Failed, "{words}");
        assert!(line.told.contains(words), "{} has no {words}", line.told);
    };
    let mut dhcp = Timelines::default();
    dhcp.dhcp(mac(1), None, Firmware::Bios, at(0));
    stops(&mut dhcp, 0, "asked what to boot, fetched no loader: ");
    let mut loader = Timelines::default();
    loader.loader(Whose::Mac(mac(1)), "undionly.kpxe", at(0));
    stops(
        &mut loader,
        0,
        "fetched undionly.kpxe, never asked for its script",
    );
    let mut menu = Timelines::default();
    menu.loader(Whose::Mac(mac(1)), "snponly.efi", at(0));
    menu.menu(mac(1), MENU, said(1), at(5));
    stops(
        &mut menu,
        15,
        "fetched snponly.efi, nobody chose anything in its menu",
    );
    stops(
        &mut begun(),
        10,
        "fetched snponly.efi and boot.cfg, never asked for its kernel",
    );
    for (kernel, words) in [
        (
            KernelFrom::Esp,
            "never logged in: do kernel and initramfs start from its own ESP",
        ),
        (KernelFrom::Disk, "its firmware never logged in: "),
    ] {
        let mut elsewhere = begun();
        elsewhere.script((&ticket(1, 2), kernel), said(1), at(11));
        stops(&mut elsewhere, 11, &format!("boot.cfg, {words}"));
    }
    let mut half = begun();
    let kernel = half.fetched(peer(1), &version(), (BootStage::Kernel, KERNEL), at(12));
    kernel.sent_at(12 << 20, at(100));
    stops(&mut half, 100, "12 of 38 MiB were fetched, then silence");
    stops(
        &mut fetched(),
        25,
        "the kernel and the initramfs, never logged in: ",
    );
    let mut identity = fetched();
    identity.reached(mac(1), BootStage::Identity, said(1), at(30));
    stops(
        &mut identity,
        30,
        "the initramfs and its identity, never logged in: ",
    );
    let mut disk = Timelines::default();
    disk.script((&ticket(1, 1), KernelFrom::Disk), said(1), at(0));
    disk.entered(mac(1), session(FIRMWARE, 1, true), at(5));
    disk.left(&mac(1), FIRMWARE, End::ConnectionLost, at(9));
    stops(
        &mut disk,
        9,
        "its firmware logged in, the system never did: has the disk a boot loader",
    );
    let mut wrong = fetched();
    wrong.discovery(None, "iqn.a:other", peer(1), at(40));
    stops(
        &mut wrong,
        40,
        "discovered, never logged in: initiator name is iqn.a:other, the client's is iqn.a:client-020000000001.000000000001-3-",
    );
    let mut firmware = begun();
    firmware.entered(mac(1), session(FIRMWARE, 1, true), at(20));
    assert_eq!(latest(&mut firmware, 1, 900).outcome, BootOutcome::Booting);
    firmware.left(&mac(1), FIRMWARE, End::ConnectionLost, at(1000));
    stops(
        &mut firmware,
        1000,
        "its firmware logged in, the system never did: does the initramfs find the network?",
    );
    assert_eq!(firmware.boots(at(2000)).lost, 1, "it is counted once");
}

#[test]
fn what_ends_a_boot_at_once_is_told_at_once() {
    let mut refused = fetched();
    let why = "its login was refused: fenced";
    assert!(refused.refused(mac(1), Some(&id(1)), why, at(40)));
    assert_eq!(
        told(&mut refused, 1, 41),
        format!("fetched snponly.efi, boot.cfg, the kernel and the initramfs, {why}")
    );
    assert_eq!(refused.boots(at(9999)).refused, 1);
    let failure = BootFailure {
        at: FailedAt::Kernel,
        errno: Some(IpxeErrno(0x2d0c_618e)),
    };
    let mut failed = begun();
    assert!(
        !failed.failure(mac(1), said(2), failure, at(11)),
        "anybody can say so"
    );
    assert!(failed.failure(mac(1), said(1), failure, at(12)));
    assert!(!failed.failure(mac(1), said(1), failure, at(13)), "no news");
    assert_eq!(
        told(&mut failed, 1, 13),
        "fetched snponly.efi and boot.cfg, iPXE could not fetch the kernel: there is no such file \
         (https://ipxe.org/2d0c618e)"
    );
    // The firmware keeps its disk until the machine goes on to something else.
    let mut attached = begun();
    attached.entered(mac(1), session(FIRMWARE, 1, true), at(11));
    assert!(!attached.failure(mac(1), said(2), failure, at(12)));
    assert!(attached.failure(mac(1), said(1), failure, at(12)));
    let failed = attached.seen_of(1);
    assert!(failed.is_at_firmware(), "so it is not up");
    let judged = failed.judge(at(13)).map(|found| found.0);
    assert_eq!(judged, Some(ClientState::Failed));
    attached.left(&mac(1), FIRMWARE, End::ConnectionLost, at(22));
    assert_eq!(
        told(&mut attached, 1, 22 + SILENCE),
        "fetched snponly.efi and boot.cfg, its firmware logged in, iPXE could not fetch the kernel: there \
         is no such file (https://ipxe.org/2d0c618e)"
    );
    assert_eq!(attached.boots(at(9999)).lost, 1);
    // A system that runs is not ended by what anybody says.
    let mut up = fetched();
    up.entered(mac(1), session(FIRMWARE, 1, true), at(30));
    up.entered(mac(1), session(SYSTEM, 1, false), at(31));
    assert!(!up.failure(mac(1), AskedFrom::Own(peer(1)), failure, at(32)));
    // One that never came to its script is at no address that is known; its own word counts.
    let mut lost = Timelines::default();
    lost.dhcp(mac(1), None, Firmware::EfiX64, at(0));
    assert!(!lost.failure(mac(1), said(1), failure, at(11)));
    assert!(lost.failure(mac(1), AskedFrom::Own(peer(1)), failure, at(12)));
    let mut nothing = Timelines::default();
    for now in [0, 1, 2] {
        assert_eq!(
            nothing.nothing(mac(1), said(1), "no image", at(now)),
            now == 0
        );
    }
    assert_eq!(nothing.lines(&mac(1)).len(), 1);
    assert_eq!(told(&mut nothing, 1, 3), "no image");
}

/// A machine that shows its menu from second 5 on.
fn at_menu() -> Timelines {
    let mut boots = Timelines::default();
    boots.loader(Whose::Mac(mac(1)), "snponly.efi", at(0));
    boots.menu(mac(1), MENU, said(1), at(5));
    boots
}

#[test]
fn a_machine_has_all_the_time_of_its_menu() {
    let mut boots = Timelines::default();
    let waits = SignedDuration::from_secs(600);
    boots.menu(mac(1), waits, said(1), at(0));
    let line = latest(&mut boots, 1, 600 + SILENCE - 1);
    assert_eq!(line.outcome, BootOutcome::Booting);
    assert!(boots.due(at(600 + SILENCE - 1)).is_empty());
    // By itself it goes on in time; that its script is for this boot is known, too.
    boots.script((&ticket(1, 1), KernelFrom::Server), said(1), at(601));
    assert_eq!(boots.lines(&mac(1)).len(), 1);
    let told = told(&mut boots, 1, 601 + SILENCE);
    let begins = "fetched boot.cfg, never asked for its kernel";
    assert!(told.starts_with(begins), "{told}");
}

#[test]
fn a_machine_that_goes_on_to_its_local_disk_has_not_failed() {
    let mut boots = at_menu();
    for from in [said(9), AskedFrom::NoBoot] {
        boots.gave_way(mac(1), Instead::LocalDisk, from, at(7));
        assert_eq!(told(&mut boots, 1, 7), "it shows its menu", "{from:?}");
    }
    boots.gave_way(mac(1), Instead::LocalDisk, said(1), at(8));
    let line = latest(&mut boots, 1, 8 + SILENCE);
    assert_eq!(
        (line.outcome, line.told.as_str()),
        (BootOutcome::Ended, "it went on to its local disk")
    );
    assert_eq!(line.end, Some(BootEnd::LocalDisk));
    let due = boots.due(at(8 + SILENCE));
    assert_eq!((due[0].lines.len(), due[0].failed.len()), (1, 0));
    assert_eq!(boots.boots(at(9999)).lost, 0);
    assert_eq!(boots.seen_of(1).judge(at(9999)), None);

    // Somebody chose after a while in which it has failed: that is told as another try.
    let mut late = at_menu();
    late.boots(at(15 + SILENCE));
    late.gave_way(mac(1), Instead::LocalDisk, said(1), at(300));
    assert_eq!(late.lines(&mac(1)).len(), 1, "it may be anybody");
    let own = AskedFrom::Own(peer(1));
    late.gave_way(mac(1), Instead::LocalDisk, own, at(300));
    assert_eq!(late.lines(&mac(1)).len(), 2);
    assert_eq!(latest(&mut late, 1, 300).outcome, BootOutcome::Ended);
}

#[test]
fn a_machine_boots_as_who_logged_in_there_and_fails_as_them() {
    let failure = BootFailure {
        at: FailedAt::Kernel,
        errno: None,
    };
    let anna = "person-anna".parse().unwrap();
    let logs_in = |boots: &mut Timelines, boot, now| {
        let ticket = ticket(2, boot);
        boots.asks(&ticket, said(1), at(now));
        boots.gave_way(mac(1), Instead::Person(&ticket, &anna), said(1), at(now));
    };
    let mut boots = at_menu();
    logs_in(&mut boots, 1, 10);
    assert_eq!(boots.boots(at(11)).lost, 0);
    let words = "somebody logged in there, and it boots as person-anna";
    assert_eq!(told(&mut boots, 1, 11), words);
    assert!(
        !boots.failure(mac(1), said(9), failure, at(12)),
        "anybody can say so"
    );
    assert!(boots.failure(mac(1), said(1), failure, at(12)));
    assert_eq!(
        told(&mut boots, 2, 12),
        "fetched boot.cfg, iPXE could not fetch the kernel"
    );
    assert_eq!(told(&mut boots, 1, 9999), words);
    assert_eq!(boots.boots(at(9999)).lost, 1);

    // She boots at another machine since.
    let mut boots = at_menu();
    logs_in(&mut boots, 1, 10);
    boots.asks(&ticket(2, 2), said(1), at(40));
    assert!(!boots.failure(mac(1), said(1), failure, at(41)));
    assert_eq!(told(&mut boots, 2, 41), "script fetched");
    // And the machine boots what is its own.
    boots.asks(&ticket(1, 3), said(1), at(50));
    assert!(boots.failure(mac(1), said(1), failure, at(51)));
    assert_eq!(latest(&mut boots, 1, 51).outcome, BootOutcome::Failed);
    assert_eq!(told(&mut boots, 2, 51), "script fetched");
}

#[test]
fn the_firmwares_session_is_told_from_the_systems() {
    let mut boots = begun();
    boots.entered(mac(1), session(FIRMWARE, 1, true), at(20));
    let judged = |boots: &mut Timelines| boots.seen_of(1).judge(at(60)).map(|found| found.0);
    assert_eq!(judged(&mut boots), Some(ClientState::Booting));
    boots.io(&mac(1), FIRMWARE, (Some(at(21)), Some(at(22))));
    // The two overlap: the firmware's connection is missed later.
    boots.entered(mac(1), session(SYSTEM, 1, false), at(50));
    boots.left(&mac(1), FIRMWARE, End::ConnectionLost, at(55));
    let line = latest(&mut boots, 1, 60);
    assert_eq!(line.outcome, BootOutcome::Up);
    assert!(!line.reached(BootStage::FirstRead), "that was the firmware");
    assert_eq!(judged(&mut boots), None);
    // The network goes, and comes back.
    boots.left(&mac(1), SYSTEM, End::ConnectionLost, at(100));
    assert!(latest(&mut boots, 1, 101).reached(BootStage::End));
    boots.entered(mac(1), session(4, 1, false), at(120));
    let line = latest(&mut boots, 1, 121);
    assert_eq!((line.outcome, line.reconnects), (BootOutcome::Up, 1));
    assert!(!line.reached(BootStage::End) && line.end.is_none());
    assert_eq!(boots.lines(&mac(1)).len(), 1);
}

impl Timelines {
    fn seen_of(&mut self, client: u8) -> &mut seen::Seen {
        self.seen(mac(client), at(0))
    }
}

#[test]
fn two_machines_behind_one_address_are_not_mixed_up() {
    let mut boots = Timelines::default();
    boots.asks(&ticket(1, 1), said(1), at(0));
    boots.asks(&ticket(2, 2), said(1), at(1));
    boots
        .fetched(peer(1), &version(), (BootStage::Kernel, KERNEL), at(2))
        .sent_at(5, at(3));
    boots.discovery(None, "iqn.a:other", peer(1), at(4));
    assert!(!boots.other_name("iqn.a:other", peer(1), at(4)));
    for client in [1, 2] {
        let line = latest(&mut boots, client, 5);
        assert_eq!(line.told, "script fetched");
        assert_eq!(line.other_name, None);
    }
    // Unless they boot different versions.
    let other = BootTicket {
        version: "fc28@4".parse().unwrap(),
        ..ticket(3, 3)
    };
    boots.asks(&other, said(1), at(6));
    let fetch = boots.fetched(peer(1), &other.version, (BootStage::Kernel, KERNEL), at(7));
    fetch.sent_at(KERNEL, at(8));
    assert_eq!(told(&mut boots, 3, 9), "kernel fetched");
    assert_eq!(told(&mut boots, 1, 9), "script fetched");
    // Each tells who it is by its name.
    boots.discovery(Some(mac(2)), "", peer(1), at(10));
    assert!(latest(&mut boots, 2, 11).reached(BootStage::Discovery));
    assert!(!latest(&mut boots, 1, 11).reached(BootStage::Discovery));
}

#[test]
fn a_refused_login_has_failed_until_something_new_or_silence() {
    let mut boots = Timelines::default();
    let state = |boots: &mut Timelines, now| boots.seen_of(1).judge(at(now)).map(|found| found.0);
    // An old boot that was fenced, of which nothing was seen.
    assert!(boots.refused(mac(1), Some(&id(1)), "fenced", at(0)));
    assert!(!boots.refused(mac(1), Some(&id(1)), "fenced", at(3)));
    assert_eq!(state(&mut boots, 4), Some(ClientState::Failed));
    boots.asks(&ticket(1, 2), said(1), at(20));
    boots.refused(mac(1), Some(&id(1)), "fenced", at(25));
    assert_eq!(
        state(&mut boots, 26),
        Some(ClientState::Booting),
        "that is the old one"
    );
    boots.entered(mac(1), session(SYSTEM, 2, true), at(30));
    assert_eq!(state(&mut boots, 31), None);
    boots.refused(mac(1), Some(&id(1)), "fenced", at(100));
    assert_eq!(state(&mut boots, 101), Some(ClientState::Failed));
    assert_eq!(state(&mut boots, 100 + 600), None, "it was switched off");
}

#[test]
fn each_boot_is_counted_once() {
    let mut boots = Timelines::default();
    let counts = |scripts, up, refused, lost| Boots {
        scripts,
        up,
        refused,
        lost,
    };
    boots.asks(&ticket(1, 1), said(1), at(0));
    boots.entered(mac(1), session(SYSTEM, 1, true), at(0));
    boots.entered(mac(1), session(4, 1, false), at(0));
    assert_eq!(boots.boots(at(1)), counts(1, 1, 0, 0));
    boots.asks(&ticket(2, 2), said(2), at(2));
    for second in 3..9 {
        boots.refused(mac(2), Some(&id(2)), "no", at(second));
    }
    // One that nobody saw begin was fenced before.
    boots.refused(mac(3), Some(&id(3)), "fenced", at(9));
    assert_eq!(boots.boots(at(9)), counts(2, 1, 1, 0));
    boots.asks(&ticket(4, 4), said(4), at(10));
    assert_eq!(boots.boots(at(189)), counts(3, 1, 1, 0));
    for second in [190, 191, 999] {
        assert_eq!(boots.boots(at(second)), counts(3, 1, 1, 1));
    }
    // It was switched off and on again, and told twice.
    boots.asks(&ticket(4, 5), said(4), at(1000));
    boots.asks(&ticket(4, 6), said(4), at(1001));
    assert_eq!(boots.lines(&mac(4)).len(), 2);
    boots.entered(mac(4), session(6, 6, true), at(1001));
    assert_eq!(boots.boots(at(9999)), counts(5, 2, 1, 1));
    // Whether anybody asks or not.
    boots.asks(&ticket(4, 7), AskedFrom::Own(peer(4)), at(10_000));
    boots.asks(&ticket(4, 8), said(4), at(20_000));
    assert_eq!(boots.boots(at(20_001)), counts(7, 2, 1, 2));
}

#[test]
fn what_came_to_something_is_written_down_and_not_again_and_again() {
    let mut boots = fetched();
    assert!(boots.due(at(30)).is_empty(), "it is on its way");
    boots.entered(mac(1), session(SYSTEM, 1, true), at(40));
    let due = boots.due(at(41));
    assert_eq!((due.len(), due[0].lines[0].outcome), (1, BootOutcome::Up));
    assert!(due[0].failed.is_empty());
    boots.io(&mac(1), SYSTEM, (Some(at(42)), None));
    assert!(boots.due(at(50)).is_empty(), "a moment ago it was");
    assert_eq!(boots.due(at(51)).len(), 1);
    assert!(boots.due(at(1000)).is_empty() && boots.rest(at(1000)).is_empty());
    boots.asks(&ticket(1, 2), said(1), at(2000));
    let due = boots.due(at(2000 + SILENCE));
    assert_eq!(due[0].failed.len(), 1, "its event");
    boots.left(&mac(1), SYSTEM, End::ConnectionLost, at(3000));
    assert_eq!(boots.rest(at(3000))[0].lines[0].end, Some(BootEnd::Lost));
    boots.kept(&mac(1));
    assert_eq!(boots.lines(&mac(1)).len(), 1, "what is over is on disk");
}

#[test]
fn floods_take_no_more_than_their_share() {
    let mut boots = Timelines::default();
    for n in 0..5000_u32 {
        let peer = IpAddr::from(n.to_be_bytes());
        boots.loader(Whose::Peer(peer), "x", at(0));
        boots.failure(
            mac(9),
            AskedFrom::Said(peer),
            BootFailure {
                at: FailedAt::San,
                errno: None,
            },
            at(0),
        );
        boots.discovery(Some(mac(9)), "x", peer, at(0));
    }
    assert!(boots.lines(&mac(9)).is_empty(), "only a boot makes one");
    for n in 0..2000_i64 {
        boots.asks(&ticket(1, 1 + n as u64), said(1), at(n * 20));
        for _ in 0..100 {
            drop(boots.fetched(peer(1), &version(), (BootStage::Kernel, 10), at(n * 20)));
        }
    }
    let lines = boots.lines(&mac(1));
    assert_eq!(lines.len(), 4);
    assert!(lines.iter().all(|line| line.steps.len() == 2));
    assert_eq!(boots.due(at(40_000)).len(), 1);
    assert!(boots.due(at(40_001)).is_empty(), "one time in some seconds");
    for client in 0..200 {
        boots.asks(
            &ticket(client, 5000 + u64::from(client)),
            said(client),
            at(50_000),
        );
    }
    let at_a_time = boots.due(at(60_000)).len();
    assert!(at_a_time <= 16, "{at_a_time}");
    boots.retain(|_| false);
    assert!(boots.lines(&mac(1)).is_empty());
}

#[test]
fn a_boot_that_goes_on_is_nobodys_who_asks_from_elsewhere() {
    let mut boots = fetched();
    let failure = BootFailure {
        at: FailedAt::Boot,
        errno: None,
    };
    boots.asks(&ticket(1, 2), said(9), at(31));
    assert!(!boots.nothing(mac(1), said(9), "it is another's", at(60)));
    boots.menu(mac(1), MENU, said(9), at(60));
    assert!(!boots.is_booting(&mac(1), said(9)));
    assert!(!boots.failure(mac(1), said(9), failure, at(61)));
    boots.entered(mac(1), session(SYSTEM, 1, true), at(62));
    let lines = boots.lines(&mac(1));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0].peer, Some(peer(1)));
    assert_eq!(lines[0].outcome, BootOutcome::Up);

    // The client itself may have moved; and who is silent has stopped.
    let mut boots = begun();
    boots.asks(&ticket(1, 2), AskedFrom::Own(peer(9)), at(12));
    assert!(boots.is_booting(&mac(1), said(9)));
    let mut boots = begun();
    boots.asks(&ticket(1, 2), said(9), at(10 + SILENCE));
    assert!(boots.is_booting(&mac(1), said(9)));
}

#[test]
fn a_client_whose_boot_is_over_or_up_is_nobodys_either() {
    let asks = |boots: &mut Timelines, from: AskedFrom| {
        let before = boots.lines(&mac(1));
        for n in 0..20 {
            let now = at(20_000 + n * 16);
            boots.asks(&ticket(1, 100 + n as u64), from, now);
            assert!(!boots.nothing(mac(1), from, "it is another's", now));
            boots.menu(mac(1), MENU, from, now);
            assert!(!boots.is_booting(&mac(1), from));
        }
        assert_eq!(boots.lines(&mac(1)), before, "{from:?}");
    };
    // Of a machine that is known to be another one nothing is believed.
    let mut never = Timelines::default();
    asks(&mut never, AskedFrom::NoBoot);
    let mut lost = fetched();
    lost.boots(at(10_000));
    asks(&mut lost, AskedFrom::NoBoot);
    let mut up = fetched();
    up.entered(mac(1), session(SYSTEM, 1, true), at(41));
    asks(&mut up, AskedFrom::NoBoot);
    // Nor of one that is nobody knows which, while the client has its disk elsewhere.
    asks(&mut up, said(9));
    up.left(&mac(1), SYSTEM, End::Logout, at(50));
    asks(&mut up, AskedFrom::NoBoot);
    let mut firmware = begun();
    firmware.entered(mac(1), session(FIRMWARE, 1, true), at(20));
    asks(&mut firmware, said(9));

    // Where nothing goes on he may be the client, but for being told the same for ever.
    let why = "it has to have a secret";
    for n in 0..20 {
        let news = up.nothing(mac(1), said(9), why, at(30_000 + n * 600));
        assert_eq!(news, n == 0);
    }
    assert_eq!(up.lines(&mac(1)).len(), 2);
}

/// What is written down now: how many of it, and what events tell.
fn written(boots: &mut Timelines, now: i64) -> (usize, Vec<String>) {
    boots.boots(at(now));
    let kept = boots.rest(at(now));
    kept.iter().for_each(|one| boots.kept(&one.mac));
    let failed = kept.iter().flat_map(|one| &one.failed);
    let failed = failed.map(|line| line.told.clone()).collect();
    (kept.iter().map(|one| one.lines.len()).sum(), failed)
}

#[test]
fn a_machine_that_goes_in_circles_has_failed() {
    const ROUND: i64 = 60;
    let mut boots = Timelines::default();
    let state = |boots: &mut Timelines, now| boots.seen_of(1).judge(at(now));
    let asks = |boots: &mut Timelines, now| {
        boots.dhcp(mac(1), None, Firmware::Bios, at(now));
        boots.loader(Whose::Mac(mac(1)), "undionly.kpxe", at(now + 2));
    };
    for now in (0..300).step_by(60) {
        asks(&mut boots, now);
        assert_eq!(latest(&mut boots, 1, now + 3).outcome, BootOutcome::Booting);
    }
    let words = "fetched undionly.kpxe, never asked for its script: ";
    let line = latest(&mut boots, 1, 302);
    assert_eq!(line.outcome, BootOutcome::Failed);
    assert!(line.told.starts_with(words), "{}", line.told);
    assert_eq!(written(&mut boots, 303).1.len(), 1, "its event");
    // It goes on like that for an hour, which is no news.
    for now in (360..3600).step_by(60) {
        asks(&mut boots, now);
        assert_eq!(written(&mut boots, now + ROUND - 1).1, [""; 0]);
    }
    let (state_now, since, why) = state(&mut boots, 3650).unwrap();
    assert_eq!((state_now, since), (ClientState::Failed, at(0)));
    assert!(why.starts_with(&format!("it tries again and again: {words}")));
    // Until it comes farther.
    boots.asks(&ticket(1, 1), said(1), at(3660));
    assert_eq!(state(&mut boots, 3661).unwrap().0, ClientState::Booting);

    // A script that is fetched again and again, as it is when its kernel cannot be started.
    let mut boots = begun();
    for boot in 2..31 {
        boots.asks(&ticket(1, boot), said(1), at(boot as i64 * 10));
    }
    assert_eq!(latest(&mut boots, 1, 309).outcome, BootOutcome::Booting);
    let told = told(&mut boots, 1, 310);
    assert!(
        told.contains("boot.cfg, never asked for its kernel: "),
        "{told}"
    );
    assert_eq!(boots.boots(at(310)).lost, 1);
    // And an initiator that insists on another name.
    let mut boots = fetched();
    for now in (40..340).step_by(5) {
        boots.discovery(None, "iqn.a:other", peer(1), at(now));
    }
    let line = latest(&mut boots, 1, 340);
    assert_eq!(line.outcome, BootOutcome::Failed);
    assert!(line.told.contains("initiator name is iqn.a:other"));
    // What iPXE says each time is news once, too; and again when it says something else.
    let mut boots = Timelines::default();
    let fails = |boots: &mut Timelines, at_stage, now: i64| {
        boots.asks(&ticket(1, now as u64), said(1), at(now));
        let failure = BootFailure {
            at: at_stage,
            errno: None,
        };
        assert!(boots.failure(mac(1), said(1), failure, at(now + 1)));
        written(boots, now + 2).1.len()
    };
    let news = [100, 130, 160].map(|now| fails(&mut boots, FailedAt::Kernel, now));
    assert_eq!(news, [1, 0, 0]);
    assert_eq!(fails(&mut boots, FailedAt::Start, 190), 1);
    assert_eq!(
        fails(&mut boots, FailedAt::Start, 190 + 2 * SILENCE),
        1,
        "it had a rest"
    );
    // That its own name is another at each boot is no news.
    let mut boots = Timelines::default();
    let news = [0, 60, 120, 180].map(|now| {
        boots.asks(&ticket(1, 1 + now as u64), said(1), at(now));
        // Nor is one that its initiator makes up.
        boots.discovery(None, &format!("iqn.a:{now}"), peer(1), at(now + 30));
        written(&mut boots, now + 31).1.len()
    });
    assert_eq!(news, [0, 1, 0, 0], "the first is told when it is over");
    let mut halves = Timelines::default();
    let news = [0, 60, 120, 180].map(|now| {
        halves.asks(&ticket(1, 1 + now as u64), said(1), at(now));
        let kernel = (BootStage::Kernel, KERNEL);
        let kernel = halves.fetched(peer(1), &version(), kernel, at(now + 1));
        kernel.sent_at(1000 + now as u64, at(now + 5));
        written(&mut halves, now + 31).1.len()
    });
    assert_eq!(news, [0, 1, 0, 0], "nor is how much of a file it got");
    let why = boots.seen_of(1).judge(at(212)).unwrap().2;
    assert!(why.starts_with("it tries again and again: "), "{why}");
}

#[test]
fn who_takes_his_time_does_not_go_in_circles() {
    // Firmware asks several times, and goes through its cards.
    let mut boots = Timelines::default();
    for now in [0, 4, 12, 90, 94, 200] {
        boots.dhcp(mac(1), None, Firmware::EfiX64, at(now));
    }
    boots.loader(Whose::Mac(mac(1)), "snponly.efi", at(202));
    for now in [210, 214, 300] {
        boots.dhcp(mac(1), None, Firmware::EfiX64, at(now));
    }
    boots.asks(&ticket(1, 1), said(1), at(301));
    // A kernel comes in drops, for most of an hour.
    let kernel = boots.fetched(peer(1), &version(), (BootStage::Kernel, KERNEL), at(310));
    for now in (310..3400).step_by(170) {
        kernel.sent_at(1 << 20, at(now));
        assert_eq!(latest(&mut boots, 1, now).outcome, BootOutcome::Booting);
    }
    assert_eq!(boots.lines(&mac(1)).len(), 1);
    assert_eq!(written(&mut boots, 3400).1, [""; 0]);
    // Somebody goes to and fro in a menu, and chooses at last; a key had led there from the script.
    for mut boots in [at_menu(), begun()] {
        for now in (14..1000).step_by(100) {
            boots.menu(mac(1), MENU, said(1), at(now));
        }
        boots.asks(&ticket(1, 2), said(1), at(1000));
        assert_eq!(latest(&mut boots, 1, 1001).outcome, BootOutcome::Booting);
        assert_eq!(boots.lines(&mac(1)).len(), 1);
        assert_eq!(boots.boots(at(1001)).lost, 0);
    }
}

#[test]
fn a_boot_that_is_broken_off_is_told_with_what_is_known() {
    let breaks_off = |boots: &mut Timelines, begun: i64| {
        let boot = begun as u64 + 1;
        boots.dhcp(mac(1), None, Firmware::EfiX64, at(begun));
        boots.asks(&ticket(1, boot), said(1), at(begun + 10));
        boots.fetched_whole(BootStage::Kernel, begun + 12);
        boots.discovery(None, "iqn.a:other", peer(1), at(begun + 40));
    };
    let words = "fetched boot.cfg and the kernel, discovered, never logged in: initiator name is \
                 iqn.a:other, the client's is iqn.a:client-020000000001.";
    let mut boots = Timelines::default();
    breaks_off(&mut boots, 0);
    assert_eq!(boots.boots(at(80)).lost, 0);
    // It is switched off and on.
    boots.dhcp(mac(1), None, Firmware::EfiX64, at(90));
    assert_eq!(boots.boots(at(90)).lost, 1);
    let (_, told) = written(&mut boots, 90);
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with(words), "{}", told[0]);
    assert!(
        told[0].ends_with(", and it began to boot anew"),
        "{}",
        told[0]
    );
    let judged = |boots: &mut Timelines, now| boots.seen_of(1).judge(at(now)).unwrap().0;
    assert_eq!(judged(&mut boots, 91), ClientState::Booting);
    // Half a kernel is known, too.
    boots.asks(&ticket(1, 500), said(1), at(100));
    let kernel = boots.fetched(peer(1), &version(), (BootStage::Kernel, KERNEL), at(101));
    kernel.sent_at(12 << 20, at(110));
    boots.dhcp(mac(1), None, Firmware::EfiX64, at(140));
    assert_eq!(
        written(&mut boots, 141).1,
        ["fetched boot.cfg, of its kernel 12 of 38 MiB were fetched, and it began to boot anew"]
    );
    // Each round is counted, the first one is news, and after the second it has failed.
    let begin = |boots: &mut Timelines, now| {
        boots.asks(&ticket(1, now as u64), said(1), at(now));
        boots.fetched_whole(BootStage::Kernel, now + 2);
    };
    let news: Vec<(usize, ClientState)> = (200..1000)
        .step_by(100)
        .map(|now| {
            begin(&mut boots, now);
            boots.dhcp(mac(1), None, Firmware::EfiX64, at(now + 60));
            let news = written(&mut boots, now + 60).1.len();
            (news, judged(&mut boots, now + 61))
        })
        .collect();
    assert_eq!(news[0], (1, ClientState::Booting));
    assert!(
        news[1..].iter().all(|one| *one == (0, ClientState::Failed)),
        "{news:?}"
    );
    assert_eq!(boots.boots(at(1000)).lost, 10);
    begin(&mut boots, 1000);
    boots.fetched_whole(BootStage::Initramfs, 1010);
    assert_eq!(judged(&mut boots, 1020), ClientState::Booting);
    // Whoever leaves a menu has broken nothing off.
    let mut boots = at_menu();
    boots.dhcp(mac(1), None, Firmware::EfiX64, at(20));
    assert_eq!(written(&mut boots, 20), (2, Vec::new()));
    assert_eq!(boots.boots(at(20)).lost, 0);
}

#[test]
fn a_running_machine_that_is_switched_off_and_on_is_told_so() {
    let runs = || {
        let mut boots = fetched();
        boots.entered(mac(1), session(SYSTEM, 1, true), at(40));
        boots.io(&mac(1), SYSTEM, (Some(at(42)), None));
        boots
    };
    let ends = |boots: &mut Timelines, end, now| {
        boots.left(&mac(1), SYSTEM, end, at(now));
        let lines = boots.lines(&mac(1));
        let line = lines.iter().find(|line| line.began == at(0)).unwrap();
        assert_eq!(line.outcome, BootOutcome::Ended);
        line.told.clone()
    };
    let anew = "the machine began to boot anew, without logging out";
    for (end, told) in [
        // Its new boot logs in, or nobody answers pings.
        (End::Kicked, anew),
        (End::ConnectionLost, anew),
        (End::Logout, "its system logged out"),
    ] {
        let mut boots = runs();
        boots.dhcp(mac(1), None, Firmware::EfiX64, at(100));
        assert_eq!(boots.lines(&mac(1))[0].outcome, BootOutcome::Up);
        boots.asks(&ticket(1, 2), said(1), at(105));
        assert_eq!(ends(&mut boots, end, 110), told);
        assert_eq!(boots.boots(at(110)).lost, 0);
    }
    let cut_off = "its session was ended here";
    assert_eq!(ends(&mut runs(), End::Kicked, 110), cut_off);
    // Somebody else had asked: it is there, and answers long after.
    let mut boots = runs();
    boots.dhcp(mac(1), None, Firmware::EfiX64, at(100));
    assert_eq!(ends(&mut boots, End::Kicked, 100 + SILENCE), cut_off);
    // Or it is there, and comes back.
    let mut boots = runs();
    boots.dhcp(mac(1), None, Firmware::EfiX64, at(100));
    boots.left(&mac(1), SYSTEM, End::ConnectionLost, at(101));
    boots.entered(mac(1), session(4, 1, false), at(103));
    boots.left(&mac(1), 4, End::Kicked, at(120));
    assert_eq!(boots.lines(&mac(1))[0].told, cut_off);
}

#[test]
fn boots_on_their_way_go_on_with_the_next_server() {
    let restarted = |boots: &mut Timelines, now| {
        boots.boots(at(now));
        let mut next = Timelines::default();
        for kept in boots.rest(at(now)) {
            for line in kept.lines {
                let text = serde_json::to_string(&line).unwrap();
                next.resume(kept.mac, serde_json::from_str(&text).unwrap(), at(now + 5));
            }
        }
        next
    };
    let mut boots = restarted(&mut begun(), 15);
    assert!(boots.rest(at(20)).is_empty(), "nothing new is known");
    boots.fetched_whole(BootStage::Kernel, 21);
    boots.entered(mac(1), session(SYSTEM, 1, true), at(40));
    let line = latest(&mut boots, 1, 41);
    assert_eq!((line.began, line.outcome), (at(0), BootOutcome::Up));
    assert!(line.reached(BootStage::Loader) && line.reached(BootStage::Kernel));
    assert_eq!(boots.lines(&mac(1)).len(), 1);
    // One that never comes has its time from then on.
    let mut half = begun();
    let kernel = half.fetched(peer(1), &version(), (BootStage::Kernel, KERNEL), at(12));
    kernel.sent_at(12 << 20, at(13));
    let mut boots = restarted(&mut half, 150);
    assert_eq!(
        latest(&mut boots, 1, 155 + SILENCE - 1).outcome,
        BootOutcome::Booting
    );
    let (_, told) = written(&mut boots, 155 + SILENCE);
    assert_eq!(
        told,
        ["fetched snponly.efi and boot.cfg, of its kernel 12 of 38 MiB were fetched, then silence"]
    );
    assert_eq!(boots.boots(at(999)).lost, 1);
    // One that shows its menu has the time of the longest, also where a key led there from its script.
    let mut by_key = begun();
    by_key.menu(mac(1), MENU, said(1), at(14));
    for (mut before, shown) in [(at_menu(), 5), (by_key, 14)] {
        let mut boots = restarted(&mut before, 100);
        let ends = shown + 3600 + SILENCE;
        for (now, outcome) in [
            (ends - 1, BootOutcome::Booting),
            (ends, BootOutcome::Failed),
        ] {
            assert_eq!(latest(&mut boots, 1, now).outcome, outcome, "{now}");
        }
    }
}

#[test]
fn what_could_not_be_written_down_is_tried_again() {
    let mut boots = begun();
    boots.asks(&ticket(1, 2), said(1), at(100));
    let tries = boots.due(at(100));
    assert_eq!((tries[0].lines.len(), tries[0].failed.len()), (1, 1));
    boots.not_kept(&tries[0]);
    assert_eq!(boots.lines(&mac(1)).len(), 2, "it is nowhere else");
    assert!(boots.due(at(105)).is_empty(), "not at once");
    let again = boots.due(at(110));
    assert_eq!(again[0].lines, tries[0].lines);
    assert_eq!(again[0].failed, tries[0].failed);
    boots.kept(&mac(1));
    assert_eq!(boots.lines(&mac(1)).len(), 1);
    assert!(boots.due(at(130)).is_empty());
}
