//! A line of versions, drawn: a column for each line of descent, the newest above.

/// What is drawn of one version.
pub(super) struct Node {
    /// Its number.
    pub(super) number: u32,
    /// The version of the same image that it was made from, if that is there.
    pub(super) parent: Option<u32>,
    /// It is current.
    pub(super) current: bool,
    /// What is written beside it.
    pub(super) lines: Vec<String>,
}

/// The drawing, of versions with the newest first.
pub(super) fn drawn(nodes: &[Node]) -> Vec<String> {
    // What each column waits for: the number of the next version in it.
    let mut columns: Vec<Option<u32>> = Vec::new();
    let mut lines = Vec::new();
    for node in nodes {
        let waiting = |column: &Option<u32>| *column == Some(node.number);
        let place = match columns.iter().position(waiting) {
            Some(place) => place,
            None => free_column(&mut columns),
        };
        if columns.iter().filter(|column| waiting(column)).count() > 1 {
            lines.push(joined(&columns, node.number, place));
            for column in columns.iter_mut().skip(place + 1) {
                if *column == Some(node.number) {
                    *column = None;
                }
            }
            trim(&mut columns);
        }
        let mark = if node.current { '●' } else { '○' };
        let mut text = node.lines.iter();
        if let Some(column) = columns.get_mut(place) {
            *column = Some(node.number);
        }
        lines.push(beside(&columns, Some((place, mark)), text.next()));
        if let Some(column) = columns.get_mut(place) {
            *column = node.parent;
        }
        lines.extend(text.map(|text| beside(&columns, None, Some(text))));
        trim(&mut columns);
    }
    lines
}

/// Forgets columns at the right that wait for nothing.
fn trim(columns: &mut Vec<Option<u32>>) {
    while columns.last().is_some_and(Option::is_none) {
        columns.pop();
    }
}

fn free_column(columns: &mut Vec<Option<u32>>) -> usize {
    columns.iter().position(Option::is_none).unwrap_or_else(|| {
        columns.push(None);
        columns.len() - 1
    })
}

/// The line on which all columns that wait for a version become one.
fn joined(columns: &[Option<u32>], number: u32, place: usize) -> String {
    let last = columns
        .iter()
        .rposition(|column| *column == Some(number))
        .unwrap_or(place);
    let mut line = String::new();
    for (at, column) in columns.iter().enumerate() {
        let within = at > place && at < last;
        let joins = *column == Some(number);
        line.push_str(match (column, joins) {
            _ if at == place => "├─",
            (_, true) if at == last => "╯ ",
            (_, true) => "┴─",
            (Some(_), false) if within => "┼─",
            (None, false) if within => "──",
            (Some(_), false) => "│ ",
            (None, false) => "  ",
        });
    }
    line.trim_end().to_owned()
}

fn beside(columns: &[Option<u32>], node: Option<(usize, char)>, text: Option<&String>) -> String {
    let mut line = String::new();
    for (at, column) in columns.iter().enumerate() {
        let mark = match (node, column) {
            (Some((place, mark)), _) if place == at => mark,
            (_, Some(_)) => '│',
            (_, None) => ' ',
        };
        line.extend([mark, ' ']);
    }
    line.push(' ');
    line.push_str(text.map_or("", String::as_str));
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(versions: &[(u32, Option<u32>)], current: u32) -> String {
        let node = |&(number, parent): &(u32, Option<u32>)| Node {
            number,
            parent,
            current: number == current,
            lines: vec![format!("@{number}"), "more".into()],
        };
        let nodes: Vec<Node> = versions.iter().rev().map(node).collect();
        drawn(&nodes).join("\n")
    }

    #[test]
    fn a_chain_is_one_column() {
        let chain = picture(&[(1, None), (2, Some(1)), (3, Some(2))], 2);
        assert_eq!(chain, "○  @3\n│  more\n●  @2\n│  more\n○  @1\n   more");
    }

    #[test]
    fn a_branch_joins_where_it_began() {
        let branch = picture(&[(1, None), (2, Some(1)), (3, Some(1)), (4, Some(2))], 4);
        assert_eq!(
            branch,
            "●  @4\n│  more\n│ ○  @3\n│ │  more\n○ │  @2\n│ │  more\n├─╯\n○  @1\n   more"
        );
    }

    #[test]
    fn what_was_built_anew_begins_a_line_of_its_own() {
        let two = picture(&[(1, None), (2, None), (3, Some(1))], 3);
        assert_eq!(two, "●  @3\n│  more\n│ ○  @2\n│    more\n○  @1\n   more");
    }
}
