//! Machines without a disk: QEMU with a network card whose iPXE ROM boots from the laboratory's network,
//! or with UEFI that does so by itself.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::netns::Network;
use crate::program::{Background, command};
use crate::serial::{Line, Serial};
use crate::uefi;

/// What a boot passes through, in order, and the line of the console that shows it. The client needs
/// `loglevel=6` on its kernel line, or `quiet` hides half of them.
pub const STAGES: &[(&str, &str)] = &[
    ("iPXE, the network card's firmware", "iPXE"),
    ("boot script fetched over HTTP", "/boot.cfg"),
    ("kernel", "Linux version"),
    ("iSCSI login, the disk is there", "Attached SCSI disk"),
    ("root file system mounted", "XFS ("),
    ("multi-user", UP),
];

/// What the unit in the image says when the client is up.
pub const UP: &str = "NETROOT-LAB up";

const ANSWER: &str = "NETROOT-LAB ";

/// How long a boot may take: under software emulation, with two of them on two slow cores.
pub const BOOT_LIMIT: Duration = Duration::from_secs(900);
/// How long a client that is up may take for an answer.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// What a machine does when its system reboots it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnReset {
    /// It is switched off: a kernel that panics is not tried again and again.
    End,
    /// It begins with its firmware, as real ones do.
    BootAgain,
}

/// What is on a machine's network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rom {
    /// Nothing: whatever the machine boots from, its firmware finds by itself.
    None,
    /// iPXE, which the firmware starts.
    Ipxe,
    /// Nothing, and the firmware boots from the network by HTTP over IPv4 only.
    HttpBoot,
}

/// A machine that is switched on. It is switched off, hard, when this value ends.
#[derive(Debug)]
pub struct Machine {
    qemu: Background,
    serial: Serial,
    // Holds the console's socket.
    _dir: tempfile::TempDir,
}

impl Machine {
    /// Switches a machine on. `log` keeps what its console says.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn start(
        network: &Network,
        mac: &str,
        accelerator: Accelerator,
        on_reset: OnReset,
        log: &Path,
    ) -> Result<Self> {
        let mut qemu = network.command("qemu-system-x86_64");
        qemu.args(accelerator.arguments())
            // graphics=off makes SeaBIOS, and so iPXE, speak on the serial line.
            .args(["-machine", "pc,graphics=off", "-smp", "2", "-m", "1024"]);
        let card = format!("virtio-net-pci,netdev=net,mac={mac},bootindex=1");
        Self::switch_on(qemu, network, &card, on_reset, log)
    }

    /// Switches on a machine with a BIOS, whose network card has the ROM in the file `rom`.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn start_rom(network: &Network, mac: &str, rom: &Path, log: &Path) -> Result<Self> {
        let mut qemu = network.command("qemu-system-x86_64");
        qemu.args(Accelerator::Tcg.arguments()).args([
            "-machine",
            "pc,graphics=off",
            "-smp",
            "2",
            "-m",
            "1024",
        ]);
        // QEMU writes a card's numbers into its own ROMs only. Those for it have the numbers that it has
        // without what virtio was before its standard.
        let card = format!(
            "virtio-net-pci,disable-legacy=on,netdev=net,mac={mac},bootindex=1,romfile={}",
            rom.display()
        );
        Self::switch_on(qemu, network, &card, OnReset::End, log)
    }

    /// Switches on a machine with UEFI, whose variables are in the file `variables`.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn start_uefi(
        network: &Network,
        mac: &str,
        rom: Rom,
        variables: &Path,
        log: &Path,
    ) -> Result<Self> {
        let mut qemu = with_uefi(network, variables);
        // OVMF's own switches (OvmfPkg, "network boot of each kind by fw_cfg").
        if rom == Rom::HttpBoot {
            for way in ["IPv4PXESupport", "IPv6PXESupport"] {
                qemu.arg("-fw_cfg")
                    .arg(format!("name=opt/org.tianocore/{way},string=n"));
            }
        }
        let rom = match rom {
            Rom::None | Rom::HttpBoot => "romfile=",
            Rom::Ipxe => "bootindex=1",
        };
        let card = format!("virtio-net-pci,netdev=net,mac={mac},{rom}");
        Self::switch_on(qemu, network, &card, OnReset::End, log)
    }

    /// Switches on a machine with 64-bit Arm and UEFI, whose variables are written to the file `variables`.
    /// It boots from the network.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn start_arm64(network: &Network, mac: &str, variables: &Path, log: &Path) -> Result<Self> {
        std::fs::copy(uefi::VARIABLES_ARM64, variables)
            .with_context(|| format!("copying {}", uefi::VARIABLES_ARM64))?;
        let mut qemu = network.command("qemu-system-aarch64");
        qemu.args(["-accel", "tcg,thread=multi", "-machine", "virt"])
            .args(["-cpu", "cortex-a57", "-smp", "2", "-m", "1024"]);
        add_flash(&mut qemu, uefi::CODE_ARM64, variables);
        let card = format!("virtio-net-pci,netdev=net,mac={mac},romfile=");
        Self::switch_on(qemu, network, &card, OnReset::End, log)
    }

    /// Switches on a machine with UEFI and a stick, the disk image `stick`, which it boots from and does
    /// not write to.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn start_stick(
        network: &Network,
        mac: &str,
        stick: &Path,
        variables: &Path,
        log: &Path,
    ) -> Result<Self> {
        let mut qemu = with_uefi(network, variables);
        let file = format!(
            "if=none,id=stick,format=raw,readonly=on,file={}",
            stick.display()
        );
        qemu.args(["-drive", &file, "-device", "qemu-xhci"]).args([
            "-device",
            "usb-storage,drive=stick,removable=on,bootindex=1",
        ]);
        let card = format!("virtio-net-pci,netdev=net,mac={mac},romfile=");
        Self::switch_on(qemu, network, &card, OnReset::End, log)
    }

    /// Switches on a machine that is given its kernel, initramfs and kernel line, and has no firmware's
    /// boot to wait for.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn start_kernel(
        network: &Network,
        mac: &str,
        accelerator: Accelerator,
        (kernel, initramfs, append): (&Path, &Path, &str),
        log: &Path,
    ) -> Result<Self> {
        let mut qemu = network.command("qemu-system-x86_64");
        qemu.args(accelerator.arguments())
            .args(["-machine", "pc", "-smp", "2", "-m", "1024", "-kernel"])
            .arg(kernel)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", append]);
        let card = format!("virtio-net-pci,netdev=net,mac={mac},romfile=");
        Self::switch_on(qemu, network, &card, OnReset::End, log)
    }

    fn switch_on(
        mut qemu: Command,
        network: &Network,
        card: &str,
        on_reset: OnReset,
        log: &Path,
    ) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let socket = dir.path().join("serial");
        let complaints = std::fs::File::create(log.with_extension("qemu"))?;
        let tap = network.tap()?;
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(match on_reset {
                OnReset::End => &["-no-reboot"][..],
                OnReset::BootAgain => &[],
            })
            .arg("-netdev")
            .arg(format!("tap,id=net,ifname={tap},script=no,downscript=no"))
            .arg("-device")
            .arg(card)
            .arg("-chardev")
            .arg(format!(
                "socket,id=serial,path={},server=on,wait=off",
                socket.display()
            ))
            .args(["-serial", "chardev:serial"])
            .stdout(Stdio::null())
            .stderr(complaints);
        let switched_on = Instant::now();
        let mut qemu = Background::start(&mut qemu)?;
        let serial = loop {
            // The socket is there a moment before QEMU listens on it.
            if let Ok(serial) = Serial::listen(&socket, log, switched_on) {
                break serial;
            }
            if !qemu.is_running() || switched_on.elapsed() > ANSWER_LIMIT {
                let why = std::fs::read_to_string(log.with_extension("qemu")).unwrap_or_default();
                bail!("QEMU has not started: {}", why.trim());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        Ok(Self {
            serial,
            qemu,
            _dir: dir,
        })
    }

    /// The console.
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// Waits until the client is up, and calls `reached` for each stage on the way with its name and the
    /// time since the machine was switched on. What the client says of itself is the answer.
    ///
    /// # Errors
    /// When a stage does not come; the error names the one that was reached last.
    pub fn boot(&self, reached: impl FnMut(&str, Duration)) -> Result<String> {
        self.wait_for_stages(0, reached)
    }

    /// Asks the client to reboot, and waits until it is up again, from its firmware on, as
    /// [`boot`](Self::boot) does.
    ///
    /// # Errors
    /// When a stage does not come.
    pub fn reboot(&self, reached: impl FnMut(&str, Duration)) -> Result<String> {
        let position = self.serial.position();
        self.ask("reboot", ANSWER_LIMIT)?;
        self.wait_for_stages(position, reached)
    }

    fn wait_for_stages(
        &self,
        position: usize,
        mut reached: impl FnMut(&str, Duration),
    ) -> Result<String> {
        let started = Instant::now();
        let mut last = "nothing";
        let mut said = None;
        for (name, pattern) in STAGES {
            let left = BOOT_LIMIT.saturating_sub(started.elapsed());
            let line = self
                .serial
                .wait_for(pattern, position, left)
                .with_context(|| format!("the client got as far as: {last}; next: {name}"))?;
            reached(name, line.at);
            last = name;
            said = Some(line);
        }
        Ok(said.map(|line| answer(&line)).unwrap_or_default())
    }

    /// Asks the unit in the image to do something, and waits for its answer.
    ///
    /// # Errors
    /// When no answer comes within `limit`.
    pub fn ask(&self, request: &str, limit: Duration) -> Result<String> {
        let position = self.serial.position();
        self.serial.type_line(request)?;
        let line = self
            .serial
            .wait_for(ANSWER, position, limit)
            .with_context(|| format!("asking the client to {request}"))?;
        Ok(answer(&line))
    }

    /// Writes `nonce` to the client's root disk, durably.
    ///
    /// # Errors
    /// When the client does not say that it did.
    pub fn write_nonce(&self, nonce: &str) -> Result<()> {
        let answer = self.ask(&format!("write {nonce}"), ANSWER_LIMIT)?;
        if answer != format!("wrote {nonce}") {
            bail!("the client was to write {nonce} and says: {answer}");
        }
        Ok(())
    }

    /// The nonce on the client's root disk, read past its page cache.
    ///
    /// # Errors
    /// When the client does not answer.
    pub fn nonce(&self) -> Result<Option<String>> {
        let answer = self.ask("read", ANSWER_LIMIT)?;
        match answer.strip_prefix("nonce ") {
            Some("none") => Ok(None),
            Some(nonce) => Ok(Some(nonce.to_owned())),
            None => bail!("the client was to read its nonce and says: {answer}"),
        }
    }

    /// Shuts the client down in good order, and waits until the machine is off.
    ///
    /// # Errors
    /// When it is not within two minutes.
    pub fn power_off(mut self) -> Result<Duration> {
        let asked = Instant::now();
        self.ask("poweroff", ANSWER_LIMIT)?;
        self.qemu
            .wait(Duration::from_secs(120))
            .context("the client does not power off")?;
        Ok(asked.elapsed())
    }

    /// Waits until the machine is off, by its own doing.
    ///
    /// # Errors
    /// When it is not within `limit`.
    pub fn wait_until_off(mut self, limit: Duration) -> Result<()> {
        self.qemu.wait(limit).map(drop)
    }

    /// Pulls the plug.
    pub fn pull_the_plug(self) {
        drop(self);
    }
}

fn answer(line: &Line) -> String {
    line.text
        .split_once(ANSWER)
        .map(|(_, text)| text.trim().to_owned())
        .unwrap_or_default()
}

/// A machine with UEFI, whose variables are in the file `variables`.
fn with_uefi(network: &Network, variables: &Path) -> Command {
    let mut qemu = network.command("qemu-system-x86_64");
    // Most of these run for seconds only, which finding out about KVM would take as well.
    qemu.args(Accelerator::Tcg.arguments())
        .args(["-machine", "q35", "-smp", "2", "-m", "1024"]);
    add_flash(&mut qemu, uefi::CODE, variables);
    qemu
}

/// The firmware's two memories: its code, and its variables.
fn add_flash(qemu: &mut Command, code: &str, variables: &Path) {
    let flash = |unit: u8, file: &str| format!("if=pflash,format=raw,unit={unit},file={file}");
    qemu.arg("-drive")
        .arg(flash(0, code) + ",readonly=on")
        .arg("-drive")
        .arg(flash(1, &variables.to_string_lossy()));
}

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The host's processor.
    Kvm,
    /// Software.
    Tcg,
}

impl Accelerator {
    /// The one that works here. `/dev/kvm` may exist and yet not run a stock kernel, so `kernel` is
    /// started for a few seconds to find out, once a process.
    pub fn find(kernel: &Path) -> Self {
        static FOUND: OnceLock<Accelerator> = OnceLock::new();
        *FOUND.get_or_init(|| {
            if Path::new("/dev/kvm").exists() && kvm_runs(kernel).unwrap_or(false) {
                Self::Kvm
            } else {
                Self::Tcg
            }
        })
    }

    fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // With rdrand the kernel's random pool is ready at once; without it everything that wants a
            // key, dhclient first, waits for 10 s.
            Self::Tcg => [
                "-accel",
                "tcg,thread=multi,tb-size=512",
                "-cpu",
                "qemu64,+rdrand",
            ],
        }
    }
}

/// Whether `kernel` says its first word under KVM within a few seconds.
fn kvm_runs(kernel: &Path) -> Result<bool> {
    let dir = tempfile::tempdir()?;
    let console: PathBuf = dir.path().join("console");
    let mut qemu = Background::start(
        command("qemu-system-x86_64", Accelerator::Kvm.arguments())
            .args([
                "-m",
                "256",
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
            ])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .arg("-kernel")
            .arg(kernel)
            .args(["-append", "console=ttyS0 panic=-1", "-no-reboot"])
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    )?;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(6) && qemu.is_running() {
        let said = std::fs::read(&console).unwrap_or_default();
        if String::from_utf8_lossy(&said).contains("Linux version") {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(false)
}
