//! A distribution of a few packages, with a real dnf, served on the loopback interface.
//!
//! Its packages are called as Fedora's are, so that the recipe for Fedora finds what it asks for. The
//! one that is called dnf is a small Debian tree with dnf, rpm and systemctl in it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{Flock, FlockArg};

use crate::site::{initramfs, run, write};

/// Where programs of the distribution write what they were asked to do.
pub(crate) const LOG: &str = "var/lib/distribution/log";

/// Repositories of releases, each in a directory of its name, as long as this lives.
pub(crate) struct Repositories {
    dir: tempfile::TempDir,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

/// What a release of the distribution brings.
pub(crate) struct Release<'a> {
    pub(crate) name: &'static str,
    /// Without the architecture.
    pub(crate) kernel: &'static str,
    /// The version of the package `tiny`.
    pub(crate) tiny: &'static str,
    /// What that package runs once it is installed.
    pub(crate) script: &'a str,
}

impl Repositories {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let site = Self {
            dir: tempfile::tempdir().unwrap(),
            address: listener.local_addr().unwrap(),
            stop: Arc::default(),
        };
        let (root, stop) = (site.dir.path().to_owned(), Arc::clone(&site.stop));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let root = root.clone();
                // A peer that hangs up has got what it wanted, or says so itself.
                std::thread::spawn(move || stream.and_then(|stream| answer(&stream, &root)).ok());
            }
        });
        site
    }

    /// What `--mirror` says for a release.
    pub(crate) fn url(&self, release: &str) -> String {
        format!("http://{}/{release}", self.address)
    }

    /// Makes the packages of a release, or further versions of them.
    pub(crate) fn publish(&self, release: &Release) {
        let top = self.dir.path().join("rpmbuild");
        let files = top.join("files");
        self.lay_out(release, &files);
        let spec = top.join("distribution.spec");
        write(&spec, specification(release, &files).as_bytes());
        rpmbuild(&top, &spec);
        let repository = self.dir.path().join(release.name);
        fs::create_dir_all(&repository).unwrap();
        for arch in ["noarch", "x86_64"] {
            for package in crate::site::entries(&top.join("RPMS").join(arch)) {
                fs::rename(&package, repository.join(package.file_name().unwrap())).unwrap();
            }
        }
        let world = repository.join("dnf.rpm");
        if !world.exists() {
            fs::copy(world_package(), world).unwrap();
        }
        run("createrepo_c", &["--quiet", repository.to_str().unwrap()]);
        fs::remove_dir_all(top).unwrap();
    }

    /// The files of all packages, each in a directory of its name.
    fn lay_out(&self, release: &Release, files: &Path) {
        let put = |path: &str, text: &str| write(&files.join(path), text.as_bytes());
        let name = release.name;
        put(
            "fedora-release/usr/lib/os-release",
            &format!("ID=fedora\nVERSION_ID={name}\n"),
        );
        let url = self.url("$releasever");
        put(
            "fedora-release/etc/yum.repos.d/fedora.repo",
            &format!("[fedora]\nname=Fedora\nbaseurl={url}\ngpgcheck=0\nskip_if_unavailable=0\n"),
        );
        put("tiny/usr/share/tiny", release.tiny);
        let kernel = format!("{}.x86_64", release.kernel);
        put(
            &format!("kernel-core/lib/modules/{kernel}/vmlinuz"),
            &kernel,
        );
        let image = format!("kernel-core/usr/share/initramfs-{kernel}");
        write(&files.join(image), &initramfs(&kernel));
        put("userland/etc/iscsi/iscsid.conf", "");
        put(
            "userland/etc/machine-id",
            "0123456789abcdef0123456789abcdef\n",
        );
        put("userland/etc/selinux/config", "SELINUX=enforcing\n");
        put("userland/usr/sbin/iscsid", "#!/bin/sh\n");
        put("userland/usr/bin/dracut", DRACUT);
        put(
            "userland/usr/lib/systemd/system/NetworkManager.service",
            "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
        );
        for program in ["usr/sbin/iscsid", "usr/bin/dracut"] {
            executable(&files.join("userland").join(program));
        }
    }
}

impl Drop for Repositories {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The listener looks at the flag when somebody comes.
        let _ = TcpStream::connect(self.address);
    }
}

/// Writes an initramfs that was made before, and what it was asked for.
const DRACUT: &str = "#!/bin/sh
echo \"dracut $*\" >>/var/lib/distribution/log
exec cp /usr/share/initramfs-$3 $2
";

/// In the place of dnf: writes down what it is asked, and what dnf.conf excludes at that moment.
const DNF: &str = "#!/bin/sh
mkdir -p /var/lib/distribution
{ echo \"dnf $*\"; grep '^exclude' /etc/dnf/dnf.conf; } >>/var/lib/distribution/log
exec dnf-3 \"$@\"
";

/// One source package with all binary packages of a release.
fn specification(release: &Release, files: &Path) -> String {
    let (version, build) = release.kernel.split_once('-').unwrap();
    let userland = "systemd systemd-udev NetworkManager iproute iputils passwd less xfsprogs \
        e2fsprogs iscsi-initiator-utils dracut dracut-network zstd glibc-minimal-langpack coreutils \
        sed rpm";
    let provides = userland
        .split_whitespace()
        .map(|name| format!("Provides: {name}\n"));
    let provides: String = provides.collect();
    let mut spec = format!(
        "Name: fedora-release\nVersion: {name}\nRelease: 1\nSummary: release\nLicense: MIT\n\
         AutoReqProv: no\nProvides: system-release = {name}\n\
         %define __os_install_post %{{nil}}\n%description\nrelease\n",
        name = release.name,
    );
    let packages = [
        ("tiny", release.tiny, "1", "BuildArch: noarch\n"),
        ("userland", release.name, "1", &provides),
        (
            "kernel-core",
            version,
            build,
            "Provides: installonlypkg(kernel)\n",
        ),
        (
            "kernel",
            version,
            build,
            &format!("Requires: kernel-core = {version}-{build}\n"),
        ),
    ];
    for (name, version, build, more) in packages {
        write!(
            spec,
            "%package -n {name}\nVersion: {version}\nRelease: {build}\nSummary: {name}\n\
             AutoReqProv: no\n{more}%description -n {name}\n{name}\n"
        )
        .unwrap();
    }
    // The kernel comes to a tree that is configured already, or not at all.
    spec.push_str("%pre -n kernel-core\ntest -s /etc/dracut.conf.d/50-netroot.conf\n");
    write!(spec, "%post -n tiny\n{}\n%install\n", release.script).unwrap();
    for name in ["fedora-release", "tiny", "userland", "kernel-core"] {
        let from = files.join(name);
        writeln!(
            spec,
            "mkdir -p %{{buildroot}}\ncp -a {}/. %{{buildroot}}/",
            from.display()
        )
        .unwrap();
    }
    spec.push_str(
        "%files\n/usr/lib/os-release\n/etc/yum.repos.d/fedora.repo\n\
         %files -n tiny\n/usr/share/tiny\n\
         %files -n kernel\n\
         %files -n kernel-core\n/lib/modules/*\n/usr/share/initramfs-*\n\
         %files -n userland\n/etc/iscsi\n/etc/machine-id\n/etc/selinux\n/usr/sbin/iscsid\n/usr/bin/dracut\n\
         /usr/lib/systemd/system/*\n",
    );
    spec
}

fn rpmbuild(top: &Path, spec: &Path) {
    let top = format!("_topdir {}", top.display());
    let quick = [
        "_binary_payload w1T0.zstdio",
        "_build_id_links none",
        "debug_package %{nil}",
    ];
    let mut arguments = vec!["-bb", "--quiet", "--define", &top];
    for define in quick {
        arguments.extend(["--define", define]);
    }
    arguments.push(spec.to_str().unwrap());
    run("rpmbuild", &arguments);
}

/// The packages of Debian that the tree is made of.
const WORLD: &str = "dnf,rpm,systemd,dash,bash,coreutils,sed,grep,libc-bin";

/// What of them nobody needs here.
const SUPERFLUOUS: &[&str] = &[
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/perl",
    "usr/share/perl5",
    "usr/share/zoneinfo",
    "usr/share/bug",
    "usr/share/lintian",
    "usr/lib/x86_64-linux-gnu/perl",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/file",
    "usr/lib/udev/hwdb.d",
    "var/lib/dpkg",
    "var/lib/apt",
    "var/cache",
    "dev",
    "proc",
    "sys",
    "run",
    "etc/os-release",
    "usr/lib/os-release",
];

const WORLD_SPEC: &str = "Name: dnf\nVersion: 4.14\nRelease: 1\nSummary: a Debian with dnf\n\
    License: MIT\nAutoReqProv: no\n%define __os_install_post %{nil}\n%description\na tree\n\
    %install\nmkdir -p %{buildroot}\ncp -a TREE/. %{buildroot}/\n%files\n/*\n";

/// The package dnf. Made once, which takes about a minute, and kept beside the laboratory's trees.
fn world_package() -> PathBuf {
    let lab = xtask::lab_dir();
    fs::create_dir_all(&lab).unwrap();
    // Two tests may want it at once; the lock ends with the process, however that ends.
    let lock = File::create(lab.join("dnf-lock")).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    let whole = lab.join(format!("dnf-world-{:08x}.rpm", recipe_number()));
    if whole.exists() {
        return whole;
    }
    let dir = tempfile::tempdir_in(&lab).unwrap();
    let tree = dir.path().join("tree");
    let path = tree.to_str().unwrap();
    run(
        "mmdebstrap",
        &[
            "--quiet",
            "--mode=root",
            "--variant=extract",
            "--components=main",
            &format!("--include={WORLD}"),
            "bookworm",
            path,
        ],
    );
    for name in SUPERFLUOUS {
        run(
            "rm",
            &[
                "-rf",
                "--one-file-system",
                tree.join(name).to_str().unwrap(),
            ],
        );
    }
    write(
        &tree.join("etc/rpm/macros"),
        b"%_dbpath /usr/lib/sysimage/rpm\n",
    );
    fs::remove_file(tree.join("usr/bin/dnf")).unwrap();
    write(&tree.join("usr/bin/dnf"), DNF.as_bytes());
    executable(&tree.join("usr/bin/dnf"));
    let spec = dir.path().join("dnf.spec");
    write(&spec, WORLD_SPEC.replace("TREE", path).as_bytes());
    rpmbuild(&dir.path().join("rpmbuild"), &spec);
    let made = dir
        .path()
        .join("rpmbuild/RPMS/x86_64/dnf-4.14-1.x86_64.rpm");
    fs::rename(made, &whole).unwrap();
    whole
}

/// Another one for each other recipe.
fn recipe_number() -> u32 {
    let all = [WORLD, WORLD_SPEC, DNF].concat() + &SUPERFLUOUS.concat();
    crc32c::crc32c(all.as_bytes())
}

fn executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// HTTP/1.0, as far as dnf needs it: one file for one GET.
fn answer(stream: &TcpStream, root: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = request
        .split(' ')
        .nth(1)
        .unwrap_or("/")
        .trim_start_matches('/');
    let mut stream = stream;
    match File::open(root.join(path)) {
        Ok(mut file) if file.metadata()?.is_file() => {
            let length = file.metadata()?.len();
            write!(
                stream,
                "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n"
            )?;
            std::io::copy(&mut file, &mut stream).map(drop)
        }
        _ => stream.write_all(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    }
}
