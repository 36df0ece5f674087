//! How boots went: the stages that were seen of each, when, where it stopped, and why.
//!
//! A running server sees the stages and keeps what it saw; the last few boots of each client stand in a
//! document of their own, so that they are told after a restart, too. `words` says in a sentence where a
//! boot is or why it went no further; `drawn` puts it on a line; `failure` is what iPXE tells of itself.

mod drawn;
mod failure;
mod words;

use std::fmt;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use drawn::{DrawnStep, stretch};
pub use failure::{BootFailure, FailedAt, IpxeErrno};

use super::error::Result;
use super::names::{ClientName, VersionId};
use super::{Library, MacAddr, document};

/// How many boots of a client are kept.
const BOOTS_KEPT: usize = 8;

/// One boot of a client, as far as it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BootLine {
    /// When the first of it was seen.
    pub began: Timestamp,
    /// Which boot it is, without what would let somebody in as it. Nothing where it got no script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// The version that its script boots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionId>,
    /// Where its script takes the kernel from. Nothing where it got none, or an older server saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelFrom>,
    /// What its DHCP said that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// Where it asks from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub peer: Option<IpAddr>,
    /// The stages that it reached, in their order.
    pub steps: Vec<BootStep>,
    /// What became of it.
    pub outcome: BootOutcome,
    /// Where it is or stopped, and why, in words.
    #[serde(default)]
    pub told: String,
    /// How often it came back after its connection was lost.
    #[serde(default)]
    pub reconnects: u32,
    /// How it ended, unless it came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<BootEnd>,
    /// The client of the person who logged in at the machine, where that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<ClientName>,
    /// Why it was refused its login, or what to boot, last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The name that an initiator at its address gave, which is not this boot's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_name: Option<String>,
    /// The name that its script gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_name: Option<String>,
    /// What iPXE said that it could not do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<BootFailure>,
}

/// A stage that a boot reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BootStep {
    /// Which.
    pub stage: BootStage,
    /// When it was seen first; of a file: when it began to be sent.
    pub at: Timestamp,
    /// When all of a file was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Bytes of a file that were sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Bytes that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// The name of a loader's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// The stages of a boot, in their order. None has to be seen: a client may have its kernel on a disk, and
/// another DHCP server.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum BootStage {
    /// It asked a DHCP server what to boot.
    Dhcp,
    /// It fetched a loader, such as iPXE.
    Loader,
    /// It was shown a menu.
    Menu,
    /// It fetched its script.
    Script,
    /// It fetched its kernel.
    Kernel,
    /// It fetched its initramfs.
    Initramfs,
    /// It fetched the files that make it itself.
    Identity,
    /// Its firmware logged in to its disk.
    Firmware,
    /// Its system asked which targets there are.
    Discovery,
    /// Its system logged in to its disk.
    System,
    /// Its system read for the first time.
    FirstRead,
    /// Its system wrote for the first time.
    FirstWrite,
    /// The last session of its system ended, or it went on to something else.
    End,
}

/// Where a boot takes its kernel and initramfs from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum KernelFrom {
    /// The boot service.
    Server,
    /// The machine's own EFI system partition.
    Esp,
    /// Its disk, that boots itself.
    Disk,
}

/// What became of a boot.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum BootOutcome {
    /// It is on its way.
    Booting,
    /// Its system has its disk.
    Up,
    /// Its system had its disk, and has gone; or it went on to something else.
    Ended,
    /// Its system never came to its disk.
    Failed,
}

/// How a boot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BootEnd {
    /// It logged out.
    LoggedOut,
    /// It was heard no more.
    Lost,
    /// This side ended it.
    CutOff,
    /// The machine began to boot anew.
    Anew,
    /// The machine went on to its local disk.
    LocalDisk,
    /// Somebody logged in at the machine, and it boots their disk.
    Person,
}

/// What a machine starts with, by what its DHCP tells (RFC 4578 §2.1, and IANA's registry of processor
/// architecture types).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// A PC's BIOS.
    Bios,
    /// UEFI of 32 bits.
    EfiIa32,
    /// UEFI on x86-64.
    EfiX64,
    /// UEFI on 64-bit ARM.
    EfiArm64,
    /// UEFI on x86-64, by HTTP.
    HttpX64,
    /// UEFI on 64-bit ARM, by HTTP.
    HttpArm64,
}

impl Firmware {
    /// By its architecture type; nothing for those that cannot boot here.
    pub fn of_arch(arch: u16) -> Option<Self> {
        Some(match arch {
            0 => Firmware::Bios,
            6 => Firmware::EfiIa32,
            // RFC 4578 has 7 for EFI byte code and 9 for x86-64; firmware means x86-64 by both.
            7 | 9 => Firmware::EfiX64,
            11 => Firmware::EfiArm64,
            16 => Firmware::HttpX64,
            19 => Firmware::HttpArm64,
            _ => return None,
        })
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Firmware::Bios => "BIOS",
            Firmware::EfiIa32 => "UEFI (32 bit)",
            Firmware::EfiX64 => "UEFI",
            Firmware::EfiArm64 => "UEFI (arm64)",
            Firmware::HttpX64 => "UEFI by HTTP",
            Firmware::HttpArm64 => "UEFI by HTTP (arm64)",
        })
    }
}

impl BootStage {
    /// A few words for it.
    pub fn as_str(self) -> &'static str {
        match self {
            BootStage::Dhcp => "DHCP",
            BootStage::Loader => "loader",
            BootStage::Menu => "menu",
            BootStage::Script => "script",
            BootStage::Kernel => "kernel",
            BootStage::Initramfs => "initramfs",
            BootStage::Identity => "identity",
            BootStage::Firmware => "firmware login",
            BootStage::Discovery => "discovery",
            BootStage::System => "system login",
            BootStage::FirstRead => "first read",
            BootStage::FirstWrite => "first write",
            BootStage::End => "end",
        }
    }
}

impl BootOutcome {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            BootOutcome::Booting => "booting",
            BootOutcome::Up => "up",
            BootOutcome::Ended => "ended",
            BootOutcome::Failed => "failed",
        }
    }
}

impl fmt::Display for BootOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl BootStep {
    /// A stage that is reached now.
    pub fn new(stage: BootStage, at: Timestamp) -> Self {
        BootStep {
            stage,
            at,
            until: None,
            bytes: None,
            of: None,
            file: None,
        }
    }
}

impl BootLine {
    /// A boot of which nothing was seen yet.
    pub fn new(began: Timestamp) -> Self {
        BootLine {
            began,
            boot: None,
            version: None,
            kernel: None,
            firmware: None,
            peer: None,
            steps: Vec::new(),
            outcome: BootOutcome::Booting,
            told: String::new(),
            reconnects: 0,
            end: None,
            person: None,
            refused: None,
            other_name: None,
            own_name: None,
            failure: None,
        }
    }

    /// The step of a stage, if it was reached.
    pub fn step(&self, stage: BootStage) -> Option<&BootStep> {
        self.steps.iter().find(|step| step.stage == stage)
    }

    /// Whether it came so far.
    pub fn reached(&self, stage: BootStage) -> bool {
        self.step(stage).is_some()
    }

    /// How far it came.
    pub fn last(&self) -> Option<BootStage> {
        self.steps.iter().map(|step| step.stage).max()
    }

    /// How long after its beginning something was.
    pub fn after(&self, at: Timestamp) -> SignedDuration {
        at.duration_since(self.began).max(SignedDuration::ZERO)
    }

    /// Whether its words say more than its outcome does.
    pub fn says_more(&self) -> bool {
        self.outcome != BootOutcome::Up || !self.reached(BootStage::FirstRead)
    }

    /// Where it is or stopped, and why, in words.
    pub fn tell(&self) -> String {
        words::tell(self)
    }
}

impl Library {
    /// The last boots of a client that were kept, the latest first.
    pub fn boot_lines(&self, mac: &MacAddr) -> Result<Vec<BootLine>> {
        let kept: Option<Vec<BootLine>> = document::read(&self.places().boots(mac))?;
        Ok(kept.unwrap_or_default())
    }

    /// The boots of all clients that were on their way when they were kept, of each the latest first. What
    /// cannot be read is left out: it is no more than history.
    pub fn boots_on_their_way(&self) -> Result<Vec<(MacAddr, BootLine)>> {
        let mut found = Vec::new();
        for client in self.shown_clients()?.iter() {
            let mut lines = self.boot_lines(&client.mac).unwrap_or_default();
            lines.retain(|line| line.outcome == BootOutcome::Booting);
            found.extend(lines.into_iter().map(|line| (client.mac, line)));
        }
        Ok(found)
    }

    /// Keeps what was seen of boots of a client, in the place of what was kept of the same ones. What is
    /// too old is forgotten, and what is of nobody's client is not kept.
    pub fn keep_boot_lines(&self, mac: &MacAddr, seen: Vec<BootLine>) -> Result<()> {
        let lock = self.write_lock()?;
        let client: Option<serde::de::IgnoredAny> = document::read(&self.places().client(mac))?;
        if client.is_none() {
            return Ok(());
        }
        let path = self.places().boots(mac);
        // It is no more than history: what cannot be read gives way to what can.
        let kept = self.boot_lines(mac).unwrap_or_default();
        let lines = merged(kept, seen);
        self.make_dir(&self.places().boots_all())?;
        document::put(&lock, &path, &lines)
    }
}

/// The latest of both, the latest first; of the same boot what `seen` has.
pub fn merged(kept: Vec<BootLine>, seen: Vec<BootLine>) -> Vec<BootLine> {
    let mut lines = seen;
    for line in kept {
        if lines.iter().all(|other| other.began != line.began) {
            lines.push(line);
        }
    }
    lines.sort_by_key(|line| std::cmp::Reverse(line.began));
    lines.truncate(BOOTS_KEPT);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    #[test]
    fn the_latest_boots_are_kept_each_once() {
        let line = |began| BootLine::new(at(began));
        let kept: Vec<BootLine> = (0..8).map(line).collect();
        let mut seen = line(7);
        seen.outcome = BootOutcome::Up;
        let lines = merged(kept, vec![seen, line(9)]);
        let began: Vec<Timestamp> = lines.iter().map(|line| line.began).collect();
        assert_eq!(began, [9, 7, 6, 5, 4, 3, 2, 1].map(at));
        assert_eq!(lines[1].outcome, BootOutcome::Up);
    }

    #[test]
    fn what_is_kept_is_read_as_it_was_written() {
        let mut line = BootLine::new(at(0));
        line.firmware = Firmware::of_arch(7);
        line.steps.push(BootStep::new(BootStage::FirstRead, at(3)));
        line.failure = Some(BootFailure {
            at: FailedAt::Kernel,
            errno: Some(IpxeErrno(0x2d0c_618e)),
        });
        let text = serde_json::to_string(&line).unwrap();
        assert!(text.contains(r#""efi-x64""#) && text.contains(r#""first-read""#));
        assert_eq!(serde_json::from_str::<BootLine>(&text).unwrap(), line);
        // Older servers kept no word of where a kernel comes from, nor of who logged in.
        for newer in [r#""kernel":"#, r#""person":"#] {
            assert!(!text.contains(newer), "{text}");
        }
        line.kernel = Some(KernelFrom::Esp);
        line.end = Some(BootEnd::Person);
        line.person = Some("person-anna".parse().unwrap());
        let text = serde_json::to_string(&line).unwrap();
        assert!(text.contains(r#""kernel":"esp""#), "{text}");
        assert!(text.contains(r#""person":"person-anna""#), "{text}");
        assert_eq!(serde_json::from_str::<BootLine>(&text).unwrap(), line);
    }
}
