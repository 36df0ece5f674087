//! `netroot user …`

use std::io::{BufRead, Read, stdin};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::command::{Cli, Consent, DryRun, UserAdd};
use super::{ask, open, print};
use crate::daemon::{admin_url, made_fingerprint};
use crate::library::{
    Actor, Config, Invitation, Library, NewUser, Role, TokenView, UserName, UserView,
};

/// Longer lines are no password.
const MAX_LINE: u64 = 64 << 10;

pub(super) fn add(cli: &Cli, args: &UserAdd) -> Result<()> {
    let library = open(cli)?;
    let new = NewUser {
        name: match &args.name {
            Some(name) => name.clone(),
            None => "admin".parse()?,
        },
        role: args.role.unwrap_or(Role::Operator),
    };
    if args.run.dry_run {
        library.check_add_user(&new, args.first)?;
        return match cli.json {
            true => print::json(&new),
            false => print::lines([format!("would add {} as {}", new.name, new.role)]),
        };
    }
    let actor = Actor::command();
    if args.password_stdin {
        // Refused before somebody is made to type a password.
        library.check_add_user(&new, args.first)?;
        let password = password()?;
        let user = library.add_user_with_password(&new, args.first, &password, &actor)?;
        return match cli.json {
            true => print::json(&user),
            false => print::lines([format!("added {} as {}", user.name, user.role)]),
        };
    }
    let invitation = library.add_user(&new, args.first, &actor)?;
    let said = format!("added {} as {}", new.name, new.role);
    invited(cli, &library, said, &invitation)
}

pub(super) fn invite(cli: &Cli, name: &UserName, run: DryRun) -> Result<()> {
    let library = open(cli)?;
    if run.dry_run {
        let user = known(&library, name)?;
        return match cli.json {
            true => print::json(&user),
            false => print::lines([format!("would make a new link for {name}")]),
        };
    }
    let invitation = library.invite_user(name, &Actor::command())?;
    invited(
        cli,
        &library,
        format!("a new link for {name}; older ones are worth nothing any more"),
        &invitation,
    )
}

pub(super) fn list(cli: &Cli) -> Result<()> {
    let users = open(cli)?.users()?;
    let users: Vec<UserView> = users.iter().map(|user| user.view()).collect();
    if cli.json {
        return print::json(&users);
    }
    let mut table = print::Table::new(&["NAME", "ROLE", "PASSWORD", "ADDED BY", "ADDED"]);
    for user in &users {
        table.row([
            user.name.to_string(),
            user.role.to_string(),
            password_state(user),
            user.by.to_string(),
            print::moment(user.added),
        ]);
    }
    table.print("no users; `netroot user add --first` prints a link for the first one")
}

pub(super) fn role(cli: &Cli, name: &UserName, role: Role, consent: Consent) -> Result<()> {
    let library = open(cli)?;
    let actor = Actor::command();
    let tokens = library.check_take_user(name, Some(role), &actor)?;
    if known(&library, name)?.role == role {
        return match cli.json {
            true => print::json(&json!({ "user": name, "role": role, "tokens": [] })),
            false => print::lines([format!("{name} is a {role} already: nothing to do")]),
        };
    }
    let what = format!("make {name} a {role}{}", with_tokens(&tokens));
    if consent.dry_run {
        return told(cli, name, &tokens, format!("would {what}"));
    }
    if !tokens.is_empty() {
        ask::consent(consent, &what)?;
    }
    let taken = library.set_role(name, role, &actor)?;
    told(
        cli,
        name,
        &taken,
        format!("{name} is a {role} now{}", gone(&taken)),
    )
}

pub(super) fn remove(cli: &Cli, name: &UserName, consent: Consent) -> Result<()> {
    let library = open(cli)?;
    let actor = Actor::command();
    let tokens = library.check_take_user(name, None, &actor)?;
    let what = format!("remove user {name}{}", with_tokens(&tokens));
    if consent.dry_run {
        return told(cli, name, &tokens, format!("would {what}"));
    }
    ask::consent(consent, &what)?;
    let taken = library.remove_user(name, &actor)?;
    told(cli, name, &taken, format!("removed {name}{}", gone(&taken)))
}

fn known(library: &Library, name: &UserName) -> Result<UserView> {
    let mut users = library.users()?.into_iter();
    match users.find(|user| user.name == *name) {
        Some(user) => Ok(user.view()),
        None => bail!(
            "there is no user `{name}` in this library; `netroot user list` shows what there is"
        ),
    }
}

fn told(cli: &Cli, name: &UserName, tokens: &[TokenView], said: String) -> Result<()> {
    match cli.json {
        true => print::json(&json!({ "user": name, "tokens": tokens })),
        false => print::lines([said]),
    }
}

fn names(tokens: &[TokenView]) -> String {
    let names: Vec<_> = tokens.iter().map(|token| token.name.as_str()).collect();
    names.join(", ")
}

fn with_tokens(tokens: &[TokenView]) -> String {
    match tokens {
        [] => String::new(),
        tokens => format!(
            ": programs that show these tokens of theirs are not let in any more: {}",
            names(tokens)
        ),
    }
}

fn gone(tokens: &[TokenView]) -> String {
    match tokens {
        [] => String::new(),
        tokens => format!("; their tokens are taken back: {}", names(tokens)),
    }
}

fn password_state(user: &UserView) -> String {
    match (user.has_password, user.invited_until) {
        (true, None) => "chosen".to_owned(),
        (true, Some(until)) => format!("chosen; new link until {}", print::moment(until)),
        (false, Some(until)) => format!("link until {}", print::moment(until)),
        (false, None) => "none, and the link is too old: netroot user invite".to_owned(),
    }
}

fn invited(cli: &Cli, library: &Library, said: String, invitation: &Invitation) -> Result<()> {
    let link = link(&library.config(), &invitation.key)?;
    if cli.json {
        return print::json(&json!({
            "user": invitation.user,
            "link": link,
            "until": invitation.until,
        }));
    }
    let mut lines = vec![
        said,
        format!("until {}, once:", print::moment(invitation.until)),
        format!("  {link}"),
    ];
    lines.extend(from_elsewhere(&library.config()));
    lines.extend(made_fingerprint(library).map(|fingerprint| {
        format!(
            "the browser asks about the server's own certificate; its SHA-256 is\n  {fingerprint}"
        )
    }));
    print::lines(lines)
}

fn link(config: &Config, key: &str) -> Result<String> {
    let Some(url) = admin_url(config) else {
        bail!(
            "the dashboard listens nowhere ([admin] listen in netroot.toml is empty), so there is no \
             link; the user can have a password by --password-stdin"
        );
    };
    Ok(format!("{url}/welcome?key={key}"))
}

/// How a browser on another machine gets to a dashboard that only this host can reach.
fn from_elsewhere(config: &Config) -> Option<String> {
    let address = config.admin.listen.first()?;
    address.ip().is_loopback().then(|| {
        format!(
            "from another machine: first ssh -L {port}:{address} {host}",
            port = address.port(),
            host = config.host
        )
    })
}

fn password() -> Result<String> {
    let mut line = String::new();
    std::io::BufReader::new(stdin().lock().take(MAX_LINE))
        .read_line(&mut line)
        .context("reading the password from standard input")?;
    let password = line.strip_suffix('\n').unwrap_or(&line);
    Ok(password.strip_suffix('\r').unwrap_or(password).to_owned())
}
