//! What becomes of a draft that failed, where a person wants to look into it.

use std::path::Path;

use super::{FileSystem, Work};
use crate::build::adopt::content_of;
use crate::build::import::Content;
use crate::build::watch::Watch;

impl Work<'_> {
    /// Lets a person look into what failed.
    pub(super) fn keep_draft(&mut self) {
        drop(self.inside.take());
        drop(self.mounted.take());
        drop(self.scratch.take());
        let Some(draft) = self.draft.take() else {
            return;
        };
        // While there is a scratch file system, it has the whole tree and the disk has not.
        let disk = match draft.scratch_path().exists() {
            true => draft.scratch_path(),
            false => draft.disk_path(),
        };
        let content = content_of(&disk);
        match draft.keep() {
            Ok(kept) => {
                let disk = kept.join(disk.file_name().unwrap_or_default());
                let way = way_inside(&disk, content.ok().as_ref());
                self.watch.warn(&format!(
                    "the draft is kept: {way}; `netroot image prune` removes it"
                ));
            }
            // The first error is the one to tell; the draft goes as it would have.
            Err(error) => self.watch.warn(&format!("the draft is not kept: {error}")),
        }
    }
}

/// How a person looks into the disk of a draft that failed, which need not be whole.
fn way_inside(disk: &Path, content: Option<&Content>) -> String {
    let path = disk.display();
    match content {
        Some(Content::Table(_)) => format!(
            "attach its partitions by `losetup --find --show --partscan --read-only {path}`"
        ),
        Some(Content::FileSystem(found)) => {
            let known = found.kind.parse::<FileSystem>();
            format!(
                "look inside by `mount -o loop,ro,nosuid,nodev{} {path} /mnt`",
                known.map_or("", FileSystem::look_options)
            )
        }
        None => format!("there is nothing yet on {path} that could be mounted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(disk: &[u8], expected: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), disk).unwrap();
        let content = content_of(file.path()).ok();
        let way = way_inside(Path::new("/kept/disk.img"), content.as_ref());
        assert!(way.contains(expected), "{way}");
    }

    #[test]
    fn the_way_inside_is_that_of_what_is_on_the_disk() {
        let mut disk = vec![0; 1 << 20];
        check(&disk, "there is nothing yet on /kept/disk.img");
        // One partition of an MBR, from sector 8 on.
        disk[446 + 4] = 7;
        disk[446 + 8..446 + 16].copy_from_slice(&[8, 0, 0, 0, 0, 4, 0, 0]);
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        check(&disk, "--partscan --read-only /kept/disk.img");
    }
}
