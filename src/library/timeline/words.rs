//! Where a boot is or stopped, and why, in a sentence: by what was seen of it.

use super::{BootEnd, BootLine, BootOutcome, BootStage, BootStep, KernelFrom};

/// See [`BootLine::tell`].
pub(super) fn tell(line: &BootLine) -> String {
    match line.outcome {
        BootOutcome::Booting => on_its_way(line),
        BootOutcome::Up if never_read(line) => {
            "its system logged in, and has read nothing yet".to_owned()
        }
        BootOutcome::Up => "its system is up".to_owned(),
        BootOutcome::Ended => ended(line),
        BootOutcome::Failed => failed(line),
    }
}

fn on_its_way(line: &BootLine) -> String {
    let Some(step) = latest(line) else {
        return "nothing is seen of it yet".to_owned();
    };
    match step.stage {
        BootStage::Dhcp => "it asks what to boot".to_owned(),
        BootStage::Loader => "loader fetched".to_owned(),
        BootStage::Menu => "it shows its menu".to_owned(),
        BootStage::Script => "script fetched".to_owned(),
        BootStage::Kernel | BootStage::Initramfs | BootStage::Identity => match parts(step) {
            Some(parts) => format!("fetches its {}: {parts}", name(step.stage)),
            None => format!("{} fetched", name(step.stage)),
        },
        BootStage::Firmware if line.end_of_firmware() => {
            "its firmware has let go of the disk, and its system does not have it yet".to_owned()
        }
        BootStage::Firmware => "its firmware has its disk".to_owned(),
        BootStage::Discovery => "its system asked which targets there are".to_owned(),
        BootStage::System | BootStage::FirstRead | BootStage::FirstWrite | BootStage::End => {
            "its system logged in".to_owned()
        }
    }
}

fn ended(line: &BootLine) -> String {
    let how = match line.end {
        Some(BootEnd::LoggedOut) | None => "its system logged out",
        Some(BootEnd::Lost) => "its connection was lost, and it did not come back",
        Some(BootEnd::CutOff) => "its session was ended here",
        Some(BootEnd::Anew) => "the machine began to boot anew, without logging out",
        Some(BootEnd::LocalDisk) => "it went on to its local disk",
        Some(BootEnd::Person) => match &line.person {
            Some(person) => return format!("somebody logged in there, and it boots as {person}"),
            None => "somebody logged in there, and it boots their disk",
        },
    };
    match never_read(line) {
        true => format!("{how}; it never read from its disk"),
        false => how.to_owned(),
    }
}

/// Whether its system had its disk, and no use of it.
fn never_read(line: &BootLine) -> bool {
    line.reached(BootStage::System) && !line.reached(BootStage::FirstRead)
}

/// What was done, what was not, and why that may be.
fn failed(line: &BootLine) -> String {
    let did = did(line);
    if let Some(failure) = &line.failure {
        return joined(&did, &failure.to_string());
    }
    if let Some(why) = &line.refused {
        return joined(&did, why);
    }
    if line.end == Some(BootEnd::Anew) {
        return match half(line).or_else(|| wrong_name(line)) {
            Some(cause) => joined(&did, &format!("{cause}, and it began to boot anew")),
            None => joined(&did, "and began to boot anew"),
        };
    }
    joined(&did, &missing(line))
}

/// What the boot had got to, in the order of its stages.
fn did(line: &BootLine) -> Vec<String> {
    let mut fetched = Vec::new();
    let mut did = Vec::new();
    for step in &line.steps {
        let what = match step.stage {
            BootStage::Loader => match &step.file {
                Some(file) => file.as_str(),
                None => "a loader",
            },
            BootStage::Script => "boot.cfg",
            BootStage::Kernel => "the kernel",
            BootStage::Initramfs => "the initramfs",
            BootStage::Identity => "its identity",
            _ => continue,
        };
        if parts(step).is_none() {
            fetched.push(what);
        }
    }
    match (fetched.as_slice(), line.step(BootStage::Dhcp)) {
        ([], None) => {}
        ([], Some(_)) => did.push("asked what to boot".to_owned()),
        ([most @ .., last], _) => did.push(match most {
            [] => format!("fetched {last}"),
            most => format!("fetched {} and {last}", most.join(", ")),
        }),
    }
    if line.reached(BootStage::Firmware) {
        did.push("its firmware logged in".to_owned());
    }
    if line.reached(BootStage::Discovery) {
        did.push("discovered".to_owned());
    }
    did
}

/// What never came, and what there is to look at.
fn missing(line: &BootLine) -> String {
    if let Some(half) = half(line) {
        return format!("{half}, then silence");
    }
    if let Some(wrong) = wrong_name(line) {
        return wrong;
    }
    let why = match line.last() {
        Some(BootStage::Script) if line.kernel == Some(KernelFrom::Esp) => {
            "never logged in: do kernel and initramfs start from its own ESP, has the initramfs iSCSI and \
             the driver of its network card, and does it get an address?"
        }
        Some(BootStage::Script) if line.kernel == Some(KernelFrom::Disk) => {
            "its firmware never logged in: can its loader attach iSCSI disks, and reach the address in the \
             script?"
        }
        Some(BootStage::Firmware) if line.kernel == Some(KernelFrom::Disk) => {
            "the system never did: has the disk a boot loader for this firmware, and a system that takes it \
             over from there (iBFT)?"
        }
        None | Some(BootStage::Dhcp) => {
            "fetched no loader: does another DHCP server tell it something else, or does a firewall drop \
             TFTP (UDP port 69)?"
        }
        Some(BootStage::Loader) => {
            "never asked for its script: is the loader an iPXE that this firmware can start, and can it \
             reach the boot service?"
        }
        Some(BootStage::Menu) => "nobody chose anything in its menu",
        Some(BootStage::Script) => {
            "never asked for its kernel: can its loader do what the script says, and reach the address in \
             it?"
        }
        Some(BootStage::Kernel) => {
            "never asked for its initramfs: has the machine enough memory for it?"
        }
        Some(BootStage::Firmware) => "the system never did: does the initramfs find the network?",
        Some(BootStage::Discovery) => {
            "never logged in: does the kernel line name one of the targets that it was told of?"
        }
        _ => {
            "never logged in: has its initramfs iSCSI and the driver of its network card, and does it get \
             an address?"
        }
    };
    why.to_owned()
}

/// A file of which only a part was fetched.
fn half(line: &BootLine) -> Option<String> {
    line.steps.iter().find_map(|step| {
        let parts = parts(step)?;
        Some(format!("of its {} {parts} were fetched", name(step.stage)))
    })
}

/// The name that its initiator has in place of its own.
fn wrong_name(line: &BootLine) -> Option<String> {
    let (other, own) = (line.other_name.as_ref()?, line.own_name.as_ref()?);
    Some(format!(
        "never logged in: initiator name is {other}, the client's is {own}"
    ))
}

/// How much of a file was fetched, where that is not all of it.
fn parts(step: &BootStep) -> Option<String> {
    let (bytes, of) = (step.bytes?, step.of?);
    if bytes >= of || step.until.is_some() {
        return None;
    }
    let (unit, name) = match of {
        0..0x10_0000 => (1 << 10, "KiB"),
        _ => (1 << 20, "MiB"),
    };
    Some(format!("{} of {} {name}", bytes / unit, of.div_ceil(unit)))
}

fn name(stage: BootStage) -> &'static str {
    stage.as_str()
}

fn joined(did: &[String], last: &str) -> String {
    match did {
        [] => last.to_owned(),
        did => format!("{}, {last}", did.join(", ")),
    }
}

/// The step that was seen last.
fn latest(line: &BootLine) -> Option<&BootStep> {
    line.steps.iter().max_by_key(|step| step.stage)
}

impl BootLine {
    /// Whether the firmware had the disk and has it no more.
    fn end_of_firmware(&self) -> bool {
        self.reached(BootStage::Firmware) && self.end.is_some()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::library::{BootFailure, FailedAt};

    fn line(stages: &[BootStage]) -> BootLine {
        let began = Timestamp::from_second(1_700_000_000).unwrap();
        let mut line = BootLine::new(began);
        line.outcome = BootOutcome::Failed;
        line.steps = stages
            .iter()
            .map(|stage| BootStep::new(*stage, began))
            .collect();
        line
    }

    use BootStage::*;

    #[test]
    fn a_boot_that_stopped_says_where_and_what_to_look_at() {
        for (stages, begins, ends) in [
            (&[Dhcp][..], "asked what to boot, fetched no loader: ", "?"),
            (
                &[Dhcp, Loader, Menu],
                "fetched a loader, nobody chose anything",
                " in its menu",
            ),
            (
                &[Dhcp, Loader],
                "fetched a loader, never asked for its script",
                "?",
            ),
            (
                &[Script],
                "fetched boot.cfg, never asked for its kernel: ",
                "?",
            ),
            (
                &[Script, Kernel],
                "fetched boot.cfg and the kernel, never asked for its initramfs",
                "?",
            ),
            (
                &[Script, Kernel, Initramfs],
                "fetched boot.cfg, the kernel and the initramfs, never logged in: ",
                "?",
            ),
            (
                &[Script, Kernel, Initramfs, Identity],
                "fetched boot.cfg, the kernel, the initramfs and its identity, never logged in: ",
                "?",
            ),
            (
                &[Script, Firmware],
                "fetched boot.cfg, its firmware logged in, the system never did: ",
                "does the initramfs find the network?",
            ),
            (
                &[Script, Discovery],
                "fetched boot.cfg, discovered, never logged in: ",
                "?",
            ),
            (&[], "fetched no loader", "?"),
        ] {
            let told = tell(&line(stages));
            assert!(told.starts_with(begins) && told.ends_with(ends), "{told}");
        }
    }

    #[test]
    fn a_kernel_that_the_server_does_not_have_is_not_missed_there() {
        for (from, stages, words) in [
            (
                KernelFrom::Server,
                &[Script][..],
                "fetched boot.cfg, never asked for its kernel: ",
            ),
            (
                KernelFrom::Esp,
                &[Script],
                "fetched boot.cfg, never logged in: do kernel and initramfs start from its own ESP, ",
            ),
            // What is on its ESP has gone since.
            (
                KernelFrom::Esp,
                &[Script, Kernel],
                "fetched boot.cfg and the kernel, never asked for its initramfs: ",
            ),
            (
                KernelFrom::Esp,
                &[Script, Identity],
                "fetched boot.cfg and its identity, never logged in: has its initramfs iSCSI",
            ),
            (
                KernelFrom::Disk,
                &[Script],
                "fetched boot.cfg, its firmware never logged in: can its loader attach iSCSI disks, ",
            ),
            (
                KernelFrom::Disk,
                &[Script, Firmware],
                "fetched boot.cfg, its firmware logged in, the system never did: has the disk a boot \
                 loader for this firmware, ",
            ),
        ] {
            let mut line = line(stages);
            line.kernel = Some(from);
            let told = tell(&line);
            assert!(told.starts_with(words) && told.ends_with('?'), "{told}");
        }
    }

    #[test]
    fn what_is_known_of_the_cause_is_told_in_place_of_a_guess() {
        let mut wrong_name = line(&[Script, Discovery]);
        wrong_name.other_name = Some("iqn.a:other".to_owned());
        wrong_name.own_name = Some("iqn.a:own".to_owned());
        assert_eq!(
            tell(&wrong_name),
            "fetched boot.cfg, discovered, never logged in: initiator name is iqn.a:other, the client's \
             is iqn.a:own"
        );
        let mut refused = line(&[Script]);
        refused.refused = Some("its login was refused: fenced".to_owned());
        assert_eq!(
            tell(&refused),
            "fetched boot.cfg, its login was refused: fenced"
        );
        refused.failure = Some(BootFailure {
            at: FailedAt::San,
            errno: None,
        });
        assert_eq!(
            tell(&refused),
            "fetched boot.cfg, iPXE could not boot from its disk"
        );
    }

    #[test]
    fn a_boot_that_began_anew_is_told_with_what_is_known_of_the_cause() {
        let mut anew = line(&[Script, Kernel, Discovery]);
        anew.end = Some(BootEnd::Anew);
        assert_eq!(
            tell(&anew),
            "fetched boot.cfg and the kernel, discovered, and began to boot anew"
        );
        anew.other_name = Some("iqn.a:other".to_owned());
        anew.own_name = Some("iqn.a:own".to_owned());
        assert_eq!(
            tell(&anew),
            "fetched boot.cfg and the kernel, discovered, never logged in: initiator name is iqn.a:other, \
             the client's is iqn.a:own, and it began to boot anew"
        );
        anew.steps[1].bytes = Some(12 << 20);
        anew.steps[1].of = Some(38 << 20);
        assert_eq!(
            tell(&anew),
            "fetched boot.cfg, discovered, of its kernel 12 of 38 MiB were fetched, and it began to boot \
             anew"
        );
        anew.refused = Some("its login was refused: fenced".to_owned());
        assert_eq!(
            tell(&anew),
            "fetched boot.cfg, discovered, its login was refused: fenced"
        );
    }

    #[test]
    fn a_system_that_never_read_from_its_disk_is_told_so() {
        let mut up = line(&[Script, System]);
        up.outcome = BootOutcome::Up;
        assert_eq!(tell(&up), "its system logged in, and has read nothing yet");
        assert!(up.says_more());
        let mut read = line(&[Script, System, FirstRead]);
        read.outcome = BootOutcome::Up;
        assert_eq!(tell(&read), "its system is up");
        assert!(!read.says_more());
        for (end, words) in [
            (
                BootEnd::Lost,
                "its connection was lost, and it did not come back",
            ),
            (
                BootEnd::Anew,
                "the machine began to boot anew, without logging out",
            ),
            (BootEnd::LoggedOut, "its system logged out"),
        ] {
            for line in [&mut up, &mut read] {
                line.outcome = BootOutcome::Ended;
                line.end = Some(end);
            }
            assert_eq!(tell(&read), words);
            assert_eq!(tell(&up), format!("{words}; it never read from its disk"));
        }
        // One that never was to have it.
        let mut local = line(&[Menu, End]);
        local.outcome = BootOutcome::Ended;
        local.end = Some(BootEnd::LocalDisk);
        assert_eq!(tell(&local), "it went on to its local disk");
    }

    #[test]
    fn half_a_file_is_told_in_the_unit_of_its_size() {
        let mut half = line(&[Script, Kernel]);
        half.steps[1].bytes = Some(12 << 20);
        half.steps[1].of = Some(38 << 20);
        assert_eq!(
            tell(&half),
            "fetched boot.cfg, of its kernel 12 of 38 MiB were fetched, then silence"
        );
        half.outcome = BootOutcome::Booting;
        assert_eq!(tell(&half), "fetches its kernel: 12 of 38 MiB");
        half.steps[1].bytes = Some(38 << 20);
        assert_eq!(tell(&half), "kernel fetched");
    }
}
