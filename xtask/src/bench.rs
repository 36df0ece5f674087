//! What measurements share: the tree, the numbers, and waiting for quiet.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde_json::Value;

use crate::program::{command, run};
use crate::{lab_dir, target_dir, workspace};

/// Files of the tree that is made, and how many of them lie in a directory.
const FILES: u64 = 30_000;
const IN_A_DIRECTORY: u64 = 12;

/// Its kernel.
pub(crate) const KERNEL: &str = "6.1.0-21-amd64";

/// The program as it is given to people, built now.
///
/// # Errors
/// When cargo fails.
pub(crate) fn release_build() -> Result<PathBuf> {
    release(&["--bin", "netroot"])?;
    Ok(target_dir().join("release/netroot"))
}

/// This program, optimised: for loads that it makes itself.
///
/// # Errors
/// When cargo fails.
pub(crate) fn release_xtask() -> Result<PathBuf> {
    release(&["--package", "xtask"])?;
    Ok(target_dir().join("release/xtask"))
}

fn release(what: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = command(&cargo.to_string_lossy(), ["build", "--release"]);
    // The cargo that has started this program sets it, and ring is built anew, with all that needs it, when it
    // is another than before.
    build.env_remove("CARGO_MANIFEST_DIR");
    run(build.args(what).current_dir(workspace()))?;
    Ok(())
}

/// The parts of a build and their seconds, as `netroot --json` tells them.
pub(crate) fn phases(built: &Value) -> Option<Vec<(String, f64)>> {
    let phases = built.get("phases")?.as_array()?;
    let phase = |phase: &Value| {
        let what = phase.get("what")?.as_str()?.to_owned();
        Some((what, phase.get("seconds")?.as_f64()?))
    };
    phases.iter().map(phase).collect()
}

/// Nothing of the round before is still being written.
///
/// # Errors
/// When sync(1) fails.
pub(crate) fn settle() -> Result<()> {
    run(&mut command("sync", [""; 0]))?;
    Ok(())
}

/// The middle of all values.
pub(crate) fn median(all: &[f64]) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle).copied().unwrap_or(f64::NAN);
    let lower = sorted.get((sorted.len() - 1) / 2).copied();
    f64::midpoint(lower.unwrap_or(upper), upper)
}

/// The least and the most of them.
pub(crate) fn spread(all: &[f64]) -> (f64, f64) {
    let least = all.iter().copied().fold(f64::INFINITY, f64::min);
    (least, all.iter().copied().fold(0.0, f64::max))
}

/// The time of the processors that a process has used so far, by itself and in the kernel for it.
///
/// # Errors
/// When it is gone.
pub(crate) fn processor(pid: Pid) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    // proc_pid_stat(5): the name in brackets may hold anything; utime and stime are the 14th and the
    // 15th field, and the 3rd one follows it.
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    let a_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok(Duration::from_secs_f64(ticks as f64 / a_second as f64))
}

/// A tree that is shaped like a small distribution: mostly small files, most bytes in few large ones.
/// It is kept between runs.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn made_tree() -> Result<PathBuf> {
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
