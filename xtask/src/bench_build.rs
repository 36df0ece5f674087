//! `cargo xtask bench build`: netroot beside the way that the described system makes its disks.
//!
//! Both make an XFS disk of the same tree, in turn. Hashing, which the described way does not do, is
//! printed apart; checking the file system, which it does not do either, is counted.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::bench::{made_tree, median, phases, release_build, settle, spread};
use crate::lab_dir;
use crate::program::{command, run};
use crate::server::Site;

/// What is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// The tree; one of realistic shape is made if none is given.
    pub tree: Option<PathBuf>,
    /// How often each way is taken.
    pub rounds: usize,
    /// The program to measure; a release build of this source if none is given.
    pub binary: Option<PathBuf>,
    /// Whether the result is printed as JSON.
    pub json: bool,
}

/// The described way: the disk, the file system, the copy, the sync. `$1` is the tree, `$2` the disk,
/// `$3` the mount point.
const DESCRIBED: &str = r#"
set -e
truncate -s "$(( $(du -xms "$1" | cut -f1) * 2 ))M" "$2"
mkfs.xfs -q -L NETROOT "$2"
mount -o loop "$2" "$3"
cp -a "$1/." "$3"
umount "$3"
sync "$2"
"#;

/// Seconds of one build by netroot.
struct Ours {
    without_hashing: f64,
    hashing: f64,
    phases: Vec<(String, f64)>,
}

/// Measures, and prints the result.
///
/// # Errors
/// When a program is missing or fails.
pub fn run_bench(options: &Options) -> Result<()> {
    ensure!(
        options.rounds > 0,
        "there is nothing to measure in 0 rounds"
    );
    let tree = match &options.tree {
        Some(tree) => {
            fs::canonicalize(tree).with_context(|| format!("finding {}", tree.display()))?
        }
        None => made_tree()?,
    };
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => release_build()?,
    };
    let dir = tempfile::tempdir_in(lab_dir())?;
    let library = dir.path().join("library");
    let site = Site::new(&binary, &library);
    site.netroot(&["init"])?;
    // Once for nothing, so that both find the tree in memory.
    described(&tree, dir.path())?;
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        theirs.push(described(&tree, dir.path())?);
        ours.push(netroot(&site, &tree)?);
        if let (false, Some(theirs), Some(ours)) = (options.json, theirs.last(), ours.last()) {
            println!(
                "round {round}: described {theirs:.2} s, netroot {:.2} s, hashing {:.2} s",
                ours.without_hashing, ours.hashing
            );
        }
    }
    print(options, &tree, &theirs, &ours);
    Ok(())
}

fn described(tree: &Path, dir: &Path) -> Result<f64> {
    let (disk, point) = (dir.join("described.img"), dir.join("described"));
    fs::create_dir_all(&point)?;
    settle()?;
    let began = Instant::now();
    let mut shell = command(
        "unshare",
        ["--mount", "--propagation", "private", "sh", "-c", DESCRIBED],
    );
    run(shell.arg("sh").args([tree, &disk, &point]))?;
    let took = began.elapsed().as_secs_f64();
    fs::remove_file(&disk)?;
    Ok(took)
}

fn netroot(site: &Site, tree: &Path) -> Result<Ours> {
    let tree = tree.to_str().context("the tree's path must be UTF-8")?;
    settle()?;
    let began = Instant::now();
    let built = site.json(&[
        "image",
        "build",
        "bench",
        "--from",
        tree,
        "--no-initramfs-check",
    ])?;
    let took = began.elapsed().as_secs_f64();
    site.netroot(&["image", "remove", "bench", "--yes"])?;
    let phases = phases(&built).context("netroot does not tell its phases")?;
    let hashing = phases
        .iter()
        .filter(|(what, _)| what.starts_with("hashing"))
        .map(|(_, seconds)| seconds)
        .sum();
    Ok(Ours {
        without_hashing: took - hashing,
        hashing,
        phases,
    })
}

fn print(options: &Options, tree: &Path, theirs: &[f64], ours: &[Ours]) {
    let without: Vec<f64> = ours.iter().map(|one| one.without_hashing).collect();
    let hashing: Vec<f64> = ours.iter().map(|one| one.hashing).collect();
    let ratio = median(theirs) / median(&without);
    if options.json {
        let result = json!({
            "tree": tree.display().to_string(),
            "rounds": options.rounds,
            "described": { "median": median(theirs), "all": theirs },
            "netroot": { "median": median(&without), "all": without },
            "hashing": { "median": median(&hashing), "all": hashing },
            "ratio": ratio,
        });
        println!("{result:#}");
        return;
    }
    println!("\n{} ({} rounds, medians)", tree.display(), options.rounds);
    for (name, all) in [
        ("described", theirs),
        ("netroot", &without),
        ("hashing", &hashing),
    ] {
        let (least, most) = spread(all);
        println!(
            "{name:>10}  {:6.2} s   ({least:.2} to {most:.2})",
            median(all)
        );
    }
    println!("netroot is {ratio:.2} times as fast as the described way");
    for (what, seconds) in ours.last().map_or(&[][..], |one| &one.phases) {
        println!("{seconds:10.2} s  {what}");
    }
}
