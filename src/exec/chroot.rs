//! Running a script inside a tree as if it were the machine's root.
//!
//! The script gets mount, PID, IPC and UTS namespaces of its own, a minimal `/dev`, a private
//! `/run`, and a `/proc` and `/sys` through which nothing of the host can be changed. It keeps the
//! network, because packages come over it. Its capabilities are cut down to what package managers
//! need; without `CAP_SYS_ADMIN`, and with every file system mounted `nodev`, it cannot get at the
//! host's disks.

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

/// What a package manager has no business with.
const DROPPED: &str = "-sys_admin,-sys_module,-sys_rawio,-sys_boot,-sys_time,-sys_tty_config,\
    -net_admin,-mac_admin,-mac_override,-syslog,-wake_alarm,-audit_control,-audit_read";

/// Runs in the new namespaces, still outside of the tree: `$1` is the tree, `$2` the capabilities
/// to drop, `$3` and on the command. `/proc` must be mounted by a process of the new PID namespace;
/// the parts of it that reach the whole machine become read-only.
const ENTER: &str = r#"
set -e
mount -n -t proc -o nosuid,nodev,noexec proc "$1/proc"
for part in sys sysrq-trigger irq bus fs acpi asound scsi; do
    [ -e "$1/proc/$part" ] || continue
    mount -n --bind "$1/proc/$part" "$1/proc/$part"
    mount -n -o remount,bind,ro,nosuid,nodev,noexec "$1/proc/$part"
done
root=$1 dropped=$2
shift 2
exec setpriv --bounding-set "$dropped" --inh-caps "$dropped" chroot "$root" "$@"
"#;

/// A tree with what a script needs mounted in it. Dropping it unmounts that again.
#[derive(Debug)]
pub struct Chroot {
    root: PathBuf,
    /// Undone in reverse.
    mounts: Vec<Mount>,
}

impl Chroot {
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
        for name in DEVICES {
            let node = dev.join(name);
            File::create(&node).map_err(cannot("make", &node))?;
            chroot
                .mounts
                .push(mounts.bind(&Path::new("/dev").join(name), &node)?);
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
        Program::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child"])
            .args(["--ipc", "--uts", "--", "sh", "-c", ENTER, "sh"])
            .arg(&self.root)
            .arg(DROPPED)
            .args(command.iter().cloned())
            .env("HOME", "/root")
            .env("TERM", "dumb")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .current_dir("/")
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
            let result = chroot.run(&command, "test", &Cancel::new(), &mut |line| match line {
                Line::Out(text) | Line::Err(text) => lines.push(text),
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
