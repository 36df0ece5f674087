//! Recipes over a tree of a few programs: read strictly, done step by step, and nothing half.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use netroot::build::{
    self, BuildRequest, Change, ChangeRequest, Custom, Keep, Recipes, Script, Scrub,
};
use netroot::exec::Cancel;
use netroot::library::Quiet;
use netroot::library::manifest::Distribution;

use crate::site::{KERNEL, Site, run, write};
use crate::upgrades::programs;

/// A site whose library has a recipe `tiny`, which bootstraps from an archive of a few programs.
pub(crate) fn site_with_recipe() -> Site {
    let site = Site::new();
    let tree = site.tree(KERNEL);
    programs(&tree);
    write(&tree.join("etc/machine-id"), b"0123456789abcdef\n");
    write(&tree.join("etc/ssh/ssh_host_rsa_key"), b"secret\n");
    write(&tree.join("etc/os-release"), b"ID=tiny\nVERSION_ID=1\n");
    let next = b"Package: base-files\nStatus: install ok installed\nVersion: 13\n";
    write(&tree.join("root/next"), next);
    let archive = site.path("tree.tar");
    let (archive, tree) = (archive.to_str().unwrap(), tree.to_str().unwrap());
    run("tar", &["-C", tree, "-cf", archive, "."]);
    write_recipe(&site, &with_archive(&site, RECIPE));
    site
}

fn with_archive(site: &Site, recipe: &str) -> String {
    recipe.replace("@ARCHIVE@", site.path("tree.tar").to_str().unwrap())
}

fn write_recipe(site: &Site, text: &str) {
    write(&site.path("library/recipes/tiny.toml"), text.as_bytes());
}

const RECIPE: &str = r#"
format = 1
about = "A few programs"
for = ["tiny"]
[releases]
"2" = "two"
[[bootstrap]]
host = ["tar", "-C", "{tree}", "-xf", "@ARCHIVE@"]
unless = { id = "other" }
[[prepare]]
say = "preparing {distribution} {release}"
run = ["sh", "-c", "echo $0 $1 >/root/prepared; echo $KEY >>/root/prepared", "{distribution}", "{release}"]
env = { KEY = "value" }
[[prepare]]
write = "/etc/made/by/recipe"
text = "text with ${braces}\n"
mode = "0600"
[[prepare]]
run = ["touch", "/root/never"]
when = { program = "no-such-program" }
[[install]]
run = ["sh", "-c", "echo $* >/root/packages", "sh", "{packages}"]
[[update]]
run = ["sh", "-c", "echo updated >>/root/changes; cp /root/next /var/lib/dpkg/status"]
[[upgrade]]
do = "lift"
[[upgrade]]
run = ["sh", "-c", "echo from {current} to {release} >>/root/changes; echo ID=tiny >/etc/os-release"]
[[lift]]
run = ["sh", "-c", "echo lifted >>/root/changes"]
[[initramfs]]
run = ["sh", "-c", "echo initramfs of {kernel} >>/root/changes"]
[[clean]]
remove = ["/root/.cache"]
[[scrub]]
say = "machine-id"
empty = ["/etc/machine-id"]
[[scrub]]
say = "SSH host keys"
remove = ["/etc/ssh/ssh_host_*"]
[[scrub]]
say = "nothing that is there"
remove = ["/var/none/*"]
"#;

fn build_request(site: &Site) -> BuildRequest {
    let mut request = BuildRequest::new("one".parse().unwrap(), "tiny:1".parse().unwrap());
    let copied = site.path("copied");
    write(&copied.join("below/file"), b"from the host\n");
    let script = site.path("change.sh");
    write(&script, b"#!/bin/sh\ncat /etc/hostname >/root/told\n");
    request.packages = vec!["vim".into(), "less".into()];
    request.custom = Custom {
        hostname: Some("lab".into()),
        copies: vec![format!("{}:/opt/copied", copied.display()).parse().unwrap()],
        scripts: vec![Script::from_words(&[OsString::from(script)])],
        ..Custom::default()
    };
    request
}

fn text(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap()
}

#[test]
fn a_recipe_makes_updates_and_upgrades_an_image() {
    let site = site_with_recipe();
    let built = site.build(&build_request(&site)).unwrap();
    assert_eq!(built.version.to_string(), "one@1");
    let version = site.version("one");
    let facts = &version.manifest().facts;
    assert_eq!(facts.recipe.as_ref().unwrap().name, "tiny");
    assert_eq!(facts.scrubbed, ["machine-id", "SSH host keys"]);
    assert_eq!(facts.kernel_version, KERNEL);
    site.look_into(&version, |root| {
        assert_eq!(text(root, "root/prepared"), "tiny 1\nvalue\n");
        assert_eq!(text(root, "etc/made/by/recipe"), "text with ${braces}\n");
        assert_eq!(text(root, "root/packages"), "vim less\n");
        assert_eq!(text(root, "root/told"), "lab\n");
        assert_eq!(text(root, "opt/copied/below/file"), "from the host\n");
        assert_eq!(text(root, "etc/machine-id"), "");
        assert_eq!(
            text(root, "root/changes"),
            format!("initramfs of {KERNEL}\n")
        );
        assert!(!root.join("root/never").exists());
        assert!(!root.join("etc/ssh/ssh_host_rsa_key").exists());
        assert_eq!(fs::read_dir(root.join("run")).unwrap().count(), 0);
    });
    let change = |to: &str, change| {
        let spec = "one".parse().unwrap();
        let request = ChangeRequest::new(spec, to.parse().unwrap(), vec![change]);
        build::change(&site.library, &request, &Cancel::new(), &Quiet)
            .unwrap()
            .unwrap()
    };
    assert_eq!(change("one", Change::Update).version.to_string(), "one@2");
    let release = "2".into();
    let built = change("two", Change::Upgrade { release });
    assert_eq!(built.version.to_string(), "two@1");
    let version = site.version("two");
    let parent = version.manifest().facts.parent.clone().unwrap();
    assert_eq!(parent.to_string(), "one@2");
    site.look_into(&version, |root| {
        let initramfs = format!("initramfs of {KERNEL}\n");
        let expected = [
            &initramfs,
            "updated\n",
            &initramfs,
            "lifted\nfrom 1 to two\n",
            &initramfs,
        ];
        assert_eq!(text(root, "root/changes"), expected.concat());
    });
    for spec in ["one@1", "one@2"] {
        site.library
            .verify(site.version(spec).id(), &Quiet)
            .unwrap();
    }
    site.assert_clean();
}

#[test]
fn a_plan_of_a_recipe_tells_every_step_and_touches_nothing() {
    let site = site_with_recipe();
    let plan = build::plan_image(&site.library, &build_request(&site), &Cancel::new()).unwrap();
    let plan = plan.to_string();
    for line in [
        "1. make a scratch file system",
        "sh -c echo $0 $1 >/root/prepared; echo $KEY >>/root/prepared tiny 1` in it\n",
        " -xf ",
        "` on this host, as root\n",
        ". preparing tiny 1: run `sh -c ",
        "if it has no-such-program\n",
        "vim less` in it\n",
        ". call it lab: write /etc/hostname\n",
        ". scrub: SSH host keys: remove /etc/ssh/ssh_host_*\n",
    ] {
        assert!(plan.contains(line), "{line} is not in {plan}");
    }
    assert!(site.library.images().unwrap().is_empty());
    site.assert_clean();
}

#[test]
fn a_plan_decides_what_is_known_before() {
    let site = site_with_recipe();
    let steps = r#"
[[prepare]]
say = "for tiny only"
run = ["sh", "-c", "true"]
when = { id = "tiny" }
[[prepare]]
say = "for others"
run = ["sh", "-c", "true"]
when = { id = "other" }
[[upgrade]]
say = "a script"
run = ["sh", "-c", """
true
test -n "a line that is longer than anybody wants to read on a terminal, and says nothing at all"
"""]
"#;
    write_recipe(&site, &with_archive(&site, &format!("{RECIPE}{steps}")));
    let plan = build::plan_image(&site.library, &build_request(&site), &Cancel::new()).unwrap();
    let plan = plan.to_string();
    assert!(
        plan.contains(". for tiny only: run `sh -c true` in it\n"),
        "{plan}"
    );
    assert!(!plan.contains("for others"), "{plan}");
    site.build(&build_request(&site)).unwrap();
    let release = "2".into();
    let upgrade = vec![Change::Upgrade { release }];
    let request = ChangeRequest::new("one".parse().unwrap(), "two".parse().unwrap(), upgrade);
    let plan = build::plan_change(&site.library, &request).unwrap();
    let json = serde_json::to_string(&plan).unwrap();
    let plan = plan.to_string();
    for line in [
        "run `sh -c echo from 1 to two >>/root/changes; ",
        ". a script: run `sh -c true test -n \"a line that is longer than anybody wants to read on a \
         terminal, and says nothing …` in it\n",
    ] {
        assert!(plan.contains(line), "{line} is not in {plan}");
    }
    assert!(!plan.contains("and says nothing at all"), "{plan}");
    assert!(json.contains("and says nothing at all"), "{json}");
}

#[test]
fn a_directory_is_prepared_by_a_recipe_that_is_asked_for() {
    let site = site_with_recipe();
    let tree = site.path("tree");
    let mut request = site.request(&tree);
    site.build(&request).unwrap();
    site.look_into(&site.version("fc28"), |root| {
        assert_eq!(text(root, "etc/machine-id"), "0123456789abcdef\n");
    });
    request.recipe = Some("tiny".into());
    request.scrub = Scrub::Nothing;
    site.build(&request).unwrap();
    site.look_into(&site.version("fc28@2"), |root| {
        assert_eq!(text(root, "root/prepared"), "tiny\nvalue\n");
        assert_eq!(text(root, "etc/machine-id"), "0123456789abcdef\n");
    });
    assert!(
        !tree.join("root/prepared").exists(),
        "the source was changed"
    );
}

#[test]
fn a_draft_that_failed_is_kept_if_asked() {
    let site = site_with_recipe();
    site.build(&build_request(&site)).unwrap();
    let script = Script::Shell("echo here >/root/here; exit 7".into());
    let (from, to) = ("one".parse().unwrap(), "one".parse().unwrap());
    let mut request = ChangeRequest::new(from, to, vec![Change::Script(script)]);
    let fail = |request: &ChangeRequest| {
        build::change(&site.library, request, &Cancel::new(), &Quiet).unwrap_err()
    };
    let error = format!("{:#}", fail(&request));
    assert!(error.contains("exit status: 7"), "{error}");
    site.assert_clean();
    request.keep = Keep::Failed;
    fail(&request);
    site.library.sweep().unwrap();
    let kept = crate::site::entries(&site.path("library/images/one"));
    let kept: Vec<_> = kept
        .iter()
        .filter(|path| path.to_str().unwrap().contains("/.failed-"))
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(kept[0].join("disk.img").exists());
    assert_eq!(site.library.images().unwrap()[0].versions, [1]);
}

#[test]
fn a_mistake_is_told_with_file_line_and_key() {
    let site = site_with_recipe();
    let check = |text: &str, expected: &[&str]| {
        write_recipe(&site, text);
        let error = format!("{:#}", Recipes::of(&site.library).unwrap_err());
        for part in expected.iter().chain(&["recipes/tiny.toml"]) {
            assert!(error.contains(part), "{part} is not in {error}");
        }
    };
    check("about = 'x'\n", &["format = 1"]);
    check("format = 2\n", &["newer netroot"]);
    let unknown = [":2: ", "there is no key `abuot`", "; did you mean `about`?"];
    check("format = 1\nabuot = 'x'\n", &unknown);
    let unknown = [":2: ", "no key `releses`", "; did you mean `releases`?"];
    check("format = 1\nreleses = { 1 = 'one' }\n", &unknown);
    check("format = 1\n[releses]\n1 = 'one'\n", &unknown);
    check("format = 1\nwhatever = 1\n", &[":2: ", "`[[whatever]]`"]);
    let steps: [(&str, &[&str]); 12] = [
        ("[[prepare]]\nrnu = ['true']\n", &[":3: ", "rnu"]),
        ("[[prepare]]\nsay = 'x'\n", &[":2: ", "exactly one of run"]),
        ("[[prepare]]\nrun = []\n", &["`run`", "no program"]),
        ("[[prepare]]\nrun = ['{relaese}']\n", &["{relaese}"]),
        ("[[prepare]]\nremove = ['etc/x']\n", &["`remove`", "etc/x"]),
        ("[[prepare]]\nremove = ['/etc/../x']\n", &["/etc/../x"]),
        ("[[prepare]]\nwrite = '/x'\n", &["needs a `text`"]),
        (
            "[[prepare]]\nwrite = '/x'\ntext = ''\nmode = '999'\n",
            &["999"],
        ),
        ("[[prepare]]\nhost = ['true']\n", &["only bootstrap"]),
        ("[[scrub]]\nrun = ['true']\n", &["scrub only removes"]),
        ("[[prepare]]\ndo = 'nothing'\n", &["no section `nothing`"]),
        (
            "[[perpare]]\nrun = ['true']\n",
            &["no step does this section", "did you mean `prepare`?"],
        ),
    ];
    for (text, expected) in steps {
        check(&format!("format = 1\n{text}"), expected);
    }
    check(
        "format = 1\n[[prepare]]\ndo = 'a'\n[[a]]\ndo = 'a'\n",
        &["would do itself"],
    );
}

#[test]
fn a_placeholder_that_nothing_can_fill_is_told_with_file_line_and_key() {
    let site = site_with_recipe();
    let check = |text: &str, expected: &str| {
        write_recipe(&site, &format!("format = 1\n{text}"));
        let error = format!("{:#}", Recipes::of(&site.library).unwrap_err());
        let file = site.path("library/recipes/tiny.toml");
        let expected = format!("{}:{expected}", file.display());
        assert!(error.contains(&expected), "{expected} is not in {error}");
    };
    check(
        "[[update]]\nrun = ['x']\n[[update]]\nrun = ['to', '{release}']\n",
        "4: `run`: {release} means nothing in update, which knows {kernel}, {current}",
    );
    check(
        "[[update]]\nsay = 'to {release}'\nrun = ['x']\n",
        "2: `say`: {release} means nothing in update, which knows {kernel}, {current}",
    );
    // Where it is done, not where it stands.
    check(
        "[[initramfs]]\ndo = 'a'\n[[a]]\nrun = ['{packages}']\n",
        "4: `run`: {packages} means nothing in initramfs, which knows {kernel}",
    );
    check(
        "[[bootstrap]]\nrun = ['ls', '{tree}']\n",
        "2: `run`: {tree} is for programs of the host only",
    );
    check(
        "[[scrub]]\nsay = 'of {kernel}'\nremove = ['/x']\n",
        "2: `say`: {kernel} means nothing in scrub, which has no placeholders",
    );
    check(
        "[boot]\nkernel = ['/k-{kernel}']\ninitramfs = ['/i-{release}']\n",
        "4: `initramfs`: {release} means nothing in [boot], which knows {kernel}",
    );
    check(
        "[boot]\nkernel = ['/k-{kernle}']\n",
        "3: `kernel`: there is no placeholder {kernle}",
    );
    check(
        "[releases]\n12 = '{release}'\n",
        "3: `12`: {release} means nothing in [releases], which has no placeholders",
    );
}

#[test]
fn a_recipe_of_the_library_is_preferred_and_two_for_one_distribution_are_refused() {
    let site = site_with_recipe();
    let own = |name: &str| site.path(&format!("library/recipes/{name}.toml"));
    let distribution = Distribution {
        id: "debian".into(),
        ..Distribution::default()
    };
    let chosen = |act: &dyn Fn(&Recipes) -> anyhow::Result<String>| {
        act(&Recipes::of(&site.library).unwrap()).map_err(|error| error.to_string())
    };
    let tree = |recipes: &Recipes| Ok(recipes.for_tree(Some(&distribution))?.name().to_owned());
    let source = |recipes: &Recipes| Ok(recipes.to_bootstrap("debian")?.name().to_owned());
    assert_eq!(chosen(&tree).unwrap(), "debian");
    let text = RECIPE.replace(r#"["tiny"]"#, r#"["debian"]"#);
    write(&own("site"), text.as_bytes());
    assert_eq!(chosen(&tree).unwrap(), "site");
    assert_eq!(chosen(&source).unwrap(), "site");
    write(&own("another"), text.as_bytes());
    for error in [chosen(&tree).unwrap_err(), chosen(&source).unwrap_err()] {
        let expected = format!(
            "choosing a recipe for debian: both {} and {} say that they are for it; take it out of \
             `for` in one of them, or name one by --recipe",
            own("another").display(),
            own("site").display()
        );
        assert_eq!(error, expected);
    }
    // The name of a recipe of the library is a recipe's, whoever else is for that.
    fs::rename(own("another"), own("debian")).unwrap();
    assert_eq!(chosen(&source).unwrap(), "debian");
}

#[test]
fn the_release_package_of_rhel_has_another_name() {
    let recipes = Recipes::built_in().unwrap();
    let recipe: toml::Table = recipes.named("fedora").unwrap().text().parse().unwrap();
    let steps = recipe["bootstrap"].as_array().unwrap().iter();
    let installs = |id: &str| {
        let is = |step: &toml::Value, key: &str| {
            step.get(key).and_then(|it| it.get("id")?.as_str()) == Some(id)
        };
        let conditional = |step: &toml::Value| step.get("when").is_some();
        let due = |step: &&toml::Value| match conditional(step) {
            true => is(step, "when"),
            false => !is(step, "unless"),
        };
        let packages = steps.clone().filter(due).filter_map(|step| {
            let words = step.get("host")?.as_array()?;
            let at = words
                .iter()
                .position(|word| word.as_str() == Some("install"))?;
            words.get(at + 1)?.as_str()
        });
        packages.collect::<Vec<_>>()
    };
    assert_eq!(installs("rhel"), ["redhat-release"]);
    for id in ["fedora", "centos", "rocky", "almalinux"] {
        assert_eq!(installs(id), ["{distribution}-release"], "{id}");
    }
}

#[test]
fn what_a_recipe_cannot_do_is_refused_before_anything_starts() {
    let site = site_with_recipe();
    let fail = |from: &str| {
        let request = BuildRequest::new("x".parse().unwrap(), from.parse().unwrap());
        format!("{:#}", site.build(&request).unwrap_err())
    };
    let error = fail("slackware:15");
    assert!(
        error.contains("no recipe for `slackware`") && error.contains("debian"),
        "{error}"
    );
    assert!(fail("generic:1").contains("cannot bootstrap"));
    write_recipe(
        &site,
        "format = 1\nfor = ['tiny']\n[[bootstrap]]\nhost = ['no-such-tool']\n",
    );
    let error = fail("tiny:1");
    assert!(
        error.contains("needs no-such-tool, which is not installed"),
        "{error}"
    );
    let offers = |offers: &str| {
        let text = format!("format = 1\nfor = ['tiny']\noffers = ['{offers}']\n");
        write_recipe(&site, &text);
        Recipes::of(&site.library).map(|all| all.named("tiny").unwrap().offers().to_vec())
    };
    assert_eq!(offers("tiny:1").unwrap()[0].to_string(), "tiny:1");
    for (offer, why) in [
        ("debian:12", "not among what it is `for`"),
        ("tiny", "release"),
    ] {
        let error = format!("{:#}", offers(offer).unwrap_err());
        assert!(error.contains(why) && error.contains("offers"), "{error}");
    }
    assert!(site.library.images().unwrap().is_empty());
    site.assert_clean();
}
