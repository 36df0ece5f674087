//! A way from this host into the laboratory's network, for browsers: a port here whose connections come
//! out there.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

/// Connections to a port of this host's loopback go to a port of the network's. It takes no more of them
/// when this value ends.
#[derive(Debug)]
pub struct Relay {
    here: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl Relay {
    /// Takes connections for `port` on the loopback interface of the network namespace `network`: at the
    /// same port here, or another one where that is taken.
    ///
    /// # Errors
    /// When no port can be listened on.
    pub fn start(network: &str, port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .context("listening on this host's loopback")?;
        let here = listener.local_addr()?;
        let ended = Arc::new(AtomicBool::new(false));
        let (over, network) = (ended.clone(), network.to_owned());
        thread::spawn(move || {
            for taken in listener.incoming() {
                if over.load(Ordering::Acquire) {
                    return;
                }
                let network = network.clone();
                // A browser opens a few at a time, and one for each page that is kept up to date.
                thread::spawn(move || {
                    // Whoever looks sees that it is gone; nobody else could be told.
                    let _ = taken.and_then(|near| carry(near, &network, port));
                });
            }
        });
        Ok(Self { here, ended })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.here
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // It waits for a connection, and looks after that one.
        let _ = TcpStream::connect_timeout(&self.here, Duration::from_secs(1));
    }
}

/// Carries what both sides say until both have ended. Runs on a thread of its own, which goes over to the
/// other network.
fn carry(near: TcpStream, network: &str, port: u16) -> io::Result<()> {
    let namespace = std::fs::File::open(format!("/run/netns/{network}"))?;
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let far = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let (mut from_near, mut to_far) = (near.try_clone()?, far.try_clone()?);
    let upwards = thread::spawn(move || {
        let carried = io::copy(&mut from_near, &mut to_far);
        let _ = to_far.shutdown(Shutdown::Write);
        carried
    });
    let (mut from_far, mut to_near) = (far, near);
    let downwards = io::copy(&mut from_far, &mut to_near);
    let _ = to_near.shutdown(Shutdown::Write);
    let _ = upwards.join();
    downwards.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{command, run};
    use std::io::{Read, Write};

    /// A namespace that goes with this value.
    struct Namespace(String);

    impl Drop for Namespace {
        fn drop(&mut self) {
            let _ = command("ip", ["netns", "delete", self.0.as_str()]).status();
        }
    }

    #[test]
    fn what_is_said_here_is_heard_there_and_answered() {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes a network namespace: run it as root"
        );
        let network = Namespace(format!("relay-{}", std::process::id()));
        let name = network.0.clone();
        run(&mut command("ip", ["netns", "add", &name])).unwrap();
        run(&mut command("ip", ["-n", &name, "link", "set", "lo", "up"])).unwrap();
        let there = thread::spawn(move || {
            let namespace = std::fs::File::open(format!("/run/netns/{name}")).unwrap();
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
        });
        let there = there.join().unwrap();
        let port = there.local_addr().unwrap().port();
        let relay = Relay::start(&network.0, port).unwrap();
        let mut near = TcpStream::connect(relay.address()).unwrap();
        near.write_all(b"who is there?").unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let (mut far, _) = there.accept().unwrap();
        let mut heard = String::new();
        far.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "who is there?");
        far.write_all(b"the dashboard").unwrap();
        drop(far);
        let mut answer = String::new();
        near.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "the dashboard");
    }
}
