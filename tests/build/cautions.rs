//! What an upgrade or an update sees to before it changes anything, and before it seals.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use netroot::build::{self, Built, Change, ChangeRequest, InitramfsCheck};
use netroot::exec::{Cancel, Program, in_private_mounts};
use netroot::library::{Actor, ImageEdit, Quiet, Way};

use xtask::initramfs::Archive;

use crate::recipes::site_with_recipe;
use crate::site::{KERNEL, Site, run};

/// A library with the image `one`, release 1 of the recipe's distribution.
fn site() -> Site {
    let site = site_with_recipe();
    let source = "tiny:1".parse().unwrap();
    let request = netroot::build::BuildRequest::new("one".parse().unwrap(), source);
    site.build(&request).unwrap();
    site
}

fn change(site: &Site, to: &str, change: Change) -> anyhow::Result<Option<Built>> {
    let (from, to) = ("one".parse().unwrap(), to.parse().unwrap());
    let request = ChangeRequest::new(from, to, vec![change]);
    build::change(&site.library, &request, &Cancel::new(), &Quiet)
}

fn upgrade(release: &str) -> Change {
    let release = release.into();
    Change::Upgrade { release }
}

#[test]
fn an_update_that_finds_nothing_new_makes_no_version() {
    let site = site();
    let first = change(&site, "one", Change::Update).unwrap().unwrap();
    assert_eq!(first.version.to_string(), "one@2");
    assert!(change(&site, "one", Change::Update).unwrap().is_none());
    let image = site.library.image(&"one".parse().unwrap()).unwrap();
    assert_eq!(image.versions, [1, 2]);
    site.assert_clean();
}

#[test]
fn another_kernel_or_another_recipe_is_news() {
    const OLDER: &str = "5.10.0-1-amd64";
    let site = site();
    let add = format!(
        "mkdir /lib/modules/{OLDER} && echo older >/lib/modules/{OLDER}/vmlinuz && \
         cp /boot/initrd.img-{KERNEL} /boot/initrd.img-{OLDER}"
    );
    let add = Change::Script(build::Script::Shell(add));
    change(&site, "one", Change::Update).unwrap().unwrap();
    change(&site, "one", add).unwrap().unwrap();
    let update = |kernel: Option<&str>| {
        let name = "one".parse().unwrap();
        let mut request = ChangeRequest::new("one".parse().unwrap(), name, vec![Change::Update]);
        request.kernel = kernel.map(str::to_owned);
        request.check = InitramfsCheck::Skip;
        let made = build::change(&site.library, &request, &Cancel::new(), &Quiet).unwrap();
        made.map(|_| site.version("one").manifest().facts.kernel_version.clone())
    };
    assert_eq!(update(None), None);
    assert_eq!(update(Some(OLDER)).as_deref(), Some(OLDER));
    assert_eq!(update(Some(OLDER)), None);
    assert_eq!(update(None).as_deref(), Some(KERNEL));
    assert_eq!(update(None), None);

    let recipe = site.path("library/recipes/tiny.toml");
    let text = fs::read_to_string(&recipe).unwrap();
    let more = "[[update]]\nwrite = '/etc/more'\ntext = 'of the recipe'\n";
    fs::write(&recipe, text + more).unwrap();
    assert_eq!(update(None).as_deref(), Some(KERNEL));
    site.look_into(&site.version("one"), |root| {
        assert!(root.join("etc/more").exists());
    });
    assert_eq!(update(None), None);
    site.assert_clean();
}

#[test]
fn an_upgrade_to_the_release_that_is_there_is_refused_before_anything_starts() {
    let site = site();
    let error = change(&site, "two", upgrade("1")).unwrap_err().to_string();
    assert!(error.contains("one@1 is tiny 1 already"), "{error}");
    assert!(error.contains("image update one"), "{error}");
    // By its code name, which the recipe knows as another word for 2.
    let rename = "echo ID=tiny >/etc/os-release; echo VERSION_CODENAME=two >>/etc/os-release";
    let rename = Change::Script(build::Script::Shell(rename.into()));
    change(&site, "one", rename).unwrap().unwrap();
    for release in ["2", "two"] {
        let error = change(&site, "two", upgrade(release)).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("one@2 is tiny two already"), "{error}");
    }
    site.assert_clean();
}

#[test]
fn an_upgrade_that_changed_no_release_is_not_sealed() {
    let site = site();
    let recipe = site.path("library/recipes/tiny.toml");
    let text = fs::read_to_string(&recipe).unwrap();
    let idle = text.replace("echo ID=tiny >/etc/os-release", "true");
    assert_ne!(idle, text);
    fs::write(&recipe, idle).unwrap();
    let error = format!("{:#}", change(&site, "two", upgrade("2")).unwrap_err());
    assert!(error.contains("still calls itself tiny 1"), "{error}");
    assert!(site.library.image(&"two".parse().unwrap()).is_err());
    site.assert_clean();
}

#[test]
fn a_disk_that_is_too_full_for_an_upgrade_is_told_with_a_size_that_does() {
    let site = site();
    let fill = "dd if=/dev/urandom of=/root/large bs=1M count=300";
    let changes = vec![Change::Script(build::Script::Shell(fill.into()))];
    let name = || "one".parse().unwrap();
    let mut request = ChangeRequest::new("one".parse().unwrap(), name(), changes);
    request.size = Some("512M".parse().unwrap());
    let filled = build::change(&site.library, &request, &Cancel::new(), &Quiet);
    filled.unwrap().unwrap();
    let error = format!("{:#}", change(&site, "two", upgrade("2")).unwrap_err());
    assert!(error.contains("as by --size 1024M"), "{error}");
    let mut request = ChangeRequest::new("one".parse().unwrap(), name(), vec![upgrade("2")]);
    request.to = "two".parse().unwrap();
    request.size = Some("1024M".parse().unwrap());
    let upgraded = build::change(&site.library, &request, &Cancel::new(), &Quiet);
    upgraded.unwrap().unwrap();
    site.assert_clean();
}

#[test]
fn a_step_that_finds_no_room_is_told_as_that_even_if_it_tidied_up() {
    let site = site();
    let fill = "dd if=/dev/zero of=/root/large bs=1M; rm /root/large; exit 1";
    let fill = Change::Script(build::Script::Shell(fill.into()));
    let error = format!("{:#}", change(&site, "one", fill).unwrap_err());
    assert!(error.contains("give it more room by --size"), "{error}");
    site.assert_clean();
}

#[test]
fn a_damaged_version_is_not_made_into_another() {
    let site = site();
    let version = site.version("one");
    let disk = version.disk_path();
    run("chattr", &["-i", disk.to_str().unwrap()]);
    let file = fs::OpenOptions::new().write(true).open(&disk).unwrap();
    file.write_all_at(b"rot", 4096).unwrap();
    let script = Change::Script(build::Script::Shell("touch /root/changed".into()));
    for (to, wanted) in [
        ("two", upgrade("2")),
        ("two", script),
        ("one", Change::Update),
    ] {
        let error = format!("{:#}", change(&site, to, wanted).unwrap_err());
        assert!(
            error.contains("one@1 is not what was sealed")
                && error.contains("the 4 MiB that begin at byte 0"),
            "{error}"
        );
    }
    site.assert_clean();
}

/// Does something in the middle of a change, when its script runs.
struct Meanwhile<'a>(&'a (dyn Fn() + Sync), std::sync::Once);

impl netroot::library::Progress for Meanwhile<'_> {
    fn step(&self, what: &str, _: Option<u64>) {
        if what.starts_with("run ") {
            self.1.call_once(self.0);
        }
    }

    fn advance(&self, _: u64) {}
}

impl build::Watch for Meanwhile<'_> {
    fn line(&self, _: &str) {}

    fn warn(&self, _: &str) {}
}

fn exec(site: &Site, to: &str, meanwhile: &(dyn Fn() + Sync)) -> anyhow::Result<Option<Built>> {
    let script = Change::Script(build::Script::Shell("touch /root/here".into()));
    let (from, to) = ("one".parse().unwrap(), to.parse().unwrap());
    let request = ChangeRequest::new(from, to, vec![script]);
    let watch = Meanwhile(meanwhile, std::sync::Once::new());
    build::change(&site.library, &request, &Cancel::new(), &watch)
}

#[test]
fn a_version_that_became_current_meanwhile_stays_current() {
    let site = site();
    let built = exec(&site, "one", &|| {
        change(&site, "one", Change::Update).unwrap().unwrap();
    });
    let built = built.unwrap().unwrap();
    assert_eq!(built.version.to_string(), "one@3");
    let told = built.warnings.join("\n");
    assert!(told.contains("one@3 is sealed, and not current"), "{told}");
    let image = site.library.image(&"one".parse().unwrap()).unwrap();
    assert_eq!(image.current, Some(2));
}

#[test]
fn a_name_that_was_taken_meanwhile_is_refused() {
    let site = site();
    let made = exec(&site, "two", &|| {
        change(&site, "two", upgrade("2")).unwrap().unwrap();
    });
    let error = format!("{:#}", made.unwrap_err());
    assert!(
        error.contains("has made an image of that name meanwhile"),
        "{error}"
    );
    let image = site.library.image(&"two".parse().unwrap()).unwrap();
    assert_eq!(image.versions, [1]);
    site.assert_clean();
}

#[test]
fn what_comes_to_no_version_says_so() {
    let site = site();
    let command = |args: &[&str]| {
        let program = Program::new(env!("CARGO_BIN_EXE_netroot"));
        let program = program.arg("--library").arg(site.path("library"));
        let args = args.iter().copied();
        program.args(args).input("exit\n").run().unwrap().text()
    };
    change(&site, "one", Change::Update).unwrap().unwrap();
    let update = ["image", "update", "one"];
    assert_eq!(
        command(&update),
        "one@2 is up to date: nothing changed, no new version\n"
    );
    let planned = command(&[&update[..], &["--dry-run"]].concat());
    for step in [
        "verify one@2 (its SHA-256 tree)",
        "see that 25 % of what is used in it is free beside that",
        "stop here if packages, kernel and recipe are what they were",
    ] {
        assert!(planned.contains(step), "{step} is not in {planned}");
    }
    let shell = ["image", "shell", "one", "--discard"];
    let said = command(&shell);
    assert!(
        said.ends_with("nothing of it was kept; one@2 is as it was\n"),
        "{said}"
    );
    for args in [&update[..], &shell] {
        let said = command(&[args, &["--json"]].concat());
        let told: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            told,
            serde_json::json!({ "version": null, "from": "one@2" })
        );
    }
    site.assert_clean();
}

#[test]
fn a_library_without_room_is_told_before_anything_starts() {
    let site = Site::new();
    let (image, point) = (site.path("library.img"), site.path("library"));
    File::create(&image).unwrap().set_len(512 << 20).unwrap();
    run("mkfs.xfs", &["-q", image.to_str().unwrap()]);
    in_private_mounts(|mounts| {
        // On top of the library that the site has. A copy takes nothing there.
        let cancel = Cancel::new();
        let mounted = mounts.image(&image, "xfs", &[], &point, &cancel).unwrap();
        let library = point.join("lib");
        let command = |args: &[&str]| {
            let program = Program::new(env!("CARGO_BIN_EXE_netroot"));
            let program = program.arg("--library").arg(&library);
            program.args(args.iter().copied()).run()
        };
        command(&["init", "--host", "server-01.example.edu"]).unwrap();
        let tree = site.tree(KERNEL);
        let from = tree.to_str().unwrap();
        command(&["image", "build", "fc28", "--from", from, "--fs", "ext4"]).unwrap();
        let exec = ["image", "exec", "fc28", "--dry-run", "--", "true"];
        command(&exec).unwrap();
        let room = nix::sys::statvfs::statvfs(&point).unwrap();
        let fill = room.blocks_available() * room.fragment_size() - (12 << 20);
        let filler = point.join("filler");
        run(
            "fallocate",
            &["-l", &fill.to_string(), filler.to_str().unwrap()],
        );
        for args in [&exec[..], &["image", "exec", "fc28", "--", "true"]] {
            let error = command(args).unwrap_err().to_string();
            for part in ["MiB left", "a changed copy of fc28@1", "image prune"] {
                assert!(error.contains(part), "{part} is not in {error}");
            }
        }
        assert_eq!(
            fs::read_dir(library.join("images/fc28")).unwrap().count(),
            2
        );
        mounted.unmount().unwrap();
    })
    .unwrap();
}

#[test]
fn an_image_that_is_made_of_another_begins_with_its_way() {
    let site = site();
    let image = |name: &str| site.library.image(&name.parse().unwrap()).unwrap();
    let says = |name: &str, way: Option<Way>| {
        let edit = ImageEdit { way: Some(way) };
        let by = Actor::command();
        let name = name.parse().unwrap();
        site.library.edit_image(&name, &edit, &by).unwrap();
    };
    says("one", Some(Way::Esp));
    let script = || Change::Script(build::Script::Shell("touch /root/changed".into()));
    let plan = |to: &str| {
        let (from, to) = ("one".parse().unwrap(), to.parse().unwrap());
        let request = ChangeRequest::new(from, to, vec![script()]);
        build::plan_change(&site.library, &request)
            .unwrap()
            .to_string()
    };
    assert!(
        plan("two").contains("say way esp of it, as of one"),
        "{}",
        plan("two")
    );
    assert!(!plan("one").contains("say way"), "{}", plan("one"));
    change(&site, "two", script()).unwrap().unwrap();
    assert_eq!(image("two").way, Some(Way::Esp));
    says("two", None);
    change(&site, "one", script()).unwrap().unwrap();
    assert_eq!((image("one").way, image("two").way), (Some(Way::Esp), None));
    site.assert_clean();
}

#[test]
fn a_version_that_the_way_of_its_image_does_not_boot_is_told_of_before_it_is_sealed() {
    let site = site();
    let edit = |way| {
        let (edit, by) = (ImageEdit { way: Some(way) }, Actor::command());
        let one = "one".parse().unwrap();
        site.library.edit_image(&one, &edit, &by).unwrap();
    };
    let current = || site.library.image(&"one".parse().unwrap()).unwrap().current;
    let is_told = |warnings: Vec<String>| {
        let told = warnings.join("\n");
        let cure = "netroot image set one --way none";
        let count = told.matches("of one does not become current").count();
        assert!(count == 1 && told.contains(cure), "{told}");
        told
    };
    edit(Some(Way::Ibft));
    // As initramfs-tools makes it.
    let tree = site.tree(KERNEL);
    let mut archive = Archive::default();
    archive.directory("scripts");
    archive.file("scripts/functions", 0o644, b"# of initramfs-tools");
    fs::write(
        tree.join(format!("boot/initrd.img-{KERNEL}")),
        archive.finish(),
    )
    .unwrap();
    let source = build::Source::Directory(tree);
    let mut request = build::BuildRequest::new("one".parse().unwrap(), source);
    request.check = InitramfsCheck::Skip;
    let plan = build::plan_image(&site.library, &request, &Cancel::new()).unwrap();
    is_told(plan.warnings);
    let told = is_told(site.build(&request).unwrap().warnings);
    assert!(told.contains("one@2 is sealed, and not current"), "{told}");
    assert_eq!(current(), Some(1));
    // What is made of that is told of by its plan; whoever sees to it meanwhile has it current.
    let script = Change::Script(build::Script::Shell("touch /root/here".into()));
    let (from, to) = ("one@2".parse().unwrap(), "one".parse().unwrap());
    let mut request = ChangeRequest::new(from, to, vec![script]);
    request.check = InitramfsCheck::Skip;
    is_told(
        build::plan_change(&site.library, &request)
            .unwrap()
            .warnings,
    );
    let none = || edit(None);
    let watch = Meanwhile(&none, std::sync::Once::new());
    let built = build::change(&site.library, &request, &Cancel::new(), &watch);
    assert_eq!(built.unwrap().unwrap().version.to_string(), "one@3");
    assert_eq!(current(), Some(3));
    site.assert_clean();
}
