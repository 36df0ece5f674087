//! Jobs that make versions, where images are shown.

use askama::Template;

use crate::library::{self, ImageName, Job, JobState, Library, Task};
use crate::web::pages::jobs::{badge, percent};
use crate::web::pages::text;

/// What is being done; an empty element where nothing is.
#[derive(Template)]
#[template(path = "image-work.html")]
pub(super) struct Work {
    jobs: Vec<Job>,
}

impl Work {
    /// What will make versions of any image, the oldest first.
    pub(super) fn of_all(library: &Library) -> library::Result<Work> {
        let jobs = library.jobs()?.into_iter().rev();
        let jobs = jobs.filter(|job| !job.state.is_final() && makes_a_version(&job.task));
        Ok(Work {
            jobs: jobs.collect(),
        })
    }

    /// What is being done with an image, and how the last such job ended, the newest first.
    pub(super) fn of(library: &Library, image: &ImageName) -> library::Result<Work> {
        let mut jobs = library.jobs()?;
        jobs.retain(|job| images(&job.task).contains(&image));
        let newest = jobs.first().map(|job| job.id);
        jobs.retain(|job| Some(job.id) == newest || !job.state.is_final());
        Ok(Work { jobs })
    }

    /// When a job ended, or began, or was asked for.
    fn since(job: &Job) -> &jiff::Timestamp {
        match &job.state {
            JobState::Queued => &job.asked,
            JobState::Running { since, .. } => since,
            JobState::Done { at, .. }
            | JobState::Failed { at, .. }
            | JobState::Cancelled { at } => at,
        }
    }
}

fn makes_a_version(task: &Task) -> bool {
    match task {
        Task::Build(_) | Task::Update(_) | Task::Upgrade(_) | Task::Promote(_) => true,
        Task::PreviewPromotion(_) | Task::Diff(_) | Task::Verify(_) | Task::Test(_) => false,
    }
}

/// The images that a task is about.
fn images(task: &Task) -> Vec<&ImageName> {
    match task {
        Task::Build(task) => vec![&task.image],
        Task::Update(task) => vec![&task.image.image],
        Task::Upgrade(task) => vec![&task.from.image, &task.to],
        Task::Promote(task) | Task::PreviewPromotion(task) => vec![&task.image],
        Task::Diff(task) => vec![&task.a.image, &task.b.image],
        Task::Verify(task) => vec![&task.version.image],
        Task::Test(task) => vec![&task.version.image],
    }
}
