//! What counts for a client or a group and who says so, and the form that changes it.

use askama::Template;

use super::fields::{Kind, PARTS, Setting};
use crate::library::{SaidBy, Sayings, SettingsEdit};
use crate::web::pages::act::{FormFields, Wrong, field};
use crate::web::pages::text;

/// What counts, a line for each setting.
#[derive(Template)]
#[template(path = "settings.html")]
pub(in crate::web::pages) struct Said {
    lines: Vec<Line>,
}

/// A setting that counts.
struct Line {
    label: &'static str,
    heard: Heard,
}

/// A value, and who says it.
struct Heard {
    value: String,
    by: SaidBy,
}

/// The fields of a form, in their parts.
pub(super) struct Form {
    pub(super) parts: Vec<(&'static str, Vec<Field>)>,
}

/// A field of a form.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    pub(super) hint: &'static str,
    pub(super) kind: Kind,
    /// What is in it.
    pub(super) text: String,
    /// What counts where it is left empty: `20G (group lab)`.
    pub(super) else_is: String,
    /// Why it cannot be taken.
    pub(super) wrong: Option<String>,
}

/// Settings whose fields hold something else than what is said.
pub(super) struct Changed(Vec<(Setting, String)>);

impl Said {
    /// Of those for whom this is said.
    pub(in crate::web::pages) fn of(sayings: &Sayings) -> Self {
        let line = |setting: Setting| Line {
            label: setting.label(),
            heard: Heard::of(setting, sayings),
        };
        Said {
            lines: settings_of(sayings).map(line).collect(),
        }
    }
}

impl Heard {
    /// The nearest word.
    fn of(setting: Setting, sayings: &[(SaidBy, crate::library::Settings)]) -> Self {
        let mut said = sayings
            .iter()
            .filter_map(|(by, settings)| Some((by.clone(), setting.words(settings)?)));
        let (by, value) = said
            .next()
            .unwrap_or((SaidBy::Nobody, setting.nothing().to_owned()));
        Heard { value, by }
    }

    /// `20G (group lab)`
    fn words(&self) -> String {
        format!("{} ({})", text::told(&self.value), by(&self.by))
    }
}

/// What there is to say for whoever speaks first in `sayings`.
fn settings_of(sayings: &Sayings) -> impl Iterator<Item = Setting> {
    let by = sayings.first().map(|(by, _)| by);
    Setting::all().filter(move |setting| setting.is_of(by))
}

/// Who it is that says something.
fn by(by: &SaidBy) -> String {
    match by {
        SaidBy::Client => "its own".to_owned(),
        SaidBy::Group(group) => format!("group {group}"),
        SaidBy::Image(image) => format!("image {image}"),
        SaidBy::Everybody => "everybody's".to_owned(),
        SaidBy::Nobody => "built in".to_owned(),
    }
}

impl Form {
    /// The form of whoever speaks first in `sayings`, as he has filled it in, or else as it is said.
    pub(super) fn of(
        sayings: &Sayings,
        filled: Option<&FormFields>,
        wrong: Option<&Wrong>,
    ) -> Self {
        let own = |setting: Setting| match filled {
            Some(filled) => field(filled, setting.name()).to_owned(),
            None => said(setting, sayings),
        };
        let field = |setting: &Setting| Field {
            name: setting.name(),
            label: setting.label(),
            hint: setting.hint(),
            kind: setting.kind(),
            text: own(*setting),
            else_is: Heard::of(*setting, sayings.get(1..).unwrap_or_default()).words(),
            wrong: Wrong::with(wrong, setting.name()).map(str::to_owned),
        };
        let there: Vec<Setting> = settings_of(sayings).collect();
        let part = |(title, settings): &(&'static str, &[Setting])| {
            let settings = settings.iter().filter(|setting| there.contains(setting));
            let fields: Vec<Field> = settings.map(field).collect();
            (!fields.is_empty()).then_some((*title, fields))
        };
        Form {
            parts: PARTS.iter().filter_map(part).collect(),
        }
    }
}

/// What he says who speaks first.
fn said(setting: Setting, sayings: &Sayings) -> String {
    let first = sayings.first();
    first
        .and_then(|(_, settings)| setting.text(settings))
        .unwrap_or_default()
}

impl Changed {
    /// What was filled in otherwise than it is said. What the form did not show says nothing.
    pub(super) fn of(sayings: &Sayings, filled: &FormFields) -> Self {
        let shown = settings_of(sayings).filter(|setting| {
            let mut names = filled.iter().map(|(name, _)| name);
            names.any(|name| name == setting.name())
        });
        let filled = shown.map(|setting| (setting, lines(field(filled, setting.name()))));
        let changed = filled.filter(|(setting, text)| *text != said(*setting, sayings));
        Changed(changed.collect())
    }

    /// The change that is asked for.
    pub(super) fn edit(&self) -> Result<SettingsEdit, Wrong> {
        let mut edit = SettingsEdit::default();
        for (setting, text) in &self.0 {
            let read = setting.read(text, &mut edit);
            read.map_err(Wrong::in_field(setting.name()))?;
        }
        Ok(edit)
    }

    /// What is wrong with a change that is refused: one that is refused alone, too, is to blame.
    pub(super) fn blamed(&self, refused: impl Fn(SettingsEdit) -> bool, why: String) -> Wrong {
        let to_blame = |(setting, text): &&(Setting, String)| {
            let mut alone = SettingsEdit::default();
            setting.read(text, &mut alone).is_ok() && refused(alone)
        };
        match self.0.iter().find(to_blame) {
            Some((setting, _)) => Wrong::in_field(setting.name())(why),
            None => Wrong::anywhere(why),
        }
    }
}

/// As it is said: browsers end lines their own way (HTML, *constructing the entry list*), and people leave
/// empty ones.
fn lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let lines = lines.into_iter().filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}
