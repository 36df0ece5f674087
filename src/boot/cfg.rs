//! boot.cfg: the iPXE script that loads a kernel and tells it where its root is.

use std::fmt;
use std::net::IpAddr;

use crate::library::manifest::{InitramfsFacts, InitramfsKind};
use crate::library::{KernelArg, MacAddr};

/// The port of iSCSI (RFC 7143 §13.2 names 3260 as IANA's), left out where it can be.
const ISCSI_PORT: u16 = 3260;

/// dracut sets up an overlay over its root by itself from this release on.
const DRACUT_WITH_OVERLAY: u32 = 110;

/// Where the iSCSI target answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portal {
    /// Its address, as the client sees it.
    pub ip: IpAddr,
    /// Its TCP port.
    pub port: u16,
}

/// The disk that becomes the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Where its target answers.
    pub portal: Portal,
    /// The target's iSCSI name.
    pub target: String,
    /// The logical unit.
    pub lun: u16,
    /// The initiator's name that the client has to use, boot id included. Hand-written and exported
    /// boot.cfg have none.
    pub initiator: Option<String>,
}

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

/// Everything that a boot.cfg says.
#[derive(Debug, Clone)]
pub struct BootCfg<'a> {
    /// The URL that kernel and initramfs are fetched from; none where who runs the script has set
    /// `prefix` already, as from an ESP.
    pub prefix: Option<String>,
    /// The kernel's release.
    pub kernel: &'a str,
    /// Whose initramfs it is: that decides how it is told where its root is.
    pub initramfs: &'a InitramfsFacts,
    /// The root.
    pub root: Root,
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
        if let Some(mac) = self.mac {
            // 01 is Ethernet's hardware type; a client with several interfaces asks only on this one.
            args.push(format!("BOOTIF=01-{}", mac.hyphens()));
        }
        args.extend(self.name_server_args());
        args.push(format!("root={}", self.root.by_path()));
        args.extend(match self.initramfs.kind {
            InitramfsKind::InitramfsTools => self.initramfs_tools_args(),
            InitramfsKind::Dracut | InitramfsKind::Unknown => self.dracut_args(),
        });
        if self.writes == Writes::Ram {
            args.push(String::from(self.overlay_arg()));
        }
        args.extend(self.args.iter().map(KernelArg::to_string));
        args
    }

    fn name_server_args(&self) -> Vec<String> {
        if self.nameservers.is_empty() {
            return Vec::new();
        }
        let servers = self
            .nameservers
            .iter()
            .map(|ip| format!("nameserver={}", Bracketed(*ip)));
        std::iter::once(String::from("rd.peerdns=0"))
            .chain(servers)
            .collect()
    }

    fn dracut_args(&self) -> Vec<String> {
        let Root {
            portal,
            target,
            initiator,
            ..
        } = &self.root;
        // iscsi:SERVER:PROTOCOL:PORT:LUN:TARGET (dracut.cmdline(7)); what is empty is the default,
        // and the LUN stands in root= already.
        let port = portal.other_port();
        let mut args = vec![format!(
            "netroot=iscsi:{}::{port}::{target}",
            Bracketed(portal.ip)
        )];
        let Some(initiator) = initiator else {
            return args;
        };
        args.push(format!("rd.iscsi.initiator={initiator}"));
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
        let script = include_str!("../../esp/boot.cfg")
            .replace("@KERNEL@", &Self::kernel_file(self.kernel))
            .replace("@INITRAMFS@", &Self::initramfs_file(self.kernel))
            .replace("@ARGS@", &self.kernel_args().join(" "));
        match &self.prefix {
            None => f.write_str(&script),
            Some(prefix) => {
                let (shebang, rest) = script.split_once('\n').unwrap_or(("#!ipxe", &script));
                write!(f, "{shebang}\nset prefix {prefix}\n{rest}")
            }
        }
    }
}

impl Portal {
    /// The port where it must be said; nothing where it is the usual one.
    pub(super) fn other_port(&self) -> String {
        match self.port {
            ISCSI_PORT => String::new(),
            port => port.to_string(),
        }
    }
}

impl Root {
    /// The device that udev makes for this disk.
    pub fn by_path(&self) -> String {
        let Root {
            portal,
            target,
            lun,
            ..
        } = self;
        // udev takes the address as the kernel's session has it: without brackets, IPv6 too.
        format!(
            "/dev/disk/by-path/ip-{}:{}-iscsi-{target}-lun-{lun}",
            portal.ip, portal.port
        )
    }
}

/// The script that every client starts with, served under `base`, such as `http://192.0.2.1:8080`.
pub fn boot_ipxe(base: &str) -> String {
    include_str!("../../esp/boot.ipxe").replace("@BASE@", base)
}

/// An address as it stands where a colon follows or separates: IPv6 in brackets.
pub(super) struct Bracketed(pub(super) IpAddr);

impl fmt::Display for Bracketed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(ip) => write!(f, "{ip}"),
            IpAddr::V6(ip) => write!(f, "[{ip}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIBED: &str = "\
#!ipxe
kernel --name kernel.efi ${prefix}/vmlinuz-4.19.5-300.fc29.x86_64 initrd=initrd.img ro ip=dhcp rd.peerdns=0 nameserver=192.0.2.91 nameserver=192.0.2.92 root=/dev/disk/by-path/ip-192.0.2.158:3260-iscsi-iqn.edu.example.server-01:fc29-lun-1 netroot=iscsi:192.0.2.158::::iqn.edu.example.server-01:fc29 console=tty0 console=ttyS0,115200n8 audit=0 selinux=0 quiet
initrd --name initrd.img ${prefix}/initramfs-4.19.5-300.fc29.x86_64.img
boot || exit
";

    fn words(text: &str) -> Vec<KernelArg> {
        text.split_whitespace()
            .map(|word| word.parse().unwrap())
            .collect()
    }

    fn client(initramfs: &InitramfsFacts, writes: Writes, ip: &str) -> String {
        BootCfg {
            prefix: Some(String::from("http://192.0.2.1:8080/images/deb12/2")),
            kernel: "6.1.0-30-amd64",
            initramfs,
            root: Root {
                portal: Portal {
                    ip: ip.parse().unwrap(),
                    port: 3261,
                },
                target: String::from("iqn.2026-01.edu.example:client-525400123456"),
                lun: 1,
                initiator: Some(String::from(
                    "iqn.2026-01.edu.example:client-525400123456.0",
                )),
            },
            writes,
            mac: Some("52:54:00:12:34:56".parse().unwrap()),
            nameservers: &[],
            args: &[],
        }
        .to_string()
    }

    #[test]
    fn the_described_inputs_give_the_described_boot_cfg() {
        let cfg = BootCfg {
            prefix: None,
            kernel: "4.19.5-300.fc29.x86_64",
            initramfs: &InitramfsFacts::default(),
            root: Root {
                portal: Portal {
                    ip: "192.0.2.158".parse().unwrap(),
                    port: 3260,
                },
                target: String::from("iqn.edu.example.server-01:fc29"),
                lun: 1,
                initiator: None,
            },
            writes: Writes::None,
            mac: None,
            nameservers: &["192.0.2.91".parse().unwrap(), "192.0.2.92".parse().unwrap()],
            args: &words("console=tty0 console=ttyS0,115200n8 audit=0 selinux=0 quiet"),
        };
        assert_eq!(cfg.to_string(), DESCRIBED);
    }

    #[test]
    fn a_clone_is_booted_for_writing_by_a_named_initiator_that_waits() {
        let cfg = client(&InitramfsFacts::default(), Writes::Disk, "192.0.2.1");
        let (head, rest) = cfg.split_at(cfg.find("kernel").unwrap());
        assert_eq!(
            head,
            "#!ipxe\nset prefix http://192.0.2.1:8080/images/deb12/2\n"
        );
        for part in [
            " rw ip=dhcp BOOTIF=01-52-54-00-12-34-56 ",
            "root=/dev/disk/by-path/ip-192.0.2.1:3261-iscsi-iqn.2026-01.edu.example:client-525400123456-lun-1 ",
            "netroot=iscsi:192.0.2.1::3261::iqn.2026-01.edu.example:client-525400123456 ",
            "rd.iscsi.initiator=iqn.2026-01.edu.example:client-525400123456.0 ",
            "replacement_timeout=86400",
        ] {
            assert!(rest.contains(part), "{part} in {rest}");
        }
        assert!(!rest.contains("overlay"), "{rest}");
        assert_eq!(cfg.lines().count(), 5, "the kernel line is one line");
    }

    #[test]
    fn shared_writes_go_to_ram_by_what_the_image_can() {
        let of = |version: &str| InitramfsFacts {
            version: Some(version.into()),
            ..Default::default()
        };
        assert!(client(&of("059-4"), Writes::Ram, "192.0.2.1").contains(" rw ip=dhcp"));
        assert!(
            client(&of("059-4"), Writes::Ram, "192.0.2.1").contains(" systemd.volatile=overlay")
        );
        assert!(client(&of("110-1"), Writes::Ram, "192.0.2.1").contains(" rd.overlay"));
    }

    #[test]
    fn ipv6_stands_in_brackets_where_dracut_splits_at_colons() {
        let cfg = client(&InitramfsFacts::default(), Writes::Disk, "2001:db8::1");
        assert!(
            cfg.contains("netroot=iscsi:[2001:db8::1]::3261::iqn."),
            "{cfg}"
        );
        assert!(cfg.contains("by-path/ip-2001:db8::1:3261-iscsi-"), "{cfg}");
    }

    #[test]
    fn initramfs_tools_is_told_in_its_own_words() {
        let facts = InitramfsFacts {
            kind: InitramfsKind::InitramfsTools,
            ..Default::default()
        };
        let cfg = client(&facts, Writes::Ram, "192.0.2.1");
        assert!(
            cfg.contains("iscsi_target_group=1 iscsi_initiator=iqn.2026-01."),
            "{cfg}"
        );
        assert!(
            cfg.contains("systemd.volatile=overlay") && !cfg.contains("netroot="),
            "{cfg}"
        );
    }

    #[test]
    fn every_client_starts_with_one_script() {
        let script = boot_ipxe("http://192.0.2.1:8080");
        assert!(script.starts_with("#!ipxe\n"));
        assert!(
            script.contains(
                "chain --autofree http://192.0.2.1:8080/boot.cfg?mac=${netX/mac:hexhyp} ||"
            )
        );
        assert!(!script.contains('@'));
    }
}
