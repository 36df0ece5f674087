//! Whoever acts on live state: the running server, or this command itself while there is none.
//!
//! Both sides of each `match` call the same function of the library; one of them over the control
//! socket.

mod groups;
mod images;
mod rollouts;
mod volumes;

use std::num::NonZeroU32;

use anyhow::{Result, bail};

use super::command::Cli;
use super::control::Control;
use crate::daemon::SessionRow;
use crate::library::Actor;
use crate::library::{Act, BootLine, ClientSelector, ClientView, Done, Edit, Plan, Removing, When};
use crate::library::{ImageName, ImageView, Pruning, Removal, Rollback, VersionId, VersionSpec};
use crate::library::{Library, MacAddr, NoServer, Published, Stranger};
use crate::web::calls::{
    ActCall, AddCall, EditCall, PruneCall, RemoveCall, RemoveImageCall, RollbackCall,
};

/// See the module.
pub(super) enum Reach {
    /// A server runs, and holds the library.
    Server(Control),
    /// No server runs, and none can start while this lives.
    Alone(Box<Library>, NoServer),
}

impl Reach {
    /// Asks the control socket first: its users need no right to read the library.
    pub(super) fn new(cli: &Cli) -> Result<Self> {
        if let Some(server) = Control::running(&cli.library)? {
            return Ok(Reach::Server(server));
        }
        let library = super::open(cli)?;
        let lock = library.live_lock()?;
        Ok(Reach::Alone(Box::new(library), NoServer::new(lock)))
    }

    pub(super) fn clients(&self) -> Result<Vec<ClientView>> {
        match self {
            Reach::Server(control) => control.get("/api/v1/clients"),
            Reach::Alone(library, live) => Ok(library.views(live)?),
        }
    }

    /// Machines that nobody knows and that asked a server what to boot.
    pub(super) fn strangers(&self) -> Result<Vec<Stranger>> {
        match self {
            Reach::Server(control) => control.get("/api/v1/strangers"),
            Reach::Alone(library, _) => Ok(library.strangers(jiff::Timestamp::now())),
        }
    }

    pub(super) fn select(&self, selector: &ClientSelector) -> Result<Vec<ClientView>> {
        match self {
            Reach::Server(control) => control.get(&format!("/api/v1/clients/{selector}")),
            Reach::Alone(library, live) => {
                let clients = library.select(selector)?.into_iter();
                Ok(clients
                    .map(|client| library.close_view(client, live))
                    .collect::<Result<_, _>>()?)
            }
        }
    }

    /// How a client booted, the latest first.
    pub(super) fn boots(&self, mac: &MacAddr) -> Result<Vec<BootLine>> {
        match self {
            Reach::Server(control) => control.get(&format!("/api/v1/clients/{mac}/boots")),
            Reach::Alone(library, _) => Ok(library.boot_lines(mac)?),
        }
    }

    pub(super) fn plan_add(&self, mut new: AddCall) -> Result<Plan> {
        new.dry_run = true;
        match self {
            Reach::Server(control) => control.post("/api/v1/clients", &new),
            Reach::Alone(library, _) => Ok(library.plan_add(&new.client(library)?)?),
        }
    }

    pub(super) fn add(&self, new: AddCall) -> Result<Done> {
        match self {
            Reach::Server(control) => control.post("/api/v1/clients", &new),
            Reach::Alone(library, live) => {
                let new = new.client(library)?;
                Ok(library.add_client(&new, live, &Actor::command())?)
            }
        }
    }

    pub(super) fn plan(&self, mac: &MacAddr, act: &Act, when: When) -> Result<Plan> {
        match self {
            Reach::Server(control) => {
                let call = ActCall {
                    act: act.clone(),
                    when,
                    dry_run: true,
                };
                control.post(&format!("/api/v1/clients/{mac}/acts"), &call)
            }
            Reach::Alone(library, live) => Ok(library.plan(mac, act, when, live)?),
        }
    }

    pub(super) fn perform(&self, mac: &MacAddr, act: &Act, when: When) -> Result<Done> {
        match self {
            Reach::Server(control) => {
                let call = ActCall {
                    act: act.clone(),
                    when,
                    dry_run: false,
                };
                control.post(&format!("/api/v1/clients/{mac}/acts"), &call)
            }
            Reach::Alone(library, live) => {
                Ok(library.perform(mac, act, when, live, &Actor::command())?)
            }
        }
    }

    pub(super) fn plan_edit(&self, mac: &MacAddr, edit: &Edit) -> Result<Plan> {
        match self {
            Reach::Server(control) => {
                let call = EditCall::of(edit, true);
                control.patch(&format!("/api/v1/clients/{mac}"), &call)
            }
            Reach::Alone(library, _) => Ok(library.plan_edit(mac, edit)?),
        }
    }

    pub(super) fn edit(&self, mac: &MacAddr, edit: &Edit) -> Result<Done> {
        match self {
            Reach::Server(control) => {
                let call = EditCall::of(edit, false);
                control.patch(&format!("/api/v1/clients/{mac}"), &call)
            }
            Reach::Alone(library, live) => {
                Ok(library.edit_client(mac, edit, live, &Actor::command())?)
            }
        }
    }

    pub(super) fn plan_remove(&self, mac: &MacAddr, how: Removing) -> Result<Plan> {
        match self {
            Reach::Server(control) => {
                control.delete(&format!("/api/v1/clients/{mac}"), &remove_call(how, true))
            }
            Reach::Alone(library, live) => Ok(library.plan_remove(mac, how, live)?),
        }
    }

    pub(super) fn remove(&self, mac: &MacAddr, how: Removing) -> Result<Done> {
        match self {
            Reach::Server(control) => {
                control.delete(&format!("/api/v1/clients/{mac}"), &remove_call(how, false))
            }
            Reach::Alone(library, live) => {
                Ok(library.remove_client(mac, how, live, &Actor::command())?)
            }
        }
    }

    /// An image's versions, what they take and who uses them. For looking, so it takes no lock: where
    /// no server runs, nobody has a session.
    pub(super) fn image_view(cli: &Cli, name: &ImageName) -> Result<ImageView> {
        // Who may not talk to the server may still read what the library shows to everybody.
        match Control::running(&cli.library) {
            Ok(Some(control)) => control.get(&format!("/api/v1/images/{name}")),
            _ => Ok(super::open(cli)?.image_view(name, &[])?),
        }
    }

    pub(super) fn plan_image_removal(&self, spec: &VersionSpec, when: When) -> Result<Removal> {
        match self {
            Reach::Server(control) => {
                let call = RemoveImageCall {
                    when,
                    shown: None,
                    dry_run: true,
                };
                control.delete(&format!("/api/v1/images/{spec}"), &call)
            }
            Reach::Alone(library, live) => Ok(library.plan_removal(spec, when, live)?),
        }
    }

    /// `shown` is what somebody agreed to.
    pub(super) fn remove_image(
        &self,
        spec: &VersionSpec,
        when: When,
        shown: Vec<VersionId>,
    ) -> Result<Removal> {
        match self {
            Reach::Server(control) => {
                let call = RemoveImageCall {
                    when,
                    shown: Some(shown),
                    dry_run: false,
                };
                control.delete(&format!("/api/v1/images/{spec}"), &call)
            }
            Reach::Alone(library, live) => {
                Ok(library.remove_shown(spec, when, Some(&shown), live, &Actor::command())?)
            }
        }
    }

    pub(super) fn plan_rollback(&self, spec: &VersionSpec) -> Result<Rollback> {
        match self {
            Reach::Server(control) => control.post(
                &format!("/api/v1/images/{spec}/rollback"),
                &RollbackCall { dry_run: true },
            ),
            Reach::Alone(library, _) => Ok(library.plan_rollback(spec)?),
        }
    }

    pub(super) fn roll_back(&self, spec: &VersionSpec) -> Result<Rollback> {
        match self {
            Reach::Server(control) => control.post(
                &format!("/api/v1/images/{spec}/rollback"),
                &RollbackCall { dry_run: false },
            ),
            Reach::Alone(library, _) => Ok(library.roll_back(spec, &Actor::command())?),
        }
    }

    pub(super) fn plan_prune(
        &self,
        image: Option<&ImageName>,
        keep: NonZeroU32,
    ) -> Result<Pruning> {
        match self {
            Reach::Server(control) => control.post("/api/v1/prune", &prune_call(image, keep, None)),
            Reach::Alone(library, live) => Ok(library.plan_prune(image, keep, live)?),
        }
    }

    /// `shown` is what somebody agreed to.
    pub(super) fn prune(
        &self,
        image: Option<&ImageName>,
        keep: NonZeroU32,
        shown: Vec<VersionId>,
    ) -> Result<Pruning> {
        match self {
            Reach::Server(control) => {
                control.post("/api/v1/prune", &prune_call(image, keep, Some(shown)))
            }
            Reach::Alone(library, live) => {
                let by = Actor::command();
                Ok(library.prune_shown(image, keep, Some(&shown), live, &by)?)
            }
        }
    }

    pub(super) fn published(&self) -> Result<Vec<Published>> {
        match self {
            Reach::Server(control) => control.get("/api/v1/targets"),
            Reach::Alone(library, _) => Ok(library.published()?),
        }
    }

    /// Nobody is connected where no server runs.
    pub(super) fn sessions(&self) -> Result<Vec<SessionRow>> {
        match self {
            Reach::Server(control) => control.get("/api/v1/sessions"),
            Reach::Alone(..) => Ok(Vec::new()),
        }
    }

    pub(super) fn kick(&self, id: u64) -> Result<SessionRow> {
        match self {
            Reach::Server(control) => control.delete(&format!("/api/v1/sessions/{id}"), &()),
            Reach::Alone(..) => bail!("there is no session {id}: no server runs on this library"),
        }
    }
}

fn remove_call(how: Removing, dry_run: bool) -> RemoveCall {
    let Removing { when, purge } = how;
    RemoveCall {
        when,
        purge,
        dry_run,
    }
}

/// Nothing was shown before somebody looks: that is a dry run.
fn prune_call(
    image: Option<&ImageName>,
    keep: NonZeroU32,
    shown: Option<Vec<VersionId>>,
) -> PruneCall {
    PruneCall {
        image: image.cloned(),
        keep,
        dry_run: shown.is_none(),
        shown,
    }
}
