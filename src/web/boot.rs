//! What clients ask while they boot: scripts, kernel, initramfs. No login, no listings.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use serde::Deserialize;
use tower::ServiceExt;
use tower_http::services::ServeFile;

use super::{Problem, blocking_for_client};
use crate::boot::{BootCfg, Portal, Root, SanBoot, Writes, boot_ipxe};
use crate::daemon::{Endpoint, Peer, Server, own_address};
use crate::library::BootTicket;
use crate::library::Event;
use crate::library::manifest::BootFrom;
use crate::library::{Error, Library, MacAddr, Mode, VersionId};

/// `/boot.ipxe`, `/boot.cfg` and the files that they name.
pub fn boot(server: Arc<Server>) -> Router {
    Router::new()
        .route("/boot.ipxe", get(script))
        .route("/boot.cfg", get(cfg))
        .route("/images/{image}/{number}/{file}", get(file))
        .fallback(nowhere)
        .layer(from_fn_with_state(server.clone(), counting))
        .with_state(server)
}

/// Counts the answer to each request.
async fn counting(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let endpoint = match request.uri().path().starts_with("/images/") {
        true => Endpoint::BootFile,
        false => Endpoint::BootScript,
    };
    let response = next.run(request).await;
    server
        .requests()
        .answered(endpoint, response.status().as_u16());
    response
}

/// Who asks for a boot.cfg.
#[derive(Deserialize)]
struct Who {
    mac: MacAddr,
}

/// The boot.cfg of a ticket, for a client that reaches the boot service at `base` and the target at
/// `portal`.
pub fn client_cfg(
    library: &Library,
    ticket: &BootTicket,
    mac: MacAddr,
    base: &str,
    portal: SocketAddr,
) -> Result<String, Error> {
    let version = library.version(&ticket.version)?;
    let facts = &version.manifest().facts;
    let VersionId { image, number } = &ticket.version;
    let root = Root {
        portal: Portal {
            ip: portal.ip(),
            port: portal.port(),
        },
        target: ticket.target.clone(),
        lun: ticket.lun,
        initiator: Some(ticket.initiator.clone()),
    };
    let writes = match ticket.mode {
        Mode::Shared => Writes::Ram,
        Mode::Persistent | Mode::Ephemeral => Writes::Disk,
    };
    if let BootFrom::Disk(_) = version.manifest().boot {
        return Ok(SanBoot { root, writes }.to_string());
    }
    let cfg = BootCfg {
        prefix: Some(format!("{base}/images/{image}/{number}")),
        kernel: &facts.kernel_version,
        initramfs: &facts.early,
        root,
        writes,
        mac: Some(mac),
        nameservers: &library.config().boot.nameservers,
        args: &ticket.args,
    };
    Ok(cfg.to_string())
}

/// The boot.cfg that a client would be given now. Nothing changes by it: only a login begins a boot.
pub(super) fn preview(server: &Server, mac: &MacAddr) -> Result<(BootTicket, String), Error> {
    let library = server.library();
    let client = library.client(mac)?;
    let ticket = library.issue_boot(&client)?;
    // Nobody knows yet which of its addresses the client will reach this server by.
    let ip = own_address().unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
    let portal = server.portal(ip);
    let port = server.doors().boot.first().map_or(80, SocketAddr::port);
    let base = format!("http://{}", SocketAddr::new(portal.ip(), port));
    let cfg = client_cfg(library, &ticket, client.mac, &base, portal)?;
    Ok((ticket, cfg))
}

async fn script(Extension(peer): Extension<Peer>, headers: HeaderMap) -> Result<Response, Problem> {
    Ok(text(boot_ipxe(&base(&peer, &headers)?)))
}

async fn cfg(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    who: Result<Query<Who>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Who { mac }) = who.map_err(|wrong| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            format!(
                "whose boot.cfg? Ask for /boot.cfg?mac=52:54:00:12:34:56 ({})",
                wrong.body_text()
            ),
        )
    })?;
    let base = base(&peer, &headers)?;
    let (peer_ip, local) = ends(&peer)?;
    blocking_for_client(&server, move |server| {
        let library = server.library();
        let client = library.client(&mac).inspect_err(|error| {
            let stranger = matches!(error, Error::Unknown { .. });
            if !stranger || server.saw_stranger(mac, peer_ip) {
                tracing::warn!(%mac, peer = %peer.actor(), "no boot.cfg was given: {error}");
            }
        })?;
        let ticket = match library.issue_boot(&client) {
            Ok(ticket) => ticket,
            // Known, and yet there is nothing for it: who stands before the machine is told why.
            Err(why @ Error::Refused { .. }) => {
                server.saw_nothing_to_boot(client.mac, &why.to_string());
                return Ok(text(boots_nothing(&why)));
            }
            Err(error) => return Err(error),
        };
        let cfg = client_cfg(library, &ticket, mac, &base, server.portal(local))?;
        server.saw_script(&ticket.client, peer_ip);
        if server.is_news(&ticket.client) {
            let event = Event::new(&peer.actor(), "boot-script").of(&ticket.client);
            let event = event.with("boot", ticket.id.to_string());
            library.note(&event.with("version", ticket.version.to_string()));
        }
        Ok(text(cfg))
    })
    .await
}

/// A script that says why there is nothing to boot, for long enough to be read, and fails.
fn boots_nothing(why: &Error) -> String {
    // It goes into a script: nothing in it is expanded, ends the line or begins a comment.
    let plain = |c: char| match c {
        ' '..='~' if !matches!(c, '$' | '#' | '"' | '\\') => c,
        _ => '?',
    };
    let why: String = why.to_string().chars().map(plain).collect();
    format!("#!ipxe\necho netroot: {why}\nsleep 30\nexit 1\n")
}

async fn file(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    Path((image, number, file)): Path<(String, String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let found = blocking_for_client(&server, move |server| {
        let version: VersionId = format!("{image}@{number}").parse()?;
        let version = server.library().version(&version)?;
        let found = version.boot_file(&file).ok_or(Error::Unknown {
            kind: "boot file",
            name: file,
        })?;
        if let Ok((peer, _)) = ends(&peer) {
            match found == version.kernel_path() {
                true => server.saw_kernel(peer),
                false => server.saw_initramfs(peer),
            }
        }
        Ok(found)
    })
    .await?;
    match ServeFile::new(found).oneshot(request).await {
        Ok(response) => Ok(response.into_response()),
        Err(never) => match never {},
    }
}

async fn nowhere() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "there is nothing here; clients begin with /boot.ipxe",
    )
}

fn text(text: String) -> Response {
    (
        [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
        ],
        text,
    )
        .into_response()
}

/// Where a client is, and by which address of ours it found us.
fn ends(peer: &Peer) -> Result<(IpAddr, IpAddr), Problem> {
    match peer {
        Peer::Network { from, local } => Ok((from.ip().to_canonical(), local.ip().to_canonical())),
        Peer::Local { .. } => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "boot scripts are for clients on the network",
        )),
    }
}

/// The URL that the client reached us by: what it asked for, as it goes through name, port
/// forwarding and proxies that it knows and we do not; else our own address.
fn base(peer: &Peer, headers: &HeaderMap) -> Result<String, Problem> {
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
        return Ok(format!("http://{host}"));
    }
    match peer {
        Peer::Network { local, .. } => Ok(format!("http://{}", crate::daemon::unmapped(*local))),
        Peer::Local { .. } => ends(peer).map(|_| String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host: &str) -> String {
        let peer = Peer::Network {
            from: "[::ffff:192.0.2.7]:4000".parse().unwrap(),
            local: "[::ffff:192.0.2.1]:8080".parse().unwrap(),
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
    fn why_there_is_nothing_to_boot_is_one_line_of_text() {
        let why = Error::Invalid("no `fc28`\nshell ${uuid} \"x\" # \u{1b}[1m\\".into());
        assert_eq!(
            boots_nothing(&why),
            "#!ipxe\necho netroot: no `fc28`?shell ?{uuid} ?x? ? ?[1m?\nsleep 30\nexit 1\n"
        );
    }

    #[test]
    fn a_host_header_cannot_write_script() {
        for hostile in ["a b", "x/../y", "${uuid}", "x#", ""] {
            assert_eq!(asked(hostile), "http://192.0.2.1:8080", "{hostile}");
        }
    }
}
