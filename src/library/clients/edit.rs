//! Adding and describing clients.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::change::{DiskChange, Old};
use super::{Assignment, Client, Done, Plan, Ready, Settings, SettingsEdit, Step};
use crate::library::document;
use crate::library::error::{Error, Result, chain};
use crate::library::events::{Actor, Event};
use crate::library::live::Live;
use crate::library::lock::WriteLock;
use crate::library::names::{ClientName, GroupName, KernelArg, Mode, VersionSpec};
use crate::library::{Edition, Library, MacAddr, Person, minute, now_millis};

/// A client that is to be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewClient {
    /// Its address.
    pub mac: MacAddr,
    /// Its name; made from the address if not given.
    pub name: Option<ClientName>,
    /// What it boots.
    pub image: VersionSpec,
    /// What its disk is.
    pub mode: Mode,
    /// Kernel arguments of its own.
    #[serde(default)]
    pub args: Vec<KernelArg>,
    /// The groups that it belongs to.
    #[serde(default)]
    pub groups: BTreeSet<GroupName>,
    /// What it is told besides.
    #[serde(default)]
    pub settings: Settings,
}

/// What is to be changed of a client's description; what is not named stays. No disk is at stake.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Edit {
    /// Its name.
    pub name: Option<ClientName>,
    /// All kernel arguments of its own.
    pub args: Option<Vec<KernelArg>>,
    /// All its groups.
    pub groups: Option<BTreeSet<GroupName>>,
    /// All its further addresses.
    pub more_macs: Option<BTreeSet<MacAddr>>,
    /// Its own settings.
    pub settings: SettingsEdit,
    /// Another machine-id and other SSH host keys from its next boot on: whoever knows the old ones is told
    /// that it is another machine.
    pub new_identity: bool,
}

impl Library {
    /// What `add_client` would do, or why it would be refused.
    pub fn plan_add(&self, new: &NewClient) -> Result<Plan> {
        self.plan_add_with(new, &Edit::default())
    }

    /// The same, where `more` is changed at once.
    pub(super) fn plan_add_with(&self, new: &NewClient, more: &Edit) -> Result<Plan> {
        let client = edited(&blank(new)?, more)?;
        self.check_unique(&client)?;
        let version = self.resolve(&new.image)?;
        let what = format!("adding client {}", client.name);
        client.settings.ensure_possible(&what)?;
        version.ensure_mode(new.mode, || what.clone())?;
        let settings = self.settings_booting(&client, &new.image.image)?;
        version.ensure_way(settings.way.unwrap_or_default(), &what)?;
        self.ensure_line(&client, &what)?;
        let mut steps = vec![Step::Edit {
            what: format!(
                "add client {}, {}, for {}",
                client.name,
                client.mac,
                client.assignment()
            ),
        }];
        if new.mode.has_clone() {
            steps.push(Step::Clone {
                from: version.id().clone(),
            });
        }
        if let Some(gone) = self.removed_of(&new.mac)? {
            let kept = gone.client.kept_disks().count();
            let data = match self.has_data(&new.mac) {
                true => " and its data disk",
                false => "",
            };
            steps.push(Step::Edit {
                what: format!(
                    "give it back what was kept since {}, when {} was removed: {kept} disk(s){data}; \
                     `client restore` brings one into its place",
                    minute(gone.at),
                    gone.client.name
                ),
            });
        }
        let mut plan = plan(&client, "add", steps);
        plan.warnings.extend(version.caution(new.mode));
        Ok(plan)
    }

    /// Adds a client, and makes its clone at once where its mode has one.
    pub fn add_client(&self, new: &NewClient, live: &dyn Live, actor: &Actor) -> Result<Done> {
        self.add_client_for(new, None, live, actor)
    }

    /// The same, for the disk of a person.
    pub(crate) fn add_client_for(
        &self,
        new: &NewClient,
        person: Option<Person>,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<Done> {
        let lock = self.write_lock()?;
        self.finish_pending(&lock, &new.mac)?;
        let plan = self.plan_add(new)?;
        let mut client = Client {
            person,
            ..blank(new)?
        };
        if let Some(gone) = self.removed_of(&new.mac)? {
            (client.discarded, client.snapshots) = (gone.client.discarded, gone.client.snapshots);
        }
        let version = self.resolve(&new.image)?.id().clone();
        let disk = if new.mode.has_clone() {
            DiskChange::Fresh(Old::Dropped)
        } else {
            DiskChange::Stays
        };
        let ready = Ready {
            assignment: client.assignment(),
            disk,
            fixed: None,
        };
        let made = self.make_for(&lock, &client, &ready, Some(&version), None)?;
        let client = self.become_ready(&lock, &client, &ready, made, |_| ())?;
        self.forget_stranger(&lock, &client.mac);
        drop(lock);
        self.note(
            &Event::new(actor, "client-add")
                .of(&client.mac)
                .with("name", client.name.to_string())
                .with("image", client.image.to_string())
                .with("mode", client.mode.to_string()),
        );
        Ok(Done {
            plan,
            client: Some(self.view(client, live)?),
        })
    }

    /// What `edit_client` would do, or why it would be refused.
    pub fn plan_edit(&self, mac: &MacAddr, edit: &Edit) -> Result<Plan> {
        let client = self.client(mac)?;
        let after = edited(&client, edit)?;
        self.check_unique(&after)?;
        let what = format!("changing client {}", client.name);
        after.settings.ensure_possible(&what)?;
        self.ensure_line(&after, &what)?;
        let settings = self.settings_booting(&after, &after.image.image)?;
        // What it is assigned to may be gone: that is told when it boots, and mended by an assignment.
        if let Ok(version) = self.resolve(&after.image) {
            version.ensure_way(settings.way.unwrap_or_default(), &what)?;
        }
        let mut steps = Vec::new();
        let mut changed = |what: &str, from: String, to: String| {
            if from != to {
                steps.push(Step::Edit {
                    what: format!("set {what} to {} instead of {}", quoted(&to), quoted(&from)),
                });
            }
        };
        changed("name", client.name.to_string(), after.name.to_string());
        changed("kernel arguments", words(&client.args), words(&after.args));
        changed("groups", words(&client.groups), words(&after.groups));
        changed(
            "further addresses",
            words(&client.more_macs),
            words(&after.more_macs),
        );
        for ((what, from), (_, to)) in client
            .settings
            .words()
            .into_iter()
            .zip(after.settings.words())
        {
            changed(what, from, to);
        }
        if edit.new_identity {
            steps.push(Step::Edit {
                what: String::from("draw another machine-id and other SSH host keys"),
            });
        }
        let mut plan = plan(&client, "set", steps);
        plan.warnings
            .extend(self.data_caution(&client, &self.settings(&client)?, &settings)?);
        Ok(plan)
    }

    /// Changes a client's description; what it runs is not disturbed.
    pub fn edit_client(
        &self,
        mac: &MacAddr,
        edit: &Edit,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<Done> {
        self.edit_client_on(mac, None, edit, live, actor)
    }

    /// The same, unless the client is not what it was in `edition`.
    pub fn edit_client_on(
        &self,
        mac: &MacAddr,
        edition: Option<&Edition>,
        edit: &Edit,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<Done> {
        let lock = self.write_lock()?;
        self.edit_client_under(lock, mac, edition, edit, live, actor)
    }

    /// The same, for whoever has looked at it under the lock.
    pub(crate) fn edit_client_under(
        &self,
        lock: WriteLock,
        mac: &MacAddr,
        edition: Option<&Edition>,
        edit: &Edit,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<Done> {
        let before = self.client_to_change(&lock, mac)?;
        before.ensure_edition(edition)?;
        let plan = self.plan_edit(mac, edit)?;
        let mut client = edited(&before, edit)?;
        // Before it is written down: what cannot be made so large is not asked for.
        self.grow_data(&lock, &client)?;
        document::write(&lock, &self.places().client(&client.mac), &mut client)?;
        // Last, for the old one does not come back: a change that fails has not cost it.
        let renewed = match edit.new_identity {
            true => self.renew_identity(&lock, &client.mac),
            false => Ok(()),
        };
        drop(lock);
        // Larger disks and other quotas hold at once.
        self.tell_open(&client, live)?;
        let steps: Vec<String> = plan.steps.iter().map(Step::to_string).collect();
        let event = Event::new(actor, "client-set").of(&client.mac);
        let event = event.with("steps", steps);
        if let Err(error) = renewed {
            let why = format!(
                "all but the identity, which may be the old one: {}",
                chain(&error)
            );
            self.note(&event.with("failed", why.clone()));
            let what = format!("changing {}", client.name);
            return Err(Error::refused(what, why, "mend that, and draw it again"));
        }
        self.note(&event);
        Ok(Done {
            plan,
            client: Some(self.view(client, live)?),
        })
    }

    /// Two clients never share a name or an address.
    fn check_unique(&self, client: &Client) -> Result<()> {
        for other in self
            .clients()?
            .iter()
            .filter(|other| other.mac != client.mac || client.revision == 0)
        {
            let taken = std::iter::once(&client.mac)
                .chain(&client.more_macs)
                .find(|mac| other.has_mac(mac));
            if let Some(mac) = taken {
                return Err(Error::Exists {
                    kind: "client",
                    name: format!("{mac} ({})", other.name),
                });
            }
            if other.name == client.name {
                return Err(Error::Exists {
                    kind: "client",
                    name: client.name.to_string(),
                });
            }
        }
        Ok(())
    }
}

/// A value, or the word that there is none.
pub(crate) fn quoted(value: &str) -> String {
    match value {
        "" => String::from("nothing"),
        value => format!("`{value}`"),
    }
}

fn blank(new: &NewClient) -> Result<Client> {
    let name = match &new.name {
        Some(name) => name.clone(),
        None => format!("client-{}", new.mac.bare()).parse()?,
    };
    let Assignment { image, mode } = Assignment {
        image: new.image.clone(),
        mode: new.mode,
    };
    Ok(Client {
        revision: 0,
        mac: new.mac,
        more_macs: BTreeSet::new(),
        name,
        groups: new.groups.clone(),
        image,
        mode,
        args: new.args.clone(),
        settings: new.settings.clone(),
        clone: None,
        discarded: Vec::new(),
        snapshots: Vec::new(),
        before: None,
        boot: None,
        // A machine of this address may still run a boot of a client that was removed.
        oldest: now_millis(),
        armed: None,
        rollout: None,
        person: None,
        added: Timestamp::now(),
    })
}

fn edited(client: &Client, edit: &Edit) -> Result<Client> {
    let mut after = client.clone();
    fn set<T: Clone>(to: &mut T, from: &Option<T>) {
        if let Some(from) = from {
            *to = from.clone();
        }
    }
    set(&mut after.name, &edit.name);
    set(&mut after.args, &edit.args);
    set(&mut after.groups, &edit.groups);
    set(&mut after.more_macs, &edit.more_macs);
    after.settings = client.settings.edited(&edit.settings);
    after.more_macs.remove(&after.mac);
    Ok(after)
}

pub(super) fn plan(client: &Client, what: &str, steps: Vec<Step>) -> Plan {
    Plan {
        client: client.name.clone(),
        mac: client.mac,
        what: what.to_owned(),
        steps,
        loses: None,
        nothing: None,
        warnings: Vec::new(),
    }
}

pub(crate) fn words<T: ToString>(list: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = list.into_iter().map(|word| word.to_string()).collect();
    words.join(" ")
}
