//! What a server does without anybody asking: it sees to quotas, and removes what was kept long enough.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

use super::Server;
use super::targets::told;
use crate::block::Quota;
use crate::library::{Actor, ByteSize, Event, MacAddr, Result};

/// How often quotas are looked at: a setting of a group, or one that was edited by hand, holds as soon.
const QUOTAS: Duration = Duration::from_secs(5);

/// How often disks are looked for whose time is over.
const EXPIRY: Duration = Duration::from_secs(10 * 60);

/// How often certificates are read anew.
const CERTIFICATES: Duration = Duration::from_secs(60 * 60);

/// Whoever has taken so many hundredths of his quota is told of; and told of again only after it was
/// less than the second number in between.
const NEAR: (u64, u64) = (90, 80);

/// What was told of already.
#[derive(Debug, Default)]
pub(super) struct House {
    // Held for a look or a change of the map.
    told: Mutex<HashMap<MacAddr, Level>>,
}

/// How much of a quota is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Near,
    Full,
}

impl Server {
    /// Does what is due, for ever.
    pub(super) async fn keep_house(self: Arc<Self>) {
        let mut ticks = interval(QUOTAS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut expired: Option<Instant> = None;
        let mut renewed = Instant::now();
        loop {
            ticks.tick().await;
            self.call(|server| server.see_to_quotas()).await;
            if expired.is_none_or(|last| last.elapsed() >= EXPIRY) {
                expired = Some(Instant::now());
                self.call(|server| server.expire(Timestamp::now())).await;
            }
            if renewed.elapsed() >= CERTIFICATES {
                renewed = Instant::now();
                let warned = self.call(|server| server.renew_certificates()).await;
                for warning in warned.unwrap_or_default() {
                    tracing::warn!("{warning}");
                }
            }
        }
    }

    fn expire(&self, now: Timestamp) {
        match self.library.expire(now) {
            Ok(swept) => {
                for one in &swept {
                    tracing::info!("{one}");
                }
                if !swept.is_empty() {
                    self.nudge();
                }
            }
            Err(error) => {
                tracing::error!(
                    error = told(&error),
                    "cannot remove what was kept long enough"
                );
            }
        }
    }

    /// Holds each clone that is in use to the quota that its client has by now, and tells of those who
    /// have taken most of theirs.
    pub(super) fn see_to_quotas(&self) {
        let quotas = self.devices.quotas();
        self.house.forget_all_but(&quotas);
        for (mac, quota) in quotas {
            if let Some(quota) = quota
                && let Err(error) = self.see_to(&mac, &quota)
            {
                tracing::error!(client = %mac, error = told(&error), "cannot see to a quota");
            }
        }
    }

    fn see_to(&self, mac: &MacAddr, quota: &Quota) -> Result<()> {
        let client = self.library.client(mac)?;
        let limit = self.library.settings(&client)?.quota().map(ByteSize::bytes);
        if quota.limit() != limit {
            quota.set(limit);
        }
        let (Some(limit), Some(tally)) = (limit, quota.tally()) else {
            return Ok(());
        };
        // The tally is never too low, so what it clears needs no closer look.
        let is_full = quota.is_full();
        let held = match is_full || hundredths(tally, limit) >= NEAR.0 {
            true => self.library.own_bytes(mac)?.unwrap_or(tally),
            false => tally,
        };
        if let Some(level) = self.house.news(mac, hundredths(held, limit), is_full) {
            let what = match level {
                Level::Near => "quota-near",
                Level::Full => "quota-full",
            };
            let event = Event::new(&Actor::Server, what).of(mac);
            self.library
                .note(&event.with("held", held).with("quota", limit));
            self.nudge();
        }
        Ok(())
    }
}

impl House {
    /// What is to be told of a client, if it was not before.
    fn news(&self, mac: &MacAddr, hundredths: u64, is_full: bool) -> Option<Level> {
        let level = match hundredths {
            _ if is_full => Some(Level::Full),
            taken if taken >= NEAR.0 => Some(Level::Near),
            _ => None,
        };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match (level, told.get(mac).copied()) {
            (Some(level), before) if Some(level) > before => {
                told.insert(*mac, level);
                Some(level)
            }
            (None, Some(_)) if hundredths < NEAR.1 => {
                told.remove(mac);
                None
            }
            _ => None,
        }
    }

    /// Forgets who has no disk in use. One that cannot be looked at just now is.
    fn forget_all_but(&self, quotas: &[(MacAddr, Option<Arc<Quota>>)]) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|mac, _| quotas.iter().any(|(one, _)| one == mac));
    }
}

/// How much of a quota is taken.
fn hundredths(held: u64, limit: u64) -> u64 {
    let share = u128::from(held) * 100 / u128::from(limit.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_told_of_when_it_is_reached_and_not_again_while_it_is() {
        let house = House::default();
        let mac: MacAddr = "52:54:00:12:34:56".parse().unwrap();
        let news = |taken, full| house.news(&mac, taken, full);
        assert_eq!(news(50, false), None);
        assert_eq!(news(90, false), Some(Level::Near));
        assert_eq!(news(95, false), None);
        assert_eq!(news(100, true), Some(Level::Full));
        assert_eq!(news(100, true), None);
        assert_eq!(news(85, false), None);
        assert_eq!(news(91, false), None, "it was not much less in between");
        assert_eq!(news(70, false), None);
        assert_eq!(news(92, false), Some(Level::Near));
        house.forget_all_but(&[(mac, None)]);
        assert_eq!(news(92, false), None, "its disk is there, and looked at");
        house.forget_all_but(&[]);
        assert_eq!(news(92, false), Some(Level::Near));
    }
}
