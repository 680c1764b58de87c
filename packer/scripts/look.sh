#!/usr/bin/env bash
# Mounts an image's disk, attached to this machine as virtio-SERIAL, for reading, and runs hygiene.sh on it.
#   look.sh SERIAL BUILD_USER ADMIN KEYS
# Nothing is written to it, not even its journal is replayed. Exit: as hygiene.sh; 2 there is no root file system on it.
set -euo pipefail
shopt -s nullglob

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(mktemp -d)
trap 'umount "$root" 2>/dev/null || true; rmdir "$root"' EXIT

# Attached a moment ago: its partitions appear when udev has seen them.
for _ in $(seq 60); do
    udevadm settle
    parts=("/dev/disk/by-id/virtio-$1"-part*)
    if [ "${#parts[@]}" -gt 0 ]; then break; fi
    sleep 1
done
for part in "${parts[@]}"; do
    mount -o ro,noload "$part" "$root" 2>/dev/null || continue
    if [ -f "$root/etc/passwd" ]; then
        code=0
        bash "$here/hygiene.sh" "$root" "$2" "$3" "$4" || code=$?
        exit "$code"
    fi
    umount "$root"
done
echo "look.sh: no root file system on any of: ${parts[*]:-no partition}" >&2
exit 2
