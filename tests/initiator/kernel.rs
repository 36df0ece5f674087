//! What the guest's kernel logs at the level of a warning or worse must be expected, line by line.

use crate::lab::Lab;

/// Parts of lines that are as they should be, and why.
const EXPECTED: &[(&str, &str)] = &[
    (
        "Power-on or device reset occurred",
        "a new nexus is told of the power on (SAM-5 §5.14.1), and of the reset that was asked for",
    ),
    (
        "Parameters changed",
        "a registration was preempted, on purpose: 2A/05",
    ),
    ("Capacity data has changed", "the volume was resized"),
    (
        "detected conn error (1020)",
        "the server was killed: open-iscsi's word for a closed connection",
    ),
    (
        "Login/Text in progress. Cannot start new task.",
        "the answer to a part of a login was there before the initiator's own worker had put down the request (libiscsi.c, iscsi_xmit_task): it begins again. Of 120 logins with CHAP 4 saw it with netroot, 4 of as many with tgt",
    ),
    (
        "hrtimer: interrupt took",
        "an emulated processor on a busy host",
    ),
    (
        "clocksource:",
        "the same: its clock is late, and another one is taken",
    ),
];

const BEGIN: &str = "NETROOT-LAB begins";

/// What the kernel said while it booted is about the emulated machine.
pub(crate) fn begin(lab: &Lab) {
    lab.step("the kernel's log", &format!("echo '<6>{BEGIN}' >/dev/kmsg"));
}

pub(crate) fn has_not_complained(lab: &Lab) {
    let log = lab.step("the kernel's log is read", "dmesg --raw");
    let (_, since) = log
        .split_once(BEGIN)
        .unwrap_or_else(|| panic!("the log has been overwritten"));
    let complaints: Vec<&str> = since
        .lines()
        .skip(1)
        .filter(|line| level(line) <= 4)
        .filter(|line| !EXPECTED.iter().any(|(part, _)| line.contains(part)))
        .collect();
    assert!(
        complaints.is_empty(),
        "the kernel complains:\n{}",
        complaints.join("\n")
    );
}

/// Of a line `<level>[time] text`; what does not begin so goes on with the line before.
fn level(line: &str) -> u32 {
    let number = line.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    // The facility stands in the higher bits.
    number
        .and_then(|(n, _)| n.parse::<u32>().ok())
        .map_or(7, |n| n & 7)
}
