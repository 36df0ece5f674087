//! The names that a recipe knows: its keys, its sections, and which placeholders each of them can fill.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::action::{Action, Deed};
use super::text::{Hole, Text};

/// Keys that are no sections.
const KEYS: &[&str] = &[
    "format", "about", "for", "offers", "packages", "releases", "boot",
];

/// The sections that plans ask for, each with what is known when its steps are done.
const SECTIONS: &[(&str, &[Hole])] = &[
    (
        "bootstrap",
        &[
            Hole::Release,
            Hole::Distribution,
            Hole::Mirror,
            Hole::Packages,
            Hole::Tree,
        ],
    ),
    ("prepare", BUILDING),
    ("install", BUILDING),
    ("update", &[Hole::Kernel, Hole::Current]),
    ("upgrade", &[Hole::Release, Hole::Kernel, Hole::Current]),
    ("initramfs", &[Hole::Kernel]),
    ("clean", &[Hole::Kernel]),
    ("scrub", &[]),
];

const BUILDING: &[Hole] = &[
    Hole::Release,
    Hole::Distribution,
    Hole::Mirror,
    Hole::Packages,
    Hole::Kernel,
];

/// The sections that plans ask for.
pub(super) fn sections() -> impl Iterator<Item = &'static str> {
    SECTIONS.iter().map(|(name, _)| *name)
}

/// Refuses placeholders that nothing can fill in this section; with the key and the reason.
pub(super) fn fillable(section: &str, action: &Action) -> Result<(), (&'static str, String)> {
    let known = SECTIONS.iter().find(|(name, _)| *name == section);
    let known = known.map_or(&[][..], |(_, holes)| holes);
    let (key, command): (_, &[Text]) = match &action.deed {
        Deed::Run { command, .. } => ("run", command),
        Deed::Host { command, .. } => ("host", command),
        _ => ("", &[]),
    };
    let said = action.say.iter().filter_map(|say| Text::parse(say).ok());
    let said: Vec<Hole> = said.flat_map(|say| say.holes()).collect();
    let told = said.into_iter().map(|hole| ("say", hole));
    let run = command.iter().flat_map(Text::holes);
    for (key, hole) in told.chain(run.map(|hole| (key, hole))) {
        if !known.contains(&hole) {
            return Err((key, unknown_in(section, hole, known)));
        }
        // A program of the image sees the tree as `/`.
        if hole == Hole::Tree && key == "run" {
            return Err((key, String::from("{tree} is for programs of the host only")));
        }
    }
    Ok(())
}

/// Refuses what is no placeholder, and all but `known` ones.
pub(super) fn only(place: &str, text: &str, known: &[Hole]) -> Result<(), String> {
    match Text::parse(text)?
        .holes()
        .find(|hole| !known.contains(hole))
    {
        None => Ok(()),
        Some(hole) => Err(unknown_in(place, hole, known)),
    }
}

fn unknown_in(place: &str, hole: Hole, known: &[Hole]) -> String {
    let known: Vec<_> = known.iter().map(Hole::to_string).collect();
    match known.is_empty() {
        true => format!("{hole} means nothing in {place}, which has no placeholders"),
        false => format!(
            "{hole} means nothing in {place}, which knows {}",
            known.join(", ")
        ),
    }
}

/// Asks whether another name was meant, if there is one like it.
pub(super) fn suggestion(name: &str) -> String {
    let known = KEYS.iter().copied().chain(sections());
    let nearest = known.min_by_key(|known| distance(name, known));
    // Two fifths of it may be wrong; two letters that are swapped count twice.
    let is_like = |known: &&str| distance(name, known) * 5 <= known.len().max(name.len()) * 2;
    match nearest.filter(is_like) {
        Some(known) => format!("; did you mean `{known}`?"),
        None => String::new(),
    }
}

/// How many characters have to be added, removed or replaced (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (at, a) in one.chars().enumerate() {
        let mut corner = at;
        let mut left = at + 1;
        for (b, above) in other.chars().zip(row.iter_mut().skip(1)) {
            let replaced = corner + usize::from(a != b);
            corner = *above;
            left = replaced.min(corner + 1).min(left + 1);
            *above = left;
        }
        if let Some(first) = row.first_mut() {
            *first = at + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// What a key that is none of ours holds: the steps of a section, or it is a mistake.
pub(super) struct Section<'a, T> {
    key: &'a str,
    steps: std::marker::PhantomData<T>,
}

impl<'a, T> Section<'a, T> {
    pub(super) fn of(key: &'a str) -> Self {
        Self {
            key,
            steps: std::marker::PhantomData,
        }
    }

    fn is_none<E: Error>(&self) -> E {
        E::custom(format!(
            "there is no key `{key}`, and a section would be written `[[{key}]]`{}",
            suggestion(self.key),
            key = self.key
        ))
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Section<'_, T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Section<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the steps of a section `[[{}]]`", self.key)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut steps = Vec::new();
        while let Some(step) = seq.next_element()? {
            steps.push(step);
        }
        Ok(steps)
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Vec<T>, A::Error> {
        Err(self.is_none())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Vec<T>, E> {
        Err(self.is_none())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Vec<T>, E> {
        Err(self.is_none())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Vec<T>, E> {
        Err(self.is_none())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Vec<T>, E> {
        Err(self.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested() {
        assert_eq!(distance("releses", "releases"), 1);
        assert_eq!(distance("", "boot"), 4);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(suggestion("releses"), "; did you mean `releases`?");
        assert_eq!(suggestion("perpare"), "; did you mean `prepare`?");
        assert_eq!(suggestion("abuot"), "; did you mean `about`?");
        assert_eq!(suggestion("whatever"), "");
    }
}
