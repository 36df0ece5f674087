//! Trees whose programs and links want something of the host. Nothing there changes.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use netroot::build::{self, BuildRequest, Built, Change, ChangeRequest, Custom, Script};
use netroot::exec::Cancel;
use netroot::library::Quiet;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::site::{KERNEL, Site, entries, run, write};
use crate::upgrades::{program, programs};

/// A site, a tree with programs in it, and a directory of the host that a hostile tree is after.
struct Attack {
    site: Site,
    tree: PathBuf,
    victim: PathBuf,
}

/// The only file of the victim.
const PRECIOUS: &str = "precious";

impl Attack {
    fn new() -> Self {
        let site = Site::new();
        let tree = site.tree(KERNEL);
        programs(&tree);
        for name in ["chmod", "ln", "mknod", "dd", "mount", "losetup"] {
            program(&tree, name);
        }
        let victim = site.path("victim");
        write(&victim.join(PRECIOUS), b"as it was\n");
        Self { site, tree, victim }
    }

    fn request(&self) -> BuildRequest {
        self.site.request(&self.tree)
    }

    fn build(&self) {
        self.site.build(&self.request()).unwrap();
    }

    /// Runs these in a copy of the image, one after the other.
    fn run(&self, scripts: Vec<Script>) -> anyhow::Result<Built> {
        let changes = scripts.into_iter().map(Change::Script).collect();
        let spec = "fc28".parse().unwrap();
        let request = ChangeRequest::new(spec, "fc28".parse().unwrap(), changes);
        build::change(&self.site.library, &request, &Cancel::new(), &Quiet).map(Option::unwrap)
    }

    /// What of `attempts` a script in the image was able to do.
    fn allowed(&self, attempts: &[String]) -> String {
        let attempts = attempts.iter().map(|attempt| {
            format!("({attempt}) >/dev/null 2>&1 && echo '{attempt}' >>/root/allowed\n")
        });
        let script = format!("touch /root/allowed\n{}\n:", attempts.collect::<String>());
        let built = self.run(vec![Script::Shell(script)]).unwrap();
        let version = self.site.version(&built.version.to_string());
        self.site.look_into(&version, |root| {
            fs::read_to_string(root.join("root/allowed")).unwrap()
        })
    }

    fn assert_victim_is_well(&self) {
        let precious = self.victim.join(PRECIOUS);
        assert_eq!(entries(&self.victim), std::slice::from_ref(&precious));
        assert_eq!(fs::read(&precious).unwrap(), b"as it was\n");
        self.site.assert_clean();
    }

    fn victim(&self) -> &str {
        self.victim.to_str().unwrap()
    }
}

/// A loop device over a file of the host, as long as this lives.
pub(crate) struct Loop(String);

impl Loop {
    pub(crate) fn over(file: &Path) -> Self {
        let path = file.to_str().unwrap();
        Self(
            run("losetup", &["--find", "--show", path])
                .trim()
                .to_owned(),
        )
    }

    /// Its major and minor number.
    pub(crate) fn number(&self) -> (u64, u64) {
        let device = fs::metadata(&self.0).unwrap().rdev();
        (nix::sys::stat::major(device), nix::sys::stat::minor(device))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["--detach", &self.0]);
    }
}

#[test]
fn links_outward_end_in_the_image() {
    for (link, steps) in [("etc", "etc"), ("root", "root"), ("usr/sbin", "usr/sbin")] {
        for upward in ["", "../../../../../../.."] {
            let attack = Attack::new();
            let _ = fs::remove_dir_all(attack.tree.join(link));
            symlink(
                format!("{upward}{}", attack.victim()),
                attack.tree.join(link),
            )
            .unwrap();
            let mut request = attack.request();
            request.custom = Custom {
                hostname: Some(String::from("evil")),
                authorized_keys: vec![String::from("ssh-ed25519 AAAAC3Nza evil")],
                scripts: vec![Script::Shell(format!("echo evil >/{steps}/evil"))],
                ..Custom::default()
            };
            // Whether this fails is the tree's own business.
            let _ = attack.site.build(&request);
            attack.assert_victim_is_well();
        }
    }
}

#[test]
fn what_stands_in_for_files_of_the_image_goes_nowhere_else() {
    let attack = Attack::new();
    let host = fs::read("/etc/resolv.conf").ok();
    for (path, target) in [
        (
            "etc/resolv.conf",
            format!("{}/resolv.conf", attack.victim()),
        ),
        (
            "usr/sbin/policy-rc.d",
            format!("{}/{PRECIOUS}", attack.victim()),
        ),
    ] {
        symlink(target, attack.tree.join(path)).unwrap();
    }
    write(&attack.tree.join("usr/sbin/invoke-rc.d"), b"#!/bin/sh\n");
    attack.build();
    let attempt = "echo evil >/etc/resolv.conf; echo evil >/usr/sbin/policy-rc.d";
    attack.run(vec![Script::Shell(attempt.into())]).unwrap();
    assert_eq!(fs::read("/etc/resolv.conf").ok(), host);
    let version = attack.site.version("fc28@2");
    attack.site.look_into(&version, |root| {
        for path in ["etc/resolv.conf", "usr/sbin/policy-rc.d"] {
            assert!(root.join(path).is_symlink(), "{path} was not put back");
        }
    });
    attack.assert_victim_is_well();
}

#[test]
fn devices_of_the_host_are_out_of_reach() {
    let attack = Attack::new();
    let file = attack.site.path("file-of-the-host");
    write(&file, &[7; 1 << 20]);
    let device = Loop::over(&file);
    let (major, minor) = device.number();
    // A disk that was copied from a machine may bring nodes of its own.
    let node = attack.tree.join("root/brought");
    let numbers = makedev(major, minor);
    mknod(
        &node,
        SFlag::S_IFBLK,
        Mode::from_bits_truncate(0o666),
        numbers,
    )
    .unwrap();
    attack.build();
    let mut attempts = vec![String::from("dd if=/dev/zero of=/root/brought count=1")];
    for dir in ["/root", "/dev", "/dev/shm", "/dev/pts", "/run", "/tmp"] {
        attempts.push(format!(
            "mknod {dir}/disk b {major} {minor} && dd if=/dev/zero of={dir}/disk count=1 conv=notrunc"
        ));
    }
    attempts.extend(
        [
            "mknod /root/control c 10 237 && losetup --find --show /bin/sh",
            "mount -t tmpfs none /root",
            "mount -o remount,rw,dev /",
            "chmod 0 /dev/null",
            "rm /dev/null",
            "chmod 0 /dev/tty",
        ]
        .map(String::from),
    );
    let null = fs::metadata("/dev/null").unwrap().mode();
    assert_eq!(attack.allowed(&attempts), "");
    assert_eq!(fs::metadata("/dev/null").unwrap().mode(), null);
    drop(device);
    assert_eq!(fs::read(&file).unwrap(), [7; 1 << 20]);
    attack.assert_victim_is_well();
}

#[test]
fn the_hosts_service_manager_is_out_of_reach() {
    let attack = Attack::new();
    let socket = Path::new("/run").join(format!("netroot-test-{}", std::process::id()));
    let _manager = UnixListener::bind(&socket).unwrap();
    // As systemctl does: by a socket in /run, or by the first process.
    let attempts = [
        format!("ls {}", socket.display()),
        String::from("ls /run/systemd /run/dbus /run/udev"),
        String::from("ls /proc/1/root/work /proc/1/root/home/."),
        String::from("echo h >/proc/sysrq-trigger"),
        String::from("echo 1 >/proc/sys/vm/drop_caches"),
        String::from("echo add >/sys/block/loop0/uevent"),
        format!("kill -0 {}", std::process::id()),
    ];
    attack.build();
    let allowed = attack.allowed(&attempts);
    fs::remove_file(&socket).unwrap();
    assert_eq!(allowed, "");
}

#[test]
fn a_script_cannot_set_a_trap_for_what_comes_after_it() {
    let attack = Attack::new();
    attack.build();
    let next = attack.site.path("next.sh");
    write(&next, b"#!/bin/sh\necho done >/root/next\n");
    let victim = attack.victim();
    for trap in [
        format!("rm -rf /run/netroot; ln -s {victim} /run/netroot"),
        format!("mv /run/netroot /run/other; ln -s {victim} /run/netroot"),
        format!("mv /run /other; mkdir /run; ln -s {victim} /run/netroot"),
        format!("for n in 1 2 3; do ln -s {victim}/$n /run/netroot/$n; done"),
    ] {
        let scripts = vec![
            Script::Shell(format!("{trap}; :")),
            Script::from_words(&[OsString::from(&next)]),
        ];
        // A name that is taken is an error; it is no way out.
        let _ = attack.run(scripts);
        attack.assert_victim_is_well();
    }
}

#[test]
fn a_program_that_copies_from_the_host_cannot_write_there() {
    let attack = Attack::new();
    let evil = b"#!/bin/sh\nfor what; do rm -rf $what; echo evil >$what; done\n\
        rm -rf /run/netroot/*/*; chmod 777 /run/netroot/*; echo evil >/run/netroot/1/evil; exit 0\n";
    fs::remove_file(attack.tree.join("usr/bin/cp")).unwrap();
    write(&attack.tree.join("usr/bin/cp"), evil);
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(attack.tree.join("usr/bin/cp"), executable).unwrap();
    let mode = fs::metadata(&attack.victim).unwrap().mode();
    let mut request = attack.request();
    let copy = format!("{}:/opt/copied", attack.victim());
    request.custom.copies = vec![copy.parse().unwrap()];
    attack.site.build(&request).unwrap();
    assert_eq!(fs::metadata(&attack.victim).unwrap().mode(), mode);
    attack.assert_victim_is_well();
}

#[test]
fn a_mounted_version_has_no_devices_and_raises_nobody() {
    let attack = Attack::new();
    let node = attack.tree.join("root/null");
    mknod(
        &node,
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o666),
        makedev(1, 3),
    )
    .unwrap();
    let shell = attack.tree.join("usr/bin/raise");
    fs::copy("/usr/bin/id", &shell).unwrap();
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o4755)).unwrap();
    attack.build();
    attack.site.look_into(&attack.site.version("fc28"), |root| {
        use nix::sys::statvfs::FsFlags;
        // They are in the image, as they were, and of no use on the host.
        assert_eq!(
            fs::metadata(root.join("usr/bin/raise")).unwrap().mode() & 0o7777,
            0o4755
        );
        let flags = nix::sys::statvfs::statvfs(root).unwrap().flags();
        assert!(flags.contains(FsFlags::ST_NOSUID | FsFlags::ST_NODEV | FsFlags::ST_NOEXEC));
        let error = fs::File::open(root.join("root/null")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    });
}

#[test]
fn what_a_shell_in_an_image_types_is_not_read_by_the_shell_outside() {
    let attack = Attack::new();
    program(&attack.tree, "perl");
    attack.build();
    let library = attack.site.path("library");
    let command = format!(
        "{} --library {} image shell fc28 --discard; echo outside; read line; echo \"read: $line\"",
        env!("CARGO_BIN_EXE_netroot"),
        library.display()
    );
    // 0x5412 is TIOCSTI. What the person types comes later than that.
    let typed = "perl -e 'ioctl(STDIN, 0x5412, $_) for split //, qq(evil\\n)'\nexit 0\n";
    let script = std::process::Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let mut script = script.unwrap();
    let mut input = script.stdin.take().unwrap();
    let mut output = BufReader::new(script.stdout.take().unwrap());
    let mut said = String::new();
    let mut until = |end: &str| {
        while !said.contains(end) {
            let mut line = Vec::new();
            assert!(output.read_until(b'\n', &mut line).unwrap() > 0, "{said}");
            said.push_str(&String::from_utf8_lossy(&line));
        }
        std::mem::take(&mut said)
    };
    until("you are in a copy of fc28");
    input.write_all(typed.as_bytes()).unwrap();
    until("\noutside");
    input.write_all(b"mine\n").unwrap();
    let end = until("read: ");
    assert!(end.contains("read: mine"), "{end}");
    script.wait().unwrap();
}

#[test]
fn what_whoever_started_us_has_open_is_no_way_out() {
    let attack = Attack::new();
    attack.build();
    // As a shell leaves it by `exec 9</somewhere`: without close-on-exec.
    let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_DIRECTORY;
    let open = nix::fcntl::open(&attack.victim, flags, Mode::empty()).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&open);
    let attempts = [
        format!("cat /proc/self/fd/{number}/{PRECIOUS}"),
        format!("echo owned >/proc/self/fd/{number}/written"),
        format!("ls /proc/self/fd/{number}/../../.."),
    ];
    assert_eq!(attack.allowed(&attempts), "");
    attack.assert_victim_is_well();
}

#[test]
fn standard_input_is_nothing_of_the_host() {
    let attack = Attack::new();
    attack.build();
    let mode = || fs::metadata("/dev/null").unwrap().mode();
    let before = mode();
    attack.allowed(&["chmod 600 /proc/self/fd/0".to_owned()]);
    assert_eq!(mode(), before);
    // Nothing is there to be read, either.
    let read = "read line || echo end >/root/read";
    let built = attack.run(vec![Script::Shell(read.into())]).unwrap();
    let version = attack.site.version(&built.version.to_string());
    let read = |root: &Path| fs::read_to_string(root.join("root/read")).unwrap();
    assert_eq!(attack.site.look_into(&version, read), "end\n");
}

#[test]
fn programs_run_under_the_filter_that_keeps_keyrings_from_them() {
    let attack = Attack::new();
    attack.build();
    let look = "cat /proc/self/status >/root/status";
    let built = attack.run(vec![Script::Shell(look.into())]).unwrap();
    let version = attack.site.version(&built.version.to_string());
    let status = |root: &Path| fs::read_to_string(root.join("root/status")).unwrap();
    let status = attack.site.look_into(&version, status);
    assert!(status.contains("Seccomp:\t2\n"), "{status}");
    assert!(status.contains("NoNewPrivs:\t0\n"), "{status}");
}

#[test]
fn a_kernel_that_is_a_hole_is_refused() {
    let attack = Attack::new();
    let kernel = attack.tree.join(format!("lib/modules/{KERNEL}/vmlinuz"));
    let file = fs::File::options().write(true).open(&kernel).unwrap();
    file.set_len(50 << 30).unwrap();
    let error = attack.site.build(&attack.request()).unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.contains("no kernel or initramfs is larger"),
        "{error}"
    );
    attack.site.assert_clean();
}

#[test]
fn arguments_of_what_was_run_are_not_kept() {
    let attack = Attack::new();
    attack.build();
    let line = Script::Shell("echo HUNTER2 >/root/secret".into());
    let command = Script::Command(["touch", "/root/HUNTER2"].map(OsString::from).to_vec());
    let built = attack.run(vec![line, command]).unwrap();
    let version = attack.site.version(&built.version.to_string());
    assert_eq!(version.manifest().facts.source, "a command line, touch");
}
