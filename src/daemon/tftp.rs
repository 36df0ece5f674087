//! Boot loaders over TFTP, for firmware that knows nothing better. What is said stands in
//! [`crate::boot::tftp`].

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use anyhow::Result;
use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::datagrams::{Arrival, Datagrams, answering};
use super::places::{Place, Places};
use super::{Server, Whose, listen, network};
use crate::boot::tftp::{Code, ReadRequest, Refused, Step, Transfer, error};
use crate::boot::{AUTOEXEC, Loaders, network_ipxe};

/// Transfers at a time: a large room that is switched on at once.
const TRANSFERS: u64 = 512;

/// The same, of one address (IPv6: of one network): firmware has one or two, and a few machines may stand
/// behind a router.
const TRANSFERS_OF_ONE: u64 = 16;

/// How long one may take. A loader has a megabyte.
const LONGEST: Duration = Duration::from_secs(300);

/// Larger files are no loaders, and are not held in memory.
const LARGEST_FILE: u64 = 16 << 20;

/// What goes through Ethernet in one piece: 1500 bytes, less the headers of IP, UDP and TFTP.
const BLOCK_V4: u16 = 1500 - 20 - 8 - 4;
const BLOCK_V6: u16 = 1500 - 40 - 8 - 4;

/// Larger than every packet that is read; what is cut off is none.
const BUFFER: usize = 1024;

/// A socket that does not work is left alone for so long.
const REST: Duration = Duration::from_millis(200);

/// What is said of a transfer that came to its end.
const SENT: &str = "sent";

/// The sockets that `addresses` name, open.
pub(super) fn open(addresses: &[SocketAddr]) -> Result<Vec<Datagrams>> {
    const TAKEN: &str = "is another TFTP server (dnsmasq, tftpd) running on this host? End it, or let \
                         netroot listen elsewhere by [tftp] listen in netroot.toml";
    let open = |address: &SocketAddr| listen::udp("TFTP", *address, TAKEN);
    addresses.iter().map(open).collect()
}

/// Gives files to whoever asks on `socket`, until `over` resolves.
pub(super) async fn serve(server: Arc<Server>, socket: Datagrams, over: impl Future<Output = ()>) {
    let mut desk = Desk::new(server);
    let mut buffer = vec![0; BUFFER];
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = &mut over => return,
            Some(ended) = desk.transfers.join_next_with_id() => {
                let id = ended.map_or_else(|failed| failed.id(), |(id, ())| id);
                desk.going.remove(&id);
            }
            received = socket.receive(&mut buffer) => match received {
                Ok((length, came)) => desk.begin(buffer.get(..length).unwrap_or_default(), came),
                Err(error) => {
                    tracing::warn!(%error, "TFTP cannot be heard");
                    tokio::time::sleep(REST).await;
                }
            },
        }
    }
}

/// Where transfers begin. They end with it.
struct Desk {
    server: Arc<Server>,
    files: Arc<Files>,
    places: Arc<Places<IpAddr>>,
    transfers: JoinSet<()>,
    going: HashMap<Id, Going>,
}

/// A transfer that goes on.
struct Going {
    peer: SocketAddr,
    began: Instant,
    /// Whether the peer has acknowledged anything.
    answered: Arc<AtomicBool>,
    task: AbortHandle,
    _place: Place<IpAddr>,
}

impl Desk {
    fn new(server: Arc<Server>) -> Self {
        Desk {
            server,
            files: Arc::default(),
            places: Places::new(TRANSFERS_OF_ONE, TRANSFERS),
            transfers: JoinSet::new(),
            going: HashMap::new(),
        }
    }

    fn begin(&mut self, packet: &[u8], came: Arrival) {
        // RFC 1123 §4.2.3.5: a request to everybody is nobody's. And who asks twice from one port has not
        // got the first answer yet, which is on its way.
        if !came.is_unicast() || self.going.values().any(|one| one.peer == came.from) {
            return;
        }
        let request = match ReadRequest::parse(packet) {
            Err(Refused::Ignored) => return,
            Err(Refused::Told(packet)) => Err(packet),
            Ok(request) => Ok(request),
        };
        if self.going.len() as u64 >= TRANSFERS {
            self.make_room();
        }
        let Some(place) = self.places.take(network(came.from.ip()), 1) else {
            // It asks again in a second.
            return;
        };
        let (server, files) = (self.server.clone(), self.files.clone());
        let answered = Arc::<AtomicBool>::default();
        let is_answered = answered.clone();
        let task = self.transfers.spawn(async move {
            let (from, file) = (came.from, request.as_ref().map(|r| r.file.clone()).ok());
            let given = give(&server, &files, request, &came, &is_answered);
            let whole = tokio::time::timeout(LONGEST, given).await;
            let said = match whole {
                Ok(Ok(said)) => said.to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => String::from("it took too long"),
            };
            tracing::debug!(%from, file, "TFTP: {said}");
        });
        let going = Going {
            peer: came.from,
            began: Instant::now(),
            answered,
            task,
            _place: place,
        };
        self.going.insert(going.task.id(), going);
    }

    /// Ends the oldest of the transfers whose peers may not be there at all, as senders of packets that ask
    /// can be made up: a client that is there answers within a millisecond.
    fn make_room(&mut self) {
        let silent = |one: &&Going| !one.answered.load(Ordering::Relaxed);
        let silent = self.going.values().filter(silent);
        if let Some(oldest) = silent.min_by_key(|one| one.began) {
            oldest.task.abort();
            let id = oldest.task.id();
            self.going.remove(&id);
        }
    }
}

/// Gives what was asked for, or says why not; what came of it.
async fn give(
    server: &Arc<Server>,
    files: &Arc<Files>,
    request: std::result::Result<ReadRequest, Vec<u8>>,
    came: &Arrival,
    answered: &AtomicBool,
) -> io::Result<&'static str> {
    let socket = answering(came).await?;
    let request = match request {
        Ok(request) => request,
        Err(packet) => {
            socket.send(&packet).await?;
            return Ok("refused");
        }
    };
    let (name, local, files) = (request.file.clone(), came.local, files.clone());
    let read = server
        .call_for_firmware(move |server| files.read(server, &name, local))
        .await;
    let data = match read {
        Some(Ok(Some(data))) => data,
        Some(Ok(None)) => {
            let packet = error(Code::NotFound, "there is no such boot loader here");
            socket.send(&packet).await?;
            return Ok("there is no such file");
        }
        failed => {
            let packet = error(
                Code::Undefined,
                "the server cannot read it; its log has more",
            );
            socket.send(&packet).await?;
            if let Some(Err(error)) = failed {
                tracing::warn!(file = request.file, %error, "a boot loader cannot be read");
            }
            return Ok("it could not be read");
        }
    };
    let largest = match came.local {
        IpAddr::V4(_) => BLOCK_V4,
        IpAddr::V6(_) => BLOCK_V6,
    };
    let said = send(&socket, Transfer::new(&request, data, largest), answered).await?;
    if said == SENT {
        let whose = Whose::Peer(came.from.ip());
        let saw = move |server: &Arc<Server>| server.saw_loader(whose, &request.file);
        // A panic in it is in the log, and the file is there.
        let _ = server.call_for_firmware(saw).await;
    }
    Ok(said)
}

/// Sends a file to the peer of `socket`; how that ended.
async fn send(
    socket: &UdpSocket,
    mut transfer: Transfer,
    answered: &AtomicBool,
) -> io::Result<&'static str> {
    let mut buffer = vec![0; BUFFER];
    let mut step = Step::Send(transfer.begin());
    let mut until = Instant::now();
    loop {
        match step {
            Step::Send(packets) => {
                for packet in packets {
                    match socket.send(&packet).await {
                        // Nobody is there any more.
                        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                            return Err(error);
                        }
                        // What could not be sent is lost, as it may be on any way, and is sent again.
                        Ok(_) | Err(_) => {}
                    }
                }
                until = Instant::now() + transfer.patience();
            }
            Step::Wait => {}
            Step::Done => return Ok(SENT),
            Step::Stopped => return Ok("the client wants no more"),
            Step::GivenUp => return Ok("the client does not answer any more"),
        }
        step = match timeout_at(until, socket.recv(&mut buffer)).await {
            Ok(length) => transfer.received(buffer.get(..length?).unwrap_or_default()),
            Err(_) => transfer.timed_out(),
        };
        answered.store(transfer.is_answered(), Ordering::Relaxed);
    }
}

/// The files that are given, read once for all who fetch them.
#[derive(Default)]
struct Files(Mutex<HashMap<PathBuf, Read>>);

/// A file as it was when it was read.
struct Read {
    changed: Option<SystemTime>,
    data: Bytes,
}

impl Files {
    /// The file of this name for a client that knows this server by `local`, where there is one. Blocks.
    fn read(&self, server: &Server, name: &str, local: IpAddr) -> io::Result<Option<Bytes>> {
        if name == AUTOEXEC {
            let base = server.boot_base(local);
            return Ok(base.map(|base| Bytes::from(network_ipxe(&base))));
        }
        let config = server.library().config();
        let path = Loaders::new(&config.boot).named(name);
        path.map(|path| self.file(&path)).transpose()
    }

    /// The data of a file. No more are kept than loaders have names, as no others are asked for.
    fn file(&self, path: &Path) -> io::Result<Bytes> {
        let facts = fs::metadata(path)?;
        if facts.len() > LARGEST_FILE {
            return Err(io::Error::other(format!(
                "{} has more than {} MiB, and is no boot loader",
                path.display(),
                LARGEST_FILE >> 20
            )));
        }
        let changed = facts.modified().ok();
        // Held while the file is read: those who ask at the same time shall wait for one that reads.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = kept.get(path)
            && read.changed == changed
            && read.data.len() as u64 == facts.len()
        {
            return Ok(read.data.clone());
        }
        let data = Bytes::from(fs::read(path)?);
        kept.insert(
            path.to_owned(),
            Read {
                changed,
                data: data.clone(),
            },
        );
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::daemon::Doors;
    use crate::library::Library;

    #[tokio::test]
    async fn a_loader_is_given_while_logins_wait() {
        let (_dir, library) = Library::temporary();
        let doors = Doors::configured(&library.config());
        let server = Server::new(library, tokio::runtime::Handle::current(), doors);
        let _all = server.calls.all_of_clients().await;
        let firmware = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let came = Arrival {
            from: firmware.local_addr().unwrap(),
            to: here,
            local: here,
            interface: nix::net::if_::if_nametoindex("lo").unwrap(),
        };
        let mut desk = Desk::new(server.clone());
        desk.begin(b"\0\x01autoexec.ipxe\0octet\0", came);
        let given = async {
            let mut packet = [0; BUFFER];
            let (length, desk_at) = firmware.recv_from(&mut packet).await.unwrap();
            assert!(
                packet[..length].starts_with(b"\0\x03\0\x01#!ipxe"),
                "its first block"
            );
            firmware.send_to(b"\0\x04\0\x01", desk_at).await.unwrap();
            // What is noted of it afterwards waits for nobody, either.
            desk.transfers.join_next().await.unwrap().unwrap();
        };
        let given = tokio::time::timeout(Duration::from_secs(10), given);
        given.await.expect("it does not wait for them");
    }

    #[tokio::test]
    async fn senders_that_are_made_up_keep_nobody_out() {
        let (_dir, library) = Library::temporary();
        let doors = Doors::configured(&library.config());
        let server = Server::new(library, tokio::runtime::Handle::current(), doors);
        let mut desk = Desk::new(server);
        // A whole network of them, who all get an answer and acknowledge nothing.
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut asks = |number: u32| {
            let [_, _, high, low] = number.to_be_bytes();
            let came = Arrival {
                from: SocketAddr::from(([127, 1, high, low], 4000)),
                to: here,
                local: here,
                interface: 1,
            };
            desk.begin(b"\0\x01autoexec.ipxe\0octet\0", came);
            (
                desk.going.len() as u64,
                desk.going.values().any(|one| one.peer == came.from),
            )
        };
        for number in 1..=TRANSFERS as u32 {
            assert_eq!(asks(number), (number.into(), true));
        }
        assert_eq!(asks(1000), (TRANSFERS, true), "the oldest makes room");
        let first = SocketAddr::from(([127, 1, 0, 1], 4000));
        assert!(desk.going.values().all(|one| one.peer != first));
        for one in desk.going.values() {
            one.answered.store(true, Ordering::Relaxed);
        }
        let late = Arrival {
            from: SocketAddr::from(([127, 2, 0, 1], 4000)),
            to: here,
            local: here,
            interface: 1,
        };
        desk.begin(b"\0\x01autoexec.ipxe\0octet\0", late);
        assert!(
            desk.going.values().all(|one| one.peer != late.from),
            "whoever is there stays"
        );
    }
}
