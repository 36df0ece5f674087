//! The root disk, as each of those is told of it who attach it.

use std::fmt;
use std::net::IpAddr;

use crate::library::config::ISCSI_PORT;
use crate::library::{Chap, Secrets};

/// Where the iSCSI target answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portal {
    /// Its address, as the client sees it.
    pub ip: IpAddr,
    /// Its TCP port.
    pub port: u16,
}

/// The disk that becomes the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Where its target answers.
    pub portal: Portal,
    /// The target's iSCSI name.
    pub target: String,
    /// The logical unit.
    pub lun: u16,
    /// The initiator's name that the client has to use, boot id included. Hand-written and exported
    /// boot.cfg have none.
    pub initiator: Option<String>,
    /// What it proves at its login, and what the target proves in return; often nothing.
    pub secrets: Secrets,
}

impl Portal {
    /// The port where it must be said; nothing where it is the usual one.
    fn other_port(&self) -> String {
        match self.port {
            ISCSI_PORT => String::new(),
            port => port.to_string(),
        }
    }
}

impl Root {
    /// The device that udev makes for this disk.
    pub fn by_path(&self) -> String {
        let Root {
            portal,
            target,
            lun,
            ..
        } = self;
        // udev takes the address as the kernel's session has it: without brackets, IPv6 too.
        format!(
            "/dev/disk/by-path/ip-{}:{}-iscsi-{target}-lun-{lun}",
            portal.ip, portal.port
        )
    }

    /// The target as dracut is told of it: `iscsi:SERVER:PROTOCOL:PORT:LUN:TARGET` (dracut.cmdline(7)).
    /// What is empty is the default, and the LUN stands in `root=` already.
    pub fn netroot(&self) -> String {
        let Root { portal, target, .. } = self;
        let port = portal.other_port();
        format!("iscsi:{}::{port}::{target}", Bracketed(portal.ip))
    }

    /// The disk as iPXE is told of it, in the form of RFC 4173 §5: the same, with the LUN.
    pub fn san_uri(&self) -> String {
        let Root {
            portal,
            target,
            lun,
            ..
        } = self;
        let port = portal.other_port();
        // iPXE reads the LUN as hexadecimal, where dracut and udev take a decimal number.
        format!("iscsi:{}::{port}:{lun:x}:{target}", Bracketed(portal.ip))
    }

    /// What is proved at a login, on a kernel line: under these names, user and secret of the client, then
    /// those of the target. What stands there is read by all users of the client.
    pub(in crate::boot) fn secret_args(&self, names: [&str; 4]) -> Vec<String> {
        let [user, secret, in_user, in_secret] = names;
        let pair = |chap: &Option<Chap>, user: &str, secret: &str| {
            let args = chap.as_ref().map(|chap| {
                [
                    format!("{user}={}", chap.user),
                    format!("{secret}={}", chap.secret),
                ]
            });
            args.into_iter().flatten().collect::<Vec<_>>()
        };
        let mut args = pair(&self.secrets.chap, user, secret);
        args.extend(pair(&self.secrets.mutual, in_user, in_secret));
        args
    }

    /// The same for iPXE, which hands it on in the firmware's table.
    fn secret_settings(&self) -> String {
        let names = [
            "username",
            "password",
            "reverse-username",
            "reverse-password",
        ];
        let set = |arg: &String| format!("set {}\n", arg.replacen('=', " ", 1));
        self.secret_args(names).iter().map(set).collect()
    }

    /// A template in which iPXE attaches the disk; one without an initiator's name leaves iPXE its own.
    pub(in crate::boot) fn said_in(&self, template: &str) -> String {
        const NAME: &str = "set initiator-iqn @INITIATOR@\n";
        let named = match &self.initiator {
            Some(name) => {
                let said = NAME.replace("@INITIATOR@", name) + &self.secret_settings();
                template.replace(NAME, &said)
            }
            None => template.replace(NAME, ""),
        };
        named.replace("@URI@", &self.san_uri())
    }
}

/// An address as it stands where a colon follows or separates: IPv6 in brackets.
struct Bracketed(IpAddr);

impl fmt::Display for Bracketed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(ip) => write!(f, "{ip}"),
            IpAddr::V6(ip) => write!(f, "[{ip}]"),
        }
    }
}
