//! How many files the process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Lets the process open as many files as the system gives it; the soft limit, often 1024, is for
/// programs that use `select`. A deep tree keeps a pair of directories open for each level of it, and
/// a room that boots has connections.
pub fn allow_many_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // If it is refused, opening a file will say why.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
