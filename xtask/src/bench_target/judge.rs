//! Numbers out of slices: medians, ratios with their spread, and what is reached.

use std::collections::BTreeMap;

use super::contender::NETROOT;
use super::limits::Rate;
use super::measure::{COPIES, EACH, SLOWEST, Slice};
use super::profile::Profile;
use super::scenario::{Floor, Scenario, Work};
use crate::bench::{median, spread};

/// What one contender has shown in a scenario.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) name: &'static str,
    /// One for each round.
    pub(super) slices: Vec<Slice>,
}

/// A middle value, and the least and the most of all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

/// All of a scenario.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) scenario: &'static Scenario,
    pub(super) peer: Shown,
    pub(super) ours: Shown,
    /// The null target, where there is one for this.
    pub(super) null: Option<Shown>,
    /// The plain sendfile loop in the same rounds, where that is compared.
    pub(super) sendfile: Vec<Rate>,
    /// Where the time of ours goes.
    pub(super) profile: Profile,
}

/// A ratio with as many digits as it needs.
pub(super) fn times(ratio: f64) -> String {
    if ratio < 0.1 {
        format!("{ratio:.4}")
    } else {
        format!("{ratio:.2}")
    }
}

/// A floor, and what was found there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verdict {
    pub(super) floor: Floor,
    pub(super) found: f64,
    /// What is found of who does less than any target has to, where that tells how far one could go.
    pub(super) least_work: Option<LeastWork>,
}

/// Somebody who does less than any target has to, and what is found of him.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct LeastWork {
    pub(super) name: &'static str,
    pub(super) found: f64,
}

impl Spread {
    pub(super) fn of(all: &[f64]) -> Self {
        let (least, most) = spread(all);
        Spread {
            median: median(all),
            least,
            most,
        }
    }
}

impl Shown {
    fn all(&self, value: impl Fn(&Slice) -> f64) -> Vec<f64> {
        self.slices.iter().map(value).collect()
    }

    pub(super) fn commands_a_second(&self) -> Spread {
        Spread::of(&self.all(Slice::commands_a_second))
    }

    pub(super) fn mib_a_second(&self) -> Spread {
        Spread::of(&self.all(Slice::mib_a_second))
    }

    /// Processor time over all rounds, in microseconds: a slice of it is told in steps of 10 ms only.
    fn processor_us(&self) -> f64 {
        self.all(|slice| slice.processor).iter().sum::<f64>() * 1e6
    }

    pub(super) fn us_a_command(&self) -> f64 {
        let commands: u64 = self.slices.iter().map(|slice| slice.commands).sum();
        self.processor_us() / commands as f64
    }

    pub(super) fn us_a_mib(&self) -> f64 {
        self.processor_us() / self.all(Slice::mib).iter().sum::<f64>()
    }

    /// Processors that were busy with it, on average.
    pub(super) fn busy(&self) -> f64 {
        self.processor_us() / 1e6 / self.all(|slice| slice.seconds).iter().sum::<f64>()
    }

    /// Processors that the load kept busy.
    pub(super) fn load_busy(&self) -> f64 {
        let load: f64 = self.all(|slice| slice.load).iter().sum();
        load / self.all(|slice| slice.seconds).iter().sum::<f64>()
    }

    /// Bytes of memory in the last round.
    pub(super) fn resident(&self) -> u64 {
        self.slices.last().map_or(0, |slice| slice.resident)
    }

    /// What else the scenario shows.
    pub(super) fn more(&self) -> BTreeMap<&'static str, f64> {
        let names = self.slices.first().map(|slice| slice.more.keys());
        let middle = |name: &&'static str| (*name, median(&self.value(name)));
        names.into_iter().flatten().map(middle).collect()
    }

    fn value(&self, name: &str) -> Vec<f64> {
        let values = self.slices.iter().filter_map(|slice| slice.more.get(name));
        values.copied().collect()
    }
}

impl Outcome {
    /// What makes a contender good here: commands or bytes a second, or how little memory it takes.
    fn rate(&self, slice: &Slice) -> f64 {
        match self.scenario.work {
            Work::Idle(_) => 1.0 / slice.more.get(EACH).copied().unwrap_or(f64::NAN).max(1.0),
            Work::Storm(_) => slice.mib_a_second(),
            _ => slice.commands_a_second(),
        }
    }

    /// How many times as good ours is: by medians, and in the rounds one by one.
    pub(super) fn ratio(&self) -> Spread {
        let rates = |shown: &Shown| shown.all(|slice| self.rate(slice));
        let (ours, peer) = (rates(&self.ours), rates(&self.peer));
        let rounds: Vec<f64> = ours
            .iter()
            .zip(&peer)
            .map(|(ours, peer)| ours / peer)
            .collect();
        Spread {
            median: median(&ours) / median(&peer),
            ..Spread::of(&rounds)
        }
    }

    /// What is reached, if it is netroot that is measured.
    pub(super) fn verdicts(&self) -> Vec<Verdict> {
        let is_ours = |_: &&Floor| self.ours.name == NETROOT;
        let floors = self.scenario.floors.iter().filter(is_ours);
        floors.map(|floor| self.verdict(*floor)).collect()
    }

    fn verdict(&self, floor: Floor) -> Verdict {
        let (ours, peer) = (&self.ours, &self.peer);
        let of_ours = |name| median(&ours.value(name));
        let found = match floor {
            Floor::Ratio(_) => self.ratio().median,
            Floor::ProcessorOfCommand(_) => ours.us_a_command() / peer.us_a_command(),
            Floor::ProcessorOfMib(_) => ours.us_a_mib() / peer.us_a_mib(),
            Floor::OfSendfile(_) => {
                let plain = self.sendfile_median().map(|rate| rate.mib_a_second);
                ours.mib_a_second().median / plain.unwrap_or(f64::NAN)
            }
            Floor::Resident(_) => of_ours(EACH),
            Floor::Slowest(_) => of_ours(SLOWEST),
            Floor::Copies(_) => of_ours(COPIES),
        };
        Verdict {
            floor,
            found,
            least_work: self.least_work(floor, found),
        }
    }

    /// What the same floor finds of the plain sendfile loop, or else of the null target. That one sleeps
    /// between commands and copies what it sends: where `ours` is beyond it, it tells nothing. Nor does it
    /// of fairness, which it has none of.
    fn least_work(&self, floor: Floor, ours: f64) -> Option<LeastWork> {
        let peer = &self.peer;
        if let Some(rate) = self.sendfile_median() {
            let found = match floor {
                Floor::Ratio(_) => rate.mib_a_second / peer.mib_a_second().median,
                Floor::ProcessorOfMib(_) => rate.us_a_mib / peer.us_a_mib(),
                _ => return None,
            };
            let name = "the sendfile loop";
            return Some(LeastWork { name, found });
        }
        if let Work::Fairness { .. } = self.scenario.work {
            return None;
        }
        let null = self.null.as_ref()?;
        let rate = |shown: &Shown| median(&shown.all(|slice| self.rate(slice)));
        let (found, is_bound) = match floor {
            Floor::Ratio(_) => {
                let found = rate(null) / rate(peer);
                (found, found >= ours)
            }
            Floor::ProcessorOfCommand(_) => {
                let found = null.us_a_command() / peer.us_a_command();
                (found, found <= ours)
            }
            _ => return None,
        };
        let name = "the null target";
        is_bound.then_some(LeastWork { name, found })
    }

    /// The plain sendfile loop's medians.
    pub(super) fn sendfile_median(&self) -> Option<Rate> {
        let middle = |value: fn(&Rate) -> f64| {
            let all: Vec<_> = self.sendfile.iter().map(value).collect();
            median(&all)
        };
        (!self.sendfile.is_empty()).then(|| Rate {
            mib_a_second: middle(|rate| rate.mib_a_second),
            us_a_mib: middle(|rate| rate.us_a_mib),
        })
    }
}

impl Verdict {
    pub(super) fn reaches(&self) -> bool {
        match self.floor {
            Floor::Ratio(least) | Floor::OfSendfile(least) => self.found >= least,
            Floor::ProcessorOfCommand(most)
            | Floor::ProcessorOfMib(most)
            | Floor::Resident(most)
            | Floor::Slowest(most)
            | Floor::Copies(most) => self.found <= most,
        }
    }

    /// In words: what is asked for, and what was found.
    pub(super) fn told(&self, peer: &str) -> String {
        let found = self.found;
        let told = match self.floor {
            Floor::Ratio(least) => format!("at least {least} x {peer}: {found:.2}"),
            Floor::OfSendfile(least) => {
                format!("at least {least} of the sendfile loop: {found:.2}")
            }
            Floor::ProcessorOfCommand(most) => {
                format!("at most {most:.2} of {peer}'s processor time a command: {found:.2}")
            }
            Floor::ProcessorOfMib(most) => {
                format!("at most {most:.2} of {peer}'s processor time a MiB: {found:.2}")
            }
            Floor::Resident(most) => format!("at most {most:.0} bytes a session: {found:.0}"),
            Floor::Slowest(most) => {
                format!("the slowest client at most {most} x the fastest: {found:.2}")
            }
            Floor::Copies(most) => format!(
                "at most {most} of what a boot reads in the page cache for clones: {found:.2}"
            ),
        };
        let reaches = if self.reaches() {
            "reaches"
        } else {
            "falls short"
        };
        let beside = self.least_work.map_or_else(String::new, |least| {
            format!(" ({}: {:.2})", least.name, least.found)
        });
        format!("{reaches}: {told}{beside}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::ALL;
    use super::*;

    fn shown(name: &'static str, rates: &[u64], processor: f64) -> Shown {
        let slice = |commands: &u64| Slice {
            commands: *commands,
            bytes: commands << 12,
            seconds: 1.0,
            processor,
            ..Slice::default()
        };
        Shown {
            name,
            slices: rates.iter().map(slice).collect(),
        }
    }

    #[test]
    fn ratios_are_of_medians_and_spread_over_rounds() {
        let scenario = ALL.iter().find(|scenario| scenario.name == "read-4k-qd32");
        let outcome = Outcome {
            scenario: scenario.unwrap(),
            peer: shown("tgt", &[100, 200, 100], 0.6),
            ours: shown("netroot", &[300, 400, 350], 0.5),
            null: None,
            sendfile: Vec::new(),
            profile: Profile::Unknown(String::new()),
        };
        let ratio = outcome.ratio();
        assert!((ratio.median - 3.5).abs() < 1e-9);
        assert!((ratio.least - 2.0).abs() < 1e-9 && (ratio.most - 3.5).abs() < 1e-9);
        let verdicts = outcome.verdicts();
        assert!(verdicts[0].reaches());
        // 1.5 s for 1050 commands beside 1.8 s for 400.
        assert!((verdicts[1].found - 1.5 / 1050.0 / (1.8 / 400.0)).abs() < 1e-9);
        assert!(verdicts[1].reaches());
        assert!(
            verdicts[0]
                .told("tgt")
                .starts_with("reaches: at least 3 x tgt: 3.50")
        );
        assert!((outcome.ours.us_a_mib() - 1.5e6 / (1050.0 * 4096.0 / 1_048_576.0)).abs() < 1e-6);
    }

    #[test]
    fn who_does_less_than_any_target_stands_beside_what_was_found() {
        let scenario = |name| ALL.iter().find(|scenario| scenario.name == name).unwrap();
        let mut outcome = Outcome {
            scenario: scenario("read-4k-qd1"),
            peer: shown("tgt", &[100], 0.6),
            ours: shown("netroot", &[120], 0.5),
            null: Some(shown("null", &[130], 0.4)),
            sendfile: Vec::new(),
            profile: Profile::Unknown(String::new()),
        };
        let told = outcome.verdicts()[0].told("tgt");
        assert!(told.ends_with("1.20 (the null target: 1.30)"), "{told}");
        outcome.scenario = scenario("fairness");
        let told = outcome.verdicts()[0].told("tgt");
        assert!(told.ends_with(": 1.20"), "{told}");
        outcome.scenario = scenario("read-4k-qd32");
        let told: Vec<_> = outcome.verdicts().iter().map(|v| v.told("tgt")).collect();
        assert!(told[0].ends_with("(the null target: 1.30)"), "{told:?}");
        assert!(told[1].ends_with("(the null target: 0.51)"), "{told:?}");
        // It is no bound for who is beyond it.
        outcome.null = Some(shown("null", &[110], 0.6));
        let told: Vec<_> = outcome.verdicts().iter().map(|v| v.told("tgt")).collect();
        assert!(told[0].ends_with(": 1.20"), "{told:?}");
        assert!(told[1].ends_with(": 0.69"), "{told:?}");
        outcome.scenario = scenario("read-1m-qd8");
        let mib = outcome.peer.mib_a_second().median;
        outcome.sendfile = vec![Rate {
            mib_a_second: 1.1 * mib,
            us_a_mib: 0.75 * outcome.peer.us_a_mib(),
        }];
        let told: Vec<_> = outcome.verdicts().iter().map(|v| v.told("tgt")).collect();
        assert!(told[0].ends_with("(the sendfile loop: 1.10)"), "{told:?}");
        assert!(told[1].ends_with("loop: 1.09"), "{told:?}");
        assert!(told[2].ends_with("(the sendfile loop: 0.75)"), "{told:?}");
    }

    #[test]
    fn of_memory_less_is_better() {
        let mut peer = shown("tgt", &[0], 0.0);
        let mut ours = shown("netroot", &[0], 0.0);
        peer.slices[0].more.insert(EACH, 40_000.0);
        ours.slices[0].more.insert(EACH, 20_000.0);
        let outcome = Outcome {
            scenario: &ALL[0],
            peer,
            ours,
            null: None,
            sendfile: Vec::new(),
            profile: Profile::Unknown(String::new()),
        };
        assert!((outcome.ratio().median - 2.0).abs() < 1e-9);
        assert!(outcome.verdicts()[0].reaches());
    }
}
