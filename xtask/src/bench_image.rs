//! `cargo xtask bench image`: an upgrade by `netroot image upgrade` beside the described way.
//!
//! Both take a system of 30,000 files to its next release by the same script, which changes a
//! hundredth of them, in turn and on one XFS of their own. The described way copies the tree, runs the
//! script in the copy and makes a new disk of it; netroot copies the disk, which shares its blocks, and
//! runs the script in that. The cp of today shares blocks, too, where it copies the tree. Hashing and checking, which the described way does not do, are counted.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use crate::bench::{made_tree, median, phases, release_build, settle, spread};
use crate::lab_dir;
use crate::program::{command, run};
use crate::server::Site;

/// What is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often each way is taken.
    pub rounds: usize,
    /// The program to measure; a release build of this source if none is given.
    pub binary: Option<PathBuf>,
    /// Whether the result is printed as JSON.
    pub json: bool,
}

/// The file system that both work on. It takes only what is written.
const SIZE: &str = "24G";

/// What the next release changes: every file below one of 97 directories, and the release's name.
const CHANGE: &str = "for file in /usr/share/5/*/*; do echo changed >>$file; done; \
    echo VERSION_ID=29 >/etc/os-release";

/// `$1` is the tree, `$2` its copy, `$3` the disk, `$4` the mount point, `$5` the change.
const DESCRIBED: &str = r#"
set -e
cp -a "$1" "$2"
chroot "$2" /bin/sh -c "$5"
truncate -s "$(( $(du -xms "$2" | cut -f1) * 2 ))M" "$3"
mkfs.xfs -q -L NETROOT "$3"
mount -o loop "$3" "$4"
cp -a "$2/." "$4"
umount "$4"
sync "$3"
"#;

/// One upgrade.
#[derive(Debug, Clone, Copy)]
struct Cost {
    seconds: f64,
    /// Bytes that the file system has less than before.
    bytes: u64,
}

/// Measures, and prints the result.
///
/// # Errors
/// When this is not root, or a program is missing or fails.
pub fn run_bench(options: &Options) -> Result<()> {
    ensure!(
        options.rounds > 0,
        "there is nothing to measure in 0 rounds"
    );
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => release_build()?,
    };
    let made = made_tree()?;
    let dir = tempfile::tempdir_in(lab_dir())?;
    let xfs = own_file_system(dir.path())?;
    let tree = xfs.join("fc28");
    run(command("cp", ["-a"]).args([&made, &tree]))?;
    add_shell(&tree)?;
    let site = Site::new(&binary, &xfs.join("library"));
    site.netroot(&["init"])?;
    let from = tree.to_str().context("the tree's path must be UTF-8")?;
    site.netroot(&[
        "image",
        "build",
        "fc28",
        "--from",
        from,
        "--no-initramfs-check",
    ])?;
    // Once for nothing, so that both find the tree in memory.
    described(&xfs)?;
    let (mut theirs, mut ours, mut hashing) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        let described = described(&xfs)?;
        let (netroot, hashed) = netroot(&site, &xfs)?;
        if !options.json {
            println!(
                "round {round}: described {:.2} s and {}, netroot {:.2} s and {}",
                described.seconds,
                mebibytes(described.bytes),
                netroot.seconds,
                mebibytes(netroot.bytes)
            );
        }
        theirs.push(described);
        ours.push(netroot);
        hashing.push(hashed);
    }
    print(options, &theirs, &ours, &hashing);
    Ok(())
}

/// An XFS that nobody else sees or writes to, and that is gone with this process.
fn own_file_system(dir: &Path) -> Result<PathBuf> {
    unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace (this needs root)")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    let none = None::<&str>;
    mount(none, "/", none, private, none).context("making its mounts private")?;
    let (file, point) = (dir.join("xfs.img"), dir.join("xfs"));
    fs::create_dir(&point)?;
    run(command("truncate", ["-s", SIZE]).arg(&file))?;
    run(command("mkfs.xfs", ["-q"]).arg(&file))?;
    run(command("mount", ["-o", "loop"]).args([&file, &point]))?;
    Ok(point)
}

/// The host's shell with its libraries, to run the change with.
fn add_shell(tree: &Path) -> Result<()> {
    let shell = fs::canonicalize("/bin/sh").context("looking for a shell")?;
    let needs = run(command("ldd", [""; 0]).arg(&shell))?;
    let libraries = needs
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for library in libraries {
        copy(
            Path::new(library),
            &tree.join(library.trim_start_matches('/')),
        )?;
    }
    copy(&shell, &tree.join("bin/sh"))?;
    for name in ["dev", "proc", "sys", "run", "tmp", "root", "etc"] {
        fs::create_dir_all(tree.join(name))?;
    }
    fs::write(tree.join("etc/os-release"), "ID=fedora\nVERSION_ID=28\n")?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file without a directory")?)?;
    fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

fn described(xfs: &Path) -> Result<Cost> {
    let (tree, disk, point) = (xfs.join("fc29"), xfs.join("fc29.img"), xfs.join("mounted"));
    fs::create_dir_all(&point)?;
    let (cost, ()) = measured(xfs, || {
        let mut shell = command("sh", ["-c", DESCRIBED, "sh"]);
        let shell = shell.args([&xfs.join("fc28"), &tree, &disk, &point]);
        run(shell.arg(CHANGE)).map(drop)
    })?;
    fs::remove_dir_all(&tree)?;
    fs::remove_file(&disk)?;
    Ok(cost)
}

/// What it cost, and the seconds of it that hashing took.
fn netroot(site: &Site, xfs: &Path) -> Result<(Cost, f64)> {
    let (cost, built) = measured(xfs, || {
        site.json(&[
            "image",
            "upgrade",
            "fc28",
            "fc29",
            "--no-initramfs-check",
            "--",
            CHANGE,
        ])
    })?;
    site.netroot(&["image", "remove", "fc29", "--yes"])?;
    let phases = phases(&built).context("netroot does not tell its phases")?;
    let hashing = phases
        .iter()
        .filter(|(what, _)| what.starts_with("hashing"))
        .map(|(_, seconds)| seconds)
        .sum();
    Ok((cost, hashing))
}

fn measured<T>(xfs: &Path, work: impl FnOnce() -> Result<T>) -> Result<(Cost, T)> {
    let before = used(xfs)?;
    let began = Instant::now();
    let done = work()?;
    let seconds = began.elapsed().as_secs_f64();
    let bytes = used(xfs)?.saturating_sub(before);
    Ok((Cost { seconds, bytes }, done))
}

/// The bytes that are taken. XFS frees what was removed, and what it has set aside for files that
/// might grow, some time later: so it is asked until it says the same twice.
fn used(xfs: &Path) -> Result<u64> {
    let mut last = None;
    loop {
        settle()?;
        let told = nix::sys::statvfs::statvfs(xfs)?;
        let now = (told.blocks() - told.blocks_free()) * told.fragment_size();
        if last.replace(now) == Some(now) {
            return Ok(now);
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}

fn print(options: &Options, theirs: &[Cost], ours: &[Cost], hashing: &[f64]) {
    let seconds = |all: &[Cost]| all.iter().map(|cost| cost.seconds).collect::<Vec<_>>();
    let (theirs_took, ours_took) = (seconds(theirs), seconds(ours));
    let (theirs_bytes, ours_bytes) = (middle_bytes(theirs), middle_bytes(ours));
    let ratio = median(&theirs_took) / median(&ours_took);
    if options.json {
        let result = json!({
            "rounds": options.rounds,
            "described": { "median": median(&theirs_took), "all": theirs_took, "bytes": theirs_bytes },
            "netroot": { "median": median(&ours_took), "all": ours_took, "bytes": ours_bytes },
            "hashing": { "median": median(hashing), "all": hashing },
            "ratio": ratio,
        });
        println!("{result:#}");
        return;
    }
    println!(
        "\nupgrade of a tree of 30,000 files ({} rounds, medians)",
        options.rounds
    );
    for (name, took, bytes) in [
        ("described", &theirs_took, theirs_bytes),
        ("netroot", &ours_took, ours_bytes),
    ] {
        let (least, most) = spread(took);
        println!(
            "{name:>10}  {:6.2} s   ({least:.2} to {most:.2})   {:>12} on disk",
            median(took),
            mebibytes(bytes)
        );
    }
    println!(
        "netroot is {ratio:.2} times as fast; hashing takes {:.2} s of its time",
        median(hashing)
    );
}

/// The middle one of what all took on disk.
fn middle_bytes(all: &[Cost]) -> u64 {
    let mut bytes: Vec<_> = all.iter().map(|cost| cost.bytes).collect();
    bytes.sort_unstable();
    bytes.get(bytes.len() / 2).copied().unwrap_or(0)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_by_the_middle_one() {
        let cost = |bytes| Cost {
            seconds: 1.0,
            bytes,
        };
        assert_eq!(
            middle_bytes(&[cost(9 << 20), cost(1 << 20), cost(5 << 20)]),
            5 << 20
        );
        assert_eq!(mebibytes(middle_bytes(&[cost(5 << 20)])), "5 MiB");
    }
}
