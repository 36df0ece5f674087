//! A boot as bars: from where to where on a line each of its stages goes.

use jiff::{SignedDuration, Timestamp};

use super::{BootLine, BootStage, BootStep};

/// A stage on the line of its boot.
#[derive(Debug, Clone)]
pub struct DrawnStep<'a> {
    /// The stage.
    pub step: &'a BootStep,
    /// How long after the beginning of the boot it began.
    pub after: SignedDuration,
    /// How long it took: until its file was sent, or the next stage began. Nothing for the last one.
    pub took: Option<SignedDuration>,
    /// From where to where its bar goes, in thousandths of the line; nothing where it is long after.
    pub bar: Option<(u32, u32)>,
}

impl BootLine {
    /// Its stages as they are drawn. A line is as long as the boot took until its system read from its
    /// disk, or as what was seen of one whose system never had it: what comes long after that would leave
    /// no room for the rest.
    pub fn drawn(&self) -> Vec<DrawnStep<'_>> {
        let end = self.drawn_until();
        let whole = self.after(end).as_millis().max(1);
        let part = |at: Timestamp| {
            let part = self.after(at).as_millis() * 1000 / whole;
            u32::try_from(part.clamp(0, 1000)).unwrap_or(1000)
        };
        let next = self.steps.iter().skip(1).map(|step| Some(step.at));
        let steps = self.steps.iter().zip(next.chain([None]));
        let drawn = steps.map(|(step, next)| {
            let until = step.until.or(next).filter(|until| *until >= step.at);
            // It goes on, or is where the boot stopped.
            let to = until.unwrap_or(end).min(end);
            DrawnStep {
                step,
                after: self.after(step.at),
                took: until.map(|until| until.duration_since(step.at)),
                bar: (step.at <= end).then(|| (part(step.at), part(to))),
            }
        });
        drawn.collect()
    }

    /// How long it took until its system had its disk; nothing while it has not.
    pub fn took(&self) -> Option<SignedDuration> {
        self.step(BootStage::System).map(|step| self.after(step.at))
    }

    fn drawn_until(&self) -> Timestamp {
        let had_disk = self.reached(BootStage::System);
        let early = |step: &&BootStep| !had_disk || step.stage <= BootStage::FirstRead;
        let steps = self.steps.iter().filter(early);
        let ends = steps.map(|step| step.until.unwrap_or(step.at).max(step.at));
        ends.fold(self.began, Timestamp::max)
    }
}

/// A stretch of time as people read it: `0.4 s`, `41 s`, `3 min 5 s`, `2 h 5 min`.
pub fn stretch(time: SignedDuration) -> String {
    let seconds = time.as_secs().max(0);
    let tenths = (time.as_millis().max(0) + 50) / 100;
    match seconds {
        0..10 => format!("{}.{} s", tenths / 10, tenths % 10),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::BootOutcome;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + millis).unwrap()
    }

    #[test]
    fn stages_share_the_line_until_the_system_reads() {
        let mut line = BootLine::new(at(0));
        line.outcome = BootOutcome::Up;
        for (stage, millis) in [
            (BootStage::Script, 0),
            (BootStage::Kernel, 1000),
            (BootStage::System, 8000),
            (BootStage::FirstRead, 10_000),
            (BootStage::FirstWrite, 90_000),
        ] {
            line.steps.push(BootStep::new(stage, at(millis)));
        }
        line.steps[1].until = Some(at(4000));
        let drawn = line.drawn();
        let bars: Vec<_> = drawn.iter().map(|one| one.bar).collect();
        let expected = [(0, 100), (100, 400), (800, 1000), (1000, 1000)];
        assert_eq!(bars, [&expected.map(Some)[..], &[None]].concat());
        assert_eq!(drawn[1].took, Some(SignedDuration::from_secs(3)));
        assert_eq!(line.took(), Some(SignedDuration::from_secs(8)));
        assert!(BootLine::new(at(0)).drawn().is_empty());
    }

    #[test]
    fn a_line_without_a_system_goes_to_its_end() {
        let mut line = BootLine::new(at(0));
        line.outcome = BootOutcome::Ended;
        for (stage, millis) in [(BootStage::Menu, 1000), (BootStage::End, 5000)] {
            line.steps.push(BootStep::new(stage, at(millis)));
        }
        let bars: Vec<_> = line.drawn().iter().map(|one| one.bar).collect();
        assert_eq!(bars, [Some((200, 1000)), Some((1000, 1000))]);
    }

    #[test]
    fn a_stretch_is_told_in_two_units_at_most() {
        let told = |millis| stretch(SignedDuration::from_millis(millis));
        for (millis, words) in [
            (-5, "0.0 s"),
            (440, "0.4 s"),
            (9_949, "9.9 s"),
            (41_200, "41 s"),
            (185_000, "3 min 5 s"),
            (7_500_000, "2 h 5 min"),
            (864_000_000, "10 days"),
        ] {
            assert_eq!(told(millis), words);
        }
    }
}
