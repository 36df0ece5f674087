//! `netroot.toml`: written by people, read strictly. A mistake is told with its line and key.

mod netboot;
mod reload;
mod unknown;
mod values;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use netboot::{Dhcp, DhcpMode, InterfaceName, LoaderFiles, Tftp};
pub use reload::Changed;
pub use unknown::{ForUnknown, MenuLogin, PlainPolicy};
pub use values::{AbsolutePath, AddressRange, Announce, DiskLun, HostName, IqnPrefix};

use values::Format;

use super::clients::Settings;
use super::kernel_line;
use super::names::KernelArg;

/// The configuration of a library, as one server sees it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    format: Format,
    /// The name of the host that the library was made on.
    pub host: HostName,
    /// What the names of all targets and initiators begin with.
    pub iqn_prefix: IqnPrefix,
    /// How versions are kept.
    #[serde(default)]
    pub images: Images,
    /// The target.
    #[serde(default)]
    pub iscsi: Iscsi,
    /// The boot service.
    #[serde(default)]
    pub boot: Boot,
    /// What is said over DHCP.
    #[serde(default)]
    pub dhcp: Dhcp,
    /// Loaders over TFTP.
    #[serde(default)]
    pub tftp: Tftp,
    /// Dashboard and API.
    #[serde(default)]
    pub admin: Admin,
    /// Files and block devices that are published as they are.
    #[serde(default)]
    pub volumes: Volumes,
    /// What all clients are told, unless their groups or they themselves say otherwise.
    #[serde(default)]
    pub clients: Settings,
}

/// How versions are kept.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    /// Make sealed files immutable (`chattr +i`) where the file system can.
    pub immutable: bool,
    /// A version becomes current only when its test went well.
    pub publish_gate: bool,
}

/// Files and block devices that are published as they are.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Volumes {
    /// Where those may name files and devices who have not the server's own rights: users of dashboard
    /// and API, and members of the server's group.
    pub directories: Vec<AbsolutePath>,
}

/// The target.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Iscsi {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// What SendTargets and boot.cfg name; empty: the address that a connection came in on.
    pub announce: Vec<Announce>,
    /// Where the disk of an image or a clone stands.
    pub lun: DiskLun,
    /// Connections at a time.
    pub connections: NonZeroU32,
    /// The same, from one address.
    pub connections_per_address: NonZeroU32,
    /// Memory for data on their way between disks and clients, in MiB.
    pub memory: NonZeroU32,
}

/// The boot service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Boot {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Name servers for clients; empty: what DHCP says.
    pub nameservers: Vec<IpAddr>,
    /// Kernel arguments of all clients.
    #[serde(deserialize_with = "kernel_line::kept")]
    pub kernel_args: Vec<KernelArg>,
    /// Where iPXE's binaries are found: where this host's package has them, if nobody says anything.
    pub ipxe_dir: PathBuf,
    /// Those that are elsewhere.
    pub loaders: LoaderFiles,
    /// What a machine gets that is nobody's client.
    pub unknown: ForUnknown,
    /// Whether people can log in at a machine's menu.
    pub login: MenuLogin,
    /// Where it listens for connections over TLS, if it has a certificate.
    pub tls_listen: Vec<SocketAddr>,
    /// Whether it speaks TLS there, and by which certificate.
    pub tls: Option<ServerTls>,
    /// How secrets of clients may be given to them.
    pub secrets: SecretsOver,
    /// Networks behind routers whose addresses are taken for those of the clients that they say they are.
    pub trusted: Vec<AddressRange>,
}

/// How secrets of clients may be given to them: scripts with secrets for CHAP, and identities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretsOver {
    /// Also over HTTP, where who can watch the network can read them.
    #[default]
    Http,
    /// Only over HTTPS.
    Https,
}

/// Dashboard and API.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Whether it speaks TLS, and by which certificate.
    pub tls: Option<ServerTls>,
    /// Names besides this host's own by which browsers may ask for it.
    pub names: Vec<HostName>,
    /// Who may read `/metrics`.
    pub metrics: Metrics,
}

/// The certificate of dashboard and API, or of the boot service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "\"made\", or { certificate = \"FILE\", key = \"FILE\" }"
)]
pub enum ServerTls {
    /// One that the server makes for itself, once.
    Made(Made),
    /// One that somebody gave.
    Given(Given),
}

/// The word `made`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Made {
    /// It.
    #[serde(rename = "made")]
    Made,
}

/// Files with a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// The certificate and those above it, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
}

/// Who may read `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metrics {
    /// Whoever is logged in, or shows a token.
    #[default]
    Closed,
    /// Everybody who reaches the server.
    Open,
}

/// The settings that one server may have of its own, in the file that `--config` names.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Override {
    iscsi: IscsiOverride,
    boot: BootOverride,
    dhcp: DhcpOverride,
    tftp: ListenOverride,
    admin: AdminOverride,
    volumes: VolumesOverride,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct VolumesOverride {
    directories: Option<Vec<AbsolutePath>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct IscsiOverride {
    listen: Option<Vec<SocketAddr>>,
    announce: Option<Vec<Announce>>,
    connections: Option<NonZeroU32>,
    connections_per_address: Option<NonZeroU32>,
    memory: Option<NonZeroU32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BootOverride {
    listen: Option<Vec<SocketAddr>>,
    tls_listen: Option<Vec<SocketAddr>>,
    tls: Option<ServerTls>,
    trusted: Option<Vec<AddressRange>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ListenOverride {
    listen: Option<Vec<SocketAddr>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DhcpOverride {
    mode: Option<DhcpMode>,
    interfaces: Option<Vec<InterfaceName>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AdminOverride {
    listen: Option<Vec<SocketAddr>>,
    tls: Option<ServerTls>,
    names: Option<Vec<HostName>>,
    metrics: Option<Metrics>,
}

impl Default for Images {
    fn default() -> Self {
        Images {
            immutable: true,
            publish_gate: false,
        }
    }
}

impl Default for Iscsi {
    fn default() -> Self {
        Iscsi {
            listen: vec![everywhere(ISCSI_PORT)],
            announce: Vec::new(),
            lun: DiskLun(1),
            connections: at_least_one(4096),
            connections_per_address: at_least_one(256),
            memory: at_least_one(1024),
        }
    }
}

impl Default for Boot {
    fn default() -> Self {
        Boot {
            listen: vec![everywhere(8080)],
            nameservers: Vec::new(),
            kernel_args: Vec::new(),
            ipxe_dir: packaged_ipxe(Path::is_dir),
            loaders: LoaderFiles::default(),
            unknown: ForUnknown::default(),
            login: MenuLogin::Off,
            tls_listen: vec![everywhere(8443)],
            tls: None,
            secrets: SecretsOver::Http,
            trusted: Vec::new(),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Admin {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8081))],
            tls: None,
            names: Vec::new(),
            metrics: Metrics::Closed,
        }
    }
}

/// Where packages have iPXE: Debian's `ipxe`, and Fedora's `ipxe-bootimgs`.
const IPXE_DIRS: [&str; 2] = ["/usr/lib/ipxe", "/usr/share/ipxe"];

/// The first of them that is there; Debian's where none is.
fn packaged_ipxe(is_there: impl Fn(&Path) -> bool) -> PathBuf {
    let [debian, _] = IPXE_DIRS;
    let found = IPXE_DIRS.into_iter().find(|dir| is_there(Path::new(dir)));
    PathBuf::from(found.unwrap_or(debian))
}

fn at_least_one(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

/// The port of iSCSI, RFC 7143 §13.8.
pub const ISCSI_PORT: u16 = 3260;

/// The port of TFTP, RFC 1350 §4.
const TFTP_PORT: u16 = 69;

fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port))
}

/// A mistake in `netroot.toml`.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {key}{message}", file = file.display(), key = key.as_ref().map(|k| format!("`{k}`: ")).unwrap_or_default())]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The key with its table, such as `iscsi.lun`.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
}

impl Config {
    /// Where loaders are given over TFTP: where it is said, or wherever DHCP clients are told of them.
    pub fn tftp_listen(&self) -> Vec<SocketAddr> {
        match (self.tftp.listen.as_slice(), self.dhcp.mode) {
            ([], DhcpMode::Off) => Vec::new(),
            ([], DhcpMode::Proxy | DhcpMode::Proxy4011) => vec![everywhere(TFTP_PORT)],
            (given, _) => given.to_vec(),
        }
    }

    /// What it says and nobody goes by, and why: it was set before that was refused.
    pub fn left_out(&self) -> Vec<String> {
        let args = KernelArg::all_left_out(&self.boot.kernel_args).into_iter();
        args.map(|why| format!("[boot] kernel_args: {why}"))
            .collect()
    }

    /// Reads the text of `file`.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| located(file, text, &error))?;
        kernel_line::fits(&config, &config.boot.kernel_args).map_err(|why| {
            let at = text.find("kernel_args").unwrap_or_default();
            at_line(file, text, at, Some(String::from("boot.kernel_args")), why)
        })?;
        if let Some((key, why)) = config.clients.impossible() {
            let at = value_at(text, "clients", key).unwrap_or_default();
            let message = format!("{why}; give it less");
            return Err(at_line(
                file,
                text,
                at,
                Some(format!("clients.{key}")),
                message,
            ));
        }
        Ok(config)
    }

    /// Takes this server's own settings from the text of `file`.
    pub fn override_from(&mut self, file: &Path, text: &str) -> Result<(), ConfigError> {
        let own: Override = toml::from_str(text).map_err(|error| located(file, text, &error))?;
        fn take<T>(into: &mut T, own: Option<T>) {
            if let Some(own) = own {
                *into = own;
            }
        }
        take(&mut self.iscsi.listen, own.iscsi.listen);
        take(&mut self.iscsi.announce, own.iscsi.announce);
        take(&mut self.iscsi.connections, own.iscsi.connections);
        take(
            &mut self.iscsi.connections_per_address,
            own.iscsi.connections_per_address,
        );
        take(&mut self.iscsi.memory, own.iscsi.memory);
        take(&mut self.boot.listen, own.boot.listen);
        take(&mut self.boot.tls_listen, own.boot.tls_listen);
        take(&mut self.boot.trusted, own.boot.trusted);
        if own.boot.tls.is_some() {
            self.boot.tls = own.boot.tls;
        }
        take(&mut self.dhcp.mode, own.dhcp.mode);
        take(&mut self.dhcp.interfaces, own.dhcp.interfaces);
        take(&mut self.tftp.listen, own.tftp.listen);
        take(&mut self.admin.listen, own.admin.listen);
        take(&mut self.admin.names, own.admin.names);
        take(&mut self.admin.metrics, own.admin.metrics);
        take(&mut self.volumes.directories, own.volumes.directories);
        if own.admin.tls.is_some() {
            self.admin.tls = own.admin.tls;
        }
        Ok(())
    }

    /// The commented file that a new library gets.
    pub fn template(host: &HostName, prefix: &IqnPrefix, immutable: bool) -> String {
        let text = include_str!("netroot.toml.in");
        text.replace("@HOST@", host.as_str())
            .replace("@IQN_PREFIX@", prefix.as_str())
            .replace("@IMMUTABLE@", if immutable { "true" } else { "false" })
            .replace("@IPXE_DIR@", &Boot::default().ipxe_dir.to_string_lossy())
    }
}

/// Says where in the file a mistake is, as a person finds it: line and key.
pub(crate) fn located(file: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let at = error.span().unwrap_or(Range { start: 0, end: 0 }).start;
    let before = text.get(..at).unwrap_or(text);
    let key = key_at(text, before.matches('\n').count());
    at_line(file, text, at, key, error.message().replace('\n', ", "))
}

/// The byte at which the value of a key begins, in a text that was read.
fn value_at(text: &str, table: &str, key: &str) -> Option<usize> {
    let all = toml::de::DeTable::parse(text).ok()?;
    let table = all.get_ref().get(table)?.get_ref().as_table()?;
    Some(table.get(key)?.span().start)
}

/// The same for a mistake at byte `at` that only its reader knows.
pub(crate) fn at_line(
    file: &Path,
    text: &str,
    at: usize,
    key: Option<String>,
    message: String,
) -> ConfigError {
    let before = text.get(..at).unwrap_or(text);
    ConfigError {
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        key,
        message,
    }
}

/// The key that is set in the given line (from 0), or in the array that began above it.
fn key_at(text: &str, line: usize) -> Option<String> {
    let lines: Vec<&str> = text.lines().take(line + 1).collect();
    let key = lines.iter().rev().find_map(|line| {
        let (key, _) = line.split_once('=')?;
        let key = key.trim();
        (!key.is_empty() && !key.contains([' ', '#', '"'])).then_some(key)
    });
    let table = lines.iter().rev().find_map(|line| {
        let inner = line.trim().strip_prefix('[')?.split(']').next()?;
        (!inner.is_empty()
            && inner
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        .then_some(inner)
    });
    // A mistake in a table's header is about the table, not about the last key before it.
    if lines
        .last()
        .is_some_and(|line| line.trim().starts_with('['))
    {
        return table.map(str::to_owned);
    }
    match (table, key) {
        (Some(table), Some(key)) => Some(format!("{table}.{key}")),
        (None, Some(key)) => Some(key.to_owned()),
        (_, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> String {
        let host: HostName = "server-01.example.edu".parse().unwrap();
        Config::template(&host, &IqnPrefix::of(&host, 2026, 1), true)
    }

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("netroot.toml"), text)
    }

    #[test]
    fn what_init_writes_is_the_default() {
        let config = parse(&example()).unwrap();
        assert_eq!(
            config.iqn_prefix.as_str(),
            "iqn.2026-01.edu.example.server-01"
        );
        assert_eq!(config.iscsi, Iscsi::default());
        assert_eq!(config.boot, Boot::default());
        assert_eq!(config.dhcp, Dhcp::default());
        assert_eq!(config.tftp, Tftp::default());
        assert_eq!(config.admin, Admin::default());
        assert_eq!(config.images, Images::default());
        assert_eq!(config.volumes, Volumes::default());
        assert_eq!(config.clients, Settings::default());
    }

    #[test]
    fn ipxe_is_taken_from_where_this_hosts_package_has_it() {
        let found = |there: &[&str]| packaged_ipxe(|dir| there.iter().any(|one| dir == *one));
        let (debian, fedora) = ("/usr/lib/ipxe", "/usr/share/ipxe");
        assert_eq!(found(&[debian]), Path::new(debian));
        assert_eq!(found(&[fedora]), Path::new(fedora));
        assert_eq!(found(&[debian, fedora]), Path::new(debian));
        assert_eq!(found(&[]), Path::new(debian));
        let lines = example();
        let silent = lines.lines().filter(|line| !line.starts_with("ipxe_dir"));
        let silent: Vec<&str> = silent.collect();
        let config = parse(&silent.join("\n")).unwrap();
        assert_eq!(config.boot.ipxe_dir, packaged_ipxe(Path::is_dir));
    }

    #[test]
    fn mistakes_are_told_with_line_and_key() {
        let check = |from: &str, to: &str, key: &str| {
            let text = example().replace(from, to);
            assert_ne!(text, example(), "{from}");
            let line = text.lines().position(|line| line.contains(to)).unwrap() + 1;
            let error = parse(&text).unwrap_err();
            assert_eq!(error.line, line, "{error}");
            assert_eq!(error.key.as_deref(), Some(key), "{error}");
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("netroot.toml:{line}: `{key}`: "))
            );
        };
        check("lun = 1", "lun = 0", "iscsi.lun");
        check("lun = 1", "lun = \"one\"", "iscsi.lun");
        check("lun = 1", "luns = 1", "iscsi.luns");
        check("memory = 1024", "memory = 0", "iscsi.memory");
        check(
            "connections = 4096",
            "connections = -1",
            "iscsi.connections",
        );
        check("format = 1", "format = 2", "format");
        check(
            "nameservers = []",
            "nameservers = [\"one\"]",
            "boot.nameservers",
        );
        check(
            "kernel_args = []",
            "kernel_args = [\"a b\"]",
            "boot.kernel_args",
        );
        check("[\"[::]:3260\"]", "[\"3260\"]", "iscsi.listen");
        check(
            "announce = []",
            "announce = [\"0.0.0.0\"]",
            "iscsi.announce",
        );
        check("mode = \"off\"", "mode = \"on\"", "dhcp.mode");
        check("interfaces = []", "interfaces = [\"\"]", "dhcp.interfaces");
        check("loaders = {}", "loaders = { bios = \"a\" }", "boot.loaders");
        check("names = []", "names = [\"a b\"]", "admin.names");
        check("# tls = \"made\"", "tls = \"mad\"", "admin.tls");
        check(
            "# tls = \"made\"",
            "tls = { certificate = \"a\" }",
            "admin.tls",
        );
        check(
            "directories = []",
            "directories = [\"srv/disks\"]",
            "volumes.directories",
        );
        check("unknown = \"menu\"", "unknown = \"shell\"", "boot.unknown");
        check(
            "unknown = \"menu\"",
            "unknown = { image = \"Fc28\" }",
            "boot.unknown",
        );
        check("login = false", "login = \"yes\"", "boot.login");
        check(
            "# menu_timeout = 10",
            "menu_timeout = 0",
            "clients.menu_timeout",
        );
        check(
            "# menu_items = [\"own\", \"local\"]",
            "menu_items = [\"own\", \"Fc28\"]",
            "clients.menu_items",
        );
        check("# size = \"40G\"", "size = \"65T\"", "clients.size");
        check("# data = \"20G\"", "data = \"100T\"", "clients.data");
        check("trusted = []", "trusted = [\"any\"]", "boot.trusted");
        check("secrets = \"http\"", "secrets = \"ftp\"", "boot.secrets");
        check("[boot]", "[toob]", "toob");
    }

    #[test]
    fn a_mistake_in_an_array_of_several_lines() {
        let text = example().replace(
            "nameservers = []",
            "nameservers = [\n  \"192.0.2.91\",\n  \"x\",\n]",
        );
        let error = parse(&text).unwrap_err();
        assert_eq!(error.key.as_deref(), Some("boot.nameservers"));
        assert!(
            text.lines().nth(error.line - 1).unwrap().contains("\"x\""),
            "{error}"
        );
    }

    #[test]
    fn loaders_go_over_tftp_wherever_clients_are_told_of_them() {
        let listens = |to: &str| {
            let text = example().replace("mode = \"off\"", to);
            let listens = parse(&text).unwrap().tftp_listen();
            listens
                .iter()
                .map(SocketAddr::to_string)
                .collect::<Vec<_>>()
        };
        assert!(listens("mode = \"off\"").is_empty());
        assert_eq!(listens("mode = \"proxy\""), ["[::]:69"]);
        let own = example().replace("[tftp]\n", "[tftp]\nlisten = [\"192.0.2.1:69\"]\n#");
        let config = parse(&own.replace("\nlisten = []", "")).unwrap();
        assert_eq!(config.tftp_listen(), ["192.0.2.1:69".parse().unwrap()]);
    }

    #[test]
    fn a_server_overrides_what_is_its_own_and_nothing_else() {
        let mut config = parse(&example()).unwrap();
        let own = Path::new("own.toml");
        config
            .override_from(
                own,
                "[iscsi]\nannounce = [\"192.0.2.1\", \"[2001:db8::1]:3261\"]\n",
            )
            .unwrap();
        let announced: Vec<String> = config
            .iscsi
            .announce
            .iter()
            .map(|a| a.to_string())
            .collect();
        assert_eq!(announced, ["192.0.2.1:3260", "[2001:db8::1]:3261"]);
        config
            .override_from(own, "[admin]\nlisten = []\ntls = \"made\"\n")
            .unwrap();
        assert_eq!(config.admin.tls, Some(ServerTls::Made(Made::Made)));
        let given = "[admin]\ntls = { certificate = \"a.pem\", key = \"b.pem\" }\n";
        config.override_from(own, given).unwrap();
        assert!(matches!(config.admin.tls, Some(ServerTls::Given(_))));
        let error = config.override_from(own, "[iscsi]\nlun = 2\n").unwrap_err();
        assert_eq!((error.line, error.key.as_deref()), (2, Some("iscsi.lun")));
    }
}
