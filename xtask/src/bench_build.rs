//! `cargo xtask bench build`: netroot beside the way that the described system makes its disks.
//!
//! Both make an XFS disk of the same tree, in turn. Hashing, which the described way does not do, is
//! printed apart; checking the file system, which it does not do either, is counted.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::program::{command, run};
use crate::server::Site;
use crate::{lab_dir, target_dir, workspace};

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

/// Files of the tree that is made, and how many of them lie in a directory.
const FILES: u64 = 30_000;
const IN_A_DIRECTORY: u64 = 12;

const KERNEL: &str = "6.1.0-21-amd64";

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

fn release_build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["build", "--release", "--bin", "netroot"];
    run(command(&cargo.to_string_lossy(), arguments).current_dir(workspace()))?;
    Ok(target_dir().join("release/netroot"))
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

fn phases(built: &Value) -> Option<Vec<(String, f64)>> {
    let phases = built.get("phases")?.as_array()?;
    let phase = |phase: &Value| {
        let what = phase.get("what")?.as_str()?.to_owned();
        Some((what, phase.get("seconds")?.as_f64()?))
    };
    phases.iter().map(phase).collect()
}

/// Nothing of the round before is still being written.
fn settle() -> Result<()> {
    run(&mut command("sync", [""; 0]))?;
    Ok(())
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

fn median(all: &[f64]) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle).copied().unwrap_or(f64::NAN);
    let lower = sorted.get((sorted.len() - 1) / 2).copied();
    f64::midpoint(lower.unwrap_or(upper), upper)
}

fn spread(all: &[f64]) -> (f64, f64) {
    let least = all.iter().copied().fold(f64::INFINITY, f64::min);
    (least, all.iter().copied().fold(0.0, f64::max))
}

/// A tree that is shaped like a small distribution: mostly small files, most bytes in few large ones.
/// It is kept between runs.
fn made_tree() -> Result<PathBuf> {
    let tree = lab_dir().join("bench-tree");
    let whole = tree.join("whole");
    if whole.exists() {
        return Ok(tree);
    }
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    println!("making a tree of {FILES} files in {}", tree.display());
    let mut numbers = Numbers(1);
    for file in 0..FILES {
        let directory = file / IN_A_DIRECTORY;
        let dir = tree.join(format!("usr/share/{}/{directory}", directory % 97));
        fs::create_dir_all(&dir)?;
        let size = numbers.size();
        fs::write(dir.join(file.to_string()), numbers.bytes(size))?;
    }
    for (path, size) in [
        (format!("boot/vmlinuz-{KERNEL}"), 12 << 20),
        (format!("boot/initrd.img-{KERNEL}"), 40 << 20),
        (format!("lib/modules/{KERNEL}/modules.dep"), 500_000),
    ] {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().context("a file without a directory")?)?;
        fs::write(path, numbers.bytes(size))?;
    }
    File::create(whole)?.write_all(b"")?;
    Ok(tree)
}

/// The same numbers each time (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Three quarters under 8 KiB, a few percent over 256 KiB: about 1 GiB in 30,000 files.
    fn size(&mut self) -> usize {
        let (which, number) = (self.next() % 1000, self.next());
        let size = match which {
            0..750 => 200 + number % 8_000,
            750..950 => 8_000 + number % 40_000,
            950..990 => 48_000 + number % 400_000,
            990..999 => 400_000 + number % 1_600_000,
            _ => 2_000_000 + number % 10_000_000,
        };
        usize::try_from(size).unwrap_or(0)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_even_and_odd_counts() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), (1.0, 3.0));
    }

    #[test]
    fn the_tree_has_about_a_gibibyte() {
        let mut numbers = Numbers(1);
        let total: usize = (0..FILES).map(|_| numbers.size()).sum();
        assert!((800_000_000..1_400_000_000).contains(&total), "{total}");
    }
}
