//! Copies from disk to disk.

use std::fs::File;
use std::sync::Arc;

use super::backing::blocking;
use super::{Answer, Disk, Extent, Result, segment};

/// Bytes in memory at a time.
const PIECE: u64 = 1024 * 1024;

/// Copies `source` of one disk over `target` of another or the same, which are equally long. Where
/// they overlap the result is as if all had been read before anything was written.
///
/// Where both are files the file system copies, by sharing the blocks if it can.
pub fn copy(
    from: Arc<dyn Disk>,
    source: Extent,
    to: Arc<dyn Disk>,
    target: Extent,
) -> Answer<Result<()>> {
    Answer::Later(Box::pin(async move {
        let apart = !Arc::ptr_eq(&from, &to) || !overlap(source, target);
        if apart
            && let (Some(file), Some(onto)) = (from.file(), to.file_to_write(target))
            && by_file_system(file, source, onto, target).await?
        {
            return Ok(());
        }
        let pieces = source.len().div_ceil(PIECE);
        // From the end, where the beginning of the target lies in the source.
        let backwards = !apart && target.offset() > source.offset();
        for i in 0..pieces {
            let at = if backwards { pieces - 1 - i } else { i } * PIECE;
            piece(&from, source.part(at, PIECE), &to, target.part(at, PIECE)).await?;
        }
        Ok(())
    }))
}

fn overlap(a: Extent, b: Extent) -> bool {
    a.range().start < b.range().end && b.range().start < a.range().end
}

async fn piece(
    from: &Arc<dyn Disk>,
    source: Extent,
    to: &Arc<dyn Disk>,
    target: Extent,
) -> Result<()> {
    let segments = from.read(source).wait().await?;
    let bytes = segment::load(segments).wait().await?;
    if to.geometry().thin && bytes.iter().all(|byte| *byte == 0) {
        return to.unmap(target).wait().await;
    }
    to.write(target, vec![bytes]).wait().await
}

/// Has the kernel copy (copy_file_range(2)). False where it cannot between these two.
async fn by_file_system(
    from: Arc<File>,
    source: Extent,
    to: Arc<File>,
    target: Extent,
) -> Result<bool> {
    use rustix::io::Errno;
    blocking(move || {
        let (mut at, mut onto) = (source.offset(), target.offset());
        let end = source.range().end;
        while at < end {
            let left = (end - at) as usize;
            match rustix::fs::copy_file_range(&*from, Some(&mut at), &*to, Some(&mut onto), left) {
                // Beyond the end of the file, or something that is not a file.
                Ok(0)
                | Err(
                    Errno::XDEV
                    | Errno::INVAL
                    | Errno::OPNOTSUPP
                    | Errno::NOSYS
                    | Errno::BADF
                    | Errno::PERM,
                ) => return Ok(false),
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    })
    .await
}
