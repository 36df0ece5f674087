//! Where what the lower floors log goes: to standard error, in every command.
//!
//! Boot ids are masked on the way, whoever logs them: more people read a log than may log in.

use std::io::{self, IsTerminal, Write, stderr};

use tracing::Level;
use tracing_subscriber::EnvFilter;

use crate::library::masked;

/// Shows what is logged from `level` on, unless `NETROOT_LOG` says otherwise.
pub(super) fn begin(level: Level) {
    let mut filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .with_env_var("NETROOT_LOG")
        .from_env_lossy();
    // iPXE names a server that it knows by its address in a way that RFC 6066 §3 does not allow, and rustls
    // warns at each of its connections. It is passed over, and nothing is wrong.
    if let Ok(quiet) = "rustls::msgs::handshake=error".parse() {
        filter = filter.add_directive(quiet);
    }
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stderr().is_terminal())
        .with_writer(|| Masked(stderr()))
        // A line that nobody reads any more is lost; telling of that on the same closed pipe would
        // end the thread that it happens on.
        .log_internal_errors(false)
        .init();
}

/// Takes the codes out of boot ids. Events come in one piece each.
struct Masked<W>(W);

impl<W: Write> Write for Masked<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(&masked(event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_does_not_tell_whole_boot_ids() {
        let events = tracing_subscriber::fmt().with_ansi(true);
        let shared = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let writer = {
            let shared = shared.clone();
            move || Masked(Shared(shared.clone()))
        };
        tracing::subscriber::with_default(events.with_writer(writer).finish(), || {
            let target =
                "iqn.2026-01.org.example:client-525400123456.0190a1b2c3d4-3-0123456789abcdef";
            tracing::info!(target, "logged in");
        });
        let log = String::from_utf8(shared.lock().unwrap().clone()).unwrap();
        assert!(log.contains("0190a1b2c3d4-3-\u{2026}"), "{log}");
        assert!(!log.contains("0123456789abcdef"), "{log}");
    }

    struct Shared(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
