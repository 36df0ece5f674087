//! Versions that boot from their own disk: there is neither kernel nor initramfs beside it.

use netroot::library::manifest::{BootFrom, TableFacts, TableKind};
use netroot::library::{Actor, Done, Edit, Mode, Proof, Quiet, VersionFacts, Way, When};

use crate::lab::{Lab, MIB, assign, forbidden, refused};

pub(crate) fn table() -> TableFacts {
    TableFacts {
        kind: TableKind::Mbr,
        partitions: 1,
        bios: true,
        efi: false,
    }
}

#[test]
fn a_disk_that_boots_itself_is_sealed_alone_and_verified() {
    let lab = Lab::new();
    let mut draft = lab.lib.draft(&"win".parse().unwrap()).unwrap();
    draft.create_sparse(MIB).unwrap();
    draft.boots_itself(table());
    let version = draft.seal(VersionFacts::default(), &Quiet).unwrap();
    assert_eq!(version.manifest().boot, BootFrom::Disk(table()));
    let mut names: Vec<_> = std::fs::read_dir(lab.home().join("images/win/1"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["disk.img", "manifest.json"]);
    for name in ["vmlinuz", "vmlinuz-", "initramfs.img", "initramfs-.img"] {
        assert_eq!(version.boot_file(name), None);
    }
    lab.lib.verify(version.id(), &Quiet).unwrap();
}

#[test]
fn a_draft_has_a_kernel_or_a_disk_that_boots_itself() {
    let lab = Lab::new();
    let mut draft = lab.lib.draft(&"win".parse().unwrap()).unwrap();
    draft.create_sparse(MIB).unwrap();
    draft.boots_itself(table());
    draft.add_kernel(&mut &b"a kernel"[..]).unwrap();
    refused(draft.seal(VersionFacts::default(), &Quiet));
    assert!(!lab.home().join("images/win").exists());
}

#[test]
fn whoever_gives_it_to_a_client_without_a_disk_is_warned() {
    let lab = Lab::new();
    let mut draft = lab.lib.draft(&"win".parse().unwrap()).unwrap();
    draft.create_sparse(MIB).unwrap();
    draft.boots_itself(table());
    draft.seal(VersionFacts::default(), &Quiet).unwrap();
    let warned = |done: Done| done.plan.warnings.join("\n");
    let shared = lab.try_add("52:54:00:00:00:01", "win", Mode::Shared);
    let shared = shared.unwrap();
    let mac = shared.plan.mac;
    assert!(warned(shared).contains("win@1 boots from its own disk"));
    let persistent = lab.try_add("52:54:00:00:00:02", "win", Mode::Persistent);
    assert_eq!(warned(persistent.unwrap()), "");
    let changed = lab.act(&mac, assign(None, Some(Mode::Ephemeral)), When::Now);
    assert_eq!(warned(changed.unwrap()), "");
    let back = lab.act(&mac, assign(None, Some(Mode::Shared)), When::Now);
    assert!(warned(back.unwrap()).contains("read-only in mode shared"));
}

#[test]
fn it_proves_itself_by_the_firmwares_table_whatever_the_way_unless_it_is_told_not_to() {
    let lab = Lab::new();
    let mut draft = lab.lib.draft(&"win".parse().unwrap()).unwrap();
    draft.create_sparse(MIB).unwrap();
    draft.boots_itself(table());
    draft.seal(VersionFacts::default(), &Quiet).unwrap();
    lab.seal("fc28", "pristine");
    let mac = lab.add("52:54:00:00:00:01", "win", Mode::Persistent);
    let says = |settings: serde_json::Value| {
        let edit = Edit {
            settings: serde_json::from_value(settings).unwrap(),
            ..Edit::default()
        };
        let actor = Actor::command();
        lab.lib.edit_client(&mac, &edit, &lab.room, &actor).unwrap();
    };
    let how = || {
        let ticket = lab.script(&mac);
        let owed = lab.lib.secrets_of_initiator(&ticket.initiator).unwrap();
        assert_eq!(owed.chap.is_some(), ticket.proof != Proof::None);
        (ticket.way, ticket.proof)
    };
    for way in ["http", "esp", "ibft"] {
        says(serde_json::json!({ "way": way }));
        assert_eq!(how(), (Way::Ibft, Proof::Chap), "{way}");
    }
    let proving = lab.script(&mac);
    says(serde_json::json!({ "way": null, "chap": "off", "mutual": "on" }));
    assert_eq!(how(), (Way::Ibft, Proof::None));
    assert!(forbidden(lab.enter(&proving)).contains("settings for CHAP"));
    let open = lab.script(&mac);
    says(serde_json::json!({ "chap": null }));
    assert!(forbidden(lab.enter(&open)).contains("settings for CHAP"));
    assert_eq!(how(), (Way::Ibft, Proof::Mutual));
    lab.enter(&lab.script(&mac)).unwrap();
    // It is a matter of the disk: another one of the same client boots as ever.
    lab.act(&mac, assign(Some("fc28"), None), When::Force)
        .unwrap();
    assert_eq!(how(), (Way::Http, Proof::None));
}
