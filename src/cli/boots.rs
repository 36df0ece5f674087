//! How clients booted, drawn for a terminal.

use anyhow::Result;

use super::command::Cli;
use super::print;
use super::reach::Reach;
use crate::library::{
    BootLine, BootOutcome, BootStep, ClientSelector, ClientView, DrawnStep, MacAddr, stretch,
};

/// How many characters a bar may have.
const WIDTH: u32 = 30;

/// The last boots of the clients that are meant.
pub(super) fn show(cli: &Cli, client: &ClientSelector) -> Result<()> {
    let reach = Reach::new(cli)?;
    let mut all = Vec::new();
    for ClientView { client, .. } in reach.select(client)? {
        let boots = reach.boots(&client.mac)?;
        all.push((client.name, client.mac, boots));
    }
    if cli.json {
        return match (all.as_slice(), client) {
            ([(.., boots)], ClientSelector::Mac(_) | ClientSelector::Name(_)) => print::json(boots),
            _ => {
                let boots = all.iter().map(|(_, mac, boots)| (mac, boots));
                print::json(&boots.collect::<std::collections::BTreeMap<_, _>>())
            }
        };
    }
    print::lines(all.iter().flat_map(|(name, mac, boots)| {
        let none = boots
            .is_empty()
            .then(|| "  no boot was seen yet".to_owned());
        let head = format!("{name}  {mac}");
        let boots = boots.iter().flat_map(drawn);
        std::iter::once(head).chain(none).chain(boots)
    }))
}

/// The last boot of a client, for what is told of it besides.
pub(super) fn last(reach: &Reach, mac: &MacAddr) -> Result<Vec<String>> {
    Ok(reach.boots(mac)?.first().map(drawn).unwrap_or_default())
}

/// A line about the boot, and one for each of its stages.
fn drawn(line: &BootLine) -> Vec<String> {
    let mut head = format!("  booted    {}", print::moment(line.began));
    if let Some(peer) = line.peer {
        head.push_str(&format!(" from {peer}"));
    }
    if let Some(version) = &line.version {
        head.push_str(&format!(", {version}"));
    }
    if let Some(firmware) = line.firmware {
        head.push_str(&format!(", {firmware}"));
    }
    head.push_str(&format!(": {}", line.outcome));
    if let (BootOutcome::Up | BootOutcome::Ended, Some(took)) = (line.outcome, line.took()) {
        head.push_str(&format!(" after {}", stretch(took)));
    }
    let mut lines = vec![head];
    if line.says_more() {
        lines.push(format!("            {}", print::printable(&line.told)));
    }
    if line.reconnects > 0 {
        let times = match line.reconnects {
            1 => "once".to_owned(),
            more => format!("{more} times"),
        };
        lines.push(format!("            came back {times}"));
    }
    lines.extend(line.drawn().iter().map(|one| {
        let row = format!(
            "  {:>9} {:<15}{:<width$}  {}",
            stretch(one.after),
            one.step.stage.as_str(),
            bar(one),
            print::printable(&more(one)),
            width = WIDTH as usize
        );
        row.trim_end().to_owned()
    }));
    lines
}

fn bar(one: &DrawnStep<'_>) -> String {
    let Some((from, to)) = one.bar else {
        return String::new();
    };
    let from = (from * WIDTH / 1000).min(WIDTH - 1);
    let to = (to * WIDTH).div_ceil(1000).max(from + 1).min(WIDTH);
    format!(
        "{}{}",
        " ".repeat(from as usize),
        "=".repeat((to - from) as usize)
    )
}

/// What else there is to tell of a stage.
fn more(one: &DrawnStep<'_>) -> String {
    let BootStep {
        bytes, of, file, ..
    } = one.step;
    let took = one.took.map(stretch);
    match (bytes, of, file) {
        (Some(bytes), Some(of), _) if bytes < of => {
            format!("{} of {}", print::bytes(*bytes), print::bytes(*of))
        }
        (Some(_), Some(of), _) => match took {
            Some(took) => format!("{} in {took}", print::bytes(*of)),
            None => print::bytes(*of),
        },
        (_, _, Some(file)) => file.clone(),
        _ => String::new(),
    }
}
