//! What is said to a machine that wants to boot from the network.

use std::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Encodable, Encoder};

use super::{BOOT_PORT, HTTP_CLIENT, PXE_CLIENT, Query, SERVER_PORT};

/// The least that a BOOTP packet has (RFC 1542 §2.1); some firmware drops what is shorter.
const SHORTEST: usize = 300;

/// What fits into the field for the file's name, with its end.
const FILE_FIELD: usize = 127;

/// Relays that a packet may have passed (RFC 1542 §4.1.1).
const HOPS: u8 = 16;

/// Which of the two ports a packet came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// That of DHCP servers.
    Server,
    /// That for what to boot.
    Boot,
}

impl Door {
    /// Its UDP port.
    pub fn port(self) -> u16 {
        match self {
            Door::Server => SERVER_PORT,
            Door::Boot => BOOT_PORT,
        }
    }
}

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiver {
    /// To everybody on the network that the question came from: who asks has no address yet.
    Everybody,
    /// To this address.
    One(SocketAddrV4),
}

/// What this server has for a machine, as the machine reaches it.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The server's address on the machine's network.
    pub server: Ipv4Addr,
    /// The boot service, such as `http://192.0.2.1:8080`.
    pub base: &'a str,
}

impl Query {
    /// Where an answer to a packet goes that came to `door` from `from`; nowhere if the packet is not for
    /// us to answer. `is_unicast` tells that it was sent to an address of ours and not to everybody.
    pub fn receiver(&self, door: Door, from: SocketAddrV4, is_unicast: bool) -> Option<Receiver> {
        let is_usable = |ip: &Ipv4Addr| {
            !ip.is_unspecified() && !ip.is_broadcast() && !ip.is_multicast() && !ip.is_loopback()
        };
        match (door, self.has_chosen, self.relay) {
            (Door::Server, false, None) => Some(Receiver::Everybody),
            // Relays send to servers that they were told of, never to everybody (RFC 1542 §4.1.1): who
            // named us there wants us to answer.
            (Door::Server, false, Some(relay)) => {
                let sensible = is_unicast && is_usable(&relay) && self.hops <= HOPS;
                sensible.then_some(Receiver::One(SocketAddrV4::new(relay, SERVER_PORT)))
            }
            // This is about an address, and for who gave it.
            (Door::Server, true, _) => None,
            // PXE 2.1 §2.2.3: it has its address, and asks from it. An answer goes nowhere else.
            (Door::Boot, true, _) => {
                let from = Some(from).filter(|from| is_unicast && is_usable(from.ip()));
                from.map(Receiver::One)
            }
            (Door::Boot, false, _) => None,
        }
    }

    /// The file or URL that the machine is to boot.
    pub fn boot_file(&self, base: &str) -> String {
        let file = self.firmware.loader().file();
        match (self.is_ipxe, self.firmware.boots_by_http()) {
            (true, _) => format!("{base}/boot.ipxe"),
            (false, true) => format!("{base}/ipxe/{file}"),
            (false, false) => file.to_owned(),
        }
    }

    /// The packet that answers.
    pub fn answer(&self, found: &Found<'_>) -> Vec<u8> {
        let file = self.boot_file(found.base);
        let mut message = Message::default();
        message
            .set_opcode(Opcode::BootReply)
            .set_xid(self.xid)
            .set_secs(self.secs)
            .set_flags(Flags::from(self.flags))
            .set_ciaddr(self.ciaddr)
            // PXE 2.1 §2.2.2: an offer without an address is one of a ProxyDHCP server.
            .set_yiaddr(Ipv4Addr::UNSPECIFIED)
            .set_siaddr(found.server)
            .set_giaddr(self.relay.unwrap_or(Ipv4Addr::UNSPECIFIED))
            .set_chaddr(&self.mac.bytes());
        if file.len() <= FILE_FIELD {
            message.set_fname_str(&file);
        }
        let options = message.opts_mut();
        for option in self.options(found, file) {
            options.insert(option);
        }
        let mut bytes = Vec::with_capacity(SHORTEST);
        // Into memory, and with options of a few bytes each, there is nothing to fail at.
        if let Err(error) = message.encode(&mut Encoder::new(&mut bytes)) {
            tracing::error!(%error, "a DHCP answer could not be written");
        }
        bytes.resize(bytes.len().max(SHORTEST), 0);
        bytes
    }

    fn options(&self, found: &Found<'_>, file: String) -> Vec<DhcpOption> {
        let by_http = self.firmware.boots_by_http() && !self.is_ipxe;
        let (kind, class) = (
            match self.has_chosen {
                true => MessageType::Ack,
                false => MessageType::Offer,
            },
            match by_http {
                true => HTTP_CLIENT,
                false => PXE_CLIENT,
            },
        );
        let mut options = vec![
            DhcpOption::MessageType(kind),
            DhcpOption::ServerIdentifier(found.server),
            DhcpOption::ClassIdentifier(class.to_vec()),
        ];
        if !by_http {
            options.push(DhcpOption::VendorExtensions(self.vendor_options()));
        }
        if let Some(machine) = &self.machine {
            options.push(DhcpOption::ClientMachineIdentifier(machine.clone()));
        }
        let wants = |code: OptionCode| self.wants.contains(&u8::from(code));
        if wants(OptionCode::TFTPServerName) && !by_http {
            let server = found.server.to_string();
            options.push(DhcpOption::TFTPServerName(server.into_bytes()));
        }
        // Old PXE ROMs take the field, and some stumble over an option that they have not asked for. UEFI's
        // HTTP boot and iPXE know both, and URLs may be too long for the field.
        if by_http || self.is_ipxe || wants(OptionCode::BootfileName) {
            options.push(DhcpOption::BootfileName(file.into_bytes()));
        }
        options
    }

    /// The options inside option 43 (PXE 2.1 §2.2.3).
    fn vendor_options(&self) -> Vec<u8> {
        const DISCOVERY_CONTROL: u8 = 6;
        const BOOT_ITEM: u8 = 71;
        const END: u8 = 255;
        // Bit 3: fetch the file of this packet, without a menu and without looking for boot servers.
        let mut inside = vec![DISCOVERY_CONTROL, 1, 1 << 3];
        if let Some(item) = self.item.filter(|_| self.has_chosen) {
            inside.extend([BOOT_ITEM, 4]);
            inside.extend(item);
        }
        inside.push(END);
        inside
    }
}
