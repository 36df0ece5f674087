//! A server with a few targets, on ports that the system gives.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use netroot::block::{
    self, Answer, Disk, Extent, FileDisk, Geometry, MemoryDisk, OverlayDisk, Segment, SharedDisk,
};
use netroot::iscsi::{
    Authentication, BoxFuture, Credential, Directory, End, Guard, Initiator, IscsiName, Limits,
    Opened, Refusal, ServerConfig, SessionControl, Sessions, serve,
};
use netroot::scsi::{Device, Lun, Options};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

/// Everybody may see and open every target, but the private one.
pub(crate) const READ_ONLY: &str = "iqn.2026-01.test:sealed";
pub(crate) const WRITABLE: &str = "iqn.2026-01.test:writable";
pub(crate) const OVERLAY: &str = "iqn.2026-01.test:overlay";
/// A disk that began as a copy of the read-only one, and has from that what it has not written.
pub(crate) const SHARED: &str = "iqn.2026-01.test:shared";
pub(crate) const MEMORY: &str = "iqn.2026-01.test:memory";
pub(crate) const PRIVATE: &str = "iqn.2026-01.test:private";

/// Whoever knows the secret of anna.
pub(crate) const GUARDED: &str = "iqn.2026-01.test:guarded";
pub(crate) const SECRET: &str = "secret of anna";

/// A disk in memory with blocks of 4,096 bytes.
pub(crate) const LARGE_BLOCKS: &str = "iqn.2026-01.test:large-blocks";

/// A disk in memory that tells what was asked of it.
pub(crate) const WATCHED: &str = "iqn.2026-01.test:watched";
/// From this block on, its storage takes its time.
pub(crate) const COLD: u64 = 8192;

/// Size of all disks, in bytes.
pub(crate) const SIZE: u64 = 8 * 1024 * 1024;

pub(crate) struct Server {
    pub(crate) v4: SocketAddr,
    /// The same server, on a socket for IPv6 and IPv4.
    pub(crate) dual: SocketAddr,
    pub(crate) sessions: Sessions,
    pub(crate) ends: Arc<Mutex<Vec<End>>>,
    pub(crate) watched: Arc<Watched>,
    /// The disk of [`MEMORY`].
    pub(crate) memory: Arc<MemoryDisk>,
    /// Contents of the read-only and of the overlay's base disk.
    pub(crate) contents: Vec<u8>,
    pub(crate) dir: tempfile::TempDir,
    shutdown: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

pub(crate) struct Watched {
    disk: MemoryDisk,
    /// Bytes that were read.
    pub(crate) read: AtomicU64,
    /// Writes that no flush has followed.
    pub(crate) unflushed: AtomicU64,
    /// The names of the threads that reads were asked for on.
    pub(crate) readers: Mutex<Vec<String>>,
    /// Reads from [`COLD`] on take one of these each, as if nothing there were cached.
    pub(crate) arrived: Arc<Semaphore>,
}

impl Disk for Watched {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn read(&self, extent: Extent) -> Answer<block::Result<Vec<Segment>>> {
        self.read.fetch_add(extent.len(), Ordering::SeqCst);
        let reader = std::thread::current().name().unwrap_or_default().to_owned();
        self.readers.lock().unwrap().push(reader);
        let read = self.disk.read(extent);
        if extent.offset() < COLD * 512 {
            return read;
        }
        let arrived = self.arrived.clone();
        Answer::Later(Box::pin(async move {
            arrived.acquire().await.unwrap().forget();
            read.wait().await
        }))
    }

    fn write(&self, extent: Extent, data: Vec<Bytes>) -> Answer<block::Result<()>> {
        self.unflushed.fetch_add(1, Ordering::SeqCst);
        self.disk.write(extent, data)
    }

    fn flush(&self) -> Answer<block::Result<()>> {
        self.unflushed.store(0, Ordering::SeqCst);
        self.disk.flush()
    }

    fn unmap(&self, extent: Extent) -> Answer<block::Result<()>> {
        self.disk.unmap(extent)
    }
}

struct Targets {
    devices: HashMap<IscsiName, Arc<Device>>,
    ends: Arc<Mutex<Vec<End>>>,
}

struct Log(Arc<Mutex<Vec<End>>>);

impl Guard for Log {
    fn ended(self: Box<Self>, end: End) {
        self.0.lock().unwrap().push(end);
    }
}

impl Directory for Targets {
    fn targets<'a>(&'a self, _: &'a Initiator) -> BoxFuture<'a, Vec<IscsiName>> {
        let mut names: Vec<_> = self.devices.keys().cloned().collect();
        names.retain(|name| ![PRIVATE, GUARDED].contains(&name.as_str()));
        names.sort();
        Box::pin(async move { names })
    }

    fn authentication<'a>(
        &'a self,
        _: &'a Initiator,
        target: Option<&'a IscsiName>,
    ) -> BoxFuture<'a, Authentication> {
        let guarded = target.is_some_and(|target| target.as_str() == GUARDED);
        Box::pin(async move {
            if !guarded {
                return Authentication::None;
            }
            Authentication::Chap {
                initiator: vec![Credential::new("anna", SECRET).unwrap()],
                target: Some(Credential::new("tara", "secret of the target").unwrap()),
            }
        })
    }

    fn open<'a>(
        &'a self,
        _: &'a Initiator,
        target: &'a IscsiName,
        _: SessionControl,
    ) -> BoxFuture<'a, Result<Opened, Refusal>> {
        Box::pin(async move {
            if target.as_str() == PRIVATE {
                return Err(Refusal::Forbidden);
            }
            let device = self.devices.get(target).ok_or(Refusal::NotFound)?;
            Ok(Opened {
                device: device.clone(),
                guard: Box::new(Log(self.ends.clone())),
            })
        })
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let contents = contents();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("sealed"), &contents).unwrap();
        std::fs::File::create(path("writable"))
            .unwrap()
            .set_len(SIZE)
            .unwrap();
        OverlayDisk::create(&path("data"), &path("bitmap"), SIZE).unwrap();
        let sealed: Arc<dyn Disk> = Arc::new(FileDisk::open_sealed(&path("sealed"), 512).unwrap());
        let overlay = OverlayDisk::open(&path("data"), &path("bitmap"), sealed.clone()).unwrap();
        std::fs::write(path("clone"), &contents).unwrap();
        let own = FileDisk::open_writable(&path("clone"), 512).unwrap();
        let all = std::iter::once(Ok(0..SIZE));
        let shared = SharedDisk::new(Arc::new(own), sealed.clone(), all).unwrap();
        let writable = FileDisk::open_writable(&path("writable"), 512).unwrap();
        let watched = Arc::new(Watched {
            disk: MemoryDisk::new(512, SIZE / 512),
            read: AtomicU64::new(0),
            unflushed: AtomicU64::new(0),
            readers: Mutex::default(),
            arrived: Arc::new(Semaphore::new(0)),
        });
        let memory = Arc::new(MemoryDisk::new(512, SIZE / 512));
        let disks: [(&str, Arc<dyn Disk>); 9] = [
            (READ_ONLY, sealed.clone()),
            (WRITABLE, Arc::new(writable)),
            (OVERLAY, Arc::new(overlay)),
            (SHARED, Arc::new(shared)),
            (MEMORY, memory.clone()),
            (WATCHED, watched.clone()),
            (LARGE_BLOCKS, Arc::new(MemoryDisk::new(4096, SIZE / 4096))),
            (PRIVATE, sealed),
            (GUARDED, Arc::new(MemoryDisk::new(512, SIZE / 512))),
        ];
        let devices = disks.map(|(name, disk)| {
            let device =
                Device::new(name).with_disk(Lun::new(1).unwrap(), name, disk, Options::default());
            (name.parse().unwrap(), Arc::new(device))
        });
        let ends = Arc::new(Mutex::new(Vec::new()));
        let directory = Arc::new(Targets {
            devices: devices.into(),
            ends: ends.clone(),
        });
        let v4 = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dual = TcpListener::bind("[::]:0").await.unwrap();
        let sessions = Sessions::new();
        let (shutdown, stopped) = oneshot::channel::<()>();
        let config = ServerConfig {
            announce: Vec::new(),
            limits,
        };
        Server {
            v4: v4.local_addr().unwrap(),
            dual: dual.local_addr().unwrap(),
            sessions: sessions.clone(),
            ends,
            watched,
            memory,
            contents,
            dir,
            shutdown: Some(shutdown),
            task: tokio::spawn(serve(vec![v4, dual], directory, sessions, config, async {
                let _ = stopped.await;
            })),
        }
    }

    /// Shuts down and waits for the end.
    pub(crate) async fn stop(mut self) {
        let _ = self.shutdown.take().unwrap().send(());
        (&mut self.task).await.unwrap();
    }

    /// Ends it as if it had never been there: nothing is waited for.
    pub(crate) async fn vanish(&mut self) {
        self.task.abort();
        assert!((&mut self.task).await.unwrap_err().is_cancelled());
    }

    pub(crate) fn url(&self, target: &str) -> String {
        format!("iscsi://{}/{target}/1", self.v4)
    }
}

/// Bytes without a pattern, but always the same, with a hole.
fn contents() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(SIZE as usize);
    while (bytes.len() as u64) < SIZE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes[1 << 20..2 << 20].fill(0);
    bytes
}
