//! What is still to be written down about sessions that are over.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Tasks that a session leaves behind, which the server waits for at its end.
pub(super) struct Notes {
    runtime: Handle,
    // Held for a look or a change of the set, never across an await.
    tasks: Mutex<JoinSet<()>>,
}

impl Notes {
    /// Nothing is left to be written.
    pub(super) fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            tasks: Mutex::default(),
        }
    }

    /// Begins a note. May be called from any thread.
    pub(super) fn spawn(&self, note: impl Future<Output = ()> + Send + 'static) {
        // Each change is one call of the set, so a panic elsewhere cannot leave it half-changed.
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(note, &self.runtime);
    }

    /// Waits until all that were begun are written.
    pub(super) async fn written(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.join_all().await;
    }
}
