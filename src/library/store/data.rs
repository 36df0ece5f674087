//! The data disks of clients: what stays whatever becomes of their roots.
//!
//! A data disk is a sparse file beside the clone, made when its client first logs in to it. Nothing but
//! the end of the client removes it, a while later: where it is not asked for any more it is not published, and stays.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::draft::new_file;
use super::{BLOCK_SIZE, OpenDisk, clone};
use crate::block::FileDisk;
use crate::library::clients::Client;
use crate::library::error::{Doing, Result, chain};
use crate::library::events::{Actor, Event};
use crate::library::lock::WriteLock;
use crate::library::{ByteSize, Library, MacAddr, Settings, Target, document, owner};

/// A client's data disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct DataDisk {
    /// The target that it stands in.
    pub target: String,
    /// And its number there.
    pub lun: u16,
    /// Bytes of it; those that it is to have, where it is not made yet.
    pub size: u64,
    /// Bytes that its file takes.
    pub used: u64,
    /// It is published: its client's settings ask for one. Otherwise it only stays.
    pub published: bool,
    /// Why it could not be made ready, or opened, when its client logged in last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Why data disks of clients could not be made ready or opened, since this process began. Only who does the
/// same again finds out that it is over: a login that gets the device of another opens nothing.
#[derive(Debug, Default)]
pub(crate) struct Troubles(
    // Held for a look or a change in memory.
    Mutex<HashMap<(MacAddr, Step), String>>,
);

/// What is done about a data disk before its client has it, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Readied,
    Opened,
}

impl Troubles {
    fn all(&self) -> MutexGuard<'_, HashMap<(MacAddr, Step), String>> {
        // A panic elsewhere leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first of a client's: what came after it may have come of it.
    fn of(&self, mac: MacAddr) -> Option<String> {
        let all = self.all();
        let mut steps = [Step::Readied, Step::Opened].into_iter();
        steps.find_map(|step| all.get(&(mac, step)).cloned())
    }
}

impl Library {
    /// A client's data disk, if it has one or is to have one.
    pub fn data_disk(&self, client: &Client) -> Result<Option<DataDisk>> {
        let wanted = self.settings(client)?.data();
        let path = self.data_path(&client.mac);
        let there = match fs::metadata(&path) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).doing("looking at", &path),
        };
        if wanted.is_none() && there.is_none() {
            return Ok(None);
        }
        let len = there.as_ref().map_or(0, fs::Metadata::len);
        Ok(Some(DataDisk {
            target: self.target_name(&Target::Clone(client.mac)),
            lun: self.data_lun(),
            size: len.max(wanted.map_or(0, ByteSize::bytes)),
            used: there.map_or(0, |there| there.blocks() * 512),
            published: wanted.is_some(),
            trouble: wanted.and_then(|_| self.data_troubles.of(client.mac)),
        }))
    }

    /// Where data disks stand: beside the disk that a client boots from.
    pub(crate) fn data_lun(&self) -> u16 {
        match self.config().iscsi.lun.number() {
            255 => 254,
            lun => lun + 1,
        }
    }

    /// Makes a client's data disk, or makes it as large as its settings say. Nothing where it has none.
    pub(crate) fn ready_data(&self, _: &WriteLock, client: &Client) -> Result<()> {
        let Some(size) = self.settings(client)?.data() else {
            return Ok(());
        };
        let path = self.data_path(&client.mac);
        let home = self.places().clone(&client.mac);
        owner::make_dirs(&home).doing("creating", &home)?;
        match new_file(&path) {
            Ok(file) => {
                owner::give(&file, &home);
                document::sync_dir(&home)?;
            }
            // As long as it is whatever a killed server had come to.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).doing("creating", &path),
        }
        clone::lengthen(&path, size.bytes()).doing("enlarging", &path)
    }

    /// Makes a data disk that is there as large as its client's settings say by now.
    pub(crate) fn grow_data(&self, lock: &WriteLock, client: &Client) -> Result<()> {
        match self.has_data(&client.mac) {
            true => self.ready_data(lock, client),
            false => Ok(()),
        }
    }

    /// What somebody should know of a client's data disk who changes its settings: it stays as it is, whatever
    /// they say.
    pub(crate) fn data_caution(
        &self,
        client: &Client,
        before: &Settings,
        after: &Settings,
    ) -> Result<Option<String>> {
        let path = self.data_path(&client.mac);
        let there = match fs::metadata(&path) {
            Ok(there) => ByteSize::new(there.len()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).doing("looking at", &path),
        };
        let name = &client.name;
        Ok(match (before.data(), after.data()) {
            (Some(_), None) => Some(format!(
                "from its next boot on {name} has no data disk; what is on it ({there}) stays in the \
                 library, and comes back with a size for it"
            )),
            (before, Some(wanted)) if before != Some(wanted) && wanted < there => Some(format!(
                "the data disk of {name} has {there} already and stays so: it only grows"
            )),
            _ => None,
        })
    }

    /// A client's data disk, if its settings ask for one.
    pub(super) fn open_data(&self, client: &Client) -> Result<Option<OpenDisk>> {
        let opened = self.open_data_file(client);
        self.data_came_to(client, Step::Opened, opened)
    }

    fn open_data_file(&self, client: &Client) -> Result<Option<OpenDisk>> {
        if self.settings(client)?.data().is_none() {
            return Ok(None);
        }
        let path = self.data_path(&client.mac);
        let disk = FileDisk::open_writable(&path, BLOCK_SIZE).doing("opening", &path)?;
        Ok(Some(OpenDisk {
            lun: self.data_lun(),
            // Not the target's: the disk that the client boots from has that.
            identity: format!("{}:data", self.target_name(&Target::Clone(client.mac))),
            disk: Arc::new(disk),
            quota: None,
        }))
    }

    /// Makes a client's data disk ready as it logs in. A root is given all the same: without the disk beside
    /// it a client can be helped, and not at all without that.
    pub(crate) fn ready_data_at_login(&self, lock: &WriteLock, client: &Client) -> Result<()> {
        let ready = self.ready_data(lock, client);
        self.data_came_to(client, Step::Readied, ready)
    }

    /// Keeps, and tells, why a client boots without its data disk, or that there is no such trouble any more.
    fn data_came_to<T>(&self, client: &Client, step: Step, result: Result<T>) -> Result<T> {
        let trouble = (client.mac, step);
        match &result {
            Ok(_) => {
                self.data_troubles.all().remove(&trouble);
            }
            Err(error) => {
                let why = chain(error);
                let mut troubles = self.data_troubles.all();
                troubles.insert(trouble, why.clone());
                // Only what is behind it is told.
                let told =
                    step == Step::Opened && troubles.contains_key(&(client.mac, Step::Readied));
                drop(troubles);
                if !told {
                    self.tell_of_missing_data(client, why);
                }
            }
        }
        result
    }

    fn tell_of_missing_data(&self, client: &Client, why: String) {
        tracing::error!(client = %client.name, why, "a client boots without its data disk");
        let peer = client.boot.as_ref().map(|boot| boot.peer);
        let peer = peer.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        // A machine whose network comes and goes logs in every few seconds.
        if self.refusals.is_news(peer, &format!("data {}", client.mac)) {
            let event = Event::new(&Actor::Server, "data-disk-failed").of(&client.mac);
            self.note(&event.with("why", why));
        }
    }

    /// Whether there is a file of a data disk.
    pub(crate) fn has_data(&self, mac: &MacAddr) -> bool {
        self.data_path(mac).exists()
    }

    fn data_path(&self, mac: &MacAddr) -> PathBuf {
        self.places().clone(mac).join(DATA)
    }
}

/// The file of a data disk, beside that of the clone.
const DATA: &str = "data.img";
