//! What is served: `netroot boot …`, `esp …`, `serve`, `target …` and `session …`

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueHint};

use super::{Consent, DryRun};
use crate::library::{ClientSelector, VersionSpec, Way};

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
        /// As if this were its way to boot: http, ibft or esp
        #[arg(long, value_name = "WAY")]
        way: Option<Way>,
    },
    /// Print what dnsmasq has to be told, where it is the site's DHCP server
    ///
    /// For a file of its own, such as /etc/dnsmasq.d/netroot.conf, beside the addresses that dnsmasq gives
    /// already. Every kind of firmware is named the iPXE that it can start, by TFTP or as a URL, and iPXE
    /// goes on with netroot's script. None of this is needed with [dhcp] mode = "proxy" in netroot.toml.
    Dnsmasq {
        /// The server's address as machines see it [default: as announced]
        #[arg(long, value_name = "ADDRESS")]
        server: Option<std::net::Ipv4Addr>,
    },
    /// Print what Kea has to be told, where it is the site's DHCP server
    ///
    /// The client classes go into the Dhcp4 object of /etc/kea/kea-dhcp4.conf, beside the subnets that are
    /// there already. None of this is needed with [dhcp] mode = "proxy" in netroot.toml.
    Kea {
        /// The server's address as machines see it [default: as announced]
        #[arg(long, value_name = "ADDRESS")]
        server: Option<std::net::Ipv4Addr>,
    },
}

/// `netroot esp …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Esp {
    /// Write loader, kernel, initramfs and boot.cfg for an EFI system partition
    Export(EspExport),
    /// Tell whether an EFI system partition is what would be written today; exit code 1 if it is not
    Check(EspCheck),
}

/// `netroot esp export`
#[derive(Debug, Args)]
#[command(
    after_help = "FILE.img is the image of a disk with a partition table and the partition, as large \
    as its files need: written to a stick (dd if=FILE.img of=/dev/sdX bs=4M conv=fsync), it boots \
    any UEFI machine.\n\n\
    A client whose way to boot is esp asks the server at each boot, in any mode, and takes kernel and \
    initramfs from its own partition as long as they are the right ones. Everybody else boots by \
    what stands on the partition, and needs mode shared."
)]
pub(in crate::cli) struct EspExport {
    /// The directory to write (the mounted partition, or one to copy from), or the image of a disk
    #[arg(value_hint = ValueHint::AnyPath, value_name = "DIR|FILE.img")]
    pub to: PathBuf,
    #[command(flatten)]
    pub of: EspOf,
    #[command(flatten)]
    pub run: DryRun,
}

/// `netroot esp check`
#[derive(Debug, Args)]
#[command(
    after_help = "Give the options that it was exported with: another --server, for one, is another \
    boot.cfg. Files in the partition's directory linux/ that would not be written are told as \
    foreign, and change no exit code; other directories are not looked at."
)]
pub(in crate::cli) struct EspCheck {
    /// The mounted partition, the image of a disk, or the device of a stick
    #[arg(value_hint = ValueHint::AnyPath, value_name = "DIR|FILE.img|DEVICE")]
    pub at: PathBuf,
    #[command(flatten)]
    pub of: EspOf,
}

/// Whose partition.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whose").args(["image", "client"]).required(true))]
pub(in crate::cli) struct EspOf {
    /// For any machine: boots this image's current version, read-only
    #[arg(long, short, value_name = "IMAGE")]
    pub image: Option<VersionSpec>,
    /// For one client, with its kernel arguments
    #[arg(long, value_name = "CLIENT")]
    pub client: Option<ClientSelector>,
    /// The server's address as clients see it [default: as announced]
    #[arg(long, value_name = "ADDRESS")]
    pub server: Option<std::net::IpAddr>,
    /// The iPXE loader to install as efi/boot/bootx64.efi (arm64: bootaa64.efi) [default: as in [boot] loaders, or of the distribution's package]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ipxe: Option<PathBuf>,
}

/// `netroot serve`
#[derive(Debug, Args)]
pub(in crate::cli) struct Serve {}

/// `netroot config …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Config {
    /// Check netroot.toml, and the file that --config names, for mistakes
    Check,
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
