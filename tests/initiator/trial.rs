//! `netroot image test`: versions whose whole system is the guest's own, so that they boot in seconds.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

use netroot::library::{
    HostName, InitOptions, Library, Quiet, VersionFacts, VersionId, manifest::InitramfsKind,
};
use serde_json::Value;
use xtask::guest;
use xtask::initramfs::Archive;

/// What stands at the beginning of the disk.
const MARK: &str = "sealed";

/// Does what dracut does with the same words of the kernel line, and no more.
const LOGS_IN: &str = r#"
iscsid -f >/run/iscsid.log 2>&1 &
IFS=: read -r kind ip proto port lun target <<<"$(word netroot)"
for _ in $(seq 100); do
    iscsiadm -m discovery -t st -p "$ip:$port" && break
    sleep 0.2
done
iscsiadm -m node -T "$target" -p "$ip:$port" --login
for _ in $(seq 100); do [ -b /dev/sda ] && break; sleep 0.2; done
# Whatever listens on the host behind QEMU's network, and only for itself.
timeout 3 bash -c "exec 3<>/dev/tcp/10.0.2.2/$port" && { echo "it reaches its host"; poweroff -f; }
[ "$(head -c 6 /dev/sda)" = sealed ] || { echo "another disk"; poweroff -f; }
"#;

/// As systemd says that it is up.
const REACHES: &str = r#"
echo -e "[\e[0;32m  OK  \e[0m] Reached target \e[0;1;39mmulti-user.target\e[0m - Multi-User System."
sleep 600
"#;

/// As getty asks where there is no systemd: that line has no end.
const ASKS: &str = "
echo -n 'tiny login: '
sleep 600
";

/// Its init is nowhere.
const ENDS: &str = "
echo 'No init found'
poweroff -f
";

/// Its root is nowhere.
const FAILS: &str = "echo 'Warning: no root found'; poweroff -f";

const BEGINS: &str = r#"#!/bin/bash
export PATH=/sbin:/bin:/usr/sbin:/usr/bin HOME=/root LC_ALL=C
/bin/busybox mkdir -p /proc /sys /dev /run /var/lib/iscsi /tmp /root
/bin/busybox --install -s /usr/bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /run && mkdir -p /run/lock/iscsi
exec </dev/ttyS0 >/dev/ttyS0 2>&1
ln -s /proc/self/fd /dev/fd
while read -r module; do insmod "/lib/modules/$module"; done </lib/modules/order
word() { for word in $(cat /proc/cmdline); do case $word in "$1="*) echo "${word#*=}" ;; esac; done; }
ip link set lo up
for card in /sys/class/net/e*; do card=${card##*/}; done
ip link set "$card" up
ip address add 10.0.2.15/24 dev "$card"
echo "InitiatorName=$(word rd.iscsi.initiator)" >/etc/iscsi/initiatorname.iscsi
echo "root:x:0:0:root:/root:/bin/bash" >/etc/passwd
"#;

fn library(dir: &Path) -> Library {
    let options = InitOptions {
        host: "server-01.example.edu".parse::<HostName>().unwrap(),
        iqn_prefix: None,
        immutable: false,
    };
    Library::init(dir, &options).unwrap();
    let file = dir.join("netroot.toml");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("publish_gate = false", "publish_gate = true");
    fs::write(&file, text).unwrap();
    Library::open(dir, None).unwrap()
}

/// Seals a version that does this when its kernel has started.
fn seal(library: &Library, does: &str) -> VersionId {
    let parts = guest::made().unwrap();
    let mut own = Archive::default();
    own.file("init", 0o755, format!("{BEGINS}{does}").as_bytes());
    // The kernel unpacks one archive after the other, and takes the last file of a name.
    let mut initramfs = fs::read(parts.join("initramfs.img")).unwrap();
    initramfs.resize(initramfs.len().next_multiple_of(4), 0);
    initramfs.extend(own.finish());
    let mut draft = library.draft(&"tiny".parse().unwrap()).unwrap();
    draft.create_sparse(1 << 20).unwrap();
    let disk = fs::OpenOptions::new().write(true).open(draft.disk_path());
    disk.unwrap().write_all_at(MARK.as_bytes(), 0).unwrap();
    let mut kernel = fs::File::open(parts.join("vmlinuz")).unwrap();
    draft.add_kernel(&mut kernel).unwrap();
    draft.add_initramfs(&mut initramfs.as_slice()).unwrap();
    let mut facts = VersionFacts {
        kernel_version: "6.1.0".into(),
        ..VersionFacts::default()
    };
    facts.early.kind = InitramfsKind::Dracut;
    draft.seal(facts, &Quiet).unwrap().id().clone()
}

fn netroot(library: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netroot"));
    command.arg("--library").arg(library).args(args);
    command.output().unwrap()
}

fn json(library: &Path, args: &[&str]) -> Value {
    let output = netroot(library, &[&["--json"], args].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?}: {said}"))
}

#[test]
fn a_version_that_boots_becomes_current_and_one_that_does_not_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("library");
    let library = library(&home);
    let good = seal(&library, &[LOGS_IN, REACHES].concat());
    assert_eq!(library.image(&good.image).unwrap().current, None);
    let tested = json(&home, &["image", "test", "tiny"]);
    assert_eq!(tested["passed"], true, "{tested}");
    assert_eq!(tested["published"], true, "{tested}");
    assert_eq!(library.image(&good.image).unwrap().current, Some(1));

    let bad = seal(&library, FAILS);
    let output = netroot(&home, &["image", "test", "tiny"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for told in [
        "tiny@2",
        "never logged in to its disk",
        "no root found",
        "image shell tiny@2",
    ] {
        assert!(said.contains(told), "{told}\n{said}");
    }
    assert_eq!(library.image(&bad.image).unwrap().current, Some(1));
    let shown = json(&home, &["image", "show", "tiny"]);
    let trials: Vec<&Value> = [0, 1]
        .map(|at| &shown["versions"][at]["trial"]["failed"])
        .into();
    assert!(trials[0].is_null() && trials[1].is_string(), "{shown}");
}

#[test]
fn a_system_is_up_when_it_asks_who_is_there_and_not_when_it_has_its_disk() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("library");
    let library = library(&home);
    seal(&library, &[LOGS_IN, ENDS].concat());
    let output = netroot(&home, &["image", "test", "tiny"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let why = "it logged in to its disk, and its system did not come up";
    assert!(
        said.contains(why) && said.contains("No init found"),
        "{said}"
    );

    let asks = seal(&library, &[LOGS_IN, ASKS].concat());
    let tested = json(&home, &["image", "test", "tiny"]);
    assert_eq!(tested["passed"], true, "{tested}");
    assert_eq!(library.image(&asks.image).unwrap().current, Some(2));
}
