//! The last boots of a client, drawn as bars.

use askama::Template;

use super::text;
use crate::daemon::Server;
use crate::library::{BootLine, BootOutcome, BootStage, DrawnStep, MacAddr, stretch};

/// The last boots of a client, the latest first.
#[derive(Template)]
#[template(path = "client-boots.html")]
pub(super) struct Boots {
    boots: Vec<BootLine>,
}

impl Boots {
    pub(super) fn of(server: &Server, mac: &MacAddr) -> Self {
        let boots = server.boots_of(mac).unwrap_or_else(|error| {
            tracing::error!(%error, %mac, "cannot read how a client booted");
            Vec::new()
        });
        Boots { boots }
    }

    /// How long it took until its system had its disk.
    fn took(&self, line: &BootLine) -> Option<String> {
        line.took().map(stretch)
    }

    /// How long after the beginning of its boot a stage began.
    fn after(&self, one: &DrawnStep<'_>) -> String {
        stretch(one.after)
    }

    fn badge(&self, line: &BootLine) -> &'static str {
        match line.outcome {
            BootOutcome::Booting => "busy",
            BootOutcome::Up => "good",
            BootOutcome::Ended => "idle",
            BootOutcome::Failed => "bad",
        }
    }

    /// What kind of stage it is, for its colour: the last one of a boot that failed is where it stopped.
    fn kind(&self, line: &BootLine, one: &DrawnStep<'_>) -> &'static str {
        let stage = one.step.stage;
        match stage {
            stage if line.outcome == BootOutcome::Failed && line.last() == Some(stage) => "stopped",
            BootStage::Kernel | BootStage::Initramfs | BootStage::Identity | BootStage::Loader => {
                "fetches"
            }
            BootStage::Firmware
            | BootStage::Discovery
            | BootStage::System
            | BootStage::FirstRead
            | BootStage::FirstWrite => "disk",
            BootStage::Dhcp | BootStage::Menu | BootStage::Script | BootStage::End => "asks",
        }
    }

    /// Where the bar begins, and how wide it is: none is too thin to be seen.
    fn bar(&self, one: &DrawnStep<'_>) -> Option<(u32, u32)> {
        const LEAST: u32 = 8;
        let (from, to) = one.bar?;
        let from = from.min(1000 - LEAST);
        Some((from, to.saturating_sub(from).max(LEAST)))
    }

    /// What else there is to tell of a stage.
    fn more(&self, one: &DrawnStep<'_>) -> String {
        let step = one.step;
        let took = one.took.map(stretch);
        match (step.bytes, step.of, &step.file) {
            (Some(bytes), Some(of), _) if bytes < of => {
                format!("{} of {}", text::bytes(bytes), text::bytes(of))
            }
            (Some(_), Some(of), _) => match took {
                Some(took) => format!("{} in {took}", text::bytes(of)),
                None => text::bytes(of).to_string(),
            },
            (_, _, Some(file)) => text::told(file),
            _ => String::new(),
        }
    }

    /// What the picture shows, for whoever does not see it.
    fn said(&self, line: &BootLine) -> String {
        let stages: Vec<String> = line
            .steps
            .iter()
            .map(|step| {
                format!(
                    "{} after {}",
                    step.stage.as_str(),
                    stretch(line.after(step.at))
                )
            })
            .collect();
        stages.join(", ")
    }
}
