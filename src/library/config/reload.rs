//! What of a changed configuration a running server takes on, and what waits for its next start.

use super::{Boot, Config, Dhcp, Iscsi, Settings};

/// Which keys are others, such as `iscsi.listen`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// They hold from now on.
    pub now: Vec<&'static str>,
    /// They hold when the server starts anew.
    pub at_restart: Vec<&'static str>,
}

impl Config {
    /// This configuration, with what a running server can take on of `new`.
    pub fn taking_on(&self, new: &Config) -> (Config, Changed) {
        let mut changed = Changed::default();
        // Taken apart, so that none that is added is left out.
        let Settings {
            way,
            menu,
            menu_items,
            menu_timeout,
            quota,
            size,
            data,
            keep_discarded,
            chap,
            mutual,
            identity,
            authorized_keys,
        } = &new.clients;
        let now = [
            (
                "images.immutable",
                self.images.immutable == new.images.immutable,
            ),
            (
                "images.publish_gate",
                self.images.publish_gate == new.images.publish_gate,
            ),
            ("iscsi.listen", self.iscsi.listen == new.iscsi.listen),
            ("iscsi.announce", self.iscsi.announce == new.iscsi.announce),
            (
                "boot.nameservers",
                self.boot.nameservers == new.boot.nameservers,
            ),
            (
                "boot.kernel_args",
                self.boot.kernel_args == new.boot.kernel_args,
            ),
            ("volumes.directories", self.volumes == new.volumes),
            ("boot.ipxe_dir", self.boot.ipxe_dir == new.boot.ipxe_dir),
            ("boot.loaders", self.boot.loaders == new.boot.loaders),
            (
                "dhcp.interfaces",
                self.dhcp.interfaces == new.dhcp.interfaces,
            ),
            ("boot.unknown", self.boot.unknown == new.boot.unknown),
            ("boot.login", self.boot.login == new.boot.login),
            ("clients.menu", self.clients.menu == *menu),
            ("clients.menu_items", self.clients.menu_items == *menu_items),
            (
                "clients.menu_timeout",
                self.clients.menu_timeout == *menu_timeout,
            ),
            ("boot.secrets", self.boot.secrets == new.boot.secrets),
            ("boot.trusted", self.boot.trusted == new.boot.trusted),
            ("clients.way", self.clients.way == *way),
            ("clients.quota", self.clients.quota == *quota),
            ("clients.size", self.clients.size == *size),
            ("clients.data", self.clients.data == *data),
            (
                "clients.keep_discarded",
                self.clients.keep_discarded == *keep_discarded,
            ),
            ("clients.chap", self.clients.chap == *chap),
            ("clients.mutual", self.clients.mutual == *mutual),
            ("clients.identity", self.clients.identity == *identity),
            (
                "clients.authorized_keys",
                self.clients.authorized_keys == *authorized_keys,
            ),
        ];
        // Names and numbers by which clients know their disks, and what was set up once at the start.
        let at_restart = [
            ("host", self.host == new.host),
            ("iqn_prefix", self.iqn_prefix == new.iqn_prefix),
            ("iscsi.lun", self.iscsi.lun == new.iscsi.lun),
            (
                "iscsi.connections",
                self.iscsi.connections == new.iscsi.connections,
            ),
            (
                "iscsi.connections_per_address",
                self.iscsi.connections_per_address == new.iscsi.connections_per_address,
            ),
            ("iscsi.memory", self.iscsi.memory == new.iscsi.memory),
            ("boot.listen", self.boot.listen == new.boot.listen),
            (
                "boot.tls_listen",
                self.boot.tls_listen == new.boot.tls_listen,
            ),
            ("boot.tls", self.boot.tls == new.boot.tls),
            ("dhcp.mode", self.dhcp.mode == new.dhcp.mode),
            ("tftp.listen", self.tftp == new.tftp),
            ("admin.listen", self.admin.listen == new.admin.listen),
            ("admin.tls", self.admin.tls == new.admin.tls),
            ("admin.names", self.admin.names == new.admin.names),
            ("admin.metrics", self.admin.metrics == new.admin.metrics),
        ];
        let others = |keys: &[(&'static str, bool)]| {
            let others = keys.iter().filter(|(_, same)| !same);
            others.map(|(key, _)| *key).collect()
        };
        changed.now = others(&now);
        changed.at_restart = others(&at_restart);
        let config = Config {
            images: new.images.clone(),
            volumes: new.volumes.clone(),
            clients: new.clients.clone(),
            iscsi: Iscsi {
                listen: new.iscsi.listen.clone(),
                announce: new.iscsi.announce.clone(),
                ..self.iscsi.clone()
            },
            boot: Boot {
                listen: self.boot.listen.clone(),
                tls_listen: self.boot.tls_listen.clone(),
                tls: self.boot.tls.clone(),
                ..new.boot.clone()
            },
            dhcp: Dhcp {
                mode: self.dhcp.mode,
                interfaces: new.dhcp.interfaces.clone(),
            },
            ..self.clone()
        };
        (config, changed)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{HostName, IqnPrefix};
    use super::*;

    #[test]
    fn every_key_is_taken_on_now_or_at_the_next_start() {
        let host: HostName = "server-01.example.edu".parse().unwrap();
        let text = Config::template(&host, &IqnPrefix::of(&host, 2026, 1), true);
        let parse = |text: &str| Config::parse(Path::new("netroot.toml"), text).unwrap();
        let old = parse(&text);
        let check = |from: &str, to: &str, key: &'static str, is_now: bool| {
            assert!(text.contains(from), "{from}");
            let new = parse(&text.replace(from, to));
            let (config, changed) = old.taking_on(&new);
            let (now, at_restart) = match is_now {
                true => (vec![key], vec![]),
                false => (vec![], vec![key]),
            };
            assert_eq!(changed, Changed { now, at_restart });
            assert_eq!(config, if is_now { new } else { old.clone() });
            let (again, _) = config.taking_on(&old);
            assert_eq!(again, old);
        };
        check(
            "immutable = true",
            "immutable = false",
            "images.immutable",
            true,
        );
        check(
            "publish_gate = false",
            "publish_gate = true",
            "images.publish_gate",
            true,
        );
        check("[::]:3260", "127.0.0.1:3260", "iscsi.listen", true);
        check(
            "announce = []",
            "announce = [\"192.0.2.1\"]",
            "iscsi.announce",
            true,
        );
        check(
            "nameservers = []",
            "nameservers = [\"192.0.2.1\"]",
            "boot.nameservers",
            true,
        );
        check(
            "kernel_args = []",
            "kernel_args = [\"quiet\"]",
            "boot.kernel_args",
            true,
        );
        check(
            "directories = []",
            "directories = [\"/srv\"]",
            "volumes.directories",
            true,
        );
        check("/usr/lib/ipxe", "/srv/ipxe", "boot.ipxe_dir", true);
        check(
            "loaders = {}",
            "loaders = { bios = \"/srv/u\" }",
            "boot.loaders",
            true,
        );
        check(
            "interfaces = []",
            "interfaces = [\"eth0\"]",
            "dhcp.interfaces",
            true,
        );
        check("mode = \"off\"", "mode = \"proxy\"", "dhcp.mode", false);
        check(
            "\nlisten = []\n",
            "\nlisten = [\"[::]:69\"]\n",
            "tftp.listen",
            false,
        );
        check(
            "unknown = \"menu\"",
            "unknown = { image = \"fc28@3\" }",
            "boot.unknown",
            true,
        );
        check("# way = \"http\"", "way = \"ibft\"", "clients.way", true);
        check("login = false", "login = true", "boot.login", true);
        check("# menu = \"off\"", "menu = \"key\"", "clients.menu", true);
        check(
            "# menu_items = [\"own\", \"local\"]",
            "menu_items = [\"local\", \"fc28\"]",
            "clients.menu_items",
            true,
        );
        check(
            "# menu_timeout = 10",
            "menu_timeout = 30",
            "clients.menu_timeout",
            true,
        );
        check(
            "# quota = \"20G\"",
            "quota = \"10G\"",
            "clients.quota",
            true,
        );
        check("# size = \"40G\"", "size = \"40G\"", "clients.size", true);
        check("# data = \"20G\"", "data = \"20G\"", "clients.data", true);
        check(
            "# keep_discarded = \"14d\"",
            "keep_discarded = \"2d\"",
            "clients.keep_discarded",
            true,
        );
        check("# chap = \"ibft\"", "chap = \"off\"", "clients.chap", true);
        check(
            "# mutual = \"on\"",
            "mutual = \"on\"",
            "clients.mutual",
            true,
        );
        check(
            "# identity = \"off\"",
            "identity = \"off\"",
            "clients.identity",
            true,
        );
        check(
            "# authorized_keys = [",
            "authorized_keys = [",
            "clients.authorized_keys",
            true,
        );
        check("host = \"server-01", "host = \"server-02", "host", false);
        check(
            "iqn_prefix = \"iqn.2026-01",
            "iqn_prefix = \"iqn.2026-02",
            "iqn_prefix",
            false,
        );
        check("lun = 1", "lun = 2", "iscsi.lun", false);
        check("memory = 1024", "memory = 64", "iscsi.memory", false);
        check(
            "connections = 4096",
            "connections = 64",
            "iscsi.connections",
            false,
        );
        check(
            "connections_per_address = 256",
            "connections_per_address = 64",
            "iscsi.connections_per_address",
            false,
        );
        check("[::]:8080", "[::]:8088", "boot.listen", false);
        check("[::]:8443", "[::]:8444", "boot.tls_listen", false);
        check(
            "secrets = \"http\"",
            "secrets = \"https\"",
            "boot.secrets",
            true,
        );
        check(
            "trusted = []",
            "trusted = [\"10.1.0.0/16\"]",
            "boot.trusted",
            true,
        );
        check(
            "# tls = { certificate",
            "tls = { certificate",
            "boot.tls",
            false,
        );
        check("127.0.0.1:8081", "127.0.0.1:8082", "admin.listen", false);
        check("# tls = \"made\"", "tls = \"made\"", "admin.tls", false);
        check(
            "names = []",
            "names = [\"a.example\"]",
            "admin.names",
            false,
        );
        check(
            "metrics = \"closed\"",
            "metrics = \"open\"",
            "admin.metrics",
            false,
        );
    }
}
