//! Keeps programs in images from the kernel's keyrings, which know no namespaces but users' numbers:
//! what an image's root asks for by `@u` would be the host's root's.
//!
//! A filter of system calls (seccomp(2)) that answers them as a kernel without keyrings does.

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};

/// x32 programs set this in the number of a call; else they are as those of x86-64.
const X32: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// `AUDIT_ARCH_...` of linux/audit.h, and the numbers of add_key, request_key and keyctl there.
const CALLS: [(u32, [u32; 3]); 3] = [
    (0xc000_003e, [248, 249, 250]), // x86-64
    (0x4000_0003, [286, 287, 288]), // i386, which programs on x86-64 can also speak
    (0xc000_00b7, [217, 218, 219]), // AArch64
];

/// The filter, as the kernel takes it: whatever it does not name is allowed.
pub(super) fn filter() -> Vec<sock_filter> {
    let mut program = Vec::new();
    for (architecture, calls) in CALLS {
        let mut numbers = calls.to_vec();
        if architecture == 0xc000_003e {
            numbers.extend(calls.map(|call| call | X32));
        }
        let last = numbers.len();
        program.push(load(ARCHITECTURE));
        // Past the load, the comparisons, the permission and the refusal.
        program.push(jump_if(architecture, 0, count(last + 3)));
        program.push(load(NUMBER));
        for (at, number) in numbers.into_iter().enumerate() {
            // To the refusal, which stands behind the other comparisons and the permission.
            program.push(jump_if(number, count(last - at), 0));
        }
        program.push(answer(libc::SECCOMP_RET_ALLOW));
        program.push(answer(
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs(),
        ));
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}

/// Jumps are bytes; the program is far shorter than they reach.
fn count(steps: usize) -> u8 {
    u8::try_from(steps).unwrap_or(u8::MAX)
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
}

fn jump_if(value: u32, equal: u8, other: u8) -> sock_filter {
    statement(BPF_JMP | BPF_JEQ | BPF_K, equal, other, value)
}

fn answer(what: u32) -> sock_filter {
    statement(BPF_RET | BPF_K, 0, 0, what)
}

fn statement(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    // Codes are 16 bits wide in the kernel's header, too.
    let code = u16::try_from(code).unwrap_or(0);
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers a call, by the rules of the machine that it is written for.
    fn check(architecture: u32, number: u32) -> u32 {
        let (program, mut at, mut accumulator) = (filter(), 0, 0);
        loop {
            let step = program[at];
            at += 1;
            let code = u32::from(step.code);
            if code == BPF_LD | BPF_W | BPF_ABS {
                accumulator = if step.k == NUMBER {
                    number
                } else {
                    architecture
                };
            } else if code == BPF_RET | BPF_K {
                return step.k;
            } else {
                let by = if accumulator == step.k {
                    step.jt
                } else {
                    step.jf
                };
                at += usize::from(by);
            }
        }
    }

    #[test]
    fn keyrings_are_not_there_and_everything_else_is() {
        let refused = libc::SECCOMP_RET_ERRNO | 38;
        for (architecture, calls) in CALLS {
            for call in calls {
                assert_eq!(check(architecture, call), refused);
            }
            for call in [0, calls[0] - 1, calls[2] + 1, 59, 1000] {
                assert_eq!(check(architecture, call), libc::SECCOMP_RET_ALLOW);
            }
        }
        assert_eq!(check(0xc000_003e, 250 | X32), refused);
        assert_eq!(check(0x1234, 250), libc::SECCOMP_RET_ALLOW);
    }
}
