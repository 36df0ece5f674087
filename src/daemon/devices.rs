//! Devices that are in use: all sessions of a disk share one, so that its unit attentions reach them
//! all and an overlay's map has one owner. A clone that took another's place is another disk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::library::{GrantedDisk, Result};
use crate::scsi::Device;

/// Devices by their disk.
#[derive(Default)]
pub(super) struct Devices {
    // Held while a disk is opened: two sessions of one clone must not open it twice. Opening reads a
    // few kilobytes.
    open: Mutex<HashMap<GrantedDisk, Weak<Device>>>,
}

impl Devices {
    /// The device of `disk`, opened by `open` if nobody uses it.
    pub(super) fn get(
        &self,
        disk: &GrantedDisk,
        open: impl FnOnce() -> Result<Device>,
    ) -> Result<Arc<Device>> {
        let mut devices = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(device) = devices.get(disk).and_then(Weak::upgrade) {
            return Ok(device);
        }
        devices.retain(|_, device| device.strong_count() > 0);
        let device = Arc::new(open()?);
        devices.insert(disk.clone(), Arc::downgrade(&device));
        Ok(device)
    }
}
