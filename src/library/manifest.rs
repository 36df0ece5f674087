//! What is known about a version: its manifest.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::names::VersionId;

/// Everything that `manifest.json` tells. It is written once, when the version is sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of this document: 1.
    pub format: u32,
    /// The version itself.
    pub version: VersionId,
    /// When it was sealed.
    pub sealed: Timestamp,
    /// Which netroot sealed it.
    pub netroot: String,
    /// The disk's size and hashes.
    pub disk: DiskFacts,
    /// The kernel that boots it.
    pub kernel: FileFacts,
    /// The initramfs that mounts it.
    pub initramfs: FileFacts,
    /// What its builder found out.
    #[serde(flatten)]
    pub facts: VersionFacts,
}

/// What a builder tells about the version that it made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct VersionFacts {
    /// The version that it was copied from.
    pub parent: Option<VersionId>,
    /// Where its files came from, as a person wrote it: a directory, an archive, a command.
    pub source: String,
    /// The file system on the disk.
    pub filesystem: FileSystemFacts,
    /// Bytes of the files in the tree, as `du` counts them, and how many entries it has.
    pub tree: TreeFacts,
    /// The kernel's release, such as `4.19.5-300.fc29.x86_64`.
    pub kernel_version: String,
    /// What kind of initramfs it is.
    pub early: InitramfsFacts,
    /// What /etc/os-release says.
    pub distribution: Option<Distribution>,
    /// Installed packages, where the tree has a list that was understood.
    pub packages: Option<Vec<Package>>,
    /// The recipe that it was made by.
    pub recipe: Option<RecipeFacts>,
    /// What was taken out before sealing.
    #[serde(default)]
    pub scrubbed: Vec<String>,
}

/// Size and hashes of a disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiskFacts {
    /// Bytes.
    pub size: u64,
    /// Bytes that it took on the library's file system when it was sealed.
    pub allocated: u64,
    /// Bytes of a logical block.
    pub block_size: u32,
    /// SHA-256 over the size (8 bytes, big endian) and the hash of each chunk in order.
    pub root: Hash,
    /// The hashes of the chunks, in order.
    pub chunks: ChunkHashes,
}

/// Size and hash of a file beside the disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Bytes.
    pub size: u64,
    /// Its hash.
    pub sha256: Hash,
}

/// The file system of a disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FileSystemFacts {
    /// `xfs`, `ext4`, ...
    pub kind: String,
    /// Its label.
    pub label: String,
    /// Its identifier.
    pub uuid: Option<String>,
    /// Features that were chosen or left out for the image's kernel.
    #[serde(default)]
    pub features: Vec<String>,
}

/// How much there is in a tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TreeFacts {
    /// Allocated bytes.
    pub bytes: u64,
    /// Files, directories and everything else.
    pub entries: u64,
}

/// What kind of initramfs an image has; it decides how the client is told where its root is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InitramfsFacts {
    /// Who made it.
    pub kind: InitramfsKind,
    /// The maker's version, such as `059-4` for dracut.
    pub version: Option<String>,
    /// Whether systemd runs in it.
    pub systemd: bool,
    /// `gzip`, `xz`, `zstd`, ...
    pub compression: Option<String>,
}

/// Who made an initramfs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InitramfsKind {
    /// dracut, the one that the described system uses.
    #[default]
    Dracut,
    /// Debian's initramfs-tools.
    InitramfsTools,
    /// Something else, taken as it is.
    Unknown,
}

/// A distribution's release.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// `ID` of os-release.
    pub id: String,
    /// `VERSION_ID` of os-release.
    pub release: Option<String>,
    /// `PRETTY_NAME` of os-release.
    pub name: Option<String>,
    /// `VERSION_CODENAME` of os-release, such as `bookworm`.
    #[serde(default)]
    pub codename: Option<String>,
    /// `ID_LIKE` of os-release: what it descends from, nearest first.
    #[serde(default)]
    pub like: Option<String>,
}

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The recipe of a version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecipeFacts {
    /// Its name.
    pub name: String,
    /// The hash of its text.
    pub sha256: Hash,
}

impl InitramfsFacts {
    /// The leading number of dracut's version: 59 of `059-4`, 110 of `110-2.fc44`.
    pub fn major(&self) -> Option<u32> {
        let version = self.version.as_deref()?;
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    }
}

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

super::names::serde_as_text!(Hash);

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Hash {
    type Err = super::names::NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hex(text)
            .and_then(|bytes| bytes.try_into().ok())
            .map(Hash)
            .ok_or_else(|| super::names::NameError::new(text, "64 hex digits"))
    }
}

/// Bytes of an even number of hex digits.
pub(crate) fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

/// Hashes of chunks, where a run of chunks of zeros takes one number: a sparse disk of 100 GiB has
/// a small manifest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChunkHashes(pub Vec<ChunkRun>);

/// One entry of [`ChunkHashes`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ChunkRun {
    /// This many chunks of zeros.
    Zeros(u64),
    /// The hash of one chunk.
    Data(Hash),
}

impl ChunkHashes {
    /// Takes the hashes of all chunks, `None` for one of zeros.
    pub(crate) fn collect(chunks: impl IntoIterator<Item = Option<Hash>>) -> Self {
        let mut runs: Vec<ChunkRun> = Vec::new();
        for chunk in chunks {
            match (chunk, runs.last_mut()) {
                (Some(hash), _) => runs.push(ChunkRun::Data(hash)),
                (None, Some(ChunkRun::Zeros(count))) => *count += 1,
                (None, _) => runs.push(ChunkRun::Zeros(1)),
            }
        }
        ChunkHashes(runs)
    }

    /// The first chunk in which two disks of the same size differ.
    pub fn first_difference(&self, other: &ChunkHashes) -> Option<u64> {
        let (mut mine, mut theirs) = (self.each(), other.each());
        let mut index = 0;
        loop {
            match (mine.next(), theirs.next()) {
                (None, None) => return None,
                (a, b) if a == b => index += 1,
                _ => return Some(index),
            }
        }
    }

    /// The hash of each chunk in order, `None` for one of zeros.
    fn each(&self) -> impl Iterator<Item = Option<Hash>> {
        self.0.iter().flat_map(|run| {
            let (hash, count) = match *run {
                ChunkRun::Zeros(count) => (None, count),
                ChunkRun::Data(hash) => (Some(hash), 1),
            };
            (0..count).map(move |_| hash)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_zeros_take_one_number() {
        let hash = Hash([0xab; 32]);
        let chunks = ChunkHashes::collect([None, None, Some(hash), Some(hash), None]);
        let text = serde_json::to_string(&chunks).unwrap();
        assert_eq!(text, format!("[2,\"{hash}\",\"{hash}\",1]"));
        assert_eq!(serde_json::from_str::<ChunkHashes>(&text).unwrap(), chunks);
    }

    #[test]
    fn the_major_version_of_dracut() {
        let of = |version: &str| {
            InitramfsFacts {
                version: Some(version.into()),
                ..InitramfsFacts::default()
            }
            .major()
        };
        assert_eq!(of("059-4"), Some(59));
        assert_eq!(of("110"), Some(110));
        assert_eq!(of("git"), None);
    }
}
