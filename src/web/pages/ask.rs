//! The page that asks before something is lost.

use askama::Template;

use super::act::FormFields;
use super::page::Page;
use super::text;

/// What is asked before something is lost.
#[derive(Template)]
#[template(path = "ask.html")]
pub(super) struct AskPage {
    pub(super) page: Page,
    /// The question.
    pub(super) title: String,
    /// What it means, a line each.
    pub(super) lines: Vec<String>,
    /// Where the answer goes, with these fields.
    pub(super) action: String,
    pub(super) fields: FormFields,
    pub(super) button: &'static str,
    /// The page to go back to, and what it is called.
    pub(super) back: (String, String),
}

impl AskPage {
    /// The page of all groups, to go back to.
    pub(super) fn groups() -> (String, String) {
        ("/groups".to_owned(), "Groups".to_owned())
    }
}
