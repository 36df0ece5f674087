//! `/boot.cfg`: what one client boots.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::given::{Asker, Given, given};
use super::place::{base, ends};
use super::script::{boots_nothing, text};
use crate::boot::{BootCfg, Files, Handover, Portal, Root, SanBoot, Writes};
use crate::daemon::{Peer, Server, own_address};
use crate::library::manifest::{BootFrom, BootStamp};
use crate::library::{BootTicket, Error, Event, Library, MacAddr, Mode, VersionId, Way};
use crate::web::{Problem, blocking_for_client};

/// Who asks for a boot.cfg.
#[derive(Deserialize)]
pub(super) struct Who {
    mac: MacAddr,
    /// Whose kernel and initramfs lie on its own EFI system partition, where it boots from one.
    esp: Option<BootStamp>,
}

/// The boot.cfg of a ticket, for a client that reaches the boot service at `base` and the target at
/// `portal`, whose own partition, if it boots from one, has the files of `esp`, and that is given this
/// besides.
pub fn client_cfg(
    library: &Library,
    ticket: &BootTicket,
    mac: MacAddr,
    base: &str,
    portal: SocketAddr,
    esp: Option<BootStamp>,
    given: Given,
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
        secrets: given.secrets,
    };
    let writes = match ticket.mode {
        Mode::Shared => Writes::Ram,
        Mode::Persistent | Mode::Ephemeral => Writes::Disk,
    };
    if let BootFrom::Disk(_) = version.manifest().boot {
        return Ok(SanBoot { root, writes }.to_string());
    }
    let url = format!("{base}/images/{image}/{number}");
    let cfg = BootCfg {
        files: match (ticket.way, esp) {
            (Way::Esp, Some(stamp)) if version.manifest().boot.stamp() == Some(stamp) => {
                Files::Esp(url)
            }
            (Way::Esp, Some(_)) => Files::StaleEsp(url),
            _ => Files::Server(url),
        },
        handover: match ticket.way {
            Way::Ibft => Handover::Ibft,
            Way::Http | Way::Esp => Handover::KernelLine,
        },
        identity: given.identity,
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
pub(in crate::web) fn preview(
    server: &Server,
    mac: &MacAddr,
) -> Result<(BootTicket, String), Error> {
    let library = server.library();
    let client = library.client(mac)?;
    let ticket = library.issue_boot(&client)?;
    // Nobody knows yet which of its addresses the client will reach this server by.
    let ip = own_address().unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
    let portal = server.portal(ip);
    let port = server.doors().boot.first().map_or(80, SocketAddr::port);
    let base = format!("http://{}", SocketAddr::new(portal.ip(), port));
    // Whoever boots from its own partition is taken to have the right one.
    let esp = library.version(&ticket.version)?.manifest().boot.stamp();
    let given = Given::shown(library, &ticket, &base)?;
    let cfg = client_cfg(library, &ticket, client.mac, &base, portal, esp, given)?;
    Ok((ticket, cfg))
}

pub(super) async fn cfg(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    who: Result<Query<Who>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Who { mac, esp }) = who.map_err(|wrong| {
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
    let asker = Asker::of(&peer)?;
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
                server.saw_nothing_to_boot(client.mac, peer_ip, &why.to_string());
                return Ok(text(boots_nothing(&why)));
            }
            Err(error) => return Err(error),
        };
        let given = match given(server, asker, &client, &ticket, &base)? {
            Ok(given) => given,
            Err(withheld) => return Ok(withheld.into_response()),
        };
        let portal = server.portal(local);
        let cfg = client_cfg(library, &ticket, mac, &base, portal, esp, given)?;
        if let Some(stamp) = esp {
            server.saw_esp(ticket.client, stamp);
        }
        server.saw_script(&ticket, peer_ip);
        if server.is_news(&ticket.client) {
            let event = Event::new(&peer.actor(), "boot-script").of(&ticket.client);
            let event = event.with("boot", ticket.id.to_string());
            library.note(&event.with("version", ticket.version.to_string()));
        }
        Ok(text(cfg))
    })
    .await
}
