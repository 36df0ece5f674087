//! Another version becomes current: back to an older one, or forward again.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::followers::{Followed, followed};
use crate::library::Library;
use crate::library::error::{Error, Result};
use crate::library::events::{Actor, Event};
use crate::library::names::{ImageName, VersionId, VersionSpec};

/// What a move of `current` does, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rollback {
    /// The image.
    pub image: ImageName,
    /// What was current.
    pub from: Option<VersionId>,
    /// What is current afterwards.
    pub to: VersionId,
    /// What becomes of the clients that follow the image.
    pub clients: Vec<Followed>,
}

impl Rollback {
    /// Whether nothing moves.
    pub fn is_nothing(&self) -> bool {
        self.from.as_ref() == Some(&self.to)
    }
}

impl Library {
    /// What [`roll_back`](Self::roll_back) would do.
    pub fn plan_rollback(&self, spec: &VersionSpec) -> Result<Rollback> {
        let image = self.image(&spec.image)?;
        let from = image.current.map(|number| image.id(number));
        let to = match spec.number {
            Some(_) => self.resolve(spec)?.id().clone(),
            None => self.previous(&spec.image)?,
        };
        self.ensure_may_be_current(&to)?;
        let mut clients = Vec::new();
        for client in self.clients()? {
            clients.extend(followed(&client, &to)?);
        }
        Ok(Rollback {
            image: spec.image.clone(),
            from,
            to,
            clients,
        })
    }

    /// Makes the version that is named current; where none is named, the one that the current version
    /// was made from, or else the one before it. No disk changes: clients get it at their next boot,
    /// and clones stay what they are (rule 5).
    pub fn roll_back(&self, spec: &VersionSpec, actor: &Actor) -> Result<Rollback> {
        self.roll_back_on(spec, None, actor)
    }

    /// The same, unless another version is current than when somebody looked.
    pub fn roll_back_on(
        &self,
        spec: &VersionSpec,
        current: Option<u32>,
        actor: &Actor,
    ) -> Result<Rollback> {
        let plan = self.plan_rollback(spec)?;
        let found = plan.from.as_ref().map(|from| from.number);
        if current.is_some() && current != found {
            return Err(Error::Moved {
                kind: "image",
                name: spec.image.to_string(),
            });
        }
        if plan.is_nothing() {
            return Ok(plan);
        }
        let lock = self.write_lock()?;
        // Somebody may have sealed or removed a version since: then it is not what was asked about.
        let now = self.plan_rollback(spec)?;
        if (&now.from, &now.to) != (&plan.from, &plan.to) {
            return Err(Error::refused(
                format!("rolling {} back", plan.image),
                "its versions have changed meanwhile",
                "look at them with `netroot image show`, and repeat it",
            ));
        }
        self.make_current(&lock, &plan.to)?;
        drop(lock);
        let event = Event::new(actor, "image-rollback").of_version(&plan.to);
        self.note(&match &plan.from {
            Some(from) => event.with("from", from.to_string()),
            None => event,
        });
        Ok(plan)
    }

    /// The version before the current one: its parent, or the one of the next lower number where the
    /// parent is of another image or gone.
    pub fn previous(&self, image: &ImageName) -> Result<VersionId> {
        let current = self.resolve(&image.clone().into())?;
        let image = self.image(image)?;
        let parent = current.manifest().facts.parent.clone();
        if let Some(parent) = parent
            && parent.image == image.name
            && image.versions.contains(&parent.number)
        {
            return Ok(parent);
        }
        let below = image.versions.iter().rev();
        let before = below.copied().find(|number| *number < current.id().number);
        before.map(|number| image.id(number)).ok_or_else(|| {
            Error::refused(
                format!("going back from {}", current.id()),
                "there is no version before it",
                format!(
                    "name another one; `netroot image show {}` shows what there is",
                    image.name
                ),
            )
        })
    }
}
