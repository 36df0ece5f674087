#!/bin/sh
# Runs inside of a Debian that is to be installed on a disk, after the files of tree/ were copied into it. It
# does what an admin does before such a disk is imported (README, “From a disk that was made elsewhere”).
set -eu

# A root disk is waited for. After a lost connection iscsid logs in again, which open-iscsi.service has woken.
sed -i \
	-e 's/^\(node\.session\.timeo\.replacement_timeout =\).*/\1 86400/' \
	-e 's/^\(node\.conn\[0\]\.timeo\.noop_out_interval =\).*/\1 0/' \
	-e 's/^\(node\.conn\[0\]\.timeo\.noop_out_timeout =\).*/\1 0/' \
	/etc/iscsi/iscsid.conf
update-initramfs -u

# What grub-install makes, which asks for the disk that it installs on.
image() {
	grub-mkimage --format "$1" --output "/boot/grub/$2" --config /boot/grub/image.cfg --prefix /boot/grub \
		part_gpt ext2 normal configfile search search_label linux echo $3
}
image i386-pc core.img biosdisk
image x86_64-efi bootx64.efi ''
