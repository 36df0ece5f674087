//! The server from its first socket to its last session.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::datagrams::Datagrams;
use super::listen::{self, ControlSocket};
use super::reach::{self, Door};
use super::tls::{Purpose, Tls, TlsListener};
use super::{Doors, Server, Targets, dhcp, http, tftp};
use crate::boot::{self, Loaders};
use crate::exec;
use crate::iscsi::{self, Limits};
use crate::library::{Config, Library, config};

/// Open sockets, before anything is answered on them.
pub struct Listeners {
    /// What the target's listeners were asked for.
    names: Vec<SocketAddr>,
    iscsi: Vec<TcpListener>,
    boot: Vec<TcpListener>,
    boot_tls: Vec<TlsListener>,
    admin: Vec<TcpListener>,
    dhcp: Vec<(boot::dhcp::Door, Datagrams)>,
    tftp: Vec<Datagrams>,
    tls: Option<Tls>,
    control: ControlSocket,
}

/// What is answered over HTTP.
pub struct Routers {
    /// To clients, without login: scripts, kernels, initramfs.
    pub boot: Router,
    /// Dashboard and API, for whoever is logged in.
    pub admin: Router,
    /// To this host's admins, over the control socket.
    pub control: Router,
}

impl Listeners {
    /// Opens the sockets that the library's configuration names. The caller holds the live lock.
    pub fn open(library: &Library) -> Result<Self> {
        let config = library.config();
        exec::allow_many_files();
        let boot_tls = match Tls::configured(library, Purpose::Boot)? {
            None => Vec::new(),
            Some(tls) => listen::tcp("boot service over TLS", &config.boot.tls_listen)?
                .into_iter()
                .map(|listener| TlsListener {
                    listener,
                    tls: tls.clone(),
                })
                .collect(),
        };
        Ok(Self {
            names: config.iscsi.listen.clone(),
            iscsi: listen::tcp("iSCSI target", &config.iscsi.listen)?,
            boot: listen::tcp("boot service", &config.boot.listen)?,
            admin: listen::tcp("dashboard", &config.admin.listen)?,
            boot_tls,
            dhcp: dhcp::open(config.dhcp.mode)?,
            tftp: tftp::open(&config.tftp_listen())?,
            tls: Tls::configured(library, Purpose::Admin)?,
            control: ControlSocket::new(&library.control_socket())?,
        })
    }

    /// Where the target listens.
    pub fn iscsi(&self) -> Result<Vec<SocketAddr>> {
        addresses(&self.iscsi)
    }

    /// Where the boot service listens.
    pub fn boot(&self) -> Result<Vec<SocketAddr>> {
        addresses(&self.boot)
    }

    /// Where the boot service listens for connections over TLS.
    pub fn boot_tls(&self) -> Result<Vec<SocketAddr>> {
        addresses(self.boot_tls.iter().map(|one| &one.listener))
    }

    /// Where dashboard and API listen.
    pub fn admin(&self) -> Result<Vec<SocketAddr>> {
        addresses(&self.admin)
    }

    /// Where machines are told what to boot, if they are.
    pub fn dhcp(&self) -> Result<Vec<SocketAddr>> {
        datagrams(self.dhcp.iter().map(|(_, socket)| socket))
    }

    /// Where loaders are given over TFTP.
    pub fn tftp(&self) -> Result<Vec<SocketAddr>> {
        datagrams(&self.tftp)
    }

    /// The fingerprint of the dashboard's certificate, if it speaks TLS.
    pub fn fingerprint(&self) -> Option<String> {
        self.tls.as_ref().map(Tls::fingerprint)
    }

    /// Where clients find the server.
    pub fn doors(&self, config: &Config) -> Result<Doors> {
        Ok(Doors {
            iscsi: self.iscsi()?,
            boot: self.boot()?,
            boot_tls: self.boot_tls()?,
            admin: self.admin()?,
            dhcp: self.dhcp()?,
            tftp: self.tftp()?,
            ..Doors::configured(config)
        })
    }

    /// What would keep clients out.
    pub fn warnings(&self, config: &Config) -> Result<Vec<String>> {
        let door = |what| move |address| Door { what, address };
        let mut doors: Vec<Door> = self.iscsi()?.into_iter().map(door("iSCSI")).collect();
        doors.extend(self.boot()?.into_iter().map(door("boot service")));
        doors.extend(self.boot_tls()?.into_iter().map(door("boot service (TLS)")));
        let announced = Doors::configured(config).announce;
        let mut warnings = reach::warnings(&doors, &announced);
        let strangers = self
            .admin()?
            .into_iter()
            .filter(|to| !to.ip().is_loopback());
        if let (Some(address), None) = (strangers.min(), &self.tls) {
            warnings.push(format!(
                "dashboard and API listen on {address} without TLS: whoever can watch the network reads \
                 passwords; set [admin] tls in netroot.toml"
            ));
        }
        let withheld = reach::withheld(config.boot.secrets, &self.boot_tls()?);
        warnings.extend(withheld.map(String::from));
        warnings.extend(config.left_out());
        let loaders = Loaders::new(&config.boot);
        if !self.tftp.is_empty() || !self.dhcp.is_empty() {
            warnings.extend(loaders.warnings());
        }
        match (self.dhcp.is_empty(), self.tftp.is_empty()) {
            (false, _) => warnings.extend(dhcp::warnings(&config.dhcp)),
            (true, true) => {}
            (true, false) => warnings.extend(loaders.warnings_without_dhcp()),
        }
        Ok(warnings)
    }
}

/// What initiators may use of the server, as its configuration has it.
fn limits(iscsi: &config::Iscsi) -> Limits {
    let connections = iscsi.connections.get() as usize;
    Limits {
        connections,
        strangers: connections.div_ceil(4),
        connections_per_address: iscsi.connections_per_address.get() as usize,
        memory: u64::from(iscsi.memory.get()) * 1024 * 1024,
        ..Limits::default()
    }
}

/// All parts but the target get this long to end.
const END: Duration = Duration::from_secs(10);

/// The target gets so long, for the last flushes of its disks: should the host go down afterwards, what an
/// overlay was given since the one before would be lost without it. A disk that does not answer keeps the next
/// server waiting for no longer, and a service manager from nothing (systemd: 90 s).
const LAST_FLUSHES: Duration = Duration::from_secs(60);

/// Serves until `shutdown` resolves, then logs clients out and returns within seconds.
pub async fn run(
    server: Arc<Server>,
    listeners: Listeners,
    routers: Routers,
    shutdown: impl Future<Output = ()>,
) {
    // Every part hears the same end, and each has its own way to come to it.
    let over = |server: &Arc<Server>| {
        let server = server.clone();
        async move { server.ending().await }
    };
    let mut parts = JoinSet::new();
    // Before the first login: what hosts have reserved holds from the beginning.
    if let Some(Err(error)) = server.call(|server| server.refresh_volumes()).await {
        tracing::error!(
            error = super::targets::told(&error),
            "cannot read the volumes"
        );
    }
    // And before the first request: it belongs to them.
    server.call(|server| server.resume_boots()).await;
    let targets = Arc::new(Targets::new(server.clone()));
    let sessions = server.sessions.clone();
    // By the addresses that were asked for, which a configuration that is read anew names again.
    for (name, listener) in listeners.names.into_iter().zip(listeners.iscsi) {
        if let Err(error) = server.portals.open(name, listener) {
            tracing::error!(%name, %error, "cannot open a portal");
        }
    }
    let target = tokio::spawn(iscsi::serve_at(
        server.portals.clone(),
        targets,
        sessions,
        limits(&server.library.config().iscsi),
        over(&server),
    ));
    server.attached.serves();
    let admin_tls = listeners.tls.iter();
    let boot_tls = listeners.boot_tls.iter().map(|one| &one.tls).take(1);
    server.keep_certificates(admin_tls.chain(boot_tls).cloned().collect());
    for listener in listeners.boot {
        parts.spawn(http::serve(listener, routers.boot.clone(), over(&server)));
    }
    for listener in listeners.boot_tls {
        parts.spawn(http::serve(listener, routers.boot.clone(), over(&server)));
    }
    for listener in listeners.admin {
        let router = routers.admin.clone();
        match listeners.tls.clone() {
            Some(tls) => {
                let listener = TlsListener { listener, tls };
                parts.spawn(http::serve(listener, router, over(&server)))
            }
            None => parts.spawn(http::serve(listener, router, over(&server))),
        };
    }
    for socket in listeners.tftp {
        parts.spawn(tftp::serve(server.clone(), socket, over(&server)));
    }
    for door in listeners.dhcp {
        parts.spawn(dhcp::serve(server.clone(), door, over(&server)));
    }
    let control = listeners.control;
    let router = routers.control;
    let heard = over(&server);
    parts.spawn(async move {
        http::serve(&control.listener, router, heard).await;
        drop(control);
    });
    let sampling = tokio::spawn(server.clone().sample());
    let rolling = tokio::spawn(server.clone().roll_out());
    let remembering = tokio::spawn(server.clone().remember());
    let keeping = tokio::spawn(server.clone().keep_house());
    shutdown.await;
    server.end();
    rolling.abort();
    remembering.abort();
    keeping.abort();
    let ended_badly = |part: std::result::Result<(), tokio::task::JoinError>| {
        if let Err(error) = part {
            tracing::error!(%error, "a part of the server ended badly");
        }
    };
    let flushed = tokio::time::timeout(LAST_FLUSHES, target).await;
    match flushed {
        Ok(part) => ended_badly(part),
        Err(_) => tracing::warn!("not all disks were flushed in time"),
    }
    let ended = async {
        while let Some(part) = parts.join_next().await {
            ended_badly(part);
        }
        server.notes.written().await;
        ended_badly(sampling.await);
        server.remember_now().await;
        server.keep_all_boots().await;
    };
    if tokio::time::timeout(END, ended).await.is_err() {
        tracing::warn!("not everything came to its end in time, and is cut off");
    }
}

fn addresses<'a>(listeners: impl IntoIterator<Item = &'a TcpListener>) -> Result<Vec<SocketAddr>> {
    let address = |listener: &TcpListener| {
        listener
            .local_addr()
            .context("asking for a listener's address")
    };
    listeners.into_iter().map(address).collect()
}

fn datagrams<'a>(sockets: impl IntoIterator<Item = &'a Datagrams>) -> Result<Vec<SocketAddr>> {
    let addresses: io::Result<_> = sockets.into_iter().map(Datagrams::local_addr).collect();
    addresses.context("asking for a socket's address")
}
