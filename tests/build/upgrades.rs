//! Versions made from versions.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use netroot::build::{
    self, Built, Change, ChangeRequest, FileSystem, InitramfsCheck, Script, Watch,
};
use netroot::exec::{Cancel, Program};
use netroot::library::{Progress, Quiet};

use crate::site::{KERNEL, Site, run, write};

/// A library with `fc28@1`, in which a few programs of this host can be run.
pub(crate) fn site_with_programs() -> Site {
    site_with_programs_on(FileSystem::Xfs)
}

/// The same, on a file system of another kind.
pub(crate) fn site_with_programs_on(filesystem: FileSystem) -> Site {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    programs(&tree);
    write(&tree.join("etc/resolv.conf"), b"nameserver 203.0.113.9\n");
    write(&tree.join("usr/sbin/invoke-rc.d"), b"#!/bin/sh\n");
    write(&tree.join("root/.bash_history"), b"secret\n");
    let mut request = site.request(&tree);
    request.filesystem = filesystem;
    site.build(&request).unwrap();
    site
}

/// Puts programs of this host into a tree, with what they need.
pub(crate) fn programs(tree: &Path) {
    for name in ["bin", "lib64"] {
        symlink(Path::new("usr").join(name), tree.join(name)).unwrap();
    }
    let programs = [
        "sh", "cat", "cp", "dd", "df", "dirname", "id", "ls", "mkdir", "mv", "rm", "sleep", "touch",
    ];
    for name in programs {
        program(tree, name);
    }
}

/// Puts one more program of this host into a tree.
pub(crate) fn program(tree: &Path, name: &str) {
    let program = netroot::exec::find_program(name).unwrap();
    install(tree, &program);
    for word in run("ldd", &[program.to_str().unwrap()]).split_whitespace() {
        if word.starts_with('/') {
            install(tree, Path::new(word));
        }
    }
}

/// Copies a program or library of the host to its place in the tree.
fn install(tree: &Path, path: &Path) {
    let merged = path.strip_prefix("/").unwrap();
    let place = match merged.starts_with("usr") {
        true => tree.join(merged),
        false if merged.starts_with("lib64") => tree.join("usr").join(merged),
        false => tree.join(merged),
    };
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::copy(path, place).unwrap();
}

fn request(to: &str, script: &str) -> ChangeRequest {
    let changes = vec![Change::Script(Script::Shell(script.into()))];
    ChangeRequest::new("fc28".parse().unwrap(), to.parse().unwrap(), changes)
}

fn upgrade(site: &Site, request: &ChangeRequest) -> anyhow::Result<Built> {
    build::change(&site.library, request, &Cancel::new(), &Quiet).map(Option::unwrap)
}

#[test]
fn a_script_changes_a_copy_and_seals_it() {
    let site = site_with_programs();
    let script = "cat /etc/resolv.conf > /root/servers; /usr/sbin/policy-rc.d; \
                  echo $? > /root/services; \
                  mv /boot/initrd.img-6.1.0-21-amd64 /boot/initrd.img-6.2.0-1-amd64; \
                  mv /lib/modules/6.1.0-21-amd64 /lib/modules/6.2.0-1-amd64; touch /run/gone";
    // The modules in the initramfs are of the old kernel, which the check would refuse.
    let mut request = request("fc29", script);
    request.check = InitramfsCheck::Skip;
    request.size = Some("2x".parse().unwrap());
    let built = upgrade(&site, &request).unwrap();
    assert_eq!(built.version.to_string(), "fc29@1");
    let (old, new) = (site.version("fc28"), site.version("fc29"));
    let facts = &new.manifest().facts;
    assert_eq!(facts.parent.as_ref().unwrap().to_string(), "fc28@1");
    assert_eq!(facts.kernel_version, "6.2.0-1-amd64");
    assert!(
        facts.scrubbed.iter().any(|what| what.contains("histor")),
        "{facts:?}"
    );
    assert_eq!(facts.filesystem, old.manifest().facts.filesystem);
    assert_eq!(new.manifest().disk.size, 2 * old.manifest().disk.size);
    site.look_into(&new, |root| {
        let servers = fs::read("/etc/resolv.conf").unwrap_or_default();
        assert_eq!(fs::read(root.join("root/servers")).unwrap(), servers);
        // deb-systemd-invoke(1p): 101 forbids the start of a service.
        assert_eq!(fs::read(root.join("root/services")).unwrap(), b"101\n");
        assert!(!root.join("usr/sbin/policy-rc.d").exists());
        let resolv = fs::read(root.join("etc/resolv.conf")).unwrap();
        assert_eq!(resolv, b"nameserver 203.0.113.9\n");
        assert!(!root.join("root/.bash_history").exists());
        for empty in ["dev", "proc", "sys", "run"] {
            assert_eq!(
                fs::read_dir(root.join(empty)).unwrap().count(),
                0,
                "{empty}"
            );
        }
        let whole = nix::sys::statvfs::statvfs(root).unwrap();
        let bytes = whole.blocks() * whole.fragment_size();
        assert!(bytes > old.manifest().disk.size, "it was not grown");
    });
    site.library.verify(old.id(), &Quiet).unwrap();
    site.assert_clean();
}

#[test]
fn a_script_of_the_host_is_run_inside() {
    let site = site_with_programs();
    let script = site.path("upgrade.sh");
    write(
        &script,
        b"#!/bin/sh\nls / > /root/seen\necho \"$@\" > /root/given\n",
    );
    let mut request = request("fc28", "");
    let words = [OsString::from(&script), "--release".into(), "29".into()];
    request.changes = vec![Change::Script(Script::from_words(&words))];
    assert_eq!(
        upgrade(&site, &request).unwrap().version.to_string(),
        "fc28@2"
    );
    site.look_into(&site.version("fc28@2"), |root| {
        let seen = fs::read_to_string(root.join("root/seen")).unwrap();
        assert!(
            seen.contains("boot\n") && !seen.contains("work\n"),
            "{seen}"
        );
        assert_eq!(
            fs::read(root.join("root/given")).unwrap(),
            b"--release 29\n"
        );
    });
}

#[test]
fn a_script_that_fails_leaves_the_image_as_it_was() {
    let site = site_with_programs();
    let error = upgrade(&site, &request("fc28", "echo no mirror >&2; exit 5")).unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("exit status: 5") && error.contains("no mirror"),
        "{error}"
    );
    assert_eq!(site.library.images().unwrap()[0].versions, [1]);
    let broken = request("fc28", "rm /boot/initrd.img-6.1.0-21-amd64");
    let error = upgrade(&site, &broken).unwrap_err().to_string();
    assert!(error.contains("no initramfs for its kernel"), "{error}");
    let mut smaller = request("fc28", "true");
    smaller.size = Some("100M".parse().unwrap());
    let error = upgrade(&site, &smaller).unwrap_err().to_string();
    assert!(error.contains("cannot shrink"), "{error}");
    site.assert_clean();
}

/// Shows lines as they come, and asks to stop at the first.
struct StopAtLine(Cancel);

impl Progress for StopAtLine {
    fn step(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
}

impl Watch for StopAtLine {
    fn line(&self, text: &str) {
        assert_eq!(text, "begun");
        self.0.cancel();
    }
    fn warn(&self, _: &str) {}
}

#[test]
fn stopping_ends_all_that_the_script_started() {
    let site = site_with_programs();
    let cancel = Cancel::new();
    let watch = StopAtLine(cancel.clone());
    let script = request("fc28", "echo begun; sleep 71.9 & sleep 71.9; :");
    let error = build::change(&site.library, &script, &cancel, &watch).unwrap_err();
    assert!(format!("{error:#}").contains("interrupted"), "{error:#}");
    let left = Program::new("pgrep").args(["-f", "sleep 71[.]9"]).run();
    assert!(left.is_err(), "a child of the script runs on");
    assert_eq!(site.library.images().unwrap()[0].versions, [1]);
    site.assert_clean();
}

#[test]
fn a_plan_of_an_upgrade_tells_all() {
    let site = site_with_programs();
    let mut request = request("fc29", "dnf -y distro-sync");
    request.size = Some("2x".parse().unwrap());
    let text = build::plan_change(&site.library, &request)
        .unwrap()
        .to_string();
    assert!(
        text.contains("1. verify fc28@1 (its SHA-256 tree)\n"),
        "{text}"
    );
    assert!(text.contains("2. copy the disk of fc28@1\n"), "{text}");
    assert!(text.contains("run `dnf -y distro-sync` in it\n"), "{text}");
    let missing = Script::from_words(&["./no-such-script.sh".into()]);
    request.changes = vec![Change::Script(missing)];
    let error = build::plan_change(&site.library, &request)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "opening the script ./no-such-script.sh");
    request.changes = vec![Change::Script(Script::Shell("true".into()))];
    request.from = "fc27".parse().unwrap();
    let error = build::plan_change(&site.library, &request)
        .unwrap_err()
        .to_string();
    assert!(error.contains("no image `fc27`"), "{error}");
}

#[test]
fn an_image_that_exists_is_not_upgraded_over() {
    let site = site_with_programs();
    assert_eq!(
        upgrade(&site, &request("fc29", ":"))
            .unwrap()
            .version
            .to_string(),
        "fc29@1"
    );
    let error = upgrade(&site, &request("fc29", ":"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("fc29 exists already"), "{error}");
}

#[test]
fn the_cost_of_a_copy_is_said_before_it_is_made() {
    let site = site_with_programs();
    let kind = run(
        "stat",
        &["-f", "-c", "%T", site.path("library").to_str().unwrap()],
    );
    let plan = build::plan_change(&site.library, &request("fc29", ":")).unwrap();
    // On XFS and btrfs a copy costs nothing.
    let shares = matches!(kind.trim(), "xfs" | "btrfs");
    assert_eq!(
        plan.warnings.is_empty(),
        shares,
        "{kind}: {:?}",
        plan.warnings
    );
    if !shares {
        assert!(
            plan.to_string().contains("the copy of fc28@1 takes "),
            "{plan}"
        );
    }
}
