//! What an act on a volume would do, for whoever wants to know first.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::library::NoServer;
use crate::library::names::VolumeName;

/// What would be done. Whatever the act itself would refuse was refused before there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumePlan {
    /// The volume.
    pub volume: VolumeName,
    /// In a few words: `add`, `grow to 20 GiB`.
    pub would: String,
    /// Step by step.
    pub steps: Vec<String>,
    /// What is lost by it for ever.
    pub loses: Option<String>,
}

/// Whoever publishes the volumes: asked for their sessions, and told when documents have changed.
pub trait Publisher: Send + Sync {
    /// How many sessions the target of this name has.
    fn sessions_of(&self, target: &str) -> usize;

    /// Publishes what the documents say, and returns when sessions that are not allowed any more have
    /// ended. What cannot be opened is no failure of whoever changed a document; it is told with the
    /// volume.
    fn follow(&self);
}

impl Publisher for NoServer {
    fn sessions_of(&self, _: &str) -> usize {
        0
    }

    fn follow(&self) {}
}
