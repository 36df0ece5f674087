//! Recipes: how one distribution is bootstrapped, prepared, updated, upgraded and scrubbed, as data.
//!
//! Those under `images/` are built in; a file of the same name in the library's `recipes/` takes the
//! place of one, any other adds one, and goes before a built-in one for the same distribution. A recipe
//! is sections of steps; what a plan does with them, and in which order, is the plan's business.

mod action;
mod keys;
mod parse;
mod text;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

pub use action::Action;
pub(crate) use action::{Condition, Deed};
pub(crate) use text::{Fill, Hole, Text, fill_all};

use crate::library::manifest::{Distribution, Hash, RecipeFacts};
use crate::library::{Library, PlainWord, ReleaseName, ReleaseSpec};

/// The recipe of trees that no other one is for.
const GENERIC: &str = "generic";

const BUILT_IN: &[(&str, &str)] = &[
    ("debian", include_str!("../../../images/debian.toml")),
    ("fedora", include_str!("../../../images/fedora.toml")),
    (GENERIC, include_str!("../../../images/generic.toml")),
];

/// Longest recipe that is read.
const LONGEST: u64 = 1024 * 1024;

/// How one distribution is made and changed.
#[derive(Debug, Clone)]
pub struct Recipe {
    name: String,
    origin: Origin,
    text: String,
    about: String,
    ids: Vec<String>,
    offers: Vec<ReleaseSpec>,
    packages: PackageList,
    releases: BTreeMap<String, String>,
    places: Places,
    sections: BTreeMap<String, Vec<Action>>,
}

/// Where a recipe comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// From this program.
    BuiltIn,
    /// From the library.
    #[schema(value_type = String)]
    File(PathBuf),
}

/// Who has the list of a tree's packages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackageList {
    /// Whoever has one.
    #[default]
    Any,
    /// Debian's.
    Dpkg,
    /// Fedora's.
    Rpm,
    /// Alpine's.
    Apk,
    /// Nobody.
    None,
}

/// Where a distribution keeps kernel and initramfs, besides the usual places; `{kernel}` stands for
/// the kernel's release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Places {
    pub(crate) kernel: Vec<String>,
    pub(crate) initramfs: Vec<String>,
}

/// What people are told of a recipe before they read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RecipeView {
    /// Its name.
    pub name: String,
    /// What it is for, in one line.
    pub about: String,
    /// The distributions that it is for, by the `ID` of os-release.
    pub distributions: Vec<String>,
    /// Releases to choose from: `debian:trixie`. It may know others.
    pub offers: Vec<String>,
    /// What it can do of `bootstrap`, `prepare`, `update` and `upgrade`.
    pub can: Vec<&'static str>,
    /// Where it comes from.
    pub origin: Origin,
}

/// What people ask recipes for.
const ABILITIES: [&str; 4] = ["bootstrap", "prepare", "update", "upgrade"];

/// All recipes that a library has.
#[derive(Debug)]
pub struct Recipes(BTreeMap<String, Recipe>);

/// Refuses what is no single word of the plain kind: it goes into command lines.
pub(crate) fn plain_word(text: &str) -> Result<()> {
    text.parse::<PlainWord>()?;
    Ok(())
}

/// Refuses what can be no release: it goes into addresses and expressions as well.
pub(crate) fn release_name(text: &str) -> Result<()> {
    text.parse::<ReleaseName>()?;
    Ok(())
}

impl Recipes {
    /// Those that are built in, and the library's own.
    ///
    /// # Errors
    /// When one cannot be read; then with its file, line and key.
    pub fn of(library: &Library) -> Result<Self> {
        let mut all = Self::built_in()?;
        let dir = library.recipes_dir();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(all),
            Err(error) => {
                return Err(error).with_context(|| format!("listing {}", dir.display()));
            }
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str());
            if path.extension().is_some_and(|end| end == "toml")
                && let Some(name) = name
            {
                all.0.insert(name.to_owned(), Recipe::read(name, &path)?);
            }
        }
        Ok(all)
    }

    /// Those that are built in.
    ///
    /// # Errors
    /// Never in a build that passed its tests.
    pub fn built_in() -> Result<Self> {
        let mut all = BTreeMap::new();
        for (name, text) in BUILT_IN {
            let file = PathBuf::from(format!("images/{name}.toml"));
            let recipe = Recipe::parse(name, Origin::BuiltIn, &file, text)?;
            all.insert((*name).to_owned(), recipe);
        }
        Ok(Self(all))
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Recipe> {
        self.0.values()
    }

    /// The one of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(&self, name: &str) -> Result<&Recipe> {
        let names: Vec<_> = self.0.keys().map(String::as_str).collect();
        self.0
            .get(name)
            .with_context(|| format!("there is no recipe `{name}`, only {}", names.join(", ")))
    }

    /// The one for what a person writes before the colon of a source: a recipe or a distribution.
    ///
    /// # Errors
    /// When there is none, it cannot bootstrap, or two of the library are for it.
    pub fn to_bootstrap(&self, name: &str) -> Result<&Recipe> {
        let found = match self.0.get(name) {
            // What a person wrote for a distribution is meant, even where a built-in one has its name.
            Some(recipe) if recipe.is_own() => Some(recipe),
            named => self.for_id(name)?.or(named),
        };
        let can: Vec<_> = self
            .iter()
            .filter(|recipe| !recipe.steps("bootstrap").is_empty())
            .flat_map(|recipe| recipe.ids.iter().map(String::as_str))
            .collect();
        match found {
            Some(recipe) if !recipe.steps("bootstrap").is_empty() => Ok(recipe),
            Some(recipe) => bail!(
                "the recipe {} cannot bootstrap; those for {} can",
                recipe.name,
                can.join(", ")
            ),
            None => bail!(
                "there is no recipe for `{name}`, only for {}; `netroot recipe list` shows them",
                can.join(", ")
            ),
        }
    }

    /// The one for a tree: by its distribution, by what that is like, else the generic one.
    ///
    /// # Errors
    /// When not even that is there, or two of the library are for it.
    pub fn for_tree(&self, distribution: Option<&Distribution>) -> Result<&Recipe> {
        let ids = distribution.into_iter().flat_map(|found| {
            let like = found.like.iter().flat_map(|like| like.split_whitespace());
            std::iter::once(found.id.as_str()).chain(like)
        });
        for id in ids {
            if let Some(recipe) = self.for_id(id)? {
                return Ok(recipe);
            }
        }
        self.named(GENERIC)
    }

    /// The one for a distribution: the library's own before one that is built in.
    fn for_id(&self, id: &str) -> Result<Option<&Recipe>> {
        let all: Vec<_> = self.iter().filter(|recipe| recipe.is_for(id)).collect();
        let own: Vec<_> = all.iter().copied().filter(|all| all.is_own()).collect();
        if let [
            Recipe {
                origin: Origin::File(one),
                ..
            },
            Recipe {
                origin: Origin::File(other),
                ..
            },
            ..,
        ] = own.as_slice()
        {
            bail!(
                "choosing a recipe for {id}: both {} and {} say that they are for it; take it out of \
                 `for` in one of them, or name one by --recipe",
                one.display(),
                other.display()
            );
        }
        Ok(own.first().or(all.first()).copied())
    }
}

impl Recipe {
    /// Reads the recipe `name` from `path`.
    fn read(name: &str, path: &Path) -> Result<Self> {
        use std::io::Read;
        let mut text = String::new();
        let reading = || format!("reading the recipe {}", path.display());
        let file = fs::File::open(path).with_context(reading)?;
        ensure_ours(&file).with_context(reading)?;
        file.take(LONGEST)
            .read_to_string(&mut text)
            .with_context(reading)?;
        Self::parse(name, Origin::File(path.to_owned()), path, &text)
    }

    fn parse(name: &str, origin: Origin, file: &Path, text: &str) -> Result<Self> {
        let parsed = parse::parse(file, text)?;
        Ok(Self {
            name: name.to_owned(),
            origin,
            text: text.to_owned(),
            about: parsed.about,
            ids: parsed.ids,
            offers: parsed.offers,
            packages: parsed.packages,
            releases: parsed.releases,
            places: parsed.places,
            sections: parsed.sections,
        })
    }

    /// What people are told of it.
    pub fn view(&self) -> RecipeView {
        let can = ABILITIES.into_iter().filter(|what| self.can(what));
        RecipeView {
            name: self.name.clone(),
            about: self.about.clone(),
            distributions: self.ids.clone(),
            offers: self.offers.iter().map(ToString::to_string).collect(),
            can: can.collect(),
            origin: self.origin.clone(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it comes from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Its text, to be copied and changed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it is for, in one line.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// The distributions that it is for, by the `ID` of os-release.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Releases that people are offered where they choose one, the first ones first. It bootstraps
    /// others, too: as many as its distributions have.
    pub fn offers(&self) -> &[ReleaseSpec] {
        &self.offers
    }

    /// Whether it has steps for this.
    pub fn can(&self, section: &str) -> bool {
        !self.steps(section).is_empty()
    }

    /// Who has the list of packages.
    pub(crate) fn packages(&self) -> PackageList {
        self.packages
    }

    /// Where kernel and initramfs are.
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// The steps of a section; none if it has none.
    pub(crate) fn steps(&self, section: &str) -> &[Action] {
        self.sections.get(section).map_or(&[], Vec::as_slice)
    }

    /// The release that a person means by `text`.
    pub(crate) fn release<'a>(&'a self, text: &'a str) -> &'a str {
        self.releases.get(text).map_or(text, String::as_str)
    }

    /// What manifests tell of it.
    pub(crate) fn facts(&self) -> RecipeFacts {
        RecipeFacts {
            name: self.name.clone(),
            sha256: Hash(Sha256::digest(&self.text).into()),
        }
    }

    /// Whether it is the library's.
    fn is_own(&self) -> bool {
        matches!(self.origin, Origin::File(_))
    }

    fn is_for(&self, id: &str) -> bool {
        self.ids.iter().any(|own| own == id)
    }
}

/// Root runs the steps of a recipe on this host, so nobody else may write them: a library may belong
/// to an ordinary user, who would be root by a recipe.
fn ensure_ours(file: &fs::File) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let found = file.metadata()?;
    if found.uid() != 0 || found.mode() & 0o022 != 0 {
        bail!(
            "its steps would run as root, but others than root may write it: look at it, then \
             `chown root` and `chmod go-w` it, or move it away"
        );
    }
    Ok(())
}
