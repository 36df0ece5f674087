//! What can be said for one client, for a group of them and for all: the nearest word counts.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::expiry;
use super::menu::{MenuItem, MenuSeconds, MenuWhen};
use crate::library::accounts::Lifetime;
use crate::library::bytes::{ByteSize, SizeOrNone};
use crate::library::config::MenuLogin;
use crate::library::error::{self, Error};
use crate::library::names::{GroupName, ImageName, plain_words};
use crate::library::{ChapBy, Library, SshKey, Switch};

/// Settings as somebody gave them; of what is not set, the next one up is asked: a client's groups by
/// name, then the image that it boots, then `[clients]` in `netroot.toml`, then what its own documentation
/// calls the default. Of an image the way to boot is said, and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How it gets kernel and root disk; over HTTP if nobody says anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// When its machine shows a menu; never if nobody says anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub menu: Option<MenuWhen>,
    /// What that menu offers, in this order: the first is taken where nobody chooses. What it is assigned
    /// to and the machine's own disk if nobody says anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub menu_items: Option<Vec<MenuItem>>,
    /// How many seconds the menu waits; 10 if nobody says anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub menu_timeout: Option<MenuSeconds>,
    /// Bytes that its disk may hold beyond the version that it was made from, or `none`: as many as there
    /// is room for, as if nobody says anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<SizeOrNone>,
    /// Bytes that its disk has at least, from the next that is made for it on; as many as the version if
    /// nobody says anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<ByteSize>,
    /// Bytes of a disk beside the one that it boots from, which stays whatever becomes of that, or `none`:
    /// there is none if nobody says anything, either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<SizeOrNone>,
    /// How long disks are kept that were reset or replaced; 14d if nobody says anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_discarded: Option<Lifetime>,
    /// Where it is given what it proves at its login (CHAP); in the firmware's table, where its way is
    /// `ibft` or its disk boots itself, if nobody says anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chap: Option<ChapBy>,
    /// Whether the target proves something, too; it does not if nobody says anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mutual: Option<Switch>,
    /// Whether it is given host name, machine-id and SSH host keys of its own; it is if nobody says
    /// anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Switch>,
    /// Who may log in to it as root by SSH.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorized_keys: Option<Vec<SshKey>>,
}

/// What becomes of settings: what is left out stays, and null goes by the next one up again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SettingsEdit {
    /// How it gets kernel and root disk.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Way>)]
    pub way: Option<Option<Way>>,
    /// When its machine shows a menu.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MenuWhen>)]
    pub menu: Option<Option<MenuWhen>>,
    /// What that menu offers, all of it.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<MenuItem>>)]
    pub menu_items: Option<Option<Vec<MenuItem>>>,
    /// How many seconds the menu waits.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<MenuSeconds>)]
    pub menu_timeout: Option<Option<MenuSeconds>>,
    /// Bytes that its disk may hold beyond the version, or `none`.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SizeOrNone>)]
    pub quota: Option<Option<SizeOrNone>>,
    /// Bytes that its next disk has at least.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ByteSize>)]
    pub size: Option<Option<ByteSize>>,
    /// Bytes of its data disk, which only grows, or `none`.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SizeOrNone>)]
    pub data: Option<Option<SizeOrNone>>,
    /// How long disks are kept that were reset or replaced.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Lifetime>)]
    pub keep_discarded: Option<Option<Lifetime>>,
    /// Where it is given what it proves at its login (CHAP).
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ChapBy>)]
    pub chap: Option<Option<ChapBy>>,
    /// Whether the target proves something, too.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Switch>)]
    pub mutual: Option<Option<Switch>>,
    /// Whether it is given host name, machine-id and SSH host keys of its own.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Switch>)]
    pub identity: Option<Option<Switch>>,
    /// Who may log in to it as root by SSH, all of them.
    #[serde(deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<SshKey>>)]
    pub authorized_keys: Option<Option<Vec<SshKey>>>,
}

/// Who says something of what a client goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SaidBy {
    /// The client itself.
    Client,
    /// A group that it is in.
    Group(GroupName),
    /// The image that it boots.
    Image(ImageName),
    /// Table `[clients]` of `netroot.toml`.
    Everybody,
    /// Nobody: it is so where nothing is said.
    Nobody,
}

/// What one of them says.
pub(crate) type Saying = (SaidBy, Settings);

/// What each of them says, the nearest first.
pub type Sayings = Vec<(SaidBy, Settings)>;

impl Library {
    /// What holds where nobody says anything. What is not in it is bounded by nothing, or not there.
    pub fn usual_settings(&self) -> Settings {
        let login = self.config().boot.login != MenuLogin::Off;
        let login = login.then_some(MenuItem::Login);
        let items = [MenuItem::Own, MenuItem::Local].into_iter().chain(login);
        Settings {
            way: Some(Way::default()),
            menu: Some(MenuWhen::default()),
            menu_items: Some(items.collect()),
            menu_timeout: Some(MenuSeconds::default()),
            keep_discarded: Some(expiry::DEFAULT),
            chap: Some(ChapBy::default()),
            mutual: Some(Switch::Off),
            identity: Some(Switch::On),
            ..Settings::default()
        }
    }
}

/// Bytes of the largest disk.
const LARGEST: u64 = 64 << 40;

/// Refuses a disk that no file system could hold; `what` is being done.
pub(super) fn ensure_possible(size: ByteSize, what: impl FnOnce() -> String) -> error::Result<()> {
    match impossible(size) {
        Some(why) => Err(Error::refused(what(), why, "give it less")),
        None => Ok(()),
    }
}

/// Why no file system could hold a disk of this size, if it could not.
fn impossible(size: ByteSize) -> Option<String> {
    let is_too_large = size.bytes() > LARGEST;
    is_too_large.then(|| format!("{size} is larger than any disk can be (64T)"))
}

impl Settings {
    /// Refuses disks that could not be made at the next boot; `what` is being done.
    pub(crate) fn ensure_possible(&self, what: &str) -> error::Result<()> {
        let mut sizes = self.sizes();
        sizes.try_for_each(|(_, size)| ensure_possible(size, || what.to_owned()))
    }

    /// The first size that no disk can have, by its name in documents, and why.
    pub(crate) fn impossible(&self) -> Option<(&'static str, String)> {
        let mut sizes = self.sizes();
        sizes.find_map(|(name, size)| Some((name, impossible(size)?)))
    }

    /// How large disks are to be that are made.
    fn sizes(&self) -> impl Iterator<Item = (&'static str, ByteSize)> {
        let sizes = [("size", self.size), ("data", self.data())].into_iter();
        sizes.filter_map(|(name, size)| Some((name, size?)))
    }
}

/// How a client gets its kernel, and how that is told of the root disk. Disks that boot themselves are
/// attached by iPXE in any case.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Kernel and initramfs come from the boot service, and the kernel line names the disk.
    #[default]
    Http,
    /// The same, but iPXE attaches the disk and hands it over in the firmware's table (iBFT): what it
    /// takes to log in stands on no kernel line.
    Ibft,
    /// Kernel and initramfs lie on the client's own EFI system partition.
    Esp,
}

impl Settings {
    /// These, and those of `next` where these say nothing.
    pub fn or(self, next: &Settings) -> Settings {
        Settings {
            way: self.way.or(next.way),
            menu: self.menu.or(next.menu),
            menu_items: self.menu_items.or_else(|| next.menu_items.clone()),
            menu_timeout: self.menu_timeout.or(next.menu_timeout),
            quota: self.quota.or(next.quota),
            size: self.size.or(next.size),
            data: self.data.or(next.data),
            keep_discarded: self.keep_discarded.or(next.keep_discarded),
            chap: self.chap.or(next.chap),
            mutual: self.mutual.or(next.mutual),
            identity: self.identity.or(next.identity),
            authorized_keys: self
                .authorized_keys
                .or_else(|| next.authorized_keys.clone()),
        }
    }

    /// How much a disk may hold by these beyond its version, if that is bounded.
    pub fn quota(&self) -> Option<ByteSize> {
        self.quota.and_then(SizeOrNone::size)
    }

    /// How large the data disk is by these, if there is one.
    pub fn data(&self) -> Option<ByteSize> {
        self.data.and_then(SizeOrNone::size)
    }

    /// Whether they say nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Settings::default()
    }

    /// These after an edit.
    pub fn edited(&self, edit: &SettingsEdit) -> Settings {
        let SettingsEdit {
            way,
            quota,
            size,
            data,
            keep_discarded,
            chap,
            mutual,
            identity,
            authorized_keys,
            menu,
            menu_items,
            menu_timeout,
        } = edit;
        Settings {
            way: way.unwrap_or(self.way),
            quota: quota.unwrap_or(self.quota),
            size: size.unwrap_or(self.size),
            data: data.unwrap_or(self.data),
            keep_discarded: keep_discarded.unwrap_or(self.keep_discarded),
            chap: chap.unwrap_or(self.chap),
            mutual: mutual.unwrap_or(self.mutual),
            identity: identity.unwrap_or(self.identity),
            authorized_keys: match authorized_keys {
                Some(said) => said.clone(),
                None => self.authorized_keys.clone(),
            },
            menu: menu.unwrap_or(self.menu),
            menu_items: match menu_items {
                Some(said) => said.clone(),
                None => self.menu_items.clone(),
            },
            menu_timeout: menu_timeout.unwrap_or(self.menu_timeout),
        }
    }

    /// Name and value of each, for people: plans, tables, pages. Empty where nothing is said.
    pub fn words(&self) -> Vec<(&'static str, String)> {
        let Settings {
            way,
            quota,
            size,
            data,
            keep_discarded,
            chap,
            mutual,
            identity,
            authorized_keys,
            menu,
            menu_items,
            menu_timeout,
        } = self;
        let items = menu_items.as_deref().unwrap_or_default();
        let items: Vec<String> = items.iter().map(MenuItem::to_string).collect();
        vec![
            ("way", text(way.as_ref())),
            ("quota", text(quota.as_ref())),
            ("size", text(size.as_ref())),
            ("data disk", text(data.as_ref())),
            ("keeps", text(keep_discarded.as_ref())),
            ("chap", text(chap.as_ref())),
            ("mutual", text(mutual.as_ref())),
            ("identity", text(identity.as_ref())),
            (
                "keys",
                authorized_keys
                    .as_deref()
                    .map(names_of_keys)
                    .unwrap_or_default(),
            ),
            ("menu", text(menu.as_ref())),
            ("offers", items.join(" ")),
            ("waits", text(menu_timeout.as_ref())),
        ]
    }
}

/// What people know keys by: their comments, or how they end.
fn names_of_keys(keys: &[SshKey]) -> String {
    let names: Vec<String> = keys.iter().map(SshKey::short).collect();
    match names.is_empty() {
        true => String::from("none"),
        false => names.join(", "),
    }
}

fn text<T: ToString>(value: Option<&T>) -> String {
    value.map(T::to_string).unwrap_or_default()
}

/// A value that is there, be it null.
pub(crate) fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

plain_words!(
    Way,
    "a way to boot: http, ibft or esp",
    [Http = "http", Ibft = "ibft", Esp = "esp",]
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_counts() {
        let says = |way| Settings {
            way,
            ..Settings::default()
        };
        let check = |own, next, expected| {
            assert_eq!(says(own).or(&says(next)), says(expected));
        };
        check(Some(Way::Ibft), Some(Way::Esp), Some(Way::Ibft));
        check(None, Some(Way::Esp), Some(Way::Esp));
        check(None, None, None);
    }

    #[test]
    fn what_is_left_out_stays_and_null_says_nothing_any_more() {
        let own = Settings {
            way: Some(Way::Ibft),
            ..Settings::default()
        };
        let edited = |json: &str| own.edited(&serde_json::from_str(json).unwrap());
        assert_eq!(edited("{}"), own);
        assert_eq!(edited(r#"{"way": null}"#), Settings::default());
        assert_eq!(edited(r#"{"way": "esp"}"#).way, Some(Way::Esp));
        assert!(serde_json::from_str::<SettingsEdit>(r#"{"wai": "esp"}"#).is_err());
    }
}
