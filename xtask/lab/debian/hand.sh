#!/bin/sh
# Runs inside of an image that the laboratory will boot, after the files of hand/ were copied into it.
set -eu
systemctl enable netroot-lab.service
# The console is the laboratory's.
systemctl mask serial-getty@ttyS0.service
