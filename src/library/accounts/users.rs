//! People with a password.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{password, secret};
use crate::library::document::{self, Document};
use crate::library::error::{Error, Result};
use crate::library::events::{Actor, Event};
use crate::library::lock::WriteLock;
use crate::library::names::{Role, UserName};
use crate::library::{Edition, Library};

/// How long a link waits for whom it was made for.
const LINK_HOLDS: SignedDuration = SignedDuration::from_hours(24);

/// A user's document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct User {
    revision: u64,
    /// What they are called.
    pub name: UserName,
    /// What they may do.
    pub role: Role,
    /// The argon2id hash of their password; nothing until they chose one.
    password: Option<String>,
    /// Drawn whenever the password changes: a login that began with another one is over. So is one of
    /// somebody else who had this name.
    pub stamp: String,
    /// The link that waits to be used.
    invitation: Option<Invited>,
    /// Since when they are a user.
    pub added: Timestamp,
    /// Who added them.
    pub by: Actor,
}

/// What is kept of a link.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Invited {
    /// SHA-256 of its key.
    hash: String,
    until: Timestamp,
    /// Who made it: whoever has it may use it in the user's place.
    by: Actor,
}

/// A user, without what only concerns them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UserView {
    /// What they are called.
    pub name: UserName,
    /// What they may do.
    pub role: Role,
    /// Whether they have chosen a password.
    pub has_password: bool,
    /// Until when a link waits by which they choose one.
    pub invited_until: Option<Timestamp>,
    /// Since when they are a user.
    pub added: Timestamp,
    /// Who added them.
    pub by: Actor,
}

/// Somebody who is to become a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// What they are called.
    pub name: UserName,
    /// What they may do.
    pub role: Role,
}

/// A link by which a user chooses a password, once.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Invitation {
    /// Whom it is for.
    pub user: UserView,
    /// What makes it theirs: shown this once, and not kept.
    pub key: String,
    /// Until when it may be used.
    pub until: Timestamp,
}

impl Document for User {
    fn revision(&mut self) -> &mut u64 {
        &mut self.revision
    }

    const PERMISSIONS: u32 = 0o600;
}

impl User {
    /// Without what only concerns them.
    pub fn view(&self) -> UserView {
        let waits = self.invitation.as_ref().map(|invited| invited.until);
        UserView {
            name: self.name.clone(),
            role: self.role,
            has_password: self.password.is_some(),
            invited_until: waits.filter(|until| *until > Timestamp::now()),
            added: self.added,
            by: self.by.clone(),
        }
    }

    /// Their edition: what operators decide about them.
    pub fn edition(&self) -> Edition {
        let invited = self.invitation.as_ref().map(|invited| invited.until);
        Edition::of(&(&self.added, &self.name, self.role, invited))
    }

    /// Refuses whoever has read another edition.
    pub(crate) fn ensure_edition(&self, wanted: Option<&Edition>) -> Result<()> {
        self.edition().ensure(wanted, "user", &self.name)
    }

    fn is_invited_by(&self, key: &str) -> bool {
        self.invitation.as_ref().is_some_and(|invited| {
            invited.until > Timestamp::now() && secret::is(key, &invited.hash)
        })
    }

    fn set_password(&mut self, hash: String) -> Result<()> {
        self.password = Some(hash);
        self.invitation = None;
        self.stamp = secret::drawn_id()?;
        Ok(())
    }
}

impl Library {
    /// All users, by name.
    pub fn users(&self) -> Result<Vec<User>> {
        let names = document::names(&self.places().users())?;
        let names = names.iter().filter_map(|name| name.parse().ok());
        let mut users = Vec::new();
        for name in names {
            users.extend(self.read_user(&name)?);
        }
        Ok(users)
    }

    /// A user.
    pub fn user(&self, name: &UserName) -> Result<User> {
        self.read_user(name)?
            .ok_or_else(|| Error::unknown("user", name))
    }

    /// A user as they are at this moment; nothing if there is none of this name. Quick: for whoever
    /// asks with every request.
    pub fn known_user(&self, name: &UserName) -> Result<Option<User>> {
        let user = self.users.read(name.clone(), &self.user_path(name))?;
        Ok(user.map(|user| User::clone(&user)))
    }

    /// What adding `new` would be refused for. The first user is the one who is added where there is
    /// none yet.
    pub fn check_add_user(&self, new: &NewUser, first: bool) -> Result<()> {
        let users = self.users()?;
        if let (true, Some(there)) = (first, users.first()) {
            return Err(Error::refused(
                format!("adding the first user {}", new.name),
                format!("{} is a user already", there.name),
                "add others with `netroot user add NAME --role ROLE`; `netroot user invite NAME` \
                 prints a new link for who forgot a password",
            ));
        }
        if users.iter().any(|user| user.name == new.name) {
            return Err(Error::Exists {
                kind: "user",
                name: new.name.to_string(),
            });
        }
        Ok(())
    }

    /// Adds a user, and returns the link by which they choose a password.
    pub fn add_user(&self, new: &NewUser, first: bool, actor: &Actor) -> Result<Invitation> {
        let lock = self.write_lock()?;
        self.ensure_operates(&format!("adding {}", new.name), actor)?;
        let mut user = self.new_user(new, first, actor)?;
        let key = invite(&mut user, actor)?;
        self.write_new_user(&lock, &mut user)?;
        drop(lock);
        self.note(
            &user
                .event("user-add", actor)
                .with("role", user.role.as_str()),
        );
        Ok(invitation(&user, key))
    }

    /// Adds a user who has a password at once.
    pub fn add_user_with_password(
        &self,
        new: &NewUser,
        first: bool,
        password: &str,
        actor: &Actor,
    ) -> Result<UserView> {
        // Before the lock: it takes its time.
        let hash = password::hash(password)?;
        let lock = self.write_lock()?;
        self.ensure_operates(&format!("adding {}", new.name), actor)?;
        let mut user = self.new_user(new, first, actor)?;
        user.set_password(hash)?;
        self.write_new_user(&lock, &mut user)?;
        drop(lock);
        self.note(
            &user
                .event("user-add", actor)
                .with("role", user.role.as_str()),
        );
        Ok(user.view())
    }

    /// What inviting a user would be refused for.
    pub fn check_invite_user(&self, name: &UserName) -> Result<()> {
        self.user(name).map(drop)
    }

    /// Makes a new link for a user; one that was made before is worth nothing any more. The old
    /// password holds until a new one is chosen.
    pub fn invite_user(&self, name: &UserName, actor: &Actor) -> Result<Invitation> {
        self.invite_user_on(name, None, actor)
    }

    /// The same, for whoever has read this edition of the user.
    pub fn invite_user_on(
        &self,
        name: &UserName,
        edition: Option<&Edition>,
        actor: &Actor,
    ) -> Result<Invitation> {
        let lock = self.write_lock()?;
        self.ensure_operates(&format!("inviting {name}"), actor)?;
        let mut user = self.user(name)?;
        user.ensure_edition(edition)?;
        let key = invite(&mut user, actor)?;
        self.write_user(&lock, &mut user)?;
        drop(lock);
        self.note(&user.event("user-invite", actor));
        Ok(invitation(&user, key))
    }

    /// Whom a link is for; nothing if it was used, is too old, or never was one.
    pub fn invited(&self, key: &str) -> Result<Option<UserView>> {
        let users = self.users()?;
        let whose = users.iter().find(|user| user.is_invited_by(key));
        Ok(whose.map(User::view))
    }

    /// Gives the user whom a link is for this password, and takes the link back. All their logins are
    /// over. Nothing if the link is worth nothing.
    pub fn redeem(&self, key: &str, password: &str, peer: &str) -> Result<Option<User>> {
        if self.invited(key)?.is_none() {
            return Ok(None);
        }
        let hash = password::hash(password)?;
        let lock = self.write_lock()?;
        // Somebody may have been quicker.
        let mut users = self.users()?.into_iter();
        let Some(mut user) = users.find(|user| user.is_invited_by(key)) else {
            return Ok(None);
        };
        let invited_by = user.invitation.as_ref().map(|link| link.by.to_string());
        user.set_password(hash)?;
        self.write_user(&lock, &mut user)?;
        drop(lock);
        let actor = Actor::User {
            name: user.name.to_string(),
            peer: peer.to_owned(),
        };
        let event = user.event("password-set", &actor).with("by-link", true);
        self.note(&event.with("invited-by", invited_by.unwrap_or_default()));
        Ok(Some(user))
    }

    /// Gives a user another password, if `old` is theirs. Their other logins are over: this one goes
    /// on with the stamp that is returned.
    pub fn change_password(
        &self,
        name: &UserName,
        old: &str,
        new: &str,
        actor: &Actor,
    ) -> Result<User> {
        let before = self.user(name)?;
        if !password::is(old, before.password.as_deref()) {
            return Err(Error::Invalid(
                "that is not your present password; nothing was changed".to_owned(),
            ));
        }
        let hash = password::hash(new)?;
        let lock = self.write_lock()?;
        let mut user = self.user(name)?;
        if user.stamp != before.stamp {
            return Err(Error::Moved {
                kind: "user",
                name: name.to_string(),
            });
        }
        user.set_password(hash)?;
        self.write_user(&lock, &mut user)?;
        drop(lock);
        self.note(&user.event("password-set", actor));
        Ok(user)
    }

    /// The user of this name and password. It takes as long for a name that nobody has. A hash is made
    /// of the password, which takes tens of megabytes for some ten milliseconds: the caller sees to it
    /// that few do this at a time.
    pub fn log_in(&self, name: &str, password: &str) -> Result<Option<User>> {
        let user = match name.parse() {
            Ok(name) => self.read_user(&name)?,
            Err(_) => None,
        };
        let kept = user.as_ref().and_then(|user| user.password.as_deref());
        let right = password::is(password, kept);
        Ok(user.filter(|_| right))
    }

    /// Writes down that somebody has logged in.
    pub fn note_login(&self, user: &User, actor: &Actor) {
        self.note(&user.event("login", actor));
    }

    /// Writes down that a login was ended, by its user.
    pub fn note_logout(&self, actor: &Actor) {
        self.note(&Event::new(actor, "logout"));
    }

    /// Writes down that a login was refused, unless that has just been told. `name` is what somebody
    /// typed.
    pub fn note_refused_login(&self, name: &str, peer: std::net::IpAddr) {
        let name: String = name.chars().take(64).collect();
        if self.refusals.is_news(peer, &name) {
            let actor = Actor::Client {
                initiator: String::new(),
                peer: peer.to_string(),
            };
            self.note(&Event::new(&actor, "login-refused").of(&name));
        }
    }

    pub(super) fn read_user(&self, name: &UserName) -> Result<Option<User>> {
        document::read(&self.user_path(name))
    }

    pub(super) fn user_path(&self, name: &UserName) -> PathBuf {
        self.places().users().join(format!("{name}.json"))
    }

    fn new_user(&self, new: &NewUser, first: bool, actor: &Actor) -> Result<User> {
        self.check_add_user(new, first)?;
        Ok(User {
            revision: 0,
            name: new.name.clone(),
            role: new.role,
            password: None,
            stamp: secret::drawn_id()?,
            invitation: None,
            added: Timestamp::now(),
            by: actor.clone(),
        })
    }

    fn write_new_user(&self, lock: &WriteLock, user: &mut User) -> Result<()> {
        self.make_dir(&self.places().users())?;
        self.write_user(lock, user)
    }

    pub(super) fn write_user(&self, lock: &WriteLock, user: &mut User) -> Result<()> {
        document::write(lock, &self.user_path(&user.name), user)
    }
}

impl User {
    pub(super) fn event(&self, what: &str, actor: &Actor) -> Event {
        Event::new(actor, what).of(&self.name)
    }
}

/// Draws a link's key, and keeps what is needed to know it again.
fn invite(user: &mut User, by: &Actor) -> Result<String> {
    let key = secret::drawn()?;
    user.invitation = Some(Invited {
        hash: secret::hash(&key),
        until: Timestamp::now() + LINK_HOLDS,
        by: by.clone(),
    });
    Ok(key)
}

fn invitation(user: &User, key: String) -> Invitation {
    let waits = user.invitation.as_ref().map(|invited| invited.until);
    Invitation {
        user: user.view(),
        key,
        until: waits.unwrap_or_else(Timestamp::now),
    }
}
