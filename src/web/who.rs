//! Who asks: known for each request before anything is done for it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use nix::unistd::geteuid;

use super::Problem;
use crate::daemon::Peer;
use crate::library::{self, Actor, Paths, Role};

/// Who asks. An extension of every request to the API and the pages; requests without one are
/// answered with 500, so a router that was put together without an answer to "who?" lets nobody in.
#[derive(Debug, Clone)]
pub struct Who {
    /// What people know them by.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// How events name them.
    pub actor: Actor,
    /// What a form must bring along to be theirs (CSRF).
    pub csrf: String,
    /// The login that this is by; nothing where there is none that could end.
    pub login: Option<Arc<dyn Login>>,
}

/// A login that may end while an answer still goes on.
pub trait Login: fmt::Debug + Send + Sync {
    /// Whether it still holds. May block.
    fn holds(&self) -> bool;
}

/// How often answers that go on ask whether a login still holds.
const ASKS: Duration = Duration::from_secs(2);

impl Who {
    /// How events name them.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Whether they may change something.
    pub fn operates(&self) -> bool {
        self.role >= Role::Operator
    }

    /// What their word on files of this host is worth: root, and whoever runs the server, could read and
    /// write them anyway. Nobody else gets the server's rights by naming a path to it.
    pub fn paths(&self) -> Paths {
        match &self.actor {
            Actor::Socket { uid, .. } if *uid == 0 || *uid == geteuid().as_raw() => Paths::Any,
            _ => Paths::Listed,
        }
    }

    /// Whether their login holds at this very moment: asked right before something is done that would
    /// outlive it. May block.
    pub(super) fn ensure_logged_in(&self) -> Result<(), library::Error> {
        match self.login.as_ref().is_none_or(|login| login.holds()) {
            true => Ok(()),
            false => Err(library::Error::refused(
                "managing users and tokens",
                "your login is over",
                "log in again",
            )),
        }
    }

    /// Resolves when their login has ended; never where none could.
    pub async fn gone(&self) {
        let Some(login) = &self.login else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(ASKS).await;
            let login = login.clone();
            // One that cannot be asked any more does not hold.
            if !matches!(
                tokio::task::spawn_blocking(move || login.holds()).await,
                Ok(true)
            ) {
                return;
            }
        }
    }
}

/// Tells who is behind the control socket: a user of this host that its permissions let through, who
/// may do everything. `csrf` is drawn for each run of the server.
pub(super) async fn behind_the_socket(
    State(csrf): State<String>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(peer @ Peer::Local { uid, .. }) = request.extensions().get::<Peer>() else {
        return Problem::new(
            axum::http::StatusCode::FORBIDDEN,
            "this is for users of the server's host",
        )
        .into_response();
    };
    let who = Who {
        name: format!("user {uid}"),
        role: Role::Operator,
        actor: peer.actor(),
        csrf,
        login: None,
    };
    request.extensions_mut().insert(who);
    next.run(request).await
}
