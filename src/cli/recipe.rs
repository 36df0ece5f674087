//! `netroot recipe …`

use anyhow::Result;

use super::command::Cli;
use super::{open, print};
use crate::build::{Origin, Recipe, RecipeView, Recipes};

/// The library's; those that are built in where there is no library yet, for people who look around
/// before they make one.
fn recipes(cli: &Cli) -> Result<Recipes> {
    match cli.library.join("netroot.toml").exists() {
        true => Recipes::of(&open(cli)?),
        false => {
            let place = cli.library.display();
            print::aside(&format!(
                "{place} is no library: these are the recipes that are built in"
            ));
            Recipes::built_in()
        }
    }
}

pub(super) fn list(cli: &Cli) -> Result<()> {
    let recipes = recipes(cli)?;
    let rows: Vec<RecipeView> = recipes.iter().map(Recipe::view).collect();
    if cli.json {
        return print::json(&rows);
    }
    let mut table = print::Table::new(&["RECIPE", "FOR", "CAN", "OFFERS", "FROM"]);
    for row in rows {
        table.row([
            row.name,
            row.distributions.join(", "),
            row.can.join(", "),
            row.offers.join(", "),
            match row.origin {
                Origin::BuiltIn => String::from("netroot"),
                Origin::File(path) => path.display().to_string(),
            },
        ]);
    }
    table.print("no recipes")
}

pub(super) fn show(cli: &Cli, name: &str) -> Result<()> {
    let recipes = recipes(cli)?;
    let recipe = recipes.named(name)?;
    match cli.json {
        true => print::json(&serde_json::json!({
            "name": recipe.name(),
            "origin": recipe.origin(),
            "text": recipe.text(),
        })),
        false => print::lines(recipe.text().lines().map(str::to_owned)),
    }
}
