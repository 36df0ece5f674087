//! Whether a version boots: what came of its test, and whether it may become current without one.
//!
//! What came of a test stands beside the version and not in its manifest, which is sealed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::library::Library;
use crate::library::document::{self, Document};
use crate::library::error::{Error, Result};
use crate::library::events::{Actor, Event};
use crate::library::manifest::BootFrom;
use crate::library::names::VersionId;
use crate::library::store::{self, HeldFile};

/// What came of the last test of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trial {
    /// Counts the changes of the document.
    pub revision: u64,
    /// The version.
    pub version: VersionId,
    /// The hash of its disk, so that a test says nothing about another disk of that name.
    pub root: String,
    /// When it was over.
    pub at: Timestamp,
    /// How many seconds it took.
    pub took: u64,
    /// Who asked for it.
    pub by: Actor,
    /// Why it failed; nothing if the version came up.
    pub failed: Option<String>,
    /// The last lines of its console where it failed.
    #[serde(default)]
    pub console: Vec<String>,
}

/// What becomes of a version whose test went well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Publish {
    /// It becomes current if only its test kept it from that.
    #[default]
    IfItWaits,
    /// `current` stays where it is.
    Never,
}

/// A version that is being tested: it stays while this lives.
#[derive(Debug)]
pub struct UnderTrial<'a> {
    _held: HeldFile<'a>,
}

impl Document for Trial {
    fn revision(&mut self) -> &mut u64 {
        &mut self.revision
    }
}

impl Trial {
    /// Whether the version came up.
    pub fn passed(&self) -> bool {
        self.failed.is_none()
    }
}

impl Library {
    /// What came of the last test of a version, if there was one.
    pub fn trial(&self, version: &VersionId) -> Result<Option<Trial>> {
        let found: Option<Trial> = document::read(&self.places().trial(version))?;
        let Some(found) = found else {
            return Ok(None);
        };
        let root = self.version(version)?.manifest().disk.root.to_string();
        Ok(Some(found).filter(|trial| trial.root == root))
    }

    /// Keeps a version from being removed while it is tested.
    ///
    /// # Errors
    /// When it is gone, or somebody else tests it.
    pub fn hold_for_trial(&self, version: &VersionId) -> Result<UnderTrial<'_>> {
        self.make_dir(&self.places().trials())?;
        let lock = self.write_lock()?;
        self.version(version)?;
        let held = self.hold(&lock, self.places().under_trial(version))?;
        held.map(|_held| UnderTrial { _held }).ok_or_else(|| {
            Error::refused(
                format!("testing {version}"),
                "somebody else tests it",
                "wait for that to end",
            )
        })
    }

    /// Whether somebody tests a version.
    pub(super) fn is_under_trial(&self, version: &VersionId) -> Result<bool> {
        store::is_held(&self.places().under_trial(version))
    }

    /// Whether only its test keeps a version from becoming current: the configuration asks for one, and
    /// it is newer than what is current and boots by the way of its image.
    pub fn waits_for_trial(&self, version: &VersionId) -> Result<bool> {
        let current = self.image(&version.image)?.current;
        let is_newer = current.is_none_or(|current| version.number > current);
        if !is_newer || self.ensure_tried(version).is_ok() {
            return Ok(false);
        }
        let unfit = self.unfit_for_its_image(&self.version(version)?)?;
        Ok(unfit.is_none())
    }

    /// Writes down what came of a test. Tells whether the version became current by it.
    pub fn record_trial(&self, mut trial: Trial, publish: Publish) -> Result<bool> {
        let version = trial.version.clone();
        let path = self.places().trial(&version);
        self.make_dir(&self.places().trials())?;
        let lock = self.write_lock()?;
        // Asked under the lock: a newer one may have become current while this one was tested.
        let waits = self.waits_for_trial(&version)?;
        let before: Option<Trial> = document::read(&path)?;
        trial.revision = before.map_or(0, |before| before.revision);
        document::write(&lock, &path, &mut trial)?;
        let publishes = waits && publish == Publish::IfItWaits && trial.passed();
        let published = match publishes {
            true => self
                .ensure_may_be_current(&version)
                .and_then(|()| self.make_current(&lock, &version)),
            false => Ok(()),
        };
        drop(lock);
        let event = Event::new(&trial.by, "image-test").of_version(&version);
        self.note(&match &trial.failed {
            None => event.with("passed", true),
            Some(why) => event.with("passed", false).with("why", why.clone()),
        });
        published?;
        if publishes {
            self.note(&Event::new(&trial.by, "image-current").of_version(&version));
        }
        Ok(publishes)
    }

    /// Whether a version that boots so has to pass a test before it becomes current. What boots from its
    /// own disk cannot be tested here (`build::ensure_can_be_tried`), and would never become current.
    pub fn wants_trial(&self, boot: &BootFrom) -> bool {
        self.config().images.publish_gate && matches!(boot, BootFrom::Kernel { .. })
    }

    /// Refuses to make current what has not passed its test, where the configuration asks for one. Back to
    /// what clients had before nobody has to wait for a test.
    pub(crate) fn ensure_tried(&self, version: &VersionId) -> Result<()> {
        if !self.config().images.publish_gate
            || !self.wants_trial(&self.version(version)?.manifest().boot)
            || self.was_current(version)?
        {
            return Ok(());
        }
        let why = match self.trial(version)? {
            Some(trial) if trial.passed() => return Ok(()),
            Some(Trial {
                failed: Some(why), ..
            }) => format!("its test failed ({why}), and `publish_gate` is set in netroot.toml"),
            _ => "it was not tested yet, and `publish_gate` is set in netroot.toml".to_owned(),
        };
        Err(Error::refused(
            format!("making {version} current"),
            why,
            format!("test it: netroot image test {version}"),
        ))
    }
}
