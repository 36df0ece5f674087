#!/bin/sh
# Gives the root at $1 the identity that lies beside this script, before anything of that root runs.
# What somebody has set in a root that lasts stays: only what is missing is written there, and what came
# from here and has another value now. Copies in var/lib/netroot/identity tell which that is. A root that
# is as the image has it at every boot gets all of it.
set -u
umask 022
from=${0%/*}
root=$1
kept=$root/var/lib/netroot/identity

# Linux shows the secrets of the firmware's table (iBFT) to everybody (iscsi_ibft.c, ibft_attr_is_visible:
# S_IRUGO), and nobody but root has to read them again.
chmod 0400 /sys/firmware/ibft/target*/*secret* 2>/dev/null || :

first_line() {
	line=
	[ ! -r "$1" ] || IFS= read -r line <"$1" || :
}

# Whether the file $1 of the root may be written: $2 is what was written there last.
is_ours() {
	[ ! -e "$from/pristine" ] || return 0
	first_line "$root/$1"
	now=$line
	case $now in '' | uninitialized | localhost) return 0 ;; esac
	first_line "$kept/$2"
	[ "$now" = "$line" ]
}

if ! mkdir -p "$kept" "$root/etc/ssh" 2>/dev/null || ! cp "$from/machine-id" "$kept/.writable" 2>/dev/null; then
	echo "netroot: the root cannot be written to, so this machine has the identity of its image" >&2
	exit 0
fi
rm -f "$kept/.writable"

for name in hostname machine-id; do
	# The image's own host name is nobody's choice for this machine.
	[ "$name" = hostname ] && [ ! -e "$kept/$name" ] || is_ours "etc/$name" "$name" || continue
	cp "$from/$name" "$root/etc/$name"
	cp "$from/$name" "$kept/$name"
done

for key in "$from"/ssh/*.pub; do
	name=${key##*/}
	private=${name%.pub}
	[ ! -e "$root/etc/ssh/$private" ] || is_ours "etc/ssh/$name" "$name" || continue
	# The mode before the content: cp keeps that of a file which is there.
	rm -f "$root/etc/ssh/$private"
	(umask 077 && cp "$from/ssh/$private" "$root/etc/ssh/$private")
	cp "$key" "$root/etc/ssh/$name"
	cp "$key" "$kept/$name"
done

# Keys that may log in as root stand between two lines; what is outside of them is nobody's business here.
keys=$root/root/.ssh/authorized_keys
if [ -s "$from/authorized_keys" ] || [ -e "$kept/authorized_keys" ]; then
	(
		umask 077
		mkdir -p "$root/root/.ssh"
		inside=
		if [ -r "$keys" ]; then
			while IFS= read -r line || [ -n "$line" ]; do
				case $line in
				'# netroot: begin') inside=yes ;;
				'# netroot: end') inside= ;;
				*) [ -n "$inside" ] || printf '%s\n' "$line" ;;
				esac
			done <"$keys"
		fi >"$keys.new"
		{
			echo '# netroot: begin'
			while IFS= read -r line; do printf '%s\n' "$line"; done <"$from/authorized_keys"
			echo '# netroot: end'
		} >>"$keys.new"
		mv -f "$keys.new" "$keys"
	)
	cp "$from/authorized_keys" "$kept/authorized_keys"
fi

# The name that iscsid logs in again under. dracut writes it where it was told one.
[ -s /run/initiatorname.iscsi ] || cp "$from/initiatorname.iscsi" /run/initiatorname.iscsi
exit 0
