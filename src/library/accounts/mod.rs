//! Who may come in over the network: users, who are people with a password, and tokens, which
//! programs show.
//!
//! Nothing here could be used by whoever reads it: passwords are kept as argon2id hashes, links and
//! tokens, which are random enough, as SHA-256. What a document says counts from the next request on.
//!
//! - `users`: who they are; the links by which they choose their passwords
//! - `rights`: what they may do, and who is none any more
//! - `tokens`: what programs show, and until when
//! - `password`, `secret`: how both are hashed and compared

mod password;
mod rights;
mod secret;
mod tokens;
mod users;

pub use tokens::{Lifetime, NewToken, Revealed, Token, TokenView};
pub use users::{Invitation, NewUser, User, UserView};
