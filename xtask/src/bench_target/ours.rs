//! netroot, as its users run it: a library with an image, clients with clones, a volume, and `serve`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use super::contender::{Contender, INITIATOR, Unit, plain_copy};
use super::login::Door;
use super::place::Ground;
use crate::bench_web::http::Connection;
use crate::server::{Site, loopback};

/// A thousand sessions come from one address.
const ROOM_FOR_ALL: &str = "connections = 4096\nconnections_per_address = 4096\n";

/// The image, whose first version is what everybody reads.
const IMAGE: &str = "bench";

/// The volume.
const VOLUME: &str = "data";

/// A library on one file system, before it is served.
#[derive(Debug)]
pub(super) struct Library {
    site: Site,
    ground: PathBuf,
    clients: Vec<Client>,
    volume: Option<PathBuf>,
}

/// What a client is for.
#[derive(Debug)]
struct Client {
    unit: Unit,
    mac: String,
    clone: Option<PathBuf>,
}

impl Library {
    /// Makes a library with the ground's disk as its image.
    ///
    /// # Errors
    /// When netroot fails.
    pub(super) fn new(binary: &Path, ground: &Ground) -> Result<Self> {
        let library = ground.dir.join("library");
        let site = Site::new(binary, &library);
        site.init()?;
        let disk = ground
            .disk
            .to_str()
            .context("the disk's path must be UTF-8")?;
        site.netroot(&["image", "import", IMAGE, "--from", disk])?;
        Ok(Library {
            site,
            ground: ground.dir.clone(),
            clients: Vec::new(),
            volume: None,
        })
    }

    /// The file of the image's version.
    pub(super) fn sealed(&self) -> PathBuf {
        let version = self.site.library().join("images").join(IMAGE);
        version.join("1/disk.img")
    }

    /// Adds so many clients that boot disks of this kind.
    ///
    /// # Errors
    /// When netroot fails.
    pub(super) fn add_clients(&mut self, unit: Unit, number: usize) -> Result<()> {
        for _ in 0..number {
            let mac = crate::bench_web::mac(self.clients.len());
            let (mode, has_clone) = match unit {
                Unit::Sealed => ("shared", false),
                _ => ("persistent", true),
            };
            // Over loopback nobody is a machine whose secret he could be given.
            let add = ["client", "add", &mac, "--image", IMAGE, "--mode", mode];
            self.site
                .netroot(&[&add[..], &["--chap", "off"]].concat())?;
            let clone = self
                .site
                .library()
                .join("clones")
                .join(mac.replace(':', ""));
            self.clients.push(Client {
                unit,
                mac,
                clone: has_clone.then(|| clone.join("disk.img")),
            });
        }
        Ok(())
    }

    /// Publishes a plain copy of the disk.
    ///
    /// # Errors
    /// When netroot fails.
    pub(super) fn add_volume(&mut self, disk: &Path) -> Result<()> {
        let file = plain_copy(disk, &self.ground.join("volume.raw"))?;
        let path = file.to_str().context("the volume's path must be UTF-8")?;
        let add = ["volume", "add", VOLUME, "--file", path, "--allow", "any"];
        self.site.netroot(&add)?;
        self.volume = Some(file);
        Ok(())
    }

    /// Starts the server, and adds its disks to the contender's.
    ///
    /// # Errors
    /// When it does not start, or a client is told of no disk.
    pub(super) fn serve(self, contender: &mut Contender) -> Result<()> {
        let own = self.ground.join("own.toml");
        fs::write(&own, loopback(ROOM_FOR_ALL))?;
        let (process, ready) = self.site.serve_on_loopback(&own)?;
        let server = contender.add_server(process);
        let mut boot = Connection::open(&door(&ready, "boot")?, None)?;
        let units = [Unit::Sealed, Unit::Clone, Unit::Overlay, Unit::Room];
        for unit in units {
            let (mut doors, mut files) = (Vec::new(), Vec::new());
            for client in self.clients.iter().filter(|client| client.unit == unit) {
                let script = boot.get(&format!("/boot.cfg?mac={}", client.mac))?;
                doors.push(told_by(&String::from_utf8_lossy(&script))?);
                files.push(client.clone.clone().unwrap_or_else(|| self.sealed()));
            }
            if !doors.is_empty() {
                contender.add(server, unit, doors, files);
            }
        }
        if let Some(file) = &self.volume {
            let volume = Door {
                portal: door(&ready, "iscsi")?.parse()?,
                target: format!("{}:{VOLUME}", self.prefix()?),
                initiator: INITIATOR.into(),
                lun: 1,
            };
            contender.add(server, Unit::Volume, vec![volume], vec![file.clone()]);
        }
        Ok(())
    }

    /// What the names of its targets begin with.
    fn prefix(&self) -> Result<String> {
        let settings = fs::read_to_string(self.site.library().join("netroot.toml"))?;
        let line = settings
            .lines()
            .find_map(|line| line.strip_prefix("iqn_prefix = \""));
        let prefix = line.and_then(|rest| rest.split('"').next());
        Ok(prefix.context("netroot.toml has no iqn_prefix")?.to_owned())
    }
}

/// The first address of one of the server's doors.
fn door(ready: &Value, name: &str) -> Result<String> {
    let door = ready.get(name).and_then(|doors| doors.get(0)?.as_str());
    let door = door.with_context(|| format!("netroot serve has no door {name}: {ready}"))?;
    Ok(door.to_owned())
}

/// The disk that a script has its machine boot from, and the name that it gives the machine:
/// `sanboot iscsi:ADDRESS:PROTOCOL:PORT:LUN:TARGET`.
fn told_by(script: &str) -> Result<Door> {
    let after = |word: &str| {
        let mut words = script.split_whitespace().skip_while(|this| *this != word);
        words.nth(1)
    };
    let told = || {
        let initiator = after("initiator-iqn")?.to_owned();
        let mut fields = after("sanboot")?.strip_prefix("iscsi:")?.splitn(5, ':');
        let address = fields.next()?.parse().ok()?;
        let port = fields.nth(1)?.parse().ok()?;
        let lun = fields.next()?.parse().ok()?;
        Some(Door {
            portal: SocketAddr::new(address, port),
            target: fields.next()?.to_owned(),
            initiator,
            lun,
        })
    };
    told().with_context(|| format!("a script without a disk:\n{script}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_tells_disk_and_name() {
        let script = "#!ipxe\nset initiator-iqn iqn.2026-11.edu.example.s:client-1.01-1-cb\n\
            sanboot iscsi:127.0.0.1::38517:1:iqn.2026-11.edu.example.s:client-1 || goto failed\n";
        let door = told_by(script).unwrap();
        assert_eq!(door.portal, "127.0.0.1:38517".parse().unwrap());
        assert_eq!(door.target, "iqn.2026-11.edu.example.s:client-1");
        assert_eq!(door.initiator, "iqn.2026-11.edu.example.s:client-1.01-1-cb");
        assert_eq!(door.lun, 1);
        assert!(told_by("exit").is_err());
    }
}
