//! The server is killed while it is written to.

use std::time::Duration;

use crate::lab::Lab;

pub(crate) fn a_killed_server_loses_nothing(lab: &mut Lab) {
    let target = lab.target("data");
    lab.step(
        "fio begins to write through a file system",
        &format!(
            "D=$(disk {target} 1 $ADDRESS4)
            mount -t xfs /dev/$D /mnt
            fio --name=outage --directory=/mnt --size=32m --rw=randwrite --bs=4k-64k --direct=1 \
                --ioengine=libaio --iodepth=8 --verify=crc32c --fsync=32 --rate=6m \
                --output=/tmp/fio --status-interval=1 >/dev/null 2>&1 </dev/null &
            echo $! >/run/fio
            # It is well in the middle when the server goes.
            begun=$(awk '{{print $7}}' /sys/block/$D/stat)
            for _ in $(seq 600); do
                now=$(awk '{{print $7}}' /sys/block/$D/stat)
                if [ $now -gt $((begun + 20000)) ]; then exit 0; fi
                sleep 0.1
            done
            cat /tmp/fio; exit 1"
        ),
    );
    lab.kill_server();
    lab.tell("the server is killed");
    lab.step("fio waits", "sleep 2; kill -0 $(cat /run/fio)");
    lab.start_server();
    lab.tell("the server is there again");
    lab.step(
        "fio ends, and all that it wrote verifies",
        &format!(
            "for _ in $(seq 2000); do
                if ! kill -0 $(cat /run/fio) 2>/dev/null; then break; fi
                sleep 0.1
            done
            cat /tmp/fio
            grep -q 'err= 0' /tmp/fio
            ! grep -q 'err=[ ]*[1-9]' /tmp/fio
            umount /mnt
            xfs_repair -n /dev/$(disk {target} 1 $ADDRESS4)"
        ),
    );
    // Both of data's, and scratch's.
    lab.site
        .wait_for_sessions("guest", 3, Duration::from_secs(60))
        .unwrap();
}
