//! The sockets of the server, opened before anything is promised.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::Group;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::datagrams::Datagrams;

/// Connections that may wait to be accepted: a room that is switched on at once.
const BACKLOG: i32 = 1024;

/// Members of this group may use the control socket.
const GROUP: &str = "netroot";

/// Listens on each of `addresses` for `what`.
pub(super) fn tcp(what: &str, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>> {
    let listen = |address: &SocketAddr| {
        one(*address).with_context(|| {
            format!("listening on {address} for the {what}; is another server running there?")
        })
    };
    addresses.iter().map(listen).collect()
}

/// Listens on `address`.
pub(super) fn one(address: SocketAddr) -> io::Result<TcpListener> {
    where_there_is(address, bound)
}

/// A UDP socket at `address` for `what`; `taken` is said where somebody else has the port.
pub(super) fn udp(what: &str, address: SocketAddr, taken: &str) -> Result<Datagrams> {
    where_there_is(address, Datagrams::bind).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => taken,
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 are for root, and for services with the capability \
                 CAP_NET_BIND_SERVICE (AmbientCapabilities=CAP_NET_BIND_SERVICE in the service's unit)"
            }
            _ => "is this an address of this host?",
        };
        anyhow::Error::new(error).context(format!("listening on UDP {address} for {what}: {why}"))
    })
}

/// Binds `address`. On a kernel without IPv6 what listens everywhere listens everywhere there is.
fn where_there_is<T>(
    address: SocketAddr,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    match bind(address) {
        Err(error)
            if error.raw_os_error() == Some(libc::EAFNOSUPPORT)
                && address.ip().is_unspecified() =>
        {
            bind(SocketAddr::new(
                IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                address.port(),
            ))
        }
        bound => bound,
    }
}

fn bound(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // IPv4 clients come in by the same socket, whatever the system's default.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The control socket at its place, removed when this is dropped.
#[derive(Debug)]
pub(super) struct ControlSocket {
    path: PathBuf,
    /// Where commands come in.
    pub listener: UnixListener,
}

impl ControlSocket {
    /// Makes the socket. The caller holds the live lock, so what a killed server left is in nobody's
    /// use.
    pub(super) fn new(path: &Path) -> Result<Self> {
        let draft = path.with_extension("new");
        let make = || -> io::Result<UnixListener> {
            for old in [&draft, path] {
                match fs::remove_file(old) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            let listener = UnixListener::bind(&draft)?;
            // Whoever may use it is an operator: the group's members, and nobody by the accident of
            // sharing the server's own group.
            let permissions = match Group::from_name(GROUP)? {
                Some(group) => match chown(&draft, None, Some(group.gid.as_raw())) {
                    Ok(()) => 0o660,
                    // A server that is neither root's nor a member's.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => 0o600,
                    Err(error) => return Err(error),
                },
                None => 0o600,
            };
            // It gets its name, and so its first caller, only now that it is closed to strangers.
            fs::set_permissions(&draft, fs::Permissions::from_mode(permissions))?;
            fs::rename(&draft, path)?;
            Ok(listener)
        };
        let listener =
            make().with_context(|| format!("making the control socket {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            listener,
        })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // The next server removes what could not be removed now.
        let _ = fs::remove_file(&self.path);
    }
}
