//! `cargo xtask bench web`: how long the dashboard takes, and what it costs to keep it up to date.
//!
//! Everything is asked as a browser asks it, over the admin listener on loopback, with a login that
//! is checked each time: from the request until the last byte of the answer, or from the act until
//! the last of all watchers has been told. Rooms of all sizes are served at the same time and asked
//! in turn.
//!
//! - `http`: requests and streams; `room`: libraries and who serves them

pub(crate) mod http;
mod room;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::bench::{median, release_build, spread};
use crate::lab_dir;
use http::{Connection, Watchers};
pub(crate) use room::mac;
use room::{Room, Serving, small_tree};

/// What is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often each page is asked for, and how many events are sent.
    pub rounds: usize,
    /// The program to measure; a release build of this source if none is given.
    pub binary: Option<PathBuf>,
    /// Whether the result is printed as JSON.
    pub json: bool,
}

/// Clients of the rooms.
const SIZES: [usize; 3] = [10, 1000, 10_000];

/// The room in which events are sent.
const USUAL: usize = 1000;

/// Browsers that watch it.
const WATCHERS: usize = 100;

/// Clients that are added by a command for each; the rest of a usual room is added by a program.
const BY_COMMAND: usize = 100;

/// How long what happens all the time is looked at.
const WHILE: Duration = Duration::from_secs(10);

/// Machines that ask for their scripts at a time.
const BOOTING: usize = 8;

/// Something that was measured more than once, in milliseconds.
struct Times {
    what: String,
    all: Vec<f64>,
}

/// Something that was measured once.
struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
}

/// All that was measured.
#[derive(Default)]
struct Measured {
    times: Vec<Times>,
    figures: Vec<Figure>,
}

/// Measures, and prints the result.
///
/// # Errors
/// When netroot fails, or does not answer.
pub fn run_bench(options: &Options) -> Result<()> {
    ensure!(
        (1..=USUAL / 2).contains(&options.rounds),
        "there can be 1 to {} rounds: each of them boots another client",
        USUAL / 2
    );
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => release_build()?,
    };
    std::fs::create_dir_all(lab_dir())?;
    let dir = tempfile::tempdir_in(lab_dir())?;
    let tree = dir.path().join("tree");
    small_tree(&tree)?;
    let mut measured = Measured::default();
    let mut rooms = Vec::new();
    for size in SIZES {
        let place = dir.path().join(size.to_string());
        let mut room = Room::new(&binary, &place, &tree)?;
        people(&mut room, size, &mut measured)?;
        rooms.push(room);
    }
    let serving = rooms
        .iter()
        .map(|room| first_page(room, &mut measured))
        .collect::<Result<Vec<_>>>()?;
    pages(options, &rooms, &serving, &mut measured)?;
    let usual = rooms.iter().zip(&serving);
    for (room, serving) in usual.filter(|(room, _)| room.clients() == USUAL) {
        watching(options, room, serving, &mut measured)?;
    }
    print(options, &measured);
    Ok(())
}

/// Fills a room: the usual one as people and programs do it.
fn people(room: &mut Room, size: usize, measured: &mut Measured) -> Result<()> {
    if size == USUAL {
        let took = room.add_by_command(BY_COMMAND)?;
        let what = format!("adding {BY_COMMAND} clients by a command for each");
        measured.figure(what, took, "s");
        let rest = size - BY_COMMAND;
        let what = format!("adding {rest} more by the API, one request after another");
        measured.figure(what, room.add(rest)?, "s");
        return Ok(());
    }
    room.add(1)?;
    room.fill(size)
}

/// Starts a server, which has read no document yet when it is asked for its first page.
fn first_page(room: &Room, measured: &mut Measured) -> Result<Serving> {
    let serving = room.serve()?;
    let mut connection = serving.connect()?;
    let (first, _) = timed(&mut connection, "/")?;
    let (second, _) = timed(&mut connection, "/")?;
    let clients = room.clients();
    let told = |which: &str| format!("{which} page of {clients} clients after the start");
    measured.figure(told("first"), first, "ms");
    measured.figure(told("second"), second, "ms");
    Ok(serving)
}

/// The same pages of all rooms in turn.
fn pages(
    options: &Options,
    rooms: &[Room],
    serving: &[Serving],
    measured: &mut Measured,
) -> Result<()> {
    let mut asked = Vec::new();
    for (room, serving) in rooms.iter().zip(serving) {
        let clients = room.clients();
        let paths = [
            ("room", "/"),
            ("room, searched", "/?q=pc-0000"),
            ("room, last page by state", "/?sort=-state&page=10"),
        ];
        for (what, path) in paths {
            let times = Times::of(format!("{what}, {clients} clients"));
            asked.push((serving.connect()?, path, times, 0));
        }
    }
    for _ in 0..options.rounds {
        for (connection, path, times, size) in &mut asked {
            let (took, length) = timed(connection, path)?;
            times.all.push(took);
            *size = length;
        }
    }
    for (_, path, times, size) in asked {
        if path == "/" {
            let what = format!("size of the {}", times.what);
            measured.figure(what, size as f64 / 1024.0, "KiB");
        }
        measured.times.push(times);
    }
    Ok(())
}

/// Milliseconds until a page was there, and its bytes.
fn timed(connection: &mut Connection, path: &str) -> Result<(f64, usize)> {
    let began = Instant::now();
    let page = connection.get(path)?;
    Ok((millis(began.elapsed()), page.len()))
}

/// What it costs to be watched, and how quick that is.
fn watching(
    options: &Options,
    room: &Room,
    serving: &Serving,
    measured: &mut Measured,
) -> Result<()> {
    let clients = room.clients();
    measured.figure(
        format!("processor, {clients} clients, nobody watches"),
        processor(serving)?,
        "%",
    );
    scripts(room, serving, "nobody watches", measured)?;
    serving.connect()?.get("/")?;
    // Pages are told what happened up to a second before them.
    thread::sleep(Duration::from_millis(1500));
    serving.connect()?.get("/")?;
    let few = Watchers::open(&serving.admin, serving.watchers(), "room", 10)?;
    let (events, bytes) = few.count(Duration::from_secs(2));
    let told = |what: &str| format!("{what} to 10 pages just opened where nothing happens");
    measured.figure(told("events"), events as f64, "");
    measured.figure(told("data"), bytes as f64 / 1024.0, "KiB");
    measured.figure(
        format!("processor, {clients} clients, 10 watch, nothing happens"),
        processor(serving)?,
        "%",
    );
    drop(few);
    let watchers = Watchers::open(&serving.admin, serving.watchers(), "room", WATCHERS)?;
    watchers.count(Duration::from_secs(3));
    measured.times.push(boots(options, serving, &watchers)?);
    watchers.idle();
    let told = format!("{WATCHERS} watch, on the same processors");
    scripts(room, serving, &told, measured)
}

/// A machine fetches its script, and everybody sees it booting: from the request until the last one
/// has been told.
fn boots(options: &Options, serving: &Serving, watchers: &Watchers) -> Result<Times> {
    let mut boot = Connection::open(&serving.boot, None)?;
    let mut times = Times::of(format!("an event's way to {WATCHERS} watchers"));
    for round in 0..options.rounds {
        // Any moment between two looks of the server at the room.
        thread::sleep(Duration::from_millis(211 + 37 * (round as u64 % 29)));
        // Each another client, from the last one on: those before have fetched theirs already.
        let mac = mac(USUAL - 1 - round);
        let element = format!("\"id\":\"client-{}\"", mac.replace(':', ""));
        let began = Instant::now();
        boot.get(&format!("/boot.cfg?mac={mac}"))?;
        let last = watchers.all_heard(&[&element, "script fetched"])?;
        times.all.push(millis(last.duration_since(began)));
    }
    Ok(times)
}

/// How many scripts a second machines get that ask all the time.
fn scripts(room: &Room, serving: &Serving, who: &str, measured: &mut Measured) -> Result<()> {
    let began = Instant::now();
    let ask = |machine: usize| -> Result<usize> {
        let mut boot = Connection::open(&serving.boot, None)?;
        let mut times = 0;
        while began.elapsed() < WHILE {
            // Those in front, so that the others are seen to boot for the first time later.
            let client = (machine + times * BOOTING) % (room.clients() / 2);
            boot.get(&format!("/boot.cfg?mac={}", mac(client)))?;
            times += 1;
        }
        Ok(times)
    };
    let before = serving.processor()?;
    let answered = thread::scope(|scope| {
        let machines: Vec<_> = (0..BOOTING)
            .map(|machine| scope.spawn(move || ask(machine)))
            .collect();
        let counts = machines.into_iter().map(|machine| {
            let count = machine.join();
            count.unwrap_or_else(|_| Err(anyhow::anyhow!("a machine panicked")))
        });
        counts.sum::<Result<usize>>()
    })?;
    let took = began.elapsed().as_secs_f64();
    let used = (serving.processor()? - before).as_secs_f64() / took * 100.0;
    measured.figure(
        format!("boot scripts, {who}"),
        answered as f64 / took,
        "a second",
    );
    measured.figure(format!("processor meanwhile, {who}"), used, "%");
    Ok(())
}

/// How much of one processor the server takes while nobody asks it for anything.
fn processor(serving: &Serving) -> Result<f64> {
    let (before, began) = (serving.processor()?, Instant::now());
    thread::sleep(WHILE);
    let used = serving.processor()? - before;
    Ok(used.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Measured {
    fn figure(&mut self, what: impl Into<String>, value: f64, unit: &'static str) {
        let what = what.into();
        self.figures.push(Figure { what, value, unit });
    }
}

impl Times {
    fn of(what: String) -> Self {
        Times {
            what,
            all: Vec::new(),
        }
    }

    /// What nineteen of twenty do not exceed.
    fn p95(&self) -> f64 {
        let mut sorted = self.all.clone();
        sorted.sort_by(f64::total_cmp);
        let at = (sorted.len() * 95).div_ceil(100).saturating_sub(1);
        sorted.get(at).copied().unwrap_or(f64::NAN)
    }

    fn json(&self) -> Value {
        json!({
            "what": self.what,
            "unit": "ms",
            "median": median(&self.all),
            "p95": self.p95(),
            "all": self.all,
        })
    }
}

fn print(options: &Options, measured: &Measured) {
    if options.json {
        let figure = |figure: &Figure| json!({ "what": figure.what, "unit": figure.unit, "value": figure.value });
        let result = json!({
            "rounds": options.rounds,
            "times": measured.times.iter().map(Times::json).collect::<Vec<_>>(),
            "figures": measured.figures.iter().map(figure).collect::<Vec<_>>(),
        });
        println!("{result:#}");
        return;
    }
    println!("medians of {} rounds, in milliseconds", options.rounds);
    for times in &measured.times {
        let (least, most) = spread(&times.all);
        println!(
            "{:>9.2}  p95 {:>8.2}  ({least:.2} to {most:.2})   {}",
            median(&times.all),
            times.p95(),
            times.what
        );
    }
    println!();
    for figure in &measured.figures {
        println!("{:>9.2} {:<9} {}", figure.value, figure.unit, figure.what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nineteen_of_twenty_do_not_exceed_it() {
        let mut times = Times::of("x".into());
        times.all = (1..=40).rev().map(f64::from).collect();
        assert!((times.p95() - 38.0).abs() < 1e-9);
        times.all.truncate(1);
        assert!((times.p95() - 40.0).abs() < 1e-9);
    }
}
