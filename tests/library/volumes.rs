//! Volumes: all of one or nothing, whoever is killed; copies that go their own way; and no way to a file
//! of the host for those who have no right to it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use netroot::library::*;

use crate::lab::{Lab, MIB, everywhere, on_xfs};

const SECRET: &str = "a secret of ours 1";

/// A server, as far as volumes ask for one: how many sessions each target has, and what happens when it
/// is told of a change.
struct Served<'a> {
    sessions: AtomicUsize,
    followed: &'a (dyn Fn() + Sync),
}

impl Served<'_> {
    fn with(sessions: usize) -> Self {
        Served {
            sessions: sessions.into(),
            followed: &|| {},
        }
    }
}

impl Publisher for Served<'_> {
    fn sessions_of(&self, _: &str) -> usize {
        self.sessions.load(SeqCst)
    }

    fn follow(&self) {
        (self.followed)();
    }
}

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

fn chap() -> Option<Chap> {
    Some(Chap::new("me", SECRET).unwrap())
}

fn new(text: &str) -> NewVolume {
    NewVolume {
        name: name(text),
        kept: Kept::Library,
        paths: Paths::Any,
        size: Some(4 * MIB),
        block_size: 512,
        direct: false,
        physical_block_size: None,
        read_only: false,
        allow: vec!["any".parse().unwrap()],
        secrets: Secrets::default(),
        target: None,
        lun: None,
        allow_sanitize: false,
        force: false,
    }
}

fn by() -> Actor {
    Actor::command()
}

fn add(library: &Library, new: &NewVolume) -> Volume {
    library.add_volume(new, &Served::with(0), &by()).unwrap()
}

/// Everything that is kept of volumes.
fn kept(library: &Library) -> BTreeSet<PathBuf> {
    let of = |dir: &str| {
        let dir = library.root().join(dir);
        fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
    };
    let all = ["volumes", "secrets", "reservations"].map(of);
    let all = all.into_iter().flatten();
    all.filter(|path| !path.ends_with("boot.key")).collect()
}

fn disk(library: &Library, volume: &Volume) -> PathBuf {
    library.volume_path(volume)
}

fn swept(library: &Library) -> usize {
    let swept = library.sweep().unwrap();
    let volumes = swept
        .iter()
        .filter(|one| matches!(one, Swept::Volume { .. }));
    volumes.count()
}

#[test]
fn what_a_killed_removal_left_is_gone_after_the_next_command() {
    let Lab { lib, .. } = &Lab::new();
    let guarded = NewVolume {
        secrets: Secrets {
            chap: chap(),
            mutual: None,
        },
        ..new("vault")
    };
    let volume = add(lib, &guarded);
    let reservations = lib.volume_reservations(&volume).unwrap();
    reservations.save(b"{}").unwrap();
    let path = disk(lib, &volume);
    let killed = Served {
        sessions: 0.into(),
        followed: &|| {
            assert_eq!(swept(lib), 0, "whoever removes it is alive");
            assert!(path.exists(), "sessions may write yet");
            panic!("killed");
        },
    };
    let removal = || lib.remove_volume(&name("vault"), None, false, &killed, &by());
    catch_unwind(AssertUnwindSafe(removal)).unwrap_err();
    assert!(
        lib.volumes().unwrap().is_empty(),
        "it was crossed out first"
    );
    assert!(path.exists());
    // Another one of this name has nothing of it.
    let other = add(lib, &new("vault"));
    assert_eq!(
        lib.volume_secrets(&name("vault")).unwrap(),
        Secrets::default()
    );
    assert_eq!(
        lib.volume_reservations(&other).unwrap().load().unwrap(),
        None
    );
    assert_eq!(swept(lib), 1);
    assert_eq!(swept(lib), 0);
    lib.remove_volume(&name("vault"), None, false, &Served::with(0), &by())
        .unwrap();
    assert_eq!(kept(lib), BTreeSet::new());
}

#[test]
fn what_stands_without_a_mark_is_never_removed() {
    let Lab { lib, .. } = &Lab::new();
    let volume = add(lib, &new("data"));
    let mark = lib.root().join(format!("volumes/.half-{}", volume.id));
    // Killed before the document was crossed out, or after it was written.
    fs::write(&mark, "").unwrap();
    assert_eq!(swept(lib), 0);
    assert!(!mark.exists() && disk(lib, &volume).exists());
    // Somebody lost the document, or has not restored it yet.
    let document = lib.root().join("volumes/data.json");
    let text = fs::read(&document).unwrap();
    fs::remove_file(&document).unwrap();
    assert_eq!(swept(lib), 0);
    assert!(disk(lib, &volume).exists());
    // One that cannot be read is no reason to take anything away.
    fs::write(&document, "{").unwrap();
    fs::write(&mark, "").unwrap();
    assert_eq!(swept(lib), 0);
    fs::write(&document, text).unwrap();
    assert_eq!(lib.volumes().unwrap(), [volume]);
}

#[test]
fn what_a_killed_addition_left_is_gone_after_the_next_command() {
    let Lab { lib, .. } = &Lab::new();
    let id = "0123456789abcdef";
    for left in [
        format!("volumes/.half-{id}"),
        format!("volumes/{id}.img"),
        format!("secrets/volume-{id}-0.json"),
    ] {
        fs::write(lib.root().join(left), "half").unwrap();
    }
    assert_eq!(swept(lib), 1);
    assert_eq!(kept(lib), BTreeSet::new());
}

#[test]
fn secrets_change_with_the_document_or_not_at_all() {
    let Lab { lib, .. } = &Lab::new();
    let mut guarded = new("vault");
    guarded.secrets.chap = chap();
    let before = add(lib, &guarded);
    let other = Some(Chap::new("me", "another secret 2").unwrap());
    let edit = VolumeEdit {
        chap: Some(other.clone()),
        ..VolumeEdit::default()
    };
    let document = lib.root().join("volumes/vault.json");
    let old = fs::read(&document).unwrap();
    let old_secrets = lib
        .root()
        .join(format!("secrets/volume-{}-0.json", before.id));
    let kept_secrets = fs::read(&old_secrets).unwrap();
    let server = Served::with(0);
    let after = lib
        .edit_volume(&before.name, Some(&before.edition()), &edit, &server, &by())
        .unwrap();
    assert_ne!(after.proofs, before.proofs, "sessions have to prove anew");
    assert_eq!(lib.volume_secrets(&before.name).unwrap().chap, other);
    assert!(!old_secrets.exists());
    // As if it had been killed before the document was written: the old one holds, the new one goes.
    fs::write(&document, old).unwrap();
    fs::write(&old_secrets, kept_secrets).unwrap();
    lib.sweep().unwrap();
    assert_eq!(lib.volume_secrets(&before.name).unwrap().chap, chap());
    let beside = |path: &PathBuf| path.to_string_lossy().contains("secrets/volume-");
    assert_eq!(kept(lib).iter().filter(|path| beside(path)).count(), 1);
    // No file is not the same as no secrets.
    fs::remove_file(&old_secrets).unwrap();
    assert!(lib.volume_secrets(&before.name).is_err());
    let nothing = VolumeEdit::default();
    let unknown = lib.edit_volume(&name("vault"), None, &nothing, &server, &by());
    assert!(unknown.is_err(), "it needs to know what there is to prove");
    // New ones mend it, and so does to have none.
    let mended = VolumeEdit {
        chap: Some(other.clone()),
        mutual: Some(None),
        ..VolumeEdit::default()
    };
    lib.edit_volume(&name("vault"), None, &mended, &server, &by())
        .unwrap();
    assert_eq!(lib.volume_secrets(&before.name).unwrap().chap, other);
    // What changes nothing is no change: nobody's session ends, and the edition stays.
    let now = lib.volume(&before.name).unwrap();
    let same = lib.edit_volume(&name("vault"), None, &nothing, &server, &by());
    assert_eq!(same.unwrap(), now);
}

#[test]
fn whoever_was_slower_is_refused() {
    let Lab { lib, .. } = &Lab::new();
    let before = add(lib, &new("data"));
    let server = Served::with(0);
    let seen = before.edition();
    let read_only = VolumeEdit {
        read_only: Some(true),
        ..VolumeEdit::default()
    };
    let after = lib
        .edit_volume(&before.name, Some(&seen), &read_only, &server, &by())
        .unwrap();
    assert!(after.read_only);
    let again = lib.edit_volume(&before.name, Some(&seen), &read_only, &server, &by());
    assert!(matches!(again, Err(Error::Moved { .. })), "{again:?}");
    let larger = lib.resize_volume(&before.name, Some(&seen), Some(8 * MIB), &server, &by());
    assert!(matches!(larger, Err(Error::Moved { .. })), "{larger:?}");
    let removed = lib.remove_volume(&before.name, Some(&seen), false, &server, &by());
    assert!(matches!(removed, Err(Error::Moved { .. })), "{removed:?}");
    assert_eq!(lib.volume_size(&after).unwrap(), 4 * MIB);
    // One that is in use goes by force only; the plan says the same.
    let used = Served::with(2);
    for refused in [
        lib.plan_remove_volume(&before.name, false, &used).map(drop),
        lib.remove_volume(&before.name, None, false, &used, &by())
            .map(drop),
    ] {
        let why = refused.unwrap_err().to_string();
        assert!(why.contains("2 sessions use"), "{why}");
    }
    lib.remove_volume(&before.name, None, true, &used, &by())
        .unwrap();
}

fn copies(lab: Lab) {
    let lib = &lab.lib;
    let source = add(lib, &new("data"));
    let mut bytes = vec![0; 4 * MIB as usize];
    bytes[MIB as usize..2 * MIB as usize].fill(7);
    bytes[4 * MIB as usize - 512..].fill(9);
    fs::write(disk(lib, &source), &bytes).unwrap();
    let rest = Served::with(0);
    let copy = lib
        .snapshot_volume(&source.name, None, &rest, &by())
        .unwrap();
    assert!(copy.name.as_str().starts_with("data-20"), "{}", copy.name);
    assert_eq!((copy.allow.len(), copy.lun), (0, 1), "for nobody yet");
    assert_ne!(copy.id, source.id, "two disks are never taken for one");
    assert!(fs::read(disk(lib, &copy)).unwrap() == bytes);
    fs::write(disk(lib, &source), vec![1; bytes.len()]).unwrap();
    assert!(fs::read(disk(lib, &copy)).unwrap() == bytes);
    fs::write(disk(lib, &copy), vec![2; bytes.len()]).unwrap();
    assert_eq!(fs::read(disk(lib, &source)).unwrap()[0], 1);

    // Under a session only where it is of one moment; the plan knows, and leaves nothing.
    let before = kept(lib);
    let busy = Served::with(1);
    let to = name("again");
    let plan = lib.plan_snapshot_volume(&source.name, Some(&to), &busy);
    assert_eq!(kept(lib), before);
    let done = lib.snapshot_volume(&source.name, Some(&to), &busy, &by());
    assert_eq!(plan.is_ok(), done.is_ok(), "{plan:?} {done:?}");
    if let Err(why) = done {
        assert!(why.to_string().contains("cannot share blocks"), "{why}");
        assert_eq!(kept(lib), before, "nothing half is left");
    }
    let taken = lib.snapshot_volume(&source.name, Some(&source.name), &rest, &by());
    assert!(matches!(taken, Err(Error::Exists { .. })), "{taken:?}");
}

#[test]
fn a_copy_has_the_same_content_and_goes_its_own_way() {
    everywhere(copies);
}

#[test]
fn a_copy_that_shares_its_blocks_is_made_under_a_session() {
    on_xfs(|lab| {
        let lib = &lab.lib;
        let source = add(lib, &new("a-name-of-thirty-two-characters0"));
        let copy = lib
            .snapshot_volume(&source.name, None, &Served::with(3), &by())
            .unwrap();
        assert_eq!(copy.name.as_str().len(), 32, "{}", copy.name);
        // Several of one second have names of their own.
        let second = lib.snapshot_volume(&source.name, None, &Served::with(3), &by());
        assert_ne!(second.unwrap().name, copy.name);
    });
}

#[test]
fn files_of_the_host_are_on_the_word_of_who_may_read_them_anyway() {
    let lab = Lab::new();
    let home = lab.lib.root().parent().unwrap().to_owned();
    let (listed, outside) = (home.join("listed"), home.join("outside"));
    fs::create_dir(&listed).unwrap();
    fs::write(&outside, vec![7; MIB as usize]).unwrap();
    fs::write(listed.join("disk"), vec![7; MIB as usize]).unwrap();
    symlink(&outside, listed.join("link")).unwrap();
    let config = lab.lib.root().join("netroot.toml");
    let text = fs::read_to_string(&config).unwrap();
    let list = format!("directories = [{listed:?}]");
    fs::write(&config, text.replace("directories = []", &list)).unwrap();
    let lib = &Library::open(lab.lib.root(), None).unwrap();
    let of = |path: &Path, paths| NewVolume {
        kept: Kept::File(path.to_owned()),
        size: None,
        paths,
        ..new("disk")
    };
    let why = |new: &NewVolume| {
        let planned = lib.plan_add_volume(new).unwrap_err().to_string();
        let done = lib.add_volume(new, &Served::with(0), &by()).unwrap_err();
        // Whoever asks first is told the same.
        assert_eq!(planned, done.to_string());
        planned
    };
    let absent = home.join("absent");
    let told = |path: &Path| why(&of(path, Paths::Listed)).replace(path.to_str().unwrap(), "IT");
    assert!(told(&outside).contains("not below"), "{}", told(&outside));
    // Nor do they learn what there is.
    assert_eq!(told(&outside), told(&absent));
    assert_eq!(told(&listed.join("../outside")), told(&outside));
    assert!(told(&listed.join("link")).contains("leads out of"));
    let mut forced = of(&listed.join("disk"), Paths::Listed);
    forced.force = true;
    assert!(why(&forced).contains("server's own rights"));

    let volume = add(lib, &of(&listed.join("disk"), Paths::Listed));
    assert_eq!(lib.volume_size(&volume).unwrap(), MIB);
    // Whoever may write there swaps it for a link, once it is a volume.
    fs::remove_file(listed.join("disk")).unwrap();
    symlink(&outside, listed.join("disk")).unwrap();
    assert!(lib.open_volume(&volume).is_err());
    let grown = lib.resize_volume(&volume.name, None, Some(2 * MIB), &Served::with(0), &by());
    assert!(grown.is_err());
    assert_eq!(fs::metadata(&outside).unwrap().len(), MIB);
    let copied = lib.snapshot_volume(&volume.name, None, &Served::with(0), &by());
    assert!(copied.is_err());
    lib.remove_volume(&volume.name, None, false, &Served::with(0), &by())
        .unwrap();
    // Root may.
    let volume = add(lib, &of(&outside, Paths::Any));
    assert_eq!(lib.volume_size(&volume).unwrap(), MIB);
    lib.remove_volume(&volume.name, None, false, &Served::with(0), &by())
        .unwrap();
    // A new file needs to know how large; nobody's is made in the library.
    assert!(why(&of(&absent, Paths::Any)).contains("give --size"));
    for inside in ["absent", "volumes/absent", "netroot.toml"] {
        let inside = of(&lib.root().join(inside), Paths::Any);
        assert!(why(&inside).contains("in the library"), "{inside:?}");
    }
    symlink(lib.root().join("volumes"), home.join("way")).unwrap();
    let round = NewVolume {
        size: Some(MIB),
        name: name("round"),
        ..of(&home.join("way/absent"), Paths::Any)
    };
    assert!(why(&round).contains("in the library"));
    let fresh = NewVolume {
        size: Some(MIB),
        name: name("fresh"),
        ..of(&absent, Paths::Any)
    };
    let volume = add(lib, &fresh);
    assert_eq!(fs::metadata(&absent).unwrap().len(), MIB);
    lib.remove_volume(&volume.name, None, false, &Served::with(0), &by())
        .unwrap();
    assert!(absent.exists(), "a file of somebody's stays");
}

#[test]
fn a_pipe_is_no_disk_and_keeps_nobody_waiting() {
    let lab = Lab::new();
    let pipe = lab.lib.root().parent().unwrap().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let wanted = NewVolume {
        kept: Kept::File(pipe.clone()),
        size: None,
        ..new("pipe")
    };
    let why = lab.lib.plan_add_volume(&wanted).unwrap_err().to_string();
    assert!(why.contains("no file"), "{why}");
    // One that took the place of a volume's file.
    fs::remove_file(&pipe).unwrap();
    fs::write(&pipe, vec![0; MIB as usize]).unwrap();
    let volume = add(&lab.lib, &wanted);
    fs::remove_file(&pipe).unwrap();
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(lab.lib.open_volume(&volume).is_err());
    assert!(lab.lib.volume_size(&volume).is_err());
}

/// Neither root nor anybody.
const OWNER: u32 = 65_534;

#[test]
fn whoever_owns_a_library_leads_its_server_to_nothing_that_is_not_his() {
    let lab = Lab::new();
    let lib = &lab.lib;
    let home = lib.root().parent().unwrap();
    fs::set_permissions(home, fs::Permissions::from_mode(0o755)).unwrap();
    let (ours, his) = (home.join("ours"), home.join("his"));
    fs::write(&ours, vec![7; MIB as usize]).unwrap();
    fs::set_permissions(&ours, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&his, vec![7; MIB as usize]).unwrap();
    chown(&his, Some(OWNER), Some(OWNER)).unwrap();
    let of = |text: &str, path: &Path| NewVolume {
        kept: Kept::File(path.to_owned()),
        size: None,
        ..new(text)
    };
    let [ours, his, own] =
        [of("ours", &ours), of("his", &his), new("own")].map(|new| add(lib, &new));
    assert!(lib.open_volume(&ours).is_ok());
    for entry in walkdir::WalkDir::new(lib.root()) {
        chown(entry.unwrap().path(), Some(OWNER), Some(OWNER)).unwrap();
    }
    // Its documents are his from now on.
    assert!(lib.open_volume(&ours).is_err());
    let copied = lib.snapshot_volume(&ours.name, None, &Served::with(0), &by());
    assert!(copied.is_err());
    let grown = lib.resize_volume(&ours.name, None, Some(2 * MIB), &Served::with(0), &by());
    assert!(grown.is_err());
    assert!(lib.open_volume(&his).is_ok());
    assert!(lib.open_volume(&own).is_ok());
    // A link in the place of a disk of the library, or of what is kept beside it.
    let shadow = lib.volume_path(&ours);
    fs::remove_file(disk(lib, &own)).unwrap();
    symlink(&shadow, disk(lib, &own)).unwrap();
    assert!(lib.open_volume(&own).is_err());
    // An id is part of paths.
    let document = lib.root().join("volumes/own.json");
    let text = fs::read_to_string(&document).unwrap();
    fs::write(&document, text.replace(&own.id, "../../../etc/pas")).unwrap();
    assert!(matches!(lib.volume(&own.name), Err(Error::Document { .. })));
}
