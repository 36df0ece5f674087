# What every step knows.
V4=192.0.2.1:3260
V6=[2001:db8::1]:3260
# The same as the kernel writes them.
ADDRESS4=192.0.2.1
ADDRESS6=2001:0db8:0000:0000:0000:0000:0000:0001

# A setting of the initiator for one target at one portal.
set_node() { # TARGET PORTAL KEY VALUE
    iscsiadm -m node -T "$1" -p "$2" -o update -n "$3" -v "$4"
}

log_in() { # TARGET PORTAL
    iscsiadm -m node -T "$1" -p "$2" --login
}

log_out() { # TARGET PORTAL
    iscsiadm -m node -T "$1" -p "$2" --logout
}

# The disk of a logical unit, such as sda, once it is there; as the portal's session has it.
disk() { # TARGET LUN [ADDRESS]
    local session name path
    for _ in $(seq 300); do
        for session in /sys/class/iscsi_session/session*; do
            [ "$(cat "$session/targetname")" = "$1" ] || continue
            name=${session##*/}
            [ $# -lt 3 ] || [ "$(cat /sys/class/iscsi_connection/connection"${name#session}":0/address)" = "$3" ] || continue
            for path in "$session"/device/target*/*:*:*:"$2"/block/sd*; do
                if [ -b "/dev/${path##*/}" ]; then
                    echo "${path##*/}"
                    return
                fi
            done
        done
        sleep 0.1
    done
    echo "no disk of $1 LUN $2 has come" >&2
    return 1
}

# The generic device of a disk, for programs that must not go through the block layer.
sg() { # DISK
    local path
    for path in "/sys/block/$1/device/scsi_generic/"*; do echo "/dev/${path##*/}"; done
}

# Reads blocks past all caches. sg_dd leaves what a longer file has behind its own.
take() { # GENERIC FIRST COUNT FILE
    rm -f "$4"
    sg_dd if="$1" skip="$2" count="$3" of="$4" bs=512
}
