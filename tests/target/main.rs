//! The target as initiators see it: a server in this process, peers over TCP.
//!
//! `tools` runs other people's initiators, `hostile` is what nobody should send, and `sessions` is the
//! life of sessions: discovery, logins anew, kicks and the shutdown.

mod hostile;
mod peer;
mod server;
mod sessions;
mod tools;
