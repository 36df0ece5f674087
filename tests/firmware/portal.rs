//! A target of this process, in the laboratory's network: disks that want secrets, a portal that sends
//! everybody to another one, and the script that tells iPXE of them.

use std::collections::HashMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use netroot::block::FileDisk;
use netroot::iscsi::{
    Authentication, BoxFuture, Credential, Directory, End, Guard, Initiator, IscsiName, Limits,
    Opened, Refusal, ServerConfig, SessionControl, Sessions, serve,
};
use netroot::scsi::{Device, Lun, Options};
use nix::sched::{CloneFlags, setns};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use xtask::netns::{BOOT_PORT, Network, SERVER};

/// Where targets are said to be, and where they are.
pub(crate) const SAID: u16 = 3260;
const REAL: u16 = 3261;

const THEIRS: (&str, &str) = ("firmware", "the firmware knows");
const OURS: (&str, &str) = ("server", "the server knows");

/// What a script says first, so that iPXE proves its secret and has the target prove another.
pub(crate) fn secrets() -> String {
    format!(
        "set initiator-iqn iqn.2026-01.edu.example:ipxe\n\
         set username {}\nset password {}\n\
         set reverse-username {}\nset reverse-password {}\n",
        THEIRS.0, THEIRS.1, OURS.0, OURS.1
    )
}

/// The target with the disk in the file of this name.
pub(crate) fn target(disk: &str) -> String {
    format!("iqn.2026-01.edu.example:{disk}")
}

/// Serves until it is dropped.
pub(crate) struct Portal {
    /// The targets of which sessions were opened, in that order, and how they ended.
    pub(crate) opened: Arc<Mutex<Vec<String>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Portal {
    /// Serves the files `disks` in `dir` and, as whatever is asked for, `script`.
    pub(crate) fn start(network: &Network, dir: &Path, disks: &[&str], script: String) -> Self {
        let devices = disks.iter().map(|name| {
            let disk = FileDisk::open_writable(&dir.join(name), 512).unwrap();
            let lun = Lun::new(1).unwrap();
            let device = Device::new(&target(name));
            let device = device.with_disk(lun, name, Arc::new(disk), Options::default());
            (target(name).parse().unwrap(), Arc::new(device))
        });
        let opened = Arc::default();
        let real = Arc::new(Disks {
            devices: devices.collect(),
            opened: Arc::clone(&opened),
            elsewhere: None,
        });
        let said = Arc::new(Disks {
            devices: HashMap::new(),
            opened: Arc::default(),
            elsewhere: Some(SocketAddr::new(SERVER.parse().unwrap(), REAL)),
        });
        let namespace = File::open(format!("/run/netns/{}", network.name())).unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            // The runtime's threads come after this, and so into the same network.
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                tokio::spawn(script_for_all(listen(BOOT_PORT).await, script));
                tokio::spawn(run(SAID, said, std::future::pending::<()>()));
                run(REAL, real, stopped).await;
            });
        });
        Self {
            opened,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Portal {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn listen(port: u16) -> TcpListener {
    let address = SERVER.parse::<Ipv4Addr>().unwrap();
    TcpListener::bind((address, port)).await.unwrap()
}

async fn run<F: Future + Send + 'static>(port: u16, directory: Arc<Disks>, stopped: F) {
    let config = ServerConfig {
        announce: Vec::new(),
        limits: Limits::default(),
    };
    let stopped = async {
        stopped.await;
    };
    let listeners = vec![listen(port).await];
    serve(listeners, directory, Sessions::new(), config, stopped).await;
}

/// An HTTP server that knows one answer.
async fn script_for_all(listener: TcpListener, script: String) {
    while let Ok((mut connection, _)) = listener.accept().await {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            match connection.read_u8().await {
                Ok(byte) => request.push(byte),
                Err(_) => break,
            }
        }
        let length = script.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{script}"
        );
        // Whoever has gone asks again.
        let _ = connection.write_all(answer.as_bytes()).await;
    }
}

struct Disks {
    devices: HashMap<IscsiName, Arc<Device>>,
    opened: Arc<Mutex<Vec<String>>>,
    elsewhere: Option<SocketAddr>,
}

struct Nobody;

impl Guard for Nobody {
    fn ended(self: Box<Self>, _: End) {}
}

impl Directory for Disks {
    fn targets<'a>(&'a self, _: &'a Initiator) -> BoxFuture<'a, Vec<IscsiName>> {
        Box::pin(async { self.devices.keys().cloned().collect() })
    }

    fn authentication<'a>(
        &'a self,
        _: &'a Initiator,
        _: Option<&'a IscsiName>,
    ) -> BoxFuture<'a, Authentication> {
        let credential = |(name, secret): (&str, &str)| Credential::new(name, secret).unwrap();
        Box::pin(async move {
            Authentication::Chap {
                initiator: vec![credential(THEIRS)],
                target: Some(credential(OURS)),
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
            if let Some(elsewhere) = self.elsewhere {
                return Err(Refusal::MovedTemporarily(elsewhere));
            }
            let device = self.devices.get(target).ok_or(Refusal::NotFound)?;
            self.opened.lock().unwrap().push(target.to_string());
            Ok(Opened {
                device: Arc::clone(device),
                guard: Box::new(Nobody),
            })
        })
    }
}
