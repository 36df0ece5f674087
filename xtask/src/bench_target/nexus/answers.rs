//! Whether every answer is as it must be: to a command that is on its way, in its turn, with all of its
//! data and nothing else. Whatever is not ends the measurement.

use anyhow::{Context, Result, bail, ensure};

use super::super::cdb::Direction;
use super::super::inbox::Sink;
use super::super::pattern::BLOCK;
use super::super::wire::{FINAL, Header, NO_TAG, RESIDUAL, STATUS, immediate, opcode, put, put32};
use super::{Current, Nexus, Slot, State};

impl Nexus {
    fn slot(&mut self, itt: u32) -> Result<&mut Slot> {
        let slot = self.slots.get_mut(itt as usize);
        let slot = slot.filter(|slot| slot.state != State::Free && slot.state != State::NotReady);
        slot.with_context(|| format!("an answer to {itt:#x}, which nobody asked"))
    }

    /// The next status is this one's (RFC 7143 §4.2.2.2).
    fn takes_status(&mut self, header: &Header) -> Result<()> {
        let (number, expected) = (header.stat_sn(), self.agreed.exp_stat_sn);
        ensure!(
            number == expected,
            "StatSN {number} comes where {expected} is next"
        );
        self.agreed.exp_stat_sn = expected.wrapping_add(1);
        ensure!(
            header.flags() & RESIDUAL == 0,
            "a residual of {} bytes",
            header.residual()
        );
        Ok(())
    }

    fn data_in(&mut self, header: &Header) -> Result<Current> {
        let (itt, len) = (header.itt(), header.data_len());
        ensure!(
            len <= self.manner.max_recv as usize,
            "{len} bytes in one PDU"
        );
        let slot = self.slot(itt)?;
        let (state, io, moved) = (slot.state, slot.io, slot.moved);
        ensure!(
            state == State::Transfer && io.direction == Direction::Read,
            "data for a command that does not read"
        );
        let (number, offset) = (header.data_sn(), header.offset());
        let at = io.lba * BLOCK + u64::from(offset);
        ensure!(
            number == slot.data_sn,
            "DataSN {number} after {}",
            slot.data_sn
        );
        ensure!(offset == moved, "data at {offset} where {moved} is next");
        let moved = moved as usize + len;
        ensure!(
            moved <= io.bytes() as usize,
            "{moved} bytes of {}",
            io.bytes()
        );
        slot.data_sn += 1;
        slot.moved = moved as u32;
        let status = header.flags() & STATUS != 0;
        if status {
            ensure!(
                header.flags() & FINAL != 0,
                "a status before the final data"
            );
            ensure!(
                header.status() == 0,
                "status {:#x} with data",
                header.status()
            );
            self.takes_status(header)?;
        }
        let slot = itt;
        Ok(Current::DataIn { slot, status, at })
    }

    fn r2t(&mut self, header: &Header) -> Result<()> {
        let (itt, offset, len) = (header.itt(), header.offset(), header.desired_len());
        let slot = self.slot(itt)?;
        let io = slot.io;
        ensure!(
            io.direction == Direction::Write,
            "an R2T for a command that reads"
        );
        ensure!(
            offset == slot.moved,
            "an R2T at {offset} where {} is next",
            slot.moved
        );
        let end = offset.checked_add(len).filter(|end| *end <= io.bytes());
        let end = end.with_context(|| format!("an R2T for {len} bytes at {offset}"))?;
        slot.moved = end;
        self.send_data(itt, io, header.ttt(), offset, end);
        Ok(())
    }

    /// A ping is answered, whatever else is on its way.
    fn nop_in(&mut self, header: &Header) {
        if header.ttt() == NO_TAG {
            return;
        }
        let mut bhs = immediate(opcode::NOP_OUT, 0);
        bhs[1] = FINAL;
        put(&mut bhs, 8, &header.lun());
        put32(&mut bhs, 16, NO_TAG);
        put32(&mut bhs, 20, header.ttt());
        put32(&mut bhs, 24, self.agreed.cmd_sn);
        put32(&mut bhs, 28, self.agreed.exp_stat_sn);
        self.outbox.push(&bhs);
    }

    /// A command has been answered.
    fn complete(&mut self, itt: u32, status: u8) -> Result<()> {
        let slot = self.slot(itt)?;
        let (state, io, moved) = (slot.state, slot.io, slot.moved);
        slot.state = State::Free;
        if state == State::Ready {
            if status != 0 {
                slot.state = State::NotReady;
            }
            self.free.push(itt);
            return Ok(());
        }
        ensure!(
            status == 0,
            "status {status:#x} for {io:?}: {:02x?}",
            self.told
        );
        ensure!(moved == io.bytes(), "{io:?} is done after {moved} bytes");
        if let (Direction::Write, Some(written)) = (io.direction, &self.truth.written) {
            written.add(io.lba, io.blocks);
        }
        self.free.push(itt);
        self.tally.commands += 1;
        self.tally.bytes += u64::from(moved);
        Ok(())
    }
}

impl Sink for Nexus {
    fn header(&mut self, header: &Header) -> Result<()> {
        self.agreed.max_cmd_sn = header.max_cmd_sn();
        self.told.clear();
        self.current = match header.opcode() {
            opcode::DATA_IN => self.data_in(header)?,
            opcode::SCSI_RESPONSE => {
                ensure!(header.response() == 0, "response {:#x}", header.response());
                let (slot, status) = (header.itt(), header.status());
                self.takes_status(header)?;
                Current::Response { slot, status }
            }
            opcode => {
                match opcode {
                    opcode::R2T => self.r2t(header)?,
                    opcode::NOP_IN => self.nop_in(header),
                    _ => {}
                }
                Current::Other { opcode }
            }
        };
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        let Current::DataIn { at, .. } = &mut self.current else {
            self.told.extend_from_slice(bytes);
            return Ok(());
        };
        if self.truth.expected.looks() {
            let fine = self.truth.expected.allows(*at, bytes);
            ensure!(fine, "wrong bytes in {} from byte {at} on", bytes.len());
            *at += bytes.len() as u64;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        match self.current {
            Current::DataIn {
                slot, status: true, ..
            } => self.complete(slot, 0),
            Current::DataIn { .. } => Ok(()),
            Current::Response { slot, status } => self.complete(slot, status),
            Current::Other { opcode } => match opcode {
                opcode::R2T | opcode::NOP_IN => Ok(()),
                other => bail!(
                    "opcode {other:#x} in the middle of a load: {:02x?}",
                    self.told
                ),
            },
        }
    }
}
