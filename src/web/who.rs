//! Who asks: known for each request before anything is done for it.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Problem;
use crate::daemon::Peer;
use crate::library::{Actor, Role};

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
}

impl Who {
    /// How events name them.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Whether they may change something.
    pub fn operates(&self) -> bool {
        self.role >= Role::Operator
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
    };
    request.extensions_mut().insert(who);
    next.run(request).await
}
