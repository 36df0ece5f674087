//! Other people's load generators, so that nobody has to trust ours: `iscsi-perf` of libiscsi and
//! `qemu-img bench`. Their own costs are larger, and hide more of the server's.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::load::Order;
use super::login::{Door, Manner};
use super::measure::Slice;
use super::pattern::BLOCK;
use super::place::SIZE;
use super::scenario::{Scenario, Shape, Work};
use crate::program::{command, run};

/// Who makes the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// This program.
    Own,
    /// libiscsi's.
    IscsiPerf,
    /// QEMU's.
    QemuImg,
}

/// Commands of a run of `qemu-img bench`, which is not told for how long: as many bytes as the disk has,
/// or so many commands.
const COMMANDS: u64 = 20_000;

impl Tool {
    /// What it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Tool::Own => "own",
            Tool::IscsiPerf => "iscsi-perf",
            Tool::QemuImg => "qemu-img",
        }
    }

    /// Whether it can do what a scenario asks for.
    pub(super) fn can(self, scenario: &Scenario) -> bool {
        let Work::Load(shape) = scenario.work else {
            return self == Tool::Own;
        };
        let plain = shape.sessions == 1 && shape.manner == Manner::OPEN_ISCSI;
        match self {
            Tool::Own => true,
            Tool::IscsiPerf => plain && shape.reads == 100,
            Tool::QemuImg => {
                plain && shape.order == Order::Sequential && [0, 100].contains(&shape.reads)
            }
        }
    }
}

/// A slice by another's generator.
///
/// # Errors
/// When it fails, or does not tell what it has done.
pub(super) fn slice(tool: Tool, door: &Door, shape: &Shape, time: Duration) -> Result<Slice> {
    match tool {
        Tool::Own => bail!("that is no foreign tool"),
        Tool::IscsiPerf => iscsi_perf(door, shape, time),
        Tool::QemuImg => qemu_img(door, shape),
    }
}

fn iscsi_perf(door: &Door, shape: &Shape, time: Duration) -> Result<Slice> {
    let seconds = time.as_secs().max(1);
    let mut perf = command("iscsi-perf", ["-i", &door.initiator]);
    perf.args(["-m", &shape.depth.to_string()])
        .args(["-b", &(u64::from(shape.bytes) / BLOCK).to_string()])
        .args(["-t", &seconds.to_string()]);
    if shape.order == Order::Random {
        perf.arg("-r");
    }
    let said = run(perf.arg(door.url()))?;
    let commands = average(&said).with_context(|| format!("iscsi-perf tells no rate: {said}"))?;
    Ok(Slice {
        commands: (commands * seconds as f64) as u64,
        bytes: (commands * seconds as f64) as u64 * u64::from(shape.bytes),
        seconds: seconds as f64,
        ..Slice::default()
    })
}

/// Commands a second over the whole run: `iops average 18234 (71 MB/s)`, the last time it is told.
fn average(said: &str) -> Option<f64> {
    let (_, rest) = said.rsplit_once("iops average ")?;
    rest.split_whitespace().next()?.parse().ok()
}

fn qemu_img(door: &Door, shape: &Shape) -> Result<Slice> {
    let count = COMMANDS.min(SIZE / u64::from(shape.bytes));
    let image = format!(
        "driver=iscsi,transport=tcp,portal={},target={},lun={},initiator-name={}",
        door.portal, door.target, door.lun, door.initiator
    );
    let mut bench = command("qemu-img", ["bench", "--image-opts", "-t", "none"]);
    bench
        .args(["-c", &count.to_string()])
        .args(["-d", &shape.depth.to_string()])
        .args(["-s", &shape.bytes.to_string()]);
    if shape.writes() {
        bench.arg("-w");
    }
    let began = Instant::now();
    let said = run(bench.arg(image))?;
    let took = began.elapsed().as_secs_f64();
    let told = said.rsplit_once("Run completed in ");
    let told = told.and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<f64>().ok());
    Ok(Slice {
        commands: count,
        bytes: count * u64::from(shape.bytes),
        seconds: told.unwrap_or(took),
        ..Slice::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_average_counts() {
        let said = "iops average 100 (0 MB/s) iops current 100\riops average 18234 (71 MB/s)\n";
        assert_eq!(average(said), Some(18234.0));
        assert_eq!(average("nothing"), None);
    }
}
