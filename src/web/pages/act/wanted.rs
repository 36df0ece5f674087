//! What a form asks for.

use std::collections::BTreeSet;
use std::str::FromStr;

use crate::daemon::{self, Server};
use crate::library::{
    Act, Actor, AssignTo, Client, ClientSelector, Done, Edit, Edition, Error, GroupName, KeptDisk,
    KernelArg, MacAddr, NewSize, NewSnapshot, Plan, Step, When,
};

/// The fields of a form, in their order.
pub(in crate::web::pages) type Fields = Vec<(String, String)>;

/// An act on some clients.
pub(super) struct Wanted {
    /// On whom, as the page showed them.
    pub(super) picks: Vec<Pick>,
    pub(super) what: What,
    pub(super) when: When,
    /// It was asked about already.
    pub(super) sure: bool,
}

/// A client that was chosen.
pub(super) struct Pick {
    pub(super) mac: MacAddr,
    /// As it was when it was looked at.
    pub(super) edition: Option<Edition>,
}

/// What is to be done to each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Act(Act),
    Args(Vec<KernelArg>),
    Join(GroupName),
    Leave(GroupName),
    Wake,
    Remove,
}

/// A button has one value: what it brings back stands behind this.
const RESTORE: &str = "restore:";
/// The same for what it removes.
const FORGET: &str = "forget:";

/// The first field of this name.
pub(in crate::web::pages) fn field<'a>(fields: &'a [(String, String)], name: &str) -> &'a str {
    let mut values = fields.iter().filter(|(key, _)| key == name);
    values.next().map_or("", |(_, value)| value.trim())
}

/// A field that has to be something: what is wrong with it is said to whoever wrote it.
pub(in crate::web::pages) fn parsed<T>(text: &str) -> Result<T, String>
where
    T: FromStr,
    T::Err: ToString,
{
    text.parse().map_err(|wrong: T::Err| wrong.to_string())
}

/// The same where it may be left empty.
pub(in crate::web::pages) fn given<T>(text: &str) -> Result<Option<T>, String>
where
    T: FromStr,
    T::Err: ToString,
{
    match text {
        "" => Ok(None),
        text => parsed(text).map(Some),
    }
}

/// Words with spaces between them.
pub(in crate::web::pages) fn words<T>(text: &str) -> Result<Vec<T>, String>
where
    T: FromStr,
    T::Err: ToString,
{
    text.split_whitespace().map(parsed).collect()
}

/// Kernel arguments with spaces between them, of a field that has shown these.
pub(in crate::web::pages) fn kernel_args(
    text: &str,
    before: &[KernelArg],
) -> Result<Vec<KernelArg>, String> {
    let read = |word| KernelArg::said_beside(before, word).map_err(|wrong| wrong.to_string());
    text.split_whitespace().map(read).collect()
}

/// The page that a form came from: the room, or that of the one client that it is about.
pub(super) fn back(fields: &[(String, String)]) -> String {
    let of_client = field(fields, "from") == "client";
    match pick(field(fields, "pick")) {
        Ok(pick) if of_client => format!("/clients/{}", pick.mac),
        _ => "/".to_owned(),
    }
}

/// What a form that asks once more brings along.
pub(super) fn again(fields: &[(String, String)]) -> Fields {
    const OWN: [&str; 3] = ["csrf", "when", "sure"];
    let kept = fields
        .iter()
        .filter(|(name, _)| !OWN.contains(&name.as_str()));
    kept.cloned().collect()
}

/// `525400123456.EDITION`, or the address alone, whatever the edition.
fn pick(text: &str) -> Result<Pick, String> {
    let (mac, edition) = match text.split_once('.') {
        Some((mac, edition)) => (mac, Some(Edition::named(edition))),
        None => (text, None),
    };
    Ok(Pick {
        mac: parsed(mac)?,
        edition,
    })
}

impl Wanted {
    /// Reads a form; what is wrong with it is for whoever filled it in.
    pub(super) fn parse(fields: &[(String, String)]) -> Result<Self, String> {
        let picks = fields.iter().filter(|(name, _)| name == "pick");
        let picks: Vec<Pick> = picks.map(|(_, one)| pick(one)).collect::<Result<_, _>>()?;
        if picks.is_empty() {
            return Err("Nothing was done: choose at least one client.".to_owned());
        }
        let field = |name| field(fields, name);
        let assign = |image, mode| Act::Assign(AssignTo { image, mode });
        let what = match field("act") {
            "reset" => What::Act(Act::Reset),
            "undo" => What::Act(Act::Undo),
            act if act.starts_with(RESTORE) => What::Act(Act::Restore(KeptDisk {
                disk: act.trim_start_matches(RESTORE).to_owned(),
            })),
            act if act.starts_with(FORGET) => What::Act(Act::Forget(KeptDisk {
                disk: act.trim_start_matches(FORGET).to_owned(),
            })),
            "snapshot" => What::Act(Act::Snapshot(NewSnapshot {
                name: match field("name") {
                    "" => None,
                    name => Some(parsed(name)?),
                },
            })),
            "resize" => What::Act(Act::Resize(NewSize {
                size: parsed(field("size"))?,
            })),
            "assign" if field("image").is_empty() => {
                return Err("Nothing was assigned: choose an image.".to_owned());
            }
            "assign" => What::Act(assign(Some(parsed(field("image"))?), None)),
            "mode" => What::Act(assign(None, Some(parsed(field("mode"))?))),
            "args" => What::Args(words(field("args"))?),
            "join" => What::Join(parsed(field("group"))?),
            "leave" => What::Leave(parsed(field("group"))?),
            "wake" => What::Wake,
            "remove" => What::Remove,
            _ => return Err("Nothing was done: choose what to do by its button.".to_owned()),
        };
        // The bar of the room has one choice of the moment, beside the button that it is for.
        let is_assigned = field("act") == "assign" || field("sure") == "yes";
        let when = match field("when") {
            "next-boot" if is_assigned => When::AtNextBoot,
            "force" => When::Force,
            _ => When::Now,
        };
        Ok(Wanted {
            picks,
            what,
            when,
            sure: field("sure") == "yes",
        })
    }
}

/// Calls a client, or tells what calling it would do where nobody does it.
fn wake(client: &Client, server: &Server, actor: Option<&Actor>) -> Result<Done, Error> {
    let (library, whom) = (server.library(), ClientSelector::Mac(client.mac));
    let by = actor.unwrap_or(&Actor::Server);
    let woken = daemon::wake(library, &whom, actor.is_none(), by)?;
    let ways = woken.iter().flat_map(|one| &one.by);
    let steps = ways.map(|way| Step::Edit {
        what: format!("call it on {}", way.interface),
    });
    Ok(Done {
        plan: Plan {
            client: client.name.clone(),
            mac: client.mac,
            what: "wake".to_owned(),
            steps: steps.collect(),
            loses: None,
            nothing: None,
            warnings: Vec::new(),
        },
        client: None,
    })
}

impl What {
    /// What it would do to a client, or why it would be refused.
    pub(super) fn plan(&self, client: &Client, when: When, server: &Server) -> Result<Plan, Error> {
        let (library, live) = (server.library(), server.live());
        match self {
            What::Act(act) => library.plan(&client.mac, act, when, live),
            What::Remove => library.plan_remove(&client.mac, when, live),
            What::Wake => wake(client, server, None).map(|done| done.plan),
            edit => library.plan_edit(&client.mac, &edit.edit(client)),
        }
    }

    /// Does it to a client, unless that is not what it was in `edition`.
    pub(super) fn perform(
        &self,
        client: &Client,
        edition: Option<&Edition>,
        when: When,
        server: &Server,
        actor: &Actor,
    ) -> Result<Done, Error> {
        let (library, live, mac) = (server.library(), server.live(), &client.mac);
        match self {
            What::Act(act) => library.perform_on(mac, edition, act, when, live, actor),
            What::Remove => library.remove_client_on(mac, edition, when, live, actor),
            What::Wake => wake(client, server, Some(actor)),
            edit => {
                // Made of this client's groups, so it is for this edition in any case.
                let now = client.edition();
                let edition = edition.unwrap_or(&now);
                library.edit_client_on(mac, Some(edition), &edit.edit(client), live, actor)
            }
        }
    }

    fn edit(&self, client: &Client) -> Edit {
        let groups = |change: &dyn Fn(&mut BTreeSet<GroupName>) -> bool| {
            let mut groups = client.groups.clone();
            change(&mut groups);
            Some(groups)
        };
        match self {
            What::Args(args) => Edit {
                args: Some(args.clone()),
                ..Edit::default()
            },
            What::Join(group) => Edit {
                groups: groups(&|groups| groups.insert(group.clone())),
                ..Edit::default()
            },
            What::Leave(group) => Edit {
                groups: groups(&|groups| groups.remove(group)),
                ..Edit::default()
            },
            What::Act(_) | What::Remove | What::Wake => Edit::default(),
        }
    }

    /// What is asked, to clients that are named after it: `Reset lab-1?`
    pub(super) fn question(&self, whom: &str) -> String {
        match self {
            What::Act(Act::Reset) => format!("Reset {whom} to pristine?"),
            What::Act(Act::Undo) => format!("Undo the last change of {whom}?"),
            What::Act(Act::Restore(_)) => format!("Bring back a kept disk of {whom}?"),
            What::Act(Act::Snapshot(_)) => format!("Make a snapshot of {whom}?"),
            What::Act(Act::Forget(_)) => format!("Remove a kept disk of {whom} for ever?"),
            What::Act(Act::Resize(NewSize { size })) => {
                format!("Enlarge the disk of {whom} to {size}?")
            }
            What::Act(Act::Assign(AssignTo {
                image: Some(image), ..
            })) => {
                format!("Assign {image} to {whom}?")
            }
            What::Act(Act::Assign(AssignTo { mode, .. })) => match mode {
                Some(mode) => format!("Set mode {mode} for {whom}?"),
                None => format!("Assign {whom} anew?"),
            },
            What::Remove => format!("Remove {whom}?"),
            What::Wake => format!("Wake {whom}?"),
            What::Args(_) => format!("Set the kernel arguments of {whom}?"),
            What::Join(group) => format!("Add {whom} to {group}?"),
            What::Leave(group) => format!("Take {whom} out of {group}?"),
        }
    }

    /// The same, on the button that does it.
    pub(super) fn verb(&self) -> &'static str {
        match self {
            What::Act(Act::Reset) => "Reset",
            What::Act(Act::Undo) => "Undo",
            What::Act(Act::Restore(_)) => "Bring it back",
            What::Act(Act::Snapshot(_)) => "Make a snapshot",
            What::Act(Act::Forget(_)) => "Remove for ever",
            What::Act(Act::Resize(_)) => "Enlarge",
            What::Act(Act::Assign(AssignTo { image: Some(_), .. })) => "Assign",
            What::Act(Act::Assign(_)) => "Set mode",
            What::Remove => "Remove",
            What::Wake => "Wake",
            What::Args(_) => "Set arguments",
            What::Join(_) => "Add to group",
            What::Leave(_) => "Take out",
        }
    }

    /// What was done to whom.
    pub(super) fn told(&self, whom: &str, when: When) -> String {
        if when == When::AtNextBoot {
            let what = match self {
                What::Act(act) => act.to_string(),
                _ => self.verb().to_lowercase(),
            };
            return format!("At the next boot of {whom}: {what}.");
        }
        match self {
            What::Act(Act::Reset) => format!("Reset {whom}."),
            What::Act(Act::Undo) => format!("Undone for {whom}."),
            What::Act(Act::Restore(_)) => format!("Brought the kept disk of {whom} back."),
            What::Act(Act::Snapshot(_)) => format!("Made a snapshot of {whom}."),
            What::Act(Act::Forget(_)) => format!("Removed a kept disk of {whom}."),
            What::Act(Act::Resize(NewSize { size })) => {
                format!(
                    "Enlarged the disk of {whom} to {size}; what is on it, the client enlarges."
                )
            }
            What::Act(Act::Assign(AssignTo {
                image: Some(image), ..
            })) => {
                format!("Assigned {image} to {whom}.")
            }
            What::Act(Act::Assign(AssignTo { mode, .. })) => match mode {
                Some(mode) => format!("Set mode {mode} for {whom}."),
                None => format!("Assigned {whom} anew."),
            },
            What::Remove => format!("Removed {whom}."),
            What::Wake => format!("Called {whom}: whoever heard it starts now."),
            What::Args(_) => {
                format!("Set the kernel arguments of {whom}; they count from the next boot.")
            }
            What::Join(group) => format!("Added {whom} to {group}."),
            What::Leave(group) => format!("Took {whom} out of {group}."),
        }
    }

    /// Whether it can be armed.
    pub(super) fn can_wait(&self) -> bool {
        let at_once = |act: &Act| matches!(act, Act::Snapshot(_) | Act::Forget(_) | Act::Resize(_));
        matches!(self, What::Act(act) if !at_once(act))
    }

    /// Whether a button should offer to take it back.
    pub(super) fn can_be_undone(&self) -> bool {
        matches!(
            self,
            What::Act(Act::Reset | Act::Assign(_) | Act::Restore(_))
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(fields: &[(&str, &str)]) -> Result<Wanted, String> {
        let own = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        Wanted::parse(&fields.iter().map(own).collect::<Vec<_>>())
    }

    #[test]
    fn a_form_says_what_when_and_on_whom() {
        let pick = ("pick", "525400123456.abc");
        let wanted = parse(&[
            pick,
            ("act", "assign"),
            ("image", "fc28@2"),
            ("when", "next-boot"),
        ]);
        let wanted = wanted.unwrap();
        assert_eq!(wanted.picks[0].mac.to_string(), "52:54:00:12:34:56");
        assert_eq!(wanted.picks[0].edition, Some(Edition::named("abc")));
        assert_eq!(wanted.what.verb(), "Assign");
        assert_eq!((wanted.when, wanted.sure), (When::AtNextBoot, false));
        let wanted = parse(&[pick, ("act", "reset"), ("when", "next-boot")]).unwrap();
        assert_eq!(wanted.when, When::Now, "that choice was for an assignment");
        let wanted = parse(&[pick, ("act", "restore:0123abcd")]).unwrap();
        let disk = "0123abcd".to_owned();
        assert_eq!(wanted.what, What::Act(Act::Restore(KeptDisk { disk })));
        let wanted = parse(&[pick, ("act", "forget:before")]).unwrap();
        let disk = "before".to_owned();
        assert_eq!(wanted.what, What::Act(Act::Forget(KeptDisk { disk })));
        let wanted = parse(&[pick, ("act", "resize"), ("size", "40G")]).unwrap();
        assert!(!wanted.what.can_wait());
        let wanted = parse(&[pick, ("act", "args"), ("args", " a=1  b ")]).unwrap();
        assert!(matches!(wanted.what, What::Args(args) if args.len() == 2));
    }

    #[test]
    fn what_makes_no_sense_is_told_and_not_done() {
        let pick = ("pick", "525400123456");
        for (fields, why) in [
            (&[("act", "reset")][..], "choose at least one"),
            (&[pick], "by its button"),
            (&[pick, ("act", "explode")], "by its button"),
            (&[pick, ("act", "assign"), ("image", "FC28")], "FC28"),
            (
                &[("pick", "../../etc"), ("act", "reset")],
                "hardware address",
            ),
            (&[pick, ("act", "join"), ("group", "<b>")], "<b>"),
        ] {
            let said = parse(fields).err().unwrap();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn a_form_leads_back_to_a_page_of_ours() {
        let fields = |from: &str, pick: &str| {
            back(&[("from".into(), from.into()), ("pick".into(), pick.into())])
        };
        assert_eq!(
            fields("client", "525400123456.ab"),
            "/clients/52:54:00:12:34:56"
        );
        assert_eq!(fields("https://example.org", "525400123456"), "/");
        assert_eq!(fields("client", "//example.org"), "/");
    }
}
