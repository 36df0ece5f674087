//! The binary: everything it does is in the library crate, beginning with [`netroot::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    netroot::cli::main()
}
