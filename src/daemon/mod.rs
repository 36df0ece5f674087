//! All of it at once: listeners, live sessions, and an ordered end.
//!
//! The target asks [`Targets`] who may log in to what; that asks the library, and for volumes `visitors`,
//! who knows their sessions. `volumes` has those open for as long as their documents stand, `devices` the
//! disks of images and clients for as long as somebody uses them. `Attached` tells the library who is
//! connected; `house` does what is due without anybody asking. `reload` takes on what has changed in the configuration. `watch` is what the server sees of
//! machines besides: their boots (`timeline`, which `sightings` tells), whose kernels lie on their own disks
//! (`esps`), and how much goes over the wire (`rates`). `neighbours` tells whose an address is, `rollouts`
//! moves those on, `wake` turns machines on, `trial` serves one version to a machine that tries it, `doctor`
//! examines a host. HTTP routers are given by the fronts; this floor only runs them.

mod attached;
mod calls;
mod datagrams;
mod devices;
mod dhcp;
pub mod doctor;
mod esps;
mod firewall;
mod house;
mod http;
mod listen;
mod neighbours;
mod notes;
mod pace;
mod peer;
mod places;
mod rates;
mod reach;
mod reload;
mod requests;
mod reservations;
mod rollouts;
mod run;
mod seats;
mod sightings;
mod targets;
mod tftp;
mod timeline;
mod tls;
mod trial;
mod unsent;
mod visitors;
mod vitals;
mod volumes;
mod wake;
mod watch;

pub use crate::library::network;
pub use calls::{NoCall, Patience};
pub use neighbours::{Unproven, Whereabouts};
pub use peer::{Peer, Scheme};
pub use places::{Place, Places};
pub use rates::{History, Pace, Rate};
pub use reach::{admin_url, own_address};
pub use reload::Reloaded;
pub use requests::{Endpoint, Requests};
pub use run::{Listeners, Routers, run};
pub use targets::Targets;
pub use timeline::{AskedFrom, Boots, Fetch, Whose};
pub use tls::made_fingerprint;
pub use trial::TrialTarget;
pub use vitals::Vitals;
pub use volumes::VolumeRow;
pub use wake::{WakeWay, Woken, wake};

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use utoipa::ToSchema;

use crate::iscsi::{End, Parameters, Portals, SessionInfo, Sessions, Totals};
use crate::library::config::ISCSI_PORT;
use crate::library::{Config, Library, Live, MacAddr, Throttle, mask_boot_ids};
use attached::Attached;
use calls::Calls;
use devices::Devices;
use esps::Esps;
use house::House;
use notes::Notes;
use tls::Tls;
use visitors::Visitors;
use volumes::Volumes;
use watch::Watch;

/// What the parts of a running server share.
pub struct Server {
    library: Library,
    attached: Attached,
    devices: Arc<Devices>,
    volumes: Volumes,
    visitors: Visitors,
    sessions: Sessions,
    portals: Portals,
    // Held for a look or an exchange.
    doors: RwLock<Arc<Doors>>,
    // An asynchronous lock: whoever holds it waits for listeners to close.
    reloading: tokio::sync::Mutex<()>,
    calls: Calls,
    notes: Notes,
    house: House,
    told: Told,
    watch: Watch,
    esps: Esps,
    requests: Requests,
    /// What is told of those who ask for scripts, whom nobody knows.
    asked: Throttle,
    // Held while certificates are looked at.
    tls: Mutex<Vec<Tls>>,
    /// Drawn for each run: nobody outside can guess it.
    run_id: String,
    began: SystemTime,
}

/// Where a running server is reached, as its listeners have it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Doors {
    /// The target.
    #[schema(value_type = Vec<String>)]
    pub iscsi: Vec<SocketAddr>,
    /// The boot service.
    #[schema(value_type = Vec<String>)]
    pub boot: Vec<SocketAddr>,
    /// The boot service over TLS.
    #[schema(value_type = Vec<String>)]
    #[serde(default)]
    pub boot_tls: Vec<SocketAddr>,
    /// Dashboard and API.
    #[schema(value_type = Vec<String>)]
    #[serde(default)]
    pub admin: Vec<SocketAddr>,
    /// Where machines that boot from the network are told what to boot; nowhere without ProxyDHCP.
    #[schema(value_type = Vec<String>)]
    #[serde(default)]
    pub dhcp: Vec<SocketAddr>,
    /// Loaders over TFTP; often nowhere.
    #[schema(value_type = Vec<String>)]
    #[serde(default)]
    pub tftp: Vec<SocketAddr>,
    /// What is announced in place of the target's address; often nothing.
    #[schema(value_type = Vec<String>)]
    pub announce: Vec<SocketAddr>,
}

/// A session, as `session list` shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionRow {
    /// Tells it from all other sessions of this server's run.
    pub id: u64,
    /// The initiator's name, without what proves which boot it is.
    pub initiator: String,
    /// Where it connects from.
    #[schema(value_type = String)]
    pub peer: SocketAddr,
    /// The target that it is logged in to.
    pub target: String,
    /// Since when.
    pub since: Timestamp,
    /// Commands that read data.
    pub reads: u64,
    /// Commands that wrote data.
    pub writes: u64,
    /// Bytes sent to the initiator.
    pub bytes_read: u64,
    /// Bytes received from it.
    pub bytes_written: u64,
    /// What was negotiated.
    pub parameters: Parameters,
}

impl Server {
    /// A server of `library`, whose live lock the caller holds. Sessions will run on `runtime`, and
    /// come in by `doors`.
    pub fn new(library: Library, runtime: Handle, doors: Doors) -> Arc<Self> {
        let devices = Arc::new(Devices::default());
        Arc::new(Self {
            library,
            attached: Attached::new(runtime.clone(), devices.clone()),
            devices,
            house: House::default(),
            volumes: Volumes::default(),
            visitors: Visitors::default(),
            sessions: Sessions::new(),
            portals: Portals::new(doors.announce.clone()),
            doors: RwLock::new(Arc::new(doors)),
            reloading: tokio::sync::Mutex::default(),
            calls: Calls::default(),
            notes: Notes::new(runtime.clone()),
            told: Told::default(),
            watch: Watch::default(),
            esps: Esps::default(),
            requests: Requests::default(),
            asked: Throttle::default(),
            tls: Mutex::default(),
            run_id: drawn(),
            began: SystemTime::now(),
        })
    }

    /// What tells this run of the server from all others. Nobody outside can guess it.
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// The library.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// Where it is reached.
    pub fn doors(&self) -> Arc<Doors> {
        let doors = self.doors.read();
        doors.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a client's fetch of its script is worth an event: one in some seconds is, so that
    /// nobody fills the disk by asking again and again.
    pub fn is_news(&self, client: &MacAddr) -> bool {
        self.told.is_news(client)
    }

    /// Whether something that somebody at `peer` caused is worth a word in the log, who asks for scripts
    /// as anybody can: some of it is in each minute, and nothing twice.
    pub fn is_worth_a_word(&self, peer: IpAddr, what: &str) -> bool {
        self.asked.is_news(peer, what)
    }

    /// Who is connected.
    pub fn live(&self) -> &dyn Live {
        &self.attached
    }

    /// The target's portal for a system whose firmware reached this server at `local`.
    pub fn portal(&self, local: SocketAddr) -> SocketAddr {
        self.doors().portal(local)
    }

    /// The URL of the boot service for a client that reaches this server at `local`.
    pub fn boot_base(&self, local: IpAddr) -> Option<String> {
        self.doors().boot_base(local)
    }

    /// The target's sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// What the target has done since it began.
    pub fn totals(&self) -> &Totals {
        self.sessions.totals()
    }

    /// What was asked over HTTP since it began.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// All sessions, oldest first.
    pub fn session_rows(&self) -> Vec<SessionRow> {
        self.sessions.list().into_iter().map(row).collect()
    }

    /// Ends a session and waits until it has settled; nothing if there is none of this number.
    pub async fn kick(&self, id: u64) -> Option<SessionRow> {
        let session = self
            .sessions
            .list()
            .into_iter()
            .find(|session| session.id == id)?;
        let control = self.sessions.control(id)?;
        control.end(End::Kicked);
        control.ended().await;
        self.notes.written().await;
        Some(row(session))
    }
}

impl Doors {
    /// Where a server with this configuration listens; a port of 0 is drawn when it does.
    pub fn configured(config: &Config) -> Self {
        Self {
            iscsi: config.iscsi.listen.clone(),
            boot: config.boot.listen.clone(),
            boot_tls: match &config.boot.tls {
                Some(_) => config.boot.tls_listen.clone(),
                None => Vec::new(),
            },
            admin: config.admin.listen.clone(),
            dhcp: Vec::new(),
            tftp: config.tftp_listen(),
            announce: config
                .iscsi
                .announce
                .iter()
                .map(|one| one.address())
                .collect(),
        }
    }

    /// The target's portal for a system whose firmware reached this host at `local`.
    pub fn portal(&self, local: SocketAddr) -> SocketAddr {
        let mut announced = self.announce.iter();
        let announced = announced
            .find(|one| one.is_ipv4())
            .or(self.announce.first());
        match announced {
            Some(announced) => *announced,
            None => self.portal_at(local.ip(), &reach::known_as(local)),
        }
    }

    /// The target's portal for a system that finds this host by these addresses, best first: one that the
    /// target listens at, if there is one.
    fn portal_at(&self, local: IpAddr, known_as: &[IpAddr]) -> SocketAddr {
        let listens = |ip: &&IpAddr| {
            self.iscsi.iter().any(|door| match door.ip() {
                IpAddr::V6(all) if all.is_unspecified() => true,
                IpAddr::V4(all) if all.is_unspecified() => ip.is_ipv4(),
                one => one.to_canonical() == **ip,
            })
        };
        let found = known_as.iter().find(listens).or(known_as.first());
        let ip = found.copied().unwrap_or(local.to_canonical());
        let port = self.iscsi.first().map_or(ISCSI_PORT, SocketAddr::port);
        SocketAddr::new(ip, port)
    }

    /// The URL of the boot service for a client that reaches this host at `local`; nothing if it listens
    /// nowhere.
    pub fn boot_base(&self, local: IpAddr) -> Option<String> {
        let local = local.to_canonical();
        let here =
            |door: &&SocketAddr| door.ip().is_unspecified() || door.ip().to_canonical() == local;
        let address = match self.boot.iter().find(here) {
            Some(door) => SocketAddr::new(local, door.port()),
            None => *self.boot.first()?,
        };
        Some(format!("http://{address}"))
    }
}

/// When each client's script was last told of.
#[derive(Default)]
struct Told(Mutex<HashMap<MacAddr, Instant>>);

impl Told {
    fn is_news(&self, client: &MacAddr) -> bool {
        const QUIET: Duration = Duration::from_secs(10);
        // One short look at a map of known clients; a panic in between cannot leave it half-changed.
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let news = told
            .get(client)
            .is_none_or(|last| now.duration_since(*last) >= QUIET);
        if news {
            told.insert(*client, now);
        }
        news
    }
}

/// 128 bits that nobody can guess, in hexadecimal.
fn drawn() -> String {
    let mut bytes = [0; 16];
    // Only a kernel without a random source has none, which no server can do anything about.
    if let Err(error) = getrandom::fill(&mut bytes) {
        panic!("the kernel gives no random bytes: {error}");
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn row(session: SessionInfo) -> SessionRow {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    SessionRow {
        id: session.id,
        // Whoever may only look must not learn what would let him in as this boot.
        initiator: mask_boot_ids(&session.initiator.to_string()),
        peer: session.peer,
        target: session.target.to_string(),
        since: Timestamp::try_from(session.since).unwrap_or(Timestamp::UNIX_EPOCH),
        reads: count(&session.counters.reads),
        writes: count(&session.counters.writes),
        bytes_read: count(&session.counters.bytes_read),
        bytes_written: count(&session.counters.bytes_written),
        parameters: session.parameters,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portal_is_one_that_the_target_listens_at_and_what_is_announced_goes_before() {
        let doors = |listen: &[&str], announce: &[&str]| -> Doors {
            let said = serde_json::json!({ "iscsi": listen, "boot": [], "announce": announce });
            serde_json::from_value(said).unwrap()
        };
        let (v4, v6) = ("192.0.2.1", "2001:db8::1");
        let known_as: [IpAddr; 2] = [v4, v6].map(|ip| ip.parse().unwrap());
        let at = |listen: &str| {
            let portal = doors(&[listen], &[]).portal_at(known_as[1], &known_as);
            portal.ip().to_string()
        };
        assert_eq!(at("[::]:3260"), v4);
        assert_eq!(at("0.0.0.0:3260"), v4);
        assert_eq!(at("[::ffff:192.0.2.1]:3260"), v4);
        assert_eq!(at("[2001:db8::1]:3260"), v6);
        assert_eq!(at("198.51.100.1:3260"), v4, "something may lead there");
        let announced = |announce: &[&str]| {
            let portal = doors(&["[::]:3260"], announce).portal(SocketAddr::new(known_as[1], 8080));
            portal.to_string()
        };
        let both = ["[2001:db8::7]:3260", "198.51.100.7:3261"];
        assert_eq!(announced(&both), both[1]);
        assert_eq!(announced(&both[..1]), both[0]);
    }
}
