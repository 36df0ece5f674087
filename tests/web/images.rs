//! Images: what their pages tell, and what can be asked for from there.

use netroot::library::*;

use super::site::{Server, Site, mac};

fn fields<const N: usize>(fields: [(&'static str, &str); N]) -> Vec<(&'static str, String)> {
    fields.map(|(name, value)| (name, value.to_owned())).into()
}

fn hidden<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let begin = format!("name=\"{name}\" value=\"");
    let values = page.split(begin.as_str()).skip(1);
    values.map(|rest| rest.split('"').next().unwrap()).collect()
}

/// Seals a version with packages, of which nothing would boot.
fn seal_with(site: &Site, image: &str, facts: VersionFacts) -> VersionId {
    let mut draft = site.lib.draft(&image.parse().unwrap()).unwrap();
    draft.create_sparse(1 << 20).unwrap();
    draft.add_kernel(&mut &b"a kernel"[..]).unwrap();
    draft.add_initramfs(&mut &b"an initramfs"[..]).unwrap();
    draft.seal(facts, &Quiet).unwrap().id().clone()
}

fn facts(parent: Option<&VersionId>) -> VersionFacts {
    let package = |name: &str, version: &str| manifest::Package {
        name: name.to_owned(),
        version: version.to_owned(),
    };
    VersionFacts {
        parent: parent.cloned(),
        source: "debian:bookworm <script>alert(1)</script>".to_owned(),
        kernel_version: "6.1.0-21-amd64".to_owned(),
        distribution: Some(manifest::Distribution {
            id: "debian".to_owned(),
            name: Some("Debian \u{202e}12".to_owned()),
            ..manifest::Distribution::default()
        }),
        packages: Some(vec![package("bash", "5.2-1"), package("vim", "9.0")]),
        scrubbed: vec!["SSH host keys".to_owned()],
        ..VersionFacts::default()
    }
}

/// `lab@1`, `lab@2` made from it, `next@1` made from that, and three clients of `lab`.
fn three_versions() -> Site {
    let site = Site::new();
    let first = seal_with(&site, "fc28", facts(None));
    site.add(1, "seat-1", Mode::Shared, &[]);
    site.add(2, "seat-2", Mode::Persistent, &[]);
    site.add(3, "seat-3", Mode::Persistent, &[]);
    let second = seal_with(&site, "fc28", facts(Some(&first)));
    seal_with(&site, "next", facts(Some(&second)));
    site
}

fn queued(site: &Site) -> Vec<Task> {
    let jobs = site.lib.jobs().unwrap().into_iter();
    jobs.map(|job| job.task).collect()
}

fn current(site: &Site) -> u32 {
    let image = site.lib.image(&"fc28".parse().unwrap()).unwrap();
    image.current.unwrap()
}

#[test]
fn no_image_yet_tells_how_to_begin() {
    let site = Site::new();
    let server = site.serve();
    let page = server.page("/images");
    assert!(page.contains("No images yet"), "{page}");
    let form = server.page("/images/build");
    assert!(
        form.contains("debian, fedora"),
        "what recipes bootstrap: {form}"
    );
    assert!(
        server
            .page("/images/diff")
            .contains("It takes two versions")
    );
}

#[test]
fn images_show_their_versions_and_who_boots_them() {
    let site = three_versions();
    let server = site.serve();
    let list = server.page("/images");
    for told in [
        "id=\"image-fc28\"",
        "href=\"/images/next\"",
        "1 shared, 2 persistent",
        "2 with a disk of another version",
        "kernel 6.1.0-21-amd64",
    ] {
        assert!(list.contains(told), "{told}: {list}");
    }
    let page = server.page("/images/fc28");
    let at = |text: &str| {
        page.find(text)
            .unwrap_or_else(|| panic!("{text} in {page}"))
    };
    assert!(at("fc28@2</a>") < at("fc28@1</a>"), "the newest first");
    assert!(page.contains("→ <a href=\"/images/next/1\">next@1</a>"));
    assert!(page.contains("href=\"/clients/seat-1\""));
    assert!(
        page.contains("/images/diff?a=fc28%401&#38;b=fc28%402")
            || page.contains("/images/diff?a=fc28%401&amp;b=fc28%402"),
        "{page}"
    );
    assert_eq!(server.get("/images/nothing").status, 404);
    assert_eq!(server.get("/images/%3Cscript%3E").status, 400);
}

#[test]
fn a_version_tells_its_manifest_in_words_and_its_packages_are_searched() {
    let site = three_versions();
    let server = site.serve();
    let page = server.page("/images/fc28/1");
    let version = site.lib.version(&"fc28@1".parse().unwrap()).unwrap();
    for told in [
        &version.manifest().disk.root.to_string(),
        "SSH host keys",
        "Have a disk that was made from it",
        "href=\"/clients/seat-2\"",
        "2 packages",
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
    assert!(!page.contains("<script>alert"), "{page}");
    assert!(!page.contains('\u{202e}'), "{page}");
    let found = server.page("/images/fc28/1?q=VI");
    assert!(found.contains("data-find=\"vim\""), "{found}");
    assert!(!found.contains("data-find=\"bash\""), "{found}");
    let none = server.page("/images/fc28/1?q=%3Cscript%3Ealert(1)");
    assert!(none.contains("There is no such package"), "{none}");
    assert!(!none.contains("<script>alert"), "{none}");
    assert_eq!(server.get("/images/fc28/7").status, 404);
}

#[test]
fn another_version_is_made_current_after_a_question_and_back_by_one_button() {
    let site = three_versions();
    let server = site.serve();
    let asked = server.page("/images/fc28/1/current");
    assert!(asked.contains("Make fc28@1 current?"), "{asked}");
    assert!(asked.contains("seat-1</a> boots fc28@1 next"), "{asked}");
    assert_eq!(hidden(&asked, "seen"), ["2"]);
    assert_eq!(current(&site), 2, "asking does nothing");
    let page = server.post_and_look("/images/fc28/1/current", &fields([("seen", "2")]));
    assert!(page.contains("fc28@1 is current now."), "{page}");
    assert_eq!(current(&site), 1);
    let undo = page.split("class=\"notice good\"").nth(1).unwrap();
    assert!(undo.contains("action=\"/images/fc28/2/current\""), "{undo}");
    let seen = hidden(undo, "seen")[0].to_owned();
    server.post_and_look("/images/fc28/2/current", &[("seen", seen.clone())]);
    assert_eq!(current(&site), 2);
    // The same button once more, on a page that is older than that.
    let page = server.post_and_look("/images/fc28/2/current", &[("seen", seen)]);
    assert!(page.contains("class=\"notice bad\""), "{page}");
}

#[test]
fn a_version_that_somebody_uses_goes_by_force_only_and_that_is_told() {
    let site = three_versions();
    let server = site.serve();
    let asked = server.page("/images/fc28/1/remove");
    assert!(asked.contains("seat-2"), "who uses it: {asked}");
    assert!(asked.contains("Remove it by force"), "{asked}");
    let refused = server.post_and_look("/images/fc28/1/remove", &[]);
    assert!(refused.contains("class=\"notice bad\""), "{refused}");
    assert!(site.lib.version(&"fc28@1".parse().unwrap()).is_ok());
    let page = server.post_and_look(
        "/images/fc28/1/remove",
        &fields([("when", "force"), ("shown", "fc28@1")]),
    );
    assert!(page.contains("Removed fc28@1."), "{page}");
    assert!(site.lib.version(&"fc28@1".parse().unwrap()).is_err());
    assert!(site.client(&mac(2)).clone.is_none());
    // Nobody uses this one, and it is the last of its image.
    let asked = server.page("/images/next/1/remove");
    assert!(!asked.contains("by force"), "{asked}");
    // A whole image, of what was shown.
    let asked = server.page("/images/next/remove");
    assert!(asked.contains("next with all its versions?"), "{asked}");
    assert_eq!(hidden(&asked, "shown"), ["next@1"]);
    let page = server.post_and_look("/images/next/remove", &[]);
    assert!(page.contains("was not shown before"), "{page}");
    let list = server.post_and_look("/images/next/remove", &fields([("shown", "next@1")]));
    assert!(list.contains("<h1>Images</h1>"), "{list}");
    assert_eq!(server.get("/images/next").status, 404);
}

#[test]
fn pruning_shows_what_goes_and_takes_nothing_else() {
    let site = Site::new();
    for _ in 0..4 {
        site.seal("fc28");
    }
    let server = site.serve();
    let asked = server.page("/images/fc28/prune?keep=2");
    assert!(asked.contains("Remove 2 old versions of fc28?"), "{asked}");
    assert_eq!(hidden(&asked, "shown"), ["fc28@1", "fc28@2"]);
    let form = |shown: &[&str]| {
        let mut form = fields([("keep", "2")]);
        form.extend(shown.iter().map(|one| ("shown", (*one).to_owned())));
        form
    };
    let page = server.post_and_look("/images/fc28/prune", &form(&["fc28@1"]));
    assert!(page.contains("was not shown before"), "{page}");
    let page = server.post_and_look("/images/fc28/prune", &form(&["fc28@1", "fc28@2"]));
    assert!(page.contains("Removed 2 old versions of fc28."), "{page}");
    let left = site.lib.image(&"fc28".parse().unwrap()).unwrap().versions;
    assert_eq!(left, [3, 4]);
    let asked = server.page("/images/fc28/prune");
    assert!(asked.contains("Nothing of fc28 can go"), "{asked}");
    assert_eq!(server.get("/images/fc28/prune?keep=0").status, 400);
}

#[test]
fn forms_ask_for_jobs() {
    let site = three_versions();
    let server = site.serve();
    let mut build = fields([
        ("image", "deb12"),
        ("from", "debian:bookworm"),
        ("packages", "vim  openssh-server"),
        ("hostname", "lab"),
        ("fs", "ext4"),
        ("size", "20G"),
    ]);
    build.push((
        "keys",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ5 anna\r\n".to_owned(),
    ));
    let page = server.post_and_look("/images/build", &build);
    assert!(page.contains("build deb12 from debian:bookworm"), "{page}");
    assert!(page.contains("queued"), "{page}");
    let list = server.page("/images");
    assert!(list.contains("build deb12 from debian:bookworm"), "{list}");
    server.post_and_look("/images/fc28/update", &[]);
    let upgrade = [("to", "fc29"), ("release", "29"), ("size", "1.5x")];
    server.post_and_look("/images/fc28/upgrade", &fields(upgrade));
    server.post_and_look("/images/fc28/1/verify", &[]);
    let tasks = queued(&site);
    assert!(matches!(&tasks[0], Task::Verify(task) if task.version.to_string() == "fc28@1"));
    assert!(matches!(&tasks[1], Task::Upgrade(task) if task.to.as_str() == "fc29"));
    assert!(matches!(&tasks[2], Task::Update(task) if task.image.to_string() == "fc28"));
    let Task::Build(task) = &tasks[3] else {
        panic!("{tasks:?}");
    };
    assert_eq!((task.packages.len(), task.authorized_keys.len()), (2, 1));
    assert_eq!(task.filesystem, FileSystem::Ext4);
    assert!(server.page("/images/fc28").contains("update fc28"));
}

#[test]
fn what_a_form_has_wrong_is_said_and_what_was_right_stays() {
    let site = three_versions();
    let server = site.serve();
    let wrong = fields([
        ("image", "<script>alert(1)</script>"),
        ("from", "debian:bookworm"),
        ("packages", "vim"),
        ("fs", "ext4"),
    ]);
    let answer = server.post("/images/build", &wrong);
    assert_eq!(answer.status, 422);
    assert!(answer.text.contains("role=\"alert\""), "{}", answer.text);
    assert!(answer.text.contains("value=\"debian:bookworm\""));
    assert!(!answer.text.contains("<script>alert"), "{}", answer.text);
    for (path, form) in [
        (
            "/images/fc28/upgrade",
            fields([("to", "Fc29"), ("release", "29")]),
        ),
        (
            "/images/fc28/upgrade",
            fields([("to", "fc29"), ("release", "--help")]),
        ),
    ] {
        let page = server.post_and_look(path, &form);
        assert!(page.contains("class=\"notice bad\""), "{page}");
    }
    assert_eq!(queued(&site), []);
}

/// What a worker found out about `fc28@1` and `fc28@2`.
const REPORT: &str = r#"{ "from": "fc28@1", "to": "fc28@2",
    "packages": { "added": [], "removed": [], "downgraded": [],
        "upgraded": [{ "name": "bash", "from": "5.1", "to": "5.2" }] },
    "files": { "removed": [],
        "added": [{ "path": "etc/<script>alert(1)</script>", "kind": "file", "size": 1 }],
        "changed": [{ "path": "etc/motd", "kind": "file",
            "aspects": [{ "what": "mode", "from": "0644", "to": "0600" }] }] } }"#;

fn compare(server: &Server) -> String {
    server.post_and_look("/images/diff", &fields([("a", "fc28@1"), ("b", "fc28@2")]))
}

#[test]
fn versions_are_compared_once_and_the_report_is_kept() {
    let site = three_versions();
    let server = site.serve();
    let path = "/images/diff?a=fc28@1&b=fc28@2";
    let page = server.page(path);
    assert!(page.contains("Nobody has compared them yet"), "{page}");
    assert_eq!(queued(&site).len(), 0, "looking asks for nothing");
    let page = compare(&server);
    assert!(page.contains("data-topic=\"job:1\""), "it waits: {page}");
    compare(&server);
    assert_eq!(queued(&site).len(), 1, "it is asked for already");
    let mut watching = server.watch("job:1");
    let claim = site.lib.claim_job("worker").unwrap().unwrap();
    watching.hears("job-head", "running");
    let outcome = claim.keep_report(REPORT.as_bytes()).unwrap();
    claim.finish(Ending::Done(outcome)).unwrap();
    watching.hears("job-head", "data-reload");
    let page = server.page(path);
    for told in [
        "5.1 → 5.2",
        "/etc/motd",
        "mode 0644 → 0600",
        "package upgraded",
    ] {
        assert!(page.contains(told), "{told}: {page}");
    }
    assert!(!page.contains("<script>alert"), "{page}");
    compare(&server);
    assert_eq!(queued(&site).len(), 1, "it is known");
    let found = server.page(&format!("{path}&q=motd"));
    assert!(
        found.contains("/etc/motd") && !found.contains("5.1 → 5.2"),
        "{found}"
    );
    let removed = server.page(&format!("{path}&kind=removed"));
    assert!(removed.contains("Nothing like that differs"), "{removed}");
    assert!(server.page("/jobs/1").contains("/etc/motd"));
    let other = server.page("/images/diff?a=fc28@2&b=fc28@1");
    assert!(other.contains("Nobody has compared them yet"), "{other}");
    assert_eq!(server.get("/images/diff?a=fc28@1&b=fc28@9").status, 404);
    assert_eq!(server.get("/images/diff?a=fc28&b=x").status, 400);
}

#[test]
fn who_watches_images_sees_builds_and_new_versions() {
    let site = three_versions();
    let server = site.serve();
    let (mut list, mut page) = (server.watch("images"), server.watch("image:fc28"));
    list.hears("image-fc28", "@2");
    page.hears("image-line", "fc28@2");
    server.post_and_look("/images/fc28/update", &[]);
    list.hears("image-work", "update fc28");
    let claim = site.lib.claim_job("worker").unwrap().unwrap();
    claim.show_progress(&JobProgress {
        step: 1,
        says: "fetching \u{202e}packages".to_owned(),
        fraction: Some(0.5),
    });
    page.hears("image-work", "value=\\\"50\\\"");
    let version = seal_with(&site, "fc28", facts(None));
    let warnings = Vec::new();
    let outcome = JobOutcome::Version { version, warnings };
    claim.finish(Ending::Done(outcome)).unwrap();
    list.hears("image-fc28", "@3");
    page.hears("image-line", "fc28@3");
    assert_eq!(server.get("/stream?topic=image:%3Cx%3E").status, 404);
}
