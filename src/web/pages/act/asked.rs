//! What has to be asked about before an act: what is lost, and who is running.

use super::text;
use super::wanted::{Wanted, What};
use crate::daemon::Server;
use crate::library::{ClientName, Error, MacAddr, Plan, Step, When};

/// An act that waits for a yes.
pub(super) struct Asked {
    /// `Reset 3 clients to pristine?`
    pub(super) question: String,
    /// On the button.
    pub(super) verb: &'static str,
    /// What it means for each client.
    pub(super) lines: Vec<Line>,
    /// The moments that can be chosen.
    pub(super) choices: Vec<Choice>,
    /// What a person should know besides.
    pub(super) warnings: Vec<String>,
    is_needed: bool,
}

/// A moment to do it.
pub(super) struct Choice {
    pub(super) when: When,
    pub(super) text: String,
    pub(super) chosen: bool,
}

/// What an act means for one client.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) mac: MacAddr,
    /// What is done, in order.
    pub(super) steps: Vec<String>,
    /// What is lost by it.
    pub(super) loses: Option<String>,
    /// Why it is not done now, while it can be done later or by force.
    pub(super) runs: Option<String>,
    /// Why it is not done at all.
    pub(super) refused: Option<String>,
}

impl Asked {
    /// Looks at what an act would do. Touches nothing.
    pub(super) fn about(wanted: &Wanted, server: &Server) -> Self {
        let Wanted {
            picks, what, when, ..
        } = wanted;
        let mut warnings = Vec::new();
        let mut lines: Vec<Line> = Vec::with_capacity(picks.len());
        let mut is_needed = false;
        for pick in picks {
            let client = match server.library().client(&pick.mac) {
                Ok(client) => client,
                Err(error) => {
                    lines.push(Line::refused(pick.mac.to_string(), pick.mac, &error));
                    continue;
                }
            };
            let (name, mac) = (client.name.clone(), client.mac);
            if pick
                .edition
                .as_ref()
                .is_some_and(|seen| *seen != client.edition())
            {
                let error = moved(&name);
                lines.push(Line::refused(name.to_string(), mac, &error));
                continue;
            }
            let line = match what.plan(&client, *when, server) {
                Ok(plan) => {
                    is_needed |= must_ask(&plan);
                    warnings.extend(plan.warnings.iter().cloned());
                    Line::of(&plan)
                }
                Err(why) => match what.plan(&client, When::Force, server) {
                    // By force it would go, so it is refused only because the client runs.
                    Ok(plan) if matches!(why, Error::Refused { .. }) => {
                        is_needed = true;
                        Line {
                            runs: Some(why_running(&why)),
                            ..Line::of(&plan)
                        }
                    }
                    _ => Line::refused(name.to_string(), mac, &why),
                },
            };
            lines.push(line);
        }
        warnings.sort();
        warnings.dedup();
        let names: Vec<String> = lines.iter().map(|line| line.name.clone()).collect();
        Asked {
            question: what.question(&text::names(&names, "client")),
            verb: what.verb(),
            choices: choices(what, *when, &lines),
            lines,
            warnings,
            is_needed,
        }
    }

    /// Whether somebody has to say yes first.
    pub(super) fn is_needed(&self) -> bool {
        self.is_needed
    }

    /// Those whose disks or work would be missed.
    pub(super) fn losing(&self) -> usize {
        self.lines
            .iter()
            .filter(|line| line.loses.is_some())
            .count()
    }
}

impl Line {
    fn of(plan: &Plan) -> Line {
        let steps = plan
            .steps
            .iter()
            .filter(|step| !matches!(step, Step::Fence { .. }));
        Line {
            name: plan.client.to_string(),
            mac: plan.mac,
            steps: steps.map(ToString::to_string).collect(),
            loses: plan.loses.clone(),
            runs: None,
            refused: plan.nothing.clone(),
        }
    }

    fn refused(name: String, mac: MacAddr, why: &Error) -> Line {
        Line {
            name,
            mac,
            steps: Vec::new(),
            loses: None,
            runs: None,
            refused: Some(text::told(&why.to_string())),
        }
    }
}

fn moved(name: &ClientName) -> Error {
    Error::Moved {
        kind: "client",
        name: name.to_string(),
    }
}

fn must_ask(plan: &Plan) -> bool {
    let cuts = |step: &Step| matches!(step, Step::Fence { .. } | Step::Remove);
    plan.loses.is_some() || plan.steps.iter().any(cuts)
}

/// What a person at a page can do about it is offered there, so only the reason is told.
fn why_running(error: &Error) -> String {
    match error {
        Error::Refused { why, .. } => text::told(why),
        other => text::told(&other.to_string()),
    }
}

/// The moments that make sense for at least one of the clients.
fn choices(what: &What, asked: When, lines: &[Line]) -> Vec<Choice> {
    let can = lines.iter().filter(|line| line.refused.is_none());
    let running = can.clone().filter(|line| line.runs.is_some()).count();
    let ready = can.count() - running;
    let mut choices = Vec::new();
    let mut offer = |when, text: String| {
        choices.push(Choice {
            when,
            text,
            chosen: false,
        });
    };
    if ready > 0 {
        let text = match running {
            0 => "Now".to_owned(),
            1 => format!("Now, for {ready} of them; the one that runs is left as it is"),
            _ => format!("Now, for {ready} of them; the {running} that run are left as they are"),
        };
        offer(When::Now, text);
    }
    if what.can_wait() {
        offer(When::AtNextBoot, "At the next boot of each".to_owned());
    }
    if running > 0 {
        let text = "Now, by force: who runs is cut off its disk, and unsaved work is lost";
        offer(When::Force, text.to_owned());
    }
    let first = choices
        .iter()
        .position(|choice| choice.when == asked)
        .unwrap_or(0);
    // Nobody cuts a machine off by a button that was chosen for him.
    if let Some(choice) = choices.get_mut(first)
        && choice.when != When::Force
    {
        choice.chosen = true;
    }
    choices
}
