//! The commands of a session: begun at the device, followed to their end, and ended early.

use futures_util::future::abortable;
use tokio::time::Instant;

use super::{Begin, Done, Early, Runner};
use crate::block::{self, Answer, Segment};
use crate::iscsi::directory::{BoxFuture, End};
use crate::iscsi::output::SENDFILE_MIN;
use crate::iscsi::session::task::TaskId;
use crate::iscsi::session::{Action, LARGEST, Scope};
use crate::iscsi::totals::Kind;
use crate::iscsi::wire::Tag;
use crate::scsi::{Lun, Nexus, Reset, Response, Sense, Start};

impl Runner {
    /// Carries out what the session wants, until it wants nothing more.
    pub(super) fn perform(&mut self) {
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
                let reads = reads.max(least).min(LARGEST);
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
                    if let Some(stop) = pending.stop() {
                        self.long.insert(id, Early::Asked(stop));
                    }
                    match pending.finish_of(data, offered) {
                        Answer::Later(future) if detached => self.follow_detached(id, future),
                        answer => self.follow(id, answer),
                    }
                }
            }
            Action::Forget { id } => self.forget(id),
            Action::Reset { tmf, scope } => self.reset(tmf, scope),
            Action::List => self.list(),
            Action::Restart => {
                if let Some(target) = self.session.target() {
                    self.shared.sessions.end_all(target, End::Reset);
                }
            }
            Action::End(end) => {
                self.over = Some(end);
                // Before the answer to a logout goes out: who has read it finds everything free.
                if let Some(nexus) = &self.nexus {
                    nexus.lost();
                }
            }
        }
    }

    /// Bytes that are being read, and those that wait for the peer.
    pub(super) fn kept(&self) -> u64 {
        self.reading_total + self.link.waiting()
    }

    /// Whether there is a next command, and room for what it reads beside what is kept. One that is
    /// larger than any share needs a loan, and to be alone.
    pub(super) fn next_fits(&self) -> bool {
        let (kept, limit) = (self.kept(), self.share.limit());
        let fits = |next: &Begin| {
            next.reads == 0 || kept + next.reads <= limit || kept == 0 && limit >= LARGEST
        };
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
        self.long.insert(id, Early::Detached(handle));
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
        self.long.remove(&id);
        if let Some((kind, since)) = self.begun.remove(&id) {
            let totals = self.shared.sessions.totals();
            totals.answered(kind, since.elapsed(), &response);
        }
        self.session.finished(id, response);
    }

    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Command(id, response) => self.answered(id, response),
            Done::Loaded(id, response) => self.finished(id, response),
            Done::Reset(tmf) => self.session.reset_done(tmf, true),
            Done::Listed(targets) => self.session.listed(&targets),
        }
    }

    /// Drops a command that has not reached the disk. One that has will end by itself.
    fn forget(&mut self, id: TaskId) {
        if let Some(early) = self.long.get(&id) {
            early.end();
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
