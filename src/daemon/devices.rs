//! Devices that are in use: all sessions of a disk share one, so that its unit attentions reach them
//! all and an overlay's map has one owner.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::library::Result;
use crate::scsi::Device;

/// Devices by the identity of their disk.
#[derive(Default)]
pub(super) struct Devices {
    // Held while a disk is opened: two sessions of one clone must not open it twice. Opening reads a
    // few kilobytes.
    open: Mutex<HashMap<String, Weak<Device>>>,
}

impl Devices {
    /// The device of the disk that `key` names, opened by `open` if nobody uses it.
    pub(super) fn get(
        &self,
        key: &str,
        open: impl FnOnce() -> Result<Device>,
    ) -> Result<Arc<Device>> {
        let mut devices = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = devices.get(key).and_then(Weak::upgrade) {
            return Ok(device);
        }
        devices.retain(|_, device| device.strong_count() > 0);
        let device = Arc::new(open()?);
        devices.insert(key.to_owned(), Arc::downgrade(&device));
        Ok(device)
    }
}
