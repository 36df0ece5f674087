//! Which versions go with which modes and ways to boot: a disk of its own needs one that can be written
//! to, few that boot by themselves do without, and not every initramfs reads what iPXE leaves.

use crate::library::error::{Error, Result};
use crate::library::images::Version;
use crate::library::manifest::{BootFrom, InitramfsKind};
use crate::library::names::{ImageName, Mode};
use crate::library::{Library, VersionSpec};

use super::{Act, Client, Settings, Way};

impl Library {
    /// Refuses a read-only version as the next one of an image while clients follow it with disks of
    /// their own: they would not boot any more, and their disks could not be reset.
    ///
    /// # Errors
    /// With the names of those clients.
    pub fn ensure_only_shared(&self, image: &ImageName) -> Result<()> {
        let clients = self.clients()?;
        let names: Vec<String> = clients
            .iter()
            .filter(|client| client.follows_with_a_disk(image))
            .map(|client| client.name.to_string())
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(Error::refused(
            format!("giving {image} a read-only version"),
            format!(
                "clients of it have disks of their own, which could not be made of that: {}",
                names.join(", ")
            ),
            "assign them mode shared, or another image, first",
        ))
    }
}

impl Version {
    /// Refuses a client of mode `mode` whose disk would be a clone of this version, where nobody
    /// could write to it; `what` is being done.
    pub(crate) fn ensure_mode(&self, mode: Mode, what: impl FnOnce() -> String) -> Result<()> {
        let filesystem = &self.manifest().facts.filesystem;
        if !mode.has_clone() || !filesystem.is_read_only() {
            return Ok(());
        }
        Err(Error::refused(
            what(),
            format!(
                "{} is {}, which is read-only, and in mode {mode} a client writes to its disk",
                self.id(),
                filesystem.kind
            ),
            "use mode shared, or build the image with --fs xfs",
        ))
    }
}

impl Way {
    /// What it is about an initramfs of this kind that it does not find its disk on this way, if it does
    /// not.
    pub(crate) fn unfit_for(self, kind: InitramfsKind) -> Option<&'static str> {
        match (self, kind) {
            (Way::Ibft, InitramfsKind::InitramfsTools) => Some(
                "is made by initramfs-tools: on the way ibft it takes the network's address from the \
                 firmware's table as well, as one that nobody renews",
            ),
            _ => None,
        }
    }
}

impl Version {
    /// The way by which this version boots where these settings hold. iPXE always attaches a disk that
    /// boots itself, and leaves it in the firmware's table.
    pub(crate) fn way(&self, settings: &Settings) -> Way {
        match self.manifest().boot {
            BootFrom::Disk(_) => Way::Ibft,
            BootFrom::Kernel { .. } => settings.way.unwrap_or_default(),
        }
    }

    /// Refuses a way to boot on which this version's initramfs would not find its disk; `what` is
    /// being done.
    ///
    /// # Errors
    /// With the reason, and what else to do.
    pub fn ensure_way(&self, way: Way, what: &str) -> Result<()> {
        match self.unfit_for(way) {
            Some(why) => Err(Error::refused(
                what,
                why,
                "use way http, or build the image with dracut",
            )),
            None => Ok(()),
        }
    }

    /// Why this version would not find its disk on that way, if it would not.
    pub(crate) fn unfit_for(&self, way: Way) -> Option<String> {
        let manifest = self.manifest();
        // A disk that boots itself is attached by iPXE in any case.
        if matches!(manifest.boot, BootFrom::Disk(_)) {
            return None;
        }
        let why = way.unfit_for(manifest.facts.early.kind)?;
        Some(format!("the initramfs of {} {why}", self.id()))
    }

    /// What a person should know who gives this version to a client that goes by these settings.
    pub(crate) fn caution_of_way(&self, settings: &Settings) -> Option<String> {
        let why = self.unfit_for(settings.way.unwrap_or_default())?;
        Some(format!(
            "{why}: it is given no script until another way is said of the client, or of its group or image"
        ))
    }

    /// What a person should know who gives this version to a client of mode `mode`.
    pub(crate) fn caution(&self, mode: Mode) -> Option<String> {
        let is_disk = matches!(self.manifest().boot, BootFrom::Disk(_));
        (is_disk && mode == Mode::Shared).then(|| {
            format!(
                "{} boots from its own disk, which is read-only in mode shared: few systems start \
                 so; mode persistent or ephemeral gives the client a disk of its own",
                self.id()
            )
        })
    }
}

impl Client {
    /// Whether its next clone is, or will be, made of whatever version of `image` is the current one.
    fn follows_with_a_disk(&self, image: &ImageName) -> bool {
        let follows = |spec: &VersionSpec, mode: Mode| {
            spec.image == *image && spec.number.is_none() && mode.has_clone()
        };
        let armed = self.armed.as_ref().is_some_and(|armed| match &armed.act {
            Act::Assign(to) => follows(
                to.image.as_ref().unwrap_or(&self.image),
                to.mode.unwrap_or(self.mode),
            ),
            _ => false,
        });
        armed || follows(&self.image, self.mode)
    }
}
