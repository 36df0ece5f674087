//! `netroot boot dnsmasq` and `netroot boot kea`

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, bail};

use super::boot::{doors, portal};
use super::command::Cli;
use super::{open, print};
use crate::boot::{Loaders, dhcp};

pub(super) fn dnsmasq(cli: &Cli, server: Option<Ipv4Addr>) -> Result<()> {
    let (server, base) = reached_at(cli, server)?;
    let text = dhcp::dnsmasq(server, &base);
    match cli.json {
        true => print::json(&serde_json::json!({ "dnsmasq": text })),
        false => print::lines([text.trim_end()]),
    }
}

pub(super) fn kea(cli: &Cli, server: Option<Ipv4Addr>) -> Result<()> {
    let (server, base) = reached_at(cli, server)?;
    print::json(&dhcp::kea(server, &base))
}

/// The server's address and the URL of its boot service, as machines on its network know them.
fn reached_at(cli: &Cli, asked: Option<Ipv4Addr>) -> Result<(Ipv4Addr, String)> {
    let library = open(cli)?;
    let doors = doors(cli, &library)?;
    let server = match portal(&doors, asked.map(IpAddr::V4))?.ip() {
        IpAddr::V4(server) => server,
        IpAddr::V6(server) => bail!(
            "this server is known as {server}, and DHCP names IPv4 addresses only: give the one that \
             machines reach it by with --server"
        ),
    };
    let base = doors
        .boot_base(server.into())
        .context("the boot service listens nowhere: set [boot] listen in netroot.toml")?;
    if doors.tftp.is_empty() {
        print::warning(
            "nothing gives boot loaders by TFTP yet: set [tftp] listen = [\"[::]:69\"] in netroot.toml, and \
             start netroot serve anew",
        );
    }
    if !doors.dhcp.is_empty() {
        print::warning(
            "[dhcp] mode is \"proxy\", so that netroot serve tells the same: one of the two is enough",
        );
    }
    for warning in Loaders::new(&library.config().boot).warnings() {
        print::warning(&warning);
    }
    Ok((server, base))
}
