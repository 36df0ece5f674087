//! What came of an act, client by client.

use super::text;
use super::wanted::{Fields, Pick, Wanted, What};
use crate::daemon::Server;
use crate::library::{Actor, Error, When};
use crate::web::pages::page::{Notice, Undo};

/// How many refusals are told in full.
const TOLD: usize = 8;

/// What came of it.
pub(super) struct Outcome {
    what: What,
    when: When,
    /// Those to whom something was done: names and addresses.
    done: Vec<(String, String)>,
    /// Those who were so already, and why that is.
    idle: Vec<(String, String)>,
    /// Those to whom it was not done, and why.
    failed: Vec<(String, String)>,
    warnings: Vec<String>,
    from_client: bool,
    /// The client whose page it was is no more.
    pub(super) is_gone: bool,
}

impl Outcome {
    /// Tries it on each, whatever became of the others. `from` is the page to go back to.
    pub(super) fn of(wanted: &Wanted, server: &Server, actor: &Actor, from: &str) -> Self {
        let mut outcome = Outcome {
            what: wanted.what.clone(),
            when: wanted.when,
            done: Vec::new(),
            idle: Vec::new(),
            failed: Vec::new(),
            warnings: Vec::new(),
            from_client: from != "/",
            is_gone: false,
        };
        for pick in &wanted.picks {
            if let Err((name, why)) = outcome.attempt(pick, wanted, server, actor) {
                outcome.failed.push((name, text::told(&told(&why))));
            }
        }
        outcome.warnings.sort();
        outcome.warnings.dedup();
        outcome.is_gone = wanted.what == What::Remove && !outcome.done.is_empty();
        outcome
    }

    fn attempt(
        &mut self,
        pick: &Pick,
        wanted: &Wanted,
        server: &Server,
        actor: &Actor,
    ) -> Result<(), (String, Error)> {
        let client = server.library().client(&pick.mac);
        let client = client.map_err(|why| (pick.mac.to_string(), why))?;
        let name = client.name.to_string();
        let Wanted { what, when, .. } = wanted;
        let plan = what.plan(&client, *when, server);
        let plan = plan.map_err(|why| (name.clone(), why))?;
        if let Some(why) = plan.nothing {
            self.idle.push((name, why));
            return Ok(());
        }
        let done = what.perform(&client, pick.edition.as_ref(), *when, server, actor);
        let done = done.map_err(|why| (name.clone(), why))?;
        if done.plan.steps.is_empty() {
            self.idle.push((name, "it is so already".to_owned()));
            return Ok(());
        }
        self.warnings.extend(done.plan.warnings);
        self.done.push((name, client.mac.bare()));
        Ok(())
    }

    /// For the next page.
    pub(super) fn notice(&self) -> Notice {
        let mut lines = Vec::new();
        if !self.done.is_empty() {
            let names: Vec<String> = self.done.iter().map(|(name, _)| name.clone()).collect();
            let whom = text::names(&names, "client");
            lines.push(self.what.told(&whom, self.when));
        }
        list(&mut lines, &self.idle, "Nothing to do for");
        list(&mut lines, &self.failed, "Not done for");
        lines.extend(self.warnings.iter().cloned());
        Notice {
            good: self.failed.is_empty(),
            text: lines.join("\n"),
            undo: self.undo(),
        }
    }

    fn undo(&self) -> Option<Undo> {
        if self.done.is_empty() || !self.what.can_be_undone() {
            return None;
        }
        let mut fields: Fields = vec![("act".to_owned(), "undo".to_owned())];
        if self.from_client {
            fields.push(("from".to_owned(), "client".to_owned()));
        }
        fields.extend(
            self.done
                .iter()
                .map(|(_, mac)| ("pick".to_owned(), mac.clone())),
        );
        Some(Undo {
            action: "/clients/act".to_owned(),
            fields,
        })
    }
}

/// `Not done for lab-1: it is running`, a line each; of many only the first ones.
fn list(lines: &mut Vec<String>, of: &[(String, String)], head: &str) {
    let shown = of.iter().take(TOLD);
    lines.extend(shown.map(|(name, why)| format!("{head} {name}: {why}")));
    if of.len() > TOLD {
        lines.push(format!("{head} {} more.", of.len() - TOLD));
    }
}

/// What was refused goes without what was tried, which the page says, and what the command line
/// would take for it.
fn told(error: &Error) -> String {
    match error {
        Error::Refused { why, .. } => why.clone(),
        other => other.to_string(),
    }
}
