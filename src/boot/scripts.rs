//! Scripts of iPXE that boot nothing by themselves: what all begin with, and what a person is told.

use super::Text;
use crate::library::config::SecretsOver;
use crate::library::{Library, MacAddr};

/// How an iPXE is led to the boot service's door for TLS, such as `https://192.0.2.1:8443`.
#[derive(Debug, Clone, Copy)]
pub enum Https<'a> {
    /// It goes there if it can. Which iPXE can, only a try tells: most know no HTTPS, and the others not
    /// every certificate.
    Tried(&'a str),
    /// It goes there or nowhere.
    Only(&'a str),
}

/// The script that every client starts with, served under `base`, such as `http://192.0.2.1:8080`. What
/// fails is told there, also where the rest goes over HTTPS.
pub fn boot_ipxe(library: &Library, base: &str, https: Option<Https<'_>>) -> String {
    let lines = https.map_or_else(String::new, Https::lines);
    Text::Boot.filled(library, &[("BASE", base), ("TLS", &lines)])
}

impl<'a> Https<'a> {
    /// How it is led to `tls` where secrets may go over this.
    pub fn to(tls: &'a str, secrets: SecretsOver) -> Self {
        match secrets {
            SecretsOver::Http => Https::Tried(tls),
            // Over HTTP it would be given nothing that is secret.
            SecretsOver::Https => Https::Only(tls),
        }
    }

    /// Lines that make `base` the boot service there.
    pub(super) fn lines(self) -> String {
        let (lines, tls) = match self {
            Https::Tried(tls) => (include_str!("../../esp/tls.cfg"), tls),
            Https::Only(tls) => (include_str!("../../esp/tls-only.cfg"), tls),
        };
        lines.replace("@TLS@", tls)
    }
}

/// The boot service at `base` by its door for TLS.
pub fn over_tls(base: &str, port: u16) -> String {
    let Some(authority) = base.strip_prefix("http://") else {
        return base.to_owned();
    };
    // The port is behind the last colon, unless that is one within an IPv6 address.
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => authority,
    };
    format!("https://{host}:{port}")
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
    fn the_door_for_tls_is_at_the_same_name() {
        for (base, secure) in [
            (
                "http://boot.example.edu:8080",
                "https://boot.example.edu:8443",
            ),
            ("http://boot.example.edu", "https://boot.example.edu:8443"),
            ("http://[2001:db8::1]", "https://[2001:db8::1]:8443"),
            ("http://[2001:db8::1]:8080", "https://[2001:db8::1]:8443"),
            ("https://boot.example.edu:9", "https://boot.example.edu:9"),
        ] {
            assert_eq!(over_tls(base, 8443), secure);
        }
    }

    #[test]
    fn who_knows_https_is_led_there() {
        let lines = Https::Tried("https://b:8443").lines();
        let wanted = "imgfetch --name tls --timeout 3000 https://b:8443/local.ipxe && imgfree tls && set \
                      base https://b:8443 ||\n";
        assert!(lines.ends_with(wanted), "{lines}");
        let lines = Https::Only("https://b:8443").lines();
        assert!(lines.ends_with("\nset base https://b:8443\n"), "{lines}");
    }

    #[test]
    fn what_is_told_is_one_line_of_text() {
        assert_eq!(
            failing("no `fc28`\nshell ${uuid} \"x\" # \u{1b}[1m\\", 30),
            "#!ipxe\necho netroot: no `fc28`?shell ?{uuid} ?x? ? ?[1m?\nsleep 30\nexit 1\n"
        );
    }
}
