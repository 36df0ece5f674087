//! A library of its own for each test, and what is asked of it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use netroot::build::{self, BuildRequest, Built, Watch};
use netroot::exec::{Cancel, Program, in_private_mounts};
use netroot::library::{InitOptions, Library, Progress, Quiet, Version, VersionSpec};

pub(crate) use xtask::initramfs::like_dracut as initramfs;

/// A temporary directory with a library in it.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) library: Library,
}

pub(crate) const KERNEL: &str = "6.1.0-21-amd64";

impl Site {
    pub(crate) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests mount file systems: run them as root"
        );
        let dir = tempfile::tempdir().unwrap();
        let options = InitOptions {
            host: "server-01.example.edu".parse().unwrap(),
            iqn_prefix: None,
            immutable: false,
        };
        let library = Library::init(&dir.path().join("library"), &options).unwrap();
        Self { dir, library }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A directory that has what an image must have: a kernel and an initramfs that passes.
    pub(crate) fn tree(&self, kernel: &str) -> PathBuf {
        let tree = self.path("tree");
        write(
            &tree.join(format!("lib/modules/{kernel}/vmlinuz")),
            b"kernel",
        );
        let initramfs = initramfs(kernel);
        write(&tree.join(format!("boot/initrd.img-{kernel}")), &initramfs);
        write(&tree.join("etc/os-release"), b"ID=debian\nVERSION_ID=12\n");
        write(
            &tree.join("var/lib/dpkg/status"),
            b"Package: base-files\nStatus: install ok installed\nVersion: 12\n",
        );
        for name in ["dev", "proc", "sys", "run", "tmp", "root", "usr/sbin"] {
            fs::create_dir_all(tree.join(name)).unwrap();
        }
        tree
    }

    pub(crate) fn request(&self, source: &Path) -> BuildRequest {
        let source = source.to_str().unwrap().parse().unwrap();
        BuildRequest::new("fc28".parse().unwrap(), source)
    }

    pub(crate) fn build(&self, request: &BuildRequest) -> anyhow::Result<Built> {
        build::image(&self.library, request, &Cancel::new(), &Quiet)
    }

    pub(crate) fn version(&self, spec: &str) -> Version {
        let spec: VersionSpec = spec.parse().unwrap();
        self.library.resolve(&spec).unwrap()
    }

    /// Mounts a sealed version as a client does, and looks into it.
    pub(crate) fn look_into<T: Send>(
        &self,
        version: &Version,
        look: impl FnOnce(&Path) -> T + Send,
    ) -> T {
        let point = self.path("mounted");
        fs::create_dir_all(&point).unwrap();
        let kind = version.manifest().facts.filesystem.kind.clone();
        let options: &[&str] = match kind.as_str() {
            // Without recovery: a dirty log would show.
            "xfs" => &["ro", "norecovery", "nouuid"],
            "ext4" => &["ro", "noload"],
            "btrfs" => &["ro", "rescue=nologreplay"],
            _ => &["ro"],
        };
        in_private_mounts(|mounts| {
            let disk = version.disk_path();
            let cancel = Cancel::new();
            let mounted = mounts
                .image(&disk, &kind, options, &point, &cancel)
                .unwrap();
            let seen = look(mounted.path());
            mounted.unmount().unwrap();
            seen
        })
        .unwrap()
    }

    /// Nothing but whole versions is there, and nothing of it is mounted or attached.
    pub(crate) fn assert_clean(&self) {
        let images = self.path("library/images");
        for image in entries(&images).iter().filter(|path| path.is_dir()) {
            for name in entries(image) {
                let name = name.file_name().unwrap().to_str().unwrap().to_owned();
                assert!(
                    !name.starts_with('.'),
                    "{name} was left in {}",
                    image.display()
                );
            }
        }
        let ours = self.dir.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(ours), "something is mounted: {mounts}");
        // A killed build's mount(8) may be in the kernel still: it ends, but not at once.
        let began = Instant::now();
        let loops = || Program::new("losetup").arg("--list").run().unwrap().text();
        while loops().contains(ours) {
            assert!(
                began.elapsed().as_secs() < 10,
                "a loop device was left: {}",
                loops()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

pub(crate) fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let args = args.iter().map(OsString::from);
    Program::new(program).args(args).run().unwrap().text()
}

/// Asks to stop as soon as a step begins whose name begins so.
pub(crate) struct StopAt<'a> {
    pub(crate) step: &'a str,
    pub(crate) cancel: Cancel,
}

impl Progress for StopAt<'_> {
    fn step(&self, what: &str, _: Option<u64>) {
        if what.starts_with(self.step) {
            self.cancel.cancel();
        }
    }
    fn advance(&self, _: u64) {}
}

impl Watch for StopAt<'_> {
    fn line(&self, _: &str) {}
    fn warn(&self, _: &str) {}
}
