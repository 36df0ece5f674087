//! Consent: acts that destroy something ask first on a terminal, and need `--yes` elsewhere.

use std::io::{IsTerminal, Write, stderr, stdin};

use anyhow::{Context, Result, bail};

use super::command::Consent;

/// Whether the act may go on; `what` is the whole question, such as
/// `reset lab-07: what it wrote since 9:12 is set aside`.
pub(super) fn consent(given: Consent, what: &str) -> Result<()> {
    if given.yes {
        return Ok(());
    }
    if !(stdin().is_terminal() && stderr().is_terminal()) {
        bail!(
            "{what}\nthis needs --yes where there is no terminal to ask on; --dry-run shows it without doing it"
        );
    }
    let mut terminal = stderr().lock();
    write!(terminal, "{what}\nGo on? [y/N] ")
        .and_then(|()| terminal.flush())
        .context("asking")?;
    let mut answer = String::new();
    stdin()
        .read_line(&mut answer)
        .context("reading the answer")?;
    if matches!(answer.trim(), "y" | "Y" | "yes" | "Yes") {
        return Ok(());
    }
    bail!("nothing was done")
}
