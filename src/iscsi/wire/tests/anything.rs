//! Any bytes whatever: what can be read is written as it is read, and nothing panics.

use proptest::prelude::*;

use super::super::*;

/// What a header says survives being written and read again, for each of these formats.
macro_rules! survives {
    ($header:expr, $($format:ty: $opcode:expr),+ $(,)?) => {$(
        let mut bytes = $header;
        // Whatever the opcode, and with the one that belongs to the format.
        let _ = <$format>::parse(&bytes);
        bytes[0] = bytes[0] & 0xc0 | $opcode;
        if let Ok(read) = <$format>::parse(&bytes) {
            prop_assert_eq!(<$format>::parse(&read.emit()), Ok(read), "{}", stringify!($format));
        }
    )+};
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn every_pdu_survives_being_written(header in proptest::array::uniform(any::<u8>())) {
        let header: Bhs = header;
        let _ = Head::parse(&header);
        survives!(header,
            NopOut: 0x00,
            ScsiCommand: 0x01,
            TaskRequest: 0x02,
            LoginRequest: 0x03,
            TextRequest: 0x04,
            DataOut: 0x05,
            LogoutRequest: 0x06,
            NopIn: 0x20,
            ScsiResponse: 0x21,
            TaskResponse: 0x22,
            LoginResponse: 0x23,
            TextResponse: 0x24,
            DataIn: 0x25,
            LogoutResponse: 0x26,
            R2t: 0x31,
            AsyncMessage: 0x32,
            Reject: 0x3f,
        );
    }

    #[test]
    fn headers_of_any_length_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = ScsiCommand::parse(&bytes);
        let _ = LoginRequest::parse(&bytes);
        let _ = TextRequest::parse(&bytes);
        let _ = DataOut::parse(&bytes);
        let _ = TaskRequest::parse(&bytes);
        let _ = LogoutRequest::parse(&bytes);
        let _ = pairs(&bytes);
    }
}
