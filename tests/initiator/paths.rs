//! Two sessions of one disk, through two portals: one identity, two nexuses.

use crate::lab::Lab;

/// Of sg3-utils.
const RESERVATION_CONFLICT: i32 = 24;

fn both(lab: &Lab) -> String {
    let target = lab.target("data");
    format!(
        "T={target} D4=$(disk {target} 1 $ADDRESS4) D6=$(disk {target} 1 $ADDRESS6)
        A=$(sg $D4) B=$(sg $D6)\n"
    )
}

pub(crate) fn a_disk_is_the_same_through_both_portals(lab: &Lab) {
    let target = lab.target("data");
    lab.step(
        "a second session of the same disk, through the other portal",
        &format!("log_in {target} $V6; disk {target} 1 $ADDRESS6"),
    );
    lab.step(
        "both say that they are the same disk, through the same port group",
        &format!(
            "{}
            [ $D4 != $D6 ]
            cmp /sys/block/$D4/device/wwid /sys/block/$D6/device/wwid
            for page in di sn; do
                sg_vpd --page=$page $A >/tmp/4; sg_vpd --page=$page $B >/tmp/6; cmp /tmp/4 /tmp/6
            done
            sg_rtpg $A >/tmp/4; sg_rtpg $B >/tmp/6; cmp /tmp/4 /tmp/6
            dd if=/dev/urandom of=/tmp/new bs=4096 count=16
            # Behind the file system, which has not written there.
            dd if=/tmp/new of=/dev/$D4 bs=4096 count=16 seek=200000 oflag=direct
            dd if=/dev/$D6 of=/tmp/read bs=4096 count=16 skip=200000 iflag=direct
            cmp /tmp/new /tmp/read",
            both(lab)
        ),
    );
    let sessions = lab.site.sessions("guest").unwrap();
    let of_data = sessions
        .iter()
        .filter(|one| one["target"] == target.as_str());
    assert_eq!(of_data.count(), 2, "{sessions:?}");
}

pub(crate) fn reservations_keep_others_out(lab: &Lab) {
    let both = both(lab);
    lab.step(
        "the first registers and reserves; the second sees it",
        &format!(
            "{both}
            sg_persist --no-inquiry --out --register --param-sark=0xa1 $A
            sg_persist --no-inquiry --out --reserve --param-rk=0xa1 --prout-type=5 $A
            sg_persist --no-inquiry --read-reservation $B | grep 'Write Exclusive, registrants only'
            sg_persist --no-inquiry --read-full-status $B | grep 'guest,i,0x'"
        ),
    );
    lab.refused(
        "the second must not reserve",
        RESERVATION_CONFLICT,
        &format!("{both}sg_persist --no-inquiry --out --reserve --param-rk=0 --prout-type=5 $B"),
    );
    lab.step(
        "nor write, but read",
        &format!(
            "{both}
            dd if=/tmp/new of=/tmp/one bs=4096 count=1
            if sg_dd if=/tmp/one of=$B bs=512 count=8 seek=1600000; then exit 1; fi
            take $B 1600000 8 /tmp/now
            cmp /tmp/one /tmp/now"
        ),
    );
    lab.step(
        "the second registers, preempts the first, and has it to itself",
        &format!(
            "{both}
            sg_persist --no-inquiry --out --register --param-sark=0xb2 $B
            sg_persist --no-inquiry --out --preempt --param-rk=0xb2 --param-sark=0xa1 --prout-type=5 $B
            (sg_turs --verbose $A 2>&1 || true) | grep 'Registrations preempted'
            sg_turs $A
            sg_persist --no-inquiry --read-reservation $A | grep 'Key=0xb2'
            if sg_dd if=/tmp/one of=$A bs=512 count=8 seek=1600000; then exit 1; fi
            sg_dd if=/tmp/one of=$B bs=512 count=8 seek=1600000"
        ),
    );
    lab.step(
        "it clears everything, and the first may write again",
        &format!(
            "{both}
            sg_persist --no-inquiry --out --clear --param-rk=0xb2 $B
            sg_persist --no-inquiry --read-keys $A | grep 'NO registered reservation keys'
            sg_dd if=/tmp/one of=$A bs=512 count=8 seek=1600000"
        ),
    );
}
