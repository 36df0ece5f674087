//! What can be said for one client, for a group of them and for all: the nearest word counts.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::library::names::NameError;
use crate::library::{ChapBy, SshKey, Switch};
use std::fmt;
use std::str::FromStr;

/// Settings as somebody gave them; of what is not set, the next one up is asked: a client's groups by
/// name, then `[clients]` in `netroot.toml`, then what its own documentation calls the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How it gets kernel and root disk; over HTTP if nobody says anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// Where it is given what it proves at its login (CHAP); in the firmware's table, where its way is
    /// `ibft`, if nobody says anything.
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
            chap: self.chap.or(next.chap),
            mutual: self.mutual.or(next.mutual),
            identity: self.identity.or(next.identity),
            authorized_keys: self
                .authorized_keys
                .or_else(|| next.authorized_keys.clone()),
        }
    }

    /// Whether they say nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Settings::default()
    }

    /// These after an edit.
    pub fn edited(&self, edit: &SettingsEdit) -> Settings {
        let SettingsEdit {
            way,
            chap,
            mutual,
            identity,
            authorized_keys,
        } = edit;
        Settings {
            way: way.unwrap_or(self.way),
            chap: chap.unwrap_or(self.chap),
            mutual: mutual.unwrap_or(self.mutual),
            identity: identity.unwrap_or(self.identity),
            authorized_keys: match authorized_keys {
                Some(said) => said.clone(),
                None => self.authorized_keys.clone(),
            },
        }
    }

    /// Name and value of each, for people: plans, tables, pages. Empty where nothing is said.
    pub fn words(&self) -> Vec<(&'static str, String)> {
        let Settings {
            way,
            chap,
            mutual,
            identity,
            authorized_keys,
        } = self;
        vec![
            ("way", text(way.as_ref())),
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
fn said<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 3] = [Way::Http, Way::Ibft, Way::Esp];

    /// The word in documents and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Way::Http => "http",
            Way::Ibft => "ibft",
            Way::Esp => "esp",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Way {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Way::ALL
            .into_iter()
            .find(|way| way.as_str() == text)
            .ok_or_else(|| NameError::new(text, "a way to boot: http, ibft or esp"))
    }
}

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
