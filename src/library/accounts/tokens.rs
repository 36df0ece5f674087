//! What programs show in place of a password.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::secret;
use crate::library::document::{self, Document};
use crate::library::error::{Error, Result, chain};
use crate::library::events::{Actor, Event};
use crate::library::lock::WriteLock;
use crate::library::names::{NameError, Role, TokenName, UserName, serde_as_text};
use crate::library::{Edition, Library};

/// Every secret begins like this, so that scanners for lost secrets know them.
const PREFIX: &str = "netroot_";

/// A token's document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Token {
    revision: u64,
    /// Tells it from others that had its name; the first part of its secret.
    id: String,
    /// What the program is called.
    pub name: TokenName,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of the secret.
    hash: String,
    /// Who made it.
    by: Actor,
    added: Timestamp,
    until: Option<Timestamp>,
    /// The last day (UTC) on which it was shown.
    last_used: Option<Date>,
}

/// A token, without what is kept of its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// What the program is called.
    pub name: TokenName,
    /// What it may do.
    pub role: Role,
    /// Who made it.
    pub by: Actor,
    /// When.
    pub added: Timestamp,
    /// Until when it may be shown; nothing if for ever.
    pub until: Option<Timestamp>,
    /// The last day (UTC) on which it was shown.
    #[schema(value_type = Option<String>, format = Date)]
    pub last_used: Option<Date>,
}

/// A token that is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What the program is called.
    pub name: TokenName,
    /// What it may do.
    pub role: Role,
    /// How long it holds: 30d, 12h or never; 90d if nothing is said.
    #[serde(default)]
    pub expires: Lifetime,
}

/// A token that was just made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Revealed {
    /// What is known of it.
    pub token: TokenView,
    /// What the program shows, as `Authorization: Bearer SECRET`: told this once, and not kept.
    pub secret: String,
}

/// How long a token holds, or something is kept: `90d`, `12h`, `never` to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lifetime {
    /// So many hours.
    Hours(u32),
    /// For ever.
    Never,
}

serde_as_text!(Lifetime, "^([1-9][0-9]{0,3}[hd]|never)$");

/// What holds longer than some twenty years is for ever, and should say so.
const LONGEST: u32 = 9999;

impl Default for Lifetime {
    fn default() -> Self {
        Lifetime::Hours(90 * 24)
    }
}

impl FromStr for Lifetime {
    type Err = NameError;

    fn from_str(text: &str) -> std::result::Result<Self, NameError> {
        if text == "never" {
            return Ok(Lifetime::Never);
        }
        let (number, hours) = match text.split_at_checked(text.len().saturating_sub(1)) {
            Some((number, "h")) => (number, 1),
            Some((number, "d")) => (number, 24),
            _ => ("", 0),
        };
        let number = number
            .parse()
            .ok()
            .filter(|number| (1..=LONGEST).contains(number));
        number
            .map(|number| Lifetime::Hours(number * hours))
            .ok_or_else(|| NameError::new(text, "a time such as 90d or 12h, or `never`"))
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lifetime::Never => f.pad("never"),
            Lifetime::Hours(hours) if hours % 24 == 0 => write!(f, "{}d", hours / 24),
            Lifetime::Hours(hours) => write!(f, "{hours}h"),
        }
    }
}

impl Document for Token {
    fn revision(&mut self) -> &mut u64 {
        &mut self.revision
    }

    const PERMISSIONS: u32 = 0o600;
}

impl Token {
    /// Tells it from others that had its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Without what is kept of its secret.
    pub fn view(&self) -> TokenView {
        TokenView {
            name: self.name.clone(),
            role: self.role,
            by: self.by.clone(),
            added: self.added,
            until: self.until,
            last_used: self.last_used,
        }
    }

    /// Its edition. Nothing about a token changes by itself but when it was used; another one may have
    /// its name.
    pub fn edition(&self) -> Edition {
        Edition::of(&(&self.id, &self.name, self.role, self.until))
    }

    /// Refuses whoever has read another edition.
    pub(crate) fn ensure_edition(&self, wanted: Option<&Edition>) -> Result<()> {
        self.edition().ensure(wanted, "token", &self.name)
    }

    fn holds(&self) -> bool {
        self.until.is_none_or(|until| until > Timestamp::now())
    }

    fn event(&self, what: &str, actor: &Actor) -> Event {
        Event::new(actor, what).of(&self.name)
    }
}

impl TokenView {
    /// Whether its time is over.
    pub fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= Timestamp::now())
    }
}

impl Library {
    /// All tokens, by name.
    pub fn tokens(&self) -> Result<Vec<TokenView>> {
        Ok(self.all_tokens()?.iter().map(Token::view).collect())
    }

    /// A token.
    pub fn token(&self, name: &TokenName) -> Result<Token> {
        let mut tokens = self.all_tokens()?.into_iter();
        tokens
            .find(|token| token.name == *name)
            .ok_or_else(|| Error::unknown("token", name))
    }

    /// What adding `new` would be refused for.
    pub fn check_add_token(&self, new: &NewToken) -> Result<()> {
        match self
            .all_tokens()?
            .iter()
            .any(|token| token.name == new.name)
        {
            false => Ok(()),
            true => Err(Error::Exists {
                kind: "token",
                name: new.name.to_string(),
            }),
        }
    }

    /// Makes a token.
    pub fn add_token(&self, new: &NewToken, actor: &Actor) -> Result<Revealed> {
        let lock = self.write_lock()?;
        self.ensure_operates(&format!("making the token {}", new.name), actor)?;
        self.check_add_token(new)?;
        self.make_dir(&self.places().tokens())?;
        let id = secret::drawn_id()?;
        let shown = format!("{PREFIX}{id}_{}", secret::drawn()?);
        let added = Timestamp::now();
        let mut token = Token {
            revision: 0,
            name: new.name.clone(),
            role: new.role,
            hash: secret::hash(&shown),
            by: actor.clone(),
            added,
            until: match new.expires {
                Lifetime::Never => None,
                Lifetime::Hours(hours) => Some(added + SignedDuration::from_hours(hours.into())),
            },
            last_used: None,
            id,
        };
        self.write_token(&lock, &mut token)?;
        drop(lock);
        let event = token.event("token-add", actor);
        self.note(&event.with("role", token.role.as_str()));
        Ok(Revealed {
            token: token.view(),
            secret: shown,
        })
    }

    /// The token that this is the secret of, unless its time is over. Quick: for whoever asks with
    /// every request. The first time on a day is written down.
    pub fn token_of(&self, shown: &str) -> Result<Option<Token>> {
        let Some(id) = id_of(shown) else {
            return Ok(None);
        };
        let Some(token) = self.known_token(id)? else {
            return Ok(None);
        };
        if !secret::is(shown, &token.hash) || !token.holds() {
            return Ok(None);
        }
        if token.last_used != Some(today())
            && let Err(error) = self.note_use(id)
        {
            tracing::warn!(
                "{}; the use of token {} is not noted",
                chain(&error),
                token.name
            );
        }
        Ok(Some(token))
    }

    /// A token as it is at this moment; nothing if it was taken back, or its time is over.
    pub fn live_token(&self, id: &str) -> Result<Option<Token>> {
        Ok(self.known_token(id)?.filter(Token::holds))
    }

    /// The token that removing it would take back.
    pub fn check_remove_token(&self, name: &TokenName) -> Result<TokenView> {
        Ok(self.token(name)?.view())
    }

    /// Takes a token back: whoever shows it is not let in any more.
    pub fn remove_token(&self, name: &TokenName, actor: &Actor) -> Result<TokenView> {
        self.remove_token_on(name, None, actor)
    }

    /// The same, for whoever has read this edition of the token.
    pub fn remove_token_on(
        &self,
        name: &TokenName,
        edition: Option<&Edition>,
        actor: &Actor,
    ) -> Result<TokenView> {
        let lock = self.write_lock()?;
        self.ensure_operates(&format!("taking the token {name} back"), actor)?;
        let token = self.token(name)?;
        token.ensure_edition(edition)?;
        document::remove(&lock, &self.token_path(&token.id))?;
        drop(lock);
        self.note(&token.event("token-remove", actor));
        Ok(token.view())
    }

    /// The tokens that a user made.
    pub(super) fn tokens_of(&self, user: &UserName) -> Result<Vec<TokenView>> {
        let tokens = self.all_tokens()?.into_iter();
        let own = tokens.filter(|token| is_by(token, user));
        Ok(own.map(|token| token.view()).collect())
    }

    /// Takes back those tokens of a user that `which` names.
    pub(super) fn take_tokens_of(
        &self,
        lock: &WriteLock,
        user: &UserName,
        which: impl Fn(&Token) -> bool,
    ) -> Result<Vec<TokenView>> {
        let mut taken = Vec::new();
        for token in self.all_tokens()? {
            if is_by(&token, user) && which(&token) {
                document::remove(lock, &self.token_path(&token.id))?;
                taken.push(token.view());
            }
        }
        Ok(taken)
    }

    fn all_tokens(&self) -> Result<Vec<Token>> {
        let mut tokens: Vec<Token> = Vec::new();
        for id in document::names(&self.places().tokens())? {
            if is_id(&id) {
                tokens.extend(document::read(&self.token_path(&id))?);
            }
        }
        tokens.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tokens)
    }

    fn known_token(&self, id: &str) -> Result<Option<Token>> {
        let token = self.tokens.read(id.to_owned(), &self.token_path(id))?;
        Ok(token.map(|token| Token::clone(&token)))
    }

    fn note_use(&self, id: &str) -> Result<()> {
        let lock = self.write_lock()?;
        let Some(mut token) = document::read::<Token>(&self.token_path(id))? else {
            return Ok(());
        };
        token.last_used = Some(today());
        self.write_token(&lock, &mut token)
    }

    fn write_token(&self, lock: &WriteLock, token: &mut Token) -> Result<()> {
        document::write(lock, &self.token_path(&token.id), token)
    }

    fn token_path(&self, id: &str) -> PathBuf {
        self.places().tokens().join(format!("{id}.json"))
    }
}

/// The part of a secret that names the token's document: it is safe in a path.
fn id_of(shown: &str) -> Option<&str> {
    let (id, _) = shown.strip_prefix(PREFIX)?.split_once('_')?;
    is_id(id).then_some(id)
}

fn is_id(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_by(token: &Token, user: &UserName) -> bool {
    matches!(&token.by, Actor::User { name, .. } if name == user.as_str())
}

fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read_and_written_alike() {
        for text in ["90d", "1d", "12h", "never"] {
            assert_eq!(text.parse::<Lifetime>().unwrap().to_string(), text);
        }
        for wrong in ["", "0d", "d", "90", "-1d", "99999999d", "ever", "1ü"] {
            assert!(wrong.parse::<Lifetime>().is_err(), "{wrong}");
        }
        assert_eq!(Lifetime::default().to_string(), "90d");
    }

    #[test]
    fn a_secret_names_a_document_and_no_other_file() {
        assert_eq!(id_of("netroot_00ff00ff00ff_x_y"), Some("00ff00ff00ff"));
        for wrong in [
            "",
            "netroot_",
            "netroot_../secrets/x_y",
            "netroot_00FF00FF00FF_x",
            "00ff00ff00ff_x",
        ] {
            assert_eq!(id_of(wrong), None, "{wrong}");
        }
    }
}
