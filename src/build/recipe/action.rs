//! What a step of a recipe does: one deed, and when.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::text::{Fill, Hole, Text, fill_all};
use crate::build::Script;

/// One step of a recipe, or of what a person asked for beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Action {
    /// What a person is told; the deed itself where the recipe says nothing.
    pub(crate) say: Option<String>,
    pub(crate) deed: Deed,
    /// Programs of the host that it cannot do without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) needs: Vec<String>,
    /// Further variables of a program's environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) env: Vec<(String, String)>,
    /// All must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) when: Vec<Condition>,
    /// None may hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unless: Vec<Condition>,
}

/// What is done. Paths of the image begin with a slash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Deed {
    /// Run a program of the image, in it.
    Run {
        command: Vec<Text>,
        /// What it reads on its standard input; may be a secret, so it is not shown.
        #[serde(skip)]
        input: Option<String>,
    },
    /// Run a program of this host, which knows the tree by its path.
    Host {
        command: Vec<Text>,
        /// Whether the tree gets what a chroot gets while it runs.
        mounted: bool,
    },
    /// Write a file.
    Write {
        path: String,
        text: String,
        mode: u32,
    },
    /// Make a symlink.
    Link { path: String, to: String },
    /// Remove what the patterns match.
    Remove { paths: Vec<String> },
    /// Truncate the files and empty the directories that the patterns match.
    Empty { paths: Vec<String> },
    /// Copy a file, or what is in a directory, from this host.
    CopyIn { from: PathBuf, to: String },
    /// Run what a person gave.
    Script {
        #[serde(serialize_with = "as_text")]
        script: Script,
    },
    /// Let a person work in it, until the shell ends.
    Shell,
    /// The steps of another section; gone once a recipe was read.
    Section { name: String },
}

/// Something that is so, or is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Condition {
    /// The image has a program of this name.
    Program(String),
    /// The image has something at this path.
    Path(String),
    /// The image's os-release has this ID.
    Id(String),
    /// This host has a program of this name.
    Host(String),
    /// The release that is meant is this one.
    Release(String),
}

impl Action {
    /// A deed without conditions.
    pub(crate) fn new(say: impl Into<String>, deed: Deed) -> Self {
        Self {
            say: Some(say.into()),
            deed,
            needs: Vec::new(),
            env: Vec::new(),
            when: Vec::new(),
            unless: Vec::new(),
        }
    }

    /// The same with what is known filled in.
    pub(crate) fn filled(&self, of: &dyn Fn(Hole) -> Fill) -> Self {
        let mut action = self.clone();
        match &mut action.deed {
            Deed::Run { command, .. } | Deed::Host { command, .. } => {
                *command = fill_all(command, of);
            }
            _ => {}
        }
        if let Some(say) = &mut action.say
            && let Ok(text) = Text::parse(say)
        {
            *say = text.fill(of).iter().map(Text::to_string).collect();
        }
        action
    }

    /// Whether a program of the image runs, which needs the image's mounts in place.
    pub(crate) fn is_inside(&self) -> bool {
        matches!(
            self.deed,
            Deed::Run { .. } | Deed::Script { .. } | Deed::Shell | Deed::CopyIn { .. }
        )
    }

    /// What a person is told while it is done.
    pub(crate) fn told(&self) -> String {
        match &self.say {
            Some(say) => say.clone(),
            None => self.deed.to_string(),
        }
    }
}

/// On one line. Secrets of `input` are not shown.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.say {
            // A person who is to agree wants to know what runs, not only what it is good for.
            Some(say) => match self.deed.to_string() {
                deed if deed == *say => f.write_str(say)?,
                deed => write!(f, "{say}: {deed}")?,
            },
            None => self.deed.fmt(f)?,
        }
        conditions(f, ", if", &self.when)?;
        conditions(f, ", unless", &self.unless)
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run { command, .. } => write!(f, "run `{}` in it", short(command, " ")),
            Self::Host { command, .. } => {
                write!(f, "run `{}` on this host, as root", short(command, " "))
            }
            Self::Write { path, .. } => write!(f, "write {path}"),
            Self::Link { path, to } => write!(f, "link {path} to {to}"),
            Self::Remove { paths } => write!(f, "remove {}", short(paths, ", ")),
            Self::Empty { paths } => write!(f, "empty {}", short(paths, ", ")),
            Self::CopyIn { from, to } => write!(f, "copy {} to {to}", from.display()),
            Self::Script { script } => write!(f, "run `{script}` in it"),
            Self::Shell => f.write_str("open a shell in it"),
            Self::Section { name } => write!(f, "do {name}"),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(name) => write!(f, "it has {name}"),
            Self::Path(path) => write!(f, "it has {path}"),
            Self::Id(id) => write!(f, "it is {id}"),
            Self::Host(name) => write!(f, "this host has {name}"),
            Self::Release(release) => write!(f, "the release is {release}"),
        }
    }
}

fn conditions(f: &mut fmt::Formatter<'_>, word: &str, all: &[Condition]) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    write!(f, "{word} {}", joined(all, " and "))
}

fn joined<T: fmt::Display>(parts: &[T], by: &str) -> String {
    let parts: Vec<_> = parts.iter().map(T::to_string).collect();
    parts.join(by)
}

/// On one line, and not a long one.
fn short<T: fmt::Display>(parts: &[T], by: &str) -> String {
    const LONGEST: usize = 100;
    let whole = joined(parts, by);
    let words: Vec<&str> = whole.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(LONGEST) {
        None => line,
        Some((end, _)) => format!("{} …", line.get(..end).unwrap_or(&line).trim_end()),
    }
}

fn as_text<S: serde::Serializer>(script: &Script, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(script)
}
