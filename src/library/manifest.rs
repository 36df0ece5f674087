//! What is known about a version: its manifest.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::names::{ClientName, VersionId};

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
    /// How a client boots it.
    #[serde(flatten)]
    pub boot: BootFrom,
    /// What its builder found out.
    #[serde(flatten)]
    pub facts: VersionFacts,
}

/// How a client boots a version. Manifests that do not say it are of versions with a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BootDocument", into = "BootDocument")]
pub enum BootFrom {
    /// A kernel and an initramfs that lie beside the disk and mount it.
    Kernel {
        /// The kernel.
        kernel: FileFacts,
        /// The initramfs.
        initramfs: FileFacts,
    },
    /// The disk itself, as if it were one of the machine's own: it has partitions and a boot loader.
    Disk(TableFacts),
}

/// What the partition table of a disk tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFacts {
    /// Which table it is.
    pub kind: TableKind,
    /// How many partitions it has.
    pub partitions: u32,
    /// Whether there is something that a BIOS would start.
    pub bios: bool,
    /// Whether there is an EFI system partition.
    pub efi: bool,
}

/// The kinds of partition tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// The one of the PC's BIOS.
    Mbr,
    /// The one of EFI.
    Gpt,
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
    /// The kernel's release, such as `4.19.5-300.fc29.x86_64`; empty where the disk boots itself.
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
    /// The client whose disk it was, where it was promoted from one.
    #[serde(default)]
    pub promoted: Option<ClientName>,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

impl std::fmt::Display for Distribution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.name, self.release.as_ref().or(self.codename.as_ref())) {
            (Some(name), _) => f.write_str(name),
            (None, Some(release)) => write!(f, "{} {release}", self.id),
            (None, None) => f.write_str(&self.id),
        }
    }
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

impl FileSystemFacts {
    /// Whether nobody can write to it, whatever disk it lies on.
    pub fn is_read_only(&self) -> bool {
        self.kind == "erofs"
    }
}

impl InitramfsFacts {
    /// The leading number of dracut's version: 59 of `059-4`, 110 of `110-2.fc44`.
    pub fn major(&self) -> Option<u32> {
        let version = self.version.as_deref()?;
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    }
}

impl std::fmt::Display for TableKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            TableKind::Mbr => "MBR",
            TableKind::Gpt => "GPT",
        })
    }
}

impl std::fmt::Display for TableFacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let boots = match (self.bios, self.efi) {
            (true, true) => "BIOS and EFI",
            (true, false) => "BIOS",
            (false, true) => "EFI",
            (false, false) => "nobody knows what",
        };
        let plural = if self.partitions == 1 { "" } else { "s" };
        write!(
            f,
            "{} with {} partition{plural}, for {boots}",
            self.kind, self.partitions
        )
    }
}

/// How [`BootFrom`] stands in a manifest: `"boot": "disk"` with its table, or kernel and initramfs.
#[derive(Serialize, Deserialize)]
struct BootDocument {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<BootWord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    table: Option<TableFacts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kernel: Option<FileFacts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    initramfs: Option<FileFacts>,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BootWord {
    Kernel,
    Disk,
}

impl TryFrom<BootDocument> for BootFrom {
    type Error = &'static str;

    fn try_from(document: BootDocument) -> Result<Self, Self::Error> {
        match (document.boot, document.kernel, document.initramfs) {
            (Some(BootWord::Disk), None, None) => match document.table {
                Some(table) => Ok(BootFrom::Disk(table)),
                None => Err("it boots from its disk, and `table` is missing"),
            },
            (Some(BootWord::Disk), ..) => Err("it boots from its disk, and yet has a kernel"),
            (_, Some(kernel), Some(initramfs)) => Ok(BootFrom::Kernel { kernel, initramfs }),
            (_, None, _) => Err("`kernel` is missing"),
            (_, _, None) => Err("`initramfs` is missing"),
        }
    }
}

impl From<BootFrom> for BootDocument {
    fn from(boot: BootFrom) -> Self {
        let (kernel, initramfs, table) = match boot {
            BootFrom::Kernel { kernel, initramfs } => (Some(kernel), Some(initramfs), None),
            BootFrom::Disk(table) => (None, None, Some(table)),
        };
        BootDocument {
            boot: Some(match table {
                Some(_) => BootWord::Disk,
                None => BootWord::Kernel,
            }),
            table,
            kernel,
            initramfs,
        }
    }
}

/// Tells kernel and initramfs of a version from those of all others, in few characters: what an ESP
/// says of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BootStamp([u8; 8]);

super::names::serde_as_text!(BootStamp);
super::names::schema_of_text!(BootStamp, "^[0-9a-f]{16}$");

impl BootFrom {
    /// The stamp of kernel and initramfs, where it has them.
    pub fn stamp(&self) -> Option<BootStamp> {
        let BootFrom::Kernel { kernel, initramfs } = self else {
            return None;
        };
        let both = Sha256::new()
            .chain_update(kernel.sha256.0)
            .chain_update(initramfs.sha256.0)
            .finalize();
        let mut short = [0; 8];
        short.iter_mut().zip(both).for_each(|(to, from)| *to = from);
        Some(BootStamp(short))
    }
}

impl std::fmt::Display for BootStamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for BootStamp {
    type Err = super::names::NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let short = hex(text).and_then(|bytes| bytes.try_into().ok());
        short
            .map(BootStamp)
            .filter(|stamp| stamp.to_string() == text)
            .ok_or_else(|| {
                super::names::NameError::new(text, "the stamp of a kernel and an initramfs")
            })
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
    fn a_manifest_tells_how_its_version_boots() {
        let file = format!("{{\"size\":1,\"sha256\":\"{}\"}}", Hash([7; 32]));
        let facts: FileFacts = serde_json::from_str(&file).unwrap();
        let kernel = BootFrom::Kernel {
            kernel: facts.clone(),
            initramfs: facts,
        };
        let disk = BootFrom::Disk(TableFacts {
            kind: TableKind::Gpt,
            partitions: 3,
            bios: false,
            efi: true,
        });
        for boot in [&kernel, &disk] {
            let text = serde_json::to_string(boot).unwrap();
            assert_eq!(&serde_json::from_str::<BootFrom>(&text).unwrap(), boot);
        }
        let old = format!("{{\"kernel\":{file},\"initramfs\":{file}}}");
        assert_eq!(serde_json::from_str::<BootFrom>(&old).unwrap(), kernel);
        // A manifest that lost a part is damaged, not of another kind.
        for (damaged, why) in [
            (format!("{{\"kernel\":{file}}}"), "`initramfs` is missing"),
            (
                format!("{{\"boot\":\"disk\",\"kernel\":{file}}}"),
                "yet has a kernel",
            ),
            (String::from("{\"boot\":\"disk\"}"), "`table` is missing"),
            (String::from("{}"), "`kernel` is missing"),
        ] {
            let error = serde_json::from_str::<BootFrom>(&damaged).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
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
