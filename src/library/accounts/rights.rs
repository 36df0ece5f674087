//! What users may do, and whether they are users at all: what operators decide about each other.

use crate::library::error::{Error, Result};
use crate::library::events::{Actor, Event};
use crate::library::names::{Role, UserName};
use crate::library::{Edition, Library, TokenView, document};

impl Library {
    /// Gives a user another role, and takes back the tokens they made that may do more than that.
    pub fn set_role(&self, name: &UserName, role: Role, actor: &Actor) -> Result<Vec<TokenView>> {
        self.set_role_on(name, None, role, actor)
    }

    /// The same, for whoever has read this edition of the user.
    pub fn set_role_on(
        &self,
        name: &UserName,
        edition: Option<&Edition>,
        role: Role,
        actor: &Actor,
    ) -> Result<Vec<TokenView>> {
        let lock = self.write_lock()?;
        let mut user = self.user(name)?;
        user.ensure_edition(edition)?;
        if user.role == role {
            return Ok(Vec::new());
        }
        let doing = format!("making {name} a {role}");
        self.ensure_operates(&doing, actor)?;
        if role < Role::Operator {
            self.ensure_others_operate(&doing, name, actor)?;
        }
        user.role = role;
        self.write_user(&lock, &mut user)?;
        let taken = self.take_tokens_of(&lock, name, |token| token.role > role)?;
        drop(lock);
        let event = user.event("user-role", actor).with("role", role.as_str());
        self.note(&with_tokens(event, &taken));
        Ok(taken)
    }

    /// Removes a user, and the tokens they made. Their logins are over.
    pub fn remove_user(&self, name: &UserName, actor: &Actor) -> Result<Vec<TokenView>> {
        self.remove_user_on(name, None, actor)
    }

    /// The same, for whoever has read this edition of the user.
    pub fn remove_user_on(
        &self,
        name: &UserName,
        edition: Option<&Edition>,
        actor: &Actor,
    ) -> Result<Vec<TokenView>> {
        let lock = self.write_lock()?;
        let user = self.user(name)?;
        user.ensure_edition(edition)?;
        let doing = format!("removing {name}");
        self.ensure_operates(&doing, actor)?;
        self.ensure_others_operate(&doing, name, actor)?;
        // Tokens first: if this is interrupted, who is left to remove is still there to be seen.
        let taken = self.take_tokens_of(&lock, name, |_| true)?;
        document::remove(&lock, &self.user_path(name))?;
        drop(lock);
        self.note(&with_tokens(user.event("user-remove", actor), &taken));
        Ok(taken)
    }

    /// What removing a user, or giving them this role, would be refused for; and the tokens that
    /// would go.
    pub fn check_take_user(
        &self,
        name: &UserName,
        role: Option<Role>,
        actor: &Actor,
    ) -> Result<Vec<TokenView>> {
        let user = self.user(name)?;
        if role != Some(user.role) && role.is_none_or(|role| role < Role::Operator) {
            self.ensure_others_operate(&format!("changing {name}"), name, actor)?;
        }
        let goes = |token: &TokenView| role.is_none_or(|role| token.role > role);
        let mut tokens = self.tokens_of(name)?;
        tokens.retain(goes);
        Ok(tokens)
    }

    /// Whoever acts may have been removed, or lost their role, since they were let in: asked under the
    /// lock, after which nothing comes in between.
    pub(super) fn ensure_operates(&self, doing: &str, actor: &Actor) -> Result<()> {
        let Actor::User { name, .. } = actor else {
            return Ok(());
        };
        let known = name.parse().ok();
        let user = known.map(|name| self.read_user(&name)).transpose()?;
        match user.flatten() {
            Some(user) if user.role >= Role::Operator => Ok(()),
            _ => Err(Error::refused(
                doing,
                format!("{name} is no operator any more"),
                "ask one who is",
            )),
        }
    }

    /// Nobody takes the last way in away by mistake: not from themselves, and not the last operator's
    /// while there are others, who could then change nothing.
    fn ensure_others_operate(&self, doing: &str, name: &UserName, actor: &Actor) -> Result<()> {
        if matches!(actor, Actor::User { name: own, .. } if own == name.as_str()) {
            return Err(Error::refused(
                doing,
                "that is you",
                "ask another operator to do it",
            ));
        }
        let users = self.users()?;
        let mut others = users.iter().filter(|user| user.name != *name);
        let last = users.len() > 1 && !others.any(|user| user.role == Role::Operator);
        if last
            && users
                .iter()
                .any(|user| user.name == *name && user.role == Role::Operator)
        {
            return Err(Error::refused(
                doing,
                "it is the last operator, and there are users who could then change nothing",
                "make another one an operator first: `netroot user role NAME operator`",
            ));
        }
        Ok(())
    }
}

/// The event, which names the tokens that were taken back with it.
fn with_tokens(event: Event, taken: &[TokenView]) -> Event {
    if taken.is_empty() {
        return event;
    }
    let names: Vec<String> = taken.iter().map(|token| token.name.to_string()).collect();
    event.with("tokens", names)
}
