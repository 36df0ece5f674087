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
    let home = lab_dir().join("debs").join(release);
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
    let doing = || format!("fetching package {package} of Debian {release}");
    fetched(&home, release, package, &place).with_context(doing)?;
    Ok(place)
}

fn fetched(home: &Path, release: &str, package: &str, place: &Path) -> Result<()> {
    let lists = home.join("apt");
    for dir in ["state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(lists.join(dir))?;
    }
    let sources = format!("deb [signed-by={KEYRING}] {MIRROR} {release} main\n");
    fs::write(lists.join("sources.list"), sources)?;
    fs::write(lists.join("status"), "")?;
    let apt = |dir: &Path, arguments: &[&str]| {
        let settings = [
            ("Dir::State", "state"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
            ("Dir::Etc::SourceList", "sources.list"),
        ];
        let settings = settings.map(|(key, file)| format!("{key}={}", lists.join(file).display()));
        let mut apt = command("apt-get", ["--quiet"]);
        for setting in settings.iter().map(String::as_str).chain([
            "Dir::Etc::SourceParts=/dev/null",
            "APT::Sandbox::User=root",
            "Acquire::Languages=none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        ]) {
            apt.args(["-o", setting]);
        }
        run(apt.args(arguments).current_dir(dir))
    };
    if fs::read_dir(lists.join("state/lists"))?.count() < 2 {
        apt(home, &["update"])?;
    }
    let draft = tempfile::tempdir_in(home)?;
    apt(draft.path(), &["download", package])?;
    let tree = draft.path().join("tree");
    let mut files = fs::read_dir(draft.path())?;
    let Some(deb) = files.next().transpose()? else {
        bail!("apt-get has fetched nothing");
    };
    run(command("dpkg-deb", ["-x"]).arg(deb.path()).arg(&tree))?;
    fs::rename(&tree, place)?;
    Ok(())
}
