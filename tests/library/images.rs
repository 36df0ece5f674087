//! Versions: sealed once, never written, never half there.

use std::os::unix::fs::{FileExt, PermissionsExt};

use netroot::library::*;

use crate::lab::{Lab, MIB, assign, refused};

fn id(text: &str) -> VersionId {
    text.parse().unwrap()
}

#[test]
fn a_draft_is_invisible_until_it_is_sealed_and_gone_if_it_is_not() {
    let lab = Lab::new();
    let before = lab.snapshot();
    let draft = lab.lib.draft(&"fc28".parse().unwrap()).unwrap();
    draft.create_sparse(MIB).unwrap();
    assert!(lab.lib.images().unwrap().is_empty());
    assert!(lab.lib.sweep().unwrap().is_empty(), "its maker is alive");
    assert!(draft.disk_path().exists());
    drop(draft);
    assert_eq!(lab.snapshot(), before);
}

#[test]
fn a_sealed_version_is_whole_read_only_and_current() {
    let lab = Lab::new();
    assert_eq!(lab.seal("fc28", "first"), id("fc28@1"));
    assert_eq!(lab.seal("fc28", "second"), id("fc28@2"));
    let image = lab.lib.image(&"fc28".parse().unwrap()).unwrap();
    assert_eq!((image.current, image.versions), (Some(2), vec![1, 2]));
    let version = lab.lib.version(&id("fc28@2")).unwrap();
    // There is a `shadow` in the disk: what is not for everybody inside is not for everybody here.
    for (path, expected) in [
        (version.disk_path(), 0o440),
        (version.kernel_path(), 0o444),
        (version.initramfs_path(), 0o440),
    ] {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, expected, "{}", path.display());
    }
    let mut names: Vec<_> = std::fs::read_dir(lab.home().join("images/fc28/2"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["disk.img", "initramfs.img", "manifest.json", "vmlinuz"]
    );
    assert_eq!(version.manifest().disk.size, 8 * MIB);
    assert_eq!(
        version.boot_file("vmlinuz-6.1.0"),
        Some(version.kernel_path())
    );
    assert_eq!(
        version.boot_file("initramfs-6.1.0.img"),
        Some(version.initramfs_path())
    );
    assert_eq!(version.boot_file("manifest.json"), None);
    assert_eq!(
        lab.lib.resolve(&"fc28".parse().unwrap()).unwrap().id(),
        &id("fc28@2")
    );
    lab.lib
        .set_current(&id("fc28@1"), &Actor::command())
        .unwrap();
    assert_eq!(
        lab.lib.resolve(&"fc28".parse().unwrap()).unwrap().id(),
        &id("fc28@1")
    );
}

#[test]
fn a_draft_without_kernel_is_not_sealed() {
    let lab = Lab::new();
    let draft = lab.lib.draft(&"fc28".parse().unwrap()).unwrap();
    draft.create_sparse(MIB).unwrap();
    refused(draft.seal(VersionFacts::default(), &Quiet));
    assert!(!lab.home().join("images/fc28").exists());
}

#[test]
fn an_interrupted_seal_publishes_nothing() {
    struct Impatient;
    impl Progress for Impatient {
        fn step(&self, _: &str, _: Option<u64>) {}
        fn advance(&self, _: u64) {}
        fn cancelled(&self) -> bool {
            true
        }
    }
    let lab = Lab::new();
    let mut draft = lab.lib.draft(&"fc28".parse().unwrap()).unwrap();
    draft.create_sparse(MIB).unwrap();
    draft.add_kernel(&mut &b"k"[..]).unwrap();
    draft.add_initramfs(&mut &b"i"[..]).unwrap();
    let sealed = draft.seal(VersionFacts::default(), &Impatient);
    assert!(matches!(sealed, Err(Error::Cancelled)));
    assert!(!lab.home().join("images/fc28").exists());
}

#[test]
fn verify_finds_one_changed_byte_and_says_where() {
    let lab = Lab::new();
    let version = lab.seal("fc28", "pristine");
    lab.lib.verify(&version, &Quiet).unwrap();
    let found = lab.lib.version(&version).unwrap();
    let damage = |path: &std::path::Path, at: u64| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        let error = lab.lib.verify(&version, &Quiet).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        file.write_all_at(&byte, at).unwrap();
        error.to_string()
    };
    let where_ = damage(&found.disk_path(), 5 * MIB);
    assert!(where_.contains("byte 4194304"), "{where_}");
    assert!(damage(&found.kernel_path(), 0).contains("vmlinuz"));
    assert!(damage(&found.initramfs_path(), 0).contains("initramfs.img"));
    lab.lib.verify(&version, &Quiet).unwrap();
}

#[test]
fn a_copy_shares_or_is_sparse_and_leaves_its_source_alone() {
    crate::lab::everywhere(|lab| {
        let version = lab.seal("fc28", "pristine");
        let source = lab.lib.version(&version).unwrap();
        let mut draft = lab.lib.draft(&"fc29".parse().unwrap()).unwrap();
        draft.copy_from(&source, &Quiet).unwrap();
        let disk = std::fs::OpenOptions::new()
            .write(true)
            .open(draft.disk_path())
            .unwrap();
        disk.write_all_at(b"upgraded", 0).unwrap();
        draft.add_kernel(&mut &b"k"[..]).unwrap();
        draft.add_initramfs(&mut &b"i"[..]).unwrap();
        let facts = VersionFacts {
            parent: Some(version.clone()),
            ..VersionFacts::default()
        };
        let sealed = draft.seal(facts, &Quiet).unwrap();
        assert_eq!(sealed.manifest().facts.parent, Some(version.clone()));
        assert!(
            sealed.manifest().disk.allocated < 6 * MIB,
            "holes stay holes"
        );
        let disk = lab.lib.open_version(sealed.id()).unwrap();
        assert_eq!(lab.text_of(disk.as_ref()), "upgraded");
        lab.lib.verify(&version, &Quiet).unwrap();
    });
}

#[test]
fn what_somebody_uses_is_not_removed() {
    let lab = Lab::new();
    let actor = Actor::command();
    for text in ["one", "two", "three", "four"] {
        lab.seal("fc28", text);
    }
    let assigned = lab.add("52:54:00:00:00:01", "fc28@1", Mode::Shared);
    let cloned = lab.add("52:54:00:00:00:02", "fc28@2", Mode::Persistent);
    let refuse = |version: &str, why: &str| {
        let text = refused(lab.lib.remove_version(&id(version), &lab.room, &actor));
        assert!(text.contains(why), "{text}");
    };
    refuse("fc28@1", "client-525400000001 is assigned");
    refuse("fc28@2", "has a clone of it");
    refuse("fc28@4", "current version");
    let all = refused(
        lab.lib
            .remove_image(&"fc28".parse().unwrap(), &lab.room, &actor),
    );
    assert!(all.contains("client"), "{all}");
    // Running, and kept for undo.
    lab.boot(&assigned);
    lab.act(&assigned, assign(Some("fc28@3"), None), When::Now)
        .unwrap();
    refuse("fc28@1", "runs it");
    lab.act(&cloned, assign(Some("fc28@3"), None), When::Now)
        .unwrap();
    refuse("fc28@2", "discarded clone");
    let reader = lab
        .login(
            "iqn.2000-01.org.example:x",
            &format!("{}:fc28.1", lab.lib.config().iqn_prefix),
        )
        .unwrap();
    refuse("fc28@1", "has it open");
    lab.leave(&reader);
    assert_eq!(
        lab.lib.image(&"fc28".parse().unwrap()).unwrap().versions,
        [1, 2, 3, 4]
    );
}

#[test]
fn the_number_of_a_removed_version_never_means_another_one() {
    let lab = Lab::new();
    let actor = Actor::command();
    lab.seal("fc28", "one");
    lab.seal("fc28", "two");
    lab.lib.set_current(&id("fc28@1"), &actor).unwrap();
    let missing = lab.lib.resolve(&"fc28@9".parse().unwrap()).unwrap_err();
    assert_eq!(missing.to_string(), "fc28 has no version 9, only 1 and 2");
    lab.lib
        .remove_version(&id("fc28@2"), &lab.room, &actor)
        .unwrap();
    assert!(matches!(
        lab.lib.version(&id("fc28@2")),
        Err(Error::NoVersion { .. })
    ));
    assert_eq!(lab.seal("fc28", "three"), id("fc28@3"));
    lab.lib
        .remove_image(&"fc28".parse().unwrap(), &lab.room, &actor)
        .unwrap();
    assert!(!lab.home().join("images/fc28").exists());
    // Somebody may still have `fc28@1` in his boot.cfg, or run it.
    assert_eq!(lab.seal("fc28", "four"), id("fc28@4"));
    lab.lib
        .remove_image(&"fc28".parse().unwrap(), &lab.room, &actor)
        .unwrap();
    assert_eq!(lab.seal("fc28", "five"), id("fc28@5"));
}

#[test]
fn an_image_is_not_removed_under_a_build() {
    let lab = Lab::new();
    lab.seal("fc28", "one");
    let image = "fc28".parse().unwrap();
    let draft = lab.lib.draft(&image).unwrap();
    draft.create_sparse(MIB).unwrap();
    let why = refused(lab.lib.remove_image(&image, &lab.room, &Actor::command()));
    assert!(why.contains("build"), "{why}");
    drop(draft);
    lab.lib
        .remove_image(&image, &lab.room, &Actor::command())
        .unwrap();
}

#[test]
fn immutable_files_resist_root_and_can_be_removed_by_the_library() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("library");
    let options = InitOptions {
        host: "server-01".parse().unwrap(),
        iqn_prefix: None,
        immutable: true,
    };
    let lib = Library::init(&home, &options).unwrap();
    let mut draft = lib.draft(&"fc28".parse().unwrap()).unwrap();
    draft.create_sparse(MIB).unwrap();
    draft.add_kernel(&mut &b"k"[..]).unwrap();
    draft.add_initramfs(&mut &b"i"[..]).unwrap();
    let version = draft.seal(VersionFacts::default(), &Quiet).unwrap();
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .open(version.disk_path());
    assert_eq!(
        opened.unwrap_err().kind(),
        std::io::ErrorKind::PermissionDenied
    );
    let nobody = NoServer::new(lib.live_lock().unwrap());
    lib.remove_version(version.id(), &nobody, &Actor::command())
        .unwrap();
    assert!(lib.images().unwrap().is_empty());
    dir.close().unwrap();
}

#[test]
fn a_library_is_made_once_in_an_empty_place() {
    let dir = tempfile::tempdir().unwrap();
    let options = InitOptions {
        host: "server-01.example.edu".parse().unwrap(),
        iqn_prefix: None,
        immutable: false,
    };
    std::fs::write(dir.path().join("thesis.txt"), "mine").unwrap();
    refused(Library::init(dir.path(), &options));
    std::fs::remove_file(dir.path().join("thesis.txt")).unwrap();
    assert!(matches!(
        Library::open(dir.path(), None),
        Err(Error::Refused { .. })
    ));
    let lib = Library::init(dir.path(), &options).unwrap();
    assert!(
        lib.config()
            .iqn_prefix
            .as_str()
            .ends_with(".edu.example.server-01")
    );
    let again = Library::init(dir.path(), &options);
    assert!(matches!(again, Err(Error::Exists { .. })));
    let key = std::fs::metadata(dir.path().join("secrets/boot.key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(dir.path().join("netroot.toml")).unwrap();
    std::fs::write(
        dir.path().join("netroot.toml"),
        text.replace("lun = 1", "lun = 0"),
    )
    .unwrap();
    let error = Library::open(dir.path(), None).unwrap_err().to_string();
    assert!(
        error.contains("iscsi.lun") && error.contains("netroot.toml:"),
        "{error}"
    );
}

#[test]
fn only_one_process_acts_on_live_state() {
    let lab = Lab::new();
    let held = lab.lib.live_lock().unwrap();
    assert!(matches!(lab.lib.live_lock(), Err(Error::Locked { .. })));
    // A build publishes beside a running server.
    lab.seal("fc28", "one");
    drop(held);
    lab.lib.live_lock().unwrap();
}
