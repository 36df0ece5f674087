//! Where a client is, and where it found this server.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, StatusCode, header};

use crate::daemon::{Peer, Scheme};
use crate::web::Problem;

/// Where a client is, and by which address of ours it found us.
pub(super) fn ends(peer: &Peer) -> Result<(IpAddr, SocketAddr), Problem> {
    match peer {
        Peer::Network { from, local, .. } => Ok((from.ip().to_canonical(), *local)),
        Peer::Local { .. } => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "boot scripts are for clients on the network",
        )),
    }
}

/// The URL that the client reached us by: what it asked for, as it goes through name, port
/// forwarding and proxies that it knows and we do not; else our own address.
pub(super) fn base(peer: &Peer, headers: &HeaderMap) -> Result<String, Problem> {
    let asked = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    // It goes into a script, so nothing else than the authority of a URL gets in.
    let plain = |host: &&str| {
        !host.is_empty()
            && host.len() <= 255
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b))
    };
    if let Some(host) = asked.filter(plain) {
        return Ok(format!("{}://{host}", scheme(peer)));
    }
    match peer {
        Peer::Network { local, .. } => {
            // The zone of an address of one link is ours (RFC 6874 §1): clients number theirs otherwise.
            let local = SocketAddr::new(local.ip().to_canonical(), local.port());
            Ok(format!("{}://{local}", scheme(peer)))
        }
        Peer::Local { .. } => ends(peer).map(|_| String::new()),
    }
}

fn scheme(peer: &Peer) -> &'static str {
    match peer {
        Peer::Network { over, .. } => over.as_str(),
        Peer::Local { .. } => Scheme::Http.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host: &str) -> String {
        let peer = Peer::Network {
            from: "[::ffff:192.0.2.7]:4000".parse().unwrap(),
            local: "[::ffff:192.0.2.1]:8080".parse().unwrap(),
            over: Scheme::Http,
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        base(&peer, &headers).unwrap()
    }

    #[test]
    fn scripts_name_the_server_as_the_client_knows_it() {
        assert_eq!(asked("boot.example.edu:80"), "http://boot.example.edu:80");
        assert_eq!(asked("[2001:db8::1]:8080"), "http://[2001:db8::1]:8080");
    }

    #[test]
    fn a_host_header_cannot_write_script() {
        for hostile in ["a b", "x/../y", "${uuid}", "x#", ""] {
            assert_eq!(asked(hostile), "http://192.0.2.1:8080", "{hostile}");
        }
    }
}
