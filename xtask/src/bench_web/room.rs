//! A room of clients that somebody serves.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::http::Connection;
use crate::bench::{KERNEL, processor};
use crate::program::Background;
use crate::server::{Site, loopback};

/// Tokens of those who watch; each is let watch some ten pages.
const WATCHERS: usize = 10;

/// A library of clients that nobody has booted yet.
#[derive(Debug)]
pub(super) struct Room {
    site: Site,
    own: PathBuf,
    /// What shows a program that may do everything.
    token: String,
    /// What show those who only watch: nobody may watch everything alone.
    watchers: Vec<String>,
    clients: usize,
}

/// A running `netroot serve`, each of its doors on a port that the system chose.
#[derive(Debug)]
pub(super) struct Serving {
    process: Background,
    pub(super) admin: String,
    pub(super) boot: String,
    token: String,
    watchers: Vec<String>,
}

impl Room {
    /// Makes a library with an image of which nothing would boot, and no clients.
    ///
    /// # Errors
    /// When netroot fails.
    pub(super) fn new(binary: &Path, dir: &Path, tree: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let site = Site::new(binary, &dir.join("library"));
        site.init()?;
        let tree = tree.to_str().context("the tree's path must be UTF-8")?;
        let build = ["image", "build", "fc28", "--from", tree, "--fs", "ext4"];
        site.netroot(&[&build[..], &["--no-initramfs-check"]].concat())?;
        let token = |name: &str, role: &str| {
            let token = site.netroot(&["token", "add", name, "--role", role])?;
            anyhow::Ok(token.trim().to_owned())
        };
        let operator = token("bench", "operator")?;
        let watchers = (0..WATCHERS)
            .map(|n| token(&format!("watcher-{n}"), "viewer"))
            .collect::<Result<_>>()?;
        let own = dir.join("own.toml");
        fs::write(&own, loopback(""))?;
        Ok(Room {
            site,
            own,
            token: operator,
            watchers,
            clients: 0,
        })
    }

    pub(super) fn clients(&self) -> usize {
        self.clients
    }

    /// Adds clients as a program does it, one request after another; the seconds that it took.
    ///
    /// # Errors
    /// When one is refused.
    pub(super) fn add(&mut self, number: usize) -> Result<f64> {
        let serving = self.serve()?;
        let mut connection = serving.connect()?;
        let began = Instant::now();
        for client in self.clients..self.clients + number {
            connection.post("/api/v1/clients", &new_client(client))?;
        }
        self.clients += number;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Adds clients by a command for each; the seconds that it took.
    ///
    /// # Errors
    /// When one is refused.
    pub(super) fn add_by_command(&mut self, number: usize) -> Result<f64> {
        let began = Instant::now();
        for client in self.clients..self.clients + number {
            let (mac, name, group) = (mac(client), name(client), group(client));
            let add = ["client", "add", &mac, "--name", &name, "--image", "fc28"];
            self.site
                .netroot(&[&add[..], &["--group", &group]].concat())?;
        }
        self.clients += number;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Puts documents like those of the clients that there are beside them, for rooms so large that
    /// adding their clients one by one would take longer than the measurement.
    ///
    /// # Errors
    /// When there is no client yet, or a document cannot be written.
    pub(super) fn fill(&mut self, clients: usize) -> Result<()> {
        let dir = self.site.library().join("clients");
        let document = |client: usize| dir.join(format!("{}.json", mac(client).replace(':', "")));
        let first = fs::read_to_string(document(0)).context("there is no client to copy")?;
        for client in self.clients..clients {
            let text = first
                .replace(&mac(0), &mac(client))
                .replace(
                    &format!("\"{}\"", name(0)),
                    &format!("\"{}\"", name(client)),
                )
                .replace(&group(0), &group(client));
            fs::write(document(client), text)?;
        }
        self.clients = self.clients.max(clients);
        Ok(())
    }

    /// Starts the server, and waits until it has opened its doors.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn serve(&self) -> Result<Serving> {
        let (process, ready) = self.site.serve_on_loopback(&self.own)?;
        let door = |name: &str| {
            let door = ready.get(name).and_then(|doors| doors.get(0)?.as_str());
            door.map(str::to_owned)
                .with_context(|| format!("netroot serve has no door {name}: {ready}"))
        };
        Ok(Serving {
            admin: door("admin")?,
            boot: door("boot")?,
            token: self.token.clone(),
            watchers: self.watchers.clone(),
            process,
        })
    }
}

impl Serving {
    /// A connection of somebody who may do everything.
    ///
    /// # Errors
    /// When the server is gone.
    pub(super) fn connect(&self) -> Result<Connection> {
        Connection::open(&self.admin, Some(&self.token))
    }

    /// The tokens of those who watch.
    pub(super) fn watchers(&self) -> &[String] {
        &self.watchers
    }

    /// The time of the processor that it has used so far, by itself and in the kernel for it.
    ///
    /// # Errors
    /// When it is gone.
    pub(super) fn processor(&self) -> Result<Duration> {
        processor(self.process.pid())
    }
}

/// A chroot that has what an image must have, and nothing more.
///
/// # Errors
/// When it cannot be written.
pub(super) fn small_tree(tree: &Path) -> Result<()> {
    for (path, text) in [
        (format!("boot/vmlinuz-{KERNEL}"), "kernel"),
        (format!("boot/initrd.img-{KERNEL}"), "initramfs"),
        (format!("lib/modules/{KERNEL}/modules.dep"), ""),
        ("etc/os-release".to_owned(), "ID=debian\nVERSION_ID=12\n"),
    ] {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().context("a file without a directory")?)?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// The address of a client; the first one is 0.
pub(crate) fn mac(client: usize) -> String {
    let [.., high, middle, low] = client.to_be_bytes();
    format!("52:54:00:{high:02x}:{middle:02x}:{low:02x}")
}

fn name(client: usize) -> String {
    format!("pc-{client:05}")
}

/// Rows of thirty.
fn group(client: usize) -> String {
    format!("row-{:03}", client / 30)
}

fn new_client(client: usize) -> Value {
    json!({
        "mac": mac(client),
        "name": name(client),
        "image": "fc28",
        "mode": "shared",
        "groups": [group(client)],
    })
}
