//! What versions and clones take, and what of that is their own.

use std::os::unix::fs::FileExt;

use netroot::library::*;

use crate::lab::{Lab, MIB, on_xfs};

/// Seals `fc28@1` with 3 MiB of data.
fn seal_full(lab: &Lab) -> VersionId {
    let mut draft = lab.lib.draft(&"fc28".parse().unwrap()).unwrap();
    draft.create_sparse(16 * MIB).unwrap();
    let disk = std::fs::OpenOptions::new()
        .write(true)
        .open(draft.disk_path())
        .unwrap();
    disk.write_all_at(&vec![7; 3 * MIB as usize], MIB).unwrap();
    draft.add_kernel(&mut &b"k"[..]).unwrap();
    draft.add_initramfs(&mut &b"i"[..]).unwrap();
    let version = draft.seal(VersionFacts::default(), &Quiet).unwrap();
    version.id().clone()
}

/// Seals a copy of `parent` in which the first MiB of data is other data.
fn seal_copy(lab: &Lab, parent: &VersionId) -> VersionId {
    let source = lab.lib.version(parent).unwrap();
    let mut draft = lab.lib.draft(&"fc29".parse().unwrap()).unwrap();
    draft.copy_from(&source, &Quiet).unwrap();
    let disk = std::fs::OpenOptions::new()
        .write(true)
        .open(draft.disk_path())
        .unwrap();
    disk.write_all_at(&vec![8; MIB as usize], MIB).unwrap();
    draft.add_kernel(&mut &b"k"[..]).unwrap();
    draft.add_initramfs(&mut &b"i"[..]).unwrap();
    let facts = VersionFacts {
        parent: Some(parent.clone()),
        ..VersionFacts::default()
    };
    draft.seal(facts, &Quiet).unwrap().id().clone()
}

#[test]
fn what_two_versions_share_is_nobodys_own() {
    on_xfs(|lab| {
        let parent = seal_full(&lab);
        let alone = lab.lib.usage(&parent).unwrap();
        assert!(alone.allocated >= 3 * MIB, "{alone:?}");
        assert_eq!(alone.exclusive, Some(alone.allocated));
        assert_eq!(alone.shared(), Some(0));
        let child = seal_copy(&lab, &parent);
        for version in [&parent, &child] {
            let usage = lab.lib.usage(version).unwrap();
            assert_eq!(usage.shared(), Some(2 * MIB), "{version}: {usage:?}");
            let own = usage.exclusive.unwrap();
            // One MiB of the disk, the files beside it, and what the file system needs for them.
            assert!((MIB..MIB + MIB / 2).contains(&own), "{version}: {usage:?}");
        }
        // What its brother gave up is all its own again.
        let nobody = &lab.room;
        lab.lib
            .remove_image(&"fc29".parse().unwrap(), nobody, &Actor::command())
            .unwrap();
        let began = std::time::Instant::now();
        // XFS frees the blocks of removed files a little later.
        while lab.lib.usage(&parent).unwrap().shared() != Some(0) {
            assert!(began.elapsed().as_secs() < 20, "it is still shared");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    });
}

#[test]
fn a_clone_owns_what_its_client_wrote() {
    on_xfs(|lab| {
        seal_full(&lab);
        let mac = lab.add("52:54:00:00:00:01", "fc28", Mode::Persistent);
        let fresh = lab.lib.clone_usage(&mac).unwrap().unwrap();
        assert_eq!(fresh.exclusive, Some(0), "{fresh:?}");
        assert!(fresh.allocated >= 3 * MIB);
        lab.write(&mac, "mine");
        let written = lab.lib.clone_usage(&mac).unwrap().unwrap();
        assert!(
            (1..=MIB).contains(&written.exclusive.unwrap()),
            "{written:?}"
        );
        let shared = lab.add("52:54:00:00:00:02", "fc28", Mode::Shared);
        assert_eq!(lab.lib.clone_usage(&shared).unwrap(), None);
    });
}
