//! The sections of a recipe, with what is known before anything starts filled in.

use anyhow::{Result, bail, ensure};

use super::plan::Step;
use super::recipe::{Action, Condition, Fill, Hole, Recipe, plain_word, release_name};
use crate::exec::{advice, find_program};

/// What a person said.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) release: Option<String>,
    pub(super) distribution: Option<String>,
    pub(super) mirror: Option<String>,
    pub(super) packages: Vec<String>,
    /// What the image that is changed is now.
    pub(super) current: Option<String>,
}

/// See the module.
pub(super) struct Sections<'a> {
    recipe: &'a Recipe,
    known: &'a Known,
}

impl<'a> Sections<'a> {
    pub(super) fn new(recipe: &'a Recipe, known: &'a Known) -> Self {
        Self { recipe, known }
    }

    /// The steps of a section that a person asked for.
    ///
    /// # Errors
    /// When the recipe has none.
    pub(super) fn needed(&self, section: &str) -> Result<Vec<Action>> {
        ensure!(
            self.recipe.can(section),
            "the recipe {} knows no {section}: give the commands yourself by `netroot image exec \
             NAME -- COMMAND` or `netroot image upgrade FROM TO -- SCRIPT`, or write a recipe \
             (`netroot recipe show debian` is an example)",
            self.recipe.name()
        );
        self.actions(section)
    }

    /// The steps of a section, if the recipe has it.
    ///
    /// # Errors
    /// When a value is no plain word, or this host lacks a program that they need.
    pub(super) fn actions(&self, section: &str) -> Result<Vec<Action>> {
        self.known.ensure_plain()?;
        let mut actions = Vec::new();
        for action in self.recipe.steps(section) {
            if let Some(action) = self.decided(action, section) {
                for program in &action.needs {
                    if find_program(program).is_none() {
                        bail!(
                            "the recipe {} needs {program}, which is not installed on this host{}",
                            self.recipe.name(),
                            advice(program)
                        );
                    }
                }
                actions.push(action);
            }
        }
        Ok(actions)
    }

    /// The action without the conditions that are decided now; nothing if one of them fails.
    fn decided(&self, action: &Action, section: &str) -> Option<Action> {
        let mut action = action.filled(&|hole| self.known.fill(hole));
        let mut due = true;
        action
            .when
            .retain(|condition| match self.holds(condition, section) {
                None => true,
                Some(holds) => {
                    due &= holds;
                    false
                }
            });
        action
            .unless
            .retain(|condition| match self.holds(condition, section) {
                None => true,
                Some(holds) => {
                    due &= !holds;
                    false
                }
            });
        due.then_some(action)
    }

    /// Whether it holds, where that does not depend on the tree.
    fn holds(&self, condition: &Condition, section: &str) -> Option<bool> {
        match condition {
            Condition::Host(name) => Some(find_program(name).is_some()),
            // There is no tree to ask yet.
            Condition::Id(id) if section == "bootstrap" => {
                Some(self.known.distribution.as_ref() == Some(id))
            }
            // A person may have named the recipe instead, and then only the tree tells.
            Condition::Id(id) => {
                let told = self.known.distribution.as_ref();
                told.filter(|told| self.recipe.ids().contains(told))
                    .map(|told| told == id)
            }
            Condition::Release(release) => Some(self.known.release.as_ref() == Some(release)),
            Condition::Program(_) | Condition::Path(_) => None,
        }
    }
}

/// Steps that do `bootstrap` and then `inside`, with the image's mounts in place where a program of
/// it runs. A bootstrap makes the tree from outside, so it is not there for anything else.
pub(super) fn in_order(bootstrap: Vec<Action>, inside: Vec<Action>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut entered = false;
    let outside = bootstrap.into_iter().map(|action| (action, true));
    let inside = inside.into_iter().map(|action| (action, false));
    for (action, leaves) in outside.chain(inside) {
        let needs = action.is_inside();
        if needs && !entered {
            steps.push(Step::Enter);
            entered = true;
        } else if !needs && entered && leaves {
            steps.push(Step::Leave);
            entered = false;
        }
        steps.push(Step::Apply { action });
    }
    if entered {
        steps.push(Step::Leave);
    }
    steps
}

impl Known {
    fn ensure_plain(&self) -> Result<()> {
        let names = [&self.release, &self.distribution];
        names
            .into_iter()
            .flatten()
            .try_for_each(|name| release_name(name))?;
        let words = self.mirror.iter().chain(&self.packages);
        words.into_iter().try_for_each(|word| plain_word(word))
    }

    fn fill(&self, hole: Hole) -> Fill {
        let words = |word: &Option<String>| Fill::Words(word.iter().cloned().collect());
        match hole {
            Hole::Release => words(&self.release),
            Hole::Distribution => words(&self.distribution),
            Hole::Mirror => words(&self.mirror),
            Hole::Packages => Fill::Words(self.packages.clone()),
            Hole::Current if self.current.is_some() => words(&self.current),
            Hole::Tree | Hole::Kernel | Hole::Current => Fill::Later,
        }
    }
}
