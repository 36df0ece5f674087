//! A library, a server of it, and somebody who looks at its pages.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use netroot::library::*;
use serde_json::Value;

use super::peer::{Peer, read_10, write_10};

const NETROOT: &str = env!("CARGO_BIN_EXE_netroot");

/// Nothing here takes that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Site {
    dir: tempfile::TempDir,
    pub(crate) lib: Library,
    runtime: tokio::runtime::Runtime,
}

/// A running server; ended with the test.
pub(crate) struct Server {
    child: Child,
    boot: String,
    iscsi: SocketAddr,
    socket: PathBuf,
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
}

impl Answer {
    /// What a header says.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }
}

impl Site {
    pub(crate) fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let options = InitOptions {
            host: "server-01.example.edu".parse().unwrap(),
            iqn_prefix: Some("iqn.2026-01.edu.example.server-01".parse().unwrap()),
            // A temporary directory could not be removed.
            immutable: false,
        };
        let lib = Library::init(&dir.path().join("lib"), &options).unwrap();
        let own = ["iscsi", "boot", "admin"]
            .map(|part| format!("[{part}]\nlisten = [\"127.0.0.1:0\"]\n"))
            .concat();
        std::fs::write(dir.path().join("own.toml"), own).unwrap();
        Site {
            dir,
            lib,
            runtime: tokio::runtime::Runtime::new().unwrap(),
        }
    }

    /// Seals a version of which nothing would boot.
    pub(crate) fn seal(&self, image: &str) -> VersionId {
        seal(&self.lib, image)
    }

    /// Adds a client while no server runs.
    pub(crate) fn add(&self, last: u8, name: &str, mode: Mode, args: &[&str]) -> MacAddr {
        let new = NewClient {
            mac: mac(last),
            name: Some(name.parse().unwrap()),
            image: "fc28".parse().unwrap(),
            mode,
            args: args.iter().map(|arg| arg.parse().unwrap()).collect(),
            groups: ["lab".parse().unwrap()].into(),
            settings: Default::default(),
        };
        let live = NoServer::new(self.lib.live_lock().unwrap());
        let done = self.lib.add_client(&new, &live, &Actor::command());
        done.unwrap().plan.mac
    }

    /// Says something about machines that boot, for all servers from the next start on: a line of table
    /// `[boot]`, in place of those that begin with `key`.
    pub(crate) fn say_of_boots(&self, key: &str, line: &str) {
        self.say_in("[boot]", key, line);
    }

    /// Adds lines to a table of the configuration.
    pub(crate) fn say(&self, table: &str, lines: &str) {
        self.say_in(table, "\0", lines);
    }

    fn say_in(&self, table: &str, key: &str, line: &str) {
        let path = self.lib.root().join("netroot.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with(key));
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        let text = text.replace(&format!("{table}\n"), &format!("{table}\n{line}\n"));
        std::fs::write(&path, text).unwrap();
    }

    pub(crate) fn client(&self, mac: &MacAddr) -> Client {
        self.lib.client(mac).unwrap()
    }

    pub(crate) fn serve(&self) -> Server {
        let mut child = Command::new(NETROOT)
            .arg("--library")
            .arg(self.lib.root())
            .arg("--config")
            .arg(self.dir.path().join("own.toml"))
            .args(["--json", "serve"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ready = BufReader::new(child.stdout.take().unwrap()).lines().next();
        let ready: Value = serde_json::from_str(&ready.unwrap().unwrap()).unwrap();
        let door = |name: &str| ready[name][0].as_str().unwrap().to_owned();
        Server {
            boot: door("boot"),
            iscsi: door("iscsi").parse().unwrap(),
            child,
            socket: self.lib.control_socket(),
        }
    }

    /// A client boots: it fetches its script and logs in as that says. Dropping it cuts it off.
    pub(crate) fn boot(&self, server: &Server, mac: &MacAddr) -> Peer {
        let ticket = Script::of(&server.boot_cfg(mac));
        self.runtime.block_on(ticket.log_in(server.iscsi))
    }

    /// A client whose script was fetched logs in as that says. Dropping it cuts it off.
    pub(crate) fn boot_by(&self, server: &Server, script: &Script) -> Peer {
        self.runtime.block_on(script.log_in(server.iscsi))
    }

    /// The same by iPXE, before the system does.
    pub(crate) fn firmware_boots_by(&self, server: &Server, script: &Script) -> Peer {
        // T = 01b and the enterprise number of Fen Systems (RFC 7143 §11.12.5).
        const IPXE: [u8; 6] = [0x40, 0, 0x27, 0x23, 0, 1];
        self.runtime.block_on(script.log_in_as(server.iscsi, IPXE))
    }

    /// What a command prints.
    pub(crate) fn netroot(&self, args: &[&str]) -> String {
        let output = Command::new(NETROOT)
            .arg("--library")
            .arg(self.lib.root())
            .args(args)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// An initiator of other people's logs in. Dropping it cuts it off.
    pub(crate) fn log_in(&self, server: &Server, initiator: &str, target: &str) -> Peer {
        let script = Script {
            initiator: initiator.to_owned(),
            target: target.to_owned(),
        };
        self.runtime.block_on(script.log_in(server.iscsi))
    }

    /// Whether an initiator may log in.
    pub(crate) fn is_let_in(&self, server: &Server, initiator: &str, target: &str) -> bool {
        self.runtime.block_on(async {
            let mut peer = Peer::connect(server.iscsi).await;
            let answer = peer.try_login_as(initiator, target, "").await;
            answer.login_status() == 0
        })
    }

    /// Does what initiators do.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// A client reads the first 64 KiB of its disk.
    pub(crate) fn reads(&self, peer: &mut Peer) {
        let (status, read) = self.runtime.block_on(async {
            // The first command of a session may be told first that it is one.
            peer.command([0; 16], 0, b"").await;
            peer.command(read_10(0, 128), 64 << 10, b"").await
        });
        assert_eq!((status, read.len()), (0, 64 << 10));
    }

    /// It writes the first block, after it has read.
    pub(crate) fn writes(&self, peer: &mut Peer) {
        let write = peer.command(write_10(0, 1), 0, &[0xa5; 512]);
        assert_eq!(self.wait(write), (0, Vec::new()));
    }
}

/// Seals a version of which nothing would boot.
pub(crate) fn seal(lib: &Library, image: &str) -> VersionId {
    let mut draft = lib.draft(&image.parse().unwrap()).unwrap();
    draft.create_sparse(1 << 20).unwrap();
    draft.add_kernel(&mut &b"a kernel"[..]).unwrap();
    draft.add_initramfs(&mut &b"an initramfs"[..]).unwrap();
    let facts = VersionFacts {
        kernel_version: "6.1.0".into(),
        ..VersionFacts::default()
    };
    draft.seal(facts, &Quiet).unwrap().id().clone()
}

/// What a boot.cfg tells a machine about its disk.
pub(crate) struct Script {
    pub(crate) initiator: String,
    pub(crate) target: String,
}

impl Script {
    pub(crate) fn of(cfg: &str) -> Self {
        let word = |key: &str| {
            let words = cfg.split_whitespace();
            let mut found = words.filter_map(|word| word.strip_prefix(key));
            found
                .next()
                .unwrap_or_else(|| panic!("{key} in {cfg}"))
                .to_owned()
        };
        let root = word("netroot=iscsi:");
        Script {
            initiator: word("rd.iscsi.initiator="),
            target: root[root.find("iqn.").unwrap()..].to_owned(),
        }
    }

    /// Logs in as it says. Dropping the initiator cuts it off.
    pub(crate) async fn log_in(&self, iscsi: SocketAddr) -> Peer {
        self.log_in_as(iscsi, [0x80, 0, 0, 0, 0, 1]).await
    }

    /// The same with an identifier of its sessions of its own.
    async fn log_in_as(&self, iscsi: SocketAddr, isid: [u8; 6]) -> Peer {
        let mut peer = Peer::connect(iscsi).await;
        peer.isid = isid;
        let answer = peer.try_login_as(&self.initiator, &self.target, "").await;
        assert_eq!(answer.login_status(), 0, "{}", answer.text());
        peer
    }
}

/// What a machine's firmware is told by the boot service.
pub(crate) fn boot_cfg(service: &str, mac: &MacAddr) -> String {
    let mut stream = TcpStream::connect(service).unwrap();
    let request = format!("GET /boot.cfg?mac={mac} HTTP/1.1\r\nHost: {service}\r\n");
    answer(&mut stream, &request).text
}

pub(crate) fn mac(last: u8) -> MacAddr {
    MacAddr::new([0x52, 0x54, 0, 0, 0, last]).unwrap()
}

/// What a hidden field of a page holds.
pub(crate) fn hidden(page: &str, name: &str) -> String {
    let (_, rest) = page
        .split_once(&format!("name=\"{name}\" value=\""))
        .unwrap_or_else(|| panic!("no {name} in {page}"));
    rest.split('"').next().unwrap().to_owned()
}

/// A field of a form that chooses a client as it is now.
pub(crate) fn pick(client: &Client) -> (&'static str, String) {
    let edition = client.edition();
    (
        "pick",
        format!("{}.{}", client.mac.bare(), edition.as_str()),
    )
}

impl Server {
    /// What a client's firmware is told.
    pub(crate) fn boot_cfg(&self, mac: &MacAddr) -> String {
        boot_cfg(&self.boot, mac)
    }

    /// What the boot service answers.
    pub(crate) fn ask_boot(&self, path: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.boot).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", self.boot);
        answer(&mut stream, &request)
    }

    /// What the boot service answers to a form.
    pub(crate) fn boots_post(&self, path: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.boot).unwrap();
        let (boot, length) = (&self.boot, body.len());
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {boot}\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        answer(&mut stream, &request)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n"))
    }

    /// The text of a page that is there.
    pub(crate) fn page(&self, path: &str) -> String {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.text
    }

    /// When a page says that it was drawn.
    pub(crate) fn drawn(&self, path: &str) -> String {
        let page = self.page(path);
        let (_, rest) = page.split_once("data-drawn=\"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    }

    /// Sends a form.
    pub(crate) fn post(&self, path: &str, fields: &[(&str, String)]) -> Answer {
        let fields = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)));
        let body = fields.collect::<Vec<_>>().join("&");
        self.ask(&format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        ))
    }

    /// Sends a form that is answered with another page, and gives that one.
    pub(crate) fn post_and_look(&self, path: &str, fields: &[(&str, String)]) -> String {
        let answer = self.post(path, fields);
        assert_eq!(answer.status, 303, "{}", answer.text);
        let to = answer
            .head
            .lines()
            .find_map(|line| line.strip_prefix("location: "));
        self.page(to.unwrap())
    }

    /// A call with a body, and with these headers.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        body: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        let headers = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"));
        let (headers, length) = (headers.collect::<String>(), body.len());
        self.ask(&format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             {headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ))
    }

    fn ask(&self, request: &str) -> Answer {
        answer(&mut UnixStream::connect(&self.socket).unwrap(), request)
    }

    /// Opens the stream of a topic, to hear all of it and what changes.
    pub(crate) fn watch(&self, topic: &str) -> Watching {
        self.watch_from(topic, "0")
    }

    /// Opens the stream of a topic as a page that was drawn at `since`.
    pub(crate) fn watch_from(&self, topic: &str, since: &str) -> Watching {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let request =
            format!("GET /stream?topic={topic}&since={since} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        Watching {
            stream,
            heard: String::new(),
            everything: String::new(),
        }
    }

    /// Looks at a page until it is as it should be: some things happen a moment later.
    pub(crate) fn until(&self, path: &str, is_so: impl Fn(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let page = self.page(path);
            if is_so(&page) {
                return page;
            }
            assert!(begin.elapsed() < PATIENCE, "it never came: {page}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(&mut self) {
        let pid = i32::try_from(self.child.id()).unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGTERM,
        )
        .unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A page that is kept up to date.
pub(crate) struct Watching {
    stream: UnixStream,
    /// All that came and was not looked for yet.
    heard: String,
    everything: String,
}

impl Watching {
    /// Whether this has come so far.
    pub(crate) fn has_heard(&self, text: &str) -> bool {
        self.everything.contains(text)
    }

    /// Waits for a patch of an element in which `text` stands.
    pub(crate) fn hears(&mut self, id: &str, text: &str) {
        let begin = Instant::now();
        let id = format!("\"id\":\"{id}\"");
        loop {
            let found = self
                .heard
                .lines()
                .position(|line| line.contains(&id) && line.contains(text));
            if let Some(at) = found {
                self.heard = self
                    .heard
                    .lines()
                    .skip(at + 1)
                    .collect::<Vec<_>>()
                    .join("\n");
                return;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "{id} {text} never came: {}",
                self.heard
            );
            assert!(self.listen(), "it ended before {id} {text}: {}", self.heard);
        }
    }

    /// Waits for the end.
    pub(crate) fn ends(&mut self) {
        let begin = Instant::now();
        while self.listen() {
            assert!(begin.elapsed() < PATIENCE, "it goes on");
        }
    }

    /// Takes in what came; tells whether more can.
    fn listen(&mut self) -> bool {
        let mut bytes = [0; 64 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(len) => {
                let text = String::from_utf8_lossy(&bytes[..len]);
                self.heard.push_str(&text);
                self.everything.push_str(&text);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => true,
            Err(error) => panic!("{error}"),
        }
    }
}

fn answer(stream: &mut (impl Read + Write), request: &str) -> Answer {
    let mut request = request.to_owned();
    if !request.contains("\r\n\r\n") {
        request.push_str("Connection: close\r\n\r\n");
    }
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.replace("\r\n", "\n"),
        text: text.to_owned(),
    }
}

pub(crate) fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
