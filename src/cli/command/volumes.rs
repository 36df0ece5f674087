//! `netroot volume …`

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueHint};

use super::{Consent, DryRun, OrNone};
use crate::build::SizeSpec;
use crate::library::{Allow, VolumeName};

use super::client::or_none;

/// Its commands.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Volume {
    /// Publish a file, a block device, or a new disk
    Add(Box<VolumeAdd>),
    /// List volumes
    List,
    /// Show one volume
    Show {
        /// Its name
        name: VolumeName,
    },
    /// Change whom a volume is for, and what they may do
    Set(Box<VolumeSet>),
    /// Make a volume larger, also while it is in use
    Resize {
        /// Its name
        name: VolumeName,
        /// The new size, such as 20G [default: what its file or device has become]
        size: Option<SizeSpec>,
        #[command(flatten)]
        run: DryRun,
    },
    /// Copy a volume into a new one that is for nobody yet
    ///
    /// The copy shares its blocks where the file system can (XFS, btrfs), and is crash-consistent: as a
    /// power cut at that moment would have left the volume. Elsewhere all that is in use is copied, which
    /// is refused while somebody may write.
    Snapshot {
        /// The volume
        name: VolumeName,
        /// The name of the copy [default: the volume's, and the moment]
        #[arg(value_name = "AS")]
        copy: Option<VolumeName>,
        #[command(flatten)]
        run: DryRun,
    },
    /// Forget a volume; its file goes only if it is the library's own
    Remove {
        /// Its name
        name: VolumeName,
        /// Also when it is in use: its sessions are ended first
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        consent: Consent,
    },
}

/// `netroot volume add`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("kept").args(["file", "device"]))]
#[command(
    after_help = "Nobody sees a volume that is not for him. An initiator has to match one --allow name and \
    one --allow range, where there are both, and to prove the --chap secret, where there is one; without \
    --allow, that secret alone lets it in, and the volume is not listed. --allow any is for everybody."
)]
pub(in crate::cli) struct VolumeAdd {
    /// Its name, which is the last part of its target's
    pub name: VolumeName,
    /// A file to publish as it is; made with --size if it is not there [default: one in the library]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// A block device to publish as it is
    #[arg(long, value_name = "DEVICE", value_hint = ValueHint::FilePath)]
    pub device: Option<PathBuf>,
    /// How large the new disk is, such as 20G
    #[arg(long, value_name = "SIZE", conflicts_with = "device")]
    pub size: Option<SizeSpec>,
    /// Bytes of a block: 512 or 4096
    #[arg(long, value_name = "BYTES", default_value_t = 512)]
    pub block_size: u32,
    /// Read and write past the system's cache (O_DIRECT)
    #[arg(long)]
    pub direct: bool,
    /// What initiators are told that the storage writes at once, for systems that refuse its 4096 [default: the truth]
    #[arg(long, value_name = "BYTES")]
    pub physical_block_size: Option<u32>,
    /// Nobody may write
    #[arg(long)]
    pub read_only: bool,
    /// Whom it is for: an initiator's name (* at its end is whatever follows), an address range, or any; repeatable
    #[arg(long, value_name = "WHO", conflicts_with = "target")]
    pub allow: Vec<Allow>,
    /// The CHAP name that an initiator has to prove; its secret is asked for on the terminal
    #[arg(long, value_name = "USER", conflicts_with = "target")]
    pub chap: Option<String>,
    /// A file with its secret, 12 bytes or more, in place of the question
    #[arg(long, value_name = "FILE", requires = "chap", value_hint = ValueHint::FilePath)]
    pub chap_secret_file: Option<PathBuf>,
    /// The CHAP name that the target proves
    #[arg(long, value_name = "USER", requires = "chap")]
    pub mutual_chap: Option<String>,
    /// A file with its secret
    #[arg(long, value_name = "FILE", requires = "mutual_chap", value_hint = ValueHint::FilePath)]
    pub mutual_chap_secret_file: Option<PathBuf>,
    /// Another volume whose target it joins, with the rules of that
    #[arg(long, value_name = "VOLUME")]
    pub target: Option<VolumeName>,
    /// Its number in its target, 1 to 255 [default: the next free one]
    #[arg(long, value_name = "N")]
    pub lun: Option<u16>,
    /// Initiators may have all of it overwritten by SANITIZE
    #[arg(long)]
    pub allow_sanitize: bool,
    /// Also a device that is mounted or part of something else
    #[arg(long, requires = "device")]
    pub force: bool,
    #[command(flatten)]
    pub run: DryRun,
}

/// `netroot volume set`
#[derive(Debug, Args)]
pub(in crate::cli) struct VolumeSet {
    /// Its name
    pub name: VolumeName,
    /// Whom it is for, in place of those it has; repeatable, --allow= for nobody
    #[arg(long, value_name = "WHO", value_parser = or_none::<Allow>)]
    pub allow: Option<Vec<OrNone<Allow>>>,
    /// The CHAP name that an initiator has to prove; --chap= for none
    #[arg(long, value_name = "USER")]
    pub chap: Option<String>,
    /// A file with its secret, in place of a question on the terminal
    #[arg(long, value_name = "FILE", requires = "chap", value_hint = ValueHint::FilePath)]
    pub chap_secret_file: Option<PathBuf>,
    /// The CHAP name that the target proves; --mutual-chap= for none
    #[arg(long, value_name = "USER")]
    pub mutual_chap: Option<String>,
    /// A file with its secret
    #[arg(long, value_name = "FILE", requires = "mutual_chap", value_hint = ValueHint::FilePath)]
    pub mutual_chap_secret_file: Option<PathBuf>,
    /// Whether to read and write past the system's cache (O_DIRECT)
    #[arg(long, value_name = "true|false")]
    pub direct: Option<bool>,
    /// Whether nobody may write
    #[arg(long, value_name = "true|false")]
    pub read_only: Option<bool>,
    /// Whether initiators may have all of it overwritten
    #[arg(long, value_name = "true|false")]
    pub allow_sanitize: Option<bool>,
    #[command(flatten)]
    pub run: DryRun,
}
