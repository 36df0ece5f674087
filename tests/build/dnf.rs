//! The recipe for Fedora, with a real dnf and packages that are made here.
//!
//! What cannot be shown without Fedora's mirrors: their metalinks and keys, and Fedora's own packages.

use std::ffi::OsString;
use std::fs;
use std::process::Command;

use netroot::build::{self, BuildRequest, Built, Change, ChangeRequest, Recipes, Script};
use netroot::exec::Cancel;
use netroot::library::Quiet;

use crate::hostile::Loop;
use crate::rpms::{LOG, Release, Repositories};
use crate::site::{Site, write};

const OLD: Release<'_> = Release {
    name: "28",
    kernel: "4.18.16-300.fc28",
    tiny: "28",
    script: ":",
};

const NEW: Release<'_> = Release {
    name: "29",
    kernel: "4.19.5-300.fc29",
    tiny: "29",
    script: ":",
};

/// What is published for the new release later on.
const UPDATES: Release<'_> = Release {
    name: "29",
    kernel: "4.20.3-200.fc29",
    tiny: "29.1",
    script: ":",
};

/// A library with `fc28@1`, bootstrapped from `mirrors`. Their packages are not signed.
fn site_with_fc28(mirrors: &Repositories) -> Site {
    mirrors.publish(&OLD);
    let site = Site::new();
    let built_in = Recipes::built_in().unwrap();
    let recipe = built_in.named("fedora").unwrap().text();
    let unsigned = recipe.replace("gpgcheck=1", "gpgcheck=0");
    write(
        &site.path("library/recipes/fedora.toml"),
        unsigned.as_bytes(),
    );
    let source = "fedora:28".parse().unwrap();
    let mut request = BuildRequest::new("fc28".parse().unwrap(), source);
    request.mirror = Some(mirrors.url("28"));
    request.packages = vec![String::from("tiny")];
    let built = site.build(&request).unwrap();
    assert_eq!(built.warnings, Vec::<String>::new());
    site
}

fn change(site: &Site, from: &str, to: &str, change: Change) -> anyhow::Result<Built> {
    // The default size has no room for the packages of two releases.
    let size = matches!(change, Change::Upgrade { .. }).then(|| "2x".parse().unwrap());
    let mut request = ChangeRequest::new(from.parse().unwrap(), to.parse().unwrap(), vec![change]);
    request.size = size;
    build::change(&site.library, &request, &Cancel::new(), &Quiet).map(Option::unwrap)
}

fn upgrade() -> Change {
    Change::Upgrade {
        release: String::from("29"),
    }
}

/// What the sealed version's file `path` says.
fn text(site: &Site, version: &str, path: &str) -> String {
    let version = site.version(version);
    site.look_into(&version, |root| {
        fs::read_to_string(root.join(path)).unwrap()
    })
}

fn packages(site: &Site, version: &str) -> Vec<String> {
    let version = site.version(version);
    let packages = version.manifest().facts.packages.as_ref().unwrap().iter();
    packages
        .map(|p| format!("{}-{}", p.name, p.version))
        .collect()
}

#[test]
fn an_image_is_bootstrapped_by_dnf() {
    let mirrors = Repositories::new();
    let site = site_with_fc28(&mirrors);
    let version = site.version("fc28");
    let facts = &version.manifest().facts;
    assert_eq!(facts.kernel_version, "4.18.16-300.fc28.x86_64");
    let distribution = facts.distribution.as_ref().unwrap();
    assert_eq!(distribution.id, "fedora");
    assert_eq!(distribution.release.as_deref(), Some("28"));
    let all = packages(&site, "fc28");
    for name in ["kernel-core-4.18.16-300.fc28.x86_64", "tiny-28-1.noarch"] {
        assert!(all.iter().any(|found| found == name), "{name}: {all:?}");
    }
    // `dnf clean all` leaves a few files of its own.
    let scrubbed = [
        "machine-id",
        "initiator name",
        "logs",
        "downloaded packages and package lists",
    ];
    assert_eq!(facts.scrubbed, scrubbed);
    site.look_into(&version, |root| {
        assert_eq!(fs::read(root.join("etc/machine-id")).unwrap(), b"");
        let conf = fs::read_to_string(root.join("etc/dnf/dnf.conf")).unwrap();
        assert!(conf.contains("[main]\nexclude=kernel-*\n"), "{conf}");
        let repositories = crate::site::entries(&root.join("etc/yum.repos.d"));
        assert_eq!(repositories, [root.join("etc/yum.repos.d/fedora.repo")]);
        assert!(!root.join("root/.rpmmacros").exists());
        let selinux = fs::read_to_string(root.join("etc/selinux/config")).unwrap();
        assert_eq!(selinux, "SELINUX=disabled\n");
        let name = fs::read_link(root.join("etc/iscsi/initiatorname.iscsi")).unwrap();
        assert_eq!(name.to_str(), Some("/run/initiatorname.iscsi"));
        let units = root.join("etc/systemd/system");
        assert!(
            units
                .join("sysinit.target.wants/netroot-iscsid.service")
                .is_symlink()
        );
        let masked = fs::read_link(units.join("iscsid.service")).unwrap();
        assert_eq!(masked.to_str(), Some("/dev/null"));
    });
    let initramfs = crate::site::initramfs("4.18.16-300.fc28.x86_64");
    let taken_out = site.path("library/images/fc28/1/initramfs.img");
    assert_eq!(fs::read(taken_out).unwrap(), initramfs);
    site.assert_clean();
}

#[test]
fn an_upgrade_is_the_described_sequence() {
    let mirrors = Repositories::new();
    let site = site_with_fc28(&mirrors);
    mirrors.publish(&NEW);
    let before = text(&site, "fc28", LOG);
    let conf = text(&site, "fc28", "etc/dnf/dnf.conf");
    let built = change(&site, "fc28", "fc29", upgrade()).unwrap();
    assert_eq!(built.version.to_string(), "fc29@1");

    // The kernel is excluded again when the caches are cleared, and was not for the upgrade.
    let log = text(&site, "fc29", LOG);
    let kernel = "4.19.5-300.fc29.x86_64";
    let expected = format!(
        "dnf distro-sync -y --releasever=29\nexclude=\n\
         dracut --force /boot/initramfs-{kernel}.img {kernel}\n\
         dnf clean all\nexclude=kernel-*\n"
    );
    assert_eq!(log.strip_prefix(&before), Some(&*expected));
    assert_eq!(text(&site, "fc29", "etc/dnf/dnf.conf"), conf);

    let version = site.version("fc29");
    let facts = &version.manifest().facts;
    let distribution = facts.distribution.as_ref().unwrap();
    assert_eq!(distribution.release.as_deref(), Some("29"));
    assert_eq!(facts.kernel_version, kernel);
    assert_eq!(facts.parent.as_ref().unwrap().to_string(), "fc28@1");
    let out = site.path("library/images/fc29/1");
    assert_eq!(fs::read_to_string(out.join("vmlinuz")).unwrap(), kernel);
    let initramfs = crate::site::initramfs(kernel);
    assert_eq!(fs::read(out.join("initramfs.img")).unwrap(), initramfs);
    let all = packages(&site, "fc29");
    for name in ["fedora-release-29-1.x86_64", "tiny-29-1.noarch"] {
        assert!(all.iter().any(|found| found == name), "{name}: {all:?}");
    }
    site.library
        .verify(site.version("fc28").id(), &Quiet)
        .unwrap();
    site.assert_clean();
}

#[test]
fn only_netroot_changes_the_kernel() {
    let mirrors = Repositories::new();
    let site = site_with_fc28(&mirrors);
    mirrors.publish(&NEW);
    change(&site, "fc28", "fc29", upgrade()).unwrap();
    mirrors.publish(&UPDATES);
    let kernel = |version: &str| {
        site.version(version)
            .manifest()
            .facts
            .kernel_version
            .clone()
    };

    let by_hand = ["dnf", "-y", "--refresh", "upgrade"].map(OsString::from);
    let by_hand = Change::Script(Script::from_words(&by_hand));
    change(&site, "fc29", "fc29", by_hand).unwrap();
    assert_eq!(text(&site, "fc29@2", "usr/share/tiny"), "29.1");
    assert_eq!(kernel("fc29@2"), "4.19.5-300.fc29.x86_64");

    let built = change(&site, "fc29", "fc29", Change::Update).unwrap();
    assert_eq!(built.version.to_string(), "fc29@3");
    assert_eq!(kernel("fc29@3"), "4.20.3-200.fc29.x86_64");
    let conf = text(&site, "fc29@3", "etc/dnf/dnf.conf");
    assert_eq!(conf, text(&site, "fc29@2", "etc/dnf/dnf.conf"));
}

#[test]
fn a_packages_script_reaches_nothing_of_the_host() {
    let mirrors = Repositories::new();
    let site = site_with_fc28(&mirrors);
    let file = site.path("file-of-the-host");
    write(&file, &[7; 1 << 20]);
    let device = Loop::over(&file);
    let (major, minor) = device.number();
    let attempts = [
        format!("mknod /dev/disk b {major} {minor} && dd if=/dev/zero of=/dev/disk count=1"),
        format!("mknod /root/disk b {major} {minor} && dd if=/dev/zero of=/root/disk count=1"),
        format!("echo evil >>{}", file.display()),
        String::from("chmod 0 /dev/null"),
        String::from("systemctl is-system-running"),
        String::from("systemctl show --property=Version"),
    ];
    let script: String = attempts
        .iter()
        .map(|attempt| format!("({attempt}) && echo '{attempt}' >>/root/allowed\n"))
        .collect();
    let script = format!("touch /root/allowed\nsystemctl restart sshd.service\n{script}:");
    mirrors.publish(&Release {
        script: &script,
        ..NEW
    });
    change(&site, "fc28", "fc29", upgrade()).unwrap();
    assert_eq!(text(&site, "fc29", "root/allowed"), "");
    drop(device);
    assert_eq!(fs::read(&file).unwrap(), [7; 1 << 20]);
    site.assert_clean();
}

#[test]
fn an_upgrade_that_finds_no_release_leaves_everything() {
    let mirrors = Repositories::new();
    let site = site_with_fc28(&mirrors);
    let error = change(&site, "fc28", "fc29", upgrade()).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("dnf distro-sync"), "{error}");
    assert!(error.contains("29/repodata/repomd.xml"), "{error}");
    assert!(site.library.image(&"fc29".parse().unwrap()).is_err());
    site.library
        .verify(site.version("fc28").id(), &Quiet)
        .unwrap();
    site.assert_clean();
}

/// Runs the step of `section` that edits dnf.conf on `conf`.
fn edited(section: &str, conf: &str) -> String {
    let recipe: toml::Table = include_str!("../../images/fedora.toml").parse().unwrap();
    let steps = recipe[section].as_array().unwrap().iter();
    let mut words = steps
        .filter_map(|step| step.get("run")?.as_array())
        .filter(|words| words.last().unwrap().as_str() == Some("/etc/dnf/dnf.conf"))
        .map(|words| words.iter().map(|word| word.as_str().unwrap()));
    let (mut words, None) = (words.next().unwrap(), words.next()) else {
        panic!("{section} edits dnf.conf more than once");
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), conf).unwrap();
    let mut sed = Command::new(words.next().unwrap());
    sed.args(words.filter(|word| *word != "/etc/dnf/dnf.conf"));
    assert!(sed.arg(file.path()).status().unwrap().success());
    fs::read_to_string(file.path()).unwrap()
}

#[test]
fn what_dnf_excludes_comes_back_word_for_word() {
    let check = |conf: &str, meanwhile: &str| {
        let lifted = edited("unhold", conf);
        let effective: String = lifted
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(effective, meanwhile);
        assert_eq!(edited("hold", &lifted), conf);
    };
    check("[main]\nexclude=kernel-*\n", "[main]\nexclude=\n");
    check("[main]\nbest=1\n", "[main]\nbest=1\n");
    check(
        "[main]\nexcludepkgs = nvidia* kernel kernel-*,vim\nbest=1\n",
        "[main]\nexcludepkgs = nvidia*  ,vim\nbest=1\n",
    );
    check(
        "[main]\nexclude=akmod-kernel-tools\n",
        "[main]\nexclude=akmod-kernel-tools\n",
    );
}

#[test]
fn the_kernel_is_excluded_once_beside_what_is_excluded_already() {
    let check = |conf: &str, expected: &str| assert_eq!(edited("prepare", conf), expected);
    let excluded = "[main]\nexclude=kernel-*\nbest=1\n";
    check("[main]\nbest=1\n", excluded);
    check(excluded, excluded);
    check("# comment\n", "[main]\nexclude=kernel-*\n# comment\n");
    check(
        "[main]\nexclude = vim\n[fedora]\n",
        "[main]\nexclude =kernel-* vim\n[fedora]\n",
    );
}
