//! `cargo xtask demo`: the whole way from a chroot to a machine that is up, on one host, each stage with
//! its time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::debian::IMAGE;
use crate::netns::{BOOT_PORT, Leases, Network, SERVER};
use crate::packages::{Consent, install_missing};
use crate::qemu::{Accelerator, Machine, OnReset};
use crate::relay::Relay;
use crate::server::Site;
use crate::{check, debian, target_dir};

/// What happens when the client is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It is shut down, and all is cleaned up.
    PowerOff,
    /// It stays up until Enter is pressed, to look around; the library stays for good.
    Keep,
}

/// Where the dashboard listens unless it is told otherwise.
const ADMIN_PORT: u16 = 8081;

const MAC: &str = "52:54:00:12:34:56";

/// Runs the demonstration.
///
/// # Errors
/// When a part of it fails; the error says which stage was reached, and where the logs are.
pub fn run(consent: Consent, ending: Ending) -> Result<()> {
    let mut clock = Clock::new();
    install_missing(consent)?;
    if !nix::unistd::geteuid().is_root() {
        bail!("the demonstration makes a network, mounts and a chroot: run it as root");
    }
    println!("building netroot, which takes some minutes the first time");
    check::cargo(&["build", "--package", "netroot"])?;
    clock.stage("netroot is built");
    let dir = fresh_directory()?;
    let site = Site::new(&target_dir().join("debug/netroot"), &dir.join("library"));
    show(&site, &dir, ending, &mut clock)
        .with_context(|| format!("what server and client said is in {}", dir.display()))?;
    if ending == Ending::PowerOff {
        remove_directory(&dir)?;
    }
    what_next(&site, ending);
    Ok(())
}

/// From the library to the client's last word.
fn show(site: &Site, dir: &Path, ending: Ending, clock: &mut Clock) -> Result<()> {
    make_library(site, clock)?;
    let network = Network::create(Leases::Infinite)?;
    let server = site.serve(&network, &dir.join("serve.log"))?;
    clock.stage("netroot serves");
    let accelerator = Accelerator::find(&site.kernel(IMAGE));
    match accelerator {
        Accelerator::Kvm => clock.stage("KVM works here"),
        Accelerator::Tcg => clock.stage("no KVM here: the client boots in software, slowly"),
    }
    let machine = Machine::start(
        &network,
        MAC,
        accelerator,
        OnReset::End,
        &dir.join("client.log"),
    )?;
    println!("the client is switched on");
    let said = machine.boot(|stage, at| println!("  {:6.1} s  {stage}", at.as_secs_f64()))?;
    clock.stage("the client is up");
    println!("it says of itself: {said}");
    machine.write_nonce("hello-from-the-client")?;
    clock.stage("it has written to its own disk");
    site.netroot_visibly(&["target", "list"])?;

    if ending == Ending::Keep {
        look_around(site, &network)?;
    }
    let took = machine.power_off()?;
    clock.stage(&format!(
        "the client has powered off in {:.0} s",
        took.as_secs_f64()
    ));
    server.stop()?;
    clock.stage("the server has ended");
    Ok(())
}

fn make_library(site: &Site, clock: &mut Clock) -> Result<()> {
    site.init()?;
    clock.stage("a library is made");
    let build = ["image", "build", IMAGE, "--from", "debian:bookworm"].map(str::to_owned);
    let build = [&build[..], &debian::quick()].concat();
    site.netroot_visibly(&build.iter().map(String::as_str).collect::<Vec<_>>())?;
    clock.stage("image deb12@1 is built and sealed");
    let mut add = vec![
        "client",
        "add",
        MAC,
        "--image",
        IMAGE,
        "--mode",
        "persistent",
    ];
    for argument in debian::KERNEL_ARGS {
        add.extend(["--arg", argument]);
    }
    site.netroot(&add)?;
    // ext4 has no reflink; both are the real thing, and which one it is shows in its document.
    let shown = site.netroot(&["client", "show", MAC])?;
    clock.stage("a client with a clone of its own is added");
    for line in shown.lines() {
        println!("  {line}");
    }
    Ok(())
}

/// `target/demo`, empty. What an earlier demonstration kept goes.
fn fresh_directory() -> Result<PathBuf> {
    let dir = target_dir().join("demo");
    remove_directory(&dir)?;
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    Ok(dir)
}

fn remove_directory(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    crate::server::remove_library(&dir.join("library"))?;
    fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))
}

fn look_around(site: &Site, network: &Network) -> Result<()> {
    let relay = Relay::start(network.name(), ADMIN_PORT)?;
    let dashboard = format!("http://{}", relay.address());
    let invited = site.json(&["user", "add", "--first"])?;
    let key = invited.get("key").and_then(Value::as_str);
    let key = key.context("user add --first --json tells no key")?;
    println!(
        "\nThe dashboard, with your choice of a password (the link works once):\n  \
         {dashboard}/welcome?key={key}\n\
         Builds and updates that you ask for there are done by a worker, in another shell:\n  \
         {} --library {} worker",
        site.binary().display(),
        site.library().display(),
    );
    println!(
        "\nAll of it runs until you press Enter. In another shell:\n  \
         export NETROOT_LIBRARY={library}\n  \
         {binary} session list\n  \
         {binary} client show {MAC}\n  \
         {binary} client reset {MAC}        # refused: the client runs\n  \
         ip netns exec {net} curl http://{SERVER}:{BOOT_PORT}/boot.cfg?mac={MAC}\n  \
         ip netns exec {net} iscsi-ls -s iscsi://{SERVER}/",
        library = site.library().display(),
        binary = site.binary().display(),
        net = network.name(),
    );
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

fn what_next(site: &Site, ending: Ending) {
    println!("\nWhat to try next:");
    match ending {
        Ending::PowerOff => println!(
            "  cargo xtask demo --keep       the same, and it stays up for you to look around"
        ),
        Ending::Keep => println!(
            "  {} --library {} client reset {MAC}     back to the pristine image; undo brings it back",
            site.binary().display(),
            site.library().display()
        ),
    }
    println!(
        "  netroot init                  a library of your own, in /var/lib/netroot\n  \
         netroot image build deb12 --from debian:bookworm    or a chroot of yours\n  \
         netroot client add MAC --image deb12\n  \
         netroot serve                 then point your DHCP at http://THIS-HOST:{BOOT_PORT}/boot.ipxe\n  \
         netroot user add --first      the link to the dashboard, at http://127.0.0.1:{ADMIN_PORT}\n  \
         cargo xtask test              all tests, as CI runs them"
    );
}

/// Prints each stage with the time since the one before, and since the start.
struct Clock {
    started: Instant,
    last: Instant,
}

impl Clock {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            last: now,
        }
    }

    fn stage(&mut self, what: &str) {
        let (all, since): (Duration, Duration) = (self.started.elapsed(), self.last.elapsed());
        self.last = Instant::now();
        println!(
            "{:7.1} s  (+{:5.1} s)  {what}",
            all.as_secs_f64(),
            since.as_secs_f64()
        );
    }
}
