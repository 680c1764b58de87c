#!/usr/bin/env bash
# Makes a Debian disk that stands in for Ubuntu's cloud image, where that cannot be fetched: the same boot (GRUB, cloud-init,
# netplan, an SSH server, no password, no key), so the same Packer template builds on it.
#   standin-image.sh [FILE]      default .cache/hostimage/standin-bookworm.qcow2
# Does nothing when FILE is there already. Its SHA-256 is the last line on stdout.
# Exit: 0; 3 this machine cannot, and what it needs; 1 making it failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

readonly FILE=${1:-.cache/hostimage/standin-bookworm.qcow2}
readonly SUITE=bookworm
readonly SIZE=3G
# What Debian's own cloud images are made of: netplan over networkd, as on Ubuntu, so cloud-init takes the same paths.
readonly PACKAGES=linux-image-cloud-amd64,grub-pc,systemd-sysv,systemd-resolved,libnss-resolve,dbus,udev,netplan.io,iproute2,openssh-server,cloud-init,cloud-guest-utils,fdisk,e2fsprogs,sudo,ca-certificates,python3,apt-utils,locales,less

ensure_tools() {
    local wanted=() pair
    for pair in mmdebstrap:mmdebstrap qemu-img:qemu-utils sfdisk:fdisk mkfs.ext4:e2fsprogs losetup:mount partx:util-linux; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null 2>&1 || wanted+=("${pair#*:}")
    done
    [ -e "$DEBIAN_KEYRING" ] || wanted+=(debian-archive-keyring)
    ensure_packages "making a Debian disk needs" "" "${wanted[@]}"
}

# The parts that are run as root, in a mount namespace of their own: whatever happens, nothing stays mounted.
# shellcheck disable=SC2016 # the inner shell expands them
readonly AS_ROOT='
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
work=$1 suite=$2 packages=$3 lines=$4
shift 4
device="" made=()
finish() {
    mountpoint -q "$work/root" && umount -R "$work/root"
    for one in "${made[@]}"; do rm -f "$one"; done
    if [ -n "$device" ]; then losetup -d "$device"; fi
}
trap finish EXIT
# Partition 1 is the root and the last one on the disk, so that it can grow; 14 is for GRUB, as on Ubuntu.
sfdisk --quiet "$work/disk.raw" <<TABLE
label: gpt
14 : start=2048, size=8192, type=21686148-6449-6E6F-744E-656564454649
1 : start=10240, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
TABLE
device=$(losetup --find --show --partscan "$work/disk.raw")
# A kernel that reads no partition tables is told of them.
[ -e "/sys/class/block/${device#/dev/}p1" ] || partx --add "$device"
# Where no udev makes the devices of partitions (a container), they are made here and removed again.
for number in 1 14; do
    one=${device}p$number
    if [ ! -b "$one" ]; then
        IFS=: read -r major minor <"/sys/class/block/${one#/dev/}/dev"
        mknod "$one" b "$major" "$minor"
        made+=("$one")
    fi
done
part=${device}p1
mkfs.ext4 -q -L cloudimg-rootfs "$part"
mkdir -p "$work/root"
mount "$part" "$work/root"
printf "%s\n" "$lines" | mmdebstrap --mode=root --variant=minbase --include="$packages" \
    --aptopt="Acquire::Languages \"none\"" --dpkgopt=path-exclude=/usr/share/man/* --dpkgopt=force-unsafe-io \
    "$@" "$suite" "$work/root" ${lines:+-}
root=$work/root
printf "LABEL=cloudimg-rootfs / ext4 defaults,discard,errors=remount-ro 0 1\n" >"$root/etc/fstab"
echo localhost >"$root/etc/hostname"
: >"$root/etc/machine-id"
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
mkdir -p "$root/etc/default/grub.d"
# A serial console, so that a boot that hangs can be read.
cat >"$root/etc/default/grub.d/50-cloudimg.cfg" <<GRUB
GRUB_CMDLINE_LINUX_DEFAULT="console=tty1 console=ttyS0"
GRUB_TERMINAL=console
GRUB_TIMEOUT=0
GRUB_DISABLE_OS_PROBER=true
GRUB
for mount in dev proc sys; do mount --rbind "/$mount" "$root/$mount"; mount --make-rslave "$root/$mount"; done
printf "grub-pc grub-pc/install_devices_empty boolean true\ngrub-pc grub-pc/install_devices multiselect \n" |
    chroot "$root" debconf-set-selections
chroot "$root" grub-install --target=i386-pc --no-nvram "$device"
chroot "$root" update-grub
# It found no name by UUID, since no udev made one, and wrote the name that the disk has on this machine.
sed -i "s|root=$part |root=UUID=$(blkid -s UUID -o value "$part") |" "$root/boot/grub/grub.cfg"
if grep -q "$device" "$root/boot/grub/grub.cfg"; then echo "grub.cfg names $device" && exit 1; fi
umount -R "$root"
e2fsck -fp "$part" >/dev/null || [ $? -le 1 ]
'

make_image() {
    local work lines keyring arguments=()
    ensure_tools
    can_be_root || die "$EXIT_REFUSED" "making a disk needs root, or sudo" "run this as root once; the result is kept"
    mkdir -p "$(dirname "$FILE")"
    work=$(realpath "$(mktemp -d "$(dirname "$FILE")/standin.XXXXXX")")
    # shellcheck disable=SC2064 # the path of now
    trap "as_root rm -rf -- '$work'" EXIT
    truncate -s "$SIZE" "$work/disk.raw"
    lines=$(mirror_lines "$SUITE")
    while IFS= read -r keyring; do arguments+=("--keyring=$keyring"); done < <(keyrings "$SUITE")
    say "making a Debian $SUITE disk that stands in for Ubuntu's cloud image (a minute or two)"
    as_root unshare --mount bash -c "$AS_ROOT" standin "$work" "$SUITE" "$PACKAGES" "$lines" "${arguments[@]}" >&2 ||
        die 1 "the stand-in could not be made" "see the messages above: the Debian mirror and loop devices are needed"
    qemu-img convert -O qcow2 "$work/disk.raw" "$work/disk.qcow2"
    mv "$work/disk.qcow2" "$FILE"
}

if [ ! -e "$FILE" ]; then make_image; fi
sha256sum "$FILE" | cut -d' ' -f1
