//! A ProxyDHCP server: hears which machines want to boot from the network, and tells those that it wants
//! what to boot. What is said stands in [`crate::boot::dhcp`].

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::Server;
use super::datagrams::{Arrival, Datagrams};
use super::listen;
use crate::boot::Loaders;
use crate::boot::dhcp::{CLIENT_PORT, Door, Found, Ignored, Query, Receiver};
use crate::library::Error;
use crate::library::config::{self, DhcpMode, ForUnknown, InterfaceName, PlainPolicy};

/// Larger than every packet that is read; what is cut off is none.
const BUFFER: usize = 8192;

/// A socket that does not work is left alone for so long.
const REST: Duration = Duration::from_millis(200);

/// Numbers of architectures without a loader that are told of, each once: firmware has few.
const TOLD: usize = 16;

/// Where machines are answered, and where that is on this host.
pub(super) fn doors(mode: DhcpMode) -> impl Iterator<Item = (Door, SocketAddr)> {
    let doors: &[Door] = match mode {
        DhcpMode::Off => &[],
        DhcpMode::Proxy => &[Door::Server, Door::Boot],
        DhcpMode::Proxy4011 => &[Door::Boot],
    };
    let everywhere = |door: Door| SocketAddr::from((Ipv4Addr::UNSPECIFIED, door.port()));
    doors.iter().map(move |&door| (door, everywhere(door)))
}

/// Opens the doors that the mode has.
pub(super) fn open(mode: DhcpMode) -> Result<Vec<(Door, Datagrams)>> {
    let open = |(door, at)| Ok((door, listen::udp("ProxyDHCP", at, taken(door))?));
    doors(mode).map(open).collect()
}

/// What to do where somebody else on this host has the port of a door.
fn taken(door: Door) -> &'static str {
    match door {
        Door::Server => {
            "is a DHCP server (dnsmasq, Kea) running on this host? Either it tells machines all: set [dhcp] \
             mode = \"off\" in netroot.toml, and add what `netroot boot dnsmasq` or `netroot boot kea` prints \
             to its configuration; or it sends them here: set mode = \"proxy-4011\", and have it say option \
             60, PXEClient"
        }
        Door::Boot => {
            "is another ProxyDHCP server running on this host, or a DHCP server (dnsmasq) that answers PXE \
             itself? End the one, and take the PXE services (dnsmasq's pxe-service, pxe-prompt) out of the \
             other's configuration; or have it tell machines all: set [dhcp] mode = \"off\" in netroot.toml, \
             and add what `netroot boot dnsmasq` or `netroot boot kea` prints"
        }
    }
}

/// Answers those who come to one of them, until `over` resolves.
pub(super) async fn serve(
    server: Arc<Server>,
    (door, socket): (Door, Datagrams),
    over: impl Future<Output = ()>,
) {
    tokio::select! {
        () = Desk::new(&server, socket, door).answer_all() => {}
        () = over => {}
    }
}

/// One of the sockets, at work. One packet after the other: each takes less than a millisecond, and a
/// flood waits in the socket's buffer, which drops what is too much.
struct Desk {
    server: Arc<Server>,
    socket: Datagrams,
    door: Door,
    /// Architectures that somebody was told of that there is nothing for.
    told: BTreeSet<u16>,
}

/// What a machine is to be told.
enum Word {
    /// What to boot, by the boot service at this URL.
    Boot(String),
    /// Nothing: this server lacks something that it would need.
    Lacks(String),
    /// Nothing: it is not to boot from here.
    Unwanted,
}

impl Desk {
    fn new(server: &Arc<Server>, socket: Datagrams, door: Door) -> Self {
        Desk {
            server: server.clone(),
            socket,
            door,
            told: BTreeSet::new(),
        }
    }

    async fn answer_all(mut self) {
        let mut buffer = vec![0; BUFFER];
        loop {
            match self.socket.receive(&mut buffer).await {
                Ok((length, came)) => {
                    let packet = buffer.get(..length).unwrap_or_default();
                    if let Err(error) = self.answer(packet, &came).await {
                        tracing::warn!(from = %came.from, %error, "a DHCP answer could not be sent");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "DHCP cannot be heard");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }

    async fn answer(&mut self, packet: &[u8], came: &Arrival) -> io::Result<()> {
        let (IpAddr::V4(local), SocketAddr::V4(from)) = (came.local, came.from) else {
            return Ok(());
        };
        if !self.listens_on(came.interface) {
            return Ok(());
        }
        let query = match Query::parse(packet) {
            Ok(query) => query,
            Err(why) => {
                self.ignore(why, from);
                return Ok(());
            }
        };
        let Some(receiver) = query.receiver(self.door, from, came.is_unicast()) else {
            return Ok(());
        };
        let mac = query.mac;
        let asked = query.clone();
        let peer = query.has_chosen.then(|| from.ip().to_owned().into());
        let word = self.server.call_for_firmware(move |server| {
            server.saw_dhcp(&asked.mac, peer, asked.firmware);
            word(server, &asked, local)
        });
        let base = match word.await {
            Some(Word::Boot(base)) => base,
            Some(Word::Lacks(why)) => {
                self.tell(query.firmware.architectures().first().copied(), &why);
                return Ok(());
            }
            // It is nobody's client, or this panicked, which is in the log.
            Some(Word::Unwanted) | None => return Ok(()),
        };
        let answer = query.answer(&Found {
            server: local,
            base: &base,
        });
        let to = match receiver {
            Receiver::Everybody => SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT),
            Receiver::One(one) => one,
        };
        tracing::debug!(%mac, firmware = %query.firmware, file = query.boot_file(&base), %to, "told what to boot");
        self.socket
            .send_back(&answer, to, (local, came.interface))
            .await
    }

    /// Whether this interface is one of those that are meant.
    fn listens_on(&self, interface: u32) -> bool {
        let config = self.server.library().config();
        let name = nix::net::if_::if_indextoname(interface);
        let name = name.ok().and_then(|name| name.into_string().ok());
        match (config.dhcp.interfaces.as_slice(), name) {
            // It has gone since.
            (_, None) => false,
            ([], Some(name)) => name != "lo",
            (wanted, Some(name)) => wanted.iter().any(|wanted| wanted.as_str() == name),
        }
    }

    /// Most of what is heard is none of ours; that somebody's machine cannot be booted is worth a word.
    fn ignore(&mut self, why: Ignored, from: SocketAddrV4) {
        tracing::trace!(%from, "a DHCP packet is left alone: {why}");
        if let Ignored::Architecture(number) = why {
            self.tell(Some(number), &why.to_string());
        }
    }

    /// Tells why machines of an architecture are not booted, once.
    fn tell(&mut self, architecture: Option<u16>, why: &str) {
        let number = architecture.unwrap_or(u16::MAX);
        if self.told.len() < TOLD && self.told.insert(number) {
            tracing::warn!("a machine asks what to boot, and is told nothing: {why}");
        }
    }
}

/// What would keep machines from being told.
pub(super) fn warnings(config: &config::Dhcp) -> Vec<String> {
    let names = config.interfaces.iter().map(InterfaceName::as_str);
    let missing = names.filter(|name| nix::net::if_::if_nametoindex(*name).is_err());
    let warning = |name| {
        format!(
            "there is no network interface {name} now, which [dhcp] interfaces names: machines behind it \
             are told nothing"
        )
    };
    missing.map(warning).collect()
}

/// What a machine is to be told, where it is known by `local`. Blocks.
fn word(server: &Server, query: &Query, local: Ipv4Addr) -> Word {
    let config = server.library().config();
    let refuses_strangers = config.boot.unknown == ForUnknown::Plain(PlainPolicy::Refuse);
    // What is wrong with a client's document is told by its script, to who stands before the machine.
    let is_stranger = || {
        matches!(
            server.library().client(&query.mac),
            Err(Error::Unknown { .. })
        )
    };
    if refuses_strangers && is_stranger() {
        return Word::Unwanted;
    }
    let (loaders, loader) = (Loaders::new(&config.boot), query.firmware.loader());
    if !query.is_ipxe && loaders.path(loader).is_none() {
        return Word::Lacks(loaders.missing(loader));
    }
    match server.boot_base(local.into()) {
        Some(base) => Word::Boot(base),
        None => Word::Lacks("the boot service listens nowhere ([boot] listen)".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::dhcp::tests::firmware_looks;
    use crate::daemon::Doors;
    use crate::library::Library;

    #[test]
    fn who_has_its_port_taken_is_not_told_to_set_the_mode_that_is_set() {
        let told = |mode: DhcpMode| doors(mode).map(|(door, _)| taken(door)).collect::<Vec<_>>();
        assert!(told(DhcpMode::Proxy)[0].contains("proxy-4011"));
        let only = told(DhcpMode::Proxy4011);
        assert_eq!(only.len(), 1);
        assert!(!only[0].contains("proxy-4011"), "{only:?}");
        assert!(only[0].contains("PXE services"), "{only:?}");
    }

    #[tokio::test]
    async fn firmware_is_looked_after_while_logins_wait() {
        let (dir, library) = Library::temporary();
        let own = dir.path().join("own.toml");
        std::fs::write(&own, "[dhcp]\ninterfaces = [\"lo\"]\n").unwrap();
        let file = library.root().join("netroot.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        // Without a loader it comes to a word for the log, and nothing is sent.
        let empty = format!("[boot]\nipxe_dir = {:?}", dir.path().join("empty"));
        let without = text
            .lines()
            .filter(|line| !line.starts_with("ipxe_dir"))
            .map(|line| line.replace("[boot]", &empty) + "\n");
        std::fs::write(&file, without.collect::<String>()).unwrap();
        let library = Library::open(library.root(), Some(&own)).unwrap();
        let doors = Doors::configured(&library.config());
        let server = Server::new(library, tokio::runtime::Handle::current(), doors);
        let _all = server.calls.all_of_clients().await;
        let socket = Datagrams::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let mut desk = Desk::new(&server, socket, Door::Server);
        let came = Arrival {
            from: SocketAddr::from((Ipv4Addr::LOCALHOST, CLIENT_PORT)),
            to: Ipv4Addr::BROADCAST.into(),
            local: Ipv4Addr::LOCALHOST.into(),
            interface: nix::net::if_::if_nametoindex("lo").unwrap(),
        };
        let looks = firmware_looks();
        let answered = tokio::time::timeout(Duration::from_secs(10), desk.answer(&looks, &came));
        answered.await.expect("it does not wait for them").unwrap();
        assert_eq!(desk.told, [7].into(), "by the number of UEFI for x64");
    }
}
