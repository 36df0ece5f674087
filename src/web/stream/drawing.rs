//! What changes on a page, drawn; and how one drawing differs from the next.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use askama::Template;
use serde::Serialize;

use crate::daemon::Server;
use crate::library;

/// Something that pages show and that changes by itself.
pub(in crate::web) trait Topic: Send + Sync {
    /// Draws all of it that changes. May block.
    fn draw(&self, server: &Server, drawing: &mut Drawing) -> Result<(), library::Error>;
}

/// All pieces of a topic, by the ids of their elements.
#[derive(Debug, Default)]
pub(in crate::web) struct Drawing {
    pieces: BTreeMap<String, Piece>,
    /// The one before: what is still made of the same is taken from there.
    before: Option<Arc<Drawing>>,
    is_sketch: bool,
}

#[derive(Debug, Clone)]
struct Piece {
    /// Nothing where it was not drawn since no page has to be told of it.
    html: Option<Arc<str>>,
    /// Tells it from what it was: a print of what it is made of, or of itself but for the words of
    /// moments, which pages keep up themselves.
    print: u64,
    place: Place,
}

/// Where a piece stands, by the id of the element around it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Always on the page.
    Fixed,
    /// In a list, as its last one when it is new; it goes when it is drawn no more.
    Last(&'static str),
    /// In a list, as its first one when it is new.
    First(&'static str),
    /// A line that is written below the others once, and stays.
    Line(&'static str),
}

/// One change of a page, as `app.js` understands it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Patch {
    op: &'static str,
    id: String,
    #[serde(serialize_with = "text")]
    html: Arc<str>,
}

impl Drawing {
    /// One that takes over from `before` what has not changed.
    pub(super) fn after(before: Option<Arc<Drawing>>) -> Self {
        Drawing {
            before,
            ..Drawing::default()
        }
    }

    /// One that only later ones are compared with: somebody has just been shown all of it, so the
    /// pieces that tell what they are made of are not drawn.
    pub(super) fn sketch() -> Self {
        Drawing {
            is_sketch: true,
            ..Drawing::default()
        }
    }

    /// It is complete, and holds no other one any more.
    pub(super) fn finished(mut self) -> Self {
        self.before = None;
        self
    }

    /// A piece that is always on the page: replaced where it has changed.
    pub(in crate::web) fn piece(&mut self, id: impl Into<String>, template: &impl Template) {
        self.add(id.into(), template, Place::Fixed);
    }

    /// A piece of the list with the id `list`: appended where it is new, removed where it is gone.
    pub(in crate::web) fn item(
        &mut self,
        list: &'static str,
        id: impl Into<String>,
        template: &impl Template,
    ) {
        self.add(id.into(), template, Place::Last(list));
    }

    /// A piece that is always on the page or in another piece, and is drawn only where `made_of` is
    /// not what it was: that has to tell all that the template shows.
    pub(in crate::web) fn piece_of(
        &mut self,
        id: impl Into<String>,
        made_of: &impl Hash,
        template: &impl Template,
    ) {
        self.add_of(id.into(), made_of, template, Place::Fixed);
    }

    /// The same for a piece of a list, for lists of thousands.
    pub(in crate::web) fn item_of(
        &mut self,
        list: &'static str,
        id: impl Into<String>,
        made_of: &impl Hash,
        template: &impl Template,
    ) {
        self.add_of(id.into(), made_of, template, Place::Last(list));
    }

    /// An item of a list that begins with the newest.
    pub(in crate::web) fn newest(
        &mut self,
        list: &'static str,
        id: impl Into<String>,
        template: &impl Template,
    ) {
        self.add(id.into(), template, Place::First(list));
    }

    /// A line of the log with the id `list`: appended once. Draw the last few; those before stay.
    pub(in crate::web) fn line(
        &mut self,
        list: &'static str,
        id: impl Into<String>,
        template: &impl Template,
    ) {
        self.add(id.into(), template, Place::Line(list));
    }

    fn add(&mut self, id: String, template: &impl Template, place: Place) {
        if let Some(html) = rendered(&id, template) {
            let piece = Piece {
                print: print(&html),
                html: Some(html.into()),
                place,
            };
            self.pieces.insert(id, piece);
        }
    }

    fn add_of(&mut self, id: String, made_of: &impl Hash, template: &impl Template, place: Place) {
        let mut hasher = DefaultHasher::new();
        made_of.hash(&mut hasher);
        let print = hasher.finish();
        let before = self.before.as_ref().and_then(|all| all.pieces.get(&id));
        let html = match before.filter(|piece| piece.print == print) {
            Some(same) => same.html.clone(),
            None if self.is_sketch => None,
            None => match rendered(&id, template) {
                Some(html) => Some(html.into()),
                None => return,
            },
        };
        self.pieces.insert(id, Piece { html, print, place });
    }

    /// The ids of pieces that are not what they were, those that are gone included. Lines that are
    /// drawn no more stay on the page.
    pub(super) fn changed_since<'a>(&'a self, before: &'a Drawing) -> Vec<&'a str> {
        let mut ids: Vec<&str> = self
            .pieces
            .iter()
            .filter(|(id, piece)| {
                before
                    .pieces
                    .get(*id)
                    .is_none_or(|old| old.print != piece.print)
            })
            .map(|(id, _)| id.as_str())
            .collect();
        let stays = |piece: &Piece| matches!(piece.place, Place::Line(_));
        let before = before.pieces.iter();
        let gone = before.filter(|(id, piece)| !self.has(id) && !stays(piece));
        ids.extend(gone.map(|(id, _)| id.as_str()));
        ids
    }

    /// Whether there is a piece of this id.
    pub(super) fn has(&self, id: &str) -> bool {
        self.pieces.contains_key(id)
    }

    /// What a page has to do about a piece, whether or not it has it already.
    pub(super) fn patches(&self, id: &str) -> Vec<Patch> {
        let patch = |op, id: &str, html: &Arc<str>| Patch {
            op,
            id: id.to_owned(),
            html: html.clone(),
        };
        let Some(piece) = self.pieces.get(id) else {
            return vec![patch("remove", id, &Arc::from(""))];
        };
        let Some(html) = &piece.html else {
            return Vec::new();
        };
        // A page does nothing to an element that it does not have, and adds none that it has.
        match piece.place {
            Place::Fixed => vec![patch("replace", id, html)],
            Place::Last(list) => vec![patch("replace", id, html), patch("append", list, html)],
            Place::First(list) => vec![patch("replace", id, html), patch("prepend", list, html)],
            Place::Line(list) => vec![patch("append", list, html)],
        }
    }
}

fn rendered(id: &str, template: &impl Template) -> Option<String> {
    let html = template.render();
    html.inspect_err(|error| tracing::error!(%error, id, "a piece of a page cannot be drawn"))
        .ok()
}

fn text<S: serde::Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

/// A number that differs where the text differs, the content of `<time>` elements left out.
fn print(html: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut rest = html;
    while let Some((head, tail)) = rest.split_once("<time ") {
        let (tag, words) = tail.split_once('>').unwrap_or((tail, ""));
        (head, tag).hash(&mut hasher);
        rest = words.split_once("</time>").map_or("", |(_, after)| after);
    }
    rest.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Template)]
    #[template(source = "<li id=\"{{ id }}\">{{ text }}</li>", ext = "html")]
    struct Line {
        id: String,
        text: &'static str,
    }

    fn drawn(pieces: &[(&str, &'static str)]) -> Drawing {
        let mut drawing = Drawing::default();
        for (id, text) in pieces {
            let line = Line {
                id: (*id).to_owned(),
                text,
            };
            match id.split_once('-') {
                Some(("item", _)) => drawing.item("list", *id, &line),
                Some(("line", _)) => drawing.line("log", *id, &line),
                _ => drawing.piece(*id, &line),
            }
        }
        drawing
    }

    fn ops(drawing: &Drawing, id: &str) -> Vec<(&'static str, String)> {
        let patches = drawing.patches(id).into_iter();
        patches.map(|patch| (patch.op, patch.id)).collect()
    }

    #[test]
    fn only_what_differs_is_told() {
        let before = drawn(&[("total", "1"), ("item-1", "a"), ("item-2", "b")]);
        let after = drawn(&[("total", "1"), ("item-1", "A"), ("item-3", "c")]);
        assert_eq!(after.changed_since(&before), ["item-1", "item-3", "item-2"]);
        assert_eq!(ops(&after, "total"), [("replace", "total".into())]);
        assert_eq!(ops(&after, "item-2"), [("remove", "item-2".into())]);
        assert_eq!(
            ops(&after, "item-3"),
            [("replace", "item-3".into()), ("append", "list".into())]
        );
        assert!(after.changed_since(&after).is_empty());
    }

    #[test]
    fn what_is_made_of_the_same_is_not_drawn_again() {
        let draw = |mut drawing: Drawing, made_of: u8, text: &'static str| {
            let id = "item-1".to_owned();
            drawing.item_of(
                "list",
                id.as_str(),
                &made_of,
                &Line {
                    id: id.clone(),
                    text,
                },
            );
            Arc::new(drawing.finished())
        };
        let html = |drawing: &Drawing| {
            let patches = drawing.patches("item-1").into_iter();
            patches.map(|patch| patch.html.to_string()).next()
        };
        let sketch = draw(Drawing::sketch(), 1, "a");
        assert_eq!(html(&sketch), None, "nobody has to be told");
        let same = draw(Drawing::after(Some(sketch.clone())), 1, "not looked at");
        assert!(same.changed_since(&sketch).is_empty());
        let other = draw(Drawing::after(Some(same.clone())), 2, "b");
        assert_eq!(other.changed_since(&same), ["item-1"]);
        assert_eq!(html(&other), Some("<li id=\"item-1\">b</li>".into()));
        let again = draw(Drawing::after(Some(other.clone())), 2, "not looked at");
        assert_eq!(html(&again), html(&other));
        assert!(
            again.before.is_none(),
            "or all drawings there ever were stay"
        );
    }

    #[test]
    fn lines_are_written_once_and_stay() {
        let before = drawn(&[("line-1", "a"), ("line-2", "b")]);
        let after = drawn(&[("line-2", "b"), ("line-3", "c")]);
        assert_eq!(after.changed_since(&before), ["line-3"]);
        assert_eq!(ops(&after, "line-3"), [("append", "log".into())]);
    }

    #[test]
    fn what_a_stranger_sends_is_text() {
        let drawing = drawn(&[("total", "<script>alert(1)</script>")]);
        let json = serde_json::to_string(&drawing.patches("total")).unwrap();
        assert!(!json.contains("<script>"), "{json}");
    }

    #[test]
    fn the_words_of_a_moment_are_no_change() {
        let time = |words| format!(r#"<p><time datetime="2026">{words}</time> b</p>"#);
        assert_eq!(print(&time("1 min ago")), print(&time("2 min ago")));
        assert_ne!(
            print(&time("now")),
            print(&time("now").replace("2026", "2027"))
        );
        assert_ne!(print("a"), print("b"));
    }
}
