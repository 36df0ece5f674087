//! What is seen of clients while they boot, and whose boot it is.
//!
//! - `line`: one boot, from DHCP to its end
//! - `clients`: the boots of all clients, and what of them is to be written down
//! - `seen`: those of one client
//! - `fetch`: a file on its way to a machine

mod clients;
mod fetch;
mod line;
mod seen;
#[cfg(test)]
mod tests;

pub use clients::{AskedFrom, Boots, Whose};
pub(super) use clients::{Entered, Timelines};
pub use fetch::Fetch;
pub(super) use line::{Initiates, Instead};
pub(super) use seen::ToKeep;
