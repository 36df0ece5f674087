//! Reading a recipe: strictly, each mistake with file, line and key.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use toml::Spanned;

use super::action::{Action, Condition, Deed};
use super::text::{Hole, Text};
use super::{PackageList, Places, keys};
use crate::library::config::at_line;
use crate::library::{ConfigError, ReleaseSpec};

/// What a recipe's text says.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) about: String,
    pub(super) ids: Vec<String>,
    pub(super) offers: Vec<ReleaseSpec>,
    pub(super) packages: PackageList,
    pub(super) releases: BTreeMap<String, String>,
    pub(super) places: Places,
    pub(super) sections: BTreeMap<String, Vec<Action>>,
}

/// As it stands in the file.
#[derive(Default)]
struct Raw {
    about: String,
    ids: Vec<String>,
    offers: Vec<Spanned<String>>,
    packages: PackageList,
    releases: BTreeMap<String, Spanned<String>>,
    places: RawPlaces,
    sections: BTreeMap<String, Vec<Spanned<RawStep>>>,
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawPlaces {
    kernel: Vec<Spanned<String>>,
    initramfs: Vec<Spanned<String>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    say: Option<String>,
    run: Option<Vec<String>>,
    host: Option<Vec<String>>,
    #[serde(default)]
    needs: Vec<String>,
    mounted: Option<bool>,
    write: Option<String>,
    text: Option<String>,
    mode: Option<String>,
    link: Option<String>,
    to: Option<String>,
    remove: Option<Vec<String>>,
    empty: Option<Vec<String>>,
    #[serde(rename = "do")]
    section: Option<String>,
    input: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    when: RawConditions,
    #[serde(default)]
    unless: RawConditions,
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConditions {
    program: Option<String>,
    path: Option<String>,
    id: Option<String>,
    host: Option<String>,
    release: Option<String>,
}

/// A step, with where it begins.
struct Located {
    action: Action,
    at: usize,
}

/// Reads the text of the recipe in `file`.
pub(super) fn parse(file: &Path, text: &str) -> Result<Parsed, ConfigError> {
    let wrong = |at: usize, key: &str, message: String| {
        at_line(file, text, at, Some(key.to_owned()), message)
    };
    let raw: Raw = toml::from_str(text)
        .map_err(|error| crate::library::config::located(file, text, &error))?;
    let mut sections = BTreeMap::new();
    for (name, steps) in raw.sections {
        let located = steps.into_iter().map(|step| {
            let Range { start, .. } = step.span();
            let action = action(step.into_inner()).map_err(|(key, why)| wrong(start, key, why))?;
            Ok(Located { action, at: start })
        });
        sections.insert(name, located.collect::<Result<Vec<_>, ConfigError>>()?);
    }
    let flat = flatten(&sections, &wrong)?;
    let places = |key: &str, paths: Vec<Spanned<String>>| {
        let paths = paths.into_iter().map(|path| {
            let at = path.span().start;
            keys::only("[boot]", path.get_ref(), &[Hole::Kernel])
                .map_err(|why| wrong(at, key, why))?;
            Ok(path.into_inner())
        });
        paths.collect::<Result<Vec<_>, ConfigError>>()
    };
    let releases = raw.releases.into_iter().map(|(told, meant)| {
        let at = meant.span().start;
        for text in [&told, meant.get_ref()] {
            keys::only("[releases]", text, &[]).map_err(|why| wrong(at, &told, why))?;
        }
        Ok((told, meant.into_inner()))
    });
    let offers = raw.offers.into_iter().map(|offer| {
        let at = offer.span().start;
        offered(&raw.ids, &offer.into_inner()).map_err(|why| wrong(at, "offers", why))
    });
    Ok(Parsed {
        offers: offers.collect::<Result<_, ConfigError>>()?,
        about: raw.about,
        ids: raw.ids,
        packages: raw.packages,
        releases: releases.collect::<Result<_, ConfigError>>()?,
        places: Places {
            kernel: places("kernel", raw.places.kernel)?,
            initramfs: places("initramfs", raw.places.initramfs)?,
        },
        sections: flat,
    })
}

/// A release that people are offered: of a distribution that the recipe is for.
fn offered(ids: &[String], text: &str) -> Result<ReleaseSpec, String> {
    let offer: ReleaseSpec = text.parse().map_err(|wrong| format!("{wrong}"))?;
    match ids.contains(&offer.name) {
        true => Ok(offer),
        false => Err(format!("`{}` is not among what it is `for`", offer.name)),
    }
}

type Wrong = (&'static str, String);

fn action(raw: RawStep) -> Result<Action, Wrong> {
    let say = raw.say.clone();
    if let Some(say) = &say {
        Text::parse(say).map_err(|why| ("say", why))?;
    }
    let env = raw.env.clone().into_iter().collect();
    let (when, unless) = (conditions(&raw.when), conditions(&raw.unless));
    let mut needs = raw.needs.clone();
    needs.extend(raw.host.iter().flatten().next().cloned());
    Ok(Action {
        say,
        deed: deed(raw)?,
        needs,
        env,
        when,
        unless,
    })
}

fn deed(raw: RawStep) -> Result<Deed, Wrong> {
    let given: Vec<&'static str> = [
        ("run", raw.run.is_some()),
        ("host", raw.host.is_some()),
        ("write", raw.write.is_some()),
        ("link", raw.link.is_some()),
        ("remove", raw.remove.is_some()),
        ("empty", raw.empty.is_some()),
        ("do", raw.section.is_some()),
    ]
    .into_iter()
    .filter_map(|(key, is)| is.then_some(key))
    .collect();
    let [one] = given.as_slice() else {
        return Err((
            given.get(1).copied().unwrap_or("run"),
            "a step has exactly one of run, host, write, link, remove, empty and do".into(),
        ));
    };
    only(one, &raw)?;
    Ok(if let Some(words) = raw.run {
        Deed::Run {
            command: command("run", &words)?,
            input: raw.input,
        }
    } else if let Some(words) = raw.host {
        Deed::Host {
            command: command("host", &words)?,
            mounted: raw.mounted.unwrap_or(false),
        }
    } else if let Some(path) = raw.write {
        Deed::Write {
            path: absolute("write", path)?,
            text: raw.text.ok_or(("text", "a file needs a `text`".into()))?,
            mode: mode(raw.mode.as_deref().unwrap_or("0644"))?,
        }
    } else if let Some(path) = raw.link {
        Deed::Link {
            path: absolute("link", path)?,
            to: raw.to.ok_or(("to", "a link needs a `to`".into()))?,
        }
    } else if let Some(paths) = raw.remove {
        Deed::Remove {
            paths: patterns("remove", paths)?,
        }
    } else if let Some(paths) = raw.empty {
        Deed::Empty {
            paths: patterns("empty", paths)?,
        }
    } else {
        Deed::Section {
            name: raw.section.unwrap_or_default(),
        }
    })
}

/// Refuses keys that belong to another kind of step.
fn only(kind: &str, raw: &RawStep) -> Result<(), Wrong> {
    let belongs: [(&'static str, bool, &[&str]); 7] = [
        ("text", raw.text.is_some(), &["write"]),
        ("mode", raw.mode.is_some(), &["write"]),
        ("to", raw.to.is_some(), &["link"]),
        ("input", raw.input.is_some(), &["run"]),
        ("env", !raw.env.is_empty(), &["run", "host"]),
        ("needs", !raw.needs.is_empty(), &["host"]),
        ("mounted", raw.mounted.is_some(), &["host"]),
    ];
    for (key, given, kinds) in belongs {
        if given && !kinds.contains(&kind) {
            return Err((key, format!("it means nothing beside `{kind}`")));
        }
    }
    Ok(())
}

fn command(key: &'static str, words: &[String]) -> Result<Vec<Text>, Wrong> {
    if words.first().is_none_or(String::is_empty) {
        return Err((key, "there is no program to run".into()));
    }
    let words = words.iter().map(|word| Text::parse(word));
    words.collect::<Result<_, _>>().map_err(|why| (key, why))
}

fn absolute(key: &'static str, path: String) -> Result<String, Wrong> {
    let parts = path.strip_prefix('/').map(|rest| rest.split('/'));
    let is_sound = parts
        .is_some_and(|mut parts| parts.all(|part| !part.is_empty() && part != "." && part != ".."));
    match is_sound {
        true => Ok(path),
        false => Err((key, format!("`{path}` is no path from the image's root"))),
    }
}

fn patterns(key: &'static str, paths: Vec<String>) -> Result<Vec<String>, Wrong> {
    paths.into_iter().map(|path| absolute(key, path)).collect()
}

fn mode(text: &str) -> Result<u32, Wrong> {
    let mode = u32::from_str_radix(text, 8).ok();
    mode.filter(|mode| *mode <= 0o7777)
        .ok_or(("mode", format!("`{text}` is no mode such as 0644")))
}

fn conditions(raw: &RawConditions) -> Vec<Condition> {
    let all = [
        raw.program.clone().map(Condition::Program),
        raw.path.clone().map(Condition::Path),
        raw.id.clone().map(Condition::Id),
        raw.host.clone().map(Condition::Host),
        raw.release.clone().map(Condition::Release),
    ];
    all.into_iter().flatten().collect()
}

/// Puts the steps of a section in the place of each `do`, and checks what may stand where.
fn flatten(
    sections: &BTreeMap<String, Vec<Located>>,
    wrong: &dyn Fn(usize, &str, String) -> ConfigError,
) -> Result<BTreeMap<String, Vec<Action>>, ConfigError> {
    let mut flat = BTreeMap::new();
    let mut done: Vec<&str> = Vec::new();
    for name in keys::sections() {
        let mut actions = Vec::new();
        if let Some((name, steps)) = sections.get_key_value(name) {
            let mut path = vec![name.as_str()];
            expand(sections, steps, &mut path, &mut done, &mut actions, wrong)?;
        }
        flat.insert(name.to_owned(), actions);
    }
    for (name, steps) in sections {
        let used: Vec<_> = keys::sections().collect();
        if !used.contains(&name.as_str()) && !done.contains(&name.as_str()) {
            let at = steps.first().map_or(0, |step| step.at);
            let why = format!(
                "no step does this section; plans do {}{}",
                used.join(", "),
                keys::suggestion(name)
            );
            return Err(wrong(at, name, why));
        }
    }
    Ok(flat)
}

fn expand<'a>(
    sections: &'a BTreeMap<String, Vec<Located>>,
    steps: &'a [Located],
    path: &mut Vec<&'a str>,
    done: &mut Vec<&'a str>,
    into: &mut Vec<Action>,
    wrong: &dyn Fn(usize, &str, String) -> ConfigError,
) -> Result<(), ConfigError> {
    for Located { action, at } in steps {
        let Deed::Section { name } = &action.deed else {
            let place = path.first().copied().unwrap_or_default();
            if let Err((key, why)) = fits(place, action) {
                return Err(wrong(*at, key, why));
            }
            into.push(action.clone());
            continue;
        };
        let Some((name, inner)) = sections.get_key_value(name) else {
            return Err(wrong(*at, "do", format!("there is no section `{name}`")));
        };
        if path.contains(&name.as_str()) {
            return Err(wrong(*at, "do", format!("`{name}` would do itself")));
        }
        done.push(name);
        path.push(name);
        let from = into.len();
        expand(sections, inner, path, done, into, wrong)?;
        path.pop();
        for step in into.iter_mut().skip(from) {
            step.when.extend(action.when.iter().cloned());
            step.unless.extend(action.unless.iter().cloned());
        }
    }
    Ok(())
}

fn fits(section: &str, action: &Action) -> Result<(), Wrong> {
    let is_change = matches!(
        action.deed,
        Deed::Write { .. } | Deed::Link { .. } | Deed::Remove { .. } | Deed::Empty { .. }
    );
    match (&action.deed, section) {
        (Deed::Host { .. }, "bootstrap") => Ok::<(), Wrong>(()),
        (Deed::Host { .. }, _) => Err(("host", "only bootstrap runs programs of the host".into())),
        // A scrubbed tree may be a client's, whose programs nobody runs.
        (_, "scrub") if !is_change => Err((
            "scrub",
            "scrub only removes, empties, writes and links".into(),
        )),
        _ => Ok(()),
    }?;
    keys::fillable(section, action)
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a recipe")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        use serde::de::Error;
        let mut raw = Raw::default();
        let mut format = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "format" => format = Some(map.next_value::<u32>()?),
                "about" => raw.about = map.next_value()?,
                "for" => raw.ids = map.next_value()?,
                "offers" => raw.offers = map.next_value()?,
                "packages" => raw.packages = map.next_value()?,
                "releases" => raw.releases = map.next_value()?,
                "boot" => raw.places = map.next_value()?,
                _ => {
                    let steps = map.next_value_seed(keys::Section::of(&key))?;
                    raw.sections.insert(key, steps);
                }
            }
        }
        match format {
            Some(1) => Ok(raw),
            Some(other) => Err(A::Error::custom(format!(
                "format {other} is of a newer netroot; this one knows 1"
            ))),
            None => Err(A::Error::custom("a recipe begins with `format = 1`")),
        }
    }
}
