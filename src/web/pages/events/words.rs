//! Events as sentences: who did what to what, with names instead of addresses and links to what is there.

use std::collections::{HashMap, HashSet};

use askama::Template;

use crate::library::{self, Actor, Event, ImageName, Library, MacAddr, VersionId, VolumeName};
use crate::web::pages::text;

/// `Anna reset lab-07`, in its parts.
#[derive(Debug, Template)]
#[template(path = "event-said.html")]
pub(in crate::web::pages) struct Sentence {
    who: Word,
    /// What stands between who and to what.
    did: String,
    to: Option<Word>,
    /// What stands behind it.
    rest: String,
}

/// A name, and where there is more about it.
#[derive(Debug)]
struct Word {
    text: String,
    link: Option<String>,
}

/// What the names in events mean at the moment.
#[derive(Debug, Default)]
pub(in crate::web::pages) struct Names {
    clients: HashMap<MacAddr, (MacAddr, String)>,
    images: HashSet<ImageName>,
    versions: HashSet<VersionId>,
    volumes: HashSet<VolumeName>,
}

/// What stands before and behind the name of what it was done to.
const SAID: &[(&str, &str, &str)] = &[
    ("client-add", "added", ""),
    ("client-set", "changed the description of", ""),
    ("client-remove", "removed", ""),
    ("client-reset", "reset", ""),
    ("client-reset-armed", "had", "reset at its next boot"),
    ("client-undo", "undid the last change of", ""),
    (
        "client-undo-armed",
        "had the last change of",
        "undone at its next boot",
    ),
    ("client-assign", "changed what", "boots"),
    (
        "client-assign-armed",
        "changed what",
        "boots from its next boot on",
    ),
    ("client-restore", "brought back a kept disk of", ""),
    (
        "client-restore-armed",
        "had a kept disk of",
        "brought back at its next boot",
    ),
    (
        "client-disarm",
        "called off what waited for the next boot of",
        "",
    ),
    ("client-snapshot", "made a snapshot of the disk of", ""),
    ("client-forget", "removed a kept disk of", ""),
    ("client-resize", "enlarged the disk of", ""),
    ("data-disk-failed", "could not give its data disk to", ""),
    ("quota-near", "warns: most of its quota is taken by", ""),
    ("quota-full", "refused to write more than its quota for", ""),
    ("client-promote", "made a version of the disk of", ""),
    ("client-wake", "called", "to wake it up"),
    ("group-set", "said something for all of", ""),
    ("group-remove", "removed the group", ""),
    (
        "group-remove-failed",
        "took clients out of the group",
        "and could not remove it",
    ),
    ("image-test", "tested", ""),
    ("rollout-begin", "began a rollout to", ""),
    (
        "rollout-proven",
        "saw the canaries stay, in the rollout to",
        "",
    ),
    ("rollout-done", "finished the rollout to", ""),
    ("rollout-set-back", "set back the rollout to", ""),
    ("rollout-stop", "stopped the rollout to", ""),
    ("boot-script", "gave", "its script"),
    ("boot-failed", "saw the boot of", "fail"),
    ("image-current", "sealed", "which is current now"),
    ("image-rollback", "made", "current"),
    ("image-set", "set the way to boot of", ""),
    ("image-remove", "removed", ""),
    (
        "image-discard-failed",
        "discarded what a failed build left of",
        "",
    ),
    ("volume-add", "added the volume", ""),
    ("volume-set", "changed the volume", ""),
    ("volume-resize", "resized the volume", ""),
    ("volume-snapshot", "copied the volume", ""),
    ("volume-remove", "removed the volume", ""),
    ("session-kick", "ended a session of", ""),
    ("job-queue", "asked for a job:", ""),
    ("job-cancel", "asked to stop a job:", ""),
    ("user-add", "added the user", ""),
    ("user-role", "changed the role of", ""),
    ("user-invite", "made a link for", ""),
    ("user-remove", "removed the user", ""),
    ("password-set", "set the password of", ""),
    ("token-add", "made the token", ""),
    ("token-remove", "removed the token", ""),
    // What a client does by itself is said below; these are of people.
    ("login", "logged in as", ""),
    ("logout", "logged out", ""),
    ("login-refused", "was refused as", ""),
    ("secret-withheld", "was given no secret of", ""),
];

impl Names {
    pub(in crate::web::pages) fn of(library: &Library) -> library::Result<Names> {
        let mut names = Names::default();
        for client in library.clients()? {
            let known = (client.mac, client.name.to_string());
            for mac in client.more_macs {
                names.clients.insert(mac, known.clone());
            }
            names.clients.insert(client.mac, known);
        }
        for image in library.images()? {
            names.versions.extend(image.ids());
            names.images.insert(image.name);
        }
        // One that cannot be read is no reason to tell nothing.
        let volumes = library.volumes().unwrap_or_default().into_iter();
        names.volumes.extend(volumes.map(|volume| volume.name));
        Ok(names)
    }

    /// The address of the client that is called so.
    pub(super) fn client_called(&self, name: &str) -> Option<MacAddr> {
        let mut all = self.clients.values();
        all.find(|(_, one)| one == name).map(|(mac, _)| *mac)
    }

    /// A client, an image or a version, by what events call it; anything else as it is.
    fn word(&self, name: &str) -> Word {
        let plain = || Word::plain(name);
        if let Ok(mac) = name.parse::<MacAddr>() {
            return self.client(&mac).unwrap_or_else(plain);
        }
        if let Ok(version) = name.parse::<VersionId>() {
            let (image, number) = (&version.image, version.number);
            let link = format!("/images/{image}/{number}");
            return match self.versions.contains(&version) {
                true => Word::link(name, link),
                false => plain(),
            };
        }
        match name.parse::<ImageName>() {
            Ok(image) if self.images.contains(&image) => {
                Word::link(name, format!("/images/{image}"))
            }
            _ => match name.parse::<VolumeName>() {
                Ok(volume) if self.volumes.contains(&volume) => {
                    Word::link(name, format!("/volumes/{volume}"))
                }
                _ => plain(),
            },
        }
    }

    fn client(&self, mac: &MacAddr) -> Option<Word> {
        let (mac, name) = self.clients.get(mac)?;
        Some(Word::link(name, format!("/clients/{mac}")))
    }

    fn who(&self, by: &Actor) -> Word {
        match by {
            Actor::User { name, .. } => Word::plain(name),
            Actor::Token { name, .. } => Word::plain(&format!("the token {name}")),
            Actor::Command { uid: 0 } | Actor::Socket { uid: 0, .. } => Word::plain("root"),
            Actor::Command { uid } | Actor::Socket { uid, .. } => {
                Word::plain(&format!("user {uid} of the host"))
            }
            Actor::Client { initiator, peer } => {
                let client = client_of(initiator).and_then(|mac| self.client(&mac));
                let name = if initiator.is_empty() {
                    peer
                } else {
                    initiator
                };
                client.unwrap_or_else(|| Word::plain(name))
            }
            Actor::Server => Word::plain("the server"),
        }
    }
}

impl Word {
    fn plain(text: &str) -> Self {
        Word {
            text: text::told(text),
            link: None,
        }
    }

    fn link(text: &str, link: String) -> Self {
        Word {
            link: Some(link),
            ..Word::plain(text)
        }
    }
}

impl Sentence {
    pub(super) fn of(event: &Event, names: &Names) -> Self {
        let who = names.who(&event.by);
        let detail = |key: &str| {
            let value = event.details.get(key)?;
            Some(text::told(value.as_str()?))
        };
        if let Actor::Client { .. } = event.by
            && let Some(sentence) = of_a_client(event, &who, names)
        {
            return sentence;
        }
        let to = event.to.as_deref().map(|to| names.word(to));
        // A job says what it is about itself, and its page says the rest.
        if let (Some(task), Some(job)) = (detail("task"), event.details.get("job")) {
            let task = Word::link(&task, format!("/jobs/{job}"));
            let ended = match event.what.as_str() {
                "job-done" => Some("is done, as asked for by"),
                "job-failed" => Some("failed, asked for by"),
                "job-cancelled" => Some("was stopped, asked for by"),
                "job-requeue" => Some("begins anew, asked for by"),
                _ => None,
            };
            let (who, did, to) = match ended {
                Some(did) => (task, did.to_owned(), who),
                None => (who, said(&event.what).0, task),
            };
            return Sentence {
                who,
                did,
                to: Some(to),
                rest: String::new(),
            };
        }
        let (did, mut rest) = said(&event.what);
        if let ("client-assign" | "client-assign-armed", Some(what)) =
            (event.what.as_str(), detail("what"))
        {
            rest = format!("{rest}: {what}");
        }
        if event.what == "image-set" {
            rest = format!(
                "to {}",
                detail("to").as_deref().unwrap_or("what others say")
            );
        }
        if let (true, Some(image)) = (event.what.starts_with("rollout-"), detail("image")) {
            let why = detail("why").map(|why| format!(": {why}"));
            rest = format!("of {image}{}", why.unwrap_or_default());
        }
        Sentence { who, did, to, rest }
    }
}

/// What machines do by themselves: booting, coming back, leaving, and being refused.
fn of_a_client(event: &Event, who: &Word, names: &Names) -> Option<Sentence> {
    let version = event.details.get("version");
    let version = version.and_then(|version| version.as_str());
    let version = version.map(|version| names.word(version));
    let subject = event.to.as_deref().map(|to| names.word(to));
    let it = || subject.unwrap_or_else(|| Word::plain(&who.text));
    let sentence = |who: Word, did: &str, to: Option<Word>| Sentence {
        who,
        did: did.to_owned(),
        to,
        rest: String::new(),
    };
    Some(match event.what.as_str() {
        "boot" => sentence(it(), "booted", version),
        "boot-reconnect" => sentence(it(), "came back to", version),
        "boot-gone" => sentence(it(), "went away", None),
        "boot-script" => sentence(it(), "fetched the script of", version),
        "login-refused" => {
            let (link, text) = (who.link.clone(), who.text.clone());
            sentence(
                Word { text, link },
                "was refused by",
                event.to.as_deref().map(Word::plain),
            )
        }
        // Done at the boot that they waited for.
        "client-reset" => sentence(it(), "was reset at its boot", None),
        "client-undo" => sentence(it(), "was changed back at its boot", None),
        "client-assign" => sentence(it(), "got its new assignment at its boot", None),
        _ => return None,
    })
}

/// What is said about a kind of event; one that is new here is told by its own words.
fn said(what: &str) -> (String, String) {
    let found = SAID.iter().find(|(kind, _, _)| *kind == what);
    match found {
        Some((_, did, rest)) => ((*did).to_owned(), (*rest).to_owned()),
        None => (text::told(&what.replace('-', " ")), String::new()),
    }
}

/// The client in an initiator's name: `IQN_PREFIX:client-525400123456.BOOTID`.
fn client_of(initiator: &str) -> Option<MacAddr> {
    let (_, rest) = initiator.rsplit_once(":client-")?;
    rest.get(..12)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let mac: MacAddr = "52:54:00:00:00:07".parse().unwrap();
        Names {
            clients: [(mac, (mac, "lab-07".to_owned()))].into(),
            images: ["fc28".parse().unwrap()].into(),
            versions: ["fc28@2".parse().unwrap()].into(),
            volumes: ["data".parse().unwrap()].into(),
        }
    }

    fn told(event: &Event) -> (String, Option<String>) {
        let Sentence { who, did, to, rest } = Sentence::of(event, &names());
        let link = to.as_ref().and_then(|to| to.link.clone());
        let to = to.map_or(String::new(), |to| to.text);
        let words = [who.text, did, to, rest];
        let words = words.into_iter().filter(|word| !word.is_empty());
        (words.collect::<Vec<_>>().join(" "), link)
    }

    fn anna() -> Actor {
        Actor::User {
            name: "Anna".to_owned(),
            peer: "10.0.0.1".to_owned(),
        }
    }

    fn lab_07() -> Actor {
        Actor::Client {
            initiator: "iqn.2026-01.edu.example:client-525400000007.0000".to_owned(),
            peer: "10.0.0.7".to_owned(),
        }
    }

    #[test]
    fn events_read_as_sentences() {
        let mac = "52:54:00:00:00:07";
        let client = Some(format!("/clients/{mac}"));
        let version = Some("/images/fc28/2".to_owned());
        let user = Actor::Command { uid: 0 };
        for (event, text, link) in [
            (
                Event::new(&anna(), "client-reset").of(&mac),
                "Anna reset lab-07",
                client.clone(),
            ),
            (
                Event::new(&anna(), "client-assign-armed")
                    .of(&mac)
                    .with("what", "assign fc28@2"),
                "Anna changed what lab-07 boots from its next boot on: assign fc28@2",
                client.clone(),
            ),
            (
                Event::new(&user, "image-rollback").of(&"fc28@2"),
                "root made fc28@2 current",
                version.clone(),
            ),
            (
                Event::new(&user, "image-remove").of(&"fc28@1"),
                "root removed fc28@1",
                None,
            ),
            (
                Event::new(&anna(), "volume-resize").of(&"data"),
                "Anna resized the volume data",
                Some("/volumes/data".to_owned()),
            ),
            (
                Event::new(&anna(), "job-queue")
                    .of(&"fc28")
                    .with("job", 7)
                    .with("task", "update fc28"),
                "Anna asked for a job: update fc28",
                Some("/jobs/7".to_owned()),
            ),
            (
                Event::new(&anna(), "job-failed")
                    .of(&"fc28")
                    .with("job", 7)
                    .with("task", "update fc28"),
                "update fc28 failed, asked for by Anna",
                None,
            ),
            (
                Event::new(&lab_07(), "boot")
                    .of(&mac)
                    .with("version", "fc28@2"),
                "lab-07 booted fc28@2",
                version,
            ),
            (
                Event::new(&lab_07(), "client-reset")
                    .of(&mac)
                    .with("armed", "x"),
                "lab-07 was reset at its boot",
                None,
            ),
            (
                Event::new(&lab_07(), "login-refused").of(&"iqn.2026-01.edu.example:fc28.2"),
                "lab-07 was refused by iqn.2026-01.edu.example:fc28.2",
                None,
            ),
            (
                Event::new(&anna(), "moon-landing").of(&mac),
                "Anna moon landing lab-07",
                client,
            ),
        ] {
            assert_eq!(told(&event), (text.to_owned(), link));
        }
    }

    #[test]
    fn what_a_stranger_calls_himself_turns_nothing_around() {
        let actor = Actor::Client {
            initiator: "iqn.evil\u{202e}:client-5254000\u{e4}00007.x".to_owned(),
            peer: "10.0.0.9".to_owned(),
        };
        let (text, _) = told(&Event::new(&actor, "login-refused").of(&"x\u{202e}"));
        assert!(
            !text.contains('\u{202e}') && text.contains("was refused by"),
            "{text}"
        );
    }
}
