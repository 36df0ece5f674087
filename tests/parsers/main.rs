//! What netroot writes for clients, read by the scripts that read it there: those of Debian's packages
//! dracut-network (of two releases) and open-iscsi.
//!
//! `cargo xtask test` runs this; by hand: `cargo test --test parsers -- --nocapture`.

// clippy.toml exempts functions marked #[test]; here the whole file is a test.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

use netroot::boot::{BootCfg, Files, Handover, Portal, Root, Writes};
use netroot::library::manifest::{InitramfsFacts, InitramfsKind};
use netroot::library::{ImageName, IqnPrefix, KernelArg, Secrets};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use xtask::debs::unpacked;
use xtask::program::{command, run};

const DRACUTS: &[&str] = &["bookworm", "trixie"];

/// The file with dracut's function for `netroot=`. From release to release modules change their numbers,
/// and some their package.
fn net_lib(release: &str) -> PathBuf {
    let mut packages = ["dracut-network", "dracut-core"].iter();
    let found = packages.find_map(|package| {
        let modules = unpacked(release, package)
            .unwrap()
            .join("usr/lib/dracut/modules.d");
        let dirs = fs::read_dir(&modules).ok()?;
        let mut files = dirs.map(|dir| dir.unwrap().path().join("net-lib.sh"));
        files.find(|path| path.is_file())
    });
    found.unwrap_or_else(|| panic!("dracut of {release} has no net-lib.sh"))
}

/// What a shell says of each of these words, one line a word.
fn told(prelude: &str, words: &[String]) -> Vec<String> {
    let told = run(command("sh", ["-c", prelude, "sh"]).args(words)).unwrap();
    told.lines().map(str::to_owned).collect()
}

/// Has dracut's own function read `netroot=` values: server, port, LUN, target, user and secret.
fn read_by_dracut(release: &str, values: &[String]) -> Vec<String> {
    let lib = net_lib(release);
    let text = fs::read_to_string(&lib).unwrap();
    // Only the function: the rest of the file wants to be in an initramfs.
    let start = text.find("parse_iscsi_root()").unwrap();
    let end = start + text[start..].find("\n}\n").unwrap() + 3;
    let function = &text[start..end];
    let prelude = format!(
        "warn() {{ echo \"$*\" >&2; }}\n{function}\n\
         for value in \"$@\"; do (\n\
           parse_iscsi_root \"$value\" || echo refused\n\
           echo \"$iscsi_target_ip|$iscsi_target_port|$iscsi_lun|$iscsi_target_name|$iscsi_username|$iscsi_password\"\n\
         ) done"
    );
    told(&prelude, values)
}

fn root(ip: &str, port: u16, target: &str) -> Root {
    Root {
        portal: Portal {
            ip: ip.parse().unwrap(),
            port,
        },
        target: target.to_owned(),
        lun: 1,
        initiator: None,
        secrets: Secrets::default(),
    }
}

/// Names as the library makes them of what it has accepted.
fn targets() -> impl Strategy<Value = String> {
    let prefix = "iqn\\.([0-9]{4}-[0-9]{2}\\.)?[a-z0-9]([a-z0-9.-]{0,60}[a-z0-9])?";
    let name = "[a-z][a-z0-9-]{0,31}";
    (prefix, name, proptest::option::of(1_u32..1000)).prop_filter_map(
        "what the library refuses",
        |(prefix, name, version)| {
            let prefix: IqnPrefix = prefix.parse().ok()?;
            let name: ImageName = name.parse().ok()?;
            Some(match version {
                Some(version) => format!("{prefix}:{name}.{version}"),
                None => format!("{prefix}:{name}"),
            })
        },
    )
}

fn addresses() -> impl Strategy<Value = std::net::IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(Into::into),
        any::<[u8; 16]>().prop_map(Into::into)
    ]
}

/// Many values at once: a shell takes longer to start than to read them.
fn many<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>) -> Vec<T> {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let many = proptest::collection::vec(strategy, 400);
    many.new_tree(&mut runner).unwrap().current()
}

#[test]
fn dracut_reads_every_disk_as_it_is_meant() {
    let ports = prop_oneof![Just(3260_u16), 1_u16..];
    let mut disks = many((addresses(), ports, targets()));
    // Those that look most like something else.
    let hard = |target: &str| ("192.0.2.1".parse().unwrap(), 3260, target.to_owned());
    disks.extend([
        hard("iqn.eui.naa.iqn.x:eui.3"),
        hard("iqn.x:naa.1"),
        hard("iqn.2026-01.edu.example:client-525400123456"),
    ]);
    let roots: Vec<Root> = disks
        .iter()
        .map(|(ip, port, target)| root(&ip.to_string(), *port, target))
        .collect();
    let values: Vec<String> = roots.iter().map(Root::netroot).collect();
    for release in DRACUTS {
        let read = read_by_dracut(release, &values);
        assert_eq!(read.len(), roots.len());
        for ((read, root), value) in read.iter().zip(&roots).zip(&values) {
            let port = match root.portal.port {
                3260 => String::new(),
                port => port.to_string(),
            };
            // The LUN is told by root=, which names the device.
            let meant = format!("{}|{port}||{}||", root.portal.ip, root.target);
            assert_eq!(*read, meant, "{release}: {value}");
        }
    }
}

#[test]
fn what_dracut_would_misread_is_refused_when_it_is_set() {
    // The reason of each rule, seen in the parser: were one of these to be read as it is meant, the
    // rule would have lost its reason.
    let server = "192.0.2.1";
    let check = |target: &str| {
        for release in DRACUTS {
            let read = read_by_dracut(release, &[root(server, 3260, target).netroot()]);
            let meant = format!("{server}|||{target}||");
            assert_ne!(read, [meant], "{release} reads {target} as it is meant");
        }
    };
    check("iqn.2026-01.edu.example:iqn.3");
    assert!("iqn".parse::<ImageName>().is_err());
    // As for users and secrets, the first `@` ends something else than it should.
    check("iqn.2026-01.edu.example:a@b:1:2:3:4");
    assert!("a@b".parse::<ImageName>().is_err());
    assert!("iqn.a@b".parse::<IqnPrefix>().is_err());
    // A secret on this line is cut at the first `@`, and parted at `:`.
    for release in DRACUTS {
        let value = |auth: &str| format!("iscsi:{auth}@{server}::::iqn.2026-01.edu.example:fc28");
        let wrong = ["user:p@ss", "user:p:w"].map(value);
        for (read, auth) in read_by_dracut(release, &wrong).iter().zip(["p@ss", "p:w"]) {
            assert!(
                !read.ends_with(&format!("|user|{auth}")),
                "{release}: {read}"
            );
        }
        let plain = read_by_dracut(release, &[value("user:Abc123")]);
        assert_eq!(
            plain,
            [format!(
                "{server}|||iqn.2026-01.edu.example:fc28|user|Abc123"
            )]
        );
    }
}

/// The kernel line of a client with these arguments.
fn line(kind: InitramfsKind, args: &[KernelArg]) -> String {
    let facts = InitramfsFacts {
        kind,
        ..Default::default()
    };
    let cfg = BootCfg {
        identity: None,
        files: Files::Beside,
        handover: Handover::KernelLine,
        kernel: "6.1.0",
        initramfs: &facts,
        root: Root {
            initiator: Some(String::from(
                "iqn.2026-01.edu.example:client-525400123456.0",
            )),
            ..root(
                "2001:db8::1",
                3261,
                "iqn.2026-01.edu.example:client-525400123456",
            )
        },
        writes: Writes::Disk,
        mac: None,
        nameservers: &[],
        args,
    };
    cfg.kernel_args().join(" ")
}

/// Arguments that are accepted, however odd.
fn arguments() -> Vec<KernelArg> {
    let odd = "[!-~]{1,24}".prop_filter_map("what is refused", |word| word.parse().ok());
    let pair =
        "[a-z_.]{1,12}=[!-~]{0,24}".prop_filter_map("what is refused", |word| word.parse().ok());
    let mut all: Vec<KernelArg> = many(prop_oneof![odd, pair]);
    all.extend(
        ["a=$(reboot)", "b=$HOME", "c=|&;", "d={1,2}", "e=~"].map(|word| word.parse().unwrap()),
    );
    all
}

#[test]
fn initramfs_tools_is_told_its_disk_whatever_arguments_follow() {
    let package = unpacked("bookworm", "open-iscsi").unwrap();
    let script = package.join("usr/share/initramfs-tools/scripts/local-top/iscsi");
    let text = fs::read_to_string(script).unwrap();
    let start = text.find("parse_root_param ()").unwrap();
    let end = text.find("if [ ! -x /sbin/iscsistart ]").unwrap();
    let line = line(InitramfsKind::InitramfsTools, &arguments());
    // The functions alone, and the line in the place of the running kernel's.
    let dir = tempfile::tempdir().unwrap();
    let cmdline = dir.path().join("cmdline");
    fs::write(&cmdline, format!("{line}\n")).unwrap();
    let functions = text[start..end].replace("/proc/cmdline", &cmdline.to_string_lossy());
    let say = "parse_iscsi_ops; echo \"$ISCSI_INITIATOR|$ISCSI_TARGET_NAME|$ISCSI_TARGET_IP|\
               $ISCSI_TARGET_PORT|$ISCSI_TARGET_GROUP|$ISCSI_AUTO|$ISCSI_USERNAME\"";
    let said = told(&format!("{functions}\n{say}"), &[]);
    assert_eq!(
        said,
        ["iqn.2026-01.edu.example:client-525400123456.0|\
          iqn.2026-01.edu.example:client-525400123456|2001:db8::1|3261|1||"]
    );
}

#[test]
fn a_shell_that_splits_the_line_gets_the_words_that_were_set() {
    let args = arguments();
    let line = line(InitramfsKind::Dracut, &args);
    // In a directory where every word that is one letter names a file: patterns would find them.
    let dir = tempfile::tempdir().unwrap();
    for name in 'a'..='z' {
        fs::write(dir.path().join(name.to_string()), "").unwrap();
    }
    let cmdline = dir.path().join("line");
    fs::write(&cmdline, &line).unwrap();
    let split = "for x in $(cat line); do printf '%s\\n' \"$x\"; done";
    let words = run(command("sh", ["-c", split]).current_dir(dir.path())).unwrap();
    let words: Vec<&str> = words.lines().collect();
    assert_eq!(words, line.split(' ').collect::<Vec<_>>());
    assert!(words.len() > args.len());
    // The same shell would have found files for what is refused.
    assert!("*".parse::<KernelArg>().is_err());
    let found = "cd \"$1\"; for x in $(echo '*'); do echo \"$x\"; done";
    let found = run(command("sh", ["-c", found, "sh"]).arg(Path::new(dir.path()))).unwrap();
    assert!(found.lines().count() > 20);
}
