//! Whoever takes an answer so slowly that it never ends holds a place, and memory, that others need.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// So much has to be taken ...
const LEAST: usize = 16 << 10;
/// ... in so long, by whoever has more to come. What is sent goes through the kernel's buffers, which
/// take more at a time.
const WITHIN: Duration = Duration::from_secs(30);

/// A stream that fails with [`io::ErrorKind::TimedOut`] when its peer takes what is written too slowly.
pub(super) struct Paced<S> {
    stream: S,
    within: Duration,
    /// Since the peer kept us waiting.
    stalled: Option<Stalled>,
}

struct Stalled {
    over: Pin<Box<Sleep>>,
    taken: usize,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S) -> Self {
        Paced {
            stream,
            within: WITHIN,
            stalled: None,
        }
    }

    /// What became of an attempt to write.
    fn judged(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(more)) => {
                if let Some(stalled) = &mut self.stalled {
                    stalled.taken += more;
                    if stalled.taken >= LEAST {
                        self.stalled = None;
                    }
                }
                written
            }
            Poll::Ready(Err(_)) => written,
            Poll::Pending => {
                let within = self.within;
                let stalled = self.stalled.get_or_insert_with(|| Stalled {
                    over: Box::pin(sleep(within)),
                    taken: 0,
                });
                match stalled.over.as_mut().poll(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(()) => Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the peer takes its answer too slowly",
                    ))),
                }
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judged(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judged(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(flushed) => {
                // Nothing is left to be taken.
                self.stalled = None;
                Poll::Ready(flushed)
            }
            Poll::Pending => self.judged(cx, Poll::Pending).map(|done| done.map(drop)),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const SHORT: Duration = Duration::from_millis(400);

    fn paced(stream: tokio::io::DuplexStream) -> Paced<tokio::io::DuplexStream> {
        Paced {
            within: SHORT,
            ..Paced::new(stream)
        }
    }

    /// What becomes of an answer whose peer takes so much every 20 ms.
    async fn sent_to_one_who_takes(at_a_time: usize) -> io::Result<()> {
        let (ours, mut theirs) = duplex(8 << 10);
        let reader = tokio::spawn(async move {
            let mut bytes = vec![0; at_a_time];
            while let Ok(1..) = theirs.read(&mut bytes).await {
                sleep(SHORT / 20).await;
            }
        });
        let all = paced(ours).write_all(&vec![0; 64 << 10]).await;
        reader.abort();
        all
    }

    #[tokio::test]
    async fn who_hardly_reads_is_cut_off_and_who_reads_slowly_is_not() {
        let error = sent_to_one_who_takes(100).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        sent_to_one_who_takes(8 << 10).await.unwrap();
    }

    #[tokio::test]
    async fn a_pause_with_nothing_to_say_is_no_stall() {
        let (ours, mut theirs) = duplex(1024);
        let mut paced = paced(ours);
        for _ in 0..3 {
            let says = async {
                paced.write_all(&[0; 2048]).await?;
                paced.flush().await
            };
            let hears = async {
                sleep(SHORT / 4).await;
                theirs.read_exact(&mut [0; 2048]).await
            };
            let (said, heard) = tokio::join!(says, hears);
            said.unwrap();
            heard.unwrap();
            sleep(SHORT * 2).await;
        }
    }
}
