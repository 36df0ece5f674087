//! `netroot image set`

use anyhow::Result;

use crate::cli::command::{Cli, ImageSet};
use crate::cli::print;
use crate::cli::reach::Reach;
use crate::library::{ImageEdit, Way};

pub(in crate::cli) fn set(cli: &Cli, args: &ImageSet) -> Result<()> {
    let reach = Reach::new(cli)?;
    let edit = ImageEdit {
        way: Some(args.way.clone().value()),
    };
    if args.run.dry_run {
        let plan = reach.plan_edit_image(&args.name, &edit)?;
        if cli.json {
            return print::json(&plan);
        }
        let head = match plan.steps.is_empty() {
            true => format!("{}: nothing to change", plan.image),
            false => format!("{}: would", plan.image),
        };
        let steps = plan.steps.iter().map(|step| format!("  {step}"));
        return print::lines(std::iter::once(head).chain(steps));
    }
    let image = reach.edit_image(&args.name, &edit)?;
    match cli.json {
        true => print::json(&image),
        false => print::lines([format!("{}: {}", image.name, told_way(image.way))]),
    }
}

/// What is said of the way of an image.
pub(super) fn told_way(way: Option<Way>) -> String {
    match way {
        Some(way) => format!("way {way}, where neither a client nor a group of it says another"),
        None => "no way of its own".to_owned(),
    }
}
