//! What a client's machine offers to who stands before it.

use super::asker::{Call, MenuAsked};
use crate::boot::MenuScript;
use crate::daemon::Server;
use crate::library::{Client, Error, Menu, MenuItem, MenuWhen};

/// Whether the menu is shown, beside what the machine boots as it is assigned.
pub(super) enum Shown {
    /// It is not.
    No,
    /// It is, if somebody presses a key.
    BehindKey(Menu),
    /// It is, in place of anything else.
    Instead(Menu),
}

impl Shown {
    /// What is due for a client that asks so.
    pub(super) fn to(server: &Server, call: &Call, client: &Client) -> Result<Shown, Error> {
        let mut menu = server.library().menu(client)?;
        if !super::login::is_offered(server, call) {
            menu.items.retain(|item| *item != MenuItem::Login);
        }
        Ok(match (menu.when, call.asker.menu) {
            (MenuWhen::Off, _) | (_, Some(MenuAsked::Skip)) => Shown::No,
            (MenuWhen::Always, None) | (_, Some(MenuAsked::Show)) => Shown::Instead(menu),
            (MenuWhen::Key, None) => Shown::BehindKey(menu),
        })
    }
}

/// The menu itself.
pub(super) fn script(server: &Server, call: &Call, client: &Client, menu: &Menu) -> String {
    let library = server.library();
    // Whoever chooses what cannot be booted is told why then.
    let own = match library.issue_boot(client) {
        Ok(ticket) => format!("{} in mode {}", ticket.version, ticket.mode),
        Err(_) => format!("{} in mode {}", client.image, client.mode),
    };
    drawn(call, client, menu, &own).script(library)
}

/// What it boots as it is assigned, with the menu behind a key.
pub(super) fn behind_a_key(call: &Call, client: &Client, menu: &Menu, cfg: &str) -> String {
    drawn(call, client, menu, "").behind_a_key(cfg)
}

fn drawn<'a>(call: &'a Call, client: &'a Client, menu: &'a Menu, own: &'a str) -> MenuScript<'a> {
    MenuScript {
        name: &client.name,
        mac: &call.asker.mac,
        menu,
        own,
        base: &call.base,
        esp: call.asker.esp,
    }
}
