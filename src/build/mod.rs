//! Plans that make versions.

mod compressed;
mod facts;
mod filesystem;
mod initramfs;
mod kernel;
mod size;
pub(crate) mod tree;
mod version;

pub use filesystem::{FileSystem, UnknownFileSystem};
pub use size::{SizeSpec, WrongSize};
pub use tree::Excludes;

#[cfg(test)]
mod speed {
    #[test]
    fn speed() {
        use super::tree::*;
        let source = std::env::var("NR_TREE").unwrap();
        let disk = std::path::PathBuf::from(std::env::var("NR_DISK").unwrap());
        let cancel = crate::exec::Cancel::new();
        let t0 = std::time::Instant::now();
        crate::exec::in_private_mounts(|mounts| {
            let view = mounts.view(source.as_ref()).unwrap();
            let root = Root::from_dir(view, source.as_ref());
            let m = measure(&root, &Excludes::default(), &cancel).unwrap();
            println!("{m:?} {:?}", t0.elapsed());
            let _ = std::fs::remove_file(&disk);
            let f = std::fs::File::create(&disk).unwrap();
            f.set_len(super::SizeSpec::default().of(m.allocated).max(400 << 20))
                .unwrap();
            let fs: super::FileSystem = std::env::var("NR_FS")
                .unwrap_or("xfs".into())
                .parse()
                .unwrap();
            let k = super::version::KernelRelease::parse("6.1.0").unwrap();
            let made = fs.make(&disk, &k, &m, &cancel).unwrap();
            println!("mkfs {made:?} {:?}", t0.elapsed());
            let mnt = disk.with_extension("mnt");
            std::fs::create_dir_all(&mnt).unwrap();
            let mo = mounts
                .image(&disk, fs.name(), fs.draft_options(), &mnt, &cancel)
                .unwrap();
            println!("mount {:?}", t0.elapsed());
            let target = Root::open(mo.path()).unwrap();
            copy(&root, &target, &Excludes::default(), &cancel, &|_| ()).unwrap();
            drop(target);
            println!("copy {:?}", t0.elapsed());
            mo.unmount().unwrap();
            println!("unmount {:?}", t0.elapsed());
            f.sync_all().unwrap();
            println!("sync {:?}", t0.elapsed());
            fs.check(&disk, &cancel).unwrap();
            println!("check {:?}", t0.elapsed());
        })
        .unwrap();
    }

    #[test]
    fn real_initrd() {
        let f = std::fs::File::open(std::env::var("NR_INITRD").unwrap()).unwrap();
        let t0 = std::time::Instant::now();
        let k = super::version::KernelRelease::parse(&std::env::var("NR_K").unwrap()).unwrap();
        println!("{:?} {:?}", super::initramfs::check(f, &k), t0.elapsed());
    }
}
