#!/usr/bin/env bash
# Waits until the guest's first boot is over: cloud-init is done and apt is free. Run by Packer as root.
# Exit: 0; 1 cloud-init failed, or this is no image that Ansible can provision.
set -euo pipefail

# 2 is "done, with warnings" in newer releases.
code=0
cloud-init status --wait >/dev/null || code=$?
if [ "$code" -ne 0 ] && [ "$code" -ne 2 ]; then
    tail -n 20 /var/log/cloud-init-output.log
    echo "error: cloud-init failed: $(cloud-init status --long | tr '\n' ' ' | tail -c 600)"
    exit 1
fi
# A fresh cloud image updates its lists by itself, and Ansible would meet the lock. This waits for one that is under way.
systemctl stop apt-daily.timer apt-daily-upgrade.timer apt-daily.service apt-daily-upgrade.service 2>/dev/null || true
command -v python3 >/dev/null || { echo "error: there is no python3 in this image, and Ansible needs it" && exit 1; }
# shellcheck source=/dev/null
. /etc/os-release
echo "$PRETTY_NAME, kernel $(uname -r), $(df -h --output=avail / | tail -n 1 | tr -d ' ') free on /"
