//! The settings one by one: what their fields are called, how they are read and written.

use crate::library::{
    ChapBy, MenuItem, MenuWhen, SaidBy, Settings, SettingsEdit, SshKey, Switch, Way,
};
use crate::web::pages::act::{given, parsed, words};

/// One of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    Way,
    Menu,
    MenuItems,
    MenuTimeout,
    Identity,
    AuthorizedKeys,
    Chap,
    Mutual,
    Quota,
    Size,
    Data,
    KeepDiscarded,
}

/// All of them, as people look for them.
pub(super) const PARTS: [(&str, &[Setting]); 3] = [
    (
        "Booting",
        &[
            Setting::Way,
            Setting::Menu,
            Setting::MenuItems,
            Setting::MenuTimeout,
        ],
    ),
    (
        "Identity and proof",
        &[
            Setting::Identity,
            Setting::AuthorizedKeys,
            Setting::Chap,
            Setting::Mutual,
        ],
    ),
    (
        "Disks",
        &[
            Setting::Quota,
            Setting::Size,
            Setting::Data,
            Setting::KeepDiscarded,
        ],
    ),
];

/// How a field is filled in.
pub(super) enum Kind {
    /// One of these words is chosen, each with what it means.
    Choice(Vec<(String, &'static str)>),
    /// A line is written.
    Line,
    /// Lines are.
    Lines,
}

/// For an empty list of keys, and sizes that are none: an empty field says nothing.
const NONE: &str = "none";

impl Setting {
    /// Whether he says it: of an image the way is said, and nothing else.
    pub(super) fn is_of(self, by: Option<&SaidBy>) -> bool {
        match by {
            Some(SaidBy::Image(_)) => self == Setting::Way,
            _ => true,
        }
    }

    pub(super) fn all() -> impl Iterator<Item = Setting> {
        PARTS
            .iter()
            .flat_map(|(_, settings)| settings.iter().copied())
    }

    /// What its field is called for programs: as in documents.
    pub(super) fn name(self) -> &'static str {
        match self {
            Setting::Way => "way",
            Setting::Menu => "menu",
            Setting::MenuItems => "menu_items",
            Setting::MenuTimeout => "menu_timeout",
            Setting::Identity => "identity",
            Setting::AuthorizedKeys => "authorized_keys",
            Setting::Chap => "chap",
            Setting::Mutual => "mutual",
            Setting::Quota => "quota",
            Setting::Size => "size",
            Setting::Data => "data",
            Setting::KeepDiscarded => "keep_discarded",
        }
    }

    /// And for people.
    pub(super) fn label(self) -> &'static str {
        match self {
            Setting::Way => "Way to boot",
            Setting::Menu => "Menu",
            Setting::MenuItems => "The menu offers",
            Setting::MenuTimeout => "The menu waits",
            Setting::Identity => "Own identity",
            Setting::AuthorizedKeys => "SSH keys of root",
            Setting::Chap => "CHAP",
            Setting::Mutual => "Mutual CHAP",
            Setting::Quota => "Quota",
            Setting::Size => "Size of new disks",
            Setting::Data => "Data disk",
            Setting::KeepDiscarded => "Old disks are kept",
        }
    }

    /// What else has to be known to fill it in.
    pub(super) fn hint(self) -> &'static str {
        match self {
            Setting::Way => "How kernel and root disk are got.",
            Setting::Menu => "Whether the machine offers a choice when it boots.",
            Setting::MenuItems => {
                "own, local, login, shell or names of images, with spaces between them. The first is taken \
                 where nobody chooses."
            }
            Setting::MenuTimeout => "So many seconds, such as 10.",
            Setting::Identity => "Host name, machine-id and SSH host keys.",
            Setting::AuthorizedKeys => {
                "Public keys that may log in as root, a line each. The word none is for nobody."
            }
            Setting::Chap => {
                "Where each boot is given the secret that it proves at its login. All users of a client can \
                 read its kernel line."
            }
            Setting::Mutual => "Whether the target proves a secret in return.",
            Setting::Quota => {
                "How much the disk may hold beyond the version, such as 20G. The word none is for no limit, \
                 whatever is inherited."
            }
            Setting::Size => {
                "How large the next disk is at least that is made, as by a reset; such as 40G. The one in place \
                 is enlarged on its client's page."
            }
            Setting::Data => {
                "A second disk of this size, such as 20G, which stays over resets and upgrades. It only grows. \
                 The word none is for no such disk, whatever is inherited."
            }
            Setting::KeepDiscarded => "After a reset or an assignment: 14d, 12h or never to go.",
        }
    }

    pub(super) fn kind(self) -> Kind {
        fn choice<T: ToString>(of: &[T], means: impl Fn(&T) -> &'static str) -> Kind {
            let told = of.iter().map(|one| (one.to_string(), means(one)));
            Kind::Choice(told.collect())
        }
        let switch = |on, off| {
            choice(&[Switch::On, Switch::Off], |switch| match switch {
                Switch::On => on,
                Switch::Off => off,
            })
        };
        match self {
            Setting::Way => choice(&Way::ALL, |way| match way {
                Way::Http => "from the server, over HTTP",
                Way::Ibft => "over HTTP, and the disk in the firmware's table",
                Way::Esp => "the kernel from the machine's own ESP",
            }),
            Setting::Menu => choice(&MenuWhen::ALL, |when| match when {
                MenuWhen::Off => "it boots at once",
                MenuWhen::Key => "when Ctrl-B is pressed",
                MenuWhen::Always => "at every boot",
            }),
            Setting::MenuItems => Kind::Line,
            Setting::MenuTimeout => Kind::Line,
            Setting::Identity => switch("its own, the same at every boot", "what the image has"),
            Setting::AuthorizedKeys => Kind::Lines,
            Setting::Chap => choice(&ChapBy::ALL, |by| match by {
                ChapBy::Off => "nothing is proved",
                ChapBy::Ibft => "in the firmware's table, where the disk is in it",
                ChapBy::KernelLine => "there, else on the kernel line",
            }),
            Setting::Mutual => switch("the target proves one, too", "it does not"),
            Setting::Quota | Setting::Size | Setting::Data => Kind::Line,
            Setting::KeepDiscarded => Kind::Line,
        }
    }

    /// What its field holds; nothing where nothing is said.
    pub(super) fn text(self, settings: &Settings) -> Option<String> {
        fn text<T: ToString>(value: Option<&T>) -> Option<String> {
            value.map(T::to_string)
        }
        match self {
            Setting::Way => text(settings.way.as_ref()),
            Setting::Menu => text(settings.menu.as_ref()),
            Setting::MenuItems => {
                settings
                    .menu_items
                    .as_ref()
                    .map(|items| match items.as_slice() {
                        // A menu without items has this one.
                        [] => MenuItem::Own.to_string(),
                        items => list(items, " "),
                    })
            }
            Setting::MenuTimeout => {
                let seconds = settings.menu_timeout.map(|waits| waits.millis() / 1000);
                text(seconds.as_ref())
            }
            Setting::Identity => text(settings.identity.as_ref()),
            Setting::AuthorizedKeys => {
                let keys = settings.authorized_keys.as_ref();
                keys.map(|keys| match keys.as_slice() {
                    [] => NONE.to_owned(),
                    keys => list(keys, "\n"),
                })
            }
            Setting::Chap => text(settings.chap.as_ref()),
            Setting::Mutual => text(settings.mutual.as_ref()),
            Setting::Quota => text(settings.quota.as_ref()),
            Setting::Size => text(settings.size.as_ref()),
            Setting::Data => text(settings.data.as_ref()),
            Setting::KeepDiscarded => text(settings.keep_discarded.as_ref()),
        }
    }

    /// The same for those who only look.
    pub(super) fn words(self, settings: &Settings) -> Option<String> {
        let text = self.text(settings)?;
        Some(match self {
            Setting::MenuTimeout => format!("{text} s"),
            Setting::Quota if text == NONE => self.nothing().to_owned(),
            Setting::AuthorizedKeys => match settings.authorized_keys.as_deref() {
                Some([]) | None => text,
                Some(keys) => {
                    let names: Vec<String> = keys.iter().map(SshKey::short).collect();
                    names.join(", ")
                }
            },
            _ => text,
        })
    }

    /// What holds where nobody says anything, not even netroot itself.
    pub(super) fn nothing(self) -> &'static str {
        match self {
            Setting::Quota => "no limit",
            Setting::Size => "as the version",
            _ => "none",
        }
    }

    /// Says in `edit` what its field holds; an empty one leaves it to others.
    pub(super) fn read(self, text: &str, edit: &mut SettingsEdit) -> Result<(), String> {
        match self {
            Setting::Way => edit.way = Some(given(text)?),
            Setting::Menu => edit.menu = Some(given(text)?),
            Setting::MenuItems => {
                let items: Vec<MenuItem> = words(text)?;
                edit.menu_items = Some((!items.is_empty()).then_some(items));
            }
            Setting::MenuTimeout => edit.menu_timeout = Some(given(text)?),
            Setting::Identity => edit.identity = Some(given(text)?),
            Setting::AuthorizedKeys => {
                edit.authorized_keys = Some(match text {
                    "" => None,
                    NONE => Some(Vec::new()),
                    text => Some(text.lines().map(parsed).collect::<Result<_, _>>()?),
                });
            }
            Setting::Chap => edit.chap = Some(given(text)?),
            Setting::Mutual => edit.mutual = Some(given(text)?),
            Setting::Quota => edit.quota = Some(given(text)?),
            Setting::Size => edit.size = Some(given(text)?),
            Setting::Data => edit.data = Some(given(text)?),
            Setting::KeepDiscarded => edit.keep_discarded = Some(given(text)?),
        }
        Ok(())
    }
}

fn list<T: ToString>(of: &[T], between: &str) -> String {
    let words: Vec<String> = of.iter().map(T::to_string).collect();
    words.join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Something for each setting.
    const SAID: &str = r#"{"way": "ibft", "menu": "key", "menu_items": ["own", "fc28"], "menu_timeout": 5,
        "quota": "20G", "size": "40G", "data": "1G", "keep_discarded": "never", "chap": "off",
        "mutual": "on", "identity": "off", "authorized_keys": ["ssh-ed25519 AAAAC3 a", "ssh-rsa AAAAB3 b"]}"#;

    #[test]
    fn every_setting_has_a_field_that_reads_what_it_writes() {
        let said: Settings = serde_json::from_str(SAID).unwrap();
        let mut edit = SettingsEdit::default();
        for setting in Setting::all() {
            setting
                .read(&setting.text(&said).unwrap(), &mut edit)
                .unwrap();
        }
        assert_eq!(Settings::default().edited(&edit), said);
        let mut none = SettingsEdit::default();
        for setting in Setting::all() {
            setting.read("", &mut none).unwrap();
        }
        assert!(said.edited(&none).is_empty());
    }

    #[test]
    fn names_are_those_of_documents() {
        let said: Settings = serde_json::from_str(SAID).unwrap();
        let said = serde_json::to_value(said).unwrap();
        let mut names: Vec<&str> = Setting::all().map(Setting::name).collect();
        names.sort_unstable();
        let mut keys: Vec<&String> = said.as_object().unwrap().keys().collect();
        keys.sort_unstable();
        assert_eq!(names, keys);
    }

    #[test]
    fn nobody_is_an_answer_of_its_own() {
        let mut edit = SettingsEdit::default();
        Setting::AuthorizedKeys.read("none", &mut edit).unwrap();
        assert_eq!(edit.authorized_keys, Some(Some(Vec::new())));
        let said = Settings::default().edited(&edit);
        assert_eq!(Setting::AuthorizedKeys.text(&said).unwrap(), "none");
    }
}
