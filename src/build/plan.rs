//! Plans are values: what would be done, to be shown or to be done.

use std::fmt;

use serde::Serialize;

use super::recipe::Action;
use super::size::human;
use super::{DiskFormat, InitramfsCheck};
use crate::library::manifest::TableFacts;
use crate::library::{
    ClientName, ImageName, Library, Result, Version, VersionId, Way, caution_of_way,
};

/// What makes a version, step by step. Showing it touches nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What comes out of it: the image that gets a new version.
    pub image: String,
    /// In order; each needs the ones before it.
    pub steps: Vec<Step>,
    /// What a person should know before.
    pub warnings: Vec<String>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Make a file system for a tree whose size nobody knows yet, and mount it.
    CreateScratch,
    /// Make an empty disk that takes no room yet.
    CreateDisk {
        /// Bytes; by the tree's size where that is not known yet.
        size: Option<u64>,
    },
    /// Begin the image with what is said of the one that it is made of.
    Inherit {
        /// That image.
        from: ImageName,
        /// Its way to boot.
        way: Way,
    },
    /// Hash a version again: a damaged one must not be what another is made of.
    Verify {
        /// The version, such as `fc28@3`.
        version: String,
    },
    /// Make the disk a copy of a version's, sharing its blocks where the file system can.
    CopyVersion {
        /// The version, such as `fc28@3`.
        version: String,
    },
    /// Give the file system of the copy an identifier of its own.
    Identify,
    /// Bring in a disk that was made elsewhere.
    ReadDisk {
        /// The file that it is in.
        source: String,
        /// The file's format.
        format: DiskFormat,
        /// Bytes of the disk.
        size: u64,
    },
    /// Make the disk a copy of a client's, which nobody writes meanwhile.
    CopyClone {
        /// The client.
        client: ClientName,
        /// The version that its disk was made from.
        from: VersionId,
    },
    /// Leave it as it is: it has partitions, and boots by itself.
    KeepPartitions {
        /// What its partition table tells.
        table: TableFacts,
    },
    /// Replay the journal of its file system, and check it before anything looks inside.
    Settle {
        /// `xfs`, `ext4`, ...
        filesystem: String,
    },
    /// Show how the tree differs from a version's, and ask whether to go on.
    Agree {
        /// The version.
        version: VersionId,
    },
    /// Find out which distribution is on it, and so which recipe it goes by.
    Recognize,
    /// Take out what no two clients should share, as that recipe says.
    ScrubRecognized,
    /// Give the disk more bytes at its end.
    Enlarge {
        /// Bytes.
        size: u64,
    },
    /// Make the file system on the disk.
    MakeFileSystem {
        /// `xfs`, `ext4` or `btrfs`.
        filesystem: &'static str,
        /// The kernel that it is made for; the tree's where that is not known yet.
        kernel: Option<String>,
    },
    /// Mount the disk where nobody else sees it.
    Mount,
    /// Let the file system fill the enlarged disk.
    Grow,
    /// Refuse a file system that is too full for what comes.
    EnsureRoom {
        /// What has to be free in it, in hundredths of what is used.
        percent: u64,
    },
    /// Go on only if the packages, the kernel that boots or the recipe are not those of the parent.
    EnsureNews,
    /// Go on only if it calls itself another release than before.
    EnsureUpgraded,
    /// Copy a directory into it.
    CopyTree {
        /// The directory.
        source: String,
        /// Files, directories and everything else in it.
        entries: u64,
        /// Bytes to be copied.
        bytes: u64,
    },
    /// Copy the tree from the scratch file system into it, and give that up.
    CopyScratch,
    /// Mount a directory by itself, read-only and where nobody else sees it.
    View {
        /// The directory; the tree that came out where there is none.
        source: Option<String>,
    },
    /// Make a disk with all files of that tree in it.
    Pack {
        /// `erofs` or `ext4`.
        filesystem: &'static str,
        /// The kernel that it is made for; the tree's where that is not known yet.
        kernel: Option<String>,
        /// Bytes of the disk; what its files need where none are told.
        size: Option<u64>,
    },
    /// Unpack an archive into it.
    Unpack {
        /// The archive; `-` is the standard input.
        source: String,
        /// Members of it and bytes of their data, where it could be read before.
        holds: Option<(u64, u64)>,
    },
    /// Mount what programs of the image need, and let this host's name servers stand in.
    Enter,
    /// Do a step of a recipe, or what a person asked for.
    Apply {
        /// What is done.
        action: Action,
    },
    /// Unmount that, and put the image's own files back.
    Leave,
    /// Take out what no two clients should share.
    Scrub {
        /// What is taken out.
        action: Action,
    },
    /// Give the blocks of removed files back.
    Trim,
    /// Take kernel and initramfs out, and write down what is in the tree.
    TakeBootFiles {
        /// What is done about the initramfs.
        check: InitramfsCheck,
    },
    /// Unmount the disk.
    Unmount,
    /// Check the file system.
    Check,
    /// Hash and sync everything, and publish it.
    Seal,
}

impl Plan {
    /// Begins an image with what is said of the one that it is made of, and tells of a version that would
    /// not become current by that, as far as one is like its `parent`.
    pub(super) fn goes_by_way_of(
        mut self,
        library: &Library,
        to: &ImageName,
        parent: &Version,
    ) -> Result<Self> {
        let from = &parent.id().image;
        let way = library.way_of_image(from)?;
        if let (Some(way), true) = (way, from != to) {
            let from = from.clone();
            self.steps.insert(0, Step::Inherit { from, way });
        }
        let kind = parent.manifest().facts.early.kind;
        self.warnings.extend(caution_of_way(to, way, kind));
        Ok(self)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.steps.contains(&Step::Seal) {
            true => write!(f, "A new version of {} would be made:", self.image)?,
            false => f.write_str("This would be done, and nothing of it kept:")?,
        }
        for (at, step) in self.steps.iter().enumerate() {
            write!(f, "\n{:3}. {step}", at + 1)?;
        }
        for warning in &self.warnings {
            write!(f, "\nwarning: {warning}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateScratch => f.write_str("make a scratch file system and mount it privately"),
            Self::CreateDisk { size: Some(size) } => {
                write!(f, "create a sparse disk of {}", human(*size))
            }
            Self::CreateDisk { size: None } => {
                f.write_str("create a sparse disk for the tree that came out")
            }
            Self::Verify { version } => write!(f, "verify {version} (its SHA-256 tree)"),
            Self::CopyVersion { version } => write!(f, "copy the disk of {version}"),
            Self::Identify => f.write_str("give its file system an identifier of its own"),
            Self::ReadDisk {
                source,
                format: DiskFormat::Raw,
                size,
            } => write!(f, "copy the disk {source}, {}", human(*size)),
            Self::ReadDisk {
                source,
                format,
                size,
            } => write!(
                f,
                "convert {source} from {format} to a sparse disk of {}",
                human(*size)
            ),
            Self::CopyClone { client, from } => write!(
                f,
                "copy the disk of client {client}, made from {from}; it cannot boot meanwhile"
            ),
            Self::KeepPartitions { table } => {
                write!(f, "take it as it is: {table}; clients boot it by sanboot")
            }
            Self::Settle { filesystem } => {
                write!(f, "replay the journal of its {filesystem}, and check it")
            }
            Self::Agree { version } => {
                write!(f, "show how it differs from {version}, and ask")
            }
            Self::Recognize => f.write_str("find out which distribution is on it"),
            Self::ScrubRecognized => {
                f.write_str("take out what no two clients should share, as its recipe says")
            }
            Self::Enlarge { size } => write!(f, "enlarge it to {}", human(*size)),
            Self::MakeFileSystem {
                filesystem,
                kernel: Some(kernel),
            } => write!(f, "make {filesystem} for kernel {kernel} on it"),
            Self::MakeFileSystem {
                filesystem,
                kernel: None,
            } => write!(f, "make {filesystem} for the tree's kernel on it"),
            Self::Mount => f.write_str("mount it privately"),
            Self::Grow => f.write_str("grow the file system"),
            Self::EnsureRoom { percent } => write!(
                f,
                "see that {percent} % of what is used in it is free beside that"
            ),
            Self::EnsureNews => f.write_str("stop here if packages, kernel and recipe are what they were"),
            Self::EnsureUpgraded => f.write_str("see that it calls itself another release"),
            Self::CopyTree {
                source,
                entries,
                bytes,
            } => write!(
                f,
                "copy {source} into it: {entries} entries, {}",
                human(*bytes)
            ),
            Self::CopyScratch => f.write_str("copy the tree from the scratch file system into it"),
            Self::View {
                source: Some(source),
            } => write!(f, "mount {source} privately, read-only"),
            Self::View { source: None } => {
                f.write_str("mount the tree that came out privately, read-only")
            }
            Self::Pack {
                filesystem,
                kernel,
                size,
            } => {
                let kernel = kernel.as_deref().unwrap_or("of the tree");
                write!(f, "pack it into {filesystem} for the kernel {kernel}")?;
                match size {
                    Some(size) => write!(f, ", on a sparse disk of {}", human(*size)),
                    None => Ok(()),
                }
            }
            Self::Unpack {
                source,
                holds: Some((members, bytes)),
            } => write!(
                f,
                "unpack {source} into it: {members} members, {}",
                human(*bytes)
            ),
            Self::Unpack {
                source,
                holds: None,
            } => write!(f, "unpack {source} into it"),
            Self::Inherit { from, way } => write!(f, "say way {way} of it, as of {from}"),
            Self::Enter => f.write_str(
                "mount dev, dev/pts, dev/shm, proc, sys and run in it, use this host's name servers",
            ),
            Self::Apply { action } => action.fmt(f),
            Self::Leave => f.write_str("unmount those again, put its own files back"),
            Self::Scrub { action } => write!(f, "scrub: {action}"),
            Self::Trim => f.write_str("give back the blocks of removed files"),
            Self::TakeBootFiles {
                check: InitramfsCheck::Refuse,
            } => f.write_str("take out kernel and initramfs, and check them"),
            Self::TakeBootFiles {
                check: InitramfsCheck::Skip,
            } => f.write_str("take out kernel and initramfs, as they are"),
            Self::Unmount => f.write_str("unmount it"),
            Self::Check => f.write_str("check the file system"),
            Self::Seal => f.write_str("hash, sync and publish it"),
        }
    }
}
