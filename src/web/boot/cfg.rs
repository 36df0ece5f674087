//! `/boot.cfg`: what one client boots.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::asker::{Asker, Call};
use super::given::{Given, given};
use super::menu::{self, Shown};
use super::script::text;
use super::unknown;
use crate::boot::{BootCfg, Files, Handover, Portal, Root, SanBoot, Writes, failing};
use crate::daemon::{Peer, Server, own_address};
use crate::library::manifest::{BootFrom, BootStamp};
use crate::library::{
    BootTicket, Client, Error, Event, KernelFrom, Library, MacAddr, Mode, VersionId, Way,
};
use crate::web::{Problem, blocking_for_client};

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
    let url = format!("{base}/images/{image}/{number}");
    let files = match (kernel_from(ticket.way, esp, &version.manifest().boot), esp) {
        (KernelFrom::Disk, _) => return Ok(SanBoot { root, writes }.to_string()),
        (KernelFrom::Esp, _) => Files::Esp(url),
        (KernelFrom::Server, Some(_)) if ticket.way == Way::Esp => Files::StaleEsp(url),
        (KernelFrom::Server, _) => Files::Server(url),
    };
    let cfg = BootCfg {
        files,
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

/// Where a machine that boots this takes kernel and initramfs from, by the way that it goes and what is on
/// its own partition.
fn kernel_from(way: Way, esp: Option<BootStamp>, boot: &BootFrom) -> KernelFrom {
    match (way, boot) {
        (_, BootFrom::Disk(_)) => KernelFrom::Disk,
        (Way::Esp, _) if esp.is_some() && esp == boot.stamp() => KernelFrom::Esp,
        _ => KernelFrom::Server,
    }
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
    let portal = server.portal(SocketAddr::new(ip, 0));
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
    asker: Result<Query<Asker>, QueryRejection>,
) -> Result<Response, Problem> {
    let asker = asker.map_err(|wrong| unasked(&wrong))?.0;
    let call = Call::new(&server, asker, peer, &headers).await?;
    blocking_for_client(&server, move |server| {
        let answer = match server.library().machine(&call.asker.mac) {
            Ok(client) => known(server, &call, &client),
            Err(error @ Error::Unknown { .. }) => unknown::answer(server, &call, error).map(Ok),
            Err(error) => {
                let (mac, peer) = (call.asker.mac, call.peer.actor());
                if server.is_worth_a_word(call.from, &format!("no boot.cfg for {mac}")) {
                    tracing::warn!(%mac, %peer, "no boot.cfg was given: {error}");
                }
                Err(error)
            }
        };
        Ok(match answer? {
            Ok(script) => text(script),
            Err(withheld) => withheld.into_response(),
        })
    })
    .await
}

/// A script; or inside, why whoever asks is not given it.
pub(super) type Answer = Result<Result<String, Problem>, Error>;

/// What a client boots, or the menu that it chooses that from.
fn known(server: &Server, call: &Call, client: &Client) -> Answer {
    if let Some(image) = &call.asker.image {
        let ticket = server.library().issue_once(client, image);
        return booted(server, call, (client, client), ticket);
    }
    let shown = Shown::to(server, call, client)?;
    if let Shown::Instead(menu) = shown {
        server.saw_menu(&client.mac, menu.seconds, call.door.asks_as(client));
        return Ok(Ok(menu::script(server, call, client, &menu)));
    }
    let ticket = server.library().issue_boot(client);
    let answer = booted(server, call, (client, client), ticket)?;
    Ok(answer.map(|cfg| match shown {
        Shown::BehindKey(menu) => menu::behind_a_key(call, client, &menu, &cfg),
        _ => cfg,
    }))
}

/// The boot.cfg of a ticket for `client` at this machine, which is noted; or why there is none, for who
/// stands before the machine.
pub(super) fn booted(
    server: &Server,
    call: &Call,
    (client, machine): (&Client, &Client),
    ticket: Result<BootTicket, Error>,
) -> Answer {
    let (library, from) = (server.library(), call.door.asks_as(machine));
    let ticket = match ticket {
        Ok(ticket) => ticket,
        // Known, and yet there is nothing for it.
        Err(why @ Error::Refused { .. }) => {
            server.saw_nothing_to_boot(client.mac, from, &why.to_string());
            return Ok(Ok(failing(&why.to_string(), 30)));
        }
        Err(error) => return Err(error),
    };
    let given = match given(server, &call.door, (client, machine), &ticket, &call.base)? {
        Ok(given) => given,
        Err(withheld) => return Ok(Err(withheld)),
    };
    let (mac, portal, esp) = (call.asker.mac, server.portal(call.local), call.asker.esp);
    let cfg = client_cfg(library, &ticket, mac, &call.base, portal, esp, given)?;
    // In this order: whoever is given a script is booting as the client from then on.
    if let Some(stamp) = esp {
        // The partition is the machine's, whoever's disk boots from it.
        server.saw_esp(machine.mac, stamp, from);
    }
    let version = library.version(&ticket.version)?;
    let kernel = kernel_from(ticket.way, esp, &version.manifest().boot);
    server.saw_script(&ticket, kernel, from);
    if client.mac != machine.mac {
        server.saw_person(&machine.mac, client, &ticket, from);
    }
    if server.is_news(&ticket.client) {
        let event = Event::new(&call.peer.actor(), "boot-script").of(&ticket.client);
        let event = event.with("boot", ticket.id.to_string());
        library.note(&event.with("version", ticket.version.to_string()));
    }
    Ok(Ok(cfg))
}

pub(super) fn unasked(wrong: &QueryRejection) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        format!(
            "whose boot.cfg? Ask for /boot.cfg?mac=52:54:00:12:34:56 ({})",
            wrong.body_text()
        ),
    )
}
