//! The kernel of a tree, and the initramfs that belongs to it.

use std::fs::File;

use anyhow::{Result, bail, ensure};

use super::recipe::Places;
use super::tree::Root;
use super::version::KernelRelease;

/// A kernel and its initramfs, found in a tree and open for reading.
#[derive(Debug)]
pub(crate) struct BootFiles {
    pub(crate) release: KernelRelease,
    pub(crate) kernel: Found,
    pub(crate) initramfs: Found,
}

/// A file of a tree.
#[derive(Debug)]
pub(crate) struct Found {
    /// Where it is, from the tree's root.
    pub(crate) path: String,
    pub(crate) file: File,
}

/// Where distributions keep the modules of their kernels.
const MODULES: &[&str] = &["lib/modules", "usr/lib/modules"];

/// Where they keep the kernel; `{}` is its release.
const KERNELS: &[&str] = &[
    "lib/modules/{}/vmlinuz",
    "usr/lib/modules/{}/vmlinuz",
    "boot/vmlinuz-{}",
    "boot/vmlinux-{}",
];

/// Where they keep its initramfs: dracut on Fedora, Debian, openSUSE, images of bootc.
const INITRAMFSES: &[&str] = &[
    "boot/initramfs-{}.img",
    "boot/initrd.img-{}",
    "boot/initrd-{}",
    "lib/modules/{}/initramfs.img",
    "lib/modules/{}/initrd",
];

/// The release of the kernel that an image of the tree boots: the newest by version, or `wanted`.
pub(crate) fn release(root: &Root, wanted: Option<&str>, places: &Places) -> Result<KernelRelease> {
    let mut names = Vec::new();
    for dir in MODULES {
        names.extend(root.names(dir)?);
    }
    let has_kernel = |release: &KernelRelease| {
        let found = first(root, &places.kernel, KERNELS, release)?;
        Ok(found.is_some())
    };
    newest(&names, wanted, &has_kernel)
}

/// The newest of the releases that `names` of module directories tell and that have a kernel, or
/// `wanted`.
pub(crate) fn newest(
    names: &[String],
    wanted: Option<&str>,
    has_kernel: &dyn Fn(&KernelRelease) -> Result<bool>,
) -> Result<KernelRelease> {
    let mut releases: Vec<_> = names
        .iter()
        .filter_map(|name| KernelRelease::parse(name))
        .collect();
    releases.sort();
    releases.dedup();
    if let Some(wanted) = wanted {
        return match releases.iter().find(|release| release.as_str() == wanted) {
            Some(release) => Ok(release.clone()),
            None => bail!(
                "the tree has no kernel {wanted} under /lib/modules, only {}",
                listed(&releases)
            ),
        };
    }
    for release in releases.iter().rev() {
        // A directory without a kernel is what a removed package left of its modules.
        if has_kernel(release)? {
            return Ok(release.clone());
        }
    }
    match releases.is_empty() {
        true => bail!(
            "the tree has no kernel: there is none under /lib/modules. Install one in it \
             (linux-image-amd64 on Debian, kernel-core on Fedora) and build again"
        ),
        false => bail!(
            "the tree has modules of {}, but neither /lib/modules/VERSION/vmlinuz nor \
             /boot/vmlinuz-VERSION for any of them. Install the kernel's package again and build \
             again",
            listed(&releases)
        ),
    }
}

/// Bytes of the largest kernel or initramfs that is taken out. A file of a stranger's may be a hole of
/// any size.
const LARGEST: u64 = 1 << 30;

/// The kernel of `release` and its initramfs.
pub(crate) fn boot_files(
    root: &Root,
    release: KernelRelease,
    places: &Places,
) -> Result<BootFiles> {
    let Some(kernel) = first(root, &places.kernel, KERNELS, &release)? else {
        bail!(
            "the tree has no kernel {release}: there is neither /lib/modules/{release}/vmlinuz \
             nor /boot/vmlinuz-{release}"
        );
    };
    let Some(initramfs) = first(root, &places.initramfs, INITRAMFSES, &release)? else {
        bail!(
            "the tree has no initramfs for its kernel {release}: there is neither \
             /boot/initramfs-{release}.img nor /boot/initrd.img-{release}. Make one in the \
             chroot: `dracut --no-hostonly --add \"network iscsi\" \
             /boot/initramfs-{release}.img {release}`, or with Debian's initramfs-tools \
             `update-initramfs -c -k {release}`"
        );
    };
    for found in [&kernel, &initramfs] {
        let bytes = found.file.metadata()?.len();
        ensure!(
            bytes <= LARGEST,
            "/{} says that it has {} MiB, and clients would have to load all of it: no kernel or \
             initramfs is larger than {} MiB here",
            found.path.trim_start_matches('/'),
            bytes >> 20,
            LARGEST >> 20
        );
    }
    Ok(BootFiles {
        release,
        kernel,
        initramfs,
    })
}

/// Whether a path of an archive's member is the kernel of `release`.
pub(crate) fn is_kernel(path: &str, release: &KernelRelease) -> bool {
    KERNELS
        .iter()
        .any(|place| place.replace("{}", release.as_str()) == path)
}

/// The release in a path below a directory of modules.
pub(crate) fn release_in(path: &str) -> Option<&str> {
    MODULES.iter().find_map(|dir| {
        let below = path.strip_prefix(dir)?.strip_prefix('/')?;
        below.split('/').next().filter(|name| !name.is_empty())
    })
}

/// The first file that is there: in a recipe's own places, then in the usual ones.
fn first(
    root: &Root,
    own: &[String],
    usual: &[&str],
    release: &KernelRelease,
) -> Result<Option<Found>> {
    let own = own
        .iter()
        .map(|place| place.replace("{kernel}", release.as_str()));
    let usual = usual
        .iter()
        .map(|place| place.replace("{}", release.as_str()));
    for path in own.chain(usual) {
        if let Some(file) = root.file(&path)? {
            return Ok(Some(Found { path, file }));
        }
    }
    Ok(None)
}

fn listed(releases: &[KernelRelease]) -> String {
    if releases.is_empty() {
        return String::from("nothing");
    }
    let names: Vec<_> = releases.iter().map(KernelRelease::as_str).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn tree(files: &[&str]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
            fs::write(path, file).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    fn check(files: &[&str], wanted: Option<&str>, expected: [&str; 3]) {
        let (_dir, root) = tree(files);
        let places = Places::default();
        let release = release(&root, wanted, &places).unwrap();
        let found = boot_files(&root, release, &places).unwrap();
        let paths = [
            found.release.as_str(),
            &found.kernel.path,
            &found.initramfs.path,
        ];
        assert_eq!(paths, expected);
    }

    #[test]
    fn the_newest_by_version_is_taken_unless_another_is_wanted() {
        let files = [
            "lib/modules/4.9.0-1/modules.dep",
            "lib/modules/4.19.5-300.fc29.x86_64/vmlinuz",
            "lib/modules/extramodules/x",
            "boot/vmlinuz-4.9.0-1",
            "boot/initrd.img-4.9.0-1",
            "boot/initramfs-4.19.5-300.fc29.x86_64.img",
            // Left over from a removed kernel.
            "lib/modules/5.0.0/extra/nvidia.ko",
        ];
        check(
            &files,
            None,
            [
                "4.19.5-300.fc29.x86_64",
                "lib/modules/4.19.5-300.fc29.x86_64/vmlinuz",
                "boot/initramfs-4.19.5-300.fc29.x86_64.img",
            ],
        );
        check(
            &files,
            Some("4.9.0-1"),
            ["4.9.0-1", "boot/vmlinuz-4.9.0-1", "boot/initrd.img-4.9.0-1"],
        );
    }

    fn refused(files: &[&str], wanted: Option<&str>, why: &str) {
        let (_dir, root) = tree(files);
        let places = Places::default();
        let found =
            release(&root, wanted, &places).and_then(|release| boot_files(&root, release, &places));
        let error = found.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn what_is_missing_is_named() {
        refused(
            &["etc/fstab"],
            None,
            "the tree has no kernel: there is none",
        );
        refused(
            &["lib/modules/5.0.0/x"],
            None,
            "modules of 5.0.0, but neither",
        );
        let files = ["lib/modules/5.0.0/x", "boot/vmlinuz-5.0.0"];
        refused(&files, None, "no initramfs for its kernel 5.0.0");
        refused(
            &files,
            Some("4.1.0"),
            "no kernel 4.1.0 under /lib/modules, only 5.0.0",
        );
    }

    #[test]
    fn the_release_in_a_members_path() {
        assert_eq!(release_in("lib/modules/5.0.0/vmlinuz"), Some("5.0.0"));
        assert_eq!(release_in("usr/lib/modules/5.0.0"), Some("5.0.0"));
        assert_eq!(release_in("lib/modules/"), None);
        assert_eq!(release_in("srv/lib/modules/5.0.0"), None);
    }
}
