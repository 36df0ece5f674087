//! A disk that may hold only so many bytes of its own on a storage that it shares with others.
//!
//! Whoever goes beyond is told that the storage is full, and nothing else happens: what is held already
//! is read, overwritten, flushed and given back as before, and writes go on as soon as the quota was
//! raised or something was given back.
//!
//! How it is counted: a running tally takes each write for all new, so it is never too low, and costs
//! two additions. Only when it reaches the quota is it asked what the write would really add, and if
//! that is too much, the tally is put right by measuring what the disk holds. So a disk goes beyond its
//! quota by no more than what was under way when it was measured or when the quota was set. Without a
//! quota nothing is counted at all.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::backing::blocking;
use super::{Advice, Answer, Disk, Extent, Geometry, Result, Run, Segment};

/// Writes take up storage in pieces of this size.
const PIECE: u64 = 4096;

/// No quota.
const NONE: u64 = u64::MAX;

/// What a tally says that was never put right: more than any quota, and far from overflow.
const UNKNOWN: u64 = 1 << 62;

/// Knows what of a disk's storage is its own. Both calls may block.
pub trait Own: Send + Sync + 'static {
    /// Bytes that are its own now, those included that are still on their way to the storage.
    ///
    /// # Errors
    /// `Unsupported` where the storage does not tell: then there is no quota.
    fn all(&self) -> io::Result<u64>;

    /// Bytes that would become its own at most if all of `range` were written.
    ///
    /// # Errors
    /// As those of [`all`](Self::all).
    fn added_by(&self, range: Range<u64>) -> io::Result<u64>;
}

/// A disk with a quota, or one that may get one.
pub struct QuotaDisk {
    disk: Arc<dyn Disk>,
    quota: Arc<Quota>,
}

/// The quota of a disk, and how much of it is taken.
pub struct Quota {
    own: Box<dyn Own>,
    limit: AtomicU64,
    /// Never less than what the disk holds and what is under way to it.
    tally: AtomicU64,
    /// What of the tally belongs to writes that are not done yet.
    under_way: AtomicU64,
    /// The tally may be too high: something was counted or given back since it was put right.
    loose: AtomicBool,
    full: AtomicBool,
    // An asynchronous lock: it is held while somebody looks at the storage, and those who would find out
    // the same wait for that.
    turn: tokio::sync::Mutex<()>,
    // Held while it is measured: two at once would each put the tally right by what the other did.
    measuring: Mutex<()>,
}

/// Bytes that are counted for a write until it is done.
struct Claim {
    quota: Arc<Quota>,
    bytes: u64,
}

impl QuotaDisk {
    /// `disk`, held to a quota of `limit` bytes if there is one. `own` tells what it holds.
    pub fn new(disk: Arc<dyn Disk>, own: Box<dyn Own>, limit: Option<u64>) -> Self {
        let quota = Quota {
            own,
            limit: AtomicU64::new(limit.unwrap_or(NONE)),
            tally: AtomicU64::new(UNKNOWN),
            under_way: AtomicU64::new(0),
            loose: AtomicBool::new(true),
            full: AtomicBool::new(false),
            turn: tokio::sync::Mutex::default(),
            measuring: Mutex::default(),
        };
        QuotaDisk {
            disk,
            quota: Arc::new(quota),
        }
    }

    /// Its quota.
    pub fn quota(&self) -> &Arc<Quota> {
        &self.quota
    }

    /// Does a change to `extent` that takes up storage, if there is room for it.
    fn change(
        &self,
        extent: Extent,
        change: impl FnOnce(Arc<dyn Disk>) -> Answer<Result<()>> + Send + 'static,
    ) -> Answer<Result<()>> {
        let disk = self.disk.clone();
        if self.quota.limit().is_none() {
            return change(disk);
        }
        if let Some(claim) = self.quota.claim(rounded(extent)) {
            return change(disk).map(move |result| {
                drop(claim);
                result
            });
        }
        let quota = self.quota.clone();
        Answer::Later(Box::pin(async move {
            let _claim = quota.look_closely(extent).await?;
            change(disk).wait().await
        }))
    }
}

impl Quota {
    /// Bytes that the disk may hold, where that is limited.
    pub fn limit(&self) -> Option<u64> {
        match self.limit.load(Ordering::Relaxed) {
            NONE => None,
            limit => Some(limit),
        }
    }

    /// Gives the disk another quota, or none.
    pub fn set(&self, limit: Option<u64>) {
        let before = self.limit.swap(limit.unwrap_or(NONE), Ordering::SeqCst);
        if before == NONE {
            // Nobody has counted so far.
            self.loose.store(true, Ordering::SeqCst);
            self.tally.fetch_max(UNKNOWN, Ordering::SeqCst);
        }
        if self.tally.load(Ordering::SeqCst) < self.limit.load(Ordering::SeqCst) {
            self.full.store(false, Ordering::SeqCst);
        }
    }

    /// Bytes that it holds at most, as far as it was counted; nothing while nobody has.
    pub fn tally(&self) -> Option<u64> {
        Some(self.tally.load(Ordering::Relaxed)).filter(|bytes| *bytes < UNKNOWN)
    }

    /// Whether a write was refused since there was room last.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Bytes that the disk holds now. Blocks.
    ///
    /// # Errors
    /// When the storage does not tell.
    pub fn measure(&self) -> io::Result<u64> {
        let _turn = self
            .measuring
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // In this order: a write that is counted twice makes the tally too high, never too low.
        let before = self.tally.load(Ordering::SeqCst);
        let under_way = self.under_way.load(Ordering::SeqCst);
        let held = self.own.all()?;
        let now = held.saturating_add(under_way);
        // What was counted meanwhile stays counted: nobody else makes it less.
        self.count(|tally| Some(tally.saturating_sub(before).saturating_add(now)));
        Ok(held)
    }

    /// Changes the tally, unless `to` says that it must not. Tells whether it was changed.
    fn count(&self, to: impl FnMut(u64) -> Option<u64>) -> bool {
        let changed = self
            .tally
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, to);
        changed.is_ok()
    }

    fn claim(self: &Arc<Self>, bytes: u64) -> Option<Claim> {
        let limit = self.limit.load(Ordering::SeqCst);
        let fits = |tally: u64| tally.checked_add(bytes).filter(|after| *after <= limit);
        fits(self.tally.load(Ordering::SeqCst))?;
        // Before it is counted: whoever measures in between counts it twice, not never.
        self.under_way.fetch_add(bytes, Ordering::SeqCst);
        if !self.count(fits) {
            self.under_way.fetch_sub(bytes, Ordering::SeqCst);
            // Somebody else was quicker. Whoever measured meanwhile has counted what does not come.
            self.loose.store(true, Ordering::SeqCst);
            return None;
        }
        self.loose.store(true, Ordering::SeqCst);
        Some(Claim {
            quota: self.clone(),
            bytes,
        })
    }

    /// Counts only what a write really adds, and puts the tally right if need be.
    async fn look_closely(self: &Arc<Self>, extent: Extent) -> Result<Claim> {
        let turn = self.turn.lock().await;
        // Somebody before us may have put it right.
        if let Some(claim) = self.claim(rounded(extent)) {
            return Ok(claim);
        }
        let quota = self.clone();
        let range = extent.range();
        let judged = blocking(move || match quota.judge(range) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(
                    "a disk has a quota that is not kept: its file system does not tell what files share"
                );
                quota.set(None);
                Ok(quota.nothing())
            }
            judged => judged,
        });
        let judged = judged.await;
        drop(turn);
        judged
    }

    fn judge(self: &Arc<Self>, range: Range<u64>) -> io::Result<Claim> {
        let adds = self.own.added_by(range.clone())?;
        if let Some(claim) = self.claim_added(adds) {
            return Ok(claim);
        }
        if self.loose.swap(false, Ordering::SeqCst) {
            self.measure()?;
            // What was on its way to the storage has its place now: less may be new than before.
            let adds = self.own.added_by(range)?;
            if let Some(claim) = self.claim_added(adds) {
                if adds > 0 {
                    self.full.store(false, Ordering::SeqCst);
                }
                return Ok(claim);
            }
        }
        self.full.store(true, Ordering::SeqCst);
        Err(io::ErrorKind::QuotaExceeded.into())
    }

    /// What writes only over what it holds needs no room.
    fn claim_added(self: &Arc<Self>, adds: u64) -> Option<Claim> {
        match adds {
            0 => Some(self.nothing()),
            adds => self.claim(adds),
        }
    }

    fn nothing(self: &Arc<Self>) -> Claim {
        Claim {
            quota: self.clone(),
            bytes: 0,
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        self.quota.under_way.fetch_sub(self.bytes, Ordering::SeqCst);
        // Whoever measured while it was under way may have counted it twice, or not found it in its
        // place yet.
        self.quota.loose.store(true, Ordering::SeqCst);
    }
}

/// What a write of all of an extent takes up at most.
fn rounded(extent: Extent) -> u64 {
    let Range { start, end } = extent.range();
    end.next_multiple_of(PIECE) - start / PIECE * PIECE
}

impl Disk for QuotaDisk {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn read(&self, extent: Extent) -> Answer<Result<Vec<Segment>>> {
        self.disk.read(extent)
    }

    fn write(&self, extent: Extent, data: Vec<Bytes>) -> Answer<Result<()>> {
        self.change(extent, move |disk| disk.write(extent, data))
    }

    fn flush(&self) -> Answer<Result<()>> {
        self.disk.flush()
    }

    fn unmap(&self, extent: Extent) -> Answer<Result<()>> {
        if !self.disk.geometry().thin {
            // Zeros are written then.
            return self.change(extent, move |disk| disk.unmap(extent));
        }
        let quota = self.quota.clone();
        self.disk.unmap(extent).map(move |result| {
            quota.loose.store(true, Ordering::SeqCst);
            result
        })
    }

    fn write_through(self: Arc<Self>, extent: Extent, data: Vec<Bytes>) -> Answer<Result<()>> {
        self.change(extent, move |disk| disk.write_through(extent, data))
    }

    fn write_atomic(self: Arc<Self>, extent: Extent, data: Vec<Bytes>) -> Answer<Result<()>> {
        self.change(extent, move |disk| disk.write_atomic(extent, data))
    }

    fn scrub(&self) -> Answer<Result<()>> {
        self.disk.scrub()
    }

    fn mapping(&self, extent: Extent, most: usize) -> Answer<Result<Vec<Run>>> {
        self.disk.mapping(extent, most)
    }

    fn advise(&self, extent: Extent, advice: Advice) -> Answer<bool> {
        self.disk.advise(extent, advice)
    }

    fn file(&self) -> Option<Arc<File>> {
        // Whoever copies into it by a system call would pass the tally by.
        match self.quota.limit() {
            Some(_) => None,
            None => self.disk.file(),
        }
    }

    fn file_to_write(&self, extent: Extent) -> Option<Arc<File>> {
        match self.quota.limit() {
            Some(_) => None,
            None => self.disk.file_to_write(extent),
        }
    }

    fn refresh(&self) -> io::Result<Geometry> {
        self.disk.refresh()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    use super::super::{Error, MemoryDisk, model};
    use super::*;

    /// Pieces that were written and not given back, as a file system would know them.
    #[derive(Default)]
    struct Pieces {
        held: Mutex<BTreeSet<u64>>,
        measured: AtomicUsize,
    }

    impl Own for Arc<Pieces> {
        fn all(&self) -> io::Result<u64> {
            self.measured.fetch_add(1, Ordering::SeqCst);
            Ok(self.held.lock().unwrap().len() as u64 * PIECE)
        }

        fn added_by(&self, range: Range<u64>) -> io::Result<u64> {
            let held = self.held.lock().unwrap();
            let pieces = range.start / PIECE..range.end.div_ceil(PIECE);
            Ok(pieces.filter(|piece| !held.contains(piece)).count() as u64 * PIECE)
        }
    }

    struct Lab {
        disk: QuotaDisk,
        pieces: Arc<Pieces>,
    }

    impl Lab {
        fn new(limit: Option<u64>) -> Lab {
            let pieces = Arc::new(Pieces::default());
            let memory = Arc::new(MemoryDisk::new(512, 1 << 14));
            let disk = QuotaDisk::new(memory, Box::new(pieces.clone()), limit);
            Lab { disk, pieces }
        }

        fn extent(&self, piece: u64, pieces: u64) -> Extent {
            self.disk.geometry().extent(piece * 8, pieces * 8).unwrap()
        }

        async fn write(&self, piece: u64, pieces: u64) -> Result<()> {
            let extent = self.extent(piece, pieces);
            let data = vec![Bytes::from(vec![7; extent.len() as usize])];
            self.disk.write(extent, data).wait().await?;
            self.pieces
                .held
                .lock()
                .unwrap()
                .extend(piece..piece + pieces);
            Ok(())
        }

        async fn unmap(&self, piece: u64, pieces: u64) {
            let gone = piece..piece + pieces;
            self.pieces
                .held
                .lock()
                .unwrap()
                .retain(|one| !gone.contains(one));
            let extent = self.extent(piece, pieces);
            self.disk.unmap(extent).wait().await.unwrap();
        }

        async fn is_full(&self, piece: u64, pieces: u64) -> bool {
            matches!(self.write(piece, pieces).await, Err(Error::OutOfSpace))
        }
    }

    #[tokio::test]
    async fn a_disk_holds_what_its_quota_allows_and_not_a_piece_more() {
        let lab = Lab::new(Some(10 * PIECE));
        lab.write(0, 6).await.unwrap();
        lab.write(100, 4).await.unwrap();
        assert!(!lab.disk.quota().is_full());
        assert!(lab.is_full(200, 1).await);
        assert!(lab.disk.quota().is_full());
        // What it holds can be written again, as often as it likes.
        for _ in 0..50 {
            lab.write(2, 3).await.unwrap();
            lab.write(100, 4).await.unwrap();
        }
        // A write that is new in part is new.
        assert!(lab.is_full(5, 2).await);
        let extent = lab.extent(0, 200);
        assert!(lab.disk.read(extent).wait().await.is_ok());
        assert!(lab.disk.flush().wait().await.is_ok());
    }

    #[tokio::test]
    async fn it_goes_on_when_something_was_given_back_or_the_quota_raised() {
        let lab = Lab::new(Some(4 * PIECE));
        lab.write(0, 4).await.unwrap();
        assert!(lab.is_full(8, 1).await);
        lab.unmap(0, 2).await;
        lab.write(8, 2).await.unwrap();
        assert!(!lab.disk.quota().is_full());
        assert!(lab.is_full(16, 1).await);
        lab.disk.quota().set(Some(5 * PIECE));
        lab.write(16, 1).await.unwrap();
        assert!(lab.is_full(17, 1).await);
        lab.disk.quota().set(None);
        lab.write(32, 100).await.unwrap();
        lab.disk.quota().set(Some(50 * PIECE));
        assert!(lab.is_full(300, 1).await, "it holds more than that already");
        lab.write(32, 100).await.unwrap();
    }

    #[tokio::test]
    async fn who_has_no_quota_is_never_looked_at_and_who_is_refused_only_once() {
        let lab = Lab::new(None);
        for piece in 0..100 {
            lab.write(piece, 1).await.unwrap();
        }
        let measured = || lab.pieces.measured.load(Ordering::SeqCst);
        assert_eq!((measured(), lab.disk.quota().tally()), (0, None));
        lab.disk.quota().set(Some(100 * PIECE));
        for _ in 0..100 {
            assert!(lab.is_full(500, 1).await);
        }
        assert_eq!(measured(), 1, "nothing has changed in between");
        assert_eq!(lab.disk.quota().tally(), Some(100 * PIECE));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_writers_at_once_do_not_go_beyond_it() {
        let lab = Arc::new(Lab::new(Some(64 * PIECE)));
        let writers = (0..200).map(|piece| {
            let lab = lab.clone();
            tokio::spawn(async move { lab.write(piece, 1).await.is_ok() })
        });
        let writers: Vec<_> = writers.collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let held = lab.pieces.held.lock().unwrap().len();
        assert_eq!(held, 64);
    }

    /// As a file system that gives out storage late: until it is measured, what was written shares with
    /// others what was there before.
    #[tokio::test]
    async fn what_has_no_place_yet_can_be_written_again_at_a_full_quota() {
        #[derive(Default)]
        struct Late {
            written: Arc<Pieces>,
            placed: Arc<Pieces>,
        }
        impl Own for Late {
            fn all(&self) -> io::Result<u64> {
                *self.placed.held.lock().unwrap() = self.written.held.lock().unwrap().clone();
                self.placed.all()
            }
            fn added_by(&self, range: Range<u64>) -> io::Result<u64> {
                self.placed.added_by(range)
            }
        }
        let late = Late::default();
        let pieces = late.written.clone();
        let memory = Arc::new(MemoryDisk::new(512, 1 << 14));
        let disk = QuotaDisk::new(memory, Box::new(late), Some(10 * PIECE));
        let lab = Lab { disk, pieces };
        for round in 0..20 {
            for piece in 0..10 {
                let written = lab.write(piece, 1).await;
                assert!(written.is_ok(), "round {round}, piece {piece}");
            }
        }
        assert!(lab.is_full(20, 1).await);
        lab.write(0, 10).await.unwrap();
    }

    #[tokio::test]
    async fn storage_that_does_not_tell_has_no_quota() {
        struct Mute;
        impl Own for Mute {
            fn all(&self) -> io::Result<u64> {
                Err(io::ErrorKind::Unsupported.into())
            }
            fn added_by(&self, _: Range<u64>) -> io::Result<u64> {
                self.all()
            }
        }
        let memory = Arc::new(MemoryDisk::new(512, 64));
        let disk = QuotaDisk::new(memory, Box::new(Mute), Some(1));
        let extent = disk.geometry().extent(0, 8).unwrap();
        let data = vec![Bytes::from(vec![1; 4096])];
        disk.write(extent, data).wait().await.unwrap();
        assert_eq!(disk.quota().limit(), None);
    }

    proptest::proptest! {
        #[test]
        fn behaves_as_the_disk_below(ops in model::ops(model::BLOCKS)) {
            let memory = Arc::new(MemoryDisk::new(512, model::BLOCKS));
            let own = Box::new(Arc::new(Pieces::default()));
            let disk = QuotaDisk::new(memory, own, Some(1 << 20));
            model::check(&disk, vec![0; model::BLOCKS as usize * 512], ops);
        }
    }
}
