//! The way in: one login request with all keys, as initiators without authentication send it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::sockopt;

use super::inbox::Digests;
use super::wire::{BHS, FINAL, Header, NO_TAG, immediate, opcode, padding, put, put32};

/// A target that says nothing for this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Operational negotiation, and on to the full feature phase.
const OPERATIONAL_TO_FULL: u8 = FINAL | 1 << 2 | 3;

/// Requests after which a target that still wants to negotiate is given up.
const REQUESTS: usize = 8;

/// Where a disk is, and who may have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Door {
    pub(super) portal: SocketAddr,
    pub(super) target: String,
    pub(super) initiator: String,
    pub(super) lun: u8,
}

impl Door {
    /// The field of headers (SAM-5, peripheral device addressing).
    pub(super) fn lun_field(&self) -> [u8; 8] {
        [0, self.lun, 0, 0, 0, 0, 0, 0]
    }

    /// As libiscsi's tools take it.
    pub(super) fn url(&self) -> String {
        format!("iscsi://{}/{}/{}", self.portal, self.target, self.lun)
    }
}

/// How an initiator likes to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manner {
    pub(super) digests: Digests,
    /// What it takes in one PDU (MaxRecvDataSegmentLength).
    pub(super) max_recv: u32,
    pub(super) max_burst: u32,
    pub(super) first_burst: u32,
    pub(super) immediate_data: bool,
    pub(super) initial_r2t: bool,
    /// What it puts into one Data-Out, if the target takes as much.
    pub(super) data_out: u32,
}

impl Manner {
    /// That of Linux, with the settings that open-iscsi comes with.
    pub(super) const OPEN_ISCSI: Self = Self {
        digests: Digests {
            header: false,
            data: false,
        },
        max_recv: 262_144,
        max_burst: 16_776_192,
        first_burst: 262_144,
        immediate_data: true,
        initial_r2t: false,
        data_out: 262_144,
    };

    /// That of iPXE: data come in PDUs of 8 KiB and go in PDUs of a block.
    pub(super) const IPXE: Self = Self {
        max_recv: 8192,
        max_burst: 262_144,
        first_burst: 65_536,
        immediate_data: false,
        initial_r2t: true,
        data_out: 512,
        ..Self::OPEN_ISCSI
    };

    /// The same with header and data digests.
    pub(super) const fn with_digests(self) -> Self {
        let digests = Digests {
            header: true,
            data: true,
        };
        Self { digests, ..self }
    }
}

/// What both have agreed on, and where their numbers stand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Agreed {
    /// What the target takes in one PDU.
    pub(super) max_send: u32,
    pub(super) first_burst: u32,
    pub(super) immediate_data: bool,
    pub(super) initial_r2t: bool,
    pub(super) cmd_sn: u32,
    pub(super) max_cmd_sn: u32,
    pub(super) exp_stat_sn: u32,
}

/// Connects and logs in, to a session of its own.
///
/// # Errors
/// When the target does not let one in, or does not agree to the digests.
pub(super) fn log_in(door: &Door, manner: &Manner) -> Result<(TcpStream, Agreed)> {
    exchange(door, manner)
        .with_context(|| format!("logging in to {} at {}", door.target, door.portal))
}

fn exchange(door: &Door, manner: &Manner) -> Result<(TcpStream, Agreed)> {
    // A session with the ISID of another one would take its place.
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let [a, b, c, d] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let mut socket = TcpStream::connect(door.portal)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let cmd_sn = 1;
    let mut exp_stat_sn = 0;
    let mut text = offer(door, manner);
    let mut answer = String::new();
    for _ in 0..REQUESTS {
        let mut bhs = immediate(opcode::LOGIN, text.len());
        bhs[1] = OPERATIONAL_TO_FULL;
        // One of the random kind (RFC 7143 §11.12.5).
        put(&mut bhs, 8, &[0x80, a, b, c, d, 0]);
        put32(&mut bhs, 24, cmd_sn);
        put32(&mut bhs, 28, exp_stat_sn);
        let mut pdu = bhs.to_vec();
        pdu.extend_from_slice(text.as_bytes());
        pdu.resize(pdu.len() + padding(text.len()), 0);
        socket.write_all(&pdu)?;
        let (header, data) = receive(&mut socket)?;
        let got = header.opcode();
        ensure!(got == opcode::LOGIN_RESPONSE, "answered by opcode {got:#x}");
        let status = header.login_status();
        ensure!(status == 0, "refused with status {status:#06x}");
        answer += &String::from_utf8_lossy(&data);
        exp_stat_sn = header.stat_sn().wrapping_add(1);
        if header.flags() & FINAL != 0 {
            let agreed = Agreed {
                exp_stat_sn,
                max_cmd_sn: header.max_cmd_sn(),
                ..agreement(manner, &answer, cmd_sn)?
            };
            return Ok((socket, agreed));
        }
        text.clear();
    }
    bail!("the target does not come to an end")
}

/// One PDU of a login, which has no digests.
fn receive(socket: &mut TcpStream) -> Result<(Header, Vec<u8>)> {
    let mut bhs = [0; BHS];
    socket.read_exact(&mut bhs)?;
    let header = Header(bhs);
    let mut data = vec![0; header.data_len() + padding(header.data_len())];
    socket.read_exact(&mut data)?;
    data.truncate(header.data_len());
    Ok((header, data))
}

/// The keys and values of a login request.
fn offer(door: &Door, manner: &Manner) -> String {
    let digest = |is_on| if is_on { "CRC32C" } else { "None" };
    let word = |is_so| if is_so { "Yes" } else { "No" };
    [
        format!("InitiatorName={}", door.initiator),
        "SessionType=Normal".into(),
        format!("TargetName={}", door.target),
        format!("HeaderDigest={}", digest(manner.digests.header)),
        format!("DataDigest={}", digest(manner.digests.data)),
        format!("InitialR2T={}", word(manner.initial_r2t)),
        format!("ImmediateData={}", word(manner.immediate_data)),
        format!("MaxRecvDataSegmentLength={}", manner.max_recv),
        format!("MaxBurstLength={}", manner.max_burst),
        format!("FirstBurstLength={}", manner.first_burst),
        "MaxOutstandingR2T=1".into(),
        "MaxConnections=1".into(),
        "DefaultTime2Wait=2".into(),
        "DefaultTime2Retain=0".into(),
        "DataPDUInOrder=Yes".into(),
        "DataSequenceInOrder=Yes".into(),
        "ErrorRecoveryLevel=0".into(),
    ]
    .map(|pair| pair + "\0")
    .concat()
}

/// What the target's keys and one's own come to.
fn agreement(manner: &Manner, answer: &str, cmd_sn: u32) -> Result<Agreed> {
    let value = |key: &str| {
        let pairs = answer.split('\0').filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(name, _)| *name == key)
            .map(|(_, value)| value)
            .next_back()
    };
    let number = |key: &str, default: u32| match value(key) {
        Some(text) => text.parse().with_context(|| format!("{key}={text}")),
        None => Ok(default),
    };
    for (key, is_on) in [
        ("HeaderDigest", manner.digests.header),
        ("DataDigest", manner.digests.data),
    ] {
        let agreed = value(key).unwrap_or("None");
        ensure!((agreed == "CRC32C") == is_on, "{key}={agreed} was answered");
    }
    Ok(Agreed {
        // RFC 7143 §13.12: 8,192 where it is not declared.
        max_send: number("MaxRecvDataSegmentLength", 8192)?,
        first_burst: number("FirstBurstLength", manner.first_burst)?.min(manner.first_burst),
        immediate_data: manner.immediate_data && value("ImmediateData") != Some("No"),
        initial_r2t: manner.initial_r2t || value("InitialR2T") != Some("No"),
        cmd_sn,
        max_cmd_sn: cmd_sn,
        exp_stat_sn: 0,
    })
}

/// Logs out of a session without digests, waits until the target has agreed, and leaves nothing of the
/// connection: ports that linger would run out. Nothing may be on its way.
///
/// # Errors
/// When the target does not answer.
pub(super) fn log_out(mut socket: TcpStream, agreed: &Agreed) -> Result<()> {
    let mut bhs = immediate(opcode::LOGOUT, 0);
    bhs[1] = FINAL;
    put32(&mut bhs, 16, NO_TAG - 1);
    put32(&mut bhs, 24, agreed.cmd_sn);
    put32(&mut bhs, 28, agreed.exp_stat_sn);
    socket.write_all(&bhs)?;
    let (header, _) = receive(&mut socket)?;
    let got = header.opcode();
    ensure!(
        got == opcode::LOGOUT_RESPONSE,
        "a logout is answered by opcode {got:#x}"
    );
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lesser_of_both_offers_holds() {
        let answer = "FirstBurstLength=65536\0InitialR2T=Yes\0ImmediateData=Yes\0\
            HeaderDigest=None\0MaxRecvDataSegmentLength=8192\0";
        let agreed = agreement(&Manner::OPEN_ISCSI, answer, 1).unwrap();
        assert_eq!((agreed.first_burst, agreed.max_send), (65_536, 8192));
        assert!(agreed.initial_r2t && agreed.immediate_data);
        let agreed = agreement(&Manner::IPXE, "ImmediateData=Yes\0InitialR2T=No\0", 1).unwrap();
        assert!(agreed.initial_r2t && !agreed.immediate_data);
    }

    #[test]
    fn digests_that_are_not_agreed_on_are_an_error() {
        let manner = Manner::OPEN_ISCSI.with_digests();
        assert!(agreement(&manner, "HeaderDigest=CRC32C\0DataDigest=None\0", 1).is_err());
        assert!(agreement(&manner, "HeaderDigest=CRC32C\0DataDigest=CRC32C\0", 1).is_ok());
    }
}
