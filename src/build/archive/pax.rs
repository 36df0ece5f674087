//! Records of pax headers (POSIX.1-2017, pax, "pax Extended Header").

use anyhow::{Context, Result, ensure};
use nix::sys::time::TimeSpec;

/// Key and value of each record, in order; a value may hold any bytes, line ends as well.
pub(super) type Records = Vec<(String, Vec<u8>)>;

/// Takes `LENGTH KEY=VALUE\n` records apart, where the length counts the whole record.
pub(super) fn parse(mut bytes: &[u8]) -> Result<Records> {
    let mut records = Records::new();
    while !bytes.is_empty() {
        let blank = bytes.iter().position(|&byte| byte == b' ');
        let digits = blank.and_then(|at| bytes.get(..at)).unwrap_or_default();
        let length: usize = std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .context("a pax record without a length")?;
        ensure!(
            length <= bytes.len() && length > digits.len(),
            "a pax record with a wrong length"
        );
        let (record, rest) = bytes.split_at(length);
        let text = record
            .get(digits.len() + 1..)
            .and_then(|text| text.strip_suffix(b"\n"))
            .context("a pax record without an end")?;
        let equals = text.iter().position(|&byte| byte == b'=');
        let equals = equals.context("a pax record without a value")?;
        let (key, value) = text.split_at(equals);
        let key = String::from_utf8_lossy(key).into_owned();
        records.push((key, value.get(1..).unwrap_or_default().to_vec()));
        bytes = rest;
    }
    Ok(records)
}

/// The last value of `key`, which overrides those before it.
pub(super) fn find<'a>(records: &'a Records, key: &str) -> Option<&'a [u8]> {
    let found = records.iter().rev().find(|(name, _)| name == key);
    found.map(|(_, value)| value.as_slice())
}

/// The last value of `key` as a number.
pub(super) fn number(records: &Records, key: &str) -> Result<Option<u64>> {
    find(records, key)
        .map(|value| decimal(value).with_context(|| format!("{key} is not a number")))
        .transpose()
}

/// The last value of `key` as a time: seconds with a fraction.
pub(super) fn time(records: &Records, key: &str) -> Result<Option<TimeSpec>> {
    let Some(value) = find(records, key) else {
        return Ok(None);
    };
    let parse = || {
        let text = std::str::from_utf8(value).ok()?;
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds: i64 = whole.parse().ok()?;
        let digits: String = fraction
            .chars()
            .chain("000000000".chars())
            .take(9)
            .collect();
        let nanoseconds: i64 = digits.parse().ok()?;
        // -1.5 s is 0.5 s after -2 s.
        Some(if whole.starts_with('-') && nanoseconds > 0 {
            TimeSpec::new(seconds - 1, 1_000_000_000 - nanoseconds)
        } else {
            TimeSpec::new(seconds, nanoseconds)
        })
    };
    Ok(Some(
        parse().with_context(|| format!("{key} is not a time"))?,
    ))
}

/// A decimal number.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_hold_any_bytes() {
        let bytes = b"30 mtime=1350244992.023960108\n18 SCHILY.x=a\nb=c\n9 a=\xff\0\n\n";
        let bytes = &bytes[..bytes.len() - 1];
        let mut fixed = bytes[..30].to_vec();
        fixed.extend(b"18 SCHILY.x=a\nb=\n\n");
        fixed.extend(b"7 a=\xff\0\n");
        let records = parse(&fixed).unwrap();
        assert_eq!(find(&records, "SCHILY.x"), Some(&b"a\nb=\n"[..]));
        assert_eq!(find(&records, "a"), Some(&b"\xff\0"[..]));
        let time = time(&records, "mtime").unwrap().unwrap();
        assert_eq!(time, TimeSpec::new(1_350_244_992, 23_960_108));
    }

    #[test]
    fn times_before_1970_and_without_fraction() {
        let at = |text: &str| time(&vec![("t".into(), text.into())], "t").unwrap();
        assert_eq!(at("-1.25"), Some(TimeSpec::new(-2, 750_000_000)));
        assert_eq!(at("7"), Some(TimeSpec::new(7, 0)));
        assert!(time(&vec![("t".into(), b"x".to_vec())], "t").is_err());
    }

    #[test]
    fn wrong_records_are_refused() {
        let wrong = [
            &b"x"[..],
            b"5 a=b",
            b"99 a=b\n",
            b"0 a=b\n",
            b"1 ",
            b"5 abc\n",
            b"2 \n",
        ];
        for bytes in wrong {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
