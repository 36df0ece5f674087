//! Running a script inside a tree as if it were the machine's root.
//!
//! The script gets namespaces of its own in which there is nothing of the host but this tree (`jail`
//! tells how), a minimal `/dev`, a private `/run`, and a `/proc` and `/sys` through which nothing of
//! the host can be changed. It keeps the network, because packages come over it. Without
//! `CAP_SYS_ADMIN`, and with every file system mounted `nodev`, it cannot get at the host's disks.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;

use super::{Cancel, Error, Line, Mount, PrivateMounts, Program, Result};

/// Device nodes of the host that a script may use. They are bound, not made: every file system that
/// the script can write is mounted `nodev`.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

/// Links that programs expect in `/dev`.
const LINKS: &[(&str, &str)] = &[
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// A tree with what a script needs mounted in it. Dropping it unmounts that again.
#[derive(Debug)]
pub struct Chroot {
    root: PathBuf,
    /// Undone in reverse.
    mounts: Vec<Mount>,
}

impl Chroot {
    /// Where things of the host are put for a script. It is a mount of its own: a script can neither
    /// move it away nor put a link in its place, by which the next thing would land on the host.
    pub const PLACE: &str = "run/netroot";

    /// Mounts `dev`, `dev/pts`, `dev/shm`, `sys` and `run` in the tree at `root`, which should be
    /// mounted itself ([`PrivateMounts::executable_image`]).
    ///
    /// # Errors
    /// When one of these is something else than a directory, or a mount fails.
    pub fn enter(mounts: &PrivateMounts, root: &Path) -> Result<Self> {
        let mut chroot = Self {
            root: root.to_owned(),
            mounts: Vec::new(),
        };
        let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        for name in ["dev", "proc", "sys", "run"] {
            mount_point(root, name)?;
        }
        let data = "mode=755,size=16m";
        let dev = chroot.add(mounts, "tmpfs", "dev", safe, data)?;
        for (name, target) in LINKS {
            symlink(target, dev.join(name)).map_err(cannot("make a link in", &dev))?;
        }
        // Read-only, or a script could take the host's own /dev/null away by a chmod.
        let device = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        for name in DEVICES {
            let node = dev.join(name);
            File::create(&node).map_err(cannot("make", &node))?;
            chroot.mounts.push(mounts.bind_read_only(
                &Path::new("/dev").join(name),
                &node,
                device,
            )?);
        }
        for name in ["dev/pts", "dev/shm"] {
            let dir = root.join(name);
            fs::create_dir(&dir).map_err(cannot("make", &dir))?;
        }
        // A terminal is a device: devpts cannot be nodev.
        let terminals = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        let data = "newinstance,ptmxmode=0666,mode=620,gid=5";
        chroot.add(mounts, "devpts", "dev/pts", terminals, data)?;
        chroot.add(mounts, "tmpfs", "dev/shm", safe, "mode=1777")?;
        chroot.add(mounts, "sysfs", "sys", safe | MsFlags::MS_RDONLY, "")?;
        let executable = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let run = chroot.add(mounts, "tmpfs", "run", executable, "mode=755")?;
        DirBuilder::new()
            .mode(0o1777)
            .create(run.join("lock"))
            .map_err(cannot("make a directory in", &run))?;
        let place = root.join(Self::PLACE);
        fs::create_dir(&place).map_err(cannot("make", &place))?;
        chroot.add(mounts, "tmpfs", Self::PLACE, executable, "mode=755")?;
        Ok(chroot)
    }

    /// Runs `command` in the tree, each line it writes going to `each`; errors call it `name`.
    /// Whatever it leaves running ends with it.
    ///
    /// # Errors
    /// When it cannot be started, was stopped, or ends with anything but 0.
    pub fn run(
        &self,
        command: &[OsString],
        name: &str,
        cancel: &Cancel,
        each: &mut dyn FnMut(Line),
    ) -> Result<()> {
        let program = self.program(command).shown_as(name);
        program.cancel(cancel).stream(each)
    }

    /// `command` as a program that runs in the tree; whatever it leaves running ends with it.
    pub fn program(&self, command: &[OsString]) -> Program {
        let (name, arguments) = match command.split_first() {
            Some((name, arguments)) => (name.clone(), arguments),
            None => (OsString::new(), command),
        };
        Program::inside(&self.root, name)
            .args(arguments.iter().cloned())
            .env("HOME", "/root")
            .env("TERM", "dumb")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .with_proxies()
    }

    /// Unmounts what [`enter`](Self::enter) mounted.
    ///
    /// # Errors
    /// The first mount that is still in use; the others are released all the same.
    pub fn leave(mut self) -> Result<()> {
        let mut first = Ok(());
        while let Some(mount) = self.mounts.pop() {
            let released = mount.unmount();
            if first.is_ok() {
                first = released;
            }
        }
        first
    }

    fn add(
        &mut self,
        mounts: &PrivateMounts,
        kind: &str,
        name: &str,
        flags: MsFlags,
        data: &str,
    ) -> Result<PathBuf> {
        let target = self.root.join(name);
        self.mounts
            .push(mounts.kernel_fs(kind, &target, flags, data)?);
        Ok(target)
    }
}

impl Drop for Chroot {
    fn drop(&mut self) {
        // Vec drops from the front, but mounts must go from the top.
        while self.mounts.pop().is_some() {}
    }
}

/// Makes a mount point that the tree lacks; every root file system has these. One that is there must
/// be a directory of the tree itself: through a symlink the mount would land somewhere on the host.
fn mount_point(root: &Path, name: &str) -> Result<()> {
    let dir = root.join(name);
    let inside = Path::new("/").join(name);
    match fs::symlink_metadata(&dir) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => {
            let kind = std::io::ErrorKind::NotADirectory;
            Err(cannot("mount on the image's", &inside)(kind.into()))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            fs::create_dir(&dir).map_err(cannot("make the image's", &inside))
        }
        Err(e) => Err(cannot("look at the image's", &inside)(e)),
    }
}

fn cannot(doing: &'static str, on: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let on = on.to_owned();
    move |source| Error::Mount { doing, on, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::in_private_mounts;

    /// A tree with a shell: the host's programs and libraries, bound read-only.
    fn host_programs(mounts: &PrivateMounts, root: &Path) -> Vec<Mount> {
        // No /sys and /run: what is missing is made.
        for name in ["dev", "proc", "etc"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::create_dir(root.join("usr")).unwrap();
        for name in ["bin", "lib", "lib64", "sbin"] {
            symlink(Path::new("usr").join(name), root.join(name)).unwrap();
        }
        vec![mounts.bind(Path::new("/usr"), &root.join("usr")).unwrap()]
    }

    fn run_inside(script: &str) -> (Result<()>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        in_private_mounts(|mounts| {
            let _programs = host_programs(mounts, dir.path());
            let chroot = Chroot::enter(mounts, dir.path()).unwrap();
            let mut lines = Vec::new();
            let command = ["/bin/sh", "-c", script].map(OsString::from);
            let result = chroot.run(&command, "test", &Cancel::new(), &mut |line| {
                lines.push(line.text());
            });
            chroot.leave().unwrap();
            assert_eq!(fs::read_dir(dir.path().join("dev")).unwrap().count(), 0);
            (result, lines)
        })
        .unwrap()
    }

    #[test]
    fn a_script_sees_its_own_tree_and_processes() {
        let (result, lines) = run_inside(
            "echo $$; ls /dev | tr '\\n' ' '; echo; echo x >/dev/null && echo written; \
             test -d /proc/self && echo proc; echo y >/run/file && echo run",
        );
        result.unwrap();
        assert_eq!(
            lines,
            [
                "1",
                "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero ",
                "written",
                "proc",
                "run"
            ]
        );
    }

    #[test]
    fn a_script_cannot_reach_the_hosts_kernel_or_disks() {
        let attempts = [
            "echo h >/proc/sysrq-trigger",
            "echo x >/proc/sys/kernel/hostname",
            "mount -t tmpfs none /run",
            "mknod /run/disk b 254 0 && head -c1 /run/disk",
            "mknod /dev/disk b 254 0 && head -c1 /dev/disk",
            "touch /sys/new",
        ];
        let script: String = attempts
            .iter()
            .map(|attempt| format!("({attempt}) 2>/dev/null && echo '{attempt}'\n"))
            .collect();
        let (result, allowed) = run_inside(&format!("{script}\necho end"));
        result.unwrap();
        assert_eq!(allowed, ["end"]);
    }

    #[test]
    fn a_chroot_in_the_chroot_does_not_lead_out() {
        let host = tempfile::tempdir().unwrap();
        let secret = host.path().join("secret");
        fs::write(&secret, "the host's").unwrap();
        let script = r#"mkdir /run/x; perl -e '
            chroot("/run/x") or die; chdir("..") for 1..64; chroot(".") or die;
            print join(" ", glob("/*")), "\n";
            open(F, ">SECRET") and print "opened the host\n";
            open(F, ">/new") and print "wrote to its root\n";
        '"#;
        let (_, lines) = run_inside(&script.replace("SECRET", secret.to_str().unwrap()));
        assert_eq!(lines, ["/tree"]);
        assert_eq!(fs::read(&secret).unwrap(), b"the host's");
    }

    #[test]
    fn a_script_has_few_capabilities_and_gets_no_more() {
        let script = "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2; \
            unshare --user true 2>/dev/null && echo 'a user namespace'; \
            perl -e 'socket(S, 17, 3, 0) and print qq(packets\n)'";
        let (_, lines) = run_inside(script);
        let kept = "00000000a80401fb";
        let none = "0000000000000000";
        assert_eq!(lines, [none, kept, kept, kept, none]);
    }

    #[test]
    fn a_script_has_no_terminal_and_no_mount_of_the_host() {
        let (_, lines) = run_inside(
            "cut -d' ' -f6 /proc/1/stat; (: </dev/tty) 2>/dev/null && echo terminal; \
             cut -d' ' -f5 /proc/self/mountinfo | grep -v -e '^/dev' -e '^/proc/' | sort",
        );
        // The session is its own, and `/` is the tree.
        assert_eq!(
            lines,
            ["1", "/", "/proc", "/run", "/run/netroot", "/sys", "/usr"]
        );
    }

    #[test]
    fn a_script_cannot_talk_to_daemons_with_abstract_sockets() {
        use landlock::{CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixListener};
        let strict = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        if strict.scope(Scope::AbstractUnixSocket).is_err() {
            eprintln!("not tested: this kernel is older than 6.12, or has no Landlock");
            return;
        }
        let name = format!("netroot-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let _daemon = UnixListener::bind_addr(&address).unwrap();
        let connect = format!(
            r#"perl -MSocket -e '
                socket(S, AF_UNIX, SOCK_STREAM, 0) or die;
                print connect(S, pack("S a*", AF_UNIX, "\0{name}")) ? "connected" : "$!", "\n"'"#
        );
        let (_, lines) = run_inside(&connect);
        assert_eq!(lines, ["Operation not permitted"]);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        in_private_mounts(|mounts| {
            let chroot = Chroot::enter(mounts, dir.path()).unwrap();
            let error = chroot.program(&["dnf".into()]).run().unwrap_err();
            let expected = "the image has no program dnf, or lacks what runs it";
            assert_eq!(error.to_string(), expected);
        })
        .unwrap();
    }

    #[test]
    fn a_mount_point_that_leads_away_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/sys", dir.path().join("sys")).unwrap();
        in_private_mounts(|mounts| {
            let error = Chroot::enter(mounts, dir.path()).unwrap_err().to_string();
            assert_eq!(error, "cannot mount on the image's /sys");
        })
        .unwrap();
    }

    #[test]
    fn a_failing_script_is_an_error_with_its_words() {
        let (result, _) = run_inside("echo 'no mirror' >&2; exit 9");
        let error = result.unwrap_err().to_string();
        assert_eq!(error, "`test` failed (exit status: 9): no mirror");
    }
}
