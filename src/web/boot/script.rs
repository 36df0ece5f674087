//! The script that all clients begin with, and those that tell a person something.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

use super::place::{base, over_tls};
use crate::boot::boot_ipxe;
use crate::daemon::{Peer, Server};
use crate::library::Error;
use crate::library::config::SecretsOver;
use crate::web::Problem;

pub(super) async fn all(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let base = base(&peer, &headers)?;
    let only_https = server.library().config().boot.secrets == SecretsOver::Https;
    let secure = server
        .doors()
        .boot_tls
        .first()
        .filter(|_| only_https)
        .copied();
    let base = match secure {
        Some(door) => over_tls(&base, door.port()),
        None => base,
    };
    Ok(text(boot_ipxe(&base)))
}

/// A script that says why there is nothing to boot, for long enough to be read, and fails.
pub(super) fn boots_nothing(why: &Error) -> String {
    // It goes into a script: nothing in it is expanded, ends the line or begins a comment.
    let plain = |c: char| match c {
        ' '..='~' if !matches!(c, '$' | '#' | '"' | '\\') => c,
        _ => '?',
    };
    let why: String = why.to_string().chars().map(plain).collect();
    format!("#!ipxe\necho netroot: {why}\nsleep 30\nexit 1\n")
}

pub(super) fn text(text: String) -> Response {
    (
        [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
        ],
        text,
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_there_is_nothing_to_boot_is_one_line_of_text() {
        let why = Error::Invalid("no `fc28`\nshell ${uuid} \"x\" # \u{1b}[1m\\".into());
        assert_eq!(
            boots_nothing(&why),
            "#!ipxe\necho netroot: no `fc28`?shell ?{uuid} ?x? ? ?[1m?\nsleep 30\nexit 1\n"
        );
    }
}
