//! The menu of a machine, as iPXE reads it.

use super::{Text, scripts::plain};
use crate::library::manifest::BootStamp;
use crate::library::{ClientName, Library, MacAddr, Menu, MenuItem};

/// A menu, for one machine.
#[derive(Debug, Clone)]
pub struct MenuScript<'a> {
    /// Whose machine it is.
    pub name: &'a ClientName,
    /// The address that the machine told.
    pub mac: &'a MacAddr,
    /// What is offered.
    pub menu: &'a Menu,
    /// What the machine boots as it is assigned, in words.
    pub own: &'a str,
    /// The URL that the boot service is reached by.
    pub base: &'a str,
    /// Whose files lie on the machine's own partition, where it boots from one.
    pub esp: Option<BootStamp>,
}

impl MenuScript<'_> {
    /// The script.
    pub fn script(&self, library: &Library) -> String {
        let items = &self.menu.items;
        let lines: Vec<String> = items.iter().map(|item| self.item(item)).collect();
        let actions: Vec<String> = items.iter().map(|item| self.action(item)).collect();
        let default = label(items.first().unwrap_or(&MenuItem::Own));
        Text::Menu.filled(
            library,
            &[
                ("BASE", self.base),
                ("NAME", self.name.as_str()),
                ("ITEMS", &lines.join("\n")),
                ("DEFAULT", &default),
                ("TIMEOUT", &self.menu.seconds.millis().to_string()),
                ("ACTIONS", &actions.join("\n")),
            ],
        )
    }

    /// A script that boots as it is assigned, and shows the menu if somebody presses a key.
    pub fn behind_a_key(&self, script: &str) -> String {
        let prompt = include_str!("../../esp/key.cfg").replace("@URL@", &self.url("menu=show"));
        let (shebang, rest) = script.split_once('\n').unwrap_or(("#!ipxe", script));
        format!("{shebang}\n{prompt}{rest}")
    }

    fn item(&self, item: &MenuItem) -> String {
        let words = match item {
            MenuItem::Own => plain(self.own),
            MenuItem::Local => "The local disk".to_owned(),
            MenuItem::Shell => "The command line of iPXE".to_owned(),
            MenuItem::Login => "Log in, to boot a disk of your own".to_owned(),
            MenuItem::Image(image) => format!("{image}, this once"),
        };
        format!("item {} {words}", label(item))
    }

    fn action(&self, item: &MenuItem) -> String {
        let chain = |url: String| format!("chain --autofree {url} || goto failed\nexit");
        let does = match item {
            MenuItem::Own => chain(self.url("menu=skip")),
            MenuItem::Local => chain(self.asks("local.ipxe", "")),
            MenuItem::Image(image) => chain(self.url(&format!("image={image}"))),
            MenuItem::Shell => "echo Type `exit` to come back\nshell ||\ngoto menu".to_owned(),
            MenuItem::Login => {
                let url = self.asks("login", "");
                let login = include_str!("../../esp/login.cfg").replace("@URL@", &url);
                return login.trim_end().to_owned();
            }
        };
        format!(":{}\n{does}", label(item))
    }

    /// This machine's boot.cfg, of this kind.
    fn url(&self, which: &str) -> String {
        self.asks("boot.cfg", &format!("&{which}"))
    }

    /// What this machine asks of the boot service, with what it told when it asked for the menu.
    fn asks(&self, what: &str, which: &str) -> String {
        let esp = self.esp.map(|stamp| format!("&esp={stamp}"));
        let (mac, esp) = (self.mac.hyphens(), esp.unwrap_or_default());
        format!("{}/{what}?mac={mac}{which}{esp}", self.base)
    }
}

/// What an item is called in the script. No image has a dot in its name.
fn label(item: &MenuItem) -> String {
    match item {
        MenuItem::Image(image) => format!("image.{image}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::MenuWhen;

    const SCRIPT: &str = "\
#!ipxe
# The menu of one machine: what it offers and how long it waits are settings (menu_items, menu_timeout).
:menu
set at menu
menu netroot: lab-07 || goto local
item local The local disk
item own fc28@3 ?{x}
item image.fc29 fc29, this once
item shell The command line of iPXE
item login Log in, to boot a disk of your own
choose --default local --timeout 10000 chosen || goto local
goto ${chosen}
:local
chain --autofree http://b:8080/local.ipxe?mac=52-54-00-12-34-56 || goto failed
exit
:own
chain --autofree http://b:8080/boot.cfg?mac=52-54-00-12-34-56&menu=skip || goto failed
exit
:image.fc29
chain --autofree http://b:8080/boot.cfg?mac=52-54-00-12-34-56&image=fc29 || goto failed
exit
:shell
echo Type `exit` to come back
shell ||
goto menu
:login
set at login
login || goto menu
params || goto unable
param name ${username} ||
param password ${password} ||
clear username ||
clear password ||
chain --autofree http://b:8080/login?mac=52-54-00-12-34-56##params || goto failed
exit
:unable
echo This iPXE sends no passwords: it was built without PARAM_CMD.
goto failed
:failed
imgfetch --name failed http://b:8080/failed?mac=${netX/mac:hexhyp}&at=${at}&errno=${errno} ||
imgfree ||
sanunhook --drive 0x80 ||
echo That did not work. The menu comes back.
sleep 5
goto menu
";

    fn check(items: &str, test: impl Fn(&MenuScript<'_>, &Library)) {
        let (_dir, library) = Library::temporary();
        let menu = Menu {
            when: MenuWhen::Always,
            items: items.split(' ').map(|item| item.parse().unwrap()).collect(),
            seconds: Default::default(),
        };
        let script = MenuScript {
            name: &"lab-07".parse().unwrap(),
            mac: &"52:54:00:12:34:56".parse().unwrap(),
            menu: &menu,
            own: "fc28@3 ${x}",
            base: "http://b:8080",
            esp: None,
        };
        test(&script, &library);
    }

    #[test]
    fn the_menu_offers_what_is_offered_in_that_order() {
        check("local own fc29 shell login", |menu, library| {
            assert_eq!(menu.script(library), SCRIPT);
        });
    }

    #[test]
    fn what_a_machine_told_goes_along() {
        check("own fc29 login", |menu, library| {
            let esp = Some("0123456789abcdef".parse().unwrap());
            let script = MenuScript {
                esp,
                ..menu.clone()
            }
            .script(library);
            let urls = script
                .split_whitespace()
                .filter_map(|word| word.split_once("?mac="));
            let asked = urls.filter(|(url, _)| !url.ends_with("/failed"));
            let ends: Vec<&str> = asked.map(|(_, end)| end).collect();
            assert_eq!(
                ends,
                [
                    "52-54-00-12-34-56&menu=skip&esp=0123456789abcdef",
                    "52-54-00-12-34-56&image=fc29&esp=0123456789abcdef",
                    "52-54-00-12-34-56&esp=0123456789abcdef##params",
                ]
            );
        });
    }

    #[test]
    fn a_key_leads_from_a_script_to_the_menu() {
        check("own", |menu, _| {
            assert_eq!(
                menu.behind_a_key("#!ipxe\nkernel x\n"),
                "#!ipxe\nprompt --key 0x02 --timeout 2000 Press Ctrl-B for the menu && chain \
                 --autofree http://b:8080/boot.cfg?mac=52-54-00-12-34-56&menu=show && exit ||\n\
                 kernel x\n"
            );
        });
    }
}
