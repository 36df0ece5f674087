#!/bin/sh
# The last step inside the chroot: what a diskless client needs that its packages do not do alone.
# The files beside this script have been copied over the tree already, dracut's configuration too: it
# must stand before the kernel comes, whose installation writes the initramfs.
set -eu

# dracut writes the name that this boot was given into /run, and /run survives the switch to the real
# root. iscsid then logs in again under the name of this boot, not under one that all clients share.
ln -sf /run/initiatorname.iscsi /etc/iscsi/initiatorname.iscsi

# A root disk is waited for, never given up: after replacement_timeout its file system would see errors.
sed -i \
	-e 's/^\(node\.session\.timeo\.replacement_timeout =\).*/\1 86400/' \
	-e 's/^\(node\.conn\[0\]\.timeo\.noop_out_interval =\).*/\1 0/' \
	-e 's/^\(node\.conn\[0\]\.timeo\.noop_out_timeout =\).*/\1 0/' \
	/etc/iscsi/iscsid.conf

systemctl enable iscsid-root.service netroot-lab.service

# iscsid-root.service stands for the first two; the stop job of the third logs out of the root's session
# and waits for it.
systemctl mask iscsid.service iscsid.socket open-iscsi.service
# Unpacks the initramfs again at power-off, only to unmount a root that is read-only by then: 15 s.
systemctl mask dracut-shutdown.service
# What a test machine does without; under software emulation each unit costs a second.
systemctl mask \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
	e2scrub_reap.service systemd-pstore.service systemd-update-utmp.service \
	systemd-update-utmp-runlevel.service systemd-logind.service systemd-user-sessions.service \
	systemd-random-seed.service systemd-journal-flush.service systemd-binfmt.service \
	systemd-sysusers.service kmod-static-nodes.service getty@.service serial-getty@.service \
	getty-static.service dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount \
	sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount

# Each client draws its own.
rm -f /etc/machine-id /var/lib/dbus/machine-id
: >/etc/machine-id
: >/etc/fstab
echo netroot-lab >/etc/hostname

apt-get install --yes --no-install-recommends linux-image-cloud-amd64
