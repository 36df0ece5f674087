//! The site: a library on an XFS of its own, the server, and the guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use xtask::guest::{Guest, Outcome};
use xtask::lab_dir;
use xtask::mounts::mount_xfs;
use xtask::netns::{Leases, Network};
use xtask::program::{command, run};
use xtask::server::{Server, Site, remove_library};

/// What the guest proves that it knows, and what it has the server prove.
pub(crate) const GUEST_SECRET: &str = "the guest knows this";
pub(crate) const SERVER_SECRET: &str = "the server knows that";

const MAC: &str = "52:54:00:00:0e:01";
const ADDRESSES: &[&str] = &["192.0.2.50/24", "2001:db8::50/64"];

pub(crate) struct Lab {
    pub(crate) dir: PathBuf,
    pub(crate) site: Site,
    guest: Guest,
    server: Option<Server>,
    // Ends after what runs in it.
    network: Network,
    started: Instant,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let started = Instant::now();
        assert!(
            nix::unistd::geteuid().is_root(),
            "this makes network namespaces and mounts, which needs root"
        );
        let dir = lab_dir().join("initiator");
        remove_library(&dir).unwrap();
        fs::create_dir_all(&dir).unwrap();
        // Before the mount: `ip netns` makes mounts that everybody should see.
        let network = Network::create(Leases::Infinite).unwrap();
        let library = dir.join("library");
        mount_xfs(&dir.join("xfs.img"), &library).unwrap();
        let site = Site::new(Path::new(env!("CARGO_BIN_EXE_netroot")), &library);
        site.init().unwrap();
        add_volumes(&site, &dir);
        let server = site.serve(&network, &dir.join("serve.log")).unwrap();
        let guest = Guest::start(&network, MAC, ADDRESSES, &dir.join("guest.log")).unwrap();
        let lab = Self {
            dir,
            site,
            guest,
            server: Some(server),
            network,
            started,
        };
        lab.guest
            .run(&format!(
                "cat >/run/prelude <<'END'\n{}\nEND",
                include_str!("prelude.sh")
            ))
            .unwrap();
        lab.tell("the guest is up");
        lab
    }

    /// Has the guest do something; what it prints.
    pub(crate) fn step(&self, what: &str, script: &str) -> String {
        let Outcome { status, said } = self.attempt(script);
        assert!(
            status == 0,
            "{what}, with status {status}: {script}\n{said}\nserve said:\n{}",
            self.server_said()
        );
        self.tell(what);
        said
    }

    /// Has the guest do something that is refused, with this exit status; what it prints.
    pub(crate) fn refused(&self, what: &str, expected: i32, script: &str) -> String {
        let Outcome { status, said } = self.attempt(script);
        assert!(
            status == expected,
            "{what}, with status {status} and not {expected}: {script}\n{said}\nserve said:\n{}",
            self.server_said()
        );
        self.tell(what);
        said
    }

    fn attempt(&self, script: &str) -> Outcome {
        let script = format!(". /run/prelude\n{script}");
        self.guest
            .attempt(&script)
            .unwrap_or_else(|error| panic!("{error:#}\nserve said:\n{}", self.server_said()))
    }

    /// `kill -9`.
    pub(crate) fn kill_server(&mut self) {
        self.server.take().unwrap().kill().unwrap();
    }

    pub(crate) fn start_server(&mut self) {
        let log = self.dir.join("serve.log");
        self.server = Some(self.site.serve(&self.network, &log).unwrap());
    }

    /// The target that a volume is in.
    pub(crate) fn target(&self, volume: &str) -> String {
        let shown = self.site.json(&["volume", "show", volume]).unwrap();
        shown["iqn"].as_str().unwrap().to_owned()
    }

    fn server_said(&self) -> String {
        self.server.as_ref().map(Server::said).unwrap_or_default()
    }

    pub(crate) fn tell(&self, what: &str) {
        println!("{:6.1} s  {what}", self.started.elapsed().as_secs_f64());
    }

    /// Only after success: what failed is looked at. What was said stays in any case.
    pub(crate) fn finish(self) {
        self.guest.pull_the_plug();
        if let Some(server) = self.server {
            server.stop().unwrap();
        }
        drop(self.network);
        run(&mut command("umount", [self.site.library()])).unwrap();
        fs::remove_file(self.dir.join("xfs.img")).unwrap();
    }
}

/// Each is for the guest, by its name and its network.
fn add_volumes(site: &Site, dir: &Path) {
    let secret = |name: &str, text: &str| {
        let file = dir.join(name);
        fs::write(&file, text).unwrap();
        file.to_string_lossy().into_owned()
    };
    let (theirs, ours) = (
        secret("theirs", GUEST_SECRET),
        secret("ours", SERVER_SECRET),
    );
    let sealed = dir.join("sealed.img");
    fs::write(&sealed, vec![0xa5; 8 << 20]).unwrap();
    let add = |name: &str, options: &[&str]| {
        let whom = [
            "--allow",
            "iqn.2026-01.edu.example:*",
            "--allow",
            "192.0.2.0/24",
        ];
        let whom = [&whom[..], &["--allow", "2001:db8::/64"]].concat();
        site.netroot(&[&["volume", "add", name], options, &whom[..]].concat())
            .unwrap();
    };
    let chap = ["--chap", "guest", "--chap-secret-file", &theirs];
    let mutual = [
        "--mutual-chap",
        "server",
        "--mutual-chap-secret-file",
        &ours,
    ];
    add(
        "data",
        &[&["--size", "1G"], &chap[..], &mutual[..]].concat(),
    );
    add("large-blocks", &["--size", "512M", "--block-size", "4096"]);
    add(
        "sealed",
        &["--read-only", "--file", &sealed.to_string_lossy()],
    );
    add("scratch", &["--size", "64M", "--allow-sanitize"]);
    // It joins the rules of that target.
    site.netroot(&[
        "volume", "add", "second", "--size", "64M", "--target", "scratch",
    ])
    .unwrap();
}
