//! Doing the steps of recipes, and what people asked for, in a tree that is being made.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::facts;
use super::inside::run;
use super::kernel;
use super::recipe::{Action, Condition, Deed, Fill, Hole, Text, fill_all};
use super::tree::Root;
use super::watch::Watch;
use super::work::Work;
use crate::exec::{Program, find_program};
use crate::library::Progress;

/// Where distributions keep programs.
const PROGRAMS: &[&str] = &[
    "usr/sbin",
    "usr/bin",
    "sbin",
    "bin",
    "usr/local/sbin",
    "usr/local/bin",
];

/// Lets a program of the host find `/proc` in the tree, `$0`.
const WITH_PROC: &str = r#"mount --bind /proc "$0/proc" && exec "$@""#;

impl Work<'_> {
    /// Does one step of a recipe in the tree.
    pub(super) fn apply(&mut self, action: &Action) -> Result<()> {
        let path = self.tree_path()?.to_owned();
        let tree = Root::open(&path)?;
        if !self.is_due(action, &tree)? {
            return Ok(());
        }
        // What is still open for the deed fails there, with a reason; here it is only shown.
        let told = action
            .filled(&|hole| self.fill(hole, &tree).unwrap_or(Fill::Later))
            .told();
        self.watch.step(&told, None);
        let done = self.perform_deed(action, &tree, &path);
        let done = done.map_err(|error| match self.is_for_want_of_room(&error) {
            true => error.context("its file system is full: give it more room by --size"),
            false => error,
        });
        match action.deed {
            // What failed is what a person gave, and the error says it.
            Deed::Script { .. } | Deed::Shell => done,
            _ => done.with_context(|| format!("this step failed: {told}")),
        }
    }

    /// Takes something out before sealing, and writes down what was there or was not as it should be.
    pub(super) fn scrub(&mut self, action: &Action) -> Result<()> {
        let tree = Root::open(self.tree_path()?)?;
        if !self.is_due(action, &tree)? {
            return Ok(());
        }
        let mut found = 0;
        match &action.deed {
            Deed::Remove { paths } => {
                for path in paths {
                    found += tree.remove(path)?;
                }
            }
            Deed::Empty { paths } => {
                for path in paths {
                    found += tree.empty(path)?;
                }
            }
            // What is so already, as in a client's disk of a scrubbed version, was not taken out.
            Deed::Write { path, text, mode } if !tree.is_file(path, text.as_bytes(), *mode)? => {
                tree.write(path, text.as_bytes(), *mode)?;
                found += 1;
            }
            Deed::Link { path, to } if !tree.is_link(path, to)? => {
                tree.link(path, to)?;
                found += 1;
            }
            Deed::Write { .. } | Deed::Link { .. } => {}
            other => bail!("a scrub cannot {other}"),
        }
        let what = action.told();
        if found > 0 && !self.facts.scrubbed.contains(&what) {
            self.facts.scrubbed.push(what);
        }
        Ok(())
    }

    fn perform_deed(&mut self, action: &Action, tree: &Root, path: &Path) -> Result<()> {
        match &action.deed {
            Deed::Run { command, input } => {
                let command = self.closed(command, tree)?;
                let mut program = self.inside()?.program(&command);
                for (key, value) in &action.env {
                    program = program.env(key, value);
                }
                let shown: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
                let program = program
                    .shown_as(shown.join(" "))
                    .input(input.clone().unwrap_or_default());
                run(program, self.cancel, self.watch)
            }
            Deed::Host { command, mounted } => self.on_host(action, command, *mounted, tree, path),
            Deed::Write { path, text, mode } => tree.write(path, text.as_bytes(), *mode),
            Deed::Link { path, to } => tree.link(path, to),
            Deed::Remove { paths } => paths
                .iter()
                .try_for_each(|path| tree.remove(path).map(drop)),
            Deed::Empty { paths } => paths.iter().try_for_each(|path| tree.empty(path).map(drop)),
            Deed::CopyIn { from, to } => {
                let (cancel, watch) = (self.cancel, self.watch);
                self.inside()?.copy_in(from, to, cancel, watch)
            }
            Deed::Script { script } => {
                let (cancel, watch) = (self.cancel, self.watch);
                self.inside()?.script(script, cancel, watch)
            }
            Deed::Shell => {
                let (cancel, watch) = (self.cancel, self.watch);
                let name = self.image_name()?;
                watch.pause();
                watch.line(&format!(
                    "you are in a copy of {name}: `exit` goes on with it, `exit 1` leaves {name} as it was"
                ));
                self.inside()?.shell(&name, cancel)
            }
            Deed::Section { name } => bail!("the section {name} was not put in its place"),
        }
    }

    /// Runs a program of the host that makes the tree: in namespaces of its own, but as the host's
    /// root, and with the tree's device nodes usable, since it makes and uses them.
    fn on_host(
        &mut self,
        action: &Action,
        command: &[Text],
        mounted: bool,
        tree: &Root,
        path: &Path,
    ) -> Result<()> {
        let command = self.closed(command, tree)?;
        let mut program = Program::new("unshare").args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--ipc",
            "--uts",
            "--",
        ]);
        if mounted {
            self.enter()?;
            program = program.args(["sh", "-c", WITH_PROC]).arg(path);
        }
        for (key, value) in &action.env {
            program = program.env(key, value);
        }
        let shown: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
        let program = program
            .args(command.iter().cloned())
            .shown_as(shown.join(" "))
            .with_proxies();
        self.scratch()?.allow_devices()?;
        let done = run(program, self.cancel, self.watch);
        self.scratch()?.deny_devices()?;
        done?;
        if mounted {
            self.leave()?;
        }
        Ok(())
    }

    /// The command line with everything filled in.
    fn closed(&self, words: &[Text], tree: &Root) -> Result<Vec<OsString>> {
        let mut failed = None;
        let filled = {
            let failed = std::cell::RefCell::new(&mut failed);
            fill_all(words, &|hole| match self.fill(hole, tree) {
                Ok(fill) => fill,
                Err(error) => {
                    **failed.borrow_mut() = Some(error);
                    Fill::Later
                }
            })
        };
        if let Some(error) = failed {
            return Err(error);
        }
        let words = filled.iter().map(|word| {
            let word = word.closed();
            word.map_err(|hole| anyhow::anyhow!("nobody knows what {hole} is here"))
        });
        words.map(|word| word.map(OsString::from)).collect()
    }

    /// What only the tree tells.
    fn fill(&self, hole: Hole, tree: &Root) -> Result<Fill> {
        let one = |word: String| Fill::Words(vec![word]);
        Ok(match hole {
            Hole::Tree => one(tree.path().display().to_string()),
            Hole::Kernel => {
                let wanted = self.kernel.as_ref().map(|kernel| kernel.as_str());
                one(kernel::release(tree, wanted, &self.places)?.to_string())
            }
            Hole::Current => match &self.before {
                Some(found) => one(current(found)?),
                None => Fill::Later,
            },
            _ => Fill::Later,
        })
    }

    fn is_due(&self, action: &Action, tree: &Root) -> Result<bool> {
        for condition in &action.when {
            if !holds(condition, tree)? {
                return Ok(false);
            }
        }
        for condition in &action.unless {
            if holds(condition, tree)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The release that a tree says it is. It goes into command lines, and the tree may be a stranger's.
pub(super) fn current(found: &crate::library::manifest::Distribution) -> Result<String> {
    let text = found.codename.as_deref().or(found.release.as_deref());
    let text = text.context("the image's os-release tells no release")?;
    super::recipe::release_name(text)
        .with_context(|| format!("the image's os-release tells a release `{text}` that is none"))?;
    Ok(text.to_owned())
}

fn holds(condition: &Condition, tree: &Root) -> Result<bool> {
    Ok(match condition {
        Condition::Program(name) => {
            let mut found = false;
            for dir in PROGRAMS {
                found = found || tree.exists(&format!("{dir}/{name}"))?;
            }
            found
        }
        Condition::Path(path) => tree.exists(path.trim_start_matches('/'))?,
        Condition::Id(id) => facts::distribution(tree)?.is_some_and(|found| found.id == *id),
        // Decided when the plan was made.
        Condition::Host(name) => find_program(name).is_some(),
        Condition::Release(_) => true,
    })
}

/// Makes a scratch file system in `file`, as large as what is free where it lies, so that the first
/// to be full is the place where everybody looks.
pub(super) fn make_scratch(file: &Path, free: u64, cancel: &crate::exec::Cancel) -> Result<()> {
    /// mkfs.xfs refuses less than 300 MB.
    const LEAST: u64 = 512 << 20;
    let size = free.max(LEAST).next_multiple_of(1 << 20);
    // The whole tree will be in it, with what only its root may read.
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|made| made.set_len(size))
        .with_context(|| format!("creating {}", file.display()))?;
    Program::new("mkfs.xfs")
        .args(["-q", "-K", "-m", "crc=1,reflink=0"])
        .arg(file)
        .cancel(cancel)
        .run()
        .context("making the scratch file system")?;
    Ok(())
}

/// Where a draft's scratch file system is mounted.
pub(super) fn scratch_point(file: &Path) -> PathBuf {
    file.with_file_name("tree")
}
