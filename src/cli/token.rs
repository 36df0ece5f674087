//! `netroot token …`

use anyhow::{Result, bail};

use super::command::{Cli, Consent, TokenAdd};
use super::{ask, open, print};
use crate::library::{Actor, NewToken, TokenName, TokenView};

pub(super) fn add(cli: &Cli, args: &TokenAdd) -> Result<()> {
    let library = open(cli)?;
    let new = NewToken {
        name: args.name.clone(),
        role: args.role,
        expires: args.expires,
    };
    if args.run.dry_run {
        library.check_add_token(&new)?;
        return match cli.json {
            true => print::json(&new),
            false => print::lines([format!("would make the token {} ({})", new.name, new.role)]),
        };
    }
    let revealed = library.add_token(&new, &Actor::command())?;
    if cli.json {
        return print::json(&revealed);
    }
    // Its secret alone on standard output: `TOKEN=$(netroot token add …)`.
    print::aside(&format!(
        "token {} ({}), {}; its secret is shown this once:",
        revealed.token.name,
        revealed.token.role,
        holds(&revealed.token)
    ));
    print::lines([revealed.secret])
}

pub(super) fn list(cli: &Cli) -> Result<()> {
    let tokens = open(cli)?.tokens()?;
    if cli.json {
        return print::json(&tokens);
    }
    let mut table = print::Table::new(&["NAME", "ROLE", "HOLDS", "LAST USED", "MADE BY", "MADE"]);
    for token in &tokens {
        table.row([
            token.name.to_string(),
            token.role.to_string(),
            holds(token),
            token
                .last_used
                .map(|day| day.to_string())
                .unwrap_or_default(),
            token.by.to_string(),
            print::moment(token.added),
        ]);
    }
    table.print("no tokens; `netroot token add NAME --role viewer` makes one")
}

pub(super) fn remove(cli: &Cli, name: &TokenName, consent: Consent) -> Result<()> {
    let library = open(cli)?;
    let Some(token) = library
        .tokens()?
        .into_iter()
        .find(|token| token.name == *name)
    else {
        bail!(
            "there is no token `{name}` in this library; `netroot token list` shows what there is"
        );
    };
    if consent.dry_run {
        return match cli.json {
            true => print::json(&token),
            false => print::lines([format!("would take the token {name} back")]),
        };
    }
    let what =
        format!("take the token {name} back: the program that shows it is not let in any more");
    ask::consent(consent, &what)?;
    let token = library.remove_token(name, &Actor::command())?;
    match cli.json {
        true => print::json(&token),
        false => print::lines([format!("took the token {name} back")]),
    }
}

fn holds(token: &TokenView) -> String {
    match token.until {
        None => "for ever".to_owned(),
        Some(until) if token.is_over() => format!("over since {}", print::moment(until)),
        Some(until) => format!("until {}", print::moment(until)),
    }
}
