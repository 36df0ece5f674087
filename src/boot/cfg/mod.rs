//! boot.cfg: the iPXE script that loads a kernel and tells it where its root is.

mod root;

use std::fmt;
use std::net::IpAddr;

use crate::library::manifest::{InitramfsFacts, InitramfsKind};
use crate::library::{KernelArg, MacAddr};

pub use root::{Portal, Root};

/// dracut sets up an overlay over its root by itself from this release on.
const DRACUT_WITH_OVERLAY: u32 = 110;

/// What becomes of what the client writes to its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// There are none: the root is mounted read-only, as the described system does.
    None,
    /// They stay in the client's RAM, in an overlay over a disk that nobody writes.
    Ram,
    /// They go to the disk.
    Disk,
}

/// Where iPXE takes kernel and initramfs from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// From where the script itself lies: whoever runs it has set `prefix`, as from an ESP.
    Beside,
    /// From this URL.
    Server(String),
    /// From the client's own ESP, which has the right ones; from this URL if they are gone.
    Esp(String),
    /// From this URL, as those on the client's ESP are of another version.
    StaleEsp(String),
}

/// How the kernel learns where its root is, and what it takes to log in there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover {
    /// By the kernel line.
    KernelLine,
    /// By the table that iPXE leaves of the disks that it has attached (iBFT).
    Ibft,
}

/// Everything that a boot.cfg says.
#[derive(Debug, Clone)]
pub struct BootCfg<'a> {
    /// Where kernel and initramfs come from.
    pub files: Files,
    /// How the kernel learns of its root.
    pub handover: Handover,
    /// The kernel's release.
    pub kernel: &'a str,
    /// Whose initramfs it is: that decides how it is told where its root is.
    pub initramfs: &'a InitramfsFacts,
    /// The root.
    pub root: Root,
    /// The URL of the initramfs with the client's identity, if it is given one.
    pub identity: Option<String>,
    /// Whether and where it may be written.
    pub writes: Writes,
    /// The interface that the client booted from, where it is known.
    pub mac: Option<MacAddr>,
    /// Name servers, in place of those that DHCP offers.
    pub nameservers: &'a [IpAddr],
    /// Further kernel arguments.
    pub args: &'a [KernelArg],
}

impl BootCfg<'_> {
    /// The kernel's file name, in the prefix.
    pub fn kernel_file(version: &str) -> String {
        format!("vmlinuz-{version}")
    }

    /// The initramfs's file name, in the prefix.
    pub fn initramfs_file(version: &str) -> String {
        format!("initramfs-{version}.img")
    }

    /// The kernel's arguments, in the order of the described system: network, root, the rest.
    pub fn kernel_args(&self) -> Vec<String> {
        let mut args = vec![String::from(match self.writes {
            Writes::None => "ro",
            // An overlay is mounted the way its lower root is asked for, and it is to be written.
            Writes::Ram | Writes::Disk => "rw",
        })];
        args.push(String::from("ip=dhcp"));
        if self.handover == Handover::Ibft {
            // No argument that dracut knows asks for the network then, and the login needs it.
            args.push(String::from("rd.neednet=1"));
        }
        if let Some(mac) = self.mac {
            // 01 is Ethernet's hardware type; a client with several interfaces asks only on this one.
            args.push(format!("BOOTIF=01-{}", mac.hyphens()));
        }
        args.extend(self.name_server_args());
        args.push(format!("root={}", self.root.by_path()));
        args.extend(match (self.handover, self.initramfs.kind) {
            (Handover::Ibft, _) => self.ibft_args(),
            (_, InitramfsKind::InitramfsTools) => self.initramfs_tools_args(),
            (_, InitramfsKind::Dracut | InitramfsKind::Unknown) => self.dracut_args(),
        });
        if self.writes == Writes::Ram {
            args.push(String::from(self.overlay_arg()));
        }
        // Those that stand here already were set before netroot wrote them itself.
        let more = self.args.iter().filter(|arg| arg.left_out().is_none());
        args.extend(more.map(KernelArg::to_string));
        args
    }

    fn name_server_args(&self) -> Vec<String> {
        if self.nameservers.is_empty() {
            return Vec::new();
        }
        // dracut's network-legacy writes it into resolv.conf as it stands, which knows no brackets.
        let servers = self.nameservers.iter().map(|ip| format!("nameserver={ip}"));
        std::iter::once(String::from("rd.peerdns=0"))
            .chain(servers)
            .collect()
    }

    fn dracut_args(&self) -> Vec<String> {
        let mut args = vec![format!("netroot={}", self.root.netroot())];
        let Some(initiator) = &self.root.initiator else {
            return args;
        };
        args.push(format!("rd.iscsi.initiator={initiator}"));
        args.extend(self.root.secret_args([
            "rd.iscsi.username",
            "rd.iscsi.password",
            "rd.iscsi.in.username",
            "rd.iscsi.in.password",
        ]));
        // A root disk has no other path to fail over to: while the target is away the client
        // waits, up to a day, instead of failing every write.
        let timers = [
            "node.session.timeo.replacement_timeout=86400",
            "node.conn[0].timeo.noop_out_interval=0",
            "node.conn[0].timeo.noop_out_timeout=0",
        ];
        args.extend(timers.map(|timer| format!("rd.iscsi.param={timer}")));
        args
    }

    /// dracut logs in as the firmware's table says. Its timers are those of the image's iscsid.conf:
    /// `rd.iscsi.param` is not for this way.
    fn ibft_args(&self) -> Vec<String> {
        // Not rd.iscsi.ibft=1, too: that takes the network's settings out of the same table, as one more
        // `ip=`, and two of them stop dracut.
        let mut args = vec![String::from("rd.iscsi.firmware=1")];
        let initiator = self.root.initiator.iter();
        args.extend(initiator.map(|name| format!("rd.iscsi.initiator={name}")));
        args
    }

    fn initramfs_tools_args(&self) -> Vec<String> {
        let Root {
            portal,
            target,
            initiator,
            ..
        } = &self.root;
        let mut args = vec![
            format!("iscsi_target_name={target}"),
            format!("iscsi_target_ip={}", portal.ip),
            format!("iscsi_target_port={}", portal.port),
            String::from("iscsi_target_group=1"),
        ];
        args.extend(
            initiator
                .iter()
                .map(|name| format!("iscsi_initiator={name}")),
        );
        args.extend(self.root.secret_args([
            "iscsi_username",
            "iscsi_password",
            "iscsi_in_username",
            "iscsi_in_password",
        ]));
        args
    }

    fn overlay_arg(&self) -> &'static str {
        let dracut = self.initramfs.kind == InitramfsKind::Dracut;
        let major = self.initramfs.major().filter(|_| dracut);
        match major {
            Some(major) if major >= DRACUT_WITH_OVERLAY => "rd.overlay",
            _ => "systemd.volatile=overlay",
        }
    }
}

impl fmt::Display for BootCfg<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match &self.files {
            Files::Beside => String::new(),
            Files::Server(url) => format!("set prefix {url}\n"),
            Files::Esp(url) => include_str!("../../../esp/own.cfg").replace("@PREFIX@", url),
            Files::StaleEsp(url) => include_str!("../../../esp/stale.cfg").replace("@PREFIX@", url),
        };
        let attach = match self.handover {
            Handover::KernelLine => String::new(),
            Handover::Ibft => self.root.said_in(include_str!("../../../esp/ibft.cfg")),
        };
        // One that the server gives says at each step which one it is, for who tells where it failed.
        let (template, identity) = match &self.files {
            Files::Beside => (include_str!("../../../esp/boot.cfg"), ""),
            Files::Server(_) | Files::Esp(_) | Files::StaleEsp(_) => {
                (include_str!("../../../esp/served.cfg"), "set at identity\n")
            }
        };
        let script = match &self.identity {
            None => template
                .replace("@IDENTITY@", "")
                .replace("@AND_IDENTITY@", ""),
            // EFI loads what the kernel line names, BIOS all that was fetched; the later lies over the
            // earlier.
            Some(url) => template
                .replace(
                    "@IDENTITY@",
                    &format!("{identity}initrd --name identity.img {url}\n"),
                )
                .replace("@AND_IDENTITY@", " initrd=identity.img"),
        };
        let (shebang, load) = script.split_once('\n').unwrap_or(("#!ipxe", &script));
        let script = format!("{shebang}\n{prefix}{attach}{load}")
            .replace("@KERNEL@", &Self::kernel_file(self.kernel))
            .replace("@INITRAMFS@", &Self::initramfs_file(self.kernel))
            .replace("@ARGS@", &self.kernel_args().join(" "));
        f.write_str(&script)
    }
}

#[cfg(test)]
mod tests;
