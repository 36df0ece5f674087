//! Drives a session in its full feature phase: carries out its actions, on the socket and the device.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::AbortHandle;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::io::Interest;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::awake::Awake;
use super::connection::{GRACE, Shared};
use super::directory::{BoxFuture, End, Initiator};
use super::frame::Fault;
use super::link::{Link, Lost};
use super::memory::Share;
use super::names::IscsiName;
use super::progress::Progress;
use super::session::Session;
use super::session::task::TaskId;
use super::sessions::SessionControl;
use super::totals::Kind;
use super::wire::Tag;
use crate::scsi::{Enlisted, Nexus, Pending, Response, Stop};

mod commands;

/// While more than this waits to be sent, nothing is received: a peer that does not read gets no more
/// done.
const MAX_WAITING: u64 = 4 * 1024 * 1024;
/// PDUs that are taken before others get their turn.
const BUDGET: usize = 256;

/// A session, its connection and what is being done for it.
pub(super) struct Runner {
    link: Link,
    session: Session,
    /// Nothing in a discovery session.
    nexus: Option<Nexus>,
    initiator: Initiator,
    shared: Arc<Shared>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Commands that wait for the initiator's data.
    pending: HashMap<TaskId, Pending>,
    /// Commands at work that may take long, and how to end them early.
    long: HashMap<TaskId, Early>,
    /// Commands that may not begin yet.
    enlisted: HashMap<TaskId, Enlisted>,
    /// Commands that wait until others have read enough.
    backlog: VecDeque<Begin>,
    /// Since when the commands at work are, and what they do.
    begun: HashMap<TaskId, (Kind, Instant)>,
    /// What the commands at work may read.
    reading: HashMap<TaskId, u64>,
    reading_total: u64,
    share: Share,
    /// The targets that are being listed. One list at a time is enough for whoever asks again and again.
    listing: Option<BoxFuture<'static, Vec<IscsiName>>>,
    /// A loan that the session waits for.
    loan: Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
    /// What the peer takes.
    taking: Progress,
    /// What it sends.
    sending: Progress,
    hearing: Hearing,
    /// Whoever waits for a sign of life after a ping, by its number.
    awaited: Option<(SessionControl, u64)>,
    awake: Awake,
    /// PDUs that were taken the last time that there were any.
    together: usize,
    over: Option<End>,
}

/// How a command ends early.
enum Early {
    /// Its work goes on without it: nobody has to wait for its end.
    Detached(AbortHandle),
    /// It ends by itself, soon after it is asked to.
    Asked(Stop),
}

impl Early {
    fn end(&self) {
        match self {
            Early::Detached(handle) => handle.abort(),
            Early::Asked(stop) => stop.stop(),
        }
    }
}

/// What was heard of the peer since it was listened for last.
enum Hearing {
    Something,
    Nothing,
    /// And it has been asked.
    NoAnswer,
}

struct Begin {
    id: TaskId,
    lun: [u8; 8],
    cdb: [u8; 16],
    reads: u64,
    enlisted: Enlisted,
}

/// Something that took its time.
enum Done {
    Command(TaskId, Response),
    /// The same, and its data have been read from the file.
    Loaded(TaskId, Response),
    Reset(Tag),
}

/// Why the loop woke up.
enum Wake {
    Socket(io::Result<tokio::io::Ready>),
    Done(Done),
    Lent(Option<OwnedSemaphorePermit>),
    Listed(Vec<IscsiName>),
    Asked(End),
    /// Somebody wants to know whether the peer is there.
    Ping(u64),
    Stop,
    Time,
    /// So much time has gone by again, whatever happened.
    Pulse,
}

impl Runner {
    pub(super) fn new(
        link: Link,
        session: Session,
        nexus: Option<Nexus>,
        initiator: Initiator,
        shared: Arc<Shared>,
    ) -> Self {
        let stalled = shared.limits.stalled;
        let awake = Awake::new(shared.threads.spare());
        Runner {
            share: shared.memory.join(),
            loan: None,
            taking: Progress::new(stalled),
            sending: Progress::new(stalled),
            link,
            session,
            nexus,
            initiator,
            shared,
            work: FuturesUnordered::new(),
            pending: HashMap::new(),
            long: HashMap::new(),
            enlisted: HashMap::new(),
            listing: None,
            backlog: VecDeque::new(),
            begun: HashMap::new(),
            reading: HashMap::new(),
            reading_total: 0,
            hearing: Hearing::Something,
            awaited: None,
            awake,
            together: 0,
            over: None,
        }
    }

    /// Runs the session to its end. Returns when nothing that it has begun is being done any more, and
    /// what it has written is durable.
    pub(super) async fn run(
        mut self,
        control: Option<SessionControl>,
        mut stop: watch::Receiver<bool>,
    ) -> End {
        let end = self.serve(control, &mut stop).await;
        // Once the server goes down that is why its sessions end: initiators that are asked to log out
        // do so at once, and are no less at work for that.
        let told = if *stop.borrow() { End::ShutDown } else { end };
        let Runner {
            link,
            mut work,
            nexus,
            pending,
            long,
            initiator,
            share: _share,
            ..
        } = self;
        drop(pending);
        long.values().for_each(Early::end);
        // Nobody waits for a peer that is gone or has been replaced.
        let grace = match end {
            End::Logout | End::ProtocolError | End::Kicked | End::Reset | End::ShutDown => GRACE,
            End::ConnectionLost | End::TimedOut | End::Reinstated => Duration::ZERO,
        };
        let settle = async { while work.next().await.is_some() {} };
        tokio::join!(link.close(grace), settle);
        if let Some(nexus) = nexus {
            // The last nexus may take the device with it, and with the device what it has not made
            // durable: an initiator that comes back believes in every write that was answered.
            for (lun, error) in nexus.flush().await {
                let error: &dyn std::error::Error = &error;
                tracing::error!(initiator = %initiator.name, %lun, error, "flushing a disk at the end of a session");
            }
            // With it files may be closed, and a server of files that does not answer is waited for: not here,
            // where other sessions are.
            let _ = tokio::task::spawn_blocking(move || drop(nexus)).await;
        }
        told
    }

    async fn serve(
        &mut self,
        control: Option<SessionControl>,
        stop: &mut watch::Receiver<bool>,
    ) -> End {
        let discovery = control.is_none();
        let mut pings = control.as_ref().map(SessionControl::pings);
        let pinging = control.clone();
        let mut asked = pin!(async move {
            match control {
                Some(control) => control.asked().await,
                None => std::future::pending().await,
            }
        });
        let time = self.shared.limits.discovery;
        let mut deadline = discovery.then(|| Instant::now() + time);
        let mut stopping = false;
        let silence = self.shared.limits.silence;
        // Looked at in each round, which costs nothing: a time of its own for each PDU would.
        let mut pulse = tokio::time::interval_at(Instant::now() + silence, silence);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let busy = match self.advance() {
                Ok(busy) => busy,
                Err(end) => return end,
            };
            let awake = !busy && self.expects_one() && self.awake.stays();
            let interest = self.interest();
            let limit = self.time_limit(deadline);
            let wake = tokio::select! {
                biased;
                end = &mut asked => Wake::Asked(end),
                number = next_ping(&mut pings) => Wake::Ping(number),
                Ok(_) = stop.wait_for(|stop| *stop), if !stopping => Wake::Stop,
                Some(done) = self.work.next() => Wake::Done(done),
                loan = resolved(&mut self.loan) => Wake::Lent(loan),
                targets = resolved(&mut self.listing) => Wake::Listed(targets),
                // What is here already comes first: nobody's PDUs pile up because they come faster than they
                // are taken.
                ready = self.link.ready(interest), if !busy => Wake::Socket(ready),
                () = until(limit) => Wake::Time,
                _ = pulse.tick() => Wake::Pulse,
                () = tokio::task::yield_now(), if busy || awake => continue,
            };
            self.awake.goes_on();
            match wake {
                Wake::Done(done) => {
                    self.done(done);
                    // What has ended together is answered together.
                    while let Some(Some(done)) = self.work.next().now_or_never() {
                        self.done(done);
                    }
                }
                Wake::Socket(Ok(ready)) => {
                    if ready.is_readable() && interest.is_readable() {
                        match self.link.fill() {
                            Ok(received) => self.received(received),
                            Err(lost) => return self.lost(lost),
                        }
                    }
                }
                Wake::Listed(targets) => {
                    self.listing = None;
                    self.session.listed(&targets);
                }
                Wake::Lent(loan) => {
                    self.loan = None;
                    self.share.borrow(loan);
                }
                Wake::Socket(Err(error)) => return self.lost(error.into()),
                Wake::Asked(end) => return self.dismissed(end),
                Wake::Ping(number) => {
                    if self.session.ping_initiator() {
                        self.awaited = pinging.clone().map(|control| (control, number));
                    }
                }
                Wake::Stop if discovery => return End::ShutDown,
                Wake::Stop => {
                    stopping = true;
                    let farewell = self.shared.limits.farewell;
                    self.session.ask_logout(farewell.as_secs() as u16);
                    deadline = Some(Instant::now() + farewell);
                }
                Wake::Time if stopping => return self.dismissed(End::ShutDown),
                Wake::Time if self.is_late(deadline) => return self.dismissed(End::TimedOut),
                Wake::Time => {}
                Wake::Pulse if self.is_gone() => return self.dismissed(End::TimedOut),
                Wake::Pulse => {}
            }
        }
    }

    /// Takes what has been received, does what is to be done, and sends what can be sent. Tells
    /// whether there is more to take at once.
    fn advance(&mut self) -> Result<bool, End> {
        let mut taken = 0;
        let mut more = true;
        self.session.may_hold(self.share.limit());
        self.perform();
        while more && taken < BUDGET && self.over.is_none() && self.has_room() {
            match self.link.next() {
                Ok(Some(pdu)) => {
                    self.session.receive(pdu);
                    taken += 1;
                }
                Ok(None) => more = false,
                Err(lost) => return Err(self.lost(lost)),
            }
            self.perform();
        }
        if taken > 0 {
            self.together = taken;
        }
        match self.link.send_some() {
            Ok(sent) => self.taking.moved(sent, self.link.awaits_peer()),
            Err(error) => return Err(self.lost(error.into())),
        }
        self.settle_loan();
        let awaited = !more && (self.link.is_amid() || self.session.awaits_data());
        self.sending.moved(0, awaited);
        match self.over {
            Some(end) => Err(end),
            // What has just been sent may have made room, for PDUs that are here already (the socket
            // does not wake anybody for those) and for commands.
            None => Ok(more && self.has_room() || self.next_fits()),
        }
    }

    /// Whether all is done, for a peer that makes one command at a time. Whoever only asks for targets is nobody
    /// to stay awake for.
    fn expects_one(&self) -> bool {
        self.nexus.is_some()
            && self.together == 1
            && self.link.waiting() == 0
            && self.begun.is_empty()
    }

    fn interest(&self) -> Interest {
        let waiting = self.link.waiting();
        if !self.has_room() {
            Interest::WRITABLE
        } else if waiting > 0 {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        }
    }

    /// Whether so little waits for the peer that it may ask for more.
    fn has_room(&self) -> bool {
        self.link.waiting() < MAX_WAITING.min(self.share.limit())
    }

    /// When there is something to look at, whatever happens until then.
    fn time_limit(&self, deadline: Option<Instant>) -> Option<Instant> {
        let dues = [deadline, self.taking.due(), self.sending.due()];
        dues.into_iter().flatten().min()
    }

    /// Whether the peer has had all the time that it gets.
    fn is_late(&mut self, deadline: Option<Instant>) -> bool {
        let now = Instant::now();
        let over = deadline.is_some_and(|deadline| deadline <= now);
        let stalled = [&mut self.taking, &mut self.sending].map(|way| way.has_stalled(now));
        over || stalled.contains(&true)
    }

    fn received(&mut self, bytes: u64) {
        self.hearing = Hearing::Something;
        if let Some((control, number)) = self.awaited.take() {
            control.heard(number);
        }
        let awaited = self.sending.due().is_some();
        self.sending.moved(bytes, awaited);
    }

    /// Whether the peer said nothing for so long, and nothing either when it was asked whether it is
    /// there.
    fn is_gone(&mut self) -> bool {
        match self.hearing {
            Hearing::Something => self.hearing = Hearing::Nothing,
            Hearing::Nothing if self.session.ask_for_life() => self.hearing = Hearing::NoAnswer,
            Hearing::Nothing => {}
            Hearing::NoAnswer => return true,
        }
        false
    }

    /// Asks for a loan for a command that is larger than the session's share, and gives it back.
    fn settle_loan(&mut self) {
        if self.share.has_borrowed() {
            let idle = self.kept() == 0 && self.backlog.is_empty();
            if idle && !self.session.has_asked() && !self.session.needs_more() {
                self.share.borrow(None);
            }
        } else if self.loan.is_none() {
            let stuck = self.kept() == 0 && !self.backlog.is_empty() && !self.next_fits();
            if stuck || self.session.needs_more() {
                self.loan = Some(Box::pin(self.share.loan()));
            }
        }
    }

    /// Nothing more comes from the peer.
    fn lost(&mut self, lost: Lost) -> End {
        match lost {
            Lost::Connection => End::ConnectionLost,
            Lost::TimedOut => End::TimedOut,
            Lost::Fault(fault) => {
                tracing::debug!(?fault, peer = %self.initiator.peer, "the stream cannot be followed");
                if let Fault::DataDigest(bhs) = fault {
                    self.session.corrupted(&bhs);
                    self.perform();
                }
                End::ProtocolError
            }
        }
    }

    /// The session is ended from this side: nothing is started any more.
    fn dismissed(&mut self, end: End) -> End {
        // §11.9.1: also who was asked to log out and has not done so is told that this is the end.
        // Where a login takes the place of the session, its initiator knows.
        if end != End::Reinstated {
            self.session.tell_dropped();
        }
        self.backlog.clear();
        self.perform();
        end
    }
}

/// Resolves when that does; never if there is nothing.
async fn resolved<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Resolves when a ping is asked for; never if nobody can ask.
async fn next_ping(pings: &mut Option<watch::Receiver<u64>>) -> u64 {
    if let Some(pings) = pings
        && pings.changed().await.is_ok()
    {
        return *pings.borrow_and_update();
    }
    std::future::pending().await
}

async fn until(limit: Option<Instant>) {
    match limit {
        Some(limit) => tokio::time::sleep_until(limit).await,
        None => std::future::pending().await,
    }
}
