//! `netroot boot …`

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};

use super::command::Cli;
use super::control::Control;
use super::{open, print};
use crate::daemon::{self, Doors};
use crate::library::config::ISCSI_PORT;
use crate::library::{Client, ClientSelector};
use crate::library::{Library, Way};
use crate::web;

pub(super) fn show(
    cli: &Cli,
    selector: &ClientSelector,
    server: Option<IpAddr>,
    way: Option<Way>,
) -> Result<()> {
    let library = open(cli)?;
    let client = one(&library, selector)?;
    let mut ticket = library.issue_boot(&client)?;
    let version = library.version(&ticket.version)?;
    if let Some(way) = way {
        version.ensure_way(way, &format!("booting {}", client.name))?;
        ticket.way = way;
    }
    // Whoever boots from its own partition is taken to have the right one.
    let esp = version.manifest().boot.stamp();
    let doors = doors(cli, &library)?;
    let portal = portal(&doors, server)?;
    let base = base(&doors, portal.ip());
    let given = web::Given::shown(&library, &ticket, &base)?;
    let cfg = web::client_cfg(&library, &ticket, client.mac, &base, portal, esp, given)?;
    match cli.json {
        true => print::json(&serde_json::json!({ "ticket": ticket, "boot_cfg": cfg })),
        false => print::lines([cfg.trim_end()]),
    }
}

pub(super) fn one(library: &Library, selector: &ClientSelector) -> Result<Client> {
    let mut clients = library.select(selector)?;
    match (clients.pop(), clients.is_empty()) {
        (Some(client), true) => Ok(client),
        _ => bail!("{selector} is more than one client: name one"),
    }
}

/// Where the server is reached: as it runs, or else as it is configured.
pub(super) fn doors(cli: &Cli, library: &Library) -> Result<Doors> {
    match Control::running(&cli.library)? {
        Some(server) => server.get("/api/v1/server"),
        None => Ok(Doors::configured(&library.config())),
    }
}

/// The target's portal as clients see it: what was asked for, what is announced, or this host's
/// address.
pub(super) fn portal(doors: &Doors, asked: Option<IpAddr>) -> Result<SocketAddr> {
    let port = doors.iscsi.first().map_or(ISCSI_PORT, SocketAddr::port);
    if let Some(ip) = asked {
        return Ok(SocketAddr::new(ip, port));
    }
    let mut listening = doors.iscsi.iter().map(SocketAddr::ip);
    let ip = listening
        .find(|ip| !ip.is_unspecified())
        .or_else(daemon::own_address);
    match (ip, doors.announce.first()) {
        (Some(ip), _) => Ok(doors.portal(SocketAddr::new(ip, 0))),
        (None, Some(announced)) => Ok(*announced),
        (None, None) => bail!(
            "this host's address is not known: set [iscsi] announce, or give it with --server"
        ),
    }
}

/// The boot service's URL, as clients see it that see the target at `ip`.
pub(super) fn base(doors: &Doors, ip: IpAddr) -> String {
    let port = doors.boot.first().map_or(80, SocketAddr::port);
    format!("http://{}", SocketAddr::new(ip, port))
}
