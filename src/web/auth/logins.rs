//! Logins: what stands behind a cookie. Only in memory: whoever restarts the server logs everybody out.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::library::{User, UserName};

/// A login that nobody uses for so long is over.
const IDLE: Duration = Duration::from_secs(12 * 3600);
/// And any after so long.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// Logins of one user; the one that was used least recently makes room for another.
const MOST_OF_ONE: usize = 20;
/// Logins of all.
const MOST: usize = 2000;

/// All logins. What is kept is a hash of what the cookie holds, so that a leak of memory lets nobody in.
#[derive(Debug, Default)]
pub(super) struct Logins {
    by_id: Mutex<HashMap<LoginId, Login>>,
}

/// What a login is known by: a hash of its cookie.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(in crate::web) struct LoginId([u8; 32]);

/// A login.
#[derive(Debug, Clone)]
pub(super) struct Login {
    /// Whose it is.
    pub user: UserName,
    /// The user's stamp when it began: when that has changed, the login is over.
    pub stamp: String,
    /// What forms bring along.
    pub csrf: Arc<str>,
    number: u64,
    began: Instant,
    seen: Instant,
    told: Told,
}

/// What is shown of a login.
#[derive(Debug, Clone)]
struct Told {
    began: Timestamp,
    seen: Timestamp,
    peer: IpAddr,
    browser: String,
}

/// A login as its user sees it.
#[derive(Debug, Clone)]
pub(in crate::web) struct LoginRow {
    /// Tells it from the user's others.
    pub number: u64,
    /// Since when.
    pub began: Timestamp,
    /// When it was last used.
    pub seen: Timestamp,
    /// Where it began.
    pub peer: IpAddr,
    /// What the browser called itself.
    pub browser: String,
}

impl LoginId {
    /// Of what a cookie holds.
    pub(super) fn of(cookie: &str) -> Self {
        LoginId(Sha256::digest(cookie.as_bytes()).into())
    }
}

impl fmt::Debug for LoginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginId(..)")
    }
}

impl Logins {
    /// Begins a login, and returns what its cookie holds.
    pub(super) fn begin(
        &self,
        user: &User,
        peer: IpAddr,
        browser: &str,
        now: Instant,
    ) -> Result<String, getrandom::Error> {
        let (cookie, csrf) = (drawn()?, drawn()?);
        let at = Timestamp::now();
        let mut logins = self.logins();
        logins.retain(|_, login| login.holds(now));
        let own = |login: &Login| login.user == user.name;
        while logins.values().filter(|login| own(login)).count() >= MOST_OF_ONE {
            end_least_used(&mut logins, own);
        }
        while logins.len() >= MOST {
            end_least_used(&mut logins, |_| true);
        }
        let number = logins.values().map(|login| login.number).max();
        let login = Login {
            user: user.name.clone(),
            stamp: user.stamp.clone(),
            csrf: csrf.into(),
            number: number.unwrap_or(0) + 1,
            began: now,
            seen: now,
            told: Told {
                began: at,
                seen: at,
                peer,
                browser: browser.chars().take(200).collect(),
            },
        };
        logins.insert(LoginId::of(&cookie), login);
        Ok(cookie)
    }

    /// The login of a cookie, which is used now.
    pub(super) fn used(&self, id: &LoginId, now: Instant) -> Option<Login> {
        let mut logins = self.logins();
        let login = logins.get_mut(id).filter(|login| login.holds(now))?;
        login.seen = now;
        login.told.seen = Timestamp::now();
        Some(login.clone())
    }

    /// The login of a cookie, which nobody uses by asking.
    pub(super) fn find(&self, id: &LoginId, now: Instant) -> Option<Login> {
        let logins = self.logins();
        logins.get(id).filter(|login| login.holds(now)).cloned()
    }

    /// Ends a login.
    pub(super) fn end(&self, id: &LoginId) {
        self.logins().remove(id);
    }

    /// Ends a login of a user.
    pub(super) fn end_number(&self, user: &str, number: u64) {
        self.logins()
            .retain(|_, login| login.user.as_str() != user || login.number != number);
    }

    /// A user has another password: one login goes on, the user's others are over.
    pub(super) fn restamp(&self, id: &LoginId, stamp: String) {
        let mut logins = self.logins();
        let Some(mut login) = logins.remove(id) else {
            return;
        };
        logins.retain(|_, other| other.user != login.user);
        login.stamp = stamp;
        logins.insert(id.clone(), login);
    }

    /// The logins of a user, the last used first.
    pub(super) fn of(&self, user: &str, now: Instant) -> Vec<LoginRow> {
        let logins = self.logins();
        let own = logins.values().filter(|login| login.user.as_str() == user);
        let mut own: Vec<&Login> = own.filter(|login| login.holds(now)).collect();
        own.sort_by_key(|login| std::cmp::Reverse(login.seen));
        own.into_iter().map(Login::row).collect()
    }

    fn logins(&self) -> MutexGuard<'_, HashMap<LoginId, Login>> {
        // A panic elsewhere leaves the map whole.
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Login {
    /// What tells it from the user's others.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    fn holds(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) < IDLE
            && now.saturating_duration_since(self.began) < LONGEST
    }

    fn row(&self) -> LoginRow {
        LoginRow {
            number: self.number,
            began: self.told.began,
            seen: self.told.seen,
            peer: self.told.peer,
            browser: self.told.browser.clone(),
        }
    }
}

fn end_least_used(logins: &mut HashMap<LoginId, Login>, of: impl Fn(&Login) -> bool) {
    let candidates = logins.iter().filter(|(_, login)| of(login));
    let least = candidates.min_by_key(|(_, login)| login.seen);
    if let Some(id) = least.map(|(id, _)| id.clone()) {
        logins.remove(&id);
    }
}

/// 256 bits that nobody can guess.
fn drawn() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> User {
        let text = format!(
            r#"{{"revision":1,"name":"{name}","role":"viewer","password":null,"stamp":"a",
            "invitation":null,"added":"2026-11-20T00:00:00Z","by":"server"}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn begin(logins: &Logins, name: &str, now: Instant) -> LoginId {
        let peer = IpAddr::from([192, 0, 2, 1]);
        LoginId::of(&logins.begin(&user(name), peer, "a browser", now).unwrap())
    }

    #[test]
    fn a_login_is_over_when_nobody_uses_it_and_after_a_week() {
        let logins = Logins::default();
        let start = Instant::now();
        let id = begin(&logins, "alice", start);
        let mut now = start;
        assert!(logins.used(&LoginId::of("guessed"), now).is_none());
        while now - start + IDLE / 2 < LONGEST {
            now += IDLE / 2;
            assert!(logins.used(&id, now).is_some(), "{:?}", now - start);
        }
        assert!(logins.used(&id, start + LONGEST).is_none());
        let idle = begin(&logins, "alice", now);
        // Asking whether it holds is no use of it.
        assert!(logins.find(&idle, now + IDLE / 2).is_some());
        assert!(logins.find(&idle, now + IDLE).is_none());
    }

    #[test]
    fn the_least_used_makes_room() {
        let logins = Logins::default();
        let start = Instant::now();
        let ids: Vec<_> = (0..MOST_OF_ONE as u64)
            .map(|n| begin(&logins, "alice", start + Duration::from_secs(n)))
            .collect();
        let other = begin(&logins, "bob", start);
        let now = start + Duration::from_secs(60);
        logins.used(&ids[0], now).unwrap();
        begin(&logins, "alice", now);
        assert_eq!(logins.of("alice", now).len(), MOST_OF_ONE);
        assert!(logins.find(&ids[0], now).is_some() && logins.find(&ids[1], now).is_none());
        assert!(logins.find(&other, now).is_some());
    }

    #[test]
    fn a_new_password_ends_the_others() {
        let logins = Logins::default();
        let now = Instant::now();
        let (here, there) = (begin(&logins, "alice", now), begin(&logins, "alice", now));
        let bob = begin(&logins, "bob", now);
        logins.restamp(&here, "b".to_owned());
        assert_eq!(logins.find(&here, now).unwrap().stamp, "b");
        assert!(logins.find(&there, now).is_none() && logins.find(&bob, now).is_some());
        let number = logins.of("bob", now)[0].number;
        logins.end_number("alice", number);
        assert!(logins.find(&bob, now).is_some(), "nobody ends another's");
        logins.end_number("bob", number);
        assert!(logins.find(&bob, now).is_none());
    }
}
