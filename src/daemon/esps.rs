//! What clients told of their own EFI system partitions when they asked last: whose kernel and
//! initramfs lie there. Kept in memory: after a restart of the server each tells it at its next boot.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{AskedFrom, Server};
use crate::library::manifest::BootStamp;
use crate::library::{ClientView, MacAddr, OwnEsp};

/// By client, so it is as long as the room at most.
#[derive(Debug, Default)]
pub(super) struct Esps(
    // Held for a look or a change in memory.
    Mutex<HashMap<MacAddr, BootStamp>>,
);

impl Server {
    /// Somebody who says that he is a client has told whose files lie on its partition. He is believed
    /// where he is known to be the client, or boots as it already.
    pub fn saw_esp(&self, client: MacAddr, stamp: BootStamp, from: AskedFrom) {
        if !self.watch.timelines().is_booting(&client, from) {
            return;
        }
        let mut esps = self.esps.0.lock().unwrap_or_else(PoisonError::into_inner);
        if esps.insert(client, stamp) != Some(stamp) {
            drop(esps);
            self.nudge();
        }
    }

    /// Notes with a client whether its partition has the files of the version that its next boot gets.
    pub(super) fn refine_esp(&self, view: &mut ClientView) {
        let stamp = {
            let esps = self.esps.0.lock().unwrap_or_else(PoisonError::into_inner);
            esps.get(&view.client.mac).copied()
        };
        let (Some(stamp), Some(next)) = (stamp, &view.boots) else {
            return;
        };
        // A version that cannot be read is told of elsewhere.
        let Ok(version) = self.library.version(next) else {
            return;
        };
        view.esp = version
            .manifest()
            .boot
            .stamp()
            .map(|wanted| match wanted == stamp {
                true => OwnEsp::Fresh,
                false => OwnEsp::Stale,
            });
    }
}
