//! One version as a target of its own, for the machine that tries it: apart from a running server, on
//! this host's loopback, and for one initiator whose name is drawn.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::drawn;
use crate::block::Disk;
use crate::iscsi::{
    self, Authentication, BoxFuture, Directory, End, Guard, Initiator, IscsiName, Opened, Refusal,
    ServerConfig, SessionControl, Sessions,
};
use crate::library::{Library, Target, VersionId};
use crate::scsi::{Device, Lun, Options};

/// A target that lives as long as this does.
pub struct TrialTarget {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its name.
    pub target: String,
    /// The name that the machine's initiator has to have.
    pub initiator: String,
    /// Where its disk stands.
    pub lun: u16,
    was_entered: Arc<AtomicBool>,
    over: Arc<Notify>,
    serving: Option<JoinHandle<()>>,
    // Ends after what runs in it.
    runtime: Option<Runtime>,
}

impl TrialTarget {
    /// Serves a version on a port of 127.0.0.1 that is drawn. The machine will see it on `seen_at`.
    ///
    /// # Errors
    /// When the version's disk cannot be opened, or no socket can.
    pub fn serve(library: &Library, version: &VersionId, seen_at: Ipv4Addr) -> Result<Self> {
        let lun = library.config().iscsi.lun.number();
        let target = library.target_name(&Target::Version(version.clone()));
        let initiator = format!("{}:trial-{}", library.config().iqn_prefix, drawn());
        let was_entered = Arc::new(AtomicBool::new(false));
        let only = OneVersion {
            target: target.parse().context("naming the target")?,
            initiator: initiator.parse().context("naming the initiator")?,
            lun: Lun::new(lun).unwrap_or(Lun::ZERO),
            disk: library.open_version(version)?,
            was_entered: was_entered.clone(),
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("starting a target to test the image with")?;
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = runtime
            .block_on(TcpListener::bind(here))
            .context("listening on 127.0.0.1")?;
        let address = listener.local_addr().context("listening on 127.0.0.1")?;
        let config = ServerConfig {
            announce: vec![SocketAddr::from((seen_at, address.port()))],
            ..ServerConfig::default()
        };
        let over = Arc::new(Notify::new());
        let ends = over.clone();
        let (directory, sessions) = (Arc::new(only), Sessions::new());
        let serving = runtime.spawn(async move {
            let over = ends.notified();
            iscsi::serve(vec![listener], directory, sessions, config, over).await;
        });
        Ok(TrialTarget {
            address,
            target,
            initiator,
            lun,
            was_entered,
            over,
            serving: Some(serving),
            runtime: Some(runtime),
        })
    }

    /// Whether the machine has logged in to its disk.
    pub fn was_entered(&self) -> bool {
        self.was_entered.load(Ordering::Relaxed)
    }
}

impl Drop for TrialTarget {
    fn drop(&mut self) {
        self.over.notify_one();
        if let (Some(runtime), Some(serving)) = (self.runtime.take(), self.serving.take()) {
            // It ends by itself within seconds; how, is nobody's business any more.
            let _ = runtime.block_on(serving);
        }
    }
}

struct OneVersion {
    target: IscsiName,
    initiator: IscsiName,
    lun: Lun,
    disk: Arc<dyn Disk>,
    was_entered: Arc<AtomicBool>,
}

impl OneVersion {
    fn knows(&self, who: &Initiator) -> bool {
        who.name == self.initiator
    }
}

impl Directory for OneVersion {
    fn targets<'a>(&'a self, who: &'a Initiator) -> BoxFuture<'a, Vec<IscsiName>> {
        let known = self.knows(who).then(|| self.target.clone());
        Box::pin(async move { known.into_iter().collect() })
    }

    /// Whoever on this host guesses the name may read what the library shows to every initiator anyway.
    fn authentication<'a>(
        &'a self,
        _: &'a Initiator,
        _: Option<&'a IscsiName>,
    ) -> BoxFuture<'a, Authentication> {
        Box::pin(async { Authentication::None })
    }

    fn open<'a>(
        &'a self,
        who: &'a Initiator,
        target: &'a IscsiName,
        _: SessionControl,
    ) -> BoxFuture<'a, Result<Opened, Refusal>> {
        Box::pin(async move {
            if *target != self.target || !self.knows(who) {
                return Err(Refusal::NotFound);
            }
            self.was_entered.store(true, Ordering::Relaxed);
            let identity = self.target.as_str();
            let disk = self.disk.clone();
            let device =
                Device::new(identity).with_disk(self.lun, identity, disk, Options::default());
            Ok(Opened {
                device: Arc::new(device),
                guard: Box::new(Nobody),
            })
        })
    }
}

/// Nobody writes down that a session is over.
struct Nobody;

impl Guard for Nobody {
    fn ended(self: Box<Self>, _: End) {}
}
