//! The last minute as a small line.

use crate::daemon::{History, Pace, Rate};

/// How wide and high a line is, in units of its own.
const WIDTH: f64 = 60.0;
const HEIGHT: f64 = 20.0;

/// Less than this is a flat line: a heartbeat should not look like a storm.
const SCALE: u64 = 64 << 10;

/// Two lines of a chart: what was read, and what was written.
pub(in crate::web) struct Spark {
    /// An SVG path.
    pub read: String,
    /// Another one.
    pub written: String,
}

impl Spark {
    /// Nothing where nothing went over the wire.
    pub(in crate::web) fn of(history: &History) -> Option<Spark> {
        if history.is_idle() {
            return None;
        }
        Some(Spark::drawn(history.samples(), 1.0))
    }

    /// The same in the steps of a list.
    pub(in crate::web) fn of_pace(pace: &Pace) -> Spark {
        Spark::drawn(pace.samples(), f64::from(Pace::SECONDS))
    }

    /// Each sample takes so much of the width.
    fn drawn(samples: impl ExactSizeIterator<Item = Rate> + Clone, each: f64) -> Spark {
        let top = samples.clone().map(|rate| rate.read.max(rate.written));
        let top = top.max().unwrap_or(0).max(SCALE);
        Spark {
            read: path(samples.clone().map(|rate| rate.read), top, each),
            written: path(samples.map(|rate| rate.written), top, each),
        }
    }
}

/// The latest sample stands at the right edge, the top of the scale one unit below the upper one.
fn path(samples: impl ExactSizeIterator<Item = u64>, top: u64, each: f64) -> String {
    let begin = WIDTH - samples.len() as f64 * each;
    let mut path = String::with_capacity(samples.len() * 10);
    for (at, sample) in samples.enumerate() {
        let letter = if at == 0 { 'M' } else { 'L' };
        let part = sample as f64 / top as f64;
        let y = HEIGHT - 1.0 - part * (HEIGHT - 2.0);
        path.push_str(&format!(
            "{letter}{} {y:.1}",
            begin + (at as f64 + 1.0) * each
        ));
    }
    path
}
