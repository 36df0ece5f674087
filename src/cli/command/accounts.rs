//! `netroot user …` and `netroot token …`

use clap::{Args, Subcommand};

use super::{Consent, DryRun};
use crate::library::{Lifetime, Role, TokenName, UserName};

/// `netroot user …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum User {
    /// Add a user, and print the link by which they choose a password
    Add(UserAdd),
    /// Print a new link for a user, who forgot the password or let the first link expire
    Invite {
        /// Their name
        name: UserName,
        #[command(flatten)]
        run: DryRun,
    },
    /// List users
    List,
    /// Give a user another role
    Role {
        /// Their name
        name: UserName,
        /// viewer: looks at everything; operator: changes everything, too
        role: Role,
        #[command(flatten)]
        consent: Consent,
    },
    /// Remove a user; what they are logged in to ends, and tokens they made go
    Remove {
        /// Their name
        name: UserName,
        #[command(flatten)]
        consent: Consent,
    },
}

/// `netroot user add`
#[derive(Debug, Args)]
#[command(
    after_help = "The link holds for 24 hours, and once. Whoever has it becomes that user: send it to \
    nobody else."
)]
pub(in crate::cli) struct UserAdd {
    /// What they are called [default with --first: admin]
    #[arg(required_unless_present = "first")]
    pub name: Option<UserName>,
    /// viewer: looks at everything; operator: changes everything, too [default with --first: operator]
    #[arg(
        long,
        short,
        value_name = "viewer|operator",
        required_unless_present = "first"
    )]
    pub role: Option<Role>,
    /// The first user: refused where there is one already
    #[arg(long)]
    pub first: bool,
    /// Read the password from the first line of standard input, in place of a link
    #[arg(long)]
    pub password_stdin: bool,
    #[command(flatten)]
    pub run: DryRun,
}

/// `netroot token …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Token {
    /// Make a token by which a program may use the API, and print its secret, which is not kept
    Add(TokenAdd),
    /// List tokens
    List,
    /// Take a token back
    Remove {
        /// Its name
        name: TokenName,
        #[command(flatten)]
        consent: Consent,
    },
}

/// `netroot token add`
#[derive(Debug, Args)]
pub(in crate::cli) struct TokenAdd {
    /// What the program is called
    pub name: TokenName,
    /// viewer: looks at everything; operator: changes everything, too
    #[arg(long, short, value_name = "viewer|operator")]
    pub role: Role,
    /// How long it holds: 90d, 12h, or never
    #[arg(long, value_name = "TIME", default_value_t = Lifetime::default())]
    pub expires: Lifetime,
    #[command(flatten)]
    pub run: DryRun,
}
