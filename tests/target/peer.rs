//! An initiator that can send anything, byte by byte if need be.

use std::net::SocketAddr;
use std::time::Duration;

use netroot::iscsi::wire::{
    self, Attribute, BHS_LEN, Bhs, Head, LoginRequest, LoginResponse, Opcode, ScsiCommand,
    ScsiResponse, Serial, Stage, Tag,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

pub(crate) const LUN: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];

/// A test that hears nothing for this long has failed.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Peer {
    stream: TcpStream,
    pub(crate) isid: [u8; 6],
    pub(crate) cmd_sn: u32,
    next_itt: u32,
}

/// A PDU from the target.
#[derive(Debug)]
pub(crate) struct Pdu {
    pub(crate) bhs: Bhs,
    pub(crate) data: Vec<u8>,
}

impl Pdu {
    pub(crate) fn opcode(&self) -> Opcode {
        Head::parse(&self.bhs).opcode
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.data).replace('\0', " ")
    }

    /// Status of a login response.
    pub(crate) fn login_status(&self) -> u16 {
        LoginResponse::parse(&self.bhs).unwrap().status
    }
}

impl Peer {
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        Self::connect_from("0.0.0.0:0".parse().unwrap(), to).await
    }

    /// Connects from an address of one's own.
    pub(crate) async fn connect_from(from: SocketAddr, to: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(from).unwrap();
        let stream = socket.connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Peer {
            stream,
            isid: [0x80, 0, 0, 0, 0, 1],
            cmd_sn: 1,
            next_itt: 1,
        }
    }

    /// Connects and logs in, and gets the power-on out of the way.
    pub(crate) async fn login(to: SocketAddr, target: &str, isid: u8) -> Self {
        let mut peer = Self::connect(to).await;
        peer.isid[5] = isid;
        let response = peer.try_login(target, "").await;
        assert_eq!(response.login_status(), 0, "{}", response.text());
        peer.command([0; 16], 0, b"").await;
        peer
    }

    /// One login request to the full feature phase, with more text if wished, and its answer.
    pub(crate) async fn try_login(&mut self, target: &str, more: &str) -> Pdu {
        self.try_login_as("iqn.test:peer", target, more).await
    }

    /// The same by a name of one's own.
    pub(crate) async fn try_login_as(&mut self, name: &str, target: &str, more: &str) -> Pdu {
        let text = format!("InitiatorName={name} TargetName={target} {more}");
        let request = self.login_request(Stage::Operational, Some(Stage::FullFeature));
        self.send(request.emit(), text.replace(' ', "\0").as_bytes())
            .await;
        self.receive().await.expect("an answer to the login")
    }

    pub(crate) fn login_request(&self, stage: Stage, next: Option<Stage>) -> LoginRequest {
        LoginRequest {
            next,
            more: false,
            stage,
            version_min: 0,
            isid: self.isid,
            tsih: 0,
            itt: Tag(0),
            cid: 0,
            cmd_sn: Serial(self.cmd_sn),
            exp_stat_sn: Serial(0),
        }
    }

    /// A command, with its number and tag, for [`send`](Self::send).
    pub(crate) fn scsi(&mut self, cdb: [u8; 16]) -> ScsiCommand {
        let command = ScsiCommand {
            immediate: false,
            last: true,
            read: false,
            write: false,
            attribute: Attribute::Simple,
            lun: LUN,
            itt: Tag(self.next_itt),
            expected_len: 0,
            cmd_sn: Serial(self.cmd_sn),
            exp_stat_sn: Serial(0),
            cdb,
        };
        self.next_itt += 1;
        self.cmd_sn = self.cmd_sn.wrapping_add(1);
        command
    }

    /// Does a command with immediate data, and gives its status and what was read.
    pub(crate) async fn command(
        &mut self,
        cdb: [u8; 16],
        reads: u32,
        data: &[u8],
    ) -> (u8, Vec<u8>) {
        let mut command = self.scsi(cdb);
        command.read = reads > 0;
        command.write = !data.is_empty();
        command.expected_len = reads.max(data.len() as u32);
        self.send(command.emit(), data).await;
        let mut read = Vec::new();
        loop {
            let pdu = self.receive().await.expect("an answer to the command");
            match pdu.opcode() {
                Opcode::DataIn => {
                    let header = wire::DataIn::parse(&pdu.bhs).unwrap();
                    assert_eq!(header.offset as usize, read.len());
                    read.extend(pdu.data);
                    if let Some((status, _)) = header.status {
                        return (status, read);
                    }
                }
                Opcode::ScsiResponse => {
                    return (ScsiResponse::parse(&pdu.bhs).unwrap().status, read);
                }
                other => panic!("{other:?} in the middle of a command"),
            }
        }
    }

    /// Does a command that is refused, and gives the sense key and code.
    pub(crate) async fn sense(&mut self, cdb: [u8; 16], reads: u32, data: &[u8]) -> (u8, u16) {
        let mut command = self.scsi(cdb);
        (command.read, command.write) = (reads > 0, !data.is_empty());
        command.expected_len = reads.max(data.len() as u32);
        self.send(command.emit(), data).await;
        let answer = self.receive().await.expect("an answer to the command");
        assert_eq!(answer.opcode(), Opcode::ScsiResponse);
        assert_eq!(ScsiResponse::parse(&answer.bhs).unwrap().status, 2);
        // SenseLength, then fixed format: key in byte 2, code and qualifier in 12 and 13.
        let sense = &answer.data[2..];
        (sense[2] & 0xf, u16::from_be_bytes([sense[12], sense[13]]))
    }

    /// The same connection without its sending side: the target hears that no more will come.
    pub(crate) async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Where it is connected to.
    pub(crate) fn server(&self) -> SocketAddr {
        self.stream.peer_addr().unwrap()
    }

    /// Ends the connection with a reset, whatever is on its way.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    /// Sends a header with its lengths and padding put right.
    pub(crate) async fn send(&mut self, mut bhs: Bhs, data: &[u8]) {
        wire::set_lengths(&mut bhs, data.len());
        let mut bytes = bhs.to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.raw(&bytes).await;
    }

    /// Sends bytes. The target may have closed the connection already.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next PDU, or nothing when the target has closed.
    pub(crate) async fn receive(&mut self) -> Option<Pdu> {
        self.receive_within(PATIENCE).await
    }

    /// The same, from a target that may take its time.
    pub(crate) async fn receive_within(&mut self, patience: Duration) -> Option<Pdu> {
        tokio::time::timeout(patience, self.next())
            .await
            .expect("the target says nothing and does not close")
    }

    async fn next(&mut self) -> Option<Pdu> {
        let mut bhs = [0; BHS_LEN];
        self.stream.read_exact(&mut bhs).await.ok()?;
        let head = Head::parse(&bhs);
        let mut data = vec![0; head.data_len + head.padding()];
        self.stream.read_exact(&mut data).await.ok()?;
        data.truncate(head.data_len);
        Some(Pdu { bhs, data })
    }

    /// Exactly this many bytes.
    pub(crate) async fn exact(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let read = self.stream.read_exact(&mut bytes);
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("the target says nothing")
            .expect("the target has closed");
        bytes
    }

    /// Everything that comes until the target closes.
    pub(crate) async fn drain(&mut self) -> Vec<Pdu> {
        let mut all = Vec::new();
        while let Some(pdu) = self.receive().await {
            all.push(pdu);
        }
        all
    }
}

/// READ(10) and WRITE(10).
pub(crate) fn read_10(lba: u32, blocks: u16) -> [u8; 16] {
    transfer(0x28, lba, blocks)
}

pub(crate) fn write_10(lba: u32, blocks: u16) -> [u8; 16] {
    transfer(0x2a, lba, blocks)
}

fn transfer(opcode: u8, lba: u32, blocks: u16) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    cdb
}
