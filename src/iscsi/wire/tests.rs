//! Each format from one golden array: taken apart, put together, and refused when cut short.
//!
//! Arrays of requests said to be libiscsi's are what Debian's libiscsi 1.19 sends; the others are put
//! together by hand from the figures of RFC 7143, named beside each.

use super::*;

mod anything;

/// A header from its twelve words.
fn header(words: [u32; 12]) -> Bhs {
    let mut bhs = [0; BHS_LEN];
    for (to, word) in bhs.chunks_mut(4).zip(words) {
        to.copy_from_slice(&word.to_be_bytes());
    }
    bhs
}

/// Without the lengths, which framing fills in.
fn without_lengths(mut bhs: Bhs) -> Bhs {
    bhs[4..8].fill(0);
    bhs
}

fn check<T: PartialEq + std::fmt::Debug>(
    golden: Bhs,
    value: T,
    parse: fn(&[u8]) -> Result<T, Error>,
    emit: fn(&T) -> Bhs,
) {
    assert_eq!(parse(&golden).as_ref(), Ok(&value), "taken apart");
    assert_eq!(emit(&value), without_lengths(golden), "put together");
    for n in 0..BHS_LEN {
        assert_eq!(parse(&golden[..n]), Err(Error::Truncated), "{n} bytes");
    }
    // Every bit of a header may be anything: an error is fine, a panic is not.
    for bit in 0..BHS_LEN * 8 {
        let mut bhs = golden;
        bhs[bit / 8] ^= 1 << (bit % 8);
        let _ = parse(&bhs);
    }
}

const LUN_1: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];

fn numbers() -> Numbers {
    Numbers {
        stat_sn: Serial(0x0102_0304),
        exp_cmd_sn: Serial(0x1112_1314),
        max_cmd_sn: Serial(0x2122_2324),
    }
}

#[test]
fn scsi_command() {
    check(
        // libiscsi: INQUIRY of 64 bytes.
        header([
            0x01c1_0000,
            0,
            0x0001_0000,
            0,
            0x418b_cb9f,
            0x40,
            0x4884_09bb,
            4,
            0x1200_0000,
            0x4000_0000,
            0,
            0,
        ]),
        ScsiCommand {
            immediate: false,
            last: true,
            read: true,
            write: false,
            attribute: Attribute::Simple,
            lun: LUN_1,
            itt: Tag(0x418b_cb9f),
            expected_len: 64,
            cmd_sn: Serial(0x4884_09bb),
            exp_stat_sn: Serial(4),
            cdb: [0x12, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        },
        ScsiCommand::parse,
        ScsiCommand::emit,
    );
}

#[test]
fn scsi_response() {
    // §11.4: CHECK CONDITION with 20 bytes of sense and an underflow of 512.
    let golden = header([
        0x2182_0002,
        20,
        0,
        0,
        7,
        0,
        0x0102_0304,
        0x1112_1314,
        0x2122_2324,
        3,
        0,
        512,
    ]);
    check(
        golden,
        ScsiResponse {
            response: 0,
            status: 2,
            residual: Residual::Underflow(512),
            itt: Tag(7),
            numbers: numbers(),
            exp_data_sn: 3,
        },
        ScsiResponse::parse,
        ScsiResponse::emit,
    );
    let mut both = golden;
    both[1] |= 0x04;
    assert!(ScsiResponse::parse(&both).is_err(), "over and under");
}

#[test]
fn data_out() {
    // §11.7: the second PDU of a sequence that an R2T asked for.
    check(
        header([
            0x0580_0000,
            512,
            0x0001_0000,
            0,
            5,
            9,
            0,
            0x44,
            0,
            1,
            1024,
            0,
        ]),
        DataOut {
            last: true,
            lun: LUN_1,
            itt: Tag(5),
            ttt: Tag(9),
            exp_stat_sn: Serial(0x44),
            data_sn: 1,
            offset: 1024,
        },
        DataOut::parse,
        DataOut::emit,
    );
}

#[test]
fn data_in() {
    // §11.7: the last PDU of a read, with status and an overflow of 16.
    check(
        header([
            0x2585_0000,
            512,
            0,
            0,
            5,
            0xffff_ffff,
            0x0102_0304,
            0x1112_1314,
            0x2122_2324,
            2,
            1024,
            16,
        ]),
        DataIn {
            last: true,
            status: Some((0, Residual::Overflow(16))),
            itt: Tag(5),
            numbers: numbers(),
            data_sn: 2,
            offset: 1024,
        },
        DataIn::parse,
        DataIn::emit,
    );
    let without_status = DataIn {
        last: false,
        status: None,
        itt: Tag(5),
        numbers: numbers(),
        data_sn: 0,
        offset: 0,
    };
    assert_eq!(
        without_status.emit()[24..28],
        [0; 4],
        "StatSN is reserved without a status"
    );
}

#[test]
fn r2t() {
    check(
        // §11.8.
        header([
            0x3180_0000,
            0,
            0x0001_0000,
            0,
            5,
            9,
            0x0102_0304,
            0x1112_1314,
            0x2122_2324,
            1,
            0x4_0000,
            0x1_0000,
        ]),
        R2t {
            lun: LUN_1,
            itt: Tag(5),
            ttt: Tag(9),
            numbers: numbers(),
            r2t_sn: 1,
            offset: 0x4_0000,
            len: 0x1_0000,
        },
        R2t::parse,
        R2t::emit,
    );
}

#[test]
fn login_request() {
    // libiscsi: straight to the full feature phase.
    let golden = header([
        0x4387_0000,
        0x1ae,
        0x80d0_6b0d,
        0,
        0x418b_cb9c,
        0,
        0x4884_09b9,
        1,
        0,
        0,
        0,
        0,
    ]);
    check(
        golden,
        LoginRequest {
            next: Some(Stage::FullFeature),
            more: false,
            stage: Stage::Operational,
            version_min: 0,
            isid: [0x80, 0xd0, 0x6b, 0x0d, 0, 0],
            tsih: 0,
            itt: Tag(0x418b_cb9c),
            cid: 0,
            cmd_sn: Serial(0x4884_09b9),
            exp_stat_sn: Serial(1),
        },
        LoginRequest::parse,
        LoginRequest::emit,
    );
    // Stages that go back, do not exist, or are asked for in the middle of text (§11.12).
    for flags in [0x84, 0x85, 0x88, 0x86, 0x8f, 0xc7] {
        let mut bhs = golden;
        bhs[1] = flags;
        assert!(
            matches!(LoginRequest::parse(&bhs), Err(Error::Illegal(_))),
            "{flags:#x}"
        );
    }
}

#[test]
fn login_response() {
    check(
        // §11.13: initiator error, authentication failed.
        header([
            0x2300_0000,
            0,
            0x8000_d1ce,
            0xd001_0007,
            1,
            0,
            0x0102_0304,
            0x1112_1314,
            0x2122_2324,
            0x0201_0000,
            0,
            0,
        ]),
        LoginResponse {
            next: None,
            more: false,
            stage: Stage::Security,
            isid: [0x80, 0, 0xd1, 0xce, 0xd0, 1],
            tsih: 7,
            itt: Tag(1),
            numbers: numbers(),
            status: 0x0201,
        },
        LoginResponse::parse,
        LoginResponse::emit,
    );
}

#[test]
fn text_request_and_response() {
    check(
        // libiscsi: SendTargets=All.
        header([
            0x4480_0000,
            0x10,
            0,
            0,
            0x3af8_20b5,
            0xffff_ffff,
            0x2e28_f1c0,
            2,
            0,
            0,
            0,
            0,
        ]),
        TextRequest {
            immediate: true,
            last: true,
            more: false,
            itt: Tag(0x3af8_20b5),
            ttt: Tag::NONE,
            cmd_sn: Serial(0x2e28_f1c0),
            exp_stat_sn: Serial(2),
        },
        TextRequest::parse,
        TextRequest::emit,
    );
    check(
        // §11.11: the text goes on.
        header([
            0x2440_0000,
            8192,
            0,
            0,
            2,
            5,
            0x0102_0304,
            0x1112_1314,
            0x2122_2324,
            0,
            0,
            0,
        ]),
        TextResponse {
            last: false,
            more: true,
            itt: Tag(2),
            ttt: Tag(5),
            numbers: numbers(),
        },
        TextResponse::parse,
        TextResponse::emit,
    );
}

#[test]
fn task_request_and_response() {
    check(
        // libiscsi: ABORT TASK.
        header([
            0x4281_0000,
            0,
            0x0001_0000,
            0,
            0x00fd_08ca,
            0x00fd_08c9,
            0x54a7_fde4,
            4,
            0x54a7_fde3,
            0,
            0,
            0,
        ]),
        TaskRequest {
            immediate: true,
            function: 1,
            lun: LUN_1,
            itt: Tag(0x00fd_08ca),
            referenced_itt: Tag(0x00fd_08c9),
            cmd_sn: Serial(0x54a7_fde4),
            exp_stat_sn: Serial(4),
            ref_cmd_sn: Serial(0x54a7_fde3),
        },
        TaskRequest::parse,
        TaskRequest::emit,
    );
    check(
        // §11.6: task does not exist.
        header([
            0x2280_0100,
            0,
            0,
            0,
            9,
            0,
            0x0102_0304,
            0x1112_1314,
            0x2122_2324,
            0,
            0,
            0,
        ]),
        TaskResponse {
            response: TaskResponse::NO_TASK,
            itt: Tag(9),
            numbers: numbers(),
        },
        TaskResponse::parse,
        TaskResponse::emit,
    );
}

#[test]
fn nop_out_and_in() {
    check(
        // §11.18.
        header([0x4080_0000, 4, 0, 0, 0x0a, 0xffff_ffff, 3, 4, 0, 0, 0, 0]),
        NopOut {
            immediate: true,
            lun: [0; 8],
            itt: Tag(0x0a),
            ttt: Tag::NONE,
            cmd_sn: Serial(3),
            exp_stat_sn: Serial(4),
        },
        NopOut::parse,
        NopOut::emit,
    );
    check(
        // §11.19.
        header([
            0x2080_0000,
            4,
            0,
            0,
            0x0a,
            0xffff_ffff,
            0x0102_0304,
            0x1112_1314,
            0x2122_2324,
            0,
            0,
            0,
        ]),
        NopIn {
            lun: [0; 8],
            itt: Tag(0x0a),
            ttt: Tag::NONE,
            numbers: numbers(),
        },
        NopIn::parse,
        NopIn::emit,
    );
}

#[test]
fn logout_request_and_response() {
    check(
        // libiscsi.
        header([
            0x4680_0000,
            0,
            0,
            0,
            0x418b_cba1,
            0,
            0x4884_09bd,
            6,
            0,
            0,
            0,
            0,
        ]),
        LogoutRequest {
            immediate: true,
            reason: 0,
            itt: Tag(0x418b_cba1),
            cid: 0,
            cmd_sn: Serial(0x4884_09bd),
            exp_stat_sn: Serial(6),
        },
        LogoutRequest::parse,
        LogoutRequest::emit,
    );
    check(
        // §11.15.
        header([
            0x2680_0100,
            0,
            0,
            0,
            6,
            0,
            0x0102_0304,
            0x1112_1314,
            0x2122_2324,
            0,
            0,
            0,
        ]),
        LogoutResponse {
            response: 1,
            itt: Tag(6),
            numbers: numbers(),
        },
        LogoutResponse::parse,
        LogoutResponse::emit,
    );
}

#[test]
fn reject_and_async_message() {
    check(
        // §11.17.
        header([
            0x3f80_0400,
            48,
            0,
            0,
            0xffff_ffff,
            0,
            0x0102_0304,
            0x1112_1314,
            0x2122_2324,
            0,
            0,
            0,
        ]),
        Reject {
            reason: Reject::PROTOCOL_ERROR,
            numbers: numbers(),
        },
        Reject::parse,
        Reject::emit,
    );
    check(
        // §11.9: log out within 3 seconds.
        header([
            0x3280_0000,
            0,
            0,
            0,
            0xffff_ffff,
            0,
            0x0102_0304,
            0x1112_1314,
            0x2122_2324,
            0x0100_0000,
            0x0000_0003,
            0,
        ]),
        AsyncMessage {
            event: AsyncMessage::LOGOUT,
            numbers: numbers(),
            parameters: [0, 0, 3],
        },
        AsyncMessage::parse,
        AsyncMessage::emit,
    );
}

#[test]
fn heads_tell_lengths_and_unknown_opcodes_are_values() {
    let mut bhs = header([0x5d80_0000, 0x0201_0203, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    let head = Head::parse(&bhs);
    assert_eq!(head.opcode, Opcode::Unknown(0x1d));
    assert!(head.immediate);
    assert_eq!((head.ahs_len, head.data_len), (8, 0x01_0203));
    assert_eq!(head.padding(), 1);
    assert_eq!(head.itt, Tag(9));
    set_lengths(&mut bhs, 0xff_fffe);
    assert_eq!(Head::parse(&bhs).data_len, 0xff_fffe);
    assert_eq!(Head::parse(&bhs).ahs_len, 0);
}

#[test]
fn serial_numbers_wrap() {
    assert_eq!(Serial(0xffff_ffff).plus(2), Serial(1));
    assert_eq!(Serial(0xffff_ffff).distance_to(Serial(1)), 2);
    assert_eq!(Serial(1).distance_to(Serial(0xffff_ffff)), -2);
}
