//! What a DHCP packet asks.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dhcproto::v4::{MessageType, Opcode, OptionCode, borrowed};

use super::{HTTP_CLIENT, IPXE, IPXE_OPTIONS, PXE_CLIENT};
use crate::boot::Firmware;
use crate::library::MacAddr;

/// Larger ones are no DHCP of a machine that boots: firmware sends 600 bytes at most.
const LARGEST: usize = 4096;

/// A packet of a machine that wants to boot from the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The interface that it boots by.
    pub mac: MacAddr,
    /// What it boots with.
    pub firmware: Firmware,
    /// Whether iPXE runs already.
    pub is_ipxe: bool,
    /// Whether it has chosen this server, and asks what to boot; else it looks for servers.
    pub has_chosen: bool,
    /// The relay that passed the packet on, if any.
    pub relay: Option<Ipv4Addr>,
    /// Its machine identifier (option 97), as it says it.
    pub(super) machine: Option<Vec<u8>>,
    /// The boot server and layer that it asks for (option 43, PXE_BOOT_ITEM).
    pub(super) item: Option<[u8; 4]>,
    /// Options that it wants to be told (option 55).
    pub(super) wants: Vec<u8>,
    pub(super) xid: u32,
    pub(super) secs: u16,
    pub(super) flags: u16,
    pub(super) hops: u8,
    pub(super) ciaddr: Ipv4Addr,
}

/// Why a packet is none of ours. Most packets on a network are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// It is cut off, or too large, or no DHCP at all.
    #[error("it is no whole DHCP packet")]
    Malformed,
    /// It is some server's answer.
    #[error("it is an answer")]
    Answer,
    /// It renews, declines or releases an address.
    #[error("it is about an address")]
    Address,
    /// It does not boot from the network.
    #[error("it is of no PXE or HTTP boot client")]
    NoBoot,
    /// Its hardware is no Ethernet.
    #[error("its hardware address is none of Ethernet")]
    Hardware,
    /// There is no iPXE for it.
    #[error("there is no iPXE for its architecture, {0}")]
    Architecture(u16),
}

impl Query {
    /// Reads a packet. Nothing is taken of one that is not whole.
    pub fn parse(packet: &[u8]) -> Result<Self, Ignored> {
        // The crate's reader that takes options as bytes: the other one gives up at the first that it
        // does not understand, and what firmware sends is not always what the standards have.
        if packet.len() > LARGEST {
            return Err(Ignored::Malformed);
        }
        let message = borrowed::Message::new(packet).map_err(|_| Ignored::Malformed)?;
        if message.opcode() != Opcode::BootRequest {
            return Err(Ignored::Answer);
        }
        let options = options(packet, &message)?;
        let option = |code: OptionCode| options.get(&u8::from(code)).map(Vec::as_slice);
        let kind = option(OptionCode::MessageType).ok_or(Ignored::Malformed)?;
        let has_chosen = match kind {
            [kind] if *kind == u8::from(MessageType::Discover) => false,
            [kind] if *kind == u8::from(MessageType::Request) => true,
            [_] => return Err(Ignored::Address),
            _ => return Err(Ignored::Malformed),
        };
        let class = option(OptionCode::ClassIdentifier).unwrap_or_default();
        let by_http = class.starts_with(HTTP_CLIENT);
        if !by_http && !class.starts_with(PXE_CLIENT) {
            return Err(Ignored::NoBoot);
        }
        let firmware = firmware(option(OptionCode::ClientSystemArchitecture), by_http)?;
        let user_class = option(OptionCode::UserClass).unwrap_or_default();
        let relay = Some(message.giaddr()).filter(|relay| !relay.is_unspecified());
        let item = option(OptionCode::VendorExtensions).and_then(boot_item);
        Ok(Query {
            mac: mac(&message)?,
            firmware,
            is_ipxe: is_ipxe(user_class) || options.contains_key(&IPXE_OPTIONS),
            has_chosen,
            relay,
            // PXE 2.1 §2.2.1: a type byte, and 16 bytes of it.
            machine: option(OptionCode::ClientMachineIdentifier)
                .filter(|machine| machine.len() <= 17)
                .map(<[u8]>::to_vec),
            item,
            wants: option(OptionCode::ParameterRequestList)
                .unwrap_or_default()
                .to_vec(),
            xid: message.xid(),
            secs: message.secs(),
            flags: message.flags().into(),
            hops: message.hops(),
            ciaddr: message.ciaddr(),
        })
    }
}

/// All options by number. What is split over several of one number is joined (RFC 3396 §7), also where
/// options go on in the fields for names (RFC 2132 §9.3).
fn options(
    packet: &[u8],
    message: &borrowed::Message<'_>,
) -> Result<BTreeMap<u8, Vec<u8>>, Ignored> {
    const NAMES: [(std::ops::Range<usize>, u8); 2] = [(108..236, 1), (44..108, 2)];
    const OPTIONS: usize = 240;
    let mut found: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    // The crate's iterator stops where it is cut off, and does not tell.
    if !are_whole(packet.get(OPTIONS..).unwrap_or_default()) {
        return Err(Ignored::Malformed);
    }
    for option in message.opts() {
        let joined = found.entry(option.code().into()).or_default();
        joined.extend_from_slice(option.data());
    }
    let overload = found.get(&u8::from(OptionCode::OptionOverload));
    let overload = overload.and_then(|bytes| bytes.first()).copied();
    for (range, bit) in NAMES {
        if overload.unwrap_or_default() & bit == 0 {
            continue;
        }
        let field = packet.get(range).unwrap_or_default();
        if !are_whole(field) {
            return Err(Ignored::Malformed);
        }
        for option in borrowed::DhcpOptionIterator::new(field) {
            let joined = found.entry(option.code().into()).or_default();
            joined.extend_from_slice(option.data());
        }
    }
    Ok(found)
}

/// Whether options come to their end mark, or to the end of the bytes after a whole one.
fn are_whole(mut bytes: &[u8]) -> bool {
    const PAD: u8 = 0;
    const END: u8 = 255;
    loop {
        bytes = match bytes {
            [] | [END, ..] => return true,
            [PAD, rest @ ..] => rest,
            [_, length, rest @ ..] => match rest.get(usize::from(*length)..) {
                Some(rest) => rest,
                None => return false,
            },
            [_] => return false,
        };
    }
}

fn mac(message: &borrowed::Message<'_>) -> Result<MacAddr, Ignored> {
    const ETHERNET: u8 = 1;
    // `chaddr()` takes the length's word for how much there is.
    if u8::from(message.htype()) != ETHERNET || message.hlen() != 6 {
        return Err(Ignored::Hardware);
    }
    let bytes: [u8; 6] = message.chaddr().try_into().map_err(|_| Ignored::Hardware)?;
    MacAddr::new(bytes).map_err(|_| Ignored::Hardware)
}

/// RFC 4578 §2.1: one or several architectures, the first of which the machine likes best. One that says
/// none is a BIOS of old.
fn firmware(option: Option<&[u8]>, by_http: bool) -> Result<Firmware, Ignored> {
    let Some(bytes) = option else {
        return match by_http {
            true => Err(Ignored::Malformed),
            false => Ok(Firmware::Bios),
        };
    };
    let numbers = bytes.chunks_exact(2);
    if bytes.is_empty() || !numbers.remainder().is_empty() {
        return Err(Ignored::Malformed);
    }
    let mut numbers = numbers.filter_map(|two| Some(u16::from_be_bytes(two.try_into().ok()?)));
    let first = numbers.clone().next().unwrap_or_default();
    let mut known = numbers.by_ref().filter_map(Firmware::of_arch);
    // What it asks by counts: one that can boot by HTTP asks by PXE as well, one after the other.
    let fits = |firmware: &Firmware| firmware.boots_by_http() == by_http;
    known.find(fits).ok_or(Ignored::Architecture(first))
}

/// RFC 3004 §4 has each class led by its length; iPXE, as others, sends the bare word.
fn is_ipxe(user_class: &[u8]) -> bool {
    user_class == IPXE || matches!(user_class, [4, rest @ ..] if rest.starts_with(IPXE))
}

/// PXE_BOOT_ITEM, tag 71 of the options inside option 43 (PXE 2.1 §2.2.3).
fn boot_item(vendor: &[u8]) -> Option<[u8; 4]> {
    const ITEM: u8 = 71;
    let mut tags = borrowed::DhcpOptionIterator::new(vendor);
    let item = tags.find(|tag| u8::from(tag.code()) == ITEM)?;
    item.data().try_into().ok()
}
