//! `image verify`: whether a version is what was sealed, and whether that was sound.

use anyhow::Result;
use serde::Serialize;

use super::FileSystem;
use super::diff::check_file_system;
use super::watch::chain;
use crate::exec::Cancel;
use crate::library::manifest::Hash;
use crate::library::{Error, Library, Progress, Version, VersionId};

/// What was found out about a version.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// The version.
    pub version: VersionId,
    /// The root of its hashes.
    pub root: Hash,
    /// Whether nothing is wrong with it.
    pub whole: bool,
    /// The file system that was checked; nothing for a disk that has none of its own.
    pub filesystem: Option<&'static str>,
    /// What is wrong with it.
    pub damage: Option<String>,
}

/// Checks a version's hashes and its file system.
///
/// Hashes first: they tell where a byte is not what it was. The file system is checked, too, since
/// it may have been damaged before it was sealed.
///
/// # Errors
/// When it cannot be read, or somebody asks to stop; damage is no error.
pub fn verify(
    library: &Library,
    version: &Version,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<Verdict> {
    let mut verdict = Verdict {
        version: version.id().clone(),
        root: version.manifest().disk.root,
        whole: true,
        filesystem: None,
        damage: None,
    };
    let mut wrong = Vec::new();
    match library.verify(version.id(), progress) {
        Ok(()) => {}
        Err(error @ Error::Damaged { .. }) => wrong.push(error.to_string()),
        Err(error) => return Err(error.into()),
    }
    progress.step(
        &format!("checking the file system of {}", version.id()),
        None,
    );
    match check_file_system(version, cancel) {
        Ok(checked) => verdict.filesystem = checked.map(FileSystem::name),
        Err(error) if cancel.is_cancelled() => return Err(error),
        Err(error) => wrong.push(chain(&error)),
    }
    if !wrong.is_empty() {
        verdict.whole = false;
        verdict.damage = Some(wrong.join("\n"));
    }
    Ok(verdict)
}
