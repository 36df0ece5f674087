//! What is slow to make and made once: under `target/lab`, by the hash of all that decides what it holds,
//! but for the day's packages. `cargo clean` removes it.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

/// The directory of the `kind` that has this hash. `make` fills it if it is not there, and those of other
/// hashes go.
pub(crate) fn made(
    kind: &str,
    hash: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let lab = crate::lab_dir();
    fs::create_dir_all(&lab).with_context(|| format!("creating {}", lab.display()))?;
    // Two tests may want it at once; the lock ends with the process, however that ends.
    let lock = fs::File::create(lab.join(format!("{kind}-lock")))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("waiting for another run that makes the {kind}"))?;
    let made = lab.join(format!("{kind}-{hash}"));
    if made.exists() {
        return Ok(made);
    }
    remove_old(&lab, kind)?;
    let draft = lab.join(format!("{kind}-draft"));
    fs::create_dir(&draft).with_context(|| format!("creating {}", draft.display()))?;
    make(&draft)?;
    // Only a whole one ever has the name.
    fs::rename(&draft, &made)?;
    Ok(made)
}

/// Earlier ones, and what a killed run has left.
fn remove_old(lab: &Path, kind: &str) -> Result<()> {
    for entry in fs::read_dir(lab)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_of_kind = name.to_string_lossy().starts_with(&format!("{kind}-"));
        if is_of_kind && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())
                .with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// A hash of texts.
pub(crate) fn hash_of_texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text);
        hash.update([0]);
    }
    digits(hash)
}

/// A hash of files: their names below `root`, and what is in them.
pub(crate) fn hash_of_files(root: &Path, files: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.strip_prefix(root)?.as_os_str().as_bytes());
        hash.update([0]);
        hash.update(fs::read(file)?);
        hash.update([0]);
    }
    Ok(digits(hash))
}

fn digits(hash: Sha256) -> String {
    let digest = hash.finalize();
    let digits = digest.iter().take(8);
    digits.map(|byte| format!("{byte:02x}")).collect()
}

/// All files under a directory.
pub(crate) fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut entries = fs::read_dir(dir)
        .with_context(|| format!("reading {}", dir.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_follows_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let hash = || hash_of_files(dir.path(), &files(dir.path()).unwrap()).unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/a"), "1").unwrap();
        let one = hash();
        assert_eq!(one, hash());
        fs::write(dir.path().join("etc/a"), "2").unwrap();
        let two = hash();
        fs::rename(dir.path().join("etc/a"), dir.path().join("etc/b")).unwrap();
        let three = hash();
        assert!(one != two && two != three);
        assert_eq!(one.len(), 16);
    }
}
