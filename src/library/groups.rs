//! Groups: what their members inherit.
//!
//! A client says which groups it is in; a group has a document only where something is said for all of
//! its members.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::clients::{
    Assignment, Client, Edit, SaidBy, Saying, Sayings, Settings, SettingsEdit, Way, quoted, said,
    words,
};
use super::document::{self, Document};
use super::edition::Edition;
use super::error::{Error, Result, chain};
use super::events::{Actor, Event};
use super::live::Live;
use super::names::{ClientName, GroupName, ImageName, KernelArg, Mode, VersionSpec};
use super::{Library, kernel_line};

/// A group's document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// Counts the changes of the document.
    pub revision: u64,
    /// Its name.
    pub name: GroupName,
    /// Kernel arguments of its members, after everybody's and before their own.
    #[serde(default, deserialize_with = "kernel_line::kept")]
    pub args: Vec<KernelArg>,
    /// What a client boots that is added to the group and says nothing itself.
    #[serde(default)]
    pub image: Option<VersionSpec>,
    /// What its disk is, likewise.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// What they inherit where they say nothing themselves.
    #[serde(default)]
    pub settings: Settings,
}

/// What a person is shown of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupView {
    /// The document.
    #[serde(flatten)]
    pub group: Group,
    /// The clients in it, by name.
    pub members: Vec<ClientName>,
}

/// What becomes of what is said for a group; what is left out stays, and null says nothing any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GroupEdit {
    /// All kernel arguments of its members.
    pub args: Option<Vec<KernelArg>>,
    /// What clients boot that are added to it.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<VersionSpec>)]
    pub image: Option<Option<VersionSpec>>,
    /// What their disk is.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Mode>)]
    pub mode: Option<Option<Mode>>,
    /// What its members inherit.
    pub settings: SettingsEdit,
}

/// What an act on a group would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupPlan {
    /// The group.
    pub group: GroupName,
    /// What it takes, in order. Empty: nothing changes.
    pub steps: Vec<String>,
    /// What a person should know besides.
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl Document for Group {
    fn revision(&mut self) -> &mut u64 {
        &mut self.revision
    }
}

/// What a group says, for those who ask what would be.
type Says<'a> = &'a dyn Fn(&GroupName) -> Result<Group>;

impl Library {
    /// What is said for a group; nothing, where it has no document.
    pub fn group(&self, name: &GroupName) -> Result<Group> {
        let known: Option<Group> = document::read(&self.group_place(name))?;
        Ok(known.unwrap_or_else(|| Group::empty(name)))
    }

    /// All groups that have members, or of which something is said, by name.
    pub fn groups(&self) -> Result<Vec<GroupView>> {
        let mut members: BTreeMap<GroupName, Vec<ClientName>> = BTreeMap::new();
        for name in document::names(&self.places().groups())? {
            // A file of another name is not ours.
            if let Ok(name) = name.parse() {
                members.insert(name, Vec::new());
            }
        }
        for client in self.shown_clients()?.iter() {
            for group in &client.groups {
                let members = members.entry(group.clone()).or_default();
                members.push(client.name.clone());
            }
        }
        let view = |(name, mut members): (GroupName, Vec<ClientName>)| {
            members.sort();
            let group = self.group(&name)?;
            Ok(GroupView { group, members })
        };
        members.into_iter().map(view).collect()
    }

    /// One group, which has members or something that is said of it.
    pub fn group_view(&self, name: &GroupName) -> Result<GroupView> {
        let mut groups = self.groups()?.into_iter();
        groups
            .find(|view| view.group.name == *name)
            .ok_or_else(|| Error::unknown("group", name))
    }

    /// What [`edit_group`](Self::edit_group) would do, or why it would be refused.
    pub fn plan_edit_group(&self, name: &GroupName, edit: &GroupEdit) -> Result<GroupPlan> {
        let before = self.group(name)?;
        let after = before.edited(edit);
        if let Some(image) = &after.image {
            let version = self.resolve(image)?;
            let mode = after.mode.unwrap_or(Mode::Shared);
            version.ensure_mode(mode, || format!("setting group {name}"))?;
        }
        let what = format!("setting group {name}");
        after.settings.ensure_possible(&what)?;
        self.ensure_for_members(&after, &what)?;
        let pairs = before.words().into_iter().zip(after.words());
        let changed = pairs.filter(|(from, to)| from != to);
        let steps = changed.map(|((what, from), (_, to))| {
            format!("set {what} to {} instead of {}", quoted(&to), quoted(&from))
        });
        Ok(GroupPlan {
            group: name.clone(),
            steps: steps.collect(),
            warnings: self.cautions_for_members(&before, &after)?,
        })
    }

    /// Says something for all members of a group, those of later too. A group of which nothing is said
    /// any more has no document.
    pub fn edit_group(
        &self,
        name: &GroupName,
        edit: &GroupEdit,
        actor: &Actor,
    ) -> Result<GroupView> {
        self.edit_group_on(name, None, edit, actor)
    }

    /// The same, unless what is said for the group is not what it was in `edition`.
    pub fn edit_group_on(
        &self,
        name: &GroupName,
        edition: Option<&Edition>,
        edit: &GroupEdit,
        actor: &Actor,
    ) -> Result<GroupView> {
        let dir = self.places().groups();
        self.make_dir(&dir)?;
        let lock = self.write_lock()?;
        let before = self.group(name)?;
        before.ensure_edition(edition)?;
        let plan = self.plan_edit_group(name, edit)?;
        let mut after = before.edited(edit);
        match after.says_nothing() {
            true => document::remove(&lock, &self.group_place(name))?,
            false if plan.steps.is_empty() => {}
            false => document::write(&lock, &self.group_place(name), &mut after)?,
        }
        drop(lock);
        if !plan.steps.is_empty() {
            self.note(&group_event("group-set", name, actor).with("steps", plan.steps));
        }
        let members = self.members_of(name)?;
        let mut members: Vec<ClientName> = members.into_iter().map(|one| one.name).collect();
        members.sort();
        Ok(GroupView {
            group: self.group(name)?,
            members,
        })
    }

    /// What [`remove_group`](Self::remove_group) would do.
    pub fn plan_remove_group(&self, name: &GroupName) -> Result<GroupPlan> {
        let (view, after) = (self.group_view(name)?, Group::empty(name));
        self.ensure_for_members(&after, &format!("removing group {name}"))?;
        let mut steps = Vec::new();
        if !view.group.says_nothing() {
            steps.push("forget what is said for its members, at their next boot".to_owned());
        }
        steps.extend(view.members.iter().map(taking_out));
        Ok(GroupPlan {
            group: name.clone(),
            steps,
            warnings: self.cautions_for_members(&view.group, &after)?,
        })
    }

    /// Forgets a group: what is said for it, and who is in it. Tells what was done: more than was planned,
    /// where somebody has joined it meanwhile.
    pub fn remove_group(
        &self,
        name: &GroupName,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<GroupPlan> {
        self.remove_group_on(name, None, live, actor)
    }

    /// The same, unless what is said for the group is not what it was in `edition`.
    pub fn remove_group_on(
        &self,
        name: &GroupName,
        edition: Option<&Edition>,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<GroupPlan> {
        let mut plan = self.plan_remove_group(name)?;
        let mut out = Vec::new();
        let removed = self.take_out_and_forget(name, edition, &mut out, live, actor);
        // Who has joined since the plan was made.
        for step in out.iter().map(taking_out) {
            if !plan.steps.contains(&step) {
                plan.steps.push(step);
            }
        }
        let event = match &removed {
            Err(_) if out.is_empty() => return removed.map(|()| plan),
            Err(error) => group_event("group-remove-failed", name, actor)
                .with("out", written(&out))
                .with("why", chain(error)),
            Ok(()) => group_event("group-remove", name, actor).with("steps", plan.steps.clone()),
        };
        self.note(&event);
        removed.map(|()| plan)
    }

    /// Each member is looked at under the lock under which it is taken out, and the group once more with
    /// it: people go on changing both. Who was taken `out` is told though it fails later.
    fn take_out_and_forget(
        &self,
        name: &GroupName,
        edition: Option<&Edition>,
        out: &mut Vec<ClientName>,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<()> {
        // What is said for it goes last: whoever is still in it when something fails goes by it.
        let lock = loop {
            let lock = self.write_lock()?;
            match self.group(name)?.ensure_edition(edition) {
                Err(Error::Moved { .. }) if !out.is_empty() => {
                    return Err(Error::refused(
                        format!("removing group {name}"),
                        format!(
                            "somebody said something else for it when {} had been taken out of it",
                            written(out).join(", ")
                        ),
                        "look again and repeat",
                    ));
                }
                seen => seen?,
            }
            let Some(client) = self.members_of(name)?.into_iter().next() else {
                break lock;
            };
            let mut groups = client.groups.clone();
            groups.remove(name);
            let edit = Edit {
                groups: Some(groups),
                ..Edit::default()
            };
            let edition = client.edition();
            self.edit_client_under(lock, &client.mac, Some(&edition), &edit, live, actor)?;
            out.push(client.name.clone());
        };
        document::remove(&lock, &self.group_place(name))
    }

    /// What a new client of these groups is assigned to: what is said for it, then what its groups say,
    /// by their names.
    pub fn assignment_for(
        &self,
        image: Option<VersionSpec>,
        mode: Option<Mode>,
        groups: &BTreeSet<GroupName>,
    ) -> Result<Assignment> {
        let (mut image, mut mode) = (image, mode);
        for name in groups {
            let group = self.group(name)?;
            image = image.or(group.image);
            mode = mode.or(group.mode);
        }
        // Whether that is enough depends on what groups say at the moment: no mistake of form.
        let image = image.ok_or_else(|| {
            Error::refused(
                "adding a client",
                "neither it nor one of its groups says which image it boots",
                "name one (--image), or give its group one: netroot group set NAME --image IMAGE",
            )
        })?;
        Ok(Assignment {
            image,
            mode: mode.unwrap_or(Mode::Shared),
        })
    }

    /// Refuses what a member could not boot with; `what` is being done.
    fn ensure_for_members(&self, group: &Group, what: &str) -> Result<()> {
        let says = |name: &GroupName| self.group_where(name, group);
        for client in self.members_of(&group.name)? {
            let what = format!("{what}, which client {} is in", client.name);
            let image = self.said_of_image(&client.image.image)?;
            let settings = self.settings_by(&client, &says, Some(image))?;
            let mut args = self.kernel_args_by(&client, &says)?;
            args.extend(self.data_arg(&client, &settings)?);
            if let Err(why) = kernel_line::fits(&self.config(), &args) {
                return Err(Error::refused(what, why, "give it fewer"));
            }
            // What it is assigned to may be gone: that is told when it boots.
            if let Ok(version) = self.resolve(&client.image) {
                version.ensure_way(settings.way.unwrap_or_default(), &what)?;
            }
        }
        Ok(())
    }

    /// What members should know whose settings are other ones with `after`.
    fn cautions_for_members(&self, before: &Group, after: &Group) -> Result<Vec<String>> {
        let mut cautions = Vec::new();
        for client in self.members_of(&after.name)? {
            let settings = |group: &Group| {
                self.settings_by(&client, &|name| self.group_where(name, group), None)
            };
            cautions.extend(self.data_caution(&client, &settings(before)?, &settings(after)?)?);
        }
        Ok(cautions)
    }

    /// A group where one of them is as given.
    fn group_where(&self, name: &GroupName, one: &Group) -> Result<Group> {
        match *name == one.name {
            true => Ok(one.clone()),
            false => self.group(name),
        }
    }

    fn members_of(&self, name: &GroupName) -> Result<Vec<Client>> {
        let mut clients = self.clients()?;
        clients.retain(|client| client.groups.contains(name));
        Ok(clients)
    }

    /// The settings that a client goes by whatever it boots: its own, then those of its groups by their
    /// names, then everybody's. Which way it boots depends on the image, too.
    pub fn settings(&self, client: &Client) -> Result<Settings> {
        self.settings_by(client, &|name| self.group(name), None)
    }

    /// The same where it boots this image, which has its say between its groups and everybody.
    pub fn settings_booting(&self, client: &Client, image: &ImageName) -> Result<Settings> {
        self.settings_where(client, self.said_of_image(image)?)
    }

    /// The way of a client's next boot, where its disk does not boot itself.
    pub fn next_way(&self, client: &Client) -> Result<Way> {
        let settings = self.settings_booting(client, &client.next_image())?;
        Ok(settings.way.unwrap_or_default())
    }

    /// The same where an image says this.
    pub(super) fn settings_where(&self, client: &Client, image: Saying) -> Result<Settings> {
        self.settings_by(client, &|name| self.group(name), Some(image))
    }

    fn settings_by(
        &self,
        client: &Client,
        group: Says<'_>,
        image: Option<Saying>,
    ) -> Result<Settings> {
        let said = self.said_by(client, group, image)?;
        let nothing = Settings::default();
        Ok(said.iter().fold(nothing, |near, (_, next)| near.or(next)))
    }

    /// Who says what of a client's next boot, the nearest first.
    pub fn sayings(&self, client: &Client) -> Result<Sayings> {
        self.sayings_booting(client, &client.next_image())
    }

    /// The same of a boot of this image.
    pub(super) fn sayings_booting(&self, client: &Client, image: &ImageName) -> Result<Sayings> {
        let image = self.said_of_image(image)?;
        let mut said = self.said_by(client, &|name| self.group(name), Some(image))?;
        said.push((SaidBy::Nobody, self.usual_settings()));
        Ok(said)
    }

    /// Who says what of the members of a group, as far as they and their other groups say nothing.
    pub fn group_sayings(&self, group: &Group) -> Sayings {
        let own = SaidBy::Group(group.name.clone());
        vec![
            (own, group.settings.clone()),
            (SaidBy::Everybody, self.config().clients.clone()),
            (SaidBy::Nobody, self.usual_settings()),
        ]
    }

    fn said_by(&self, client: &Client, group: Says<'_>, image: Option<Saying>) -> Result<Sayings> {
        let mut said = vec![(SaidBy::Client, client.settings.clone())];
        for name in &client.groups {
            said.push((SaidBy::Group(name.clone()), group(name)?.settings));
        }
        said.extend(image);
        said.push((SaidBy::Everybody, self.config().clients.clone()));
        Ok(said)
    }

    /// The kernel arguments that a client is told: everybody's, those of its groups by their names, its
    /// own.
    pub fn kernel_args(&self, client: &Client) -> Result<Vec<KernelArg>> {
        self.kernel_args_by(client, &|name| self.group(name))
    }

    fn kernel_args_by(&self, client: &Client, group: Says<'_>) -> Result<Vec<KernelArg>> {
        let mut args = self.config().boot.kernel_args.clone();
        for name in &client.groups {
            args.extend(group(name)?.args);
        }
        args.extend(client.args.iter().cloned());
        Ok(args)
    }

    pub(super) fn group_place(&self, name: &GroupName) -> PathBuf {
        self.places().groups().join(format!("{name}.json"))
    }
}

impl Group {
    /// A group of which nothing is said.
    pub fn empty(name: &GroupName) -> Group {
        Group {
            revision: 0,
            name: name.clone(),
            args: Vec::new(),
            image: None,
            mode: None,
            settings: Settings::default(),
        }
    }

    /// Its edition: another one whenever somebody says something else for it. Who is in it is said of each
    /// client.
    pub fn edition(&self) -> Edition {
        Edition::of(&Group {
            revision: 0,
            ..self.clone()
        })
    }

    /// Refuses whoever has read another edition.
    pub fn ensure_edition(&self, wanted: Option<&Edition>) -> Result<()> {
        self.edition().ensure(wanted, "group", &self.name)
    }

    fn edited(&self, edit: &GroupEdit) -> Group {
        Group {
            args: edit.args.clone().unwrap_or_else(|| self.args.clone()),
            image: edit.image.clone().unwrap_or_else(|| self.image.clone()),
            mode: edit.mode.unwrap_or(self.mode),
            settings: self.settings.edited(&edit.settings),
            ..self.clone()
        }
    }

    /// Whether there is nothing that members inherit.
    pub fn says_nothing(&self) -> bool {
        self.words().iter().all(|(_, value)| value.is_empty())
    }

    /// Name and value of all that is said, for people. Empty where nothing is.
    pub fn words(&self) -> Vec<(&'static str, String)> {
        let text = |value: Option<String>| value.unwrap_or_default();
        let mut all = vec![
            ("image", text(self.image.as_ref().map(ToString::to_string))),
            ("mode", text(self.mode.map(|mode| mode.to_string()))),
            ("kernel arguments", words(&self.args)),
        ];
        all.extend(self.settings.words());
        all
    }
}

fn taking_out(member: &ClientName) -> String {
    format!("take {member} out of it")
}

fn written(names: &[ClientName]) -> Vec<String> {
    names.iter().map(ClientName::to_string).collect()
}

fn group_event(what: &str, name: &GroupName, actor: &Actor) -> Event {
    Event::new(actor, what).of(&format!("@{name}"))
}
