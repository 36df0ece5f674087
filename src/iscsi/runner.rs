//! Drives a session in its full feature phase: carries out its actions, on the socket and the device.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{AbortHandle, abortable};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::io::Interest;
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::{GRACE, Shared};
use super::directory::{BoxFuture, End, Initiator};
use super::frame::Fault;
use super::link::{Link, Lost};
use super::names::IscsiName;
use super::output::SENDFILE_MIN;
use super::session::task::TaskId;
use super::session::{Action, Scope, Session};
use super::sessions::SessionControl;
use super::totals::Kind;
use super::wire::Tag;
use crate::block::{self, Answer, Segment};
use crate::scsi::{Lun, Nexus, Pending, Reset, Response, Sense, Start};

/// While more than this waits to be sent, nothing is received: a peer that does not read gets no more
/// done.
const MAX_WAITING: u64 = 4 * 1024 * 1024;
/// Bytes that the commands at work may read together, and what they have read and nobody has taken.
const MAX_READING: u64 = 16 * 1024 * 1024;
/// PDUs that are taken before others get their turn.
const BUDGET: usize = 256;
/// A peer that takes nothing of what waits for it for this long is gone.
const STALLED: Duration = Duration::from_secs(60);
/// A discovery session that asks nothing for this long is over.
const DISCOVERY: Duration = Duration::from_secs(60);

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
    /// Commands at work whose end nobody has to wait for.
    detached: HashMap<TaskId, AbortHandle>,
    /// Commands that wait until others have read enough.
    backlog: VecDeque<Begin>,
    /// Since when the commands at work are, and what they do.
    begun: HashMap<TaskId, (Kind, Instant)>,
    /// What the commands at work may read.
    reading: HashMap<TaskId, u64>,
    reading_total: u64,
    /// When the peer last took something of what waits for it.
    progress: Instant,
    over: Option<End>,
}

struct Begin {
    id: TaskId,
    lun: [u8; 8],
    cdb: [u8; 16],
    reads: u64,
}

/// Something that took its time.
enum Done {
    Command(TaskId, Response),
    /// The same, and its data have been read from the file.
    Loaded(TaskId, Response),
    Reset(Tag),
    Listed(Vec<IscsiName>),
}

/// Why the loop woke up.
enum Wake {
    Socket(io::Result<tokio::io::Ready>),
    Done(Done),
    Asked(End),
    Stop,
    Time,
}

impl Runner {
    pub(super) fn new(
        link: Link,
        session: Session,
        nexus: Option<Nexus>,
        initiator: Initiator,
        shared: Arc<Shared>,
    ) -> Self {
        Runner {
            link,
            session,
            nexus,
            initiator,
            shared,
            work: FuturesUnordered::new(),
            pending: HashMap::new(),
            detached: HashMap::new(),
            backlog: VecDeque::new(),
            begun: HashMap::new(),
            reading: HashMap::new(),
            reading_total: 0,
            progress: Instant::now(),
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
            detached,
            initiator,
            ..
        } = self;
        drop(pending);
        detached.values().for_each(AbortHandle::abort);
        // Nobody waits for a peer that is gone or has been replaced.
        let grace = match end {
            End::Logout | End::ProtocolError | End::Kicked | End::ShutDown => GRACE,
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
        }
        told
    }

    async fn serve(
        &mut self,
        control: Option<SessionControl>,
        stop: &mut watch::Receiver<bool>,
    ) -> End {
        let discovery = control.is_none();
        let mut asked = pin!(async move {
            match control {
                Some(control) => control.asked().await,
                None => std::future::pending().await,
            }
        });
        let mut deadline = discovery.then(|| Instant::now() + DISCOVERY);
        let mut stopping = false;
        loop {
            let busy = match self.advance() {
                Ok(busy) => busy,
                Err(end) => return end,
            };
            let interest = self.interest();
            let limit = self.time_limit(deadline);
            let wake = tokio::select! {
                biased;
                end = &mut asked => Wake::Asked(end),
                Ok(_) = stop.wait_for(|stop| *stop), if !stopping => Wake::Stop,
                Some(done) = self.work.next() => Wake::Done(done),
                ready = self.link.ready(interest) => Wake::Socket(ready),
                () = tokio::time::sleep_until(limit) => Wake::Time,
                () = tokio::task::yield_now(), if busy => continue,
            };
            match wake {
                Wake::Done(done) => {
                    self.done(done);
                    // What has ended together is answered together.
                    while let Some(Some(done)) = self.work.next().now_or_never() {
                        self.done(done);
                    }
                }
                Wake::Socket(Ok(ready)) => {
                    if ready.is_readable()
                        && interest.is_readable()
                        && let Err(lost) = self.link.fill()
                    {
                        return self.lost(lost);
                    }
                }
                Wake::Socket(Err(error)) => return self.lost(error.into()),
                Wake::Asked(end) => return self.dismissed(end),
                Wake::Stop if discovery => return End::ShutDown,
                Wake::Stop => {
                    stopping = true;
                    let farewell = self.shared.limits.farewell;
                    self.session.ask_logout(farewell.as_secs() as u16);
                    deadline = Some(Instant::now() + farewell);
                }
                Wake::Time if stopping => return End::ShutDown,
                Wake::Time => return End::TimedOut,
            }
        }
    }

    /// Takes what has been received, does what is to be done, and sends what can be sent. Tells
    /// whether there is more to take at once.
    fn advance(&mut self) -> Result<bool, End> {
        let mut taken = 0;
        let mut more = true;
        self.perform();
        while more && taken < BUDGET && self.over.is_none() && self.link.waiting() < MAX_WAITING {
            match self.link.next() {
                Ok(Some(pdu)) => self.session.receive(pdu),
                Ok(None) => more = false,
                Err(lost) => return Err(self.lost(lost)),
            }
            self.perform();
            taken += 1;
        }
        match self.link.send_some() {
            Ok(0) if self.link.waiting() > 0 => {}
            Ok(_) => self.progress = Instant::now(),
            Err(error) => return Err(self.lost(error.into())),
        }
        match self.over {
            Some(end) => Err(end),
            // What has just been sent may have made room, for PDUs that are here already (the socket
            // does not wake anybody for those) and for commands.
            None => Ok(more && self.link.waiting() < MAX_WAITING || self.next_fits()),
        }
    }

    fn interest(&self) -> Interest {
        let waiting = self.link.waiting();
        if waiting >= MAX_WAITING {
            Interest::WRITABLE
        } else if waiting > 0 {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        }
    }

    fn time_limit(&self, deadline: Option<Instant>) -> Instant {
        let stalled = self.progress + STALLED;
        let far = Instant::now() + Duration::from_secs(3600);
        let deadline = deadline.unwrap_or(far);
        if self.link.waiting() > 0 {
            deadline.min(stalled)
        } else {
            deadline
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
        if end == End::Kicked {
            self.session.tell_dropped();
        }
        self.backlog.clear();
        self.perform();
        end
    }

    /// Carries out what the session wants, until it wants nothing more.
    fn perform(&mut self) {
        loop {
            let actions = self.session.actions();
            // One at a time, and the answer of one is put out before the next: it counts.
            if actions.is_empty() && !self.start_next() {
                return;
            }
            for action in actions {
                self.act(action);
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send(pdu) => self.link.push(pdu),
            Action::Begin {
                id,
                lun,
                cdb,
                reads,
            } => {
                // An initiator may expect less than its command reads.
                let nexus = self.nexus.as_ref();
                let least = nexus.map_or(0, |nexus| nexus.reads(Lun::parse(lun), cdb));
                let reads = reads.max(least);
                let kind = if reads > 0 { Kind::Reads } else { Kind::Other };
                self.begun.insert(id, (kind, Instant::now()));
                self.backlog.push_back(Begin {
                    id,
                    lun,
                    cdb,
                    reads,
                });
            }
            Action::Deliver { id, data, offered } => {
                if let Some(pending) = self.pending.remove(&id) {
                    let detached = pending.is_detached();
                    match pending.finish_of(data, offered) {
                        Answer::Later(future) if detached => self.follow_detached(id, future),
                        answer => self.follow(id, answer),
                    }
                }
            }
            Action::Forget { id } => self.forget(id),
            Action::Reset { tmf, scope } => self.reset(tmf, scope),
            Action::List => self.list(),
            Action::End(end) => {
                self.over = Some(end);
                // Before the answer to a logout goes out: who has read it finds everything free.
                if let Some(nexus) = &self.nexus {
                    nexus.lost();
                }
            }
        }
    }

    /// Whether there is a next command, and room for what it reads beside what is being read and what
    /// waits for the peer. A command that is alone may always start.
    fn next_fits(&self) -> bool {
        let kept = self.reading_total + self.link.waiting();
        let fits = |next: &Begin| kept == 0 || kept + next.reads <= MAX_READING;
        self.backlog.front().is_some_and(fits)
    }

    /// Starts the next command, if there is one that may.
    fn start_next(&mut self) -> bool {
        if !self.next_fits() {
            return false;
        }
        let (Some(begin), Some(nexus)) = (self.backlog.pop_front(), &self.nexus) else {
            return false;
        };
        if begin.reads > 0 {
            self.reading.insert(begin.id, begin.reads);
            self.reading_total += begin.reads;
        }
        match nexus.start(Lun::parse(begin.lun), begin.cdb) {
            Start::Done(answer) => self.follow(begin.id, answer),
            Start::Data(pending) => {
                let len = pending.len();
                if let Some((kind, _)) = self.begun.get_mut(&begin.id) {
                    *kind = Kind::Writes;
                }
                self.pending.insert(begin.id, pending);
                self.session.wants(begin.id, len);
            }
        }
        true
    }

    fn follow(&mut self, id: TaskId, answer: Answer<Response>) {
        match answer {
            Answer::Now(response) => self.answered(id, response),
            Answer::Later(future) => self
                .work
                .push(Box::pin(async move { Done::Command(id, future.await) })),
        }
    }

    /// A command whose work goes on without it: who aborts it need not wait.
    fn follow_detached(&mut self, id: TaskId, future: BoxFuture<'static, Response>) {
        let (future, handle) = abortable(future);
        self.detached.insert(id, handle);
        self.work.push(Box::pin(async move {
            let response = future.await.unwrap_or_else(|_| Response::good());
            Done::Command(id, response)
        }));
    }

    /// A command has ended. Its data may have to be read from a file first: where they are small, not
    /// cached (sending would block this thread), or to be digested.
    fn answered(&mut self, id: TaskId, mut response: Response) {
        let large = self.session.sends_large();
        let sendable = |segment: &Segment| match segment {
            Segment::File { file, offset, len } => {
                large && *len >= SENDFILE_MIN && block::is_cached(file, *offset, *len)
            }
            Segment::Bytes(_) | Segment::Zeros(_) => true,
        };
        if response.data.iter().all(sendable) {
            self.finished(id, response);
            return;
        }
        let data = std::mem::take(&mut response.data);
        match block::load(data).map(move |loaded| with_data(response, loaded)) {
            Answer::Now(response) => self.finished(id, response),
            Answer::Later(future) => self
                .work
                .push(Box::pin(async move { Done::Loaded(id, future.await) })),
        }
    }

    fn finished(&mut self, id: TaskId, response: Response) {
        if let Some(reads) = self.reading.remove(&id) {
            self.reading_total -= reads;
        }
        self.detached.remove(&id);
        if let Some((kind, since)) = self.begun.remove(&id) {
            let totals = self.shared.sessions.totals();
            totals.answered(kind, since.elapsed(), &response);
        }
        self.session.finished(id, response);
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Command(id, response) => self.answered(id, response),
            Done::Loaded(id, response) => self.finished(id, response),
            Done::Reset(tmf) => self.session.reset_done(tmf, true),
            Done::Listed(targets) => self.session.listed(&targets),
        }
    }

    /// Drops a command that has not reached the disk. One that has will end by itself.
    fn forget(&mut self, id: TaskId) {
        if let Some(handle) = self.detached.remove(&id) {
            handle.abort();
            return;
        }
        let before = self.backlog.len();
        self.backlog.retain(|begin| begin.id != id);
        if self.backlog.len() < before || self.pending.remove(&id).is_some() {
            self.finished(id, Response::good());
        }
    }

    fn reset(&mut self, tmf: Tag, scope: Scope) {
        let reset = match scope {
            Scope::Device => Some(Reset::Device),
            Scope::Unit(lun) => Lun::parse(lun).map(Reset::Unit),
            Scope::Commands(lun) => Lun::parse(lun).map(Reset::Commands),
        };
        let found = |nexus: &&Nexus| match reset {
            Some(Reset::Device) => true,
            Some(Reset::Unit(lun) | Reset::Commands(lun)) => nexus.has(Some(lun)),
            None => false,
        };
        match (self.nexus.as_ref().filter(found), reset) {
            (Some(nexus), Some(reset)) => {
                let settled = nexus.reset(reset);
                self.work.push(Box::pin(async move {
                    settled.await;
                    Done::Reset(tmf)
                }));
            }
            _ => self.session.reset_done(tmf, false),
        }
    }

    fn list(&mut self) {
        if let Some(target) = self.session.target() {
            let own = vec![target.clone()];
            self.session.listed(&own);
            return;
        }
        let (shared, initiator) = (self.shared.clone(), self.initiator.clone());
        self.work.push(Box::pin(async move {
            Done::Listed(shared.directory.targets(&initiator).await)
        }));
    }
}

/// A response with its data in memory.
fn with_data(mut response: Response, loaded: block::Result<bytes::Bytes>) -> Response {
    match loaded {
        Ok(bytes) => {
            response.data = vec![Segment::Bytes(bytes)];
            response
        }
        Err(error) => {
            tracing::error!(%error, "reading from a disk's file");
            Sense::READ_ERROR.into()
        }
    }
}
