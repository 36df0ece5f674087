//! Writing to the disk while copying, and not only afterwards.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use nix::unistd::syncfs;

/// Bytes after which what was written so far is sent on to the disk. A kernel left alone waits for
/// a tenth of the memory; then the disk idles while files are copied, and the processors while the
/// file system is unmounted.
const INTERVAL: u64 = 32 << 20;

/// Does `work`, which tells the bytes that it has written below `root`, while a thread syncs the
/// file system that `root` is on.
pub(crate) fn written_back<T>(root: &File, work: impl FnOnce(&(dyn Fn(u64) + Sync)) -> T) -> T {
    let written = AtomicU64::new(0);
    // One request waits at most: a sync takes everything that was written before it.
    let (ask, asked) = mpsc::sync_channel(1);
    let done = move |bytes: u64| {
        let before = written.fetch_add(bytes, Ordering::Relaxed);
        if before / INTERVAL != (before + bytes) / INTERVAL {
            // Full: a request waits already.
            let _ = ask.try_send(());
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for () in asked {
                // What cannot be written is told again, and then heard, when all is synced.
                let _ = syncfs(root);
            }
        });
        let result = work(&done);
        // The thread ends when nobody can ask any more.
        drop(done);
        result
    })
}
