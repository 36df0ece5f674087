//! The kernel's command line: which words arrive as they were meant, and how many fit.
//!
//! A word passes iPXE's script parser, the kernel's, and those of dracut or initramfs-tools, which are
//! shell scripts. Each of [`MISREAD`] names what one of them would make of it; such a word is none
//! anywhere. Those of [`OWNED`] are words that netroot writes itself: they are refused when they are set. A
//! word that was set before one of these rules came is kept in its document, told of, and left out.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use super::clients::Client;
use super::error::{Error, Result};
use super::names::{NameError, schema_of_text};
use super::{Config, Library};

/// One word of a kernel command line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KernelArg(String);

schema_of_text!(
    KernelArg,
    concat!(
        r"^(?!(&&|\|\||;|--)$)(?!.*\$\{)(?![^=]*[*?\[])",
        r"(?!(root|netroot|iscsiroot|initrd|ro|rw|ip|BOOTIF|rd\.iscsi\.(initiator|firmware|ibft",
        r"|username|password|in\.username|in\.password))(=|$))",
        r"(?!rd\.iscsi\.target\.|iscsi_)",
        r"[!$-&(-\[\]-_a-~][!#-&(-\[\]-_a-~]{0,511}$"
    )
);

/// The longest word.
const LONGEST: usize = 512;

/// What would be misread, and by whom.
struct Rule {
    breaks: fn(&str) -> bool,
    /// Ends the sentence "`x` is not a kernel argument that arrives: …".
    wanted: &'static str,
}

const MISREAD: &[Rule] = &[
    Rule {
        breaks: |word| word.is_empty(),
        wanted: "a kernel argument: it is empty",
    },
    Rule {
        breaks: |word| word.len() > LONGEST,
        wanted: "a kernel argument: it has more than 512 bytes, of the 2047 that the kernel takes in all",
    },
    Rule {
        // iPXE and the kernel split at blanks, and neither has a way to quote them through both.
        breaks: |word| !word.bytes().all(|byte| byte.is_ascii_graphic()),
        wanted: "one kernel argument: it is one word of printable ASCII; give each word by itself, \
                 without blanks",
    },
    Rule {
        breaks: |word| word.contains(['"', '\'', '\\', '`']),
        wanted: "a kernel argument that arrives: the kernel and the scripts of the initramfs take \
                 quotes and backslashes out of it; leave them out",
    },
    Rule {
        breaks: |word| word.contains("${"),
        wanted: "a kernel argument that arrives: iPXE puts a setting of its own in the place of `${`",
    },
    Rule {
        breaks: |word| word.starts_with('#'),
        wanted: "a kernel argument that arrives: iPXE takes `#` for the beginning of a comment",
    },
    Rule {
        breaks: |word| matches!(word, "&&" | "||" | ";"),
        wanted: "a kernel argument that arrives: iPXE takes it for the end of a command",
    },
    Rule {
        breaks: |word| word == "--",
        wanted: "a kernel argument: the kernel hands all that follows `--` to init, and reads none of it",
    },
    Rule {
        // `for x in $(cat /proc/cmdline)`: the shell looks for files of such a name.
        breaks: |word| key(word).contains(['*', '?', '[']),
        wanted: "a kernel argument that arrives: the scripts of the initramfs take `*`, `?` and `[` before \
                 a `=` for a pattern of file names",
    },
];

const OWNED: &[Rule] = &[
    Rule {
        breaks: |word| {
            SECRET.contains(&key(word)) || matches!(key(word), "iscsi_username" | "iscsi_password")
        },
        wanted: "a kernel argument of yours: netroot writes what it takes to log in itself; on the kernel \
                 line of a client every user of it could read a secret",
    },
    Rule {
        breaks: |word| matches!(key(word), "ip" | "BOOTIF"),
        wanted: "a kernel argument of yours: netroot writes ip=dhcp and BOOTIF= itself, and a second one \
                 stops dracut or takes the client to another network; give an address of its own to it by \
                 your DHCP server",
    },
    Rule {
        breaks: |word| {
            let key = key(word);
            OURS.contains(&key) || key.starts_with("rd.iscsi.target.") || key.starts_with("iscsi_")
        },
        wanted: "a kernel argument of yours: root=, netroot=, iscsiroot=, initrd=, ro, rw, \
                 rd.iscsi.initiator=, rd.iscsi.target.*, rd.iscsi.firmware, rd.iscsi.ibft and iscsi_* \
                 are written by netroot itself",
    },
];

/// Keys that only netroot writes: a client with another one would have another's disk or name.
const OURS: &[&str] = &[
    "root",
    "netroot",
    "iscsiroot",
    "initrd",
    "ro",
    "rw",
    "rd.iscsi.initiator",
    "rd.iscsi.firmware",
    "rd.iscsi.ibft",
];

/// Keys of names and secrets.
const SECRET: &[&str] = &[
    "rd.iscsi.username",
    "rd.iscsi.password",
    "rd.iscsi.in.username",
    "rd.iscsi.in.password",
];

fn key(word: &str) -> &str {
    word.split('=').next().unwrap_or(word)
}

impl KernelArg {
    /// The word as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads one that somebody says who has these before him. What was there stays, whatever was refused
    /// since.
    pub fn said_beside(before: &[KernelArg], text: &str) -> std::result::Result<Self, NameError> {
        match before.iter().find(|arg| arg.0 == text) {
            Some(arg) => Ok(arg.clone()),
            None => text.parse(),
        }
    }

    /// Why it is not on the kernel line, where it was set before that was refused.
    pub fn left_out(&self) -> Option<NameError> {
        broken(OWNED, &self.0)
    }

    /// The same for each of these that is not there.
    pub fn all_left_out(args: &[KernelArg]) -> Vec<String> {
        let why = args.iter().filter_map(KernelArg::left_out);
        why.map(|why| format!("{why}; it is left out")).collect()
    }
}

fn broken(rules: &[Rule], text: &str) -> Option<NameError> {
    let rule = rules.iter().find(|rule| (rule.breaks)(text))?;
    Some(NameError::new(text, rule.wanted))
}

/// Reads arguments that somebody has set, maybe before one of [`OWNED`] came.
pub(super) fn kept<'de, D: Deserializer<'de>>(
    from: D,
) -> std::result::Result<Vec<KernelArg>, D::Error> {
    let words = Vec::<String>::deserialize(from)?.into_iter();
    let read = |word: String| match broken(MISREAD, &word) {
        Some(why) => Err(D::Error::custom(why)),
        None => Ok(KernelArg(word)),
    };
    words.map(read).collect()
}

impl FromStr for KernelArg {
    type Err = NameError;

    fn from_str(text: &str) -> std::result::Result<Self, NameError> {
        match broken(MISREAD, text).or_else(|| broken(OWNED, text)) {
            Some(why) => Err(why),
            None => Ok(KernelArg(text.to_owned())),
        }
    }
}

impl TryFrom<String> for KernelArg {
    type Error = NameError;

    fn try_from(text: String) -> std::result::Result<Self, NameError> {
        text.parse()
    }
}

impl From<KernelArg> for String {
    fn from(arg: KernelArg) -> String {
        arg.0
    }
}

impl fmt::Display for KernelArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Bytes of a command line that kernels take, its end included (COMMAND_LINE_SIZE of x86 and arm64);
/// they cut off what is more, and what they cut off first is the last that was said.
pub const KERNEL_LINE: usize = 2048;

/// Bytes for what netroot writes itself, besides names of targets and name servers.
const OWN_WORDS: usize = 910;
/// The most that comes after the prefix in the names of a target and, with its boot id, an initiator.
const TARGET: usize = 44;
const INITIATOR: usize = 61;
/// ` nameserver=` and an IPv6 address.
const NAME_SERVER: usize = 12 + 39;

/// Bytes of the kernel line that netroot's own words may take, under a configuration.
pub fn own_words(config: &Config) -> usize {
    let prefix = config.iqn_prefix.as_str().len();
    OWN_WORDS
        + 2 * (prefix + TARGET)
        + prefix
        + INITIATOR
        + config.boot.nameservers.len() * NAME_SERVER
}

/// Bytes that are left on the kernel line for arguments and the blanks between them.
pub fn room_for_args(config: &Config) -> usize {
    (KERNEL_LINE - 1).saturating_sub(own_words(config))
}

/// Whether arguments fit on the kernel line; else how long they are and could be.
pub(super) fn fits(config: &Config, args: &[KernelArg]) -> std::result::Result<(), String> {
    let long: usize = args.iter().map(|arg| arg.as_str().len() + 1).sum();
    let room = room_for_args(config);
    match long <= room {
        true => Ok(()),
        false => Err(format!(
            "its kernel arguments take {long} bytes, those of everybody and of its groups and where its data \
             disk is included, and the kernel, which cuts its line off at {} bytes, leaves {room}",
            KERNEL_LINE - 1
        )),
    }
}

impl Library {
    /// Refuses arguments of a client that the kernel would cut off; `what` is being done.
    pub(super) fn ensure_line(&self, client: &Client, what: &str) -> Result<()> {
        self.ensure_args(&self.told_args(client)?, what)
    }

    /// The same for all arguments of one boot.
    pub(super) fn ensure_args(&self, args: &[KernelArg], what: &str) -> Result<()> {
        fits(&self.config(), args).map_err(|why| {
            let instead = "leave some out: client set --arg, its groups', or [boot] kernel_args";
            Error::refused(what, why, instead)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_a_parser_would_misread_are_refused_with_the_reason() {
        for good in [
            "quiet",
            "console=ttyS0,115200n8",
            "a=b=c",
            "mitigations=off",
            "rd.break@1",
            "rd.iscsi.param=node.conn[0].timeo.noop_out_interval=5",
            "x=$y",
            "a#b",
            "module_blacklist=a,b",
            "ipv6.disable=1",
        ] {
            assert!(good.parse::<KernelArg>().is_ok(), "{good}");
        }
        let check = |bad: &str, why: &str| {
            let told = bad.parse::<KernelArg>().unwrap_err().to_string();
            assert!(told.contains(why), "{bad:?}: {told}");
        };
        check("", "empty");
        check("a b", "each word by itself");
        check("a\nb", "each word by itself");
        check("a\tb", "each word by itself");
        check("ä", "printable ASCII");
        check("x=${net0/mac}", "iPXE");
        check("\"a", "quotes");
        check("a\\", "backslashes");
        check("||", "end of a command");
        check(";", "end of a command");
        check("#x", "comment");
        check("--", "init");
        check("*", "file names");
        check("a[0]", "file names");
        check("root=/dev/sda", "netroot itself");
        check("rw", "netroot itself");
        check(
            "ip=192.0.2.7::192.0.2.1:255.255.255.0::eth0:none",
            "stops dracut",
        );
        check("ip=dhcp", "stops dracut");
        check("BOOTIF=01-52-54-00-12-34-56", "stops dracut");
        check("initrd=x", "netroot itself");
        check("iscsiroot=x", "netroot itself");
        check("rd.iscsi.target.name=x", "netroot itself");
        check("iscsi_initiator=x", "netroot itself");
        check("rd.iscsi.password=p", "read a secret");
        check(&"x".repeat(513), "512");
    }

    #[test]
    fn a_word_that_netroot_writes_by_now_is_kept_told_and_left_out() {
        let read = |text: &str| kept(&mut serde_json::Deserializer::from_str(text));
        let args = read(r#"["quiet","ip=dhcp","BOOTIF=01-52-54-00-12-34-56"]"#).unwrap();
        let told = KernelArg::all_left_out(&args);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("ip=dhcp") && told[0].ends_with("; it is left out"));
        assert!(read(r#"["a b"]"#).is_err(), "that is no word");
        let set = serde_json::from_str::<Vec<KernelArg>>(r#"["ip=dhcp"]"#);
        assert!(set.is_err(), "who sets it is refused");
        assert_eq!(
            KernelArg::said_beside(&args, "ip=dhcp"),
            Ok(args[1].clone())
        );
        assert!(KernelArg::said_beside(&args, "ip=on").is_err());
    }
}
