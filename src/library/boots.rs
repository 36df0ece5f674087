//! Boot ids: what tells one boot of a client from the next (rule 2).
//!
//! An id is authenticated, not remembered: whoever asks for a script gets one and nothing is written.
//! It becomes the client's boot only when an initiator logs in with it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use utoipa::ToSchema;

use super::clients::{Assignment, Client, Settings, Way};
use super::error::{Error, Result};
use super::names::{
    ImageName, KernelArg, Mode, NameError, VersionId, VersionSpec, serde_as_text, version_number,
};
use super::proofs::Proof;
use super::{Library, MacAddr, Target, manifest, now_millis};

/// One boot of one client: `SEQ-VERSION-MAC16`, the last part of its initiator's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BootId {
    /// Milliseconds since the epoch when the script was made; later scripts have greater ones.
    pub(crate) seq: u64,
    /// The number of the version that the script boots.
    pub(crate) version: u32,
    /// Proves that this library made it, for this client, image and mode.
    code: [u8; 8],
}

// Whoever may only look is told an id without its code (`mask`).
serde_as_text!(
    BootId,
    "^[0-9a-f]{12}-[1-9][0-9]{0,8}-([0-9a-f]{16}|\u{2026})$"
);

/// Hex digits of `seq` and of `code`.
pub(super) const SEQ_DIGITS: usize = 12;
pub(super) const CODE_DIGITS: usize = 16;

/// The largest `seq` that twelve hex digits hold: the year 10889.
const MAX_SEQ: u64 = (1 << 48) - 1;

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}-{}-", self.seq, self.version)?;
        self.code
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for BootId {
    type Err = NameError;

    fn from_str(text: &str) -> std::result::Result<Self, NameError> {
        let parsed = || {
            let mut parts = text.splitn(3, '-');
            let seq = u64::from_str_radix(parts.next()?, 16).ok()?;
            let version = version_number(parts.next()?)?;
            let code = manifest::hex(parts.next()?)?.try_into().ok()?;
            Some(BootId { seq, version, code })
        };
        parsed()
            // Written in one way only, so that equal ids are equal names.
            .filter(|id| id.seq <= MAX_SEQ && id.to_string() == text)
            .ok_or_else(|| NameError::new(text, "a boot id"))
    }
}

/// A client's last boot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Boot {
    /// Its id.
    pub id: BootId,
    /// The version that it runs, or whose clone it runs.
    pub version: VersionId,
    /// The mode that it booted in.
    pub mode: Mode,
    /// What it proves; documents of older servers do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Where it is.
    pub state: BootState,
    /// Its first login.
    pub since: Timestamp,
    /// Where it logged in from last.
    #[schema(value_type = String)]
    pub peer: IpAddr,
}

/// Where a boot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BootState {
    /// Its first login is being prepared: an older boot is fenced, the disk made ready.
    Entering,
    /// It was let in, and nobody saw it leave: it may be running.
    Up,
    /// Its last session ended while the server watched. It may come back.
    Gone,
    /// It is not let in again: its disk has changed, or a newer boot began.
    Fenced,
}

impl Boot {
    /// Whether the client may have the disk in its hands.
    pub fn may_run(&self) -> bool {
        matches!(self.state, BootState::Entering | BootState::Up)
    }
}

/// What a script tells a client about the boot that it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootTicket {
    /// The client.
    pub client: MacAddr,
    /// The boot.
    pub id: BootId,
    /// The name that the client's initiator has to have.
    pub initiator: String,
    /// The target to log in to.
    pub target: String,
    /// The version whose kernel and initramfs it boots.
    pub version: VersionId,
    /// What the disk is.
    pub mode: Mode,
    /// How it gets kernel and root disk.
    pub way: Way,
    /// What is to be proved at its logins.
    pub proof: Proof,
    /// The LUN of the disk.
    pub lun: u16,
    /// Kernel arguments: everybody's, its groups', its own.
    pub args: Vec<KernelArg>,
}

/// What may be done with a boot id at a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The boot that the document holds comes again: nothing is reset.
    Reconnect,
    /// A new boot begins.
    Begin(Beginning),
    /// Why it is not let in, for the log.
    Refused(String),
}

/// Where what a boot runs comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// From what the client is assigned to.
    Assigned,
    /// Somebody chose it at the client's menu, for this once.
    Once,
}

/// A boot that may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Beginning {
    pub(super) kind: Kind,
    /// The version that it runs, or whose clone it runs.
    pub(super) version: VersionId,
    pub(super) mode: Mode,
    pub(super) proof: Option<Proof>,
}

impl Library {
    /// Makes the ticket for a script. Nothing is written: whoever asks resets nobody.
    pub fn issue_boot(&self, client: &Client) -> Result<BootTicket> {
        self.issue_boot_by(client, |image| self.settings_booting(client, image))
    }

    /// The same for a client that boots an image by these settings.
    pub(super) fn issue_boot_by(
        &self,
        client: &Client,
        by: impl FnOnce(&ImageName) -> Result<Settings>,
    ) -> Result<BootTicket> {
        let next = client.next_boot()?;
        let version = match next.fixed {
            Some(version) => version,
            None => {
                let version = self.assigned_version(client, &next.assignment.image)?;
                let what = || format!("booting {}", client.name);
                version.ensure_mode(next.assignment.mode, what)?;
                version.id().clone()
            }
        };
        let by = by(&version.image)?;
        let what = (version, next.assignment.mode);
        self.ticket(client, Kind::Assigned, what, &by)
    }

    /// The ticket of a boot of this kind, later than all that began.
    pub(super) fn ticket(
        &self,
        client: &Client,
        kind: Kind,
        (version, mode): (VersionId, Mode),
        by: &Settings,
    ) -> Result<BootTicket> {
        let booted = self.version(&version)?;
        let way = booted.way(by);
        let what = format!("booting {}", client.name);
        booted.ensure_way(way, &what)?;
        self.ensure_line(client, &what)?;
        let last = client.boot.as_ref().map_or(0, |boot| boot.id.seq);
        let seq = now_millis().max(client.oldest.max(last) + 1).min(MAX_SEQ);
        let proof = Proof::wanted(by, way);
        let id = self.boot_id(&client.mac, seq, kind, (&version, mode), proof)?;
        let target = disk_target(client, &version, mode);
        Ok(BootTicket {
            client: client.mac,
            id,
            initiator: self.initiator_name(&client.mac, &id),
            target: self.target_name(&target),
            version,
            mode,
            way,
            proof,
            lun: self.config().iscsi.lun.number(),
            args: self.told_args(client)?,
        })
    }

    /// What the client is told besides where its root is: its kernel arguments, and where its data disk
    /// is. By which portal it gets there it knows: by that of its root.
    pub(super) fn told_args(&self, client: &Client) -> Result<Vec<KernelArg>> {
        let mut args = self.kernel_args(client)?;
        args.extend(self.data_arg(client, &self.settings(client)?)?);
        Ok(args)
    }

    /// Where its data disk is, for a client that these settings give one.
    pub(super) fn data_arg(
        &self,
        client: &Client,
        settings: &Settings,
    ) -> Result<Option<KernelArg>> {
        if settings.data().is_none() {
            return Ok(None);
        }
        let target = self.target_name(&Target::Clone(client.mac));
        let arg = format!("netroot.data={target},{}", self.data_lun());
        Ok(Some(arg.parse()?))
    }

    /// The version that an assignment means. It may be gone: by force, or by hand.
    fn assigned_version(&self, client: &Client, image: &VersionSpec) -> Result<super::Version> {
        match self.resolve(image) {
            Ok(version) => Ok(version),
            Err(why @ (Error::Unknown { .. } | Error::NoVersion { .. })) => Err(Error::refused(
                format!("booting client {}", client.name),
                format!("it is assigned to {image}, and {why}"),
                format!(
                    "give it another one: netroot client assign {} IMAGE",
                    client.name
                ),
            )),
            Err(error) => Err(error),
        }
    }

    fn boot_id(
        &self,
        mac: &MacAddr,
        seq: u64,
        kind: Kind,
        (version, mode): (&VersionId, Mode),
        proof: Proof,
    ) -> Result<BootId> {
        let code = self
            .authenticator(mac, seq, kind, (version, mode), proof)?
            .finalize();
        let mut short = [0; 8];
        short
            .iter_mut()
            .zip(code.into_bytes())
            .for_each(|(to, from)| *to = from);
        Ok(BootId {
            seq,
            version: version.number,
            code: short,
        })
    }

    pub(super) fn authenticator(
        &self,
        mac: &MacAddr,
        seq: u64,
        kind: Kind,
        (version, mode): (&VersionId, Mode),
        proof: Proof,
    ) -> Result<Hmac<Sha256>> {
        let mut code = <Hmac<Sha256> as KeyInit>::new_from_slice(self.boot_key()?)
            .map_err(|_| Error::Invalid("the key of boot ids cannot be used".into()))?;
        let (word, proof) = (kind.word(), proof.suffix());
        code.update(format!("{word}|{}|{seq}|{version}|{mode}{proof}", mac.bare()).as_bytes());
        Ok(code)
    }

    /// What to do with a login by this boot id. Writes nothing.
    pub(super) fn judge(&self, client: &Client, id: &BootId) -> Result<Verdict> {
        if let Some(boot) = client.boot.as_ref().filter(|boot| boot.id == *id) {
            return Ok(match boot.state {
                BootState::Up | BootState::Gone => Verdict::Reconnect,
                BootState::Entering => Verdict::Begin(Beginning {
                    kind: self.kind_of(client, boot)?,
                    version: boot.version.clone(),
                    mode: boot.mode,
                    proof: boot.proof,
                }),
                BootState::Fenced => Verdict::Refused(
                    "this boot was fenced: its disk was reset or assigned anew; boot the client again".into(),
                ),
            });
        }
        let next = client.next_boot()?;
        let assigned = self.proof_of(client, id, &next.assignment)?;
        let (beginning, proof) = match (assigned, self.chosen_by(client, id)?) {
            (Some(proof), _) => {
                let beginning = Beginning {
                    kind: Kind::Assigned,
                    version: id.version_of(&next.assignment),
                    mode: next.assignment.mode,
                    proof: Some(proof),
                };
                (beginning, proof)
            }
            (None, Some((version, proof))) => {
                let beginning = Beginning {
                    kind: Kind::Once,
                    version,
                    mode: Mode::Shared,
                    proof: Some(proof),
                };
                (beginning, proof)
            }
            (None, None) => {
                return Ok(Verdict::Refused(format!(
                    "its script was made for another image or mode than {} in mode {}, or not by this \
                     library; boot the client again",
                    next.assignment.image, next.assignment.mode
                )));
            }
        };
        if !self.is_proof_enough(client, &beginning.version, proof)? {
            return Ok(Verdict::Refused(
                "its script was made before its way or its settings for CHAP were changed; boot the \
                 client again"
                    .into(),
            ));
        }
        let last = client.boot.as_ref().map_or(0, |boot| boot.id.seq);
        if id.seq <= client.oldest.max(last) {
            return Ok(Verdict::Refused(
                "its script is older than the client's last boot or assignment; boot the client again".into(),
            ));
        }
        match next.fixed {
            Some(version) if beginning.kind == Kind::Assigned && version.number != id.version => {
                Ok(Verdict::Refused(format!(
                    "its script boots version {} and the disk is one of {version}; boot the client \
                     again",
                    id.version
                )))
            }
            _ => Ok(Verdict::Begin(beginning)),
        }
    }

    /// Whether a boot that the document holds was chosen at a menu.
    fn kind_of(&self, client: &Client, boot: &Boot) -> Result<Kind> {
        let what = (&boot.version, boot.mode);
        let once = self.proof_in(&client.mac, &boot.id, Kind::Once, what)?;
        Ok(match once {
            Some(_) => Kind::Once,
            None => Kind::Assigned,
        })
    }

    /// What a boot of this id proves, if this library made it for this client and assignment.
    pub(super) fn proof_of(
        &self,
        client: &Client,
        id: &BootId,
        to: &Assignment,
    ) -> Result<Option<Proof>> {
        let what = (&id.version_of(to), to.mode);
        self.proof_in(&client.mac, id, Kind::Assigned, what)
    }

    /// Whether this library made the id for this client and assignment.
    pub(super) fn is_ours(&self, client: &Client, id: &BootId, to: &Assignment) -> Result<bool> {
        Ok(self.proof_of(client, id, to)?.is_some())
    }
}

impl Kind {
    /// What the authenticated text of its ids begins with.
    fn word(self) -> &'static str {
        match self {
            Kind::Assigned => "boot",
            Kind::Once => "once",
        }
    }
}

impl BootId {
    /// What authenticates it.
    pub(super) fn code(&self) -> &[u8] {
        &self.code
    }

    /// The version that it names, of the image that the client is assigned to.
    pub(super) fn version_of(&self, to: &Assignment) -> VersionId {
        VersionId {
            image: to.image.image.clone(),
            number: self.version,
        }
    }
}

/// The target of a boot's disk: its clone, or the version that everybody shares.
pub(super) fn disk_target(client: &Client, version: &VersionId, mode: Mode) -> Target {
    if mode.has_clone() {
        Target::Clone(client.mac)
    } else {
        Target::Version(version.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_written_in_one_way() {
        let text = "0190a1b2c3d4-3-0123456789abcdef";
        let id: BootId = text.parse().unwrap();
        assert_eq!((id.seq, id.version), (0x0190_a1b2_c3d4, 3));
        assert_eq!(id.to_string(), text);
        for bad in [
            "",
            "-",
            "--",
            "0190a1b2c3d4-3",
            "190a1b2c3d4-3-0123456789abcdef",
            "0190A1B2C3D4-3-0123456789abcdef",
            "0190a1b2c3d4-03-0123456789abcdef",
            "0190a1b2c3d4-0-0123456789abcdef",
            "0190a1b2c3d4-3-0123456789abcde",
            "0190a1b2c3d4-3-0123456789ABCDEF",
            "+190a1b2c3d4-3-0123456789abcdef",
            "10190a1b2c3d4-3-0123456789abcdef",
            "0190a1b2c3d4-3-0123456789abcdef-1",
        ] {
            assert!(bad.parse::<BootId>().is_err(), "{bad}");
        }
    }
}
