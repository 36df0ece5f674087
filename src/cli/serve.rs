//! `netroot serve`

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::command::{Cli, Serve};
use super::open;
use crate::daemon::{Listeners, Routers, Server, own_address, run};
use crate::library::{Actor, LiveLock};
use crate::web;

/// Calls of the library that somebody began before the end get this long; what is cut off then is
/// cleaned up as after any kill.
const LAST_WORK: Duration = Duration::from_secs(5);

pub(super) fn serve(cli: &Cli, _: &Serve) -> Result<()> {
    super::heap::keep_what_was_used();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the server's threads")?;
    let live = runtime.block_on(until_signal(cli))?;
    // What still works now may do so on live state, and cannot be called back. Nobody else acts on
    // that before the process is gone: the kernel lets go of the lock with its last thread.
    std::mem::forget(live);
    runtime.shutdown_timeout(LAST_WORK);
    Ok(())
}

/// Serves until a signal says to end. The lock that is returned keeps everybody else from live state.
async fn until_signal(cli: &Cli) -> Result<LiveLock> {
    let library = open(cli)?;
    let live = library.live_lock()?;
    let listeners = Listeners::open(&library)?;
    let (iscsi, boot) = (listeners.iscsi()?, listeners.boot()?);
    let admin = listeners.admin()?;
    for warning in listeners.warnings(&library.config())? {
        tracing::warn!("{warning}");
    }
    for address in &iscsi {
        tracing::info!("the iSCSI target listens on {address}");
    }
    for address in &boot {
        tracing::info!(
            "the boot service listens on {address}: clients chain to {}/boot.ipxe",
            reached_at("http", *address)
        );
    }
    let boot_tls = listeners.boot_tls()?;
    for address in &boot_tls {
        let url = reached_at("https", *address);
        tracing::info!("the boot service listens on {address} over TLS: {url}/boot.ipxe");
    }
    for address in listeners.dhcp()? {
        tracing::info!(
            "machines that boot from the network are told what to boot on UDP {address}"
        );
    }
    for address in listeners.tftp()? {
        tracing::info!("boot loaders are given by TFTP on {address}");
    }
    let scheme = listeners.fingerprint().map_or("http", |_| "https");
    for address in &admin {
        tracing::info!("the dashboard is at {}", reached_at(scheme, *address));
    }
    if let Some(fingerprint) = listeners.fingerprint() {
        tracing::info!("the SHA-256 of the dashboard's certificate is {fingerprint}");
    }
    if library.users()?.is_empty() && !admin.is_empty() {
        tracing::info!("nobody can log in to it yet: netroot user add --first");
    }
    let doors = listeners.doors(&library.config())?;
    let server = Server::new(library, tokio::runtime::Handle::current(), doors);
    let routers = Routers {
        boot: web::boot(server.clone()),
        admin: web::network(server.clone()),
        control: web::control(server.clone()),
    };
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("waiting for SIGHUP")?;
    let reloading = server.clone();
    let reload = tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // What came of it is logged and recorded.
            let _ = reloading.reload(&Actor::Server).await;
        }
    });
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending: clients are logged out, and come back to the next server");
    };
    if cli.json {
        // One line, so that whoever started the server can wait for it and look away.
        super::print::lines([serde_json::json!({
            "iscsi": iscsi, "boot": boot, "boot_tls": boot_tls, "admin": admin
        })
        .to_string()])?;
    }
    run(server, listeners, routers, shutdown).await;
    reload.abort();
    Ok(live)
}

/// The URL of a listener, as another machine would write it.
fn reached_at(scheme: &str, listening: SocketAddr) -> String {
    let everywhere = listening.ip().is_unspecified();
    let ip = own_address()
        .filter(|_| everywhere)
        .unwrap_or(listening.ip());
    format!("{scheme}://{}", SocketAddr::new(ip, listening.port()))
}
