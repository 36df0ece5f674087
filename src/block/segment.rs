//! What reads yield: measuring, cutting and loading segments.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;

use super::backing::{self, Backing};
use super::{Answer, Result, Run, Segment};

/// Distance between the bytes whose presence tells that a range is cached. Caches are filled by
/// read-ahead in runs about this long.
const PROBE: u64 = 128 * 1024;

/// Parts of one request that wait at the same time. Each takes a thread that others wait for as well.
const AT_A_TIME: usize = 8;

impl Segment {
    /// Number of bytes.
    pub fn len(&self) -> u64 {
        match self {
            Segment::File { len, .. } | Segment::Zeros(len) => *len,
            Segment::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the first `n` bytes (or all, where there are fewer) off this segment.
    pub fn split_to(&mut self, n: u64) -> Segment {
        match self {
            Segment::File { file, offset, len } => {
                let n = n.min(*len);
                let head = Segment::File {
                    file: file.clone(),
                    offset: *offset,
                    len: n,
                };
                *offset += n;
                *len -= n;
                head
            }
            Segment::Zeros(len) => {
                let n = n.min(*len);
                *len -= n;
                Segment::Zeros(n)
            }
            Segment::Bytes(bytes) => {
                Segment::Bytes(bytes.split_to(n.min(bytes.len() as u64) as usize))
            }
        }
    }
}

/// The number of bytes in all `segments`.
pub fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(Segment::len).sum()
}

/// What reads yield, one after the other; some of those that have to wait do so at the same time.
pub(super) fn in_order(
    mut reads: impl Iterator<Item = Answer<Result<Vec<Segment>>>>,
) -> Answer<Result<Vec<Segment>>> {
    let (Some(first), second) = (reads.next(), reads.next()) else {
        return Answer::Now(Ok(Vec::new()));
    };
    let Some(second) = second else {
        return first;
    };
    let reads: Vec<_> = [first, second].into_iter().chain(reads).collect();
    if !reads.iter().all(Answer::is_there) {
        return Answer::Later(Box::pin(waited(reads).try_concat()));
    }
    let parts = reads.into_iter().filter_map(Answer::there);
    let all: Result<Vec<_>> = parts.collect();
    Answer::Now(all.map(|parts| parts.into_iter().flatten().collect()))
}

/// What the parts of one request yield, in order. None that has to wait is begun before one of the few
/// ahead of it is through.
pub(super) fn waited<T: Send + 'static>(parts: Vec<Answer<T>>) -> impl Stream<Item = T> + Send {
    stream::iter(parts).map(Answer::wait).buffered(AT_A_TIME)
}

/// The bytes of `segments`, read into memory: at once where they are there or cached.
pub fn load(segments: Vec<Segment>) -> Answer<Result<Bytes>> {
    if let Some(bytes) = load_cached(&segments) {
        return Answer::Now(Ok(bytes));
    }
    Answer::Later(Box::pin(async move {
        let place = LOADS.acquire().await;
        backing::blocking(move || {
            let _place = place;
            load_blocking(&segments)
        })
        .await
    }))
}

/// Loads at a time, of all disks together: half of the pool's threads, should the storage of a version not
/// answer.
static LOADS: Semaphore = Semaphore::const_new(256);

/// Whether a range of a file can, as far as a look at some of its pages tells, be read without
/// waiting for the storage.
pub fn is_cached(file: &Arc<File>, offset: u64, len: u64) -> bool {
    let Some(last) = len.checked_sub(1) else {
        return true;
    };
    (0..=last / PROBE)
        .map(|i| i * PROBE)
        .chain([last])
        .all(|at| file.read_cached(offset + at, 1).is_some())
}

/// Runs of bytes as runs of whole blocks: a block is mapped if some of it is. The lengths of `runs` may
/// be anything, but for the end of the last, which is the end of a block or not known.
pub(super) fn whole_blocks(runs: Vec<Run>, block: u64) -> Vec<Run> {
    let mut whole: Vec<Run> = Vec::with_capacity(runs.len());
    let (mut at, mut done) = (0, 0);
    for run in runs {
        at += run.len;
        let end = if run.mapped {
            at.next_multiple_of(block)
        } else {
            at / block * block
        };
        if end <= done {
            continue;
        }
        let len = end - done;
        done = end;
        match whole.last_mut() {
            Some(last) if last.mapped == run.mapped => last.len += len,
            _ => whole.push(Run {
                len,
                mapped: run.mapped,
            }),
        }
    }
    whole
}

/// The bytes, if they can be had without waiting for the storage.
fn load_cached(segments: &[Segment]) -> Option<Bytes> {
    let one = |segment: &Segment| match segment {
        Segment::Bytes(bytes) => Some(bytes.clone()),
        Segment::Zeros(n) => Some(backing::zeros(*n as usize)),
        Segment::File { file, offset, len } => file.read_cached(*offset, *len as usize),
    };
    if let [segment] = segments {
        return one(segment);
    }
    let mut all = BytesMut::with_capacity(total(segments) as usize);
    for segment in segments {
        all.extend_from_slice(&one(segment)?);
    }
    Some(all.freeze())
}

fn load_blocking(segments: &[Segment]) -> std::io::Result<Bytes> {
    let mut all = BytesMut::with_capacity(total(segments) as usize);
    for segment in segments {
        match segment {
            Segment::Bytes(bytes) => all.extend_from_slice(bytes),
            Segment::Zeros(n) => all.resize(all.len() + *n as usize, 0),
            Segment::File { file, offset, len } => {
                let start = all.len();
                all.resize(start + *len as usize, 0);
                // A file that ends before has lost some; zeros are no answer.
                FileExt::read_exact_at(file.as_ref(), all.split_at_mut(start).1, *offset)?;
            }
        }
    }
    Ok(all.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file_segment(bytes: &[u8]) -> Segment {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Segment::File {
            file: Arc::new(file),
            offset: 0,
            len: bytes.len() as u64,
        }
    }

    #[tokio::test]
    async fn cutting_keeps_every_byte_in_its_place() {
        for cut in 0..=8 {
            for mut segment in [
                file_segment(b"abcdefgh"),
                Segment::Bytes(Bytes::from_static(b"abcdefgh")),
            ] {
                let head = segment.split_to(cut);
                assert_eq!(head.len(), cut);
                assert_eq!(segment.len(), 8 - cut);
                let whole = load(vec![head, segment]).wait().await.unwrap();
                assert_eq!(&whole[..], b"abcdefgh");
            }
        }
    }

    #[test]
    fn a_block_that_is_mapped_in_part_is_mapped() {
        let run = |len, mapped| Run { len, mapped };
        let bytes = vec![
            run(1024, false),
            run(1024, true),
            run(6144, false),
            run(4096, true),
        ];
        assert_eq!(
            whole_blocks(bytes, 4096),
            [run(4096, true), run(4096, false), run(4096, true)]
        );
        let exact = vec![run(512, true), run(1024, false)];
        assert_eq!(whole_blocks(exact.clone(), 512), exact);
    }

    #[tokio::test]
    async fn reads_that_wait_do_so_together_and_keep_their_order() {
        let bytes =
            |text: &'static str| Ok(vec![Segment::Bytes(Bytes::from_static(text.as_bytes()))]);
        let (tell, told) = tokio::sync::oneshot::channel();
        // The first has its answer only once the second was asked.
        let reads = vec![
            Answer::Later(Box::pin(async move {
                told.await.unwrap();
                bytes("a")
            })),
            Answer::Now(bytes("b")),
            Answer::Later(Box::pin(async move {
                tell.send(()).unwrap();
                bytes("c")
            })),
        ];
        let all = in_order(reads.into_iter()).wait().await.unwrap();
        assert_eq!(&load(all).wait().await.unwrap()[..], b"abc");
        let at_once = in_order([Answer::Now(bytes("d")), Answer::Now(bytes("e"))].into_iter());
        let Answer::Now(Ok(all)) = at_once else {
            panic!("nothing to wait for");
        };
        assert_eq!(&load(all).wait().await.unwrap()[..], b"de");
    }

    #[tokio::test]
    async fn a_read_in_many_parts_waits_for_a_few_at_a_time() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let reads = (0..100_u8).map(|n| {
            let (running, most) = (running.clone(), most.clone());
            Answer::Later(Box::pin(async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                for _ in 0..=n % 7 {
                    tokio::task::yield_now().await;
                }
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(vec![Segment::Bytes(Bytes::from(vec![n]))])
            }) as _)
        });
        let all = in_order(reads).wait().await.unwrap();
        let expected: Vec<u8> = (0..100).collect();
        assert_eq!(load(all).wait().await.unwrap(), expected);
        assert_eq!(most.load(Ordering::SeqCst), AT_A_TIME);
    }

    #[tokio::test]
    async fn what_a_file_has_lost_is_not_taken_for_zeros() {
        let segment = file_segment(b"abcdefgh");
        let Segment::File { file, .. } = &segment else {
            panic!("a file's");
        };
        file.set_len(4).unwrap();
        assert!(load(vec![segment]).wait().await.is_err());
    }

    #[tokio::test]
    async fn every_kind_of_segment_is_loaded() {
        let parts = vec![file_segment(b"xy"), Segment::Zeros(3), file_segment(b"z")];
        assert_eq!(total(&parts), 6);
        assert_eq!(&load(parts).wait().await.unwrap()[..], b"xy\0\0\0z");
    }
}
