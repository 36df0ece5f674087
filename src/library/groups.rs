//! Groups: what their members inherit.
//!
//! A client says which groups it is in; a group has a document only where something is said for all of
//! its members.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Library;
use super::clients::{Client, Settings};
use super::document::{self, Document};
use super::error::Result;
use super::names::{GroupName, KernelArg};

/// A group's document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Group {
    /// Counts the changes of the document.
    pub revision: u64,
    /// Its name.
    pub name: GroupName,
    /// Kernel arguments of its members, after everybody's and before their own.
    #[serde(default)]
    pub args: Vec<KernelArg>,
    /// What they inherit where they say nothing themselves.
    #[serde(default)]
    pub settings: Settings,
}

impl Document for Group {
    fn revision(&mut self) -> &mut u64 {
        &mut self.revision
    }
}

impl Library {
    /// What is said for a group; nothing, where it has no document.
    pub fn group(&self, name: &GroupName) -> Result<Group> {
        let known: Option<Group> = document::read(&self.group_place(name))?;
        Ok(known.unwrap_or_else(|| Group {
            revision: 0,
            name: name.clone(),
            args: Vec::new(),
            settings: Settings::default(),
        }))
    }

    /// The settings that a client goes by: its own, then those of its groups by their names, then
    /// everybody's.
    pub fn settings(&self, client: &Client) -> Result<Settings> {
        let mut settings = client.settings.clone();
        for group in &client.groups {
            settings = settings.or(&self.group(group)?.settings);
        }
        Ok(settings.or(&self.config().clients))
    }

    /// The kernel arguments that a client is told: everybody's, those of its groups by their names, its
    /// own.
    pub fn kernel_args(&self, client: &Client) -> Result<Vec<KernelArg>> {
        let mut args = self.config().boot.kernel_args.clone();
        for group in &client.groups {
            args.extend(self.group(group)?.args);
        }
        args.extend(client.args.iter().cloned());
        Ok(args)
    }

    pub(super) fn group_place(&self, name: &GroupName) -> PathBuf {
        self.places().groups().join(format!("{name}.json"))
    }
}
