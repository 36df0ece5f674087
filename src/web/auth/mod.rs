//! Who may come in over the network. Everything that the network reaches goes through here, so no
//! handler has to think of it, and none can forget to:
//!
//! 1. `host`: a request for a name that is not this server's is refused (DNS rebinding).
//! 2. `guard`: who asks is told by a cookie or a token. Nobody is let in without one but to
//!    [`OPEN`]; whoever changes something is an operator; and a form comes from a page of ours.
//! 3. `headers`: every answer tells the browser what it may do with it.
//!
//! `logins` are the sessions behind cookies, `passwords` compares passwords, and `attempts` slows
//! down who guesses them, `device` knows
//! browsers again, `doors` are
//! the pages on which one comes in and goes out.

mod attempts;
mod cookie;
mod device;
mod doors;
mod form;
mod guard;
mod headers;
mod host;
mod logins;
mod passwords;

pub(super) use attempts::Caller;
pub(super) use form::Fields;
pub(super) use headers::always;
pub(super) use logins::{LoginId, LoginRow};
pub(super) use passwords::Passwords;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::middleware::from_fn_with_state;
use axum::{Extension, Router};

use super::Problem;
use crate::daemon::{Peer, Server};
use crate::iscsi::canonical;
use crate::library::config::{Metrics, ServerTls};
use crate::library::{self, Library};
use device::Devices;
use host::OwnNames;
use logins::Logins;

/// What everybody may ask for: the way in, and what it looks like; whether the server is well.
const OPEN: [&str; 5] = ["/login", "/welcome", "/assets/", "/healthz", "/readyz"];

/// A name, a password and where to go need no more; nobody has to be logged in to send it.
const OPEN_MOST: usize = 16 << 10;

/// What everybody who is logged in may change: only what is theirs.
const OWN: [&str; 3] = ["/logout", "/account/password", "/account/logins/end"];

/// What the parts of the way in share.
pub(super) struct Gate {
    server: Arc<Server>,
    logins: Logins,
    devices: Devices,
    passwords: Passwords,
    own_names: OwnNames,
    tls: bool,
    /// The certificate is one that browsers know: they may insist on it.
    hsts: bool,
    open_metrics: bool,
}

/// Puts the way in around a router. What it lets through carries a [`super::Who`].
pub(super) fn behind_the_gate(server: Arc<Server>, inside: Router) -> Router {
    let gate = Arc::new(Gate::new(server));
    inside
        .merge(doors::routes(gate.clone()))
        .layer(from_fn_with_state(gate.clone(), guard::guard))
        .layer(from_fn_with_state(gate.clone(), host::ours))
        .layer(from_fn_with_state(gate.clone(), headers::told))
        .layer(Extension(gate))
}

impl Gate {
    fn new(server: Arc<Server>) -> Self {
        let config = server.library().config();
        let admin = &config.admin;
        Gate {
            logins: Logins::default(),
            devices: Devices::of(server.library()),
            passwords: Passwords::new(server.clone()),
            own_names: OwnNames::of(&config),
            tls: admin.tls.is_some(),
            hsts: matches!(admin.tls, Some(ServerTls::Given(_))),
            open_metrics: admin.metrics == Metrics::Open,
            server,
        }
    }

    /// Where a browser that sent this `Host` finds the dashboard.
    pub(super) fn url(&self, host: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{host}")
    }

    /// The logins of a user, the last used first.
    pub(super) fn logins_of(&self, user: &str) -> Vec<LoginRow> {
        self.logins.of(user, Instant::now())
    }

    /// What tells a login from its user's others.
    pub(super) fn number_of(&self, login: &LoginId) -> Option<u64> {
        let login = self.logins.find(login, Instant::now());
        login.map(|login| login.number())
    }

    /// Ends a login of a user.
    pub(super) fn end_login(&self, user: &str, number: u64) {
        self.logins.end_number(user, number);
    }

    /// A user has another password: this login goes on with it, their others are over.
    pub(super) fn goes_on(&self, login: &LoginId, stamp: String) {
        self.logins.restamp(login, stamp);
    }

    /// Work that hashes a password of somebody who is logged in: their mistakes are counted apart from
    /// everybody else's.
    pub(super) async fn hashing_within<T: Send + 'static>(
        &self,
        login: &LoginId,
        name: &str,
        peer: IpAddr,
        work: impl FnOnce(&Library) -> Result<T, library::Error> + Send + 'static,
    ) -> Result<T, Problem> {
        let number = self.number_of(login).map(|number| number.to_string());
        let caller = Caller {
            name,
            peer,
            device: number.as_deref(),
        };
        let done = self.passwords.hashing(caller, work).await;
        if done.is_ok() {
            self.passwords.was_right(caller);
        }
        done
    }
}

/// The address that a request came from.
pub(super) fn address(peer: Option<&Peer>) -> IpAddr {
    match peer {
        Some(Peer::Network { from, .. }) => canonical(*from).ip(),
        // Whoever comes by the control socket is on this host.
        _ => IpAddr::from([127, 0, 0, 1]),
    }
}
