//! Text of a recipe, with placeholders: what `{release}` and its like become.

use std::fmt;

use serde::{Serialize, Serializer};

/// A word or a line of a recipe, in which placeholders stand in braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Plain(String),
    Hole(Hole),
}

/// What a placeholder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hole {
    /// The release that is bootstrapped or upgraded to.
    Release,
    /// The distribution's `ID`.
    Distribution,
    /// Where packages come from, if a person said so.
    Mirror,
    /// Further packages that a person wants.
    Packages,
    /// Where the tree is mounted, for programs of the host.
    Tree,
    /// The release of the newest kernel in the tree.
    Kernel,
    /// The release of the tree as it was: `VERSION_CODENAME` or `VERSION_ID`.
    Current,
}

/// What a placeholder becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fill {
    /// It is not known yet, and stays a placeholder.
    Later,
    /// These words: one, several, or none.
    Words(Vec<String>),
}

const HOLES: &[(&str, Hole)] = &[
    ("release", Hole::Release),
    ("distribution", Hole::Distribution),
    ("mirror", Hole::Mirror),
    ("packages", Hole::Packages),
    ("tree", Hole::Tree),
    ("kernel", Hole::Kernel),
    ("current", Hole::Current),
];

impl Text {
    /// Reads `text`: `{word}` is a placeholder, `{{` a brace, any other brace itself.
    ///
    /// # Errors
    /// A placeholder that is none, in words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            plain.push_str(before);
            if let Some(escaped) = after.strip_prefix('{') {
                plain.push('{');
                rest = escaped;
            } else if let Some((word, tail)) = placeholder(after) {
                let known = HOLES.iter().find(|(name, _)| *name == word);
                let (_, hole) = known.ok_or_else(|| unknown(word))?;
                pieces.extend(some(std::mem::take(&mut plain)));
                pieces.push(Piece::Hole(*hole));
                rest = tail;
            } else {
                plain.push('{');
                rest = after;
            }
        }
        plain.push_str(rest);
        pieces.extend(some(plain));
        Ok(Self(pieces))
    }

    /// Text without placeholders.
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self(vec![Piece::Plain(text.into())])
    }

    /// The arguments that this one becomes: a placeholder that stands alone may be several or none,
    /// within other text its words are joined by commas.
    pub(crate) fn fill(&self, of: &dyn Fn(Hole) -> Fill) -> Vec<Self> {
        if let [Piece::Hole(hole)] = self.0.as_slice() {
            return match of(*hole) {
                Fill::Later => vec![self.clone()],
                Fill::Words(words) => words.into_iter().map(Self::plain).collect(),
            };
        }
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Plain(_) => piece.clone(),
            Piece::Hole(hole) => match of(*hole) {
                Fill::Later => piece.clone(),
                Fill::Words(words) => Piece::Plain(words.join(",")),
            },
        });
        vec![Self(pieces.collect())]
    }

    /// Its placeholders.
    pub(crate) fn holes(&self) -> impl Iterator<Item = Hole> + use<> {
        let holes = self.0.iter().filter_map(|piece| match piece {
            Piece::Plain(_) => None,
            Piece::Hole(hole) => Some(*hole),
        });
        holes.collect::<Vec<_>>().into_iter()
    }

    /// The text, if nothing in it is open any more; else the first placeholder that is.
    pub(crate) fn closed(&self) -> Result<String, Hole> {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Plain(text) => Ok(text.as_str()),
                Piece::Hole(hole) => Err(*hole),
            })
            .collect()
    }
}

/// Fills a whole command line.
pub(crate) fn fill_all(words: &[Text], of: &dyn Fn(Hole) -> Fill) -> Vec<Text> {
    words.iter().flat_map(|word| word.fill(of)).collect()
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Plain(text) => f.write_str(text),
            Piece::Hole(hole) => hole.fmt(f),
        })
    }
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = HOLES.iter().find(|(_, hole)| hole == self);
        write!(f, "{{{}}}", name.map_or("", |(name, _)| name))
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The word before the closing brace, if it could be a placeholder's, and what follows.
fn placeholder(after: &str) -> Option<(&str, &str)> {
    let (word, tail) = after.split_once('}')?;
    let is_word = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    is_word.then_some((word, tail))
}

fn some(plain: String) -> Option<Piece> {
    (!plain.is_empty()).then_some(Piece::Plain(plain))
}

fn unknown(word: &str) -> String {
    let names: Vec<_> = HOLES.iter().map(|(name, _)| *name).collect();
    format!(
        "there is no placeholder {{{word}}}, only {}; a brace as it is is written {{{{",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(hole: Hole) -> Fill {
        let words = |words: &[&str]| Fill::Words(words.iter().map(|&w| w.into()).collect());
        match hole {
            Hole::Release => words(&["trixie"]),
            Hole::Packages => words(&["vim", "less"]),
            Hole::Mirror => words(&[]),
            _ => Fill::Later,
        }
    }

    fn check(text: &str, expected: &[&str]) {
        let filled = Text::parse(text).unwrap().fill(&of);
        let filled: Vec<_> = filled.iter().map(Text::to_string).collect();
        assert_eq!(filled, expected, "{text}");
    }

    #[test]
    fn placeholders_become_words() {
        check("{release}", &["trixie"]);
        check("deb {release}-updates", &["deb trixie-updates"]);
        check("{packages}", &["vim", "less"]);
        check("--include={packages}", &["--include=vim,less"]);
        check("{mirror}", &[]);
        check("--mirror={mirror}", &["--mirror="]);
        check("{tree}/etc", &["{tree}/etc"]);
    }

    #[test]
    fn other_braces_are_themselves() {
        check("awk '{print $1}'", &["awk '{print $1}'"]);
        check("${{name}", &["${name}"]);
        check("a { b", &["a { b"]);
        check("{}", &["{}"]);
    }

    #[test]
    fn an_unknown_placeholder_is_told() {
        let error = Text::parse("{relaese}").unwrap_err();
        assert!(
            error.contains("{relaese}") && error.contains("release"),
            "{error}"
        );
    }

    #[test]
    fn what_is_open_is_named() {
        let open = Text::parse("--kver={kernel}").unwrap();
        assert_eq!(open.closed().unwrap_err().to_string(), "{kernel}");
        assert_eq!(Text::plain("{kernel}").closed().unwrap(), "{kernel}");
    }
}
