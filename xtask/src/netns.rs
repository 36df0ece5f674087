//! A network of the laboratory's own: a namespace with a bridge, a tap device for each client, and
//! dnsmasq, which gives addresses and names the boot script, or, on a host of its own beside the server,
//! addresses and nothing else.
//!
//! The namespace's name holds the process that made it, so that a run that was killed is recognised and
//! swept by the next one.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::program::{Background, command, run};

/// The server's address in the laboratory's network, one that is reserved for documentation.
pub const SERVER: &str = "192.0.2.1";
/// Where the boot service listens.
pub const BOOT_PORT: u16 = 8080;

const PREFIX: &str = "netroot-lab-";
/// The interface that the server is on.
pub const BRIDGE: &str = "br0";
const SERVER_V6: &str = "2001:db8::1/64";
const BESIDE: &str = "192.0.2.2/24";
const BESIDE_MAC: &str = "52:54:00:ff:00:02";

/// One network; it ends, with all that runs in it, when this value does.
#[derive(Debug)]
pub struct Network {
    name: String,
    taps: AtomicU32,
    // Both are only held: they end before the namespace does.
    dnsmasq: Option<Background>,
    beside: Option<Station>,
    leases: tempfile::TempDir,
}

/// Who gives the addresses, and what is said with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dhcp {
    /// The server's own host, to iPXE with the boot script.
    WithScript,
    /// The server's own host, which sends machines that boot by PXE to the port for that.
    WithClass,
    /// Another host, and nothing is said with them.
    AddressesOnly,
}

/// How long clients may keep their addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leases {
    /// For good: for images in which nobody renews them.
    Infinite,
    /// For two minutes, dnsmasq's shortest: whoever does not renew is soon without an address.
    TwoMinutes,
}

impl Network {
    /// Makes a network, after sweeping what killed runs have left.
    ///
    /// # Errors
    /// When this is not root, or a program of the host fails.
    pub fn create(leases: Leases) -> Result<Self> {
        Self::create_with(leases, Dhcp::WithScript)
    }

    /// Makes a network whose DHCP server runs on a host of its own, and gives addresses only.
    ///
    /// # Errors
    /// When this is not root, or a program of the host fails.
    pub fn with_addresses_only(leases: Leases) -> Result<Self> {
        Self::create_with(leases, Dhcp::AddressesOnly)
    }

    /// Makes a network whose DHCP server runs on the server's host, and says of what to boot only that it
    /// is asked for on port 4011.
    ///
    /// # Errors
    /// When this is not root, or a program of the host fails.
    pub fn with_dhcp_on_the_same_host(leases: Leases) -> Result<Self> {
        Self::create_with(leases, Dhcp::WithClass)
    }

    fn create_with(leases: Leases, dhcp: Dhcp) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sweep()?;
        let name = format!(
            "{PREFIX}{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        run(&mut command("ip", ["netns", "add", &name]))
            .context("making a network namespace (this needs root)")?;
        let mut network = Self {
            name,
            taps: AtomicU32::new(0),
            dnsmasq: None,
            beside: None,
            leases: tempfile::tempdir()?,
        };
        let address = format!("{SERVER}/24");
        network.ip(&["link", "set", "lo", "up"])?;
        // Without forward delay: a client's first DHCP request would fall into it.
        network.ip(&[
            "link",
            "add",
            BRIDGE,
            "type",
            "bridge",
            "forward_delay",
            "0",
        ])?;
        network.ip(&["addr", "add", &address, "dev", BRIDGE])?;
        // Without duplicate address detection: dnsmasq would start before the address may be used.
        network.ip(&["addr", "add", SERVER_V6, "dev", BRIDGE, "nodad"])?;
        network.ip(&["link", "set", BRIDGE, "up"])?;
        if dhcp == Dhcp::AddressesOnly {
            network.beside = Some(network.station(BESIDE_MAC, &[BESIDE])?);
        }
        network.dnsmasq = Some(network.start_dnsmasq(leases, dhcp)?);
        Ok(network)
    }

    /// The namespace's name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A program that will run in this network.
    pub fn command(&self, program: &str) -> Command {
        command(
            "nsenter",
            [
                format!("--net=/run/netns/{}", self.name),
                "--".to_owned(),
                program.to_owned(),
            ],
        )
    }

    /// The host that gives the addresses, where that is one beside the server.
    pub fn beside(&self) -> Option<&Station> {
        self.beside.as_ref()
    }

    /// A further tap device on the bridge; its name.
    ///
    /// # Errors
    /// When the host has no `/dev/net/tun`.
    pub fn tap(&self) -> Result<String> {
        let tap = format!("tap{}", self.taps.fetch_add(1, Ordering::Relaxed));
        self.ip(&["tuntap", "add", &tap, "mode", "tap"])?;
        self.ip(&["link", "set", &tap, "master", BRIDGE, "up"])?;
        Ok(tap)
    }

    /// A machine on the bridge that runs nothing by itself: a namespace with one interface, which has this
    /// hardware address and these others.
    ///
    /// # Errors
    /// When a program of the host fails.
    pub fn station(&self, mac: &str, addresses: &[&str]) -> Result<Station> {
        let number = self.taps.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", self.name);
        let outer = format!("veth{number}");
        run(&mut command("ip", ["netns", "add", &name]))?;
        let station = Station { name };
        let inner = ["peer", "name", "eth0", "netns", &station.name];
        self.ip(&[&["link", "add", &outer, "type", "veth"], &inner[..]].concat())?;
        self.ip(&["link", "set", &outer, "master", BRIDGE, "up"])?;
        station.ip(&["link", "set", "eth0", "address", mac])?;
        station.ip(&["link", "set", "lo", "up"])?;
        for address in addresses {
            // Without duplicate address detection it may be used at once.
            let nodad: &[&str] = if address.contains(':') {
                &["nodad"]
            } else {
                &[]
            };
            station.ip(&[&["addr", "add", address, "dev", "eth0"], nodad].concat())?;
        }
        station.ip(&["link", "set", "eth0", "up"])?;
        Ok(station)
    }

    fn ip(&self, arguments: &[&str]) -> Result<String> {
        run(command("ip", ["-n", &self.name]).args(arguments))
    }

    /// What the DHCP server has said so far: who asked for an address and got it, a line each.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn dhcp_log(&self) -> Result<String> {
        let log = self.leases.path().join("log");
        fs::read_to_string(&log).with_context(|| format!("reading {}", log.display()))
    }

    fn start_dnsmasq(&self, leases: Leases, dhcp: Dhcp) -> Result<Background> {
        let log = File::create(self.leases.path().join("log"))?;
        let time = match leases {
            Leases::Infinite => "infinite",
            Leases::TwoMinutes => "2m",
        };
        let (mut dnsmasq, interface) = match &self.beside {
            Some(beside) => (beside.command("dnsmasq"), "eth0"),
            None => (self.command("dnsmasq"), BRIDGE),
        };
        match dhcp {
            Dhcp::WithScript => {
                dnsmasq.arg("--dhcp-match=set:ipxe,175").arg(format!(
                    "--dhcp-boot=tag:ipxe,http://{SERVER}:{BOOT_PORT}/boot.ipxe"
                ));
            }
            Dhcp::WithClass => {
                dnsmasq.arg("--dhcp-option-force=60,PXEClient");
            }
            Dhcp::AddressesOnly => {}
        }
        dnsmasq
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--user=root",
            ])
            // No DNS: nothing here has a name.
            .args(["--port=0", "--no-resolv", "--no-hosts", "--no-ping"])
            .args(["--dhcp-authoritative", "--bind-interfaces"])
            .arg(format!("--interface={interface}"))
            .arg(format!("--dhcp-range=192.0.2.100,192.0.2.200,{time}"))
            // To standard error, which is the log.
            .arg("--log-facility=-")
            // Where no router answers, iPXE waits 15 s for one before it goes on with IPv4. This one is
            // nobody's default route.
            .args(["--enable-ra", "--dhcp-range=2001:db8::,ra-only,64"])
            .arg(format!("--ra-param={interface},0,0"))
            .arg(format!(
                "--dhcp-leasefile={}",
                self.leases.path().join("leases").display()
            ))
            .arg(format!(
                "--pid-file={}",
                self.leases.path().join("pid").display()
            ))
            .stdout(Stdio::null())
            .stderr(log);
        Background::start(&mut dnsmasq)
    }
}

/// A machine that does what tests do in its place; it ends when this value does.
#[derive(Debug)]
pub struct Station {
    name: String,
}

impl Station {
    /// A program that will run there.
    pub fn command(&self, program: &str) -> Command {
        command(
            "nsenter",
            [&format!("--net={}", self.place()), "--", program],
        )
    }

    /// Does something there: its sockets are the machine's.
    ///
    /// # Errors
    /// When the namespace cannot be entered, which needs root.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T> {
        let namespace = fs::File::open(self.place())?;
        // In a thread of its own, which does not come back from there.
        std::thread::scope(|scope| {
            let acting = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).context("entering a namespace")?;
                Ok(act())
            });
            acting
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The number of its interface, which link-local addresses are written with.
    ///
    /// # Errors
    /// When it has none.
    pub fn interface(&self) -> Result<u32> {
        let told = self.ip(&["-o", "link", "show", "dev", "eth0"])?;
        let number = told.split(':').next().unwrap_or_default();
        number.trim().parse().context("reading what ip tells")
    }

    fn place(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    fn ip(&self, arguments: &[&str]) -> Result<String> {
        run(command("ip", ["-n", &self.name]).args(arguments))
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.name) {
            eprintln!("the machine {} is left behind: {error:#}", self.name);
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.dnsmasq.take());
        drop(self.beside.take());
        if let Err(error) = remove(&self.name) {
            eprintln!("the network {} is left behind: {error:#}", self.name);
        }
    }
}

/// Removes the networks of runs that are dead, and ends what still runs in them.
///
/// # Errors
/// When a dead run's network cannot be removed.
pub fn sweep() -> Result<()> {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return Ok(()); // no namespace has ever been made
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(owner) = owner(&name) else { continue };
        if !PathBuf::from(format!("/proc/{owner}")).exists() {
            match remove(&name) {
                Err(error) if entry.path().exists() => return Err(error),
                // Another run has been quicker.
                Err(_) | Ok(()) => {}
            }
        }
    }
    Ok(())
}

/// The process that made the namespace of this name.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Ends what runs in the namespace, and removes it. Only namespaces of the laboratory come here, so
/// whatever runs there was started by it.
fn remove(name: &str) -> Result<()> {
    for pid in run(&mut command("ip", ["netns", "pids", name]))?.lines() {
        if let Ok(pid) = pid.trim().parse() {
            // It may have ended in between.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    run(&mut command("ip", ["netns", "del", name])).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Namespaces that exist, of this owner.
    fn of_owner(owner_wanted: u32) -> usize {
        let entries = fs::read_dir("/run/netns").into_iter().flatten();
        entries
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                owner(&name.to_string_lossy()) == Some(owner_wanted)
            })
            .count()
    }

    #[test]
    fn a_network_ends_with_its_value_and_a_dead_runs_is_swept() {
        assert!(
            nix::unistd::geteuid().is_root(),
            "making network namespaces needs root"
        );
        let network = Network::create(Leases::Infinite).unwrap();
        assert_eq!(of_owner(std::process::id()), 1);
        let tap = network.tap().unwrap();
        assert!(
            network
                .ip(&["link", "show", &tap])
                .unwrap()
                .contains(BRIDGE)
        );
        let address = run(network.command("ip").args(["addr", "show", BRIDGE])).unwrap();
        assert!(address.contains("192.0.2.1/24"), "{address}");
        drop(network);
        assert_eq!(of_owner(std::process::id()), 0);

        // No process has such a number: it is beyond the kernel's largest.
        let dead = u32::MAX;
        let name = format!("{PREFIX}{dead}-0");
        run(&mut command("ip", ["netns", "add", &name])).unwrap();
        let mut left =
            Background::start(&mut command("ip", ["netns", "exec", &name, "sleep", "60"])).unwrap();
        let pids = || run(&mut command("ip", ["netns", "pids", &name])).unwrap();
        while pids().is_empty() {
            std::thread::yield_now();
        }
        sweep().unwrap();
        assert_eq!(of_owner(dead), 0);
        left.wait(std::time::Duration::from_secs(5)).unwrap();
    }

    #[test]
    fn names_tell_their_owner() {
        assert_eq!(owner("netroot-lab-4711-0"), Some(4711));
        assert_eq!(owner("netroot-lab-"), None);
        assert_eq!(owner("somebody-elses"), None);
    }
}
