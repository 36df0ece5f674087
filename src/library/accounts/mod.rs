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

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

pub use tokens::{Lifetime, NewToken, Revealed, Token, TokenView};
pub use users::{Invitation, NewUser, User, UserView};

use super::error::{Doing, Result};
use super::{Library, document, owner};

impl Library {
    /// A library that was made before there were users gets their directories with the first one.
    fn make_private_dir(&self, dir: &Path) -> Result<()> {
        let made = owner::acting_for(self.root(), || {
            fs::DirBuilder::new().mode(0o700).create(dir)
        });
        match made {
            Ok(()) => document::sync_dir(self.root()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error).doing("creating", dir),
        }
    }
}
