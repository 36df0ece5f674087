//! People's own disks, which they find at every machine where they log in.
//!
//! Such a disk is that of a client without a machine: its address is made up from who the person is. So
//! everything that can be done to a client's disk can be done to a person's, and the rules are the same:
//! its writer is one boot (rule 3), and whoever logs in at another machine fences the one that they left.
//!
//! How such a disk gets to a machine, and what is proved for it, is the machine's: it depends on the firmware
//! there, and a machine that has to prove a secret has to prove it whoever sits before it. What is on the
//! disk is the person's: its size and quota, its data disk, its identity.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use utoipa::ToSchema;

use super::accounts::User;
use super::boots::{BootId, BootTicket};
use super::clients::{Client, NewClient, SaidBy, Settings, Way};
use super::error::{Error, Result};
use super::events::Actor;
use super::live::Live;
use super::names::{ClientName, ImageName, Mode, UserName};
use super::proofs::{ChapBy, Switch};
use super::{Library, MacAddr};

/// Whose disk it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Person {
    /// The user.
    pub user: UserName,
    /// Since when they are one: who has the same name later is somebody else.
    pub added: Timestamp,
}

impl Library {
    /// The client that has a person's disk. At their first login it is made, in mode persistent, of what
    /// the machine is assigned to that they log in at.
    pub fn client_of_person(
        &self,
        user: &User,
        machine: &Client,
        live: &dyn Live,
        actor: &Actor,
    ) -> Result<Client> {
        let person = Person::of(user);
        let has_it = |client: &Client| client.person.as_ref() == Some(&person);
        if let Some(client) = self.clients()?.into_iter().find(has_it) {
            return Ok(client);
        }
        let mac = person.address()?;
        let new = NewClient {
            mac,
            name: Some(self.name_for(&person, &mac)?),
            image: machine.image.clone(),
            mode: Mode::Persistent,
            args: Vec::new(),
            groups: Default::default(),
            settings: Settings::default(),
        };
        match self.add_client_for(&new, Some(person.clone()), live, actor) {
            Ok(done) => self.client(&done.plan.mac),
            // They were logging in at two machines at once.
            Err(Error::Exists { .. }) => {
                self.client(&mac).and_then(|client| match has_it(&client) {
                    true => Ok(client),
                    false => Err(Error::Exists {
                        kind: "client",
                        name: format!(
                            "{mac} ({}), the address made for {}",
                            client.name, user.name
                        ),
                    }),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// The client whose machine has this address. A person's disk has no machine: the address that is
    /// made up for it stands on the kernel line wherever they boot, and is no way to have it without
    /// their password.
    pub fn machine(&self, mac: &MacAddr) -> Result<Client> {
        let client = self.client(mac)?;
        match client.person {
            None => Ok(client),
            Some(_) => Err(Error::unknown("client", mac)),
        }
    }

    /// Makes the ticket for a script that boots a person's disk at a machine. Nothing is written.
    pub fn issue_boot_at(&self, person: &Client, machine: &Client) -> Result<BootTicket> {
        let mut ticket =
            self.issue_boot_by(person, |image| self.settings_at(person, machine, image))?;
        // What a machine is told about itself (its console, its room's screens) belongs to it and not to
        // who sits there. What a group says that both are in stands there already.
        for name in machine.groups.difference(&person.groups) {
            ticket.args.extend(self.group(name)?.args);
        }
        ticket.args.extend(machine.args.iter().cloned());
        let what = format!("booting {} at {}", person.name, machine.name);
        self.ensure_args(&ticket.args, &what)?;
        Ok(ticket)
    }

    /// What tells that a boot of a person's disk was issued at the machine with this address. It is as
    /// secret as what it is asked for, and on no kernel line.
    pub fn place_of_boot(
        &self,
        person: &MacAddr,
        boot: &BootId,
        machine: &MacAddr,
    ) -> Result<String> {
        self.derived(person, boot, &format!("at {}", machine.bare()))
    }

    /// The client with a person's disk, for who can tell that this boot of it was issued at a machine.
    pub fn person_at(
        &self,
        (mac, boot): (&MacAddr, &BootId),
        machine: &Client,
        place: &str,
    ) -> Result<Client> {
        let told = self.place_of_boot(mac, boot, &machine.mac)?;
        match bool::from(told.as_bytes().ct_eq(place.as_bytes())) {
            true => self.client(mac),
            false => Err(Error::unknown("client", mac)),
        }
    }

    /// What a person's disk of this image goes by at a machine. How it boots there and what it proves is
    /// said of the machine; what is said of the person or of the image may ask for more and never for less.
    fn settings_at(
        &self,
        person: &Client,
        machine: &Client,
        image: &ImageName,
    ) -> Result<Settings> {
        let own = self.said_of_person(person, image)?;
        let there = self.settings(machine)?;
        let is_ibft = [own.way, there.way].contains(&Some(Way::Ibft));
        let is_mutual = [own.mutual, there.mutual].contains(&Some(Switch::On));
        Ok(Settings {
            way: is_ibft.then_some(Way::Ibft).or(there.way),
            chap: own.chap.max(Some(there.chap.unwrap_or_default())),
            mutual: is_mutual.then_some(Switch::On),
            ..self.settings(person)?
        })
    }

    /// What is said of a person's disk itself, of its groups or of its image, and not of all clients, of how
    /// it boots and what it proves. Who says nothing asks for no proof.
    pub(super) fn said_of_person(&self, person: &Client, image: &ImageName) -> Result<Settings> {
        let said = self.sayings_booting(person, image)?.into_iter();
        let own = said.filter(|(by, _)| !matches!(by, SaidBy::Everybody | SaidBy::Nobody));
        let own = own.fold(Settings::default(), |near, (_, next)| near.or(&next));
        Ok(Settings {
            chap: Some(own.chap.unwrap_or(ChapBy::Off)),
            ..own
        })
    }

    /// `person-anna`; by the address where that is too long, or somebody's.
    fn name_for(&self, person: &Person, mac: &MacAddr) -> Result<ClientName> {
        let by_name = format!("person-{}", person.user).parse::<ClientName>().ok();
        let taken = self.clients()?;
        let free = by_name.filter(|name| taken.iter().all(|client| client.name != *name));
        match free {
            Some(name) => Ok(name),
            None => Ok(format!("person-{}", mac.bare()).parse()?),
        }
    }
}

impl Person {
    fn of(user: &User) -> Self {
        Person {
            user: user.name.clone(),
            added: user.added,
        }
    }

    /// An address that no maker gives to a machine (IEEE 802-2014 8.2.2: locally administered).
    fn address(&self) -> Result<MacAddr> {
        let Person { user, added } = self;
        let hash = Sha256::digest(format!("person|{user}|{added}"));
        let mut bytes = [0; 6];
        bytes.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        let [first, ..] = &mut bytes;
        *first = (*first & !0b11) | 0b10;
        Ok(MacAddr::new(bytes)?)
    }
}
