//! Passwords, compared for whoever tries: few at a time, and not again and again.

use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use tokio::sync::Semaphore;

use super::attempts::{Attempts, Caller};
use crate::daemon::Server;
use crate::library::{self, Library};
use crate::web::{Problem, blocking};

/// Passwords that are hashed at a time: each takes 46 MiB.
const HASHING: usize = 2;

/// Those that may wait for it. More are told to come again.
const WAITING: usize = 16;

/// A door at which people show passwords.
pub(in crate::web) struct Passwords {
    server: Arc<Server>,
    attempts: Attempts,
    hashing: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Passwords {
    pub(in crate::web) fn new(server: Arc<Server>) -> Self {
        Passwords {
            server,
            attempts: Attempts::default(),
            hashing: Arc::new(Semaphore::new(HASHING)),
            waiting: Arc::new(Semaphore::new(WAITING)),
        }
    }

    /// Work that hashes a password for `caller`.
    pub(in crate::web) async fn hashing<T: Send + 'static>(
        &self,
        caller: Caller<'_>,
        work: impl FnOnce(&Library) -> Result<T, library::Error> + Send + 'static,
    ) -> Result<T, Problem> {
        if let Err(wait) = self.attempts.begin(caller, Instant::now()) {
            let seconds = wait.as_secs() + 1;
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                format!("that was wrong too often; wait {seconds} s, then try again"),
            ));
        }
        let busy = || {
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many people try to log in at this moment; try again soon",
            )
        };
        let waits = self.waiting.clone().try_acquire_owned();
        let waits = waits.map_err(|_| busy())?;
        let place = self.hashing.clone().acquire_owned().await;
        let place = place.map_err(|_| busy())?;
        let done = blocking(&self.server, move |server| {
            // The work keeps its places, also when whoever asked for it hangs up.
            let _held = (waits, place);
            work(server.library())
        });
        let done = done.await;
        self.attempts.answered(caller, Instant::now());
        done
    }

    /// What a caller showed last was right.
    pub(in crate::web) fn was_right(&self, caller: Caller<'_>) {
        self.attempts.was_right(caller);
    }
}
