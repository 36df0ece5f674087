//! What machines offer to who stands before them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::Client;
use crate::library::Library;
use crate::library::error::Result;
use crate::library::names::{ImageName, NameError, plain_words, serde_as_text};

/// Items of a menu: more do not fit a screen.
const MOST: usize = 32;

/// When a machine shows its menu.
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
pub enum MenuWhen {
    /// Never: it boots at once.
    #[default]
    Off,
    /// When somebody presses Ctrl-B; it waits two seconds for that.
    Key,
    /// At every boot.
    Always,
}

/// Something that a menu offers: `own`, `local`, `shell`, `login`, or the name of an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MenuItem {
    /// What the machine is assigned to.
    Own,
    /// The machine's own disk.
    Local,
    /// The command line of iPXE: whoever has that may boot what he wants.
    Shell,
    /// A person's own disk.
    Login,
    /// An image, this once, in mode shared.
    Image(ImageName),
}

serde_as_text!(MenuItem, "^(?!.*-[0-9a-f]{12}$)[a-z][a-z0-9-]{0,31}$");

/// How long a menu waits for somebody, in seconds, before it goes on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
// JSON knows no integers (RFC 8259 §6): some languages write `10.0`.
#[serde(try_from = "f64")]
pub struct MenuSeconds(u16);

impl PartialSchema for MenuSeconds {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(MenuSeconds::LONGEST))
            .into()
    }
}

impl ToSchema for MenuSeconds {}

impl MenuSeconds {
    /// An hour: who waits longer is not coming.
    pub const LONGEST: u16 = 3600;
}

/// What a client's machine offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Menu {
    /// When.
    pub when: MenuWhen,
    /// What, in this order; the first is taken where nobody chooses.
    pub items: Vec<MenuItem>,
    /// How long it waits.
    pub seconds: MenuSeconds,
}

impl Library {
    /// The menu of a client's machine. Of the images that it is to offer, those that are there.
    pub fn menu(&self, client: &Client) -> Result<Menu> {
        let settings = self.settings(client)?.or(&self.usual_settings());
        let mut items = settings.menu_items.unwrap_or_default();
        if !items.contains(&MenuItem::Own) {
            items.insert(0, MenuItem::Own);
        }
        let mut offered: Vec<MenuItem> = Vec::new();
        for item in items {
            let is_there = match &item {
                // A choice of its own image is a boot as it is assigned.
                MenuItem::Image(image) if *image == client.image.image => false,
                MenuItem::Image(image) => self.resolve(&image.clone().into()).is_ok(),
                _ => true,
            };
            if is_there && !offered.contains(&item) && offered.len() < MOST {
                offered.push(item);
            }
        }
        Ok(Menu {
            when: settings.menu.unwrap_or_default(),
            items: offered,
            seconds: settings.menu_timeout.unwrap_or_default(),
        })
    }
}

plain_words!(
    MenuWhen,
    "when a menu is shown: off, key or always",
    [Off = "off", Key = "key", Always = "always",]
);

impl fmt::Display for MenuItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            MenuItem::Own => "own",
            MenuItem::Local => "local",
            MenuItem::Shell => "shell",
            MenuItem::Login => "login",
            MenuItem::Image(image) => image.as_str(),
        })
    }
}

impl FromStr for MenuItem {
    type Err = NameError;

    fn from_str(text: &str) -> std::result::Result<Self, NameError> {
        const WANTED: &str =
            "what a menu offers: own, local, shell, login, or the name of an image";
        Ok(match text {
            "own" => MenuItem::Own,
            "local" => MenuItem::Local,
            "shell" => MenuItem::Shell,
            "login" => MenuItem::Login,
            image => match image.parse() {
                Ok(image) => MenuItem::Image(image),
                Err(_) => return Err(NameError::new(text, WANTED)),
            },
        })
    }
}

impl Default for MenuSeconds {
    fn default() -> Self {
        MenuSeconds(10)
    }
}

impl MenuSeconds {
    /// As iPXE counts them.
    pub fn millis(self) -> u32 {
        u32::from(self.0) * 1000
    }
}

impl TryFrom<u32> for MenuSeconds {
    type Error = NameError;

    fn try_from(seconds: u32) -> std::result::Result<Self, NameError> {
        const WANTED: &str = "how long a menu waits: 1 to 3600 seconds";
        match u16::try_from(seconds) {
            Ok(seconds @ 1..=MenuSeconds::LONGEST) => Ok(MenuSeconds(seconds)),
            _ => Err(NameError::new(&seconds.to_string(), WANTED)),
        }
    }
}

impl TryFrom<f64> for MenuSeconds {
    type Error = NameError;

    fn try_from(seconds: f64) -> std::result::Result<Self, NameError> {
        let is_whole = seconds.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&seconds);
        // Without a fraction and within bounds, nothing is lost.
        let whole = if is_whole { seconds as u32 } else { 0 };
        whole.try_into()
    }
}

impl FromStr for MenuSeconds {
    type Err = NameError;

    fn from_str(text: &str) -> std::result::Result<Self, NameError> {
        // What is no number is no number of seconds from 1, either.
        text.parse::<u32>().unwrap_or(0).try_into()
    }
}

impl fmt::Display for MenuSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0)
    }
}
