//! A library with a running server, and a browser that does as it is told.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use netroot::library::{Actor, Library, NewUser, Role};
use serde_json::Value;

const NETROOT: &str = env!("CARGO_BIN_EXE_netroot");

/// Everybody's password.
pub(crate) const PASSWORD: &str = "correct horse battery";

pub(crate) struct Site {
    dir: tempfile::TempDir,
}

/// A running server. It is asked to end when this does.
pub(crate) struct Server {
    child: Child,
    /// Where dashboard and API listen.
    pub(crate) admin: String,
    /// Where the boot service does.
    pub(crate) boot: String,
    /// Where the target does.
    pub(crate) iscsi: String,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: Vec<(String, String)>,
    pub(crate) text: String,
}

/// Somebody who is logged in.
#[derive(Debug, Clone)]
pub(crate) struct LoggedIn {
    /// `netroot=…`
    pub(crate) cookie: String,
    /// What forms bring along.
    pub(crate) csrf: String,
}

impl Site {
    /// A new library whose server listens on ports that the system gives. `admin` are further lines of
    /// its table.
    pub(crate) fn new(admin: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let site = Site { dir };
        let made = site.run(&["init", "--host", "server-01.example.edu"], "");
        assert!(made.status.success(), "{made:?}");
        let own = ["iscsi", "boot", "admin"]
            .map(|part| format!("[{part}]\nlisten = [\"127.0.0.1:0\"]\n"))
            .concat();
        fs::write(site.dir.path().join("own.toml"), own + admin).unwrap();
        site
    }

    /// Where the library is.
    pub(crate) fn library(&self) -> PathBuf {
        self.dir.path().join("lib")
    }

    /// Adds users who have chosen [`PASSWORD`].
    pub(crate) fn users(&self, users: &[(&str, Role)]) {
        let library = Library::open(&self.library(), None).unwrap();
        for (name, role) in users {
            let new = NewUser {
                name: name.parse().unwrap(),
                role: *role,
            };
            library
                .add_user_with_password(&new, false, PASSWORD, &Actor::command())
                .unwrap();
        }
    }

    /// Runs a command with this on its standard input.
    pub(crate) fn run(&self, args: &[&str], input: &str) -> Output {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        // A command that reads nothing may have ended already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// What a command prints that succeeds.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args, "");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same as JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[&["--json"], args].concat())).unwrap()
    }

    pub(crate) fn serve(&self) -> Server {
        let mut child = self
            .command(&["--json", "serve"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let ready = BufReader::new(child.stdout.take().unwrap()).lines().next();
        let ready: Value = serde_json::from_str(&ready.unwrap().unwrap()).unwrap();
        let door = |name: &str| ready[name][0].as_str().unwrap().to_owned();
        Server {
            admin: door("admin"),
            boot: door("boot"),
            iscsi: door("iscsi"),
            child,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(NETROOT);
        command.arg("--library").arg(self.library());
        let own = self.dir.path().join("own.toml");
        if own.exists() {
            command.arg("--config").arg(own);
        }
        command
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

impl Server {
    /// Sends a request and reads the whole answer. `Host` is the server's address where `head` names
    /// none.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        head: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut stream = TcpStream::connect(&self.admin).unwrap();
        exchange(&mut stream, &self.admin, method, path, head, body)
    }

    /// Sends the beginning of a request, and leaves the rest to whoever gets the connection.
    pub(crate) fn begin(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.admin).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }

    /// A line of what the system tells of its process.
    pub(crate) fn process(&self, line: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let mut lines = status.lines().filter_map(|all| all.strip_prefix(line));
        let value = lines.next().unwrap().trim_start_matches(':').trim();
        value.split(' ').next().unwrap().parse().unwrap()
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn get(&self, path: &str, head: &[(&str, &str)]) -> Answer {
        self.ask("GET", path, head, "")
    }

    /// Sends a form.
    pub(crate) fn post(&self, path: &str, head: &[(&str, &str)], body: &str) -> Answer {
        let form = ("Content-Type", "application/x-www-form-urlencoded");
        self.ask("POST", path, &[&[form], head].concat(), body)
    }

    /// The answer to a login with this password.
    pub(crate) fn tries(&self, name: &str, password: &str) -> Answer {
        let body = format!("name={name}&password={}", password.replace(' ', "+"));
        self.post("/login", &[], &body)
    }

    /// Logs somebody in.
    pub(crate) fn log_in(&self, name: &str) -> LoggedIn {
        let answer = self.tries(name, PASSWORD);
        assert_eq!(
            (answer.status, answer.is("location")),
            (303, "/"),
            "{answer:?}"
        );
        self.logged_in(&answer)
    }

    /// Who the answer to a login has let in.
    pub(crate) fn logged_in(&self, answer: &Answer) -> LoggedIn {
        let cookie = answer.is("set-cookie").split(';').next().unwrap();
        let page = self.get("/account", &[("Cookie", cookie)]);
        let (_, rest) = page
            .text
            .split_once("name=\"csrf\" value=\"")
            .unwrap_or_else(|| panic!("no token in {page:?}"));
        LoggedIn {
            cookie: cookie.to_owned(),
            csrf: rest.split('"').next().unwrap().to_owned(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.terminate();
        let mut said = String::new();
        let _ = self.child.stderr.take().unwrap().read_to_string(&mut said);
        let ended = self.child.wait();
        if !std::thread::panicking() {
            assert!(ended.unwrap().success(), "{said}");
            assert!(!said.contains("panicked"), "{said}");
        }
    }
}

impl LoggedIn {
    /// The header that says so.
    pub(crate) fn cookie(&self) -> (&str, &str) {
        ("Cookie", &self.cookie)
    }

    /// What proves that a call comes from a page of theirs.
    pub(crate) fn csrf(&self) -> &str {
        &self.csrf
    }

    /// A form of theirs.
    pub(crate) fn form(&self, fields: &str) -> String {
        format!("csrf={}&{fields}", self.csrf)
    }
}

impl Answer {
    /// All headers of one name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let found = self.head.iter().filter(move |(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A header; empty if it is not there.
    pub(crate) fn is(&self, name: &str) -> &str {
        let found = self.head.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }
}

/// One request over an open connection, which ends with it.
pub(crate) fn exchange(
    stream: &mut (impl Read + Write),
    host: &str,
    method: &str,
    path: &str,
    head: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !head.iter().any(|(name, _)| *name == "Host") {
        request.push_str(&format!("Host: {host}\r\n"));
    }
    for (name, value) in head {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    // A peer may end a TLS connection without a word when all is said.
    let _ = stream.read_to_end(&mut bytes);
    let answer = String::from_utf8_lossy(&bytes);
    let (head, text) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{method} {path}: no answer in {answer:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let mut answer = Answer {
        status: status.parse().unwrap(),
        head: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect(),
        text: String::new(),
    };
    let in_chunks = answer.is("transfer-encoding") == "chunked";
    answer.text = match in_chunks && method != "HEAD" {
        true => unchunked(text.as_bytes()),
        false => text.to_owned(),
    };
    answer
}

/// What came in chunks (RFC 9112 §7.1), as one.
fn unchunked(mut rest: &[u8]) -> String {
    let mut text = Vec::new();
    while let Some(line) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let size = std::str::from_utf8(&rest[..line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        let from = line + 2;
        text.extend_from_slice(&rest[from..from + size]);
        rest = &rest[from + size + 2..];
    }
    String::from_utf8(text).unwrap()
}
