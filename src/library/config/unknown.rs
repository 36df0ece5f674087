//! What a machine gets that is nobody's client, and who may log in at the others.

use serde::Deserialize;

use crate::library::names::VersionSpec;

/// What a machine gets that asks what to boot and is nobody's client.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "\"menu\", \"local\", \"refuse\", or { image = \"IMAGE\" }"
)]
pub enum ForUnknown {
    /// Nothing of the library's.
    Plain(PlainPolicy),
    /// An image, in mode shared.
    Guest(Guest),
}

/// What it gets where that is nothing of the library's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlainPolicy {
    /// A menu that tells how it is made known, and goes on to the local disk after a while.
    Menu,
    /// The next device that its firmware boots from, at once.
    Local,
    /// Nothing: its request is refused.
    Refuse,
}

/// What guests boot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// The image, or one version of it.
    pub image: VersionSpec,
}

impl Default for ForUnknown {
    fn default() -> Self {
        ForUnknown::Plain(PlainPolicy::Menu)
    }
}

/// Whether people can log in at a machine's menu.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "MenuLoginWord")]
pub enum MenuLogin {
    /// They cannot.
    Off,
    /// Where the machine speaks HTTPS.
    Secure,
    /// Everywhere: their passwords go over the network as they are.
    Insecure,
}

/// How that is written.
#[derive(Deserialize)]
#[serde(untagged, expecting = "false, true or \"insecure\"")]
enum MenuLoginWord {
    Flag(bool),
    Word(String),
}

impl TryFrom<MenuLoginWord> for MenuLogin {
    type Error = String;

    fn try_from(word: MenuLoginWord) -> Result<Self, String> {
        match word {
            MenuLoginWord::Flag(false) => Ok(MenuLogin::Off),
            MenuLoginWord::Flag(true) => Ok(MenuLogin::Secure),
            MenuLoginWord::Word(word) if word == "insecure" => Ok(MenuLogin::Insecure),
            MenuLoginWord::Word(word) => {
                Err(format!("`{word}` is none of false, true and \"insecure\""))
            }
        }
    }
}
