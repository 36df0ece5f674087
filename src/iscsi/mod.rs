//! The iSCSI target: PDUs in, PDUs out, between a socket and a [`scsi::Device`](crate::scsi::Device).
//!
//! [`wire`] is bytes: it does no I/O and keeps no state. [`login`] and [`session`] are state
//! machines: a PDU in, actions out. Only [`connection`] and [`server`] know sockets and time. What a
//! target is, and who may see it, is asked of a [`Directory`]. The standard is RFC 7143.

pub use self::directory::{BoxFuture, Directory, End, Guard, Initiator, Opened, Refusal};
pub use self::names::{InvalidName, IscsiName, Isid};
pub use self::server::{Limits, ServerConfig, serve};
pub use self::sessions::{Counters, Parameters, SessionControl, SessionInfo, Sessions};

mod connection;
mod directory;
mod frame;
mod keys;
mod link;
mod login;
mod names;
mod output;
mod pdu;
mod runner;
mod server;
mod session;
mod sessions;
pub mod wire;
