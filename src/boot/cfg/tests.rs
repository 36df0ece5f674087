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
    let (head, rest) = cfg.split_at(cfg.find("kernel --name").unwrap());
    assert_eq!(
        head,
        "#!ipxe\nset prefix http://192.0.2.1:8080/images/deb12/2\nset at kernel\n"
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
    assert_eq!(cfg.lines().count(), 8, "the kernel line is one line");
}

#[test]
fn shared_writes_go_to_ram_by_what_the_image_can() {
    let of = |version: &str| InitramfsFacts {
        version: Some(version.into()),
        ..Default::default()
    };
    assert!(client(&of("059-4"), Writes::Ram, "192.0.2.1").contains(" rw ip=dhcp"));
    assert!(client(&of("059-4"), Writes::Ram, "192.0.2.1").contains(" systemd.volatile=overlay"));
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
# The disk is attached here, in the place of one that an earlier try left; the kernel finds it, and what it
# takes to log in, in the firmware's table.
set at san
sanunhook --drive 0x80 ||
set initiator-iqn iqn.2026-01.edu.example:client-525400123456.0
sanhook --drive 0x80 iscsi:192.0.2.1:::1a:iqn.2026-01.edu.example:fc28.3 && goto attached ||
echo No boot: iscsi:192.0.2.1:::1a:iqn.2026-01.edu.example:fc28.3 could not be attached
echo The server's page of this machine tells why; without the firmware's table: client set --way http
sleep 10
exit ${errno}
:attached
set at kernel
kernel --name kernel.efi ${prefix}/vmlinuz-6.1.0 initrd=initrd.img rw ip=dhcp rd.neednet=1 rd.peerdns=0 nameserver=2001:db8::53 root=/dev/disk/by-path/ip-192.0.2.1:3260-iscsi-iqn.2026-01.edu.example:fc28.3-lun-26 rd.iscsi.firmware=1 rd.iscsi.initiator=iqn.2026-01.edu.example:client-525400123456.0 systemd.volatile=overlay
set at initramfs
initrd --name initrd.img ${prefix}/initramfs-6.1.0.img
set at start
boot
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
    assert!(
        stale.contains("\nset prefix http://192.0.2.1:8080/images/fc28/3\nset at kernel\nkernel ")
    );
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
            files: Files::Server(String::from("http://192.0.2.1:8080/x")),
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
        let after = "initramfs-6.1.0.img\nset at identity\ninitrd --name identity.img \
                     http://192.0.2.1:8080/identity/x\nset at start\nboot\n";
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
        let files = " initrd=initrd.img initrd=identity.img";
        let long = cfg.kernel_args().join(" ").len() + files.len();
        assert!(
            long <= own_words(&config),
            "{long} bytes: {:?}",
            cfg.kernel_args()
        );
    }
}

#[test]
fn a_word_that_was_set_before_netroot_wrote_it_itself_is_left_out() {
    let host = "server-01.example.edu".parse().unwrap();
    let text = Config::template(&host, &"iqn.2026-01.edu.example".parse().unwrap(), true);
    let text = text.replace(
        "kernel_args = []",
        "kernel_args = [\"quiet\", \"ip=192.0.2.7::192.0.2.1:255.255.255.0::eth0:none\"]",
    );
    let config = Config::parse(std::path::Path::new("netroot.toml"), &text).unwrap();
    let cfg = BootCfg {
        identity: None,
        files: Files::Beside,
        handover: Handover::KernelLine,
        kernel: "6.1.0",
        initramfs: &InitramfsFacts::default(),
        root: Root {
            portal: Portal {
                ip: "192.0.2.1".parse().unwrap(),
                port: 3260,
            },
            target: String::from("iqn.2026-01.edu.example:fc28.1"),
            lun: 1,
            initiator: None,
            secrets: Secrets::default(),
        },
        writes: Writes::Ram,
        mac: None,
        nameservers: &[],
        args: &config.boot.kernel_args,
    };
    let line = cfg.kernel_args();
    let addresses: Vec<&String> = line.iter().filter(|arg| arg.starts_with("ip=")).collect();
    assert_eq!(addresses, ["ip=dhcp"]);
    assert!(line.contains(&String::from("quiet")), "{line:?}");
}
