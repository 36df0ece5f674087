//! Until when a certificate holds: the few fields of X.509 on the way there (RFC 5280 §4.1).

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`: the version, which the oldest certificates leave out.
const VERSION: u8 = 0xa0;

/// The end of a certificate in DER; nothing where it is none.
pub(super) fn ends(certificate: &[u8]) -> Option<Timestamp> {
    let (whole, _) = expect(certificate, SEQUENCE)?;
    let (fields, _) = expect(whole, SEQUENCE)?;
    let after_version = match element(fields)? {
        (VERSION, _, rest) => rest,
        _ => fields,
    };
    let (_, rest) = expect(after_version, INTEGER)?; // serial number
    let (_, rest) = expect(rest, SEQUENCE)?; // algorithm
    let (_, rest) = expect(rest, SEQUENCE)?; // issuer
    let (validity, _) = expect(rest, SEQUENCE)?;
    let (_, _, rest) = element(validity)?; // not before
    let (kind, until, _) = element(rest)?;
    moment(kind, std::str::from_utf8(until).ok()?)
}

/// RFC 5280 §4.1.2.5: both forms end with the seconds and `Z`.
fn moment(kind: u8, text: &str) -> Option<Timestamp> {
    let long = match kind {
        // Years below 50 are of this century.
        UTC_TIME if text.get(..2)?.parse::<u8>().ok()? < 50 => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let local = DateTime::strptime("%Y%m%d%H%M%SZ", &long).ok()?;
    Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn expect(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (kind, inside, rest) = element(bytes)?;
    (kind == wanted).then_some((inside, rest))
}

/// The first element (X.690 §8.1): its type, what is in it, what comes after.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&kind, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            // Nothing that is read here is longer than 64 KiB by far.
            let number = digits.iter().try_fold(0_u32, |number, &digit| {
                number.checked_mul(256)?.checked_add(u32::from(digit))
            })?;
            (usize::try_from(number).ok()?, rest)
        }
    };
    let (inside, rest) = rest.split_at_checked(length)?;
    Some((kind, inside, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_found() {
        for (year, month) in [(2031, 4), (2055, 12)] {
            let key = rcgen::KeyPair::generate().unwrap();
            let mut params =
                rcgen::CertificateParams::new(vec![String::from("a.example")]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, month, 5);
            let made = params.self_signed(&key).unwrap();
            let ends = ends(made.der()).unwrap();
            let day = format!("{year}-{month:02}-05T00:00:00Z");
            assert_eq!(ends, day.parse::<Timestamp>().unwrap());
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![String::from("a.example")]).unwrap();
        let whole = params.self_signed(&key).unwrap();
        for cut in 0..120 {
            assert_eq!(ends(&whole.der()[..cut]), None);
        }
        assert_eq!(ends(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(ends(&[0x30, 0x80]), None);
    }
}
