//! axe-core, which finds what keeps people with other senses or hands from using a page.

use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;
use xtask::program::run;

use crate::driver::Browser;

/// The script, from the npm registry, kept in the laboratory. Only tests use it.
static AXE: LazyLock<String> = LazyLock::new(|| {
    const PACKAGE: &str = "axe-core@4.10.3";
    let dir = xtask::lab_dir().join("npm");
    let script = dir.join("package/axe.min.js");
    if !script.exists() {
        std::fs::create_dir_all(&dir).unwrap();
        run(Command::new("npm")
            .args(["pack", "--silent", PACKAGE])
            .current_dir(&dir))
        .expect("axe-core cannot be fetched: install npm");
        run(Command::new("tar")
            .args(["-xzf", "axe-core-4.10.3.tgz"])
            .current_dir(&dir))
        .unwrap();
    }
    std::fs::read_to_string(script).unwrap()
});

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rules {
    /// WCAG 2.1 A and AA, and what is good practice besides.
    All,
    /// Only what another scheme of colours changes.
    Colours,
}

/// Serious and critical violations on the page that is open, a line each.
pub(crate) async fn violations(browser: &Browser, rules: Rules) -> Vec<String> {
    let there = browser.eval("return typeof axe === 'object'").await;
    if there != true {
        browser.eval(&AXE).await;
    }
    let rules = match rules {
        Rules::All => "['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']",
        Rules::Colours => "['color-contrast']",
    };
    let script = format!(
        "const done = arguments[arguments.length - 1]; axe.run(document, {{ runOnly: {rules} }}) \
        .then((found) => done(found.violations), (error) => done([{{ id: String(error), impact: 'critical', nodes: [] }}]));"
    );
    let found = browser.page.execute_async(&script, vec![]).await.unwrap();
    let serious = |one: &&Value| matches!(one["impact"].as_str(), Some("serious" | "critical"));
    let found = found.as_array().cloned().unwrap_or_default();
    found
        .iter()
        .filter(serious)
        .map(|one| {
            let nodes = one["nodes"].as_array().into_iter().flatten();
            let targets: Vec<String> = nodes
                .take(3)
                .map(|node| format!("{} {}", node["target"], node["failureSummary"]))
                .collect();
            format!("{}: {}", one["id"], targets.join("; "))
        })
        .collect()
}
