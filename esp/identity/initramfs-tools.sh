# Read by the initramfs's init before anything else: the list of what runs when the root is mounted gets
# one more line.
mkdir -p /scripts/init-bottom
echo '/scripts/init-bottom/netroot-identity "$@"' >>/scripts/init-bottom/ORDER
