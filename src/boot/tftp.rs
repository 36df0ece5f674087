//! TFTP as a server speaks it that only gives files: what a request asks, and a transfer as a state
//! machine without a socket (RFC 1350; options RFC 2347; blksize 2348, timeout and tsize 2349, windowsize
//! 7440).

use std::time::Duration;

use bytes::Bytes;

/// The largest request (RFC 2347: the whole of it fits into one packet of 512 bytes).
const LARGEST_REQUEST: usize = 512;

/// The size of blocks that nobody has asked about (RFC 1350 §2).
const BLOCK: usize = 512;

/// Blocks that are sent before one is acknowledged, at the most: some 48 KB on their way.
const WINDOW: u64 = 32;

/// How long a lost packet is waited for where the client does not say (RFC 2349).
const PATIENCE: Duration = Duration::from_secs(1);

/// With each further try in vain it doubles, up to this.
const LONGEST_PATIENCE: Duration = Duration::from_secs(8);

/// The longest that a client may have a packet waited for: 255 s, which RFC 2349 allows, are for links that
/// no firmware boots over.
const LONGEST_TIMEOUT: u8 = 10;

/// How often packets are sent again before a client is given up.
const TRIES: u32 = 6;

/// The same for one who has answered nothing yet, and how long he is waited for each time: anybody can
/// write any sender into a packet that asks.
const FIRST_TRIES: u32 = 2;
const FIRST_PATIENCE: Duration = Duration::from_secs(2);

mod opcode {
    pub(super) const READ: u16 = 1;
    pub(super) const WRITE: u16 = 2;
    pub(super) const DATA: u16 = 3;
    pub(super) const ACK: u16 = 4;
    pub(super) const ERROR: u16 = 5;
    pub(super) const OACK: u16 = 6;
}

/// Why a client gets no file (RFC 1350, appendix).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The text says it.
    Undefined = 0,
    /// There is no such file.
    NotFound = 1,
    /// It is not to be had this way.
    AccessViolation = 2,
    /// TFTP does not know this.
    IllegalOperation = 4,
}

/// The packet that tells an error.
pub fn error(code: Code, text: &str) -> Vec<u8> {
    let mut packet = packet(opcode::ERROR, code as u16);
    packet.extend(text.as_bytes());
    packet.push(0);
    packet
}

/// A request for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    /// The name that was asked for, without the slashes that some firmware puts before it.
    pub file: String,
    block: Option<u16>,
    window: Option<u16>,
    timeout: Option<u8>,
    wants_size: bool,
}

/// What is done with a packet that asks for no file that could be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It is none of a client's first packets; nobody is told.
    Ignored,
    /// This packet is sent to who asked.
    Told(Vec<u8>),
}

impl ReadRequest {
    /// Reads the first packet of a client.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        if bytes.len() > LARGEST_REQUEST {
            return Err(Refused::Ignored);
        }
        let told = |code, text| Err(Refused::Told(error(code, text)));
        let (code, rest) = split(bytes).ok_or(Refused::Ignored)?;
        match code {
            opcode::READ => {}
            opcode::WRITE => return told(Code::AccessViolation, "nothing is written here"),
            _ => return Err(Refused::Ignored),
        }
        let Some(texts) = texts(rest) else {
            return told(Code::IllegalOperation, "this request is not whole");
        };
        let mut texts = texts.into_iter();
        let (Some(file), Some(mode)) = (texts.next(), texts.next()) else {
            return told(Code::IllegalOperation, "this request is not whole");
        };
        if mode.eq_ignore_ascii_case("netascii") {
            // Loaders are no text: with its line ends turned around none of them would start.
            return told(
                Code::Undefined,
                "files are given in mode octet (binary) only",
            );
        }
        if !mode.eq_ignore_ascii_case("octet") {
            return told(
                Code::IllegalOperation,
                "there is no such mode: ask in mode octet",
            );
        }
        let mut request = ReadRequest {
            file: file.trim_start_matches('/').to_owned(),
            block: None,
            window: None,
            timeout: None,
            wants_size: false,
        };
        while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
            request.take_option(name, value);
        }
        Ok(request)
    }

    /// Options that are not known, or whose value is none, count as not asked for (RFC 2347).
    fn take_option(&mut self, name: &str, value: &str) {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("blksize") {
            self.block = value.parse().ok().filter(|size| (8..=65464).contains(size));
        } else if is("windowsize") {
            self.window = value.parse().ok().filter(|blocks| *blocks >= 1);
        } else if is("timeout") {
            let seconds = value.parse().ok();
            self.timeout = seconds.filter(|seconds| (1..=LONGEST_TIMEOUT).contains(seconds));
        } else if is("tsize") {
            self.wants_size = value.parse::<u64>().is_ok();
        }
    }
}

/// What a transfer wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// These packets are sent, in this order, and an answer is waited for as long as
    /// [`patience`](Transfer::patience) says from now.
    Send(Vec<Vec<u8>>),
    /// Nothing; what was waited for is still waited for, and no longer than before.
    Wait,
    /// The client has all of it.
    Done,
    /// The client says that it wants no more: firmware asks for a file's size this way.
    Stopped,
    /// The client does not answer any more.
    GivenUp,
}

/// A file on its way to one client.
#[derive(Debug)]
pub struct Transfer {
    data: Bytes,
    block: usize,
    window: u64,
    timeout: Option<Duration>,
    /// The answer to the client's options, until the client has it.
    offer: Option<Vec<u8>>,
    /// Blocks count from 1; the client has all up to this one,
    acknowledged: u64,
    /// and all up to this one are sent.
    sent: u64,
    /// How often in vain.
    tries: u32,
    is_answered: bool,
    /// A window is sent again for one word of the client, and not for each.
    is_repeated: bool,
}

impl Transfer {
    /// A transfer of `data` to who asked, in blocks of at most `largest` bytes: what goes through the
    /// network in one piece, since firmware often cannot put pieces together.
    pub fn new(request: &ReadRequest, data: Bytes, largest: u16) -> Self {
        let block = request.block.map(|asked| asked.min(largest.max(8)));
        let window = request.window.map(|asked| u64::from(asked).min(WINDOW));
        let offers = [
            block.map(|block| ("blksize", u64::from(block))),
            window.map(|window| ("windowsize", window)),
            request
                .timeout
                .map(|seconds| ("timeout", u64::from(seconds))),
            request.wants_size.then_some(("tsize", data.len() as u64)),
        ];
        let mut offer = opcode::OACK.to_be_bytes().to_vec();
        for (name, value) in offers.into_iter().flatten() {
            offer.extend(format!("{name}\0{value}\0").into_bytes());
        }
        Transfer {
            data,
            block: block.map_or(BLOCK, usize::from),
            window: window.unwrap_or(1),
            timeout: request
                .timeout
                .map(|seconds| Duration::from_secs(seconds.into())),
            offer: Some(offer).filter(|offer| offer.len() > 2),
            acknowledged: 0,
            sent: 0,
            tries: 0,
            is_answered: false,
            is_repeated: false,
        }
    }

    /// Whether the client has acknowledged anything: then it is where its packets say.
    pub fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// What is sent first.
    pub fn begin(&mut self) -> Vec<Vec<u8>> {
        match &self.offer {
            Some(offer) => vec![offer.clone()],
            None => self.send_window(),
        }
    }

    /// How long an answer is waited for.
    pub fn patience(&self) -> Duration {
        let doubled = || (PATIENCE * 2_u32.saturating_pow(self.tries)).min(LONGEST_PATIENCE);
        let patience = self.timeout.unwrap_or_else(doubled);
        match self.is_answered {
            true => patience,
            false => patience.min(FIRST_PATIENCE),
        }
    }

    /// A packet of the client.
    pub fn received(&mut self, bytes: &[u8]) -> Step {
        match split(bytes) {
            Some((opcode::ACK, rest)) => match rest.first_chunk() {
                Some(number) => self.acknowledge(u16::from_be_bytes(*number)),
                None => Step::Wait,
            },
            Some((opcode::ERROR, _)) => Step::Stopped,
            _ => Step::Wait,
        }
    }

    /// No answer came.
    pub fn timed_out(&mut self) -> Step {
        let tries = match self.is_answered {
            true => TRIES,
            false => FIRST_TRIES,
        };
        if self.tries >= tries {
            return Step::GivenUp;
        }
        self.tries += 1;
        Step::Send(self.begin())
    }

    /// The number of the last block: one that is not full, and be it empty, ends a file (RFC 1350 §2).
    fn last(&self) -> u64 {
        (self.data.len() / self.block) as u64 + 1
    }

    fn acknowledge(&mut self, number: u16) -> Step {
        if self.offer.is_some() {
            // RFC 2347: block 0 says yes to the options.
            if number != 0 {
                return Step::Wait;
            }
            self.offer = None;
            (self.is_answered, self.tries) = (true, 0);
            return Step::Send(self.send_window());
        }
        // Numbers begin anew at 0 after 65535; a window is far shorter than that.
        let [.., high, low] = self.acknowledged.to_be_bytes();
        let further = number.wrapping_sub(u16::from_be_bytes([high, low]));
        let block = self.acknowledged + u64::from(further);
        if block > self.sent {
            return Step::Wait;
        }
        if further == 0 {
            // Of single blocks an acknowledgement that comes twice is no news (RFC 1123 §4.2.3.1): else
            // every further packet would go twice. Of a window it says that its first block was lost
            // (RFC 7440 §4).
            if self.window == 1 || self.is_repeated {
                return Step::Wait;
            }
            self.is_repeated = true;
            return Step::Send(self.send_window());
        }
        (self.acknowledged, self.tries, self.is_repeated) = (block, 0, false);
        self.is_answered = true;
        match block == self.last() {
            true => Step::Done,
            false => Step::Send(self.send_window()),
        }
    }

    /// The blocks after those that the client has.
    fn send_window(&mut self) -> Vec<Vec<u8>> {
        self.sent = self.last().min(self.acknowledged + self.window);
        let blocks = self.acknowledged + 1..=self.sent;
        blocks.map(|number| self.data_packet(number)).collect()
    }

    fn data_packet(&self, number: u64) -> Vec<u8> {
        let [.., high, low] = number.to_be_bytes();
        let mut packet = packet(opcode::DATA, u16::from_be_bytes([high, low]));
        // What is sent is in memory, so its numbers fit.
        let start = (number as usize - 1) * self.block;
        let end = self.data.len().min(start + self.block);
        packet.extend(self.data.get(start..end).unwrap_or_default());
        packet
    }
}

fn packet(code: u16, number: u16) -> Vec<u8> {
    [code.to_be_bytes(), number.to_be_bytes()].concat()
}

fn split(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (code, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*code), rest))
}

/// Texts that each end with a zero byte; nothing where one has no end or is no plain text.
fn texts(bytes: &[u8]) -> Option<Vec<&str>> {
    let whole = bytes.strip_suffix(&[0])?;
    let plain = |text: &&str| {
        text.bytes()
            .all(|byte| byte.is_ascii() && !byte.is_ascii_control())
    };
    let texts = whole.split(|byte| *byte == 0);
    texts
        .map(|text| std::str::from_utf8(text).ok().filter(plain))
        .collect()
}

#[cfg(test)]
mod tests;
