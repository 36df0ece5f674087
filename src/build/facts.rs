//! What a tree tells about itself: its distribution and its packages.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};

use super::recipe::PackageList;
use super::tree::Root;
use crate::exec::{self, Cancel, Error, Program};
use crate::library::manifest::{Distribution, Package};

/// What is known of a tree's packages.
#[derive(Debug, Default)]
pub(crate) struct Packages {
    /// All of them; `None` where the tree has no list, or this host cannot read it.
    pub(crate) list: Option<Vec<Package>>,
    /// Why a list that is there was not read, and what to do about it.
    pub(crate) warning: Option<String>,
}

/// What `/etc/os-release` says, if there is one.
pub(crate) fn distribution(root: &Root) -> Result<Option<Distribution>> {
    for path in ["etc/os-release", "usr/lib/os-release"] {
        if let Some(text) = root.text(path)? {
            return Ok(os_release(&text));
        }
    }
    Ok(None)
}

/// The installed packages, as far as this host can read the tree's list of them, and why it cannot.
///
/// rpm gets a copy of its list in a directory of its own within `scratch`: it writes into what it
/// reads, and even begins a new list beside one of a format that it does not know.
pub(crate) fn packages(
    root: &Root,
    list: PackageList,
    scratch: &Path,
    cancel: &Cancel,
) -> Result<Packages> {
    let is = |kind| list == PackageList::Any || list == kind;
    if is(PackageList::Dpkg)
        && let Some(text) = root.text("var/lib/dpkg/status")?
    {
        return Ok(Packages::listed(dpkg_status(&text)));
    }
    if is(PackageList::Apk)
        && let Some(text) = root.text("lib/apk/db/installed")?
    {
        return Ok(Packages::listed(apk_installed(&text)));
    }
    let Some(database) = rpm_database(root)?.filter(|_| is(PackageList::Rpm)) else {
        return Ok(Packages::default());
    };
    let copy = tempfile::tempdir_in(scratch)
        .with_context(|| format!("making a directory in {}", scratch.display()))?;
    copy_database(root, database, copy.path(), cancel)?;
    match rpm_list(copy.path(), database, cancel) {
        Err(Error::Cancelled(cancelled)) => Err(cancelled.into()),
        // No reason to fail: the image is as good without its list.
        Err(error) => Ok(Packages::unknown(&error)),
        Ok(found) if found.is_empty() => Ok(Packages::unknown(&format_args!(
            "this host's rpm finds none in /{database}, which may be of a format that it does not \
             know: build on a host with the rpm of the tree's distribution"
        ))),
        Ok(found) => Ok(Packages::listed(found)),
    }
}

impl Packages {
    fn listed(packages: Vec<Package>) -> Self {
        Self {
            list: Some(packages),
            warning: None,
        }
    }

    fn unknown(why: &dyn Display) -> Self {
        Self {
            list: None,
            warning: Some(format!("the tree's packages are not listed: {why}")),
        }
    }
}

/// os-release(5).
fn os_release(text: &str) -> Option<Distribution> {
    let value = |wanted: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == wanted).then(|| value.trim().trim_matches(['"', '\'']).to_owned())
        })
    };
    Some(Distribution {
        id: value("ID")?,
        release: value("VERSION_ID"),
        name: value("PRETTY_NAME"),
        codename: value("VERSION_CODENAME"),
        like: value("ID_LIKE"),
    })
}

/// deb-control(5) paragraphs, of packages that are fully installed.
fn dpkg_status(text: &str) -> Vec<Package> {
    let mut packages: Vec<_> = text
        .split("\n\n")
        .filter_map(|paragraph| {
            let field = |name: &str| {
                paragraph.lines().find_map(|line| {
                    let (key, value) = line.split_once(':')?;
                    (key == name).then(|| value.trim().to_owned())
                })
            };
            if !field("Status")?.ends_with(" installed") {
                return None;
            }
            Some(Package {
                name: field("Package")?,
                version: field("Version")?,
            })
        })
        .collect();
    packages.sort();
    packages
}

/// Alpine's list: paragraphs of `P:name` and `V:version`.
fn apk_installed(text: &str) -> Vec<Package> {
    let mut packages: Vec<_> = text
        .split("\n\n")
        .filter_map(|paragraph| {
            let field = |key: &str| paragraph.lines().find_map(|line| line.strip_prefix(key));
            Some(Package {
                name: field("P:")?.to_owned(),
                version: field("V:")?.to_owned(),
            })
        })
        .collect();
    packages.sort();
    packages
}

/// Where a tree has its list of packages: since Fedora 36, and before. It has to be looked for,
/// because each distribution's rpm knows a place of its own (Debian's is in the home directory).
const RPM_DATABASES: [&str; 2] = ["usr/lib/sysimage/rpm", "var/lib/rpm"];

/// What shows that a list is there, whatever its format: SQLite, Berkeley DB, or SUSE's own.
const RPM_FILES: [&str; 3] = ["rpmdb.sqlite", "Packages", "Packages.db"];

/// No list is as long as this many bytes, all its files together; a file that says it is may be a hole
/// of any size, and memory is not.
const LONGEST_LIST: u64 = 1 << 30;

fn rpm_database(root: &Root) -> Result<Option<&'static str>> {
    for database in RPM_DATABASES {
        for file in RPM_FILES {
            if root.file(&format!("{database}/{file}"))?.is_some() {
                return Ok(Some(database));
            }
        }
    }
    Ok(None)
}

fn copy_database(root: &Root, database: &str, to: &Path, cancel: &Cancel) -> Result<()> {
    let mut left = LONGEST_LIST;
    for name in root.names(database)? {
        cancel.check()?;
        if let Some(file) = root.file(&format!("{database}/{name}"))? {
            let to = to.join(&name);
            let copied = File::create_new(&to)
                .and_then(|mut copy| io::copy(&mut file.take(left + 1), &mut copy))
                .with_context(|| format!("copying {database}/{name} to {}", to.display()))?;
            left = left.checked_sub(copied).with_context(|| {
                format!("/{database} is larger than {} MiB", LONGEST_LIST >> 20)
            })?;
        }
    }
    Ok(())
}

/// What rpm lists from the files in `dir`, which are those of `database` in the tree.
fn rpm_list(dir: &Path, database: &str, cancel: &Cancel) -> exec::Result<Vec<Package>> {
    let output = Program::new("rpm")
        .arg("--dbpath")
        .arg(dir)
        .args(["-qa", "--qf", "%{NAME}\\t%{VERSION}-%{RELEASE}.%{ARCH}\\n"])
        .shown_as(format!("rpm --dbpath /{database} -qa"))
        .cancel(cancel)
        .run()?;
    let mut packages: Vec<_> = output
        .text()
        .lines()
        .filter_map(|line| {
            let (name, version) = line.split_once('\t')?;
            Some(Package {
                name: name.to_owned(),
                version: version.to_owned(),
            })
        })
        .collect();
    packages.sort();
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsString;

    use super::*;

    /// Puts one package into the list of the tree `tree`, in the place `database`.
    fn install_by_rpm(scratch: &Path, tree: &Path, database: &str) {
        const SPEC: &str = "Name: tiny\nVersion: 1.2\nRelease: 3\nSummary: tiny\nLicense: MIT\n\
            BuildArch: noarch\n%description\ntiny\n%files\n";
        let spec = scratch.join("tiny.spec");
        std::fs::write(&spec, SPEC).unwrap();
        let top = format!("_topdir {}", scratch.display());
        let build = Program::new("rpmbuild").args(["-bb", "--define", &top]);
        build.arg(&spec).run().unwrap();
        std::fs::create_dir_all(tree.join(database)).unwrap();
        let rpm = Program::new("rpm").arg("--root").arg(tree);
        let rpm = rpm.args(["--install", "--nodeps", "--justdb", "--dbpath"]);
        rpm.arg(format!("/{database}"))
            .arg(scratch.join("RPMS/noarch/tiny-1.2-3.noarch.rpm"))
            .run()
            .unwrap();
    }

    /// The files of a directory and what is in them.
    fn files(dir: &Path) -> BTreeMap<OsString, Vec<u8>> {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        entries
            .map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap()))
            .collect()
    }

    #[test]
    fn a_tree_of_rpm_packages_is_listed_wherever_its_list_is_and_left_as_it_is() {
        for database in RPM_DATABASES {
            let dir = tempfile::tempdir().unwrap();
            let tree = dir.path().join("tree");
            install_by_rpm(dir.path(), &tree, database);
            let before = files(&tree.join(database));
            let root = Root::open(&tree).unwrap();
            let found = packages(&root, PackageList::Any, dir.path(), &Cancel::new()).unwrap();
            assert_eq!(found.warning, None);
            let found = found.list.unwrap();
            let found: Vec<_> = found.iter().map(|p| (&*p.name, &*p.version)).collect();
            assert_eq!(found, [("tiny", "1.2-3.noarch")]);
            assert_eq!(files(&tree.join(database)), before);
        }
    }

    #[test]
    fn a_list_that_rpm_cannot_read_is_told_of_and_left_as_it_is() {
        // A damaged one, and one of a format that Debian's rpm has never heard of.
        for (name, told) in [
            ("rpmdb.sqlite", "not a database"),
            ("Packages.db", "format"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let database = dir.path().join("tree/usr/lib/sysimage/rpm");
            std::fs::create_dir_all(&database).unwrap();
            std::fs::write(database.join(name), "neither\n").unwrap();
            let root = Root::open(&dir.path().join("tree")).unwrap();
            let found = packages(&root, PackageList::Any, dir.path(), &Cancel::new()).unwrap();
            assert_eq!(found.list, None);
            let warning = found.warning.unwrap();
            assert!(warning.starts_with("the tree's packages are not listed: "));
            assert!(warning.contains(told), "{warning}");
            assert!(warning.contains("/usr/lib/sysimage/rpm"), "{warning}");
            assert_eq!(files(&database).len(), 1, "rpm wrote into the tree");
            let beside = std::fs::read_dir(dir.path()).unwrap().count();
            assert_eq!(beside, 1, "the copy was left behind");
        }
    }

    #[test]
    fn a_host_without_rpm_is_told_of() {
        let error = Error::Missing {
            program: String::from("rpm"),
        };
        assert_eq!(
            Packages::unknown(&error).warning.unwrap(),
            "the tree's packages are not listed: rpm is not installed on this host: install \
             package rpm"
        );
    }

    #[test]
    fn os_release_is_read_with_and_without_quotes() {
        let text = "NAME=\"Fedora Linux\"\nID=fedora\nVERSION_ID=42\nPRETTY_NAME=\"Fedora 42\"\n";
        let found = os_release(text).unwrap();
        assert_eq!(found.id, "fedora");
        assert_eq!(found.release.as_deref(), Some("42"));
        assert_eq!(found.name.as_deref(), Some("Fedora 42"));
        assert_eq!(os_release("NAME=x\n"), None);
    }

    #[test]
    fn packages_that_were_removed_are_not_listed() {
        let text = "Package: dracut\nStatus: install ok installed\nVersion: 059-4\n\
                    Description: x\n Package: no\n\n\
                    Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                    Package: bash\nStatus: install ok installed\nVersion: 5.2-1\n";
        let names: Vec<_> = dpkg_status(text).into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["bash", "dracut"]);
    }

    #[test]
    fn alpines_packages_are_listed() {
        let found = apk_installed("C:Q1\nP:musl\nV:1.2.5-r0\n\nP:busybox\nV:1.36.1-r2\n");
        assert_eq!(found[0].name, "busybox");
        assert_eq!(found[1].version, "1.2.5-r0");
    }
}
