//! What a tree tells about itself: its distribution and its packages.

use std::path::Path;

use anyhow::Result;

use super::recipe::PackageList;
use super::tree::Root;
use crate::exec::{Cancel, Program, find_program};
use crate::library::manifest::{Distribution, Package};

/// What `/etc/os-release` says, if there is one.
pub(crate) fn distribution(root: &Root) -> Result<Option<Distribution>> {
    for path in ["etc/os-release", "usr/lib/os-release"] {
        if let Some(text) = root.text(path)? {
            return Ok(os_release(&text));
        }
    }
    Ok(None)
}

/// The installed packages, as far as this host can read the tree's list of them.
///
/// `mounted` is a path to the tree; rpm is asked only where it cannot write into a tree that is not
/// ours.
pub(crate) fn packages(
    root: &Root,
    list: PackageList,
    mounted: &Path,
    cancel: &Cancel,
) -> Result<Option<Vec<Package>>> {
    let is = |kind| list == PackageList::Any || list == kind;
    if is(PackageList::Dpkg)
        && let Some(text) = root.text("var/lib/dpkg/status")?
    {
        return Ok(Some(dpkg_status(&text)));
    }
    if is(PackageList::Apk)
        && let Some(text) = root.text("lib/apk/db/installed")?
    {
        return Ok(Some(apk_installed(&text)));
    }
    for database in RPM_DATABASES {
        if is(PackageList::Rpm) && root.exists(database)? && find_program("rpm").is_some() {
            return Ok(rpm_list(mounted, database, cancel));
        }
    }
    Ok(None)
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

/// Where a tree has its list of packages: since Fedora 36, and before. It has to be named, because
/// each distribution's rpm looks in a place of its own (Debian's in the home directory).
const RPM_DATABASES: [&str; 2] = ["usr/lib/sysimage/rpm", "var/lib/rpm"];

fn rpm_list(mounted: &Path, database: &str, cancel: &Cancel) -> Option<Vec<Package>> {
    let output = Program::new("rpm")
        .arg("--root")
        .arg(mounted)
        .arg("--dbpath")
        .arg(format!("/{database}"))
        .args(["-qa", "--qf", "%{NAME}\\t%{VERSION}-%{RELEASE}.%{ARCH}\\n"])
        .cancel(cancel)
        .run();
    // A database of another format is no reason to fail: the list is unknown then.
    let output = output.inspect_err(|e| tracing::warn!("{e}: the packages are not listed"));
    let mut packages: Vec<_> = output
        .ok()?
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
    Some(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_rpm_packages_is_listed_wherever_its_list_is() {
        const SPEC: &str = "Name: tiny\nVersion: 1.2\nRelease: 3\nSummary: tiny\nLicense: MIT\n\
            BuildArch: noarch\n%description\ntiny\n%files\n";
        let dir = tempfile::tempdir().unwrap();
        let top = format!("_topdir {}", dir.path().display());
        let spec = dir.path().join("tiny.spec");
        std::fs::write(&spec, SPEC).unwrap();
        let build = Program::new("rpmbuild")
            .args(["-bb", "--define", &top])
            .arg(&spec);
        build.run().unwrap();
        let package = dir.path().join("RPMS/noarch/tiny-1.2-3.noarch.rpm");
        for database in RPM_DATABASES {
            let tree = dir.path().join(database.replace('/', "-"));
            std::fs::create_dir_all(tree.join(database)).unwrap();
            let rpm = Program::new("rpm").arg("--root").arg(&tree);
            let rpm = rpm.arg("--dbpath").arg(format!("/{database}"));
            let install = rpm
                .args(["--install", "--nodeps", "--justdb"])
                .arg(&package);
            install.run().unwrap();
            let found = rpm_list(&tree, database, &Cancel::new()).unwrap();
            let found: Vec<_> = found.iter().map(|p| (&*p.name, &*p.version)).collect();
            assert_eq!(found, [("tiny", "1.2-3.noarch")]);
        }
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
