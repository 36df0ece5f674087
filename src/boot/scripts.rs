//! Scripts of iPXE that boot nothing by themselves: what all begin with, and what a person is told.

use super::Text;
use crate::library::{Library, MacAddr};

/// The script that every client starts with, served under `base`, such as `http://192.0.2.1:8080`.
pub fn boot_ipxe(library: &Library, base: &str) -> String {
    Text::Boot.filled(library, &[("BASE", base)])
}

/// The script that lies beside the loaders, for an iPXE that was told nothing by DHCP.
pub fn network_ipxe(base: &str) -> String {
    include_str!("../../esp/network.ipxe").replace("@BASE@", base)
}

/// What a machine is told that is nobody's client.
pub fn unknown_ipxe(library: &Library, base: &str, mac: &MacAddr) -> String {
    let mac = mac.to_string();
    Text::Unknown.filled(library, &[("BASE", base), ("MAC", &mac)])
}

/// On to the next device that the firmware boots from.
pub fn local_ipxe(library: &Library) -> String {
    Text::Local.filled(library, &[])
}

/// A script that tells something for `seconds`, so that it can be read, and fails.
pub fn failing(said: &str, seconds: u32) -> String {
    format!(
        "#!ipxe\necho netroot: {}\nsleep {seconds}\nexit 1\n",
        plain(said)
    )
}

/// A text as it may stand in a line of a script: nothing in it is expanded, ends the line or begins a
/// comment.
pub(super) fn plain(text: &str) -> String {
    let plain = |c: char| match c {
        ' '..='~' if !matches!(c, '$' | '#' | '"' | '\\') => c,
        _ => '?',
    };
    text.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_one_line_of_text() {
        assert_eq!(
            failing("no `fc28`\nshell ${uuid} \"x\" # \u{1b}[1m\\", 30),
            "#!ipxe\necho netroot: no `fc28`?shell ?{uuid} ?x? ? ?[1m?\nsleep 30\nexit 1\n"
        );
    }
}
