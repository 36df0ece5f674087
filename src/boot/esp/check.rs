//! Is an EFI system partition what would be written today?

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Esp, EspFile};
use crate::library::manifest::Hash;

/// Where netroot's own files lie; what else is in there is told, other directories are others'.
const OURS: &str = "linux";
/// Names in it that are looked at.
const NAMES: usize = 4096;

/// What is found of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Found {
    /// It is what would be written.
    Same,
    /// It is there, and something else.
    Stale,
    /// It is not there.
    Missing,
    /// It is there, and nothing that would be written: an older kernel, as a rule.
    Foreign,
}

/// One file, as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Where it is, from the partition's root.
    pub path: PathBuf,
    /// What it is.
    pub found: Found,
    /// How it differs, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Is given the size of a file that is there, and what is in it.
pub(super) type Opened<'a> = dyn FnMut(u64, &mut dyn Read) -> io::Result<()> + 'a;

/// Files to look at.
pub(super) trait Tree {
    /// Calls `look` with the file at `path`, if there is one.
    fn read(&self, path: &Path, look: &mut Opened<'_>) -> io::Result<()>;

    /// The names of the files in `dir`; none where there is no such directory.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;
}

/// A directory: the mounted partition, or a copy of it.
#[derive(Debug, Clone, Copy)]
pub struct Folder<'a>(pub &'a Path);

impl Tree for Folder<'_> {
    fn read(&self, path: &Path, look: &mut Opened<'_>) -> io::Result<()> {
        let place = self.0.join(path);
        // Asked before it is opened: to open a device or a pipe may do something, or wait for ever.
        let size = match fs::symlink_metadata(&place) {
            Ok(found) if found.is_file() => found.len(),
            Ok(_) => return Err(io::Error::other(format!("{} is no file", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        look(size, &mut File::open(&place)?)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.0.join(dir)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let names = entries.take(NAMES);
        names
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }
}

impl Esp {
    /// Looks at what is in `folder`: each file that would be written, then what lies beside them.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn check_folder(&self, folder: Folder<'_>) -> io::Result<Vec<Checked>> {
        self.check(&folder)
    }

    /// The same, in the image of a disk or in a device.
    ///
    /// # Errors
    /// When something cannot be read, or there is no such partition.
    pub fn check_partition(&self, partition: &super::Partition) -> io::Result<Vec<Checked>> {
        self.check(partition)
    }

    fn check(&self, tree: &dyn Tree) -> io::Result<Vec<Checked>> {
        let mut all = Vec::new();
        for file in &self.files {
            all.push(file.check(tree)?);
        }
        // FAT keeps the case of names and does not tell them apart by it.
        let ours = |path: &Path| {
            let path = path.to_string_lossy().to_lowercase();
            let mut files = self.files.iter();
            files.any(|file| file.path.to_string_lossy().to_lowercase() == path)
        };
        let mut names = tree.names(Path::new(OURS))?;
        names.sort();
        let beside = names.into_iter().map(|name| Path::new(OURS).join(name));
        all.extend(beside.filter(|path| !ours(path)).map(|path| Checked {
            path,
            found: Found::Foreign,
            why: Some(String::from("nothing that would be written names it")),
        }));
        Ok(all)
    }
}

impl EspFile {
    fn check(&self, tree: &dyn Tree) -> io::Result<Checked> {
        let (mut found, mut why) = (Found::Missing, None);
        tree.read(&self.path, &mut |size, from| {
            why = self.differs(size, from)?;
            found = match why {
                Some(_) => Found::Stale,
                None => Found::Same,
            };
            Ok(())
        })?;
        let path = self.path.clone();
        Ok(Checked { path, found, why })
    }

    /// How a file of `size` bytes differs; no more of it is read than there would be.
    fn differs(&self, size: u64, from: &mut dyn Read) -> io::Result<Option<String>> {
        let wanted = self.size()?;
        if size != wanted && self.text.is_none() {
            return Ok(Some(format!("it has {size} bytes instead of {wanted}")));
        }
        let Some(text) = &self.text else {
            let same = hash(&mut from.take(wanted))? == self.hash()?;
            return Ok((!same).then(|| String::from("it has other contents of the same size")));
        };
        let mut there = Vec::new();
        // A text of ours is a few lines: what is longer differs by that alone.
        from.take(wanted + (64 << 10)).read_to_end(&mut there)?;
        let there = String::from_utf8_lossy(&there);
        Ok(different_line(&there, text))
    }

    fn hash(&self) -> io::Result<Hash> {
        match (&self.facts, &self.source) {
            (Some(facts), _) => Ok(facts.sha256),
            (None, Some(source)) => hash(&mut File::open(source)?),
            (None, None) => hash(&mut io::empty()),
        }
    }
}

fn hash(from: &mut dyn Read) -> io::Result<Hash> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(Hash(hash.finalize().into())),
            read => hash.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

/// The first line in which two texts differ, and the first word in it.
fn different_line(there: &str, wanted: &str) -> Option<String> {
    if there == wanted {
        return None;
    }
    let mut lines = wanted.lines().zip(there.lines()).enumerate();
    let Some((number, (wanted, there))) = lines.find(|(_, (wanted, there))| wanted != there) else {
        return Some(String::from("it has more lines, or fewer"));
    };
    let nothing = std::iter::repeat("nothing");
    let wanted = wanted.split(' ').chain(nothing.clone());
    let there = there.split(' ').chain(nothing);
    // They differ, so the search ends.
    let (wanted, there) = wanted.zip(there).find(|(wanted, there)| wanted != there)?;
    Some(format!("line {}: {there} instead of {wanted}", number + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_that_differs_is_told() {
        let check = |there: &str, wanted: &str, told: Option<&str>| {
            assert_eq!(different_line(there, wanted).as_deref(), told);
        };
        check("a b\nc\n", "a b\nc\n", None);
        check("a b\nd e\n", "a b\nd f\n", Some("line 2: e instead of f"));
        check("a\n", "a b\n", Some("line 1: nothing instead of b"));
        check("a b\n", "a\n", Some("line 1: b instead of nothing"));
        check("a\n", "a\nb\n", Some("it has more lines, or fewer"));
    }
}
