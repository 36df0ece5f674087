//! What is served: `netroot boot …`, `esp …`, `serve`, `target …` and `session …`

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueHint};

use super::{Consent, DryRun};
use crate::library::{ClientSelector, VersionSpec};

/// `netroot boot …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Boot {
    /// Print the boot.cfg that a client would get
    Show {
        /// MAC, name, or @group
        client: ClientSelector,
        /// The server's address as the client sees it [default: as announced]
        #[arg(long, value_name = "ADDRESS")]
        server: Option<std::net::IpAddr>,
    },
}

/// `netroot esp …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Esp {
    /// Write loader, kernel, initramfs and boot.cfg for an EFI system partition
    Export(EspExport),
}

/// `netroot esp export`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whose").args(["image", "client"]).required(true))]
pub(in crate::cli) struct EspExport {
    /// The directory to write: the mounted partition, or one to copy from
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// For any machine: boots this image's current version, read-only
    #[arg(long, short, value_name = "IMAGE")]
    pub image: Option<VersionSpec>,
    /// For one client, with its kernel arguments
    #[arg(long, value_name = "CLIENT")]
    pub client: Option<ClientSelector>,
    /// The server's address as clients see it [default: as announced]
    #[arg(long, value_name = "ADDRESS")]
    pub server: Option<std::net::IpAddr>,
    /// The iPXE loader to install as efi/boot/bootx64.efi [default: of the distribution's package]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ipxe: Option<PathBuf>,
    #[command(flatten)]
    pub run: DryRun,
}

/// `netroot serve`
#[derive(Debug, Args)]
pub(in crate::cli) struct Serve {}

/// `netroot config …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Config {
    /// Have the running server read netroot.toml anew; sessions stay
    ///
    /// The addresses of the iSCSI target come and go, and those that are announced change; sessions that
    /// came in by an address that goes stay until they end. Name servers and kernel arguments hold for
    /// the next boot of a client. What waits for the server's next start is named. A file with a mistake
    /// changes nothing. SIGHUP does the same.
    Reload {
        #[command(flatten)]
        run: DryRun,
    },
}

/// `netroot target …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Target {
    /// List targets with their disks and sessions
    List,
}

/// `netroot session …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Session {
    /// List live iSCSI sessions
    List,
    /// End a session; its initiator may log in again
    Kick {
        /// The number that `session list` shows
        id: u64,
        #[command(flatten)]
        consent: Consent,
    },
}
