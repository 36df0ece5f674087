//! People who log in at a machine's menu, to boot their own disk there.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::asker::{Asker, Call};
use super::cfg::{Answer, booted, unasked};
use super::script::text;
use crate::boot::failing;
use crate::daemon::{Peer, Server};
use crate::library::config::MenuLogin;
use crate::library::{Actor, User};
use crate::web::auth::{Caller, Fields, Passwords};
use crate::web::{Problem, blocking_for_client, body};

/// A name and a password need no more.
const MOST: usize = 16 << 10;

/// So long somebody who typed something wrong reads that.
const READ: u32 = 3;

/// Whether people may log in by the way on which a machine asks.
pub(super) fn is_offered(server: &Server, call: &Call) -> bool {
    match server.library().config().boot.login {
        MenuLogin::Off => false,
        MenuLogin::Secure => call.base.starts_with("https://"),
        MenuLogin::Insecure => true,
    }
}

pub(super) async fn log_in(
    State(server): State<Arc<Server>>,
    Extension(passwords): Extension<Arc<Passwords>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    asker: Result<Query<Asker>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let asker = asker.map_err(|wrong| unasked(&wrong))?.0;
    let call = Call::new(&server, asker, peer, &headers).await?;
    if !is_offered(&server, &call) {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "nobody logs in here: [boot] login in netroot.toml is false, or it is true and this is not \
             HTTPS",
        ));
    }
    let request = body::whole(request, MOST).await?;
    let fields = Fields::from_request(request, &()).await?;
    let name = fields.field("name").trim().to_owned();
    let (typed, password) = (name.clone(), fields.field("password").to_owned());
    let from = call.from;
    let caller = Caller {
        name: &name,
        peer: from,
        device: None,
    };
    let tried = passwords.hashing(caller, move |library| {
        let user = library.log_in(&typed, &password)?;
        if user.is_none() {
            library.note_refused_login(&typed, from);
        }
        Ok(user)
    });
    match tried.await {
        Ok(Some(user)) => {
            passwords.was_right(caller);
            let script = move |server: &Server| own_disk(server, &call, &user);
            let answer = blocking_for_client(&server, script).await?;
            answer.map(text)
        }
        // The same for a name that nobody has.
        Ok(None) => Ok(text(failing(
            "name and password do not belong together",
            READ,
        ))),
        Err(problem) => Ok(text(failing(&problem.detail, READ))),
    }
}

/// The boot.cfg of a person's own disk, at the machine where they are.
fn own_disk(server: &Server, call: &Call, user: &User) -> Answer {
    let library = server.library();
    let actor = Actor::User {
        name: user.name.to_string(),
        peer: call.from.to_string(),
    };
    library.note_login(user, &actor);
    let machine = library.machine(&call.asker.mac)?;
    let person = match library.client_of_person(user, &machine, server.live(), &actor) {
        Ok(person) => person,
        Err(why) => return Ok(Ok(failing(&why.to_string(), 30))),
    };
    let ticket = library.issue_boot_at(&person, &machine);
    booted(server, call, (&person, &machine), ticket)
}
