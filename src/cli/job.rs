//! `netroot job …`, and `--queue` of the commands that a worker can do instead.

use std::time::Duration;

use anyhow::{Context, Result};

use super::command::{Cli, DryRun};
use super::control::Control;
use super::{open, print};
use crate::library::{Actor, Job, JobId, JobOutcome, JobState, Library, LogPart, Task};

/// How often a log is looked at while it is followed.
const LOOK: Duration = Duration::from_millis(500);

/// Whoever keeps the jobs: the server, if one runs, else the library itself. Neither needs the other.
enum Jobs {
    Server(Control),
    Library(Box<Library>),
}

impl Jobs {
    fn new(cli: &Cli) -> Result<Self> {
        match Control::running(&cli.library)? {
            Some(control) => Ok(Jobs::Server(control)),
            None => Ok(Jobs::Library(Box::new(open(cli)?))),
        }
    }

    fn list(&self) -> Result<Vec<Job>> {
        match self {
            Jobs::Server(control) => control.get("/api/v1/jobs"),
            Jobs::Library(library) => Ok(library.jobs()?),
        }
    }

    fn job(&self, id: JobId) -> Result<Job> {
        match self {
            Jobs::Server(control) => control.get(&format!("/api/v1/jobs/{id}")),
            Jobs::Library(library) => Ok(library.job(id)?),
        }
    }

    fn log(&self, id: JobId, from: u64) -> Result<LogPart> {
        match self {
            Jobs::Server(control) => control.get(&format!("/api/v1/jobs/{id}/log?from={from}")),
            Jobs::Library(library) => Ok(library.job_log(id, from)?),
        }
    }

    fn report(&self, id: JobId) -> Result<serde_json::Value> {
        match self {
            Jobs::Server(control) => control.get(&format!("/api/v1/jobs/{id}/report")),
            Jobs::Library(library) => {
                let json = library.job_report(id)?;
                serde_json::from_slice(&json)
                    .with_context(|| format!("reading the report of job {id}"))
            }
        }
    }

    fn queue(&self, task: &Task) -> Result<Job> {
        match self {
            Jobs::Server(control) => control.post("/api/v1/jobs", task),
            Jobs::Library(library) => Ok(library.queue_job(task.clone(), &Actor::command())?),
        }
    }

    fn cancel(&self, id: JobId) -> Result<Job> {
        match self {
            Jobs::Server(control) => control.post(&format!("/api/v1/jobs/{id}/cancel"), &()),
            Jobs::Library(library) => Ok(library.cancel_job(id, &Actor::command())?),
        }
    }
}

/// Leaves `task` to a worker.
pub(super) fn queue(cli: &Cli, task: &Task, dry_run: bool) -> Result<()> {
    if dry_run {
        return match cli.json {
            true => print::json(task),
            false => print::lines([format!("would queue: {task}")]),
        };
    }
    let job = Jobs::new(cli)?.queue(task)?;
    match cli.json {
        true => print::json(&job),
        false => print::lines([
            format!("queued as job {}: {}", job.id, job.task),
            format!("next: netroot job log {} --follow", job.id),
        ]),
    }
}

pub(super) fn list(cli: &Cli) -> Result<()> {
    let jobs = Jobs::new(cli)?.list()?;
    if cli.json {
        return print::json(&jobs);
    }
    let mut table = print::Table::new(&["ID", "STATE", "TASK", "ASKED BY", "ASKED"]);
    for job in &jobs {
        table.row([
            job.id.to_string(),
            job.state.word().to_owned(),
            job.task.to_string(),
            job.by.to_string(),
            print::moment(job.asked),
        ]);
    }
    table.print("no jobs; `netroot image update NAME --queue` makes one, and so does the dashboard")
}

pub(super) fn show(cli: &Cli, id: JobId) -> Result<()> {
    let job = Jobs::new(cli)?.job(id)?;
    match cli.json {
        true => print::json(&job),
        false => print::lines(told(&job)),
    }
}

pub(super) fn log(cli: &Cli, id: JobId, follow: bool) -> Result<()> {
    let jobs = Jobs::new(cli)?;
    let mut from = 0;
    loop {
        let part = jobs.log(id, from)?;
        match cli.json {
            // One object a part, so that a program can go on where it stopped.
            true if !part.text.is_empty() => print::lines([serde_json::to_string(&part)?])?,
            _ => print::raw(part.text.as_bytes())?,
        }
        if part.ended || (!follow && part.next == from) {
            return Ok(());
        }
        if part.next == from {
            std::thread::sleep(LOOK);
        }
        from = part.next;
    }
}

pub(super) fn report(cli: &Cli, id: JobId) -> Result<()> {
    print::json(&Jobs::new(cli)?.report(id)?)
}

pub(super) fn cancel(cli: &Cli, id: JobId, run: DryRun) -> Result<()> {
    let jobs = Jobs::new(cli)?;
    if run.dry_run {
        let job = jobs.job(id)?;
        return match cli.json {
            true => print::json(&job),
            false => print::lines([format!("would stop job {id}: {}", job.task)]),
        };
    }
    let job = jobs.cancel(id)?;
    match (cli.json, job.state.is_final()) {
        (true, _) => print::json(&job),
        (false, true) => print::lines([format!("job {id} is cancelled")]),
        (false, false) => print::lines([format!(
            "job {id} is being cancelled: its worker cleans up first"
        )]),
    }
}

fn told(job: &Job) -> Vec<String> {
    let mut lines = vec![
        format!("job {}: {}", job.id, job.task),
        format!("  asked       {} by {}", print::moment(job.asked), job.by),
    ];
    let state = |text: String| format!("  state       {text}");
    match &job.state {
        JobState::Queued => lines.push(state("waits for a worker".to_owned())),
        JobState::Running { since, worker } => {
            lines.push(state(format!(
                "runs since {} on {worker}{}",
                print::moment(*since),
                if job.cancel {
                    ", is being cancelled"
                } else {
                    ""
                }
            )));
            lines.extend(job.progress.as_ref().map(|at| {
                let part = at.fraction.map(|part| format!(", {:.0} %", part * 100.0));
                format!("  does        {}{}", at.says, part.unwrap_or_default())
            }));
        }
        JobState::Done { at, result } => {
            lines.push(state(format!("done since {}", print::moment(*at))));
            lines.extend(told_outcome(job.id, result));
        }
        JobState::Failed { at, why } => {
            lines.push(state(format!("failed at {}", print::moment(*at))));
            lines.push(format!("  why         {why}"));
        }
        JobState::Cancelled { at } => {
            lines.push(state(format!("cancelled at {}", print::moment(*at))));
        }
    }
    lines.iter().map(|line| print::printable(line)).collect()
}

fn told_outcome(id: JobId, outcome: &JobOutcome) -> Vec<String> {
    match outcome {
        JobOutcome::Version { version, warnings } => {
            let mut lines = vec![format!("  sealed      {version}")];
            lines.extend(warnings.iter().map(|text| format!("  warning     {text}")));
            lines
        }
        JobOutcome::UpToDate => vec![String::from("  found       nothing new: no new version")],
        JobOutcome::Verdict {
            version,
            damage: None,
        } => vec![format!("  found       {version} is whole")],
        JobOutcome::Verdict {
            version,
            damage: Some(damage),
        } => vec![format!("  found       {version} is damaged: {damage}")],
        JobOutcome::Tested {
            version,
            failed,
            published,
        } => vec![match (failed, published) {
            (None, false) => format!("  found       {version} boots"),
            (None, true) => format!("  found       {version} boots, and is current now"),
            (Some(why), _) => format!("  found       {version} does not boot: {why}"),
        }],
        JobOutcome::Report { .. } => vec![format!("  found       netroot job report {id}")],
    }
}
