//! One connection, from its login to the end of its session. One task owns all of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::chap::Challenges;
use super::directory::{Directory, End, Guard, Initiator, Opened, Refusal};
use super::failures::Failures;
use super::knocks::Knock;
use super::link::{Link, Lost, canonical};
use super::login::{Agreed, Login, Step, Wish, status};
use super::memory::Memory;
use super::portals::Portals;
use super::room::Seat;
use super::runner::Runner;
use super::server::Limits;
use super::session::Session;
use super::sessions::{Counters, Place, SessionInfo, Sessions};
use super::threads::Threads;
use crate::scsi::{Nexus, Path, TargetPort, TransportId};

/// Time for the last PDU to reach the peer.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// What all connections of a server share.
pub(super) struct Shared {
    pub(super) directory: Arc<dyn Directory>,
    pub(super) sessions: Sessions,
    pub(super) limits: Limits,
    pub(super) portals: Portals,
    pub(super) challenges: Challenges,
    pub(super) failures: Failures,
    pub(super) memory: Arc<Memory>,
    pub(super) threads: Threads,
}

/// A login that has succeeded.
struct Admitted {
    agreed: Agreed,
    initiator: Initiator,
    portals: Vec<SocketAddr>,
    /// Nothing in a discovery session.
    inside: Option<Inside>,
}

/// The target of a session.
struct Inside {
    nexus: Nexus,
    info: SessionInfo,
    farewell: Farewell,
    place: Place,
}

/// Tells the directory that a session is over, however it comes to its end.
pub(super) struct Farewell {
    guard: Option<Box<dyn Guard>>,
    pub(super) end: End,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.ended(self.end);
        }
    }
}

/// Serves a connection, which has a seat, until it ends. `stop` turns true when the server goes down.
pub(super) async fn run(
    stream: TcpStream,
    seat: Seat,
    knock: Knock,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    let addresses = stream
        .peer_addr()
        .and_then(|p| Ok((p, stream.local_addr()?)));
    let Ok((peer, local)) = addresses else {
        return;
    };
    let (peer, local) = (canonical(peer), canonical(local));
    let mut link = Link::new(stream);
    let mut knock = Some(knock);
    let greeting = greet(&mut link, peer, local, &shared, &mut knock);
    let greeting = tokio::time::timeout(shared.limits.login, greeting);
    let greeted = tokio::select! {
        greeted = greeting => greeted.unwrap_or(Greeted::BrokenOff),
        _ = stop.wait_for(|stop| *stop) => Greeted::BrokenOff,
    };
    let totals = shared.sessions.totals();
    let (login, wish) = match greeted {
        Greeted::Wishes(login, wish) => (login, wish),
        Greeted::Refused(status) => {
            totals.login_refused(status);
            tracing::debug!(%peer, status = format!("{status:#06x}"), "login refused");
            link.close(GRACE).await;
            return;
        }
        Greeted::BrokenOff => {
            totals.broken_off.fetch_add(1, Relaxed);
            link.close(GRACE).await;
            return;
        }
    };
    // Not within the time limit: once the directory has begun to open a target, it must not be
    // interrupted half-way.
    match admit(login, wish, peer, local, &shared, &mut link).await {
        Some(admitted) => {
            if admitted.inside.is_some() {
                seat.admitted();
                if let Some(knock) = knock {
                    knock.forget();
                }
            }
            full_feature(link, admitted, &shared, stop).await;
        }
        None => link.close(GRACE).await,
    }
}

/// How the first part of a login ended.
enum Greeted {
    Wishes(Box<Login>, Wish),
    /// The response is queued.
    Refused(u16),
    BrokenOff,
}

/// The login up to the point where the session is to be opened.
async fn greet(
    link: &mut Link,
    peer: SocketAddr,
    local: SocketAddr,
    shared: &Shared,
    knock: &mut Option<Knock>,
) -> Greeted {
    let challenges = shared.challenges.clone();
    let mut login = Box::new(Login::new(shared.limits.commands, challenges));
    let mut proves = None;
    loop {
        let proving = login.is_proving();
        let mut step = match link.receive().await {
            Ok(pdu) => {
                if proving {
                    tokio::time::sleep(shared.failures.wait(peer.ip())).await;
                }
                login.receive(&pdu)
            }
            // It spoke iSCSI so far, and may be told what is wrong.
            Err(Lost::Fault(_)) if login.has_begun() => login.refuse(status::INITIATOR_ERROR),
            Err(_) => return Greeted::BrokenOff,
        };
        if let Step::Authenticate(wish) = &step {
            let initiator = initiator(wish, peer, local);
            if let Some(knock) = knock.take_if(|_| !shared.directory.knocks(&initiator)) {
                knock.forget();
            }
            let target = wish.target.as_ref();
            let authentication = shared.directory.authentication(&initiator, target);
            let authentication = authentication.await;
            proves = Some((initiator, wish.target.clone()));
            step = login.authenticated(authentication);
        }
        match step {
            Step::Reply(response) => {
                if link.send(response).await.is_err() {
                    return Greeted::BrokenOff;
                }
            }
            Step::Open(wish) => return Greeted::Wishes(login, wish),
            Step::Refuse { status, response } => {
                if proving && status == status::AUTHENTICATION_FAILED {
                    shared.failures.add(peer.ip());
                    if let Some((who, target)) = &proves {
                        shared.directory.unproven(who, target.as_ref());
                    }
                }
                link.push(response);
                return Greeted::Refused(status);
            }
            Step::Authenticate(_) | Step::Close => return Greeted::BrokenOff,
        }
    }
}

fn initiator(wish: &Wish, peer: SocketAddr, local: SocketAddr) -> Initiator {
    Initiator {
        name: wish.initiator.clone(),
        isid: wish.isid,
        peer,
        local,
        proved: wish.proved.clone(),
    }
}

/// Opens the session that a login asks for and queues its last response.
async fn admit(
    mut login: Box<Login>,
    wish: Wish,
    peer: SocketAddr,
    local: SocketAddr,
    shared: &Shared,
    link: &mut Link,
) -> Option<Admitted> {
    let initiator = initiator(&wish, peer, local);
    let opened = match open(&wish, &initiator, shared).await {
        Ok(opened) => opened,
        Err(denied) => {
            let step = match denied {
                Denied::Status(status) => login.refuse(status),
                Denied::Refusal(refusal) => match refusal {
                    Refusal::MovedTemporarily(to) | Refusal::MovedPermanently(to) => {
                        login.redirect(refusal.status(), to)
                    }
                    _ => login.refuse(refusal.status()),
                },
            };
            if let Step::Refuse { status, response } = step {
                shared.sessions.totals().login_refused(status);
                // Whoever refused it has told why.
                tracing::debug!(initiator = %wish.initiator, %peer, status = format!("{status:#06x}"), "login refused");
                link.push(response);
            }
            return None;
        }
    };
    let tsih = shared.sessions.new_tsih();
    let (response, agreed) = login.accept(tsih);
    shared.sessions.totals().logins.fetch_add(1, Relaxed);
    link.push(response);
    let inside = opened.map(|(target, place, opened)| {
        let info = SessionInfo {
            id: place.control().id(),
            initiator: initiator.name.clone(),
            isid: initiator.isid,
            tsih,
            target,
            peer,
            since: SystemTime::now(),
            parameters: agreed.parameters,
            counters: Arc::new(Counters::default()),
        };
        place.logged_in(info.clone());
        Inside {
            nexus: opened.device.connect(path(&initiator, &info.target)),
            info,
            farewell: Farewell {
                guard: Some(opened.guard),
                end: End::ConnectionLost,
            },
            place,
        }
    });
    Some(Admitted {
        agreed,
        portals: shared.portals.told_at(local),
        initiator,
        inside,
    })
}

/// The SCSI ports at the ends of a session (RFC 7143 §4.4.2). All portals are of one group, which is
/// one target port.
fn path(initiator: &Initiator, target: &super::IscsiName) -> Path {
    Path {
        initiator: TransportId::iscsi(initiator.name.as_str(), initiator.isid.0),
        target: TargetPort {
            name: format!("{target},t,0x0001"),
            relative: 1,
        },
    }
}

/// Why a session is not opened.
enum Denied {
    Status(u16),
    Refusal(Refusal),
}

/// Asks the directory for a session's target. Discovery sessions have none.
async fn open(
    wish: &Wish,
    initiator: &Initiator,
    shared: &Shared,
) -> Result<Option<(super::IscsiName, Place, Opened)>, Denied> {
    let target = wish.target.as_ref();
    if wish.tsih != 0 {
        // Sessions have one connection here (§13.2), and only whose session it is hears that it lives.
        let lives = shared.sessions.is_of(wish.tsih, initiator, target);
        return Err(Denied::Status(match lives {
            true => status::TOO_MANY_CONNECTIONS,
            false => status::NO_SESSION,
        }));
    }
    let Some(target) = target else {
        return Ok(None);
    };
    if shared.sessions.has(initiator, target) {
        let admitted = shared.directory.admits(initiator, target).await;
        admitted.map_err(Denied::Refusal)?;
    }
    let place = shared.sessions.enter(initiator, target).await;
    let control = place.control().clone();
    match shared.directory.open(initiator, target, control).await {
        Ok(opened) => Ok(Some((target.clone(), place, opened))),
        Err(refusal) => Err(Denied::Refusal(refusal)),
    }
}

async fn full_feature(
    mut link: Link,
    admitted: Admitted,
    shared: &Arc<Shared>,
    stop: watch::Receiver<bool>,
) {
    link.agree(&admitted.agreed.parameters);
    let counters = match &admitted.inside {
        Some(inside) => inside.info.counters.clone(),
        None => Arc::default(),
    };
    let session = Session::new(
        admitted.agreed,
        admitted.inside.as_ref().map(|i| i.info.target.clone()),
        admitted.portals,
        shared.limits.commands,
        counters,
    );
    let Some(inside) = admitted.inside else {
        let runner = Runner::new(link, session, None, admitted.initiator, shared.clone());
        runner.run(None, stop).await;
        return;
    };
    let Inside {
        nexus,
        info,
        mut farewell,
        place,
    } = inside;
    tracing::info!(session = info.id, initiator = %info.initiator, target = %info.target, peer = %info.peer, "logged in");
    let control = place.control().clone();
    let (initiator, owner) = (admitted.initiator, shared.clone());
    let runs = move |link| {
        let runner = Runner::new(link, session, Some(nexus), initiator, owner);
        runner.run(Some(control), stop)
    };
    farewell.end = on_a_thread(&shared.threads, link, runs).await;
    tracing::info!(session = info.id, end = ?farewell.end, "session ended");
    let totals = shared.sessions.totals();
    totals.session_ended(farewell.end, &info.counters);
    // First the directory, then whoever waits for the end: a session that takes this one's place finds
    // everything as it should be.
    drop(farewell);
    drop(place);
}

/// Runs a session to its end on the thread that has the fewest.
async fn on_a_thread<F>(
    threads: &Threads,
    link: Link,
    runs: impl FnOnce(Link) -> F + Send + 'static,
) -> End
where
    F: Future<Output = End> + Send,
{
    let Some(seat) = threads.seat() else {
        return runs(link).await;
    };
    let handle = seat.handle.clone();
    let mut session = Running(handle.spawn(async move {
        let _seat = seat;
        match link.moved_here() {
            Ok(link) => runs(link).await,
            Err(error) => {
                tracing::error!(%error, "giving a connection to its thread");
                End::ConnectionLost
            }
        }
    }));
    match (&mut session.0).await {
        Ok(end) => end,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // A server that ends waits for its sessions.
            Err(failed) => {
                tracing::error!(%failed, "a session's thread has ended before it");
                End::ConnectionLost
            }
        },
    }
}

/// A session on its thread, which ends when nobody waits for its end any more.
struct Running(JoinHandle<End>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}
