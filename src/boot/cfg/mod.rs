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
        args.extend(self.args.iter().map(KernelArg::to_string));
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
        let template = include_str!("../../../esp/boot.cfg");
        let script = match &self.identity {
            None => template
                .replace("@IDENTITY@", "")
                .replace("@AND_IDENTITY@", ""),
            // EFI loads what the kernel line names, BIOS all that was fetched; the later lies over the
            // earlier.
            Some(url) => template
                .replace("@IDENTITY@", &format!("initrd --name identity.img {url}\n"))
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
mod tests {
    use super::*;
    use crate::library::{Chap, Config, Secrets, own_words};

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
            identity: None,
            files: Files::Server(String::from("http://192.0.2.1:8080/images/deb12/2")),
            handover: Handover::KernelLine,
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
                secrets: Secrets::default(),
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
            identity: None,
            files: Files::Beside,
            handover: Handover::KernelLine,
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
                secrets: Secrets::default(),
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

    /// The script of a client whose initramfs is dracut's.
    fn with(files: Files, handover: Handover) -> String {
        let facts = InitramfsFacts::default();
        let root = Root {
            portal: Portal {
                ip: "192.0.2.1".parse().unwrap(),
                port: 3260,
            },
            target: String::from("iqn.2026-01.edu.example:fc28.3"),
            lun: 26,
            initiator: Some(String::from(
                "iqn.2026-01.edu.example:client-525400123456.0",
            )),
            secrets: Secrets::default(),
        };
        BootCfg {
            identity: None,
            files,
            handover,
            kernel: "6.1.0",
            initramfs: &facts,
            root,
            writes: Writes::Ram,
            mac: None,
            nameservers: &["2001:db8::53".parse().unwrap()],
            args: &[],
        }
        .to_string()
    }

    #[test]
    fn a_disk_in_the_firmwares_table_is_attached_before_the_kernel_is_loaded() {
        let cfg = with(
            Files::Server("http://192.0.2.1:8080/x".into()),
            Handover::Ibft,
        );
        let expected = "\
#!ipxe
set prefix http://192.0.2.1:8080/x
# The disk is attached here; the kernel finds it, and what it takes to log in, in the firmware's table.
set initiator-iqn iqn.2026-01.edu.example:client-525400123456.0
sanhook --drive 0x80 iscsi:192.0.2.1:::1a:iqn.2026-01.edu.example:fc28.3 && goto attached ||
echo No boot: iscsi:192.0.2.1:::1a:iqn.2026-01.edu.example:fc28.3 could not be attached
echo The server's page of this machine tells why; without the firmware's table: client set --way http
sleep 10
exit 1
:attached
kernel --name kernel.efi ${prefix}/vmlinuz-6.1.0 initrd=initrd.img rw ip=dhcp rd.neednet=1 rd.peerdns=0 nameserver=2001:db8::53 root=/dev/disk/by-path/ip-192.0.2.1:3260-iscsi-iqn.2026-01.edu.example:fc28.3-lun-26 rd.iscsi.firmware=1 rd.iscsi.initiator=iqn.2026-01.edu.example:client-525400123456.0 systemd.volatile=overlay
initrd --name initrd.img ${prefix}/initramfs-6.1.0.img
boot || exit
";
        assert_eq!(cfg, expected);
    }

    #[test]
    fn files_of_the_clients_own_esp_are_taken_if_they_are_there() {
        let url = String::from("http://192.0.2.1:8080/images/fc28/3");
        let cfg = with(Files::Esp(url.clone()), Handover::KernelLine);
        let lines: Vec<&str> = cfg.lines().collect();
        let at = |line: &str| lines.iter().position(|found| *found == line).unwrap();
        let own = at("set prefix file:///linux");
        let probe = lines
            .iter()
            .position(|line| line.starts_with("imgfetch "))
            .unwrap();
        let server = at("set prefix http://192.0.2.1:8080/images/fc28/3");
        let kernel = lines
            .iter()
            .position(|line| line.starts_with("kernel "))
            .unwrap();
        assert!(own < probe && probe < server && server < at(":there") && at(":there") < kernel);
        assert!(lines[probe].contains("${prefix}/vmlinuz-6.1.0 && "));
        assert!(lines[probe].contains("${prefix}/initramfs-6.1.0.img && "));
        assert!(lines[probe].ends_with(" && goto there ||"));

        let stale = with(Files::StaleEsp(url.clone()), Handover::KernelLine);
        assert!(stale.contains("\nset prefix http://192.0.2.1:8080/images/fc28/3\nkernel "));
        assert!(!stale.contains("file:"));
        for text in [cfg, stale] {
            assert!(!text.contains('@'), "{text}");
        }
    }

    fn chap(user: &str) -> Chap {
        Chap::new(user, "aSecretOf20Letters0x").unwrap()
    }

    #[test]
    fn a_boot_is_given_its_secrets_where_its_initiator_looks_for_them() {
        let facts = |kind| InitramfsFacts {
            kind,
            ..Default::default()
        };
        let check = |kind, handover, mutual: Option<Chap>, expected: &[&str], never: &str| {
            let facts = facts(kind);
            let root = Root {
                portal: Portal {
                    ip: "192.0.2.1".parse().unwrap(),
                    port: 3260,
                },
                target: String::from("iqn.2026-01.edu.example:fc28.3"),
                lun: 1,
                initiator: Some(String::from(
                    "iqn.2026-01.edu.example:client-525400123456.0",
                )),
                secrets: Secrets {
                    chap: Some(chap("525400123456")),
                    mutual,
                },
            };
            let cfg = BootCfg {
                identity: Some(String::from("http://192.0.2.1:8080/identity/x")),
                files: Files::Beside,
                handover,
                kernel: "6.1.0",
                initramfs: &facts,
                root,
                writes: Writes::Disk,
                mac: None,
                nameservers: &[],
                args: &[],
            }
            .to_string();
            for part in expected {
                assert!(cfg.contains(part), "{part} in {cfg}");
            }
            assert!(
                !cfg.contains(never) && !cfg.contains('@'),
                "{never} in {cfg}"
            );
            let after = "initramfs-6.1.0.img\ninitrd --name identity.img http://192.0.2.1:8080/identity/x\nboot";
            assert!(
                cfg.contains("initrd=initrd.img initrd=identity.img "),
                "{cfg}"
            );
            assert!(cfg.contains(after), "{cfg}");
        };
        let line = [
            "rd.iscsi.username=525400123456 rd.iscsi.password=aSecretOf20Letters0x ",
            "rd.iscsi.in.username=netroot rd.iscsi.in.password=aSecretOf20Letters0x ",
        ];
        let both = || Some(chap("netroot"));
        check(
            InitramfsKind::Dracut,
            Handover::KernelLine,
            both(),
            &line,
            "set password",
        );
        let tools = ["iscsi_username=525400123456 iscsi_password=aSecretOf20Letters0x"];
        check(
            InitramfsKind::InitramfsTools,
            Handover::KernelLine,
            None,
            &tools,
            "_in_",
        );
        let table = [
            "set username 525400123456\nset password aSecretOf20Letters0x\n",
            "set reverse-username netroot\nset reverse-password aSecretOf20Letters0x\nsanhook",
        ];
        check(
            InitramfsKind::Dracut,
            Handover::Ibft,
            both(),
            &table,
            "rd.iscsi.password",
        );
    }

    #[test]
    fn netroots_own_words_take_no_more_room_than_is_kept_for_them() {
        let host = "server-01.example.edu".parse().unwrap();
        let prefix = format!("iqn.2026-01.{}", "x".repeat(120));
        let text = Config::template(&host, &prefix.parse().unwrap(), true);
        let text = text.replace(
            "nameservers = []",
            "nameservers = [\"2001:db8:1:2:3:4:5:6\"]",
        );
        let config = Config::parse(std::path::Path::new("netroot.toml"), &text).unwrap();
        let far = "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap();
        for (kind, handover) in [
            (InitramfsKind::Dracut, Handover::KernelLine),
            (InitramfsKind::Dracut, Handover::Ibft),
            (InitramfsKind::InitramfsTools, Handover::KernelLine),
        ] {
            let cfg = BootCfg {
                identity: Some("https://192.0.2.1/x".into()),
                files: Files::Beside,
                handover,
                kernel: "6.1.0",
                initramfs: &InitramfsFacts {
                    kind,
                    ..Default::default()
                },
                root: Root {
                    portal: Portal {
                        ip: far,
                        port: 65535,
                    },
                    target: format!("{prefix}:a2345678901234567890123456789012.999999999"),
                    lun: 255,
                    initiator: Some(format!(
                        "{prefix}:client-525400123456.0190a1b2c3d4-999999999-0123456789abcdef"
                    )),
                    secrets: Secrets {
                        chap: Some(chap("525400123456")),
                        mutual: Some(chap("netroot")),
                    },
                },
                writes: Writes::Ram,
                mac: Some("52:54:00:12:34:56".parse().unwrap()),
                nameservers: &config.boot.nameservers,
                args: &[],
            };
            let long = cfg.kernel_args().join(" ").len() + " initrd=initrd.img".len();
            assert!(
                long <= own_words(&config),
                "{long} bytes: {:?}",
                cfg.kernel_args()
            );
        }
    }
}
