//! How the C library's heap is kept by a server.
#![allow(unsafe_code)] // Two settings that no crate of ours wraps.

/// What data on their way have taken, the next ones take again: without this, glibc gives each large buffer
/// back to the kernel, which then clears its pages for the next one. That is a quarter of the time that a
/// write takes (`cargo xtask bench target --scenario write-1m`). How much there can be is bounded by
/// `[iscsi] memory`.
#[cfg(target_env = "gnu")]
pub(super) fn keep_what_was_used() {
    /// The largest that mallopt(3) takes for a threshold; no buffer is larger.
    const MOST: libc::c_int = 32 << 20;
    /// What may lie idle at the end of a heap.
    const IDLE: libc::c_int = 1 << 30;
    // SAFETY: mallopt only changes settings of the allocator, which takes a lock for it.
    let kept = unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MOST) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, IDLE) == 1
    };
    if !kept {
        tracing::debug!("the heap is kept as the C library does by itself");
    }
}

/// Other C libraries have no such settings.
#[cfg(not(target_env = "gnu"))]
pub(super) fn keep_what_was_used() {}
