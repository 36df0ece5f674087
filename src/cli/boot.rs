//! `netroot boot …` and `netroot esp …`

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};

use super::command::{Cli, EspExport};
use super::{open, print};
use crate::boot::{BootCfg, Esp, Portal, Root, Writes, find_loader};
use crate::daemon;
use crate::library::{Client, ClientSelector};
use crate::library::{Library, Mode, Target};
use crate::web;

pub(super) fn show(cli: &Cli, selector: &ClientSelector, server: Option<IpAddr>) -> Result<()> {
    let library = open(cli)?;
    let client = one(&library, selector)?;
    let ticket = library.issue_boot(&client)?;
    let portal = portal(&library, server)?;
    let port = library
        .config()
        .boot
        .listen
        .first()
        .map_or(80, SocketAddr::port);
    let base = format!("http://{}", SocketAddr::new(portal.ip(), port));
    let cfg = web::client_cfg(&library, &ticket, client.mac, &base, portal)?;
    match cli.json {
        true => print::json(&serde_json::json!({ "ticket": ticket, "boot_cfg": cfg })),
        false => print::lines([cfg.trim_end()]),
    }
}

pub(super) fn export(cli: &Cli, args: &EspExport) -> Result<()> {
    let library = open(cli)?;
    let portal = portal(&library, args.server)?;
    let portal = Portal {
        ip: portal.ip(),
        port: portal.port(),
    };
    let client = args
        .client
        .as_ref()
        .map(|selector| one(&library, selector))
        .transpose()?;
    let spec = match (&client, &args.image) {
        (Some(client), _) if client.mode != Mode::Shared => bail!(
            "exporting boot files for {}: in mode {} each boot needs an id of its own, which a static \
             boot.cfg cannot have; set its mode to shared, or boot it over HTTP by boot.ipxe",
            client.name,
            client.mode
        ),
        (Some(client), _) => &client.image,
        (None, Some(image)) => image,
        (None, None) => bail!("say whose boot files: --image IMAGE or --client CLIENT"),
    };
    let version = library.resolve(spec)?;
    let facts = &version.manifest().facts;
    let mut kernel_args = library.config().boot.kernel_args.clone();
    kernel_args.extend(client.iter().flat_map(|client| client.args.clone()));
    // Somebody who names a version means that one; the image's name goes on meaning whatever is
    // current.
    let target = match spec.number {
        Some(_) => Target::Version(version.id().clone()),
        None => Target::Alias(spec.image.clone()),
    };
    let cfg = BootCfg {
        prefix: None,
        kernel: &facts.kernel_version,
        initramfs: &facts.early,
        root: Root {
            portal,
            target: library.target_name(&target),
            lun: library.config().iscsi.lun.number(),
            initiator: None,
        },
        writes: if client.is_some() {
            Writes::Ram
        } else {
            Writes::None
        },
        mac: client.as_ref().map(|client| client.mac),
        nameservers: &library.config().boot.nameservers,
        args: &kernel_args,
    };
    let loader = args
        .ipxe
        .clone()
        .or_else(|| find_loader(&library.config().boot.ipxe_dir));
    let esp = Esp::new(
        &cfg,
        &version.kernel_path(),
        &version.initramfs_path(),
        loader.as_deref(),
    );
    if !args.run.dry_run {
        esp.write(&args.dir)
            .with_context(|| format!("exporting boot files to {}", args.dir.display()))?;
    }
    if loader.is_none() {
        eprintln!(
            "netroot: there is no iPXE in {}, so efi/boot/bootx64.efi is left out: install the package \
             ipxe, or name a loader with --ipxe",
            library.config().boot.ipxe_dir.display()
        );
    }
    if cli.json {
        return print::json(&esp);
    }
    let verb = if args.run.dry_run {
        "would write"
    } else {
        "wrote"
    };
    print::lines(
        esp.files
            .iter()
            .map(|file| format!("{verb} {}", args.dir.join(&file.path).display())),
    )
}

fn one(library: &Library, selector: &ClientSelector) -> Result<Client> {
    let mut clients = library.select(selector)?;
    match (clients.pop(), clients.is_empty()) {
        (Some(client), true) => Ok(client),
        _ => bail!("{selector} is more than one client: name one"),
    }
}

/// The target's portal as clients see it: what was asked for, what is announced, or this host's
/// address.
fn portal(library: &Library, asked: Option<IpAddr>) -> Result<SocketAddr> {
    let config = &library.config().iscsi;
    let port = config
        .listen
        .first()
        .map_or(crate::library::config::ISCSI_PORT, SocketAddr::port);
    if let Some(ip) = asked {
        return Ok(SocketAddr::new(ip, port));
    }
    if let Some(announced) = config.announce.first() {
        return Ok(announced.address());
    }
    let listening = config
        .listen
        .iter()
        .map(|address| address.ip())
        .find(|ip| !ip.is_unspecified());
    let ip = listening.or_else(daemon::own_address).context(
        "this host's address is not known: set [iscsi] announce, or give it with --server",
    )?;
    Ok(SocketAddr::new(ip, port))
}
