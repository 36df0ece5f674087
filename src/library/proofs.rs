//! What a boot proves to the target, and the target to it (CHAP).
//!
//! Secrets are like boot ids: derived, not remembered. Whoever asks for a script makes nobody write
//! anything, a restart of the server changes none of them, and each is worth as much as its boot id. Which
//! kind of proof a boot owes is part of what its id is authenticated with, so that a change of settings
//! locks no running machine out, and nobody gets around a proof that his script asked for.

use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::boots::{Boot, BootId, Kind};
use super::clients::{Client, Settings, Way};
use super::error::{Error, Result};
use super::events::{Actor, Event};
use super::names::{Mode, VersionId, plain_words};
use super::wire::Who;
use super::{Chap, Library, MacAddr, Secrets};

/// Letters of a secret: those that dracut, initramfs-tools, iPXE and every shell take as they are.
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Letters in a secret: 119 bits, where RFC 7143 §9.2.1 wants 96.
const LENGTH: usize = 20;

/// The name that the target proves under.
const TARGET: &str = "netroot";

/// Where clients are given what they prove.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ChapBy {
    /// Nowhere: they prove nothing.
    Off,
    /// In the firmware's table, for those whose disk iPXE leaves there: their way to boot is `ibft`, or
    /// the disk boots itself.
    #[default]
    Ibft,
    /// There, and on the kernel line of all others, which every user of the client can read.
    KernelLine,
}

plain_words!(
    ChapBy,
    "a way to give secrets: off, ibft or kernel-line",
    [Off = "off", Ibft = "ibft", KernelLine = "kernel-line",]
);

/// Something that is done, or not.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// It is done.
    On,
    /// It is not.
    Off,
}

plain_words!(Switch, "on or off", [On = "on", Off = "off",]);

/// Who proves what when a boot logs in; the later ones prove more.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// Nobody proves anything; the boot's id is what lets it in.
    None,
    /// The client proves its boot's secret.
    Chap,
    /// The target proves one, too, if the client asks for it.
    Mutual,
}

impl Proof {
    pub(super) const ALL: [Proof; 3] = [Proof::None, Proof::Chap, Proof::Mutual];

    /// What a client with these settings proves that boots this way.
    pub(super) fn wanted(settings: &Settings, way: Way) -> Proof {
        let given = match settings.chap.unwrap_or_default() {
            ChapBy::Off => false,
            ChapBy::Ibft => way == Way::Ibft,
            ChapBy::KernelLine => true,
        };
        match (given, settings.mutual) {
            (false, _) => Proof::None,
            (true, Some(Switch::On)) => Proof::Mutual,
            (true, _) => Proof::Chap,
        }
    }

    /// What it adds to what a boot's id is authenticated with. An id without proof is made as it was
    /// before there were any.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Proof::None => "",
            Proof::Chap => "|chap",
            Proof::Mutual => "|mutual",
        }
    }
}

impl Library {
    /// Whether a boot of this version by a client may still begin whose script asked for this proof.
    pub(super) fn is_proof_enough(
        &self,
        client: &Client,
        version: &VersionId,
        proof: Proof,
    ) -> Result<bool> {
        let (version, image) = (self.version(version)?, &version.image);
        let wanted = |by: &Settings| Proof::wanted(by, version.way(by));
        Ok(match client.person {
            None => proof == wanted(&self.settings_booting(client, image)?),
            // A machine asked for it, and which one that was the id does not tell. So much is asked for
            // wherever they are.
            Some(_) => proof >= wanted(&self.said_of_person(client, image)?),
        })
    }

    /// The secrets of a boot; none where nobody proves anything.
    pub fn boot_secrets(&self, mac: &MacAddr, id: &BootId, proof: Proof) -> Result<Secrets> {
        let chap =
            |user: &str, side| -> Result<Chap> { Chap::new(user, &self.derived(mac, id, side)?) };
        Ok(match proof {
            Proof::None => Secrets::default(),
            Proof::Chap => Secrets {
                chap: Some(chap(&mac.bare(), "client")?),
                mutual: None,
            },
            Proof::Mutual => Secrets {
                chap: Some(chap(&mac.bare(), "client")?),
                mutual: Some(chap(TARGET, "target")?),
            },
        })
    }

    /// The secrets by which an initiator proves that it is the boot whose name it uses. None where its
    /// script asked for no proof, and where it is no boot of ours: then its name lets it in nowhere.
    pub fn secrets_of_initiator(&self, initiator: &str) -> Result<Secrets> {
        let Who::Boot(mac, id) = self.who(initiator) else {
            return Ok(Secrets::default());
        };
        let Some(client) = self.find_client(&mac)?.filter(|found| found.mac == mac) else {
            return Ok(Secrets::default());
        };
        let proof = match client.boot.as_ref().filter(|boot| boot.id == id) {
            // It owes what it proved first, also where the key that its id was made with is lost: then
            // nobody can prove that any more, and it has to boot again.
            Some(Boot {
                proof: Some(proof), ..
            }) => Some(*proof),
            Some(boot) => {
                let what = (&boot.version, boot.mode);
                let assigned = self.proof_in(&mac, &id, Kind::Assigned, what)?;
                assigned.or(self.proof_in(&mac, &id, Kind::Once, what)?)
            }
            None => {
                let assigned = self.proof_of(&client, &id, &client.next_boot()?.assignment)?;
                let chosen = self.chosen_by(&client, &id)?;
                assigned.or(chosen.map(|(_, proof)| proof))
            }
        };
        self.boot_secrets(&mac, &id, proof.unwrap_or(Proof::None))
    }

    /// The proof that this library asked for when it made the id for this client, version and mode;
    /// nothing where it made none such. Takes the same time whatever is wrong with it.
    pub(super) fn proof_in(
        &self,
        mac: &MacAddr,
        id: &BootId,
        kind: Kind,
        what: (&VersionId, Mode),
    ) -> Result<Option<Proof>> {
        let mut found = None;
        for proof in Proof::ALL {
            let code = self.authenticator(mac, id.seq, kind, what, proof)?;
            if code.verify_truncated_left(id.code()).is_ok() {
                found = Some(proof);
            }
        }
        Ok(found)
    }

    /// Tells that somebody at `peer` was not given what is a client's secret. Somebody who asks again
    /// and again is told of once a minute.
    pub fn note_withheld(&self, what: &str, client: &MacAddr, peer: IpAddr, why: &str) {
        if !self.withheld.is_news(peer, &format!("{what} {client}")) {
            return;
        }
        tracing::warn!(%client, %peer, why, "{what} was withheld");
        let actor = Actor::Client {
            initiator: String::new(),
            peer: peer.to_string(),
        };
        let event = Event::new(&actor, "secret-withheld").of(client);
        self.note(&event.with("what", what).with("why", why));
    }

    /// Letters that only who has the library's key can tell, for one side of one boot.
    pub(super) fn derived(&self, mac: &MacAddr, id: &BootId, side: &str) -> Result<String> {
        let mut secret = String::with_capacity(LENGTH);
        for round in 0_u32.. {
            let mut code = <Hmac<Sha256> as KeyInit>::new_from_slice(self.boot_key()?)
                .map_err(|_| Error::Invalid("the key of boot ids cannot be used".into()))?;
            // Boot ids are made with another first word.
            code.update(format!("chap|{side}|{}|{id}|{round}", mac.bare()).as_bytes());
            let letters = code.finalize().into_bytes().into_iter().filter_map(letter);
            secret.extend(letters.take(LENGTH - secret.len()));
            if secret.len() == LENGTH {
                break;
            }
        }
        Ok(secret)
    }
}

/// The letter of a random byte. Some bytes have none: all letters are to come equally often.
fn letter(byte: u8) -> Option<char> {
    let even = u8::MAX - u8::MAX % 62;
    let index = (byte < even).then_some(usize::from(byte % 62))?;
    LETTERS.get(index).map(|letter| char::from(*letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0190a1b2c3d4-3-0123456789abcdef";

    #[test]
    fn every_letter_comes_as_often_as_the_others() {
        let mut times = std::collections::HashMap::new();
        for letter in (0..=u8::MAX).filter_map(letter) {
            *times.entry(letter).or_insert(0) += 1;
        }
        assert_eq!(times.len(), 62);
        assert!(times.values().all(|&times| times == 4), "{times:?}");
    }

    #[test]
    fn secrets_differ_by_boot_client_side_and_library_and_stay_over_restarts() {
        let (_dir, library) = Library::temporary();
        let (a, b) = ("52:54:00:12:34:56", "52:54:00:12:34:57");
        let (a, b): (MacAddr, MacAddr) = (a.parse().unwrap(), b.parse().unwrap());
        let id: BootId = ID.parse().unwrap();
        let next: BootId = ID.replace("3d4-3", "3d5-3").parse().unwrap();
        let of = |library: &Library, mac, id| {
            let secrets = library.boot_secrets(mac, id, Proof::Mutual).unwrap();
            (secrets.chap.unwrap(), secrets.mutual.unwrap())
        };
        let (client, target) = of(&library, &a, &id);
        assert_eq!(
            (client.user.as_str(), target.user.as_str()),
            ("525400123456", "netroot")
        );
        for secret in [&client.secret, &target.secret] {
            assert_eq!(secret.len(), LENGTH);
            assert!(
                secret.bytes().all(|b| b.is_ascii_alphanumeric()),
                "{secret}"
            );
        }
        let (_other_dir, other) = Library::temporary();
        let others = [
            target.secret.clone(),
            of(&library, &a, &next).0.secret,
            of(&library, &b, &id).0.secret,
            of(&other, &a, &id).0.secret,
        ];
        assert!(!others.contains(&client.secret), "{others:?}");
        let again = Library::open(library.root(), None).unwrap();
        assert_eq!(of(&again, &a, &id), (client, target));
        let none = library.boot_secrets(&a, &id, Proof::None).unwrap();
        assert_eq!(none, Secrets::default());
    }

    #[test]
    fn who_boots_by_the_firmwares_table_proves_unless_it_is_told_not_to() {
        let wanted = |way, chap, mutual| {
            let settings = Settings {
                chap,
                mutual,
                ..Settings::default()
            };
            Proof::wanted(&settings, way)
        };
        let (http, ibft) = (Way::Http, Way::Ibft);
        assert_eq!(wanted(http, None, None), Proof::None);
        assert_eq!(wanted(ibft, None, None), Proof::Chap);
        assert_eq!(
            wanted(ibft, Some(ChapBy::Off), Some(Switch::On)),
            Proof::None
        );
        assert_eq!(wanted(http, Some(ChapBy::Ibft), None), Proof::None);
        assert_eq!(wanted(http, Some(ChapBy::KernelLine), None), Proof::Chap);
        assert_eq!(wanted(ibft, None, Some(Switch::On)), Proof::Mutual);
    }
}
