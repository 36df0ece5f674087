//! What clients' disks may hold and how large they are, their snapshots, and how long things are kept.

use std::fs;
use std::os::unix::fs::MetadataExt;

use jiff::{SignedDuration, Timestamp};
use netroot::block::{self, Disk};
use netroot::library::*;

use crate::lab::{Lab, MIB, assign, everywhere, forbidden, on_xfs, refused};

const MAC: &str = "52:54:00:12:34:56";

fn snapshot(name: &str) -> Act {
    Act::Snapshot(NewSnapshot {
        name: Some(name.parse().unwrap()),
    })
}

fn kept(disk: &str) -> KeptDisk {
    KeptDisk {
        disk: disk.to_owned(),
    }
}

fn resize(size: &str) -> Act {
    Act::Resize(NewSize {
        size: size.parse().unwrap(),
    })
}

fn set(lab: &Lab, mac: &MacAddr, settings: &str) -> Client {
    let edit = format!(r#"{{"settings": {settings}}}"#);
    let edit: Edit = serde_json::from_str(&edit).unwrap();
    lab.lib
        .edit_client(mac, &edit, &lab.room, &Actor::command())
        .unwrap();
    lab.client(mac)
}

/// Directories of disks that are kept for a client.
fn on_disk(lab: &Lab, mac: &MacAddr) -> usize {
    let dir = lab.home().join("clones").join(mac.bare()).join("discarded");
    fs::read_dir(dir).map_or(0, |entries| entries.count())
}

/// Writes `pieces` of 4 KiB from `piece` on.
fn write(disk: &dyn Disk, piece: u64, pieces: u64) -> block::Result<()> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let extent = disk.geometry().extent(piece * 8, pieces * 8).unwrap();
    let data = vec![vec![7; extent.len() as usize].into()];
    runtime.block_on(async {
        disk.write(extent, data).wait().await?;
        disk.flush().wait().await
    })
}

#[test]
fn a_snapshot_comes_back_as_often_as_wanted() {
    everywhere(|lab| {
        lab.seal("fc28", "pristine");
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        lab.write(&mac, "one");
        lab.act(&mac, snapshot("before"), When::Now).unwrap();
        let made = lab.client(&mac).snapshots[0].clone();
        assert_eq!((made.name.as_str(), made.running), ("before", false));
        for written in ["two", "three"] {
            lab.write(&mac, written);
            let restore = Act::Restore(kept("before"));
            let plan = lab.lib.plan(&mac, &restore, When::Now, &lab.room).unwrap();
            let steps: Vec<String> = plan.steps.iter().map(Step::to_string).collect();
            assert!(
                steps[1].starts_with("make a copy of snapshot before"),
                "{steps:?}"
            );
            lab.act(&mac, restore, When::Now).unwrap();
            assert_eq!(lab.read(&mac), "one");
            lab.act(&mac, Act::Undo, When::Now).unwrap();
            assert_eq!(lab.read(&mac), written);
        }
        assert_eq!(lab.client(&mac).snapshots, [made]);
        // Neither reset nor assignments touch it.
        for _ in 0..4 {
            lab.act(&mac, Act::Reset, When::Now).unwrap();
        }
        lab.act(&mac, Act::Restore(kept("before")), When::Now)
            .unwrap();
        assert_eq!(lab.read(&mac), "one");
        let lost = lab
            .act(&mac, Act::Forget(kept("before")), When::Now)
            .unwrap();
        assert!(lost.plan.loses.unwrap().contains("for ever"));
        assert!(lab.client(&mac).snapshots.is_empty());
        assert_eq!(on_disk(&lab, &mac), lab.client(&mac).discarded.len());
        let why = refused(lab.act(&mac, Act::Restore(kept("before")), When::Now));
        assert!(why.contains("before is not kept"), "{why}");
    });
}

#[test]
fn a_snapshot_has_a_name_of_its_own_and_keeps_its_version() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    lab.seal("fc29", "next");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    lab.act(&mac, snapshot("before"), When::Now).unwrap();
    assert!(matches!(
        lab.act(&mac, snapshot("before"), When::Now),
        Err(Error::Exists {
            kind: "snapshot",
            ..
        })
    ));
    let unnamed = Act::Snapshot(NewSnapshot::default());
    lab.act(&mac, unnamed, When::Now).unwrap();
    assert!(
        lab.client(&mac).snapshots[1]
            .name
            .as_str()
            .starts_with("at-2")
    );
    assert!("0123456789abcdef".parse::<SnapshotName>().is_err());
    assert!("abcdefabcdefabcd".parse::<SnapshotName>().is_err());
    lab.act(&mac, assign(Some("fc29"), None), When::Now)
        .unwrap();
    let old = lab.client(&mac).discarded[0].clone.id.clone();
    lab.act(&mac, Act::Forget(kept(&old)), When::Now).unwrap();
    let gone = lab
        .lib
        .remove_image(&"fc28".parse().unwrap(), &lab.room, &Actor::command());
    let why = refused(gone);
    assert!(
        why.contains("has a snapshot of a clone of it, before"),
        "{why}"
    );
    let shared = lab.add("52:54:00:00:00:02", "fc28", Mode::Shared);
    let why = refused(lab.act(&shared, snapshot("before"), When::Now));
    assert!(why.contains("none in mode shared"), "{why}");
}

#[test]
fn a_running_client_is_copied_as_it_is_where_blocks_can_be_shared() {
    everywhere(|lab| {
        lab.seal("fc28", "pristine");
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        let _grant = lab.boot(&mac);
        lab.write(&mac, "running");
        let made = lab.act(&mac, snapshot("live"), When::Now);
        if lab.client(&mac).clone.unwrap().kind == CloneKind::Overlay {
            let why = refused(made);
            assert!(why.contains("cannot share blocks"), "{why}");
            assert_eq!(on_disk(&lab, &mac), 0);
            return;
        }
        made.unwrap();
        assert!(lab.client(&mac).snapshots[0].running);
        assert_eq!(lab.room.sessions().len(), 1, "it goes on");
        lab.write(&mac, "later");
        refused(lab.act(&mac, Act::Restore(kept("live")), When::Now));
        lab.act(&mac, Act::Restore(kept("live")), When::AtNextBoot)
            .unwrap();
        let why = refused(lab.act(&mac, Act::Forget(kept("live")), When::Now));
        assert!(
            why.contains("brought back at the client's next boot"),
            "{why}"
        );
        lab.boot(&mac);
        assert_eq!(lab.read(&mac), "running");
    });
}

/// What is left when the maker is killed: before the copy is done, before it is written down, before it
/// is moved, and before the document is written.
#[test]
fn a_killed_snapshot_is_there_or_not_and_never_half() {
    everywhere(|lab| {
        lab.seal("fc28", "pristine");
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        let home = lab.home().join("clones").join(mac.bare());
        lab.write(&mac, "one");
        let document = lab.home().join(format!("clients/{}.json", mac.bare()));
        let (before, text) = (lab.client(&mac), fs::read(&document).unwrap());
        for begun in [".copy-0123456789abcdef", ".new-0123456789abcdef"] {
            fs::create_dir(home.join(begun)).unwrap();
            fs::write(home.join(begun).join("disk.img"), "half").unwrap();
            assert_eq!(lab.lib.sweep().unwrap(), [Swept::Clone { mac }]);
            assert!(!home.join(begun).exists());
        }
        lab.act(&mac, snapshot("before"), When::Now).unwrap();
        let after = lab.client(&mac);
        let copy = after.snapshots[0].clone.clone();
        let (new, place) = (
            home.join(format!(".new-{}", copy.id)),
            home.join("discarded").join(&copy.id),
        );
        for moved in [false, true] {
            let mut pending = after.clone();
            pending.revision = before.revision;
            let note = serde_json::json!({
                "client": pending,
                "swap": { "out": null, "into": null, "aside": copy },
            });
            let path = lab.home().join(format!("pending/{}.json", mac.bare()));
            fs::write(path, note.to_string()).unwrap();
            fs::write(&document, &text).unwrap();
            if !moved {
                fs::rename(&place, &new).unwrap();
            }
            assert_eq!(lab.lib.sweep().unwrap(), [Swept::Client { mac }]);
            assert_eq!(lab.client(&mac).snapshots, after.snapshots);
            assert_eq!(on_disk(&lab, &mac), 1);
        }
        lab.write(&mac, "two");
        lab.act(&mac, Act::Restore(kept("before")), When::Now)
            .unwrap();
        assert_eq!(lab.read(&mac), "one");
    });
}

#[test]
fn a_disk_grows_and_so_do_those_that_come_after_it() {
    everywhere(|lab| {
        lab.seal("fc28", "pristine");
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        lab.write(&mac, "mine");
        let open = lab.lib.open_clone(&mac).unwrap();
        let size = |lab: &Lab| {
            let geometry = lab.lib.open_clone(&mac).unwrap().geometry();
            geometry.blocks * 512
        };
        assert_eq!(size(&lab), 8 * MIB);
        let plan = lab.lib.plan(&mac, &resize("20M"), When::Now, &lab.room);
        let step = plan.unwrap().steps[0].to_string();
        assert!(
            step.starts_with("make the disk 20M long instead of 8M"),
            "{step}"
        );
        assert_eq!(size(&lab), 8 * MIB, "a plan touches nothing");
        lab.act(&mac, resize("20M"), When::Now).unwrap();
        assert_eq!(size(&lab), 20 * MIB);
        // Whoever has it open finds it when he looks, and writes there.
        assert_eq!(open.refresh().unwrap().blocks * 512, 20 * MIB);
        write(open.as_ref(), 4000, 10).unwrap();
        assert_eq!(lab.read(&mac), "mine");
        for (smaller, why) in [("19M", "has 20M already"), ("65T", "larger than any disk")] {
            let told = refused(lab.act(&mac, resize(smaller), When::Now));
            assert!(told.contains(why), "{told}");
        }
        assert!(
            lab.act(&mac, resize("20M"), When::Now)
                .unwrap()
                .plan
                .steps
                .is_empty()
        );
        lab.act(&mac, Act::Reset, When::Now).unwrap();
        assert_eq!(
            (size(&lab), lab.read(&mac).as_str()),
            (20 * MIB, "pristine")
        );
        assert_eq!(lab.lib.published().unwrap().last().unwrap().size, 20 * MIB);
        set(&lab, &mac, r#"{"size": null}"#);
        lab.act(&mac, Act::Reset, When::Now).unwrap();
        assert_eq!(size(&lab), 8 * MIB);
    });
}

#[test]
fn disks_are_kept_for_as_long_as_it_is_said_and_snapshots_for_ever() {
    everywhere(|lab| {
        lab.seal("fc28", "pristine");
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        lab.act(&mac, snapshot("before"), When::Now).unwrap();
        lab.act(&mac, Act::Reset, When::Now).unwrap();
        lab.act(&mac, Act::Reset, When::Now).unwrap();
        let now = Timestamp::now();
        let after = |hours| {
            lab.lib
                .expire(now + SignedDuration::from_hours(hours))
                .unwrap()
        };
        assert!(after(14 * 24 - 1).is_empty());
        assert_eq!(on_disk(&lab, &mac), 3);
        set(&lab, &mac, r#"{"keep_discarded": "never"}"#);
        assert!(after(24 * 365).is_empty());
        set(&lab, &mac, r#"{"keep_discarded": "12h"}"#);
        // One that is to come back at the next boot stays until then.
        let oldest = lab.client(&mac).discarded[0].clone.id.clone();
        lab.act(&mac, Act::Restore(kept(&oldest)), When::AtNextBoot)
            .unwrap();
        let swept = after(13);
        assert_eq!(swept.len(), 1);
        let told = swept[0].told();
        assert!(
            told.contains("its time was over") && !told.contains("interrupted"),
            "{told}"
        );
        assert_eq!(lab.client(&mac).discarded[0].clone.id, oldest);
        lab.act(&mac, Act::Undo, When::Now).unwrap();
        assert_eq!(after(13).len(), 1);
        assert!(after(13).is_empty());
        let client = lab.client(&mac);
        assert!(client.discarded.is_empty());
        assert_eq!((client.snapshots.len(), on_disk(&lab, &mac)), (1, 1));
        let why = refused(lab.act(&mac, Act::Undo, When::Now));
        assert!(why.contains("is not kept any more"), "{why}");
    });
}

#[test]
fn what_is_to_come_back_is_neither_forgotten_nor_does_it_expire() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    lab.write(&mac, "mine");
    lab.act(&mac, Act::Reset, When::Now).unwrap();
    lab.act(&mac, Act::Undo, When::AtNextBoot).unwrap();
    let disk = lab.client(&mac).discarded[0].clone.id.clone();
    let later = Timestamp::now() + SignedDuration::from_hours(15 * 24);
    assert!(lab.lib.expire(later).unwrap().is_empty());
    let why = refused(lab.act(&mac, Act::Forget(kept(&disk)), When::Now));
    assert!(why.contains("at the client's next boot"), "{why}");
    lab.boot(&mac);
    assert_eq!(lab.read(&mac), "mine");
}

#[test]
fn a_killed_expiry_leaves_no_disk_that_nobody_knows() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    lab.act(&mac, Act::Reset, When::Now).unwrap();
    let document = lab.home().join(format!("clients/{}.json", mac.bare()));
    let text = fs::read(&document).unwrap();
    for written in [false, true] {
        fs::write(&document, &text).unwrap();
        fs::create_dir_all(
            lab.home()
                .join(format!("clones/{}/discarded/0000", mac.bare())),
        )
        .unwrap();
        let mut client = lab.client(&mac);
        client.discarded.clear();
        let note = serde_json::json!({ "client": client, "swap": { "out": null, "into": null, "prunes": true } });
        let path = lab.home().join(format!("pending/{}.json", mac.bare()));
        fs::write(path, note.to_string()).unwrap();
        if written {
            client.revision += 1;
            fs::write(&document, serde_json::to_vec(&client).unwrap()).unwrap();
        }
        assert_eq!(lab.lib.sweep().unwrap(), [Swept::Client { mac }]);
        assert!(lab.client(&mac).discarded.is_empty());
        assert_eq!(on_disk(&lab, &mac), 0);
    }
}

#[test]
fn a_client_at_its_quota_is_full_and_goes_on_with_more() {
    everywhere(|lab| {
        lab.seal("fc28", "pristine");
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        // What the file system itself needs for so many pieces is little beside them.
        set(&lab, &mac, r#"{"quota": "1M"}"#);
        let grant = lab.boot(&mac);
        let disks = lab.lib.open_granted(&grant).unwrap();
        let (disk, quota) = (disks[0].disk.as_ref(), disks[0].quota.as_ref().unwrap());
        write(disk, 0, 128).unwrap();
        write(disk, 1000, 96).unwrap();
        let full = |piece| matches!(write(disk, piece, 64), Err(block::Error::OutOfSpace));
        assert!(full(500) && quota.is_full());
        // What it holds it may write again, read and give back.
        for _ in 0..3 {
            write(disk, 0, 128).unwrap();
        }
        assert!(full(500));
        let view = lab.lib.close_view(lab.client(&mac), &lab.room).unwrap();
        let held = view.held_to.unwrap();
        let bytes = held.held.unwrap();
        assert!((896 << 10..=1 << 20).contains(&bytes), "{bytes}");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _entered = runtime.enter();
        let extent = disk.geometry().extent(1000 * 8, 96 * 8).unwrap();
        runtime.block_on(async { disk.unmap(extent).wait().await.unwrap() });
        write(disk, 500, 64).unwrap();
        assert!(!quota.is_full());
        write(disk, 700, 32).unwrap();
        assert!(full(1200));
        quota.set(Some(2 * MIB));
        write(disk, 1200, 64).unwrap();
        quota.set(None);
        write(disk, 1400, 400).unwrap();
    });
}

#[test]
fn one_of_a_group_has_no_quota_and_no_data_disk_where_the_others_have() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let (one, other) = ("52:54:00:12:34:56", "52:54:00:12:34:57");
    let [one, other] = [one, other].map(|mac| lab.add(mac, "fc28", Mode::Persistent));
    let joins: Edit = serde_json::from_str(r#"{"groups": ["lab"]}"#).unwrap();
    for mac in [&one, &other] {
        let joined = lab
            .lib
            .edit_client(mac, &joins, &lab.room, &Actor::command());
        joined.unwrap();
    }
    let says = serde_json::from_str(r#"{"settings": {"quota": "1M", "data": "1M"}}"#).unwrap();
    let group = "lab".parse().unwrap();
    lab.lib
        .edit_group(&group, &says, &Actor::command())
        .unwrap();
    let has = |mac: &MacAddr| {
        let script = lab.script(mac);
        let mut told = script.args.iter().map(KernelArg::as_str);
        let is_told = told.any(|arg| arg.starts_with("netroot.data="));
        let grant = lab.enter(&script).unwrap();
        let disks = lab.lib.open_granted(&grant).unwrap();
        let limit = disks[0].quota.as_ref().unwrap().limit();
        lab.leave(&grant);
        (limit, disks.len(), is_told)
    };
    set(&lab, &one, r#"{"quota": "none", "data": "none"}"#);
    assert_eq!(has(&one), (None, 1, false));
    assert_eq!(has(&other), (Some(MIB), 2, true));
    let view = lab.lib.close_view(lab.client(&one), &lab.room).unwrap();
    assert_eq!((view.held_to, view.data), (None, None));
    // It is kept as it was said, and the group's word is one word away.
    let kept = lab.home().join(format!("clients/{}.json", one.bare()));
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(kept).unwrap()).unwrap();
    let said = serde_json::json!({"quota": "none", "data": "none"});
    assert_eq!(kept["settings"], said);
    set(&lab, &one, r#"{"quota": null, "data": null}"#);
    assert_eq!(has(&one), (Some(MIB), 2, true));
}

/// What was written seconds ago lies beside its place as long as the file system likes.
#[test]
fn what_a_full_client_has_just_written_it_may_write_again() {
    on_xfs(|lab| {
        let text = "x".repeat(8 << 20);
        lab.seal("fc28", &text);
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        set(&lab, &mac, r#"{"quota": "1M"}"#);
        let grant = lab.boot(&mac);
        let disks = lab.lib.open_granted(&grant).unwrap();
        let disk = disks[0].disk.as_ref();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _entered = runtime.enter();
        let write = |piece: u64, pieces: u64| {
            let extent = disk.geometry().extent(piece * 8, pieces * 8).unwrap();
            let data = vec![vec![7; extent.len() as usize].into()];
            runtime.block_on(disk.write(extent, data).wait())
        };
        for round in 0..4 {
            for at in 0..8 {
                let written = write(at * 32, 32);
                assert!(written.is_ok(), "round {round}, {at}: {written:?}");
            }
        }
        assert!(matches!(write(1000, 64), Err(block::Error::OutOfSpace)));
        assert!(write(0, 256).is_ok(), "nothing of it is new");
    });
}

/// A snapshot shares what the client wrote; that still counts as the client's.
#[test]
fn what_a_snapshot_shares_still_counts() {
    on_xfs(|lab| {
        lab.seal("fc28", "pristine");
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        let disk = lab.lib.open_clone(&mac).unwrap();
        write(disk.as_ref(), 0, 256).unwrap();
        assert_eq!(lab.lib.own_bytes(&mac).unwrap(), Some(MIB));
        lab.act(&mac, snapshot("before"), When::Now).unwrap();
        assert_eq!(lab.lib.own_bytes(&mac).unwrap(), Some(MIB));
        let usage = lab.lib.clone_usage(&mac).unwrap().unwrap();
        assert!(usage.exclusive.unwrap() < MIB / 2, "{usage:?}");
        write(disk.as_ref(), 128, 256).unwrap();
        assert_eq!(lab.lib.own_bytes(&mac).unwrap(), Some(MIB + MIB / 2));
    });
}

#[test]
fn a_data_disk_stays_whatever_becomes_of_the_root() {
    everywhere(|lab| {
        lab.seal("fc28", "pristine");
        lab.seal("fc29", "next");
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        assert_eq!(lab.lib.data_disk(&lab.client(&mac)).unwrap(), None);
        let client = set(&lab, &mac, r#"{"data": "16M"}"#);
        let told = |ticket: &BootTicket| {
            let last = ticket.args.last();
            last.map(|arg| arg.to_string()).unwrap_or_default()
        };
        let own = "iqn.2026-01.edu.example.server-01:client-525400123456";
        assert_eq!(told(&lab.script(&mac)), format!("netroot.data={own},2"));
        let file = lab.home().join("clones/525400123456/data.img");
        assert!(!file.exists() && lab.lib.data_disk(&client).unwrap().unwrap().published);

        let mut identity = None;
        let check = |grant: &Grant, text: &str, identity: &mut Option<String>| {
            let disks = lab.lib.open_granted(grant).unwrap();
            let data = disks.iter().find(|one| one.lun == 2).unwrap();
            assert_eq!(data.disk.geometry().blocks * 512, 16 * MIB);
            assert_eq!(
                identity.get_or_insert(data.identity.clone()),
                &data.identity
            );
            assert_eq!(lab.text_of(data.disk.as_ref()), text);
            disks.len()
        };
        let grant = lab.boot(&mac);
        assert_eq!(check(&grant, "", &mut identity), 2);
        assert!(fs::metadata(&file).unwrap().blocks() < 64, "it is sparse");
        let text = [b"mine".to_vec(), vec![0; 508]].concat();
        std::os::unix::fs::FileExt::write_all_at(
            &fs::File::options().write(true).open(&file).unwrap(),
            &text,
            0,
        )
        .unwrap();
        lab.leave(&grant);
        lab.act(&mac, Act::Reset, When::Now).unwrap();
        let grant = lab.boot(&mac);
        assert_eq!(check(&grant, "mine", &mut identity), 2);
        lab.leave(&grant);
        let shared = assign(Some("fc29"), Some(Mode::Shared));
        lab.act(&mac, shared, When::Now).unwrap();

        // The version's target is everybody's, so the data disk has the client's own.
        let ticket = lab.script(&mac);
        let early = forbidden(lab.login(&ticket.initiator, own));
        assert!(early.contains("begins with its root"), "{early}");
        let root = lab.enter(&ticket).unwrap();
        assert_eq!(
            lab.visible(&ticket.initiator),
            [ticket.target.as_str(), own]
        );
        let data = lab.login(&ticket.initiator, own).unwrap();
        assert_eq!(check(&data, "mine", &mut identity), 1);
        lab.leave(&root);
        assert_eq!(lab.client(&mac).boot.unwrap().state, BootState::Up);
        lab.leave(&data);
        let other = lab.add("52:54:00:00:00:02", "fc28", Mode::Shared);
        let stranger = lab.script(&other);
        lab.enter(&stranger).unwrap();
        forbidden(lab.login(&stranger.initiator, own));

        // It only grows, and stays where nobody asks for it any more.
        set(&lab, &mac, r#"{"data": "32M"}"#);
        assert_eq!(fs::metadata(&file).unwrap().len(), 32 * MIB);
        set(&lab, &mac, r#"{"data": "1M"}"#);
        assert_eq!(fs::metadata(&file).unwrap().len(), 32 * MIB);
        let client = set(&lab, &mac, r#"{"data": null}"#);
        let resting = lab.lib.data_disk(&client).unwrap().unwrap();
        assert_eq!((resting.published, resting.size), (false, 32 * MIB));
        assert!(!told(&lab.script(&mac)).contains("netroot.data"));
        assert!(file.exists());
        remove(&lab, &mac, true);
        assert!(!file.exists());
    });
}

#[test]
fn nobody_is_kept_from_booting_by_a_data_disk() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    for what in ["data", "size"] {
        let edit = format!(r#"{{"settings": {{"{what}": "9999P"}}}}"#);
        let edit: Edit = serde_json::from_str(&edit).unwrap();
        let edited = lab
            .lib
            .edit_client(&mac, &edit, &lab.room, &Actor::command());
        assert!(refused(edited).contains("larger than any disk"));
    }
    assert_eq!(lab.client(&mac).settings, Settings::default());
    // Whoever has it from before, or where the storage is broken.
    let document = lab.home().join(format!("clients/{}.json", mac.bare()));
    let mut client = lab.client(&mac);
    client.settings.data = Some("9999P".parse().unwrap());
    fs::write(&document, serde_json::to_vec(&client).unwrap()).unwrap();
    let grant = lab.boot(&mac);
    let disks = lab.lib.open_granted(&grant).unwrap();
    assert_eq!(lab.text_of(disks[0].disk.as_ref()), "pristine");
    lab.leave(&grant);
    // That it can be opened as it was does not make it what it should be.
    let data = lab.lib.data_disk(&lab.client(&mac)).unwrap();
    assert!(data.unwrap().trouble.is_some());
    fs::remove_file(lab.home().join("clones/525400123456/data.img")).unwrap();
    fs::create_dir(lab.home().join("clones/525400123456/data.img")).unwrap();
    let grant = lab.boot(&mac);
    let disks = lab.lib.open_granted(&grant).unwrap();
    assert_eq!((disks.len(), disks[0].lun), (1, 1));
    lab.leave(&grant);
    // Whoever looks at the client is told, and for every look at it there is no event.
    let trouble = || {
        let data = lab.lib.data_disk(&lab.client(&mac)).unwrap();
        data.unwrap().trouble
    };
    let why = trouble().unwrap();
    assert!(why.contains("data.img"), "{why}");
    let events = lab.lib.events(&Filter::default()).unwrap().events;
    let told = events
        .iter()
        .filter(|one| one.event.what == "data-disk-failed");
    assert_eq!(told.count(), 1);
    fs::remove_dir(lab.home().join("clones/525400123456/data.img")).unwrap();
    let mut client = lab.client(&mac);
    client.settings.data = Some("1M".parse().unwrap());
    fs::write(&document, serde_json::to_vec(&client).unwrap()).unwrap();
    let grant = lab.boot(&mac);
    // Where none is asked for any more there is no trouble, although there is a file.
    client = lab.client(&mac);
    client.settings.data = None;
    let data = lab.lib.data_disk(&client).unwrap().unwrap();
    assert_eq!((data.published, data.trouble), (false, None));
    // The device of another session is opened no second time: the disk is not there yet.
    assert!(trouble().is_some());
    assert_eq!(lab.lib.open_granted(&grant).unwrap().len(), 2);
    assert_eq!(trouble(), None);
}

fn remove(lab: &Lab, mac: &MacAddr, purge: bool) -> Plan {
    let how = Removing {
        when: When::Force,
        purge,
    };
    let done = lab
        .lib
        .remove_client(mac, how, &lab.room, &Actor::command());
    done.unwrap().plan
}

#[test]
fn a_client_that_comes_back_finds_its_disks() {
    everywhere(|lab| {
        lab.seal("fc28", "pristine");
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        set(&lab, &mac, r#"{"data": "1M"}"#);
        lab.act(&mac, snapshot("before"), When::Now).unwrap();
        let grant = lab.boot(&mac);
        lab.write(&mac, "mine");
        let lost = remove(&lab, &mac, false).loses.unwrap();
        assert!(lost.contains("its disks are kept until"), "{lost}");
        assert!(lab.room.sessions().is_empty(), "its boot was cut off");
        assert!(lab.lib.open_granted(&grant).is_err());
        let gone = lab
            .lib
            .remove_image(&"fc28".parse().unwrap(), &lab.room, &Actor::command());
        let why = refused(gone);
        assert!(why.contains("has a discarded clone of it"), "{why}");

        let again = lab.try_add(MAC, "fc28", Mode::Persistent).unwrap();
        let told: Vec<String> = again.plan.steps.iter().map(Step::to_string).collect();
        assert!(
            told.iter().any(|step| step.contains("give it back")),
            "{told:?}"
        );
        assert_eq!(lab.read(&mac), "pristine");
        let client = lab.client(&mac);
        assert_eq!((client.discarded.len(), client.snapshots.len()), (1, 1));
        assert!(lab.lib.data_disk(&client).unwrap().is_some());
        let disk = client.discarded[0].clone.id.clone();
        lab.act(&mac, Act::Restore(kept(&disk)), When::Now).unwrap();
        assert_eq!(lab.read(&mac), "mine");

        // After a while there is nothing to come back to.
        remove(&lab, &mac, false);
        let later = Timestamp::now() + SignedDuration::from_hours(14 * 24);
        let swept = lab.lib.expire(later).unwrap();
        assert!(matches!(swept[..], [Swept::Removed { .. }]), "{swept:?}");
        assert!(!lab.home().join("clones").join(mac.bare()).exists());
        lab.lib
            .remove_image(&"fc28".parse().unwrap(), &lab.room, &Actor::command())
            .unwrap();
    });
}

#[test]
fn an_ephemeral_client_that_goes_leaves_nothing() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let before = lab.snapshot();
    let mac = lab.add(MAC, "fc28", Mode::Ephemeral);
    let lost = remove(&lab, &mac, false).loses.unwrap();
    assert!(!lost.contains("kept until"), "{lost}");
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn an_image_that_goes_by_force_takes_nothing_else_from_who_is_gone() {
    everywhere(|lab| {
        lab.seal("fc28", "pristine");
        lab.seal("fc29", "next");
        let gone = lab.add(MAC, "fc28", Mode::Persistent);
        lab.act(&gone, snapshot("before"), When::Now).unwrap();
        let to = assign(Some("fc29"), None);
        lab.act(&gone, to.clone(), When::Now).unwrap();
        lab.act(&gone, snapshot("after"), When::Now).unwrap();
        remove(&lab, &gone, false);
        // Of another one nothing but its data disk is left.
        let other = lab.add("52:54:00:00:00:02", "fc28", Mode::Persistent);
        set(&lab, &other, r#"{"data": "1M"}"#);
        let root = lab.boot(&other);
        lab.leave(&root);
        remove(&lab, &other, false);
        // And one waits for what goes.
        let waits = lab.add("52:54:00:00:00:03", "fc28", Mode::Persistent);
        lab.act(&waits, to, When::Now).unwrap();
        lab.act(&waits, Act::Undo, When::AtNextBoot).unwrap();

        let image = "fc28".parse().unwrap();
        lab.lib
            .remove(&image, When::Force, &lab.room, &Actor::command())
            .unwrap();
        lab.try_add(MAC, "fc29", Mode::Shared).unwrap();
        let client = lab.client(&gone);
        let left = |client: &Client| {
            let snapshots = client
                .snapshots
                .iter()
                .map(|one| one.clone.from.to_string());
            let kept = client
                .discarded
                .iter()
                .map(|one| one.clone.from.to_string());
            snapshots.chain(kept).collect::<Vec<_>>()
        };
        assert_eq!(left(&client), ["fc29@1", "fc29@1"]);
        assert_eq!(on_disk(&lab, &gone), 2);
        let data = lab.home().join("clones/525400000002/data.img");
        assert!(data.exists());
        let client = lab.client(&waits);
        assert!(client.armed.is_none() && client.discarded.is_empty());
        lab.boot(&waits);
    });
}

/// Whoever adds a client again may be killed before it is crossed out that it was removed.
#[test]
fn a_client_that_is_there_again_is_not_gone() {
    let lab = Lab::new();
    lab.seal("fc28", "pristine");
    let mac = lab.add(MAC, "fc28", Mode::Persistent);
    remove(&lab, &mac, false);
    let place = lab.home().join(format!("removed/{}.json", mac.bare()));
    let text = fs::read(&place).unwrap();
    lab.add(MAC, "fc28", Mode::Persistent);
    lab.write(&mac, "mine");
    fs::write(&place, text).unwrap();
    let later = Timestamp::now() + SignedDuration::from_hours(365 * 24);
    lab.lib.expire(later).unwrap();
    assert!(!place.exists());
    assert_eq!(lab.read(&mac), "mine");
}

#[test]
fn temporary_files_are_swept_wherever_documents_are() {
    let lab = Lab::new();
    for dir in ["groups", "rollouts", "removed", "trials", "clients"] {
        let dir = lab.home().join(dir);
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join(".tmp-one.json");
        fs::write(&file, "half").unwrap();
        lab.lib.sweep().unwrap();
        assert!(!file.exists(), "{}", file.display());
    }
}

/// From wherever a removal was cut off that keeps the disks.
#[test]
fn a_killed_removal_keeps_what_it_was_to_keep() {
    everywhere(|lab| {
        lab.seal("fc28", "pristine");
        let mac = lab.add(MAC, "fc28", Mode::Persistent);
        lab.write(&mac, "mine");
        let mut client = lab.client(&mac);
        let out = client.clone.take().unwrap();
        let now = Timestamp::now();
        client.discarded.push(Discarded {
            clone: out.clone(),
            assignment: client.assignment(),
            at: now,
        });
        let note = serde_json::json!({
            "client": client, "swap": { "out": out, "into": null }, "removed": true, "kept": now,
        });
        let path = lab.home().join(format!("pending/{}.json", mac.bare()));
        for _ in 0..2 {
            // The second time everything is done already but crossing it out.
            fs::write(&path, note.to_string()).unwrap();
            assert_eq!(lab.lib.sweep().unwrap(), [Swept::Client { mac }]);
            assert!(lab.lib.clients().unwrap().is_empty());
            assert_eq!(on_disk(&lab, &mac), 1);
        }
        lab.add(MAC, "fc28", Mode::Persistent);
        let disk = lab.client(&mac).discarded[0].clone.id.clone();
        lab.act(&mac, Act::Restore(kept(&disk)), When::Now).unwrap();
        assert_eq!(lab.read(&mac), "mine");
    });
}
