#!/bin/sh
[ "${1:-}" != prereqs ] || exit 0
exec /bin/sh /netroot/identity/apply "${rootmnt:-/root}"
