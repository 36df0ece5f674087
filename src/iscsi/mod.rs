//! The iSCSI target: PDUs in, PDUs out, between a socket and a [`scsi::Device`](crate::scsi::Device).
//!
//! [`wire`] is bytes: it does no I/O and keeps no state. `keys` is the table of what is negotiated;
//! `login` (with `chap`) and `session` are state machines: a PDU in, actions out. Sockets and time are for
//! `server` (accepts at its `portals`, as far as there is `room`, and notes who only `knocks`), `connection`
//! (one connection's life; who guesses secrets waits for his `failures`), `runner` (carries out a session's
//! actions, on one of the `threads`, which it keeps `awake` where that pays, as far as its peer keeps up by
//! its `progress` and there is `memory`), `link`, `frame` and `output` (bytes to PDUs and back).
//! What a target is, and who may see it, is asked of a [`Directory`]. The standard is RFC 7143.
//!
//! A session has one connection (MaxConnections=1) and error recovery level 0. More connections of one
//! session share one command order, which costs a lock between them for each command, and what they
//! are good for, several paths and more speed, initiators get from several sessions (multipath). The
//! higher levels repair single PDUs and connections without a new login; none of the initiators that
//! boot by this target asks for them, a new login takes milliseconds, and code that runs only after
//! bit errors that TCP has missed is code that nobody sees at work. With one connection, whoever would
//! reinstate a connection reinstates the session (§6.3.4, §6.3.5).
//!
//! How long a peer may take ([`Limits`]): so long for a login, and for a discovery session; as a session,
//! so long for some of the data that wait for it, that it was asked for, or whose PDU has begun. Then its
//! connection is closed. Text that never goes on, and commands whose turn never comes, hold little and
//! wait. A session that owes nothing may be silent for ever: TCP's keep-alive tells whether its peer's
//! system is there. Whether the initiator is, pings tell (NOP-In), for those that ping themselves, and
//! where the server knows that it is a system's and asks; iPXE and OVMF do not, and would not answer.
//!
//! What initiators are told unasked (§11.9): to log out, at shutdown, and that their session is dropped,
//! whenever it ends from this side. Changes of units are told by unit attentions alone: asynchronous
//! events of SCSI (code 0) need what INQUIRY has no bit for any more (SPC-3), and firmware fails a command
//! when such a message comes in its midst.

pub use self::chap::{Credential, InvalidCredential};
pub use self::directory::{
    Authentication, BoxFuture, Directory, End, Guard, Initiator, Opened, Refusal,
};
pub use self::knocks::{Knocked, Knocks, Origin};
pub use self::link::canonical;
pub use self::names::{InvalidName, IscsiName, Isid};
pub use self::portals::Portals;
pub use self::server::{Limits, ServerConfig, serve, serve_at};
pub use self::sessions::{Counters, Parameters, SessionControl, SessionInfo, Sessions};
pub use self::totals::{Histogram, Refused, Totals};

mod awake;
mod chap;
mod connection;
mod directory;
mod failures;
mod frame;
mod keys;
mod knocks;
mod link;
mod login;
mod memory;
mod names;
mod output;
mod pdu;
mod portals;
mod progress;
mod room;
mod runner;
mod server;
mod session;
mod sessions;
mod threads;
mod totals;
pub mod wire;
