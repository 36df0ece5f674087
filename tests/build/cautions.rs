//! What an upgrade or an update sees to before it changes anything, and before it seals.

use std::fs;
use std::os::unix::fs::FileExt;

use netroot::build::{self, Built, Change, ChangeRequest};
use netroot::exec::Cancel;
use netroot::library::Quiet;

use crate::recipes::site_with_recipe;
use crate::site::{Site, run};

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
fn an_upgrade_to_the_release_that_is_there_is_refused_before_anything_starts() {
    let site = site();
    let error = change(&site, "two", upgrade("1")).unwrap_err().to_string();
    assert!(error.contains("one@1 is tiny 1 already"), "{error}");
    assert!(error.contains("image update one"), "{error}");
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
fn a_damaged_version_is_not_made_into_another() {
    let site = site();
    let version = site.version("one");
    let disk = version.disk_path();
    run("chattr", &["-i", disk.to_str().unwrap()]);
    let file = fs::OpenOptions::new().write(true).open(&disk).unwrap();
    file.write_all_at(b"rot", 4096).unwrap();
    for wanted in [upgrade("2"), Change::Update] {
        let error = format!("{:#}", change(&site, "one", wanted).unwrap_err());
        assert!(error.contains("one@1 is not what was sealed"), "{error}");
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
