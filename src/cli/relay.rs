//! `netroot trial-relay`: one connection of a machine under test to the target that serves its disk.
//!
//! QEMU starts it for each one, with the machine's end as its standard input: the machine reaches nothing
//! else of this host or its network.

use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::thread;

use anyhow::{Context, Result};

/// Passes everything on, both ways, until either end has no more to say.
pub(super) fn relay(port: u16) -> Result<()> {
    let machine = io::stdin().as_fd().try_clone_to_owned();
    let machine = TcpStream::from(machine.context("taking the connection of the machine")?);
    let target = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("connecting to the target on port {port}"))?;
    // Commands and answers are small, and nobody waits for more of them.
    target.set_nodelay(true).context("setting up a socket")?;
    let _ = machine.set_nodelay(true);
    let (from, to) = (machine.try_clone()?, target.try_clone()?);
    thread::spawn(move || pass_on(from, to));
    pass_on(target, machine);
    Ok(())
}

/// What breaks off is over: who waits for more is told so by the end of the connection.
fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
