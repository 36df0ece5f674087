#!/bin/sh
# Makes of the recipe's image one that boots quickly under software emulation. Runs inside of it, before
# its initramfs is made.
set -eu

# The kernel for virtual machines: a few drivers instead of thousands.
export INITRD=No
apt-get purge --yes --allow-change-held-packages 'linux-image-*'
apt-get install --yes --no-install-recommends linux-image-cloud-amd64

# What a test machine does without; each unit costs a second.
systemctl mask \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
	e2scrub_reap.service systemd-pstore.service systemd-update-utmp.service \
	systemd-update-utmp-runlevel.service systemd-logind.service systemd-user-sessions.service \
	systemd-random-seed.service systemd-journal-flush.service systemd-binfmt.service \
	systemd-sysusers.service kmod-static-nodes.service getty@.service serial-getty@.service \
	getty-static.service dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount \
	sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount
