//! Packages of Debian that are looked into and not installed: of releases that this host is not, or of
//! things that it must not have.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::lab_dir;
use crate::program::{command, run};

const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A directory with the files of a package of `release`, fetched if it is not there yet.
///
/// # Errors
/// When it cannot be fetched or unpacked.
pub fn unpacked(release: &str, package: &str) -> Result<PathBuf> {
    unpacked_for("amd64", release, package)
}

/// The same, of the package for another architecture. What is only the newest of its kind stands for that
/// (`linux-image-cloud-arm64`).
///
/// # Errors
/// When it cannot be fetched or unpacked.
pub fn unpacked_for(architecture: &str, release: &str, package: &str) -> Result<PathBuf> {
    let home = lab_dir().join("debs").join(match architecture {
        "amd64" => release.to_owned(),
        other => format!("{release}-{other}"),
    });
    let place = home.join(package);
    if place.is_dir() {
        return Ok(place);
    }
    fs::create_dir_all(&home)?;
    // Tests ask for packages at the same time, and apt-get wants its lists for itself.
    let lock = fs::File::create(home.join("lock"))?;
    let _held = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    if place.is_dir() {
        return Ok(place);
    }
    let doing = || format!("fetching package {package} of Debian {release} for {architecture}");
    let archive = Archive {
        home: &home,
        architecture,
        release,
    };
    archive.fetch(package, &place).with_context(doing)?;
    Ok(place)
}

/// One release for one architecture, with package lists of its own.
struct Archive<'a> {
    home: &'a Path,
    architecture: &'a str,
    release: &'a str,
}

impl Archive<'_> {
    fn fetch(&self, package: &str, place: &Path) -> Result<()> {
        let lists = self.home.join("apt");
        for dir in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(lists.join(dir))?;
        }
        let release = self.release;
        let sources = format!("deb [signed-by={KEYRING}] {MIRROR} {release} main\n");
        fs::write(lists.join("sources.list"), sources)?;
        fs::write(lists.join("status"), "")?;
        if fs::read_dir(lists.join("state/lists"))?.count() < 2 {
            self.apt("apt-get", &["--quiet", "update"], self.home)?;
        }
        let draft = tempfile::tempdir_in(self.home)?;
        let package = match package.strip_prefix("linux-image-") {
            Some(_) => self.newest(package)?,
            None => package.to_owned(),
        };
        let download = ["--quiet", "download", &package];
        self.apt("apt-get", &download, draft.path())?;
        let tree = draft.path().join("tree");
        let mut files = fs::read_dir(draft.path())?;
        let Some(deb) = files.next().transpose()? else {
            bail!("apt-get has fetched nothing");
        };
        run(command("dpkg-deb", ["-x"]).arg(deb.path()).arg(&tree))?;
        fs::rename(&tree, place)?;
        Ok(())
    }

    /// What a package without files depends on.
    fn newest(&self, package: &str) -> Result<String> {
        let told = self.apt("apt-cache", &["depends", package], self.home)?;
        let mut lines = told.lines();
        let found = lines.find_map(|line| line.trim().strip_prefix("Depends: "));
        let found = found.with_context(|| format!("{package} depends on nothing"))?;
        Ok(found.to_owned())
    }

    fn apt(&self, program: &str, arguments: &[&str], dir: &Path) -> Result<String> {
        let lists = self.home.join("apt");
        let settings = [
            ("Dir::State", "state"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
            ("Dir::Etc::SourceList", "sources.list"),
        ];
        let settings = settings.map(|(key, file)| format!("{key}={}", lists.join(file).display()));
        let mut apt = command(program, arguments);
        for setting in settings.iter().map(String::as_str).chain([
            "Dir::Etc::SourceParts=/dev/null",
            "APT::Sandbox::User=root",
            "Acquire::Languages=none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        ]) {
            apt.args(["-o", setting]);
        }
        for key in ["APT::Architecture", "APT::Architectures"] {
            apt.arg("-o").arg(format!("{key}={}", self.architecture));
        }
        run(apt.current_dir(dir))
    }
}
