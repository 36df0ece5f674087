//! What the machine itself can do, without any protocol: the same bytes over the same loopback, by the
//! shortest loops that there are.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::net::{RecvFlags, recv};

use super::load::Numbers;
use super::place::SIZE;

/// Bytes that are sent at once, as many as Linux takes in one PDU.
const CHUNK: usize = 256 << 10;

/// What a loop has reached.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rate {
    pub(super) mib_a_second: f64,
    /// Processor time of the sender alone.
    pub(super) us_a_mib: f64,
}

/// All limits, measured once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) sendfile: Rate,
    pub(super) pread_send: Rate,
    pub(super) memcpy_mib_a_second: f64,
    pub(super) preads_a_second: f64,
}

/// Measures all of them with a file that is in the page cache.
///
/// # Errors
/// When a call fails.
pub(super) fn measure(path: &Path, time: Duration) -> Result<Limits> {
    Ok(Limits {
        sendfile: sendfile(path, time)?,
        pread_send: pread_send(path, time)?,
        memcpy_mib_a_second: memcpy(time),
        preads_a_second: preads(path, time)?,
    })
}

/// The file over a connection, without touching it.
///
/// # Errors
/// When a call fails.
pub(super) fn sendfile(path: &Path, time: Duration) -> Result<Rate> {
    over_loopback(path, time, |file, socket, mut at| {
        let end = at + CHUNK as u64;
        while at < end {
            let left = (end - at) as usize;
            // It moves `at`.
            rustix::fs::sendfile(socket, file, Some(&mut at), left)?;
        }
        Ok(())
    })
}

/// The file over a connection, by way of a buffer.
fn pread_send(path: &Path, time: Duration) -> Result<Rate> {
    let mut buffer = vec![0; CHUNK];
    over_loopback(path, time, move |file, mut socket, at| {
        file.read_exact_at(&mut buffer, at)?;
        socket.write_all(&buffer)?;
        Ok(())
    })
}

/// Sends chunk after chunk to somebody who drops them.
fn over_loopback(
    path: &Path,
    time: Duration,
    mut chunk: impl FnMut(&File, &TcpStream, u64) -> Result<()> + Send,
) -> Result<Rate> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let receiver = TcpStream::connect(listener.local_addr()?)?;
    let (sender, _) = listener.accept()?;
    sender.set_nodelay(true)?;
    let began = Instant::now();
    thread::scope(|scope| {
        // The socket goes with the thread, which ends the stream.
        let sending = scope.spawn(move || -> Result<f64> {
            let before = thread_processor()?;
            let mut at = 0;
            while began.elapsed() < time {
                chunk(&file, &sender, at)?;
                at = (at + CHUNK as u64) % (SIZE - CHUNK as u64);
            }
            Ok(thread_processor()? - before)
        });
        let mut void = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            match recv(&receiver, void.as_mut_slice(), RecvFlags::TRUNC)? {
                (_, 0) => break,
                (_, len) => bytes += len,
            }
        }
        let took = began.elapsed().as_secs_f64();
        let used = sending
            .join()
            .map_err(|_| anyhow!("the sender panicked"))??;
        let mib = bytes as f64 / f64::from(1 << 20);
        Ok(Rate {
            mib_a_second: mib / took,
            us_a_mib: used * 1e6 / mib,
        })
    })
}

/// MiB a second from one part of memory to another.
fn memcpy(time: Duration) -> f64 {
    let from = vec![1_u8; 64 << 20];
    let mut to = vec![0_u8; from.len()];
    let (began, mut mib) = (Instant::now(), 0);
    while began.elapsed() < time {
        to.copy_from_slice(&from);
        std::hint::black_box(&mut to);
        mib += from.len() >> 20;
    }
    mib as f64 / began.elapsed().as_secs_f64()
}

/// Reads of 4 KiB from anywhere in the page cache.
fn preads(path: &Path, time: Duration) -> Result<f64> {
    let file = File::open(path)?;
    let mut buffer = [0; 4096];
    let mut numbers = Numbers::new(1);
    let (began, mut reads) = (Instant::now(), 0_u64);
    while began.elapsed() < time {
        for _ in 0..64 {
            let at = numbers.below(SIZE / 4096) * 4096;
            file.read_exact_at(&mut buffer, at)?;
        }
        reads += 64;
    }
    Ok(reads as f64 / began.elapsed().as_secs_f64())
}

/// Seconds that this thread has run.
fn thread_processor() -> Result<f64> {
    let path = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let nanoseconds = text
        .split_whitespace()
        .next()
        .and_then(|word| word.parse::<f64>().ok());
    Ok(nanoseconds.with_context(|| format!("{path} tells no time"))? / 1e9)
}
