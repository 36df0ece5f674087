//! Persistent reservations are kept in the library.

use std::io;

use crate::library::KeptReservations;
use crate::scsi::ReservationStore;

impl ReservationStore for KeptReservations {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        KeptReservations::load(self).map_err(io::Error::other)
    }

    fn save(&self, state: &[u8]) -> io::Result<()> {
        KeptReservations::save(self, state).map_err(io::Error::other)
    }
}
