//! Options whose meaning depends on the source.

use std::fs;
use std::path::Path;

use netroot::build::{self, Excludes, FileSystem, ImportRequest, InitramfsCheck};
use netroot::exec::Cancel;
use netroot::library::Quiet;

use crate::imports::bare;
use crate::recipes::site_with_recipe;
use crate::site::{KERNEL, Site, write};

const BOTH: [FileSystem; 2] = [FileSystem::Ext4, FileSystem::Erofs];

/// What became of a path of the version that a request makes.
fn built(site: &Site, request: &build::BuildRequest, look: impl Fn(&Path) + Send + Sync) {
    for filesystem in BOTH {
        let mut request = request.clone();
        request.image = format!("on-{}", filesystem.name()).parse().unwrap();
        request.filesystem = filesystem;
        let built = site.build(&request).unwrap();
        site.look_into(&site.version(&built.version.to_string()), &look);
    }
    site.assert_clean();
}

#[test]
fn what_is_excluded_of_a_distribution_is_left_out_of_what_it_became() {
    let site = site_with_recipe();
    let mut request = build::BuildRequest::new("x".parse().unwrap(), "tiny:1".parse().unwrap());
    request.excludes = Excludes::new(["/root/prep*", "/var/lib/dpkg"]);
    built(&site, &request, |root| {
        assert!(!root.join("root/prepared").exists());
        assert!(!root.join("var/lib/dpkg").exists());
        assert!(root.join("etc/made/by/recipe").exists());
    });
}

#[test]
fn what_is_excluded_of_a_source_can_be_made_anew() {
    let site = site_with_recipe();
    let excluded = ["/etc/hostname", "/root/old"];
    let tree = site.path("tree");
    for name in excluded {
        write(&tree.join(name.trim_start_matches('/')), b"old\n");
    }
    let archive = site.path("old.tar");
    let (from, to) = (tree.to_str().unwrap(), archive.to_str().unwrap());
    crate::site::run("tar", &["-C", from, "-cf", to, "."]);
    for source in [&tree, &archive] {
        let mut request = site.request(source);
        request.excludes = Excludes::new(excluded);
        request.custom.hostname = Some("lab".into());
        built(&site, &request, |root| {
            let name = fs::read_to_string(root.join("etc/hostname")).unwrap();
            assert_eq!(name, "lab\n", "{}", source.display());
            assert!(!root.join("root/old").exists(), "{}", source.display());
        });
    }
}

#[test]
fn a_bare_file_system_goes_by_the_recipe_that_is_asked_for() {
    let site = site_with_recipe();
    let tree = site.tree(KERNEL);
    // Nobody could tell from this what it is.
    write(&tree.join("etc/os-release"), b"ID=own\n");
    let disk = bare(&site, &["mkfs.ext4", "-q", "-F"], &tree);
    let mut request = ImportRequest::new("own".parse().unwrap(), disk);
    request.check = InitramfsCheck::Skip;
    request.recipe = Some("nosuch".into());
    let refused = build::plan_import(&site.library, &request, &Cancel::new()).unwrap_err();
    assert!(format!("{refused:#}").contains("no recipe `nosuch`"));
    request.recipe = Some("tiny".into());
    build::import(&site.library, &request, &Cancel::new(), &Quiet).unwrap();
    let version = site.version("own@1");
    let facts = &version.manifest().facts;
    assert_eq!(facts.recipe.as_ref().unwrap().name, "tiny");
    assert_eq!(facts.scrubbed, ["machine-id", "SSH host keys"]);
    site.look_into(&version, |root| {
        assert!(!root.join("etc/ssh/ssh_host_rsa_key").exists());
    });
    site.assert_clean();
}
