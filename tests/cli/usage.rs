//! Options that would do nothing are refused with the code of wrong usage, and say why; what is told
//! after an act is true for whom it names.

use std::fs;

use super::{MAC, Site, stderr};

/// What is refused with exit code 2, and what the refusal says.
fn assert_wrong_usage(site: &Site, args: &[&str], why: &str) {
    let output = site.run(args);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    assert!(said.contains(why), "{args:?}: {why} is not in {said}");
}

#[test]
fn an_option_that_would_do_nothing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc28", "5.10.1");
    let tree = dir.path().join("tree-fc28-5.10.1");
    let tar = dir.path().join("fc28.tar");
    fs::write(&tar, "no archive, and never opened").unwrap();
    let disk = dir.path().join("win.raw");
    fs::write(&disk, one_partition()).unwrap();
    let [tree, tar, disk] = [&tree, &tar, &disk].map(|path| path.to_str().unwrap());
    site.ok(&["client", "add", MAC, "--image", "fc28"]);
    let recipe = "format = 1\nfor = ['still']\n[[bootstrap]]\nhost = ['true', '{release}']\n";
    fs::create_dir_all(site.library.join("recipes")).unwrap();
    fs::write(site.library.join("recipes/still.toml"), recipe).unwrap();

    let build = |more: &[&'static str], why: &str| {
        for source in [tree, tar, "-"] {
            let args = [&["image", "build", "x", "--from", source], more].concat();
            assert_wrong_usage(&site, &args, why);
        }
    };
    let mirror = ["--mirror", "http://192.0.2.1"];
    build(&mirror, "--mirror tells from where a distribution is");
    build(
        &["--fs", "erofs", "--size", "1G"],
        "--size does nothing here",
    );
    build(&["--exclude", "/"], "names nothing within the tree");
    build(&["--exclude", "/etc/../usr"], "without ..");
    let still = ["image", "build", "x", "--from", "still:1"];
    let why = "no step of the recipe still has {mirror}";
    assert_wrong_usage(&site, &[&still[..], &mirror].concat(), why);
    for archive in [tar, "-"] {
        let args = ["image", "build", "x", "--from", archive, "--package", "vim"];
        assert_wrong_usage(&site, &args, "give --recipe");
    }
    let stdin = ["image", "build", "x", "--from", "-"];
    assert_wrong_usage(&site, &stdin, "give --size and --kernel");
    let multiple = [&stdin[..], &["--size", "2x", "--kernel", "5.10.1"]].concat();
    assert_wrong_usage(&site, &multiple, "give --size in bytes");

    let import = ["image", "import", "win", "--from", disk];
    for more in [["--kernel", "5.10.1"], ["--recipe", "debian"]] {
        let args = [&import[..], &more].concat();
        assert_wrong_usage(&site, &args, "has a partition table");
        let dry_run = [&args[..], &["--dry-run"]].concat();
        assert_wrong_usage(&site, &dry_run, "has a partition table");
    }
    let discard = ["image", "shell", "fc28", "--discard"];
    for more in [
        &["--kernel", "5.10.1"][..],
        &["--recipe", "debian"],
        &["--no-scrub"],
        &["--no-initramfs-check"],
        &["--keep-failed"],
    ] {
        let args = [&discard[..], more].concat();
        assert_wrong_usage(&site, &args, "cannot be used with");
    }
    let upgrade = ["image", "upgrade", "fc28", "fc29"];
    assert_wrong_usage(&site, &upgrade, "--release RELEASE");
    assert_wrong_usage(&site, &upgrade, "-- SCRIPT");
    for more in ["--force", "--at-next-boot"] {
        let args = ["client", "set", MAC, "--arg", "quiet", more];
        assert_wrong_usage(&site, &args, "are for --mode");
    }
    let twice = ["image", "rollback", "fc28@1", "1", "--yes"];
    assert_wrong_usage(&site, &twice, "name the version once");
    let one_of_all = ["image", "verify", "--all", "fc28@1"];
    assert_wrong_usage(&site, &one_of_all, "name an image");
    let none = ["image", "prune", "--keep", "0"];
    assert_wrong_usage(&site, &none, "the current version always stays");
    assert_wrong_usage(&site, &["esp", "export", tree], "--image <IMAGE>|--client");
    let no_release = ["image", "build", "x", "--from", "debian:"];
    assert_wrong_usage(&site, &no_release, "which release of debian?");
    assert_eq!(site.json(&["image", "list"]).as_array().unwrap().len(), 1);
    site.remove();
}

/// A disk with an MBR of one partition.
fn one_partition() -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[0] = 0xeb;
    disk[446..454].copy_from_slice(&[0x80, 0, 1, 0, 7, 0, 1, 0]);
    disk[454..462].copy_from_slice(&[8, 0, 0, 0, 0, 4, 0, 0]);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

#[test]
fn a_shell_whose_work_is_thrown_away_is_planned_as_that() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    site.build("fc28", "5.10.1");
    let shell = ["image", "shell", "fc28", "--dry-run"];
    let kept = site.ok(&shell);
    assert!(
        kept.starts_with("A new version of fc28 would be made:\n") && kept.contains("publish it"),
        "{kept}"
    );
    let thrown_away = site.ok(&[&shell[..], &["--discard"]].concat());
    assert!(
        thrown_away.starts_with("This would be done, and nothing of it kept:\n"),
        "{thrown_away}"
    );
    assert!(
        thrown_away.contains("open a shell in it\n")
            && !thrown_away.contains("publish")
            && !thrown_away.contains("scrub"),
        "{thrown_away}"
    );
    site.remove();
}

#[test]
fn a_new_version_tells_which_clients_it_reaches() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    let first = site.build("fc28", "5.10.1");
    assert!(
        first.ends_with("\nnext: netroot client add MAC --image fc28\n"),
        "{first}"
    );
    let clients = [
        ("lab-1", "fc28", "shared"),
        ("lab-2", "fc28", "ephemeral"),
        ("lab-3", "fc28", "persistent"),
        ("lab-4", "fc28@1", "shared"),
    ];
    for (number, (name, image, mode)) in clients.into_iter().enumerate() {
        let mac = format!("52:54:00:00:00:0{number}");
        let add = ["client", "add", &mac, "--name", name];
        let told = site.ok(&[&add[..], &["--image", image, "--mode", mode]].concat());
        assert!(told.ends_with("\nnext: netroot serve\n"), "{told}");
    }
    let second = site.build("fc28", "5.10.2");
    let expected = "\n\
        2 clients get it at their next boot: lab-1, lab-2\n\
        1 client keeps its disk until `netroot client reset CLIENT`: lab-3\n\
        1 client stays with another version until `netroot client assign CLIENT fc28`: lab-4\n";
    assert!(second.ends_with(expected), "{second}");
    site.ok(&["client", "reset", "lab-3", "--at-next-boot", "--yes"]);
    let third = site.build("fc28", "5.10.3");
    assert!(
        third.contains("\n3 clients get it at their next boot: lab-1, lab-2, lab-3\n"),
        "{third}"
    );

    let promote = ["client", "promote", "lab-3", "fc28", "--no-initramfs-check"];
    let asked = stderr(&site.run(&promote));
    assert!(
        asked.contains("netroot: promote lab-3 to fc28\n  3 clients get it at their next boot: "),
        "{asked}"
    );
    let other = [
        "client",
        "promote",
        "lab-3",
        "tools",
        "--no-initramfs-check",
    ];
    let promoted = site.ok(&[&other[..], &["--yes"]].concat());
    let expected = "\nclients of fc28 stay with it; next: netroot client assign CLIENT tools\n";
    assert!(promoted.ends_with(expected), "{promoted}");
    site.remove();
}

#[test]
fn man_pages_are_listed_before_they_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    let man = dir.path().join("man");
    let args = ["man", man.to_str().unwrap()];
    let planned = site.ok(&[&args[..], &["--dry-run"]].concat());
    assert!(!man.exists(), "a dry run touches nothing");
    let mut planned: Vec<_> = planned
        .lines()
        .map(|line| line.strip_prefix("would write ").unwrap().to_owned())
        .collect();
    site.ok(&args);
    let mut written: Vec<_> = fs::read_dir(&man)
        .unwrap()
        .map(|entry| entry.unwrap().path().display().to_string())
        .collect();
    planned.sort();
    written.sort();
    assert_eq!(planned, written);
    let build = fs::read_to_string(man.join("netroot-image-build.1")).unwrap();
    assert!(build.contains("\\-\\-no\\-scrub"), "{build}");
}

#[test]
fn recipes_can_be_looked_at_before_there_is_a_library() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none");
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(super::NETROOT);
        let output = command.arg("--library").arg(&none).args(args).output();
        let output = output.unwrap();
        let said = stderr(&output);
        assert!(output.status.success(), "{said}");
        let told = format!(
            "{} is no library: these are the recipes that are built in\n",
            none.display()
        );
        assert_eq!(said, told);
        String::from_utf8(output.stdout).unwrap()
    };
    let list = run(&["recipe", "list"]);
    for name in ["debian", "fedora", "generic"] {
        assert!(list.contains(name), "{list}");
    }
    // What the head of each says how to change it.
    let show = run(&["recipe", "show", "debian"]);
    assert_eq!(show, include_str!("../../images/debian.toml"));
    let how = "`netroot recipe show debian >LIBRARY/recipes/debian.toml`";
    assert!(show.contains(how), "{show}");
}
