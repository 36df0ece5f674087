//! Groups, and tables of clients.

use anyhow::Result;

use super::Reach;
use crate::library::{Actor, Done, GroupEdit, GroupName, GroupPlan, GroupView, Import, Plan};
use crate::web::calls::{EditGroupCall, ImportCall, RemoveGroupCall};

const GROUPS: &str = "/api/v1/groups";
const IMPORT: &str = "/api/v1/import";

impl Reach {
    pub(in crate::cli) fn groups(&self) -> Result<Vec<GroupView>> {
        match self {
            Reach::Server(control) => control.get(GROUPS),
            Reach::Alone(library, _) => Ok(library.groups()?),
        }
    }

    pub(in crate::cli) fn group(&self, name: &GroupName) -> Result<GroupView> {
        match self {
            Reach::Server(control) => control.get(&at(name)),
            Reach::Alone(library, _) => Ok(library.group_view(name)?),
        }
    }

    pub(in crate::cli) fn plan_edit_group(
        &self,
        name: &GroupName,
        edit: &GroupEdit,
    ) -> Result<GroupPlan> {
        match self {
            Reach::Server(control) => control.patch(&at(name), &EditGroupCall::of(edit, true)),
            Reach::Alone(library, _) => Ok(library.plan_edit_group(name, edit)?),
        }
    }

    pub(in crate::cli) fn edit_group(
        &self,
        name: &GroupName,
        edit: &GroupEdit,
    ) -> Result<GroupView> {
        match self {
            Reach::Server(control) => control.patch(&at(name), &EditGroupCall::of(edit, false)),
            Reach::Alone(library, _) => Ok(library.edit_group(name, edit, &Actor::command())?),
        }
    }

    pub(in crate::cli) fn plan_remove_group(&self, name: &GroupName) -> Result<GroupPlan> {
        match self {
            Reach::Server(control) => control.delete(&at(name), &RemoveGroupCall { dry_run: true }),
            Reach::Alone(library, _) => Ok(library.plan_remove_group(name)?),
        }
    }

    pub(in crate::cli) fn remove_group(&self, name: &GroupName) -> Result<GroupPlan> {
        match self {
            Reach::Server(control) => {
                control.delete(&at(name), &RemoveGroupCall { dry_run: false })
            }
            Reach::Alone(library, live) => {
                Ok(library.remove_group(name, live, &Actor::command())?)
            }
        }
    }

    pub(in crate::cli) fn plan_import(&self, import: &Import) -> Result<Vec<Plan>> {
        match self {
            Reach::Server(control) => control.post(IMPORT, &ImportCall::of(import, true)),
            Reach::Alone(library, live) => Ok(library.plan_import_clients(import, live)?),
        }
    }

    pub(in crate::cli) fn import(&self, import: &Import) -> Result<Vec<Done>> {
        match self {
            Reach::Server(control) => control.post(IMPORT, &ImportCall::of(import, false)),
            Reach::Alone(library, live) => {
                Ok(library.import_clients(import, live, &Actor::command())?)
            }
        }
    }
}

fn at(name: &GroupName) -> String {
    format!("{GROUPS}/{name}")
}
