//! A library, a server in a network of its own, and what machines do there.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use netroot::library::manifest::InitramfsFacts;
use netroot::library::{Actor, Library, NewUser, Quiet, Role, VersionFacts};
use xtask::netns::{BOOT_PORT, Leases, Network, SERVER, Station};
use xtask::program::{Background, command, run};
use xtask::server::{Server, Site};

const BINARY: &str = env!("CARGO_BIN_EXE_netroot");
const PASSWORD: &str = "correct-horse-battery";

pub(crate) struct Lab {
    dir: tempfile::TempDir,
    pub(crate) site: Site,
    pub(crate) network: Network,
}

/// An answer over HTTP.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
    body: Vec<u8>,
}

/// What a boot.cfg tells a machine.
pub(crate) struct Script {
    pub(crate) initiator: String,
    pub(crate) target: String,
    pub(crate) user: String,
    pub(crate) secret: String,
    pub(crate) target_secret: String,
    pub(crate) identity_url: String,
    /// The path of that.
    pub(crate) identity: String,
}

pub(crate) fn cfg_of(mac: &str) -> String {
    format!("/boot.cfg?mac={mac}")
}

impl Script {
    pub(crate) fn of(cfg: &str) -> Self {
        let word = |key: &str| {
            let mut words = cfg.split_whitespace();
            let found = words.find_map(|word| word.strip_prefix(key));
            found.unwrap_or_default().to_owned()
        };
        let root = word("netroot=iscsi:");
        let target = root.find("iqn.").map_or("", |at| &root[at..]);
        let identity_url = cfg
            .split_once("identity.img http")
            .map_or("", |(_, rest)| rest);
        let identity_url = identity_url.lines().next().unwrap_or_default();
        let path = identity_url.splitn(4, '/').nth(3).unwrap_or_default();
        Script {
            initiator: word("rd.iscsi.initiator="),
            target: target.to_owned(),
            user: word("rd.iscsi.username="),
            secret: word("rd.iscsi.password="),
            target_secret: word("rd.iscsi.in.password="),
            identity_url: format!("http{identity_url}"),
            identity: format!("/{path}"),
        }
    }
}

impl Lab {
    pub(crate) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "network namespaces need root"
        );
        let dir = tempfile::tempdir().unwrap();
        let site = Site::new(Path::new(BINARY), &dir.path().join("library"));
        site.init().unwrap();
        let library = Library::open(site.library(), None).unwrap();
        let mut draft = library.draft(&"fc28".parse().unwrap()).unwrap();
        draft.create_sparse(1 << 20).unwrap();
        draft.add_kernel(&mut &b"a kernel"[..]).unwrap();
        draft.add_initramfs(&mut &b"an initramfs"[..]).unwrap();
        let early = InitramfsFacts {
            systemd: true,
            ..InitramfsFacts::default()
        };
        let facts = VersionFacts {
            kernel_version: "6.1.0".into(),
            early,
            ..VersionFacts::default()
        };
        draft.seal(facts, &Quiet).unwrap();
        Lab {
            dir,
            site,
            network: Network::create(Leases::Infinite).unwrap(),
        }
    }

    pub(crate) fn add(&self, mac: &str, more: &[&str]) {
        let add = ["client", "add", mac, "--image", "fc28"];
        self.site.netroot(&[&add, more].concat()).unwrap();
    }

    pub(crate) fn serve(&self) -> Server {
        let log = self.dir.path().join("serve.log");
        self.site.serve(&self.network, &log).unwrap()
    }

    /// Changes a line of the configuration.
    pub(crate) fn set(&self, from: &str, to: &str) {
        let file = self.site.library().join("netroot.toml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(file, text.replace(from, to)).unwrap();
    }

    /// The server's own address of this link, as a station writes it.
    pub(crate) fn link_local(&self) -> String {
        let shown = ["-6", "-o", "addr", "show", "dev", "br0", "scope", "link"];
        let shown = run(self.network.command("ip").args(shown)).unwrap();
        let address = shown
            .split_whitespace()
            .find(|word| word.starts_with("fe80:"));
        let address = address.unwrap().split('/').next().unwrap();
        // A station has its loopback and this interface.
        format!("[{address}%2]")
    }

    pub(crate) fn get(&self, machine: &Station, path: &str) -> Answer {
        self.get_at(machine, SERVER, path)
    }

    /// Asks at one of the server's addresses.
    pub(crate) fn get_at(&self, machine: &Station, server: &str, path: &str) -> Answer {
        self.ask(machine, server, ("GET", path, ""))
    }

    fn ask(
        &self,
        machine: &Station,
        server: &str,
        (method, path, form): (&str, &str, &str),
    ) -> Answer {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {SERVER}\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        );
        let index = machine.interface().unwrap();
        let to = server.replace("%2]", &format!("%{index}]"));
        let to: SocketAddr = format!("{to}:{BOOT_PORT}").parse().unwrap();
        let bytes = machine.enter(|| {
            let mut stream = TcpStream::connect(to).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            bytes
        });
        Answer::of(&bytes.unwrap())
    }

    /// The same over TLS, whoever the server is.
    pub(crate) fn get_over_tls(&self, machine: &Station, path: &str) -> String {
        let mut client = machine.command("openssl");
        let to = format!("{SERVER}:8443");
        client.args(["s_client", "-quiet", "-connect", &to]);
        let mut client = client
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
        let mut stdin = client.stdin.take().unwrap();
        stdin.write_all(request.as_bytes()).unwrap();
        let said = client.wait_with_output().unwrap().stdout;
        let answer = Answer::of(&said);
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.text
    }

    /// What a machine's firmware is told.
    pub(crate) fn boot_cfg(&self, machine: &Station, mac: &str) -> String {
        let answer = self.get(machine, &cfg_of(mac));
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.text
    }

    /// Somebody who may log in at machines.
    pub(crate) fn user(&self, name: &str) {
        let new = NewUser {
            name: name.parse().unwrap(),
            role: Role::Viewer,
        };
        let library = Library::open(self.site.library(), None).unwrap();
        library
            .add_user_with_password(&new, false, PASSWORD, &Actor::command())
            .unwrap();
    }

    /// What a machine's firmware is told where they log in at its menu.
    pub(crate) fn person_cfg(&self, machine: &Station, mac: &str, name: &str) -> String {
        let form = format!("name={name}&password={PASSWORD}");
        let path = format!("/login?mac={mac}");
        let answer = self.ask(machine, SERVER, ("POST", &path, &form));
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.text
    }

    /// Whether a machine gets its disk with this secret; with another one the target has to prove that.
    pub(crate) fn logs_in(
        &self,
        machine: &Station,
        script: &Script,
        secret: &str,
        target: Option<&str>,
    ) -> bool {
        let target = target.map(|secret| format!("?target_user=netroot&target_password={secret}"));
        let who = format!("{}%{secret}@", script.user);
        self.inquires(machine, script, &who, &target.unwrap_or_default())
    }

    pub(crate) fn logs_in_without(&self, machine: &Station, script: &Script) -> bool {
        self.inquires(machine, script, "", "")
    }

    fn inquires(&self, machine: &Station, script: &Script, who: &str, more: &str) -> bool {
        let url = format!("iscsi://{who}{SERVER}/{}/1{more}", script.target);
        let mut inquiry = machine.command("iscsi-inq");
        run(inquiry.args(["-i", &script.initiator, &url])).is_ok()
    }

    /// A system that runs on a machine and reads this target's disk; it answers to pings.
    pub(crate) fn runs(
        &self,
        machine: &Station,
        (initiator, proof, target): (&str, &str, &str),
    ) -> Background {
        let url = format!("iscsi://{proof}{SERVER}/{target}/1");
        let mut reading = machine.command("iscsi-perf");
        reading.args(["-i", initiator, "-m", "1", "-b", "1", &url]);
        reading.stdout(Stdio::null()).stderr(Stdio::null());
        let mut reading = Background::start(&mut reading).unwrap();
        // Lists do not show the end of a boot's name.
        let (shown, _) = initiator.rsplit_once('-').unwrap();
        let is_listed = || {
            let sessions = self.site.json(&["session", "list"]).unwrap().to_string();
            sessions.contains(shown)
        };
        while !is_listed() {
            assert!(reading.is_running(), "{target} is not given to {initiator}");
            std::thread::sleep(Duration::from_millis(20));
        }
        reading
    }

    /// A boot's identity, unpacked.
    pub(crate) fn identity(&self, machine: &Station, mac: &str) -> (tempfile::TempDir, Script) {
        let script = Script::of(&self.boot_cfg(machine, mac));
        (self.unpacked(machine, &script), script)
    }

    /// The one that a script leads to.
    pub(crate) fn unpacked(&self, machine: &Station, script: &Script) -> tempfile::TempDir {
        let answer = self.get(machine, &script.identity);
        assert_eq!(answer.status, 200, "{}", answer.text);
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap();
        unpack(&answer.body, dir.path());
        dir
    }

    /// The public half of a private key.
    pub(crate) fn public_key(&self, private: &Path) -> String {
        let said = run(command("ssh-keygen", ["-y", "-f"]).arg(private)).unwrap();
        said.trim().to_owned()
    }

    /// Does what the initramfs does: with the identity at its place, and the root elsewhere.
    pub(crate) fn apply(&self, identity: &tempfile::TempDir, root: &Path) {
        let script = "mount -t tmpfs none /run && exec sh \"$0/netroot/identity/apply\" \"$1\"";
        let mut apply = command("unshare", ["--mount", "sh", "-ec", script]);
        let said = run(apply.arg(identity.path()).arg(root)).unwrap();
        assert_eq!(said, "");
    }
}

impl Answer {
    fn of(bytes: &[u8]) -> Self {
        let end = bytes
            .windows(4)
            .position(|part| part == b"\r\n\r\n")
            .unwrap();
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let body = bytes[end + 4..].to_vec();
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            text: String::from_utf8_lossy(&body).into_owned(),
            body,
        }
    }
}

/// What machines are known by: machine-id and public host keys.
pub(crate) fn known(identity: &tempfile::TempDir) -> Vec<String> {
    let home = identity.path().join("netroot/identity");
    let names = [
        "machine-id",
        "ssh/ssh_host_ed25519_key.pub",
        "ssh/ssh_host_ecdsa_key.pub",
    ];
    let read = |name| fs::read_to_string(home.join(name)).unwrap();
    names.into_iter().map(read).collect()
}

/// Unpacks an initramfs with the program that has always done so.
fn unpack(packed: &[u8], dir: &Path) {
    let begin = packed.iter().position(|byte| *byte != 0).unwrap();
    let mut archive = Vec::new();
    let mut unzipped = flate2::read::GzDecoder::new(&packed[begin..]);
    unzipped.read_to_end(&mut archive).unwrap();
    let mut cpio = command("cpio", ["--extract", "--quiet", "--make-directories"]);
    let mut cpio = cpio.current_dir(dir).stdin(Stdio::piped()).spawn().unwrap();
    cpio.stdin.take().unwrap().write_all(&archive).unwrap();
    assert!(cpio.wait().unwrap().success());
}
