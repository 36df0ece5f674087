//! `netroot boot …` and `netroot esp …`

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};

use super::command::{Cli, EspExport};
use super::control::Control;
use super::{open, print};
use crate::boot::{BootCfg, Esp, Portal, Root, Writes, find_loader, runs_autoexec};
use crate::daemon::{self, Doors};
use crate::library::config::ISCSI_PORT;
use crate::library::manifest::BootFrom;
use crate::library::{Client, ClientSelector};
use crate::library::{Library, Mode, Target};
use crate::web;

pub(super) fn show(cli: &Cli, selector: &ClientSelector, server: Option<IpAddr>) -> Result<()> {
    let library = open(cli)?;
    let client = one(&library, selector)?;
    let ticket = library.issue_boot(&client)?;
    let doors = doors(cli, &library)?;
    let portal = portal(&doors, server)?;
    let port = doors.boot.first().map_or(80, SocketAddr::port);
    let base = format!("http://{}", SocketAddr::new(portal.ip(), port));
    let cfg = web::client_cfg(&library, &ticket, client.mac, &base, portal)?;
    match cli.json {
        true => print::json(&serde_json::json!({ "ticket": ticket, "boot_cfg": cfg })),
        false => print::lines([cfg.trim_end()]),
    }
}

pub(super) fn export(cli: &Cli, args: &EspExport) -> Result<()> {
    let library = open(cli)?;
    if args
        .dir
        .extension()
        .is_some_and(|extension| extension == "img")
        && !args.dir.is_dir()
    {
        bail!(
            "exporting boot files to {}: this writes a directory, not a disk image; name a directory",
            args.dir.display()
        );
    }
    let portal = portal(&doors(cli, &library)?, args.server)?;
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
    if let BootFrom::Disk(_) = version.manifest().boot {
        bail!(
            "exporting boot files for {}: it boots from its own disk, so there is no kernel to export, \
             and a static boot.cfg would give every machine the same disk, read-only; boot it over \
             HTTP by boot.ipxe, in mode persistent or ephemeral",
            version.id()
        );
    }
    let facts = &version.manifest().facts;
    let kernel_args = match &client {
        Some(client) => library.kernel_args(client)?,
        None => library.config().boot.kernel_args.clone(),
    };
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
    match &loader {
        None => print::warning(&format!(
            "there is no iPXE in {}, so efi/boot/bootx64.efi is left out: install the package ipxe, \
             or name a loader with --ipxe",
            library.config().boot.ipxe_dir.display()
        )),
        Some(loader) if !runs_autoexec(loader).context("reading the loader")? => {
            print::warning(&format!(
                "{} is too old to run autoexec.ipxe by itself: it stops at its prompt; take an iPXE \
                 of 2021 or later with --ipxe",
                loader.display()
            ));
        }
        Some(_) => {}
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

/// Where the server is reached: as it runs, or else as it is configured.
fn doors(cli: &Cli, library: &Library) -> Result<Doors> {
    match Control::running(&cli.library)? {
        Some(server) => server.get("/api/v1/server"),
        None => Ok(Doors::configured(&library.config())),
    }
}

/// The target's portal as clients see it: what was asked for, what is announced, or this host's
/// address.
fn portal(doors: &Doors, asked: Option<IpAddr>) -> Result<SocketAddr> {
    let port = doors.iscsi.first().map_or(ISCSI_PORT, SocketAddr::port);
    if let Some(ip) = asked {
        return Ok(SocketAddr::new(ip, port));
    }
    let mut listening = doors.iscsi.iter().map(SocketAddr::ip);
    let ip = listening
        .find(|ip| !ip.is_unspecified())
        .or_else(daemon::own_address);
    match (ip, doors.announce.first()) {
        (Some(ip), _) => Ok(doors.portal(ip)),
        (None, Some(announced)) => Ok(*announced),
        (None, None) => bail!(
            "this host's address is not known: set [iscsi] announce, or give it with --server"
        ),
    }
}
