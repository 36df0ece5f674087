//! Commands that Linux's file systems never send, by sg3-utils.

use crate::lab::Lab;

/// Exit statuses of sg3-utils.
mod status {
    pub(crate) const LBA_OUT_OF_RANGE: i32 = 22;
    pub(crate) const WRITE_PROTECTED: i32 = 7;
    pub(crate) const INVALID_OPCODE: i32 = 9;
    pub(crate) const MISCOMPARE: i32 = 14;
}

pub(crate) fn a_unit_tells_what_it_is(lab: &Lab) {
    let target = lab.target("data");
    let told = lab.step(
        "all VPD pages that it has, and no other",
        &format!(
            "D=$(sg $(disk {target} 1))
            for page in 00 80 83 86 87 8f b0 b1 b2; do sg_vpd --page=0x$page $D; done
            if sg_vpd --page=0xb6 $D; then exit 1; fi"
        ),
    );
    for line in [
        "Maximum compare and write length: 255 blocks",
        "Unmap command supported (LBPU): 1",
        "Write same (16) with unmap bit supported (LBPWS): 1",
        "Logical block provisioning read zeros (LBPRZ): 1",
        "designator type: NAA",
        &format!("{target},t,0x0001"),
        "block -> block [0x2]",
        "LUICLR=1",
    ] {
        assert!(told.contains(line), "{line} is missing: {told}");
    }
    let told = lab.step(
        "mode, log and capacity pages, target port groups, operation codes",
        &format!(
            "D=$(sg $(disk {target} 1))
            sg_modes --all $D; sg_logs --all $D; sg_rtpg --decode $D
            sg_opcodes $D; sg_opcodes --tmf $D; sg_readcap --long $D; sg_readcap --16 $D
            sg_luns $D; sg_inq $D; sg_requests $D; sg_turs $D; sg_sync $D; sg_start $D
            sg_verify --count=16 $D; sg_get_lba_status $D; sg_persist --report-capabilities $D
            sg_copy_results --params $D; sg_senddiag --help >/dev/null
            sg_prevent --prevent=1 $D; sg_prevent --allow $D"
        ),
    );
    for line in [
        "WP=0, DpoFua=1",
        ">> Caching, page_control: current",
        "active/optimized",
        "Compare and write",
        "Extended copy(LID1)",
        "Persistent reserve out, register and move",
        "Clear task set",
        "lbpme=1, lbprz=1",
        "TPGS=2  3PC=1",
        "Persist Through Power Loss Capable(PTPL_C): 1",
        "deallocated",
    ] {
        assert!(told.contains(line), "{line} is missing: {told}");
    }
    lab.refused(
        "a command that it has not is told to be none",
        status::INVALID_OPCODE,
        &format!("sg_raw $(sg $(disk {target} 1)) 04 00 00 00 00 00"),
    );
    lab.step(
        "a reset of the unit is told once",
        &format!(
            "D=$(sg $(disk {target} 1))
            sg_reset --device $D
            sg_turs $D && exit 1
            sg_turs $D"
        ),
    );
}

/// On the two units of `scratch`.
pub(crate) fn data_is_compared_copied_and_unmapped(lab: &Lab) {
    let target = lab.target("scratch");
    let units = format!("A=$(sg $(disk {target} 1)) B=$(sg $(disk {target} 2))\n");
    lab.step(
        "COMPARE AND WRITE exchanges what is as expected",
        &format!(
            "{units}
            head -c 1048576 /dev/urandom >/tmp/a
            sg_dd if=/tmp/a of=$A bs=512 count=2048
            head -c 512 /tmp/a >/tmp/one
            head -c 512 /dev/urandom >/tmp/two
            cat /tmp/one /tmp/two >/tmp/pair
            sg_compare_and_write --in=/tmp/pair --lba=0 --num=1 --xferlen=1024 $A
            take $A 0 1 /tmp/now
            cmp /tmp/now /tmp/two"
        ),
    );
    let said = lab.refused(
        "and nothing else",
        status::MISCOMPARE,
        &format!("{units}sg_compare_and_write --in=/tmp/pair --lba=0 --num=1 --xferlen=1024 $A"),
    );
    assert!(said.contains("Miscompare at byte offset: 0"), "{said}");
    lab.step(
        "EXTENDED COPY copies from one unit to the other",
        &format!(
            "{units}
            sg_xcopy if=$A of=$B bs=512 count=2048 seek=4096
            take $A 0 2048 /tmp/a
            take $B 4096 2048 /tmp/b
            cmp /tmp/a /tmp/b"
        ),
    );
    let told = lab.step(
        "WRITE SAME repeats a block; with UNMAP it and UNMAP give blocks back",
        &format!(
            "{units}
            sg_write_same --10 --in=/tmp/two --lba=104 --num=40 $A
            sg_write_same --16 --in=/tmp/two --lba=144 --num=56 $A
            dd if=/tmp/a bs=512 count=104 of=/tmp/expected
            for _ in $(seq 96); do cat /tmp/two; done >>/tmp/expected
            dd if=/tmp/a bs=512 skip=200 count=56 >>/tmp/expected
            take $A 0 256 /tmp/now
            cmp /tmp/now /tmp/expected
            sg_write_same --16 --unmap --lba=1024 --num=512 $A
            sg_write_same --16 --ndob --unmap --lba=1536 --num=256 $A
            sg_unmap --force --lba=0 --num=80 $A
            take $A 0 80 /tmp/now
            head -c 40960 /dev/zero | cmp - /tmp/now
            sg_get_lba_status --brief --lba=0 $A
            sg_get_lba_status --brief --lba=1024 $A"
        ),
    );
    // First block, number of them, and 1: deallocated.
    assert!(told.contains("0x300  1"), "{told}");
    lab.refused(
        "what lies behind the end is not there",
        status::LBA_OUT_OF_RANGE,
        &format!("{units}sg_unmap --force --lba=131072 --num=8 $A"),
    );
}

pub(crate) fn a_unit_is_sanitized_where_that_is_allowed(lab: &Lab) {
    let target = lab.target("scratch");
    let units = format!("A=$(sg $(disk {target} 1)) B=$(sg $(disk {target} 2))\n");
    lab.refused(
        "a disk whose owner does not allow it is not sanitized",
        status::INVALID_OPCODE,
        &format!("{units}sg_sanitize --block --quick --wait $B"),
    );
    lab.step(
        "another is, and says so while it lasts",
        &format!(
            "{units}
            sg_sanitize --block --quick --early $A
            sg_turs $A && exit 1
            sg_requests --progress $A | grep 'Progress indication'
            for _ in $(seq 600); do
                if sg_turs $A; then break; fi
                sleep 0.1
            done 2>/dev/null
            sg_turs $A
            take $A 0 2048 /tmp/now
            head -c 1048576 /dev/zero | cmp - /tmp/now"
        ),
    );
    let sealed = lab.target("sealed");
    lab.refused(
        "a disk that nobody writes is not unmapped",
        status::WRITE_PROTECTED,
        &format!("log_in {sealed} $V4; sg_unmap --force --lba=0 --num=8 $(sg $(disk {sealed} 1))"),
    );
}
