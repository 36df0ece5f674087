//! For which names this server answers.
//!
//! A page of a stranger may give its own name the address of this server, and then ask it as if both
//! were one (DNS rebinding). The name gives it away. Addresses and names of this host cannot be taken
//! like that.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Gate;
use crate::library::{Config, HostName};
use crate::web::Problem;

/// The names by which browsers may ask for this server, in lower case.
#[derive(Debug)]
pub(super) struct OwnNames(Vec<String>);

impl OwnNames {
    /// This host's own, and those that the configuration adds.
    pub(super) fn of(config: &Config) -> Self {
        let own = [Some(config.host.clone()), HostName::here()];
        let mut names = vec!["localhost".to_owned()];
        for name in own.into_iter().flatten() {
            let name = name.as_str().to_lowercase();
            names.extend(name.split('.').next().map(str::to_owned));
            names.push(name);
        }
        let more = config.admin.names.iter();
        names.extend(more.map(|name| name.as_str().to_lowercase()));
        OwnNames(names)
    }

    fn holds(&self, host: &str) -> bool {
        let host = host.to_lowercase();
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if bare.unwrap_or(&host).parse::<IpAddr>().is_ok() {
            return true;
        }
        let host = host.strip_suffix('.').unwrap_or(&host);
        // RFC 6761 §6.3: these lead nowhere else.
        host.ends_with(".localhost") || self.0.iter().any(|name| name == host)
    }
}

/// Whom a request is for, as its `Host` says (RFC 9110 §7.2).
pub(super) fn asked_for(headers: &HeaderMap) -> Option<Authority> {
    let mut named = headers.get_all(header::HOST).iter();
    let (one, other) = (named.next()?, named.next());
    match other {
        None => one.to_str().ok()?.parse().ok(),
        Some(_) => None,
    }
}

/// Lets only requests through that are for this server.
pub(super) async fn ours(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let asked = asked_for(request.headers());
    let in_target = request.uri().host();
    let ours = |host| gate.own_names.holds(host);
    if asked.as_ref().is_some_and(|to| ours(to.host())) && in_target.is_none_or(ours) {
        return next.run(request).await;
    }
    Problem::new(
        StatusCode::MISDIRECTED_REQUEST,
        "this server does not go by that name; use its address, or add the name to [admin] names in \
         netroot.toml and restart the server",
    )
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_names_and_addresses_are_answered() {
        let text = "format = 1\nhost = \"Server-01.example.edu\"\n\
            iqn_prefix = \"iqn.2026-01.edu.example.server-01\"\n\
            [admin]\nnames = [\"netroot.example.edu\"]\n";
        let config = Config::parse(std::path::Path::new("netroot.toml"), text).unwrap();
        let names = OwnNames::of(&config);
        for own in [
            "localhost",
            "a.localhost",
            "127.0.0.1",
            "[::1]",
            "192.0.2.7",
            "server-01",
            "SERVER-01.example.edu.",
            "netroot.example.edu",
        ] {
            assert!(names.holds(own), "{own}");
        }
        for other in [
            "evil.example",
            "netroot.example.edu.evil.example",
            "",
            "netroot",
        ] {
            assert!(!names.holds(other), "{other}");
        }
    }
}
