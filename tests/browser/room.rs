//! A room of clients with a server, as the dashboard shows it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use netroot::library::{Actor, Library, NewClient, NoServer};
use nix::sys::signal::Signal;
use serde_json::Value;
use xtask::program::{Background, run};
use xtask::server::Site;

/// The password of everybody here.
pub(crate) const PASSWORD: &str = "correct horse battery";

/// What would take a page over, or turn its writing around. It is the name of a package.
pub(crate) const HOSTILE: &str = "<script>document.title='owned'</script>\u{202e}txt";

/// A library on a file system that shares blocks, and the server that holds it.
pub(crate) struct Room {
    pub(crate) site: Site,
    /// Where the dashboard is: `http://127.0.0.1:PORT`.
    pub(crate) dashboard: String,
    /// Where the boot service is.
    pub(crate) boot: String,
    serve: Option<Background>,
    worker: Option<Background>,
    dir: tempfile::TempDir,
}

impl Room {
    /// A room with the images `fc28@1`, `fc28@2` and `fc29@1`, and so many clients.
    pub(crate) fn new(clients: usize) -> Self {
        let mut room = Room::unfurnished();
        let tree = tree(room.dir.path());
        let tree = tree.to_str().unwrap();
        for image in ["fc28", "fc28", "fc29"] {
            let build = ["image", "build", image, "--from", tree, "--fs", "ext4"];
            room.site.netroot(&build).unwrap();
        }
        room.add_clients(1..=clients);
        room.serve();
        room
    }

    /// A library as `init` makes it, and its server.
    pub(crate) fn empty() -> Self {
        let mut room = Room::unfurnished();
        room.serve();
        room
    }

    fn unfurnished() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests make file systems: run them as root"
        );
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("library");
        let site = Site::new(Path::new(env!("CARGO_BIN_EXE_netroot")), &library);
        site.init().unwrap();
        everything_by_chance(&library.join("netroot.toml"));
        Room {
            site,
            dashboard: String::new(),
            boot: String::new(),
            serve: None,
            worker: None,
            dir,
        }
    }

    /// Adds clients by their numbers, before there is a server.
    fn add_clients(&self, numbers: RangeInclusive<usize>) {
        let library = Library::open(self.site.library(), None).unwrap();
        let live = NoServer::new(library.live_lock().unwrap());
        for number in numbers {
            let new = client(number);
            library.add_client(&new, &live, &Actor::command()).unwrap();
        }
    }

    /// Starts the server.
    pub(crate) fn serve(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("serve.log"))
            .unwrap();
        let pipe = self.dir.path().join("ready");
        let _ = std::fs::remove_file(&pipe);
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Opened for both ways, so that neither end waits for the other.
        let end = File::options().read(true).write(true).open(&pipe).unwrap();
        let mut serve = Command::new(self.site.binary());
        serve
            .args(["--library", self.site.library().to_str().unwrap()])
            .args(["--json", "serve"])
            .stdin(Stdio::null())
            .stdout(end.try_clone().unwrap())
            .stderr(log);
        self.serve = Some(Background::start(&mut serve).unwrap());
        let mut line = String::new();
        BufReader::new(end).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        self.dashboard = format!("http://{}", ready["admin"][0].as_str().unwrap());
        self.boot = format!("http://{}", ready["boot"][0].as_str().unwrap());
    }

    /// Ends the server, and starts another one: at other addresses, as these are given by the system.
    pub(crate) fn serve_again(&mut self) {
        let mut old = self.serve.take().unwrap();
        old.signal(Signal::SIGTERM).unwrap();
        old.wait(Duration::from_secs(20)).unwrap();
        self.serve();
    }

    /// Starts the helper that does jobs.
    pub(crate) fn work(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("worker.log"))
            .unwrap();
        let mut worker = Command::new(self.site.binary());
        worker
            .args(["--library", self.site.library().to_str().unwrap()])
            .arg("worker")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.worker = Some(Background::start(&mut worker).unwrap());
    }

    /// The way in of the first user.
    pub(crate) fn first_link(&self) -> String {
        self.link(&["user", "add", "--first"])
    }

    /// The one-time link that a command prints.
    pub(crate) fn link(&self, arguments: &[&str]) -> String {
        let said = self.site.netroot(arguments).unwrap();
        let link = said
            .split_whitespace()
            .find(|word| word.contains("/welcome?key="));
        let key = link.unwrap_or_else(|| panic!("no link in: {said}"));
        let key = key.split("/welcome?key=").nth(1).unwrap();
        format!("{}/welcome?key={key}", self.dashboard)
    }

    /// A file in the room's own directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A session of a client, by QEMU's initiator, with the identity that its script hands out. It
    /// reads a little four times a second, and stays.
    pub(crate) fn connect(&self, number: usize) -> Background {
        self.log_in(&self.boot_cfg(number))
    }

    /// A machine whose script is too old when it comes with it: it is refused.
    pub(crate) fn come_too_late(&self, number: usize) {
        let script = self.boot_cfg(number);
        self.site
            .netroot(&["client", "assign", &mac(number), "fc28", "--yes"])
            .unwrap();
        let mut late = self.log_in(&script);
        let ended = late.wait(Duration::from_secs(20)).unwrap();
        assert!(!ended.success(), "it was let in");
    }

    fn log_in(&self, script: &str) -> Background {
        let word = |key: &str| {
            let word = script
                .split_whitespace()
                .find_map(|word| word.strip_prefix(key));
            word.unwrap_or_else(|| panic!("no {key} in {script}"))
                .to_owned()
        };
        let initiator = word("rd.iscsi.initiator=");
        let root = word("netroot=iscsi:");
        // ADDRESS:PROTOCOL:PORT:LUN:TARGET
        let fields: Vec<&str> = root.splitn(5, ':').collect();
        let [address, _, port, _, target] = fields[..] else {
            panic!("{root} is no root")
        };
        let port = if port.is_empty() { "3260" } else { port };
        // dracut takes whatever units a target has; which of them is the root stands in `root=`.
        let root = word("root=");
        let lun = root.rsplit("-lun-").next().unwrap();
        let options = format!(
            "driver=iscsi,transport=tcp,portal={address}:{port},target={target},lun={lun},initiator-name={initiator}"
        );
        let mut reader = Command::new("qemu-io");
        reader.args(["-r", "--image-opts", &options]);
        for _ in 0..400 {
            reader.args(["-c", "read 0 32M", "-c", "sleep 250"]);
        }
        reader
            .stdin(Stdio::null())
            .stdout(File::create(self.path("initiator.log")).unwrap())
            .stderr(File::create(self.path("initiator.err")).unwrap());
        Background::start(&mut reader).expect("qemu-io cannot be run: install qemu-utils")
    }

    /// The script that a client would get now.
    pub(crate) fn boot_cfg(&self, number: usize) -> String {
        let answer = self.ask_for_boot_cfg(&mac(number));
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    }

    /// What the boot service answers to a machine with this address.
    pub(crate) fn ask_for_boot_cfg(&self, mac: &str) -> String {
        let address = self.boot.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET /boot.cfg?mac={mac} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Gives the library a recipe that makes a system of a few files, `tiny`, which does not get on
    /// before [`Room::open_gate`].
    pub(crate) fn add_recipe(&self) {
        let archive = self.path("tree.tar");
        run(Command::new("tar")
            .args(["-C", tree(self.dir.path()).to_str().unwrap()])
            .args(["-cf", archive.to_str().unwrap(), "."]))
        .unwrap();
        let recipe = RECIPE
            .replace("@ARCHIVE@", archive.to_str().unwrap())
            .replace("@GATE@", self.path("gate").to_str().unwrap());
        std::fs::write(self.site.library().join("recipes/tiny.toml"), recipe).unwrap();
    }

    /// Lets builds by the recipe get on.
    pub(crate) fn open_gate(&self) {
        std::fs::write(self.path("gate"), "").unwrap();
    }
}

/// A system of a few files; its updates bring one package anew and another one besides.
const RECIPE: &str = r#"
format = 1
about = "A few files"
for = ["tiny"]
offers = ["tiny:1"]
[[bootstrap]]
say = "unpacking {distribution} {release}"
host = ["tar", "-C", "{tree}", "-xf", "@ARCHIVE@"]
[[bootstrap]]
say = "waiting for the gate"
host = ["sh", "-c", "while [ ! -e @GATE@ ]; do sleep 0.1; done"]
[[update]]
say = "installing updates"
write = "/var/lib/dpkg/status"
text = """
Package: base-files
Status: install ok installed
Version: 12.4

Package: vim
Status: install ok installed
Version: 2:9.0
"""
[[upgrade]]
say = "upgrading to {release}"
write = "/etc/os-release"
text = "ID=tiny\nVERSION_ID=2\nPRETTY_NAME=\"Tiny 2\"\n"
"#;

impl Drop for Room {
    fn drop(&mut self) {
        for process in [self.worker.take(), self.serve.take()]
            .into_iter()
            .flatten()
        {
            let mut process = process;
            // In good order, so that what it holds is left in good order; else it is killed.
            if process.signal(Signal::SIGTERM).is_ok() {
                let _ = process.wait(Duration::from_secs(10));
            }
        }
    }
}

/// The address of a client.
pub(crate) fn mac(number: usize) -> String {
    format!("52:54:00:00:{:02x}:{:02x}", number / 256, number % 256)
}

/// The element of a client in the room.
pub(crate) fn row(number: usize) -> String {
    format!("#client-{}", mac(number).replace(':', ""))
}

fn client(number: usize) -> NewClient {
    // Clients of one that follows, one that is pinned and one that has a disk of its own.
    let (image, mode) = match number % 5 {
        0 => ("fc28@1", "shared"),
        1 => ("fc28", "persistent"),
        4 => ("fc29", "shared"),
        _ => ("fc28", "shared"),
    };
    let group = format!("row-{}", (number - 1) / 10 + 1);
    NewClient {
        mac: mac(number).parse().unwrap(),
        name: Some(format!("pc-{number:03}").parse().unwrap()),
        image: image.parse().unwrap(),
        mode: mode.parse().unwrap(),
        args: Vec::new(),
        groups: [group.parse().unwrap()].into(),
        settings: Default::default(),
    }
}

/// Ports that the system gives, on loopback.
fn everything_by_chance(settings: &Path) {
    let text = std::fs::read_to_string(settings).unwrap();
    let mut changed: Vec<String> = Vec::new();
    for line in text.lines() {
        changed.push(match line.split_once('=') {
            Some((key, _)) if key.trim() == "listen" => "listen = [\"127.0.0.1:0\"]".to_owned(),
            _ => line.to_owned(),
        });
    }
    std::fs::write(settings, changed.join("\n") + "\n").unwrap();
}

/// A chroot that has what an image must have.
fn tree(dir: &Path) -> PathBuf {
    use std::fs::{create_dir_all, write};
    let tree = dir.join("tree");
    let modules = tree.join("lib/modules/6.1.0-21-amd64");
    create_dir_all(&modules).unwrap();
    create_dir_all(tree.join("var/lib/dpkg")).unwrap();
    create_dir_all(tree.join("etc")).unwrap();
    // Something to read: QEMU does not ask for blocks that it was told are empty.
    write(modules.join("vmlinuz"), vec![0x5a; 6 << 20]).unwrap();
    for dir in ["boot", "dev", "proc", "sys", "run", "tmp", "root"] {
        create_dir_all(tree.join(dir)).unwrap();
    }
    write(
        tree.join("boot/initrd.img-6.1.0-21-amd64"),
        xtask::initramfs::like_dracut("6.1.0-21-amd64"),
    )
    .unwrap();
    write(
        tree.join("etc/os-release"),
        b"ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=12\n",
    )
    .unwrap();
    write(
        tree.join("var/lib/dpkg/status"),
        format!(
            "Package: base-files\nStatus: install ok installed\nVersion: 12\n\n\
             Package: {HOSTILE}\nStatus: install ok installed\nVersion: 1\n"
        ),
    )
    .unwrap();
    tree
}
