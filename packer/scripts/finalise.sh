#!/usr/bin/env bash
# Makes an image of a provisioned machine: what belongs to this one machine, or to the build, is taken out. Run by Packer
# as root, in this order:
#   finalise.sh inventory FILE USER  what the manifest and the list of materials are made from, as a tar that USER may read
#   finalise.sh clean USER           everything that can go while USER is still logged in
#   finalise.sh last USER            USER itself, logs and histories; then it switches the machine off
# hygiene.sh says afterwards, on the disk, whether all of it is gone.
set -euo pipefail
shopt -s nullglob

inventory() {
    local work=/var/tmp/inventory
    rm -rf "$work" && mkdir -p "$work/etc" "$work/var/lib/dpkg" "$work/var/lib/apt" "$work/vaultcube"
    cp -L /etc/os-release "$work/etc/os-release"
    cp /var/lib/dpkg/status "$work/var/lib/dpkg/"
    if [ -e /var/lib/apt/extended_states ]; then cp /var/lib/apt/extended_states "$work/var/lib/apt/"; fi
    dpkg-query -W -f '${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n' >"$work/vaultcube/packages.txt"
    # The kernels that the boot loader offers; the newest is the one it takes.
    for kernel in /boot/vmlinuz-*; do printf '%s\n' "${kernel#/boot/vmlinuz-}"; done | sort -V >"$work/vaultcube/kernels.txt"
    cp /etc/vaultcube/*.json "$work/vaultcube/"
    # What the image's health is judged by is judged again at sign-off; here it is only kept.
    /usr/local/bin/vaultcube-health --json >"$work/vaultcube/health.json" || true
    tar -C "$work" -cf "$1" etc var vaultcube
    chown "$2" "$1"
    chmod 0600 "$1"
    rm -rf "$work"
}

# cloud-init stays and makes each machine its own: keys, growing the disk, what a seed says.
settings_of_images() {
    mkdir -p /etc/cloud/cloud.cfg.d
    cat >/etc/cloud/cloud.cfg.d/90-vaultcube.cfg <<'CFG'
# Of the host image (packer/scripts/finalise.sh).
# A seed on a disk or stick named cidata, or none: no address of a network is asked for settings.
datasource_list: [NoCloud, None]
# No user but those of the image and of the seed: the default one would have sudo without a password.
users: []
disable_root: true
ssh_pwauth: false
ssh_deletekeys: true
# The role common has set it.
locale: false
# The network is /etc/netplan/60-vaultcube.yaml; cloud-init would pin it to the first card it sees.
network: {config: disabled}
CFG
    # Without a seed too: the disk has to grow.
    echo "policy: search,found=all,maybe=all,notfound=enabled" >/etc/cloud/ds-identify.cfg
    rm -f /etc/netplan/50-cloud-init.yaml /etc/network/interfaces.d/50-cloud-init /etc/udev/rules.d/70-persistent-net.rules
    mkdir -p /etc/netplan
    cat >/etc/netplan/60-vaultcube.yaml <<'CFG'
# Of the host image: every wired card asks for an address.
network:
  version: 2
  ethernets:
    wired:
      match: {name: "e*"}
      dhcp4: true
CFG
    chmod 0600 /etc/netplan/60-vaultcube.yaml
    # One card with an address is enough, and a boot without any goes on; else a second, empty socket costs two minutes.
    mkdir -p /etc/systemd/system/systemd-networkd-wait-online.service.d
    cat >/etc/systemd/system/systemd-networkd-wait-online.service.d/50-vaultcube.conf <<'CFG'
# Of the host image.
[Service]
ExecStart=
ExecStart=-/lib/systemd/systemd-networkd-wait-online --any --timeout=30
CFG
}

# The roles let the build user in beside the administrator; from now on they do not.
forget_ssh_user() {
    local file
    for file in /etc/ssh/sshd_config.d/*.conf; do
        sed -i -E "/^[[:space:]]*allowusers[[:space:]]/I s/[[:space:]]+$1([[:space:]]|\$)/\\1/" "$file"
    done
    if [ -e /etc/vaultcube/host.json ]; then
        python3 - "$1" <<'PYTHON'
import json
import sys
from pathlib import Path

path = Path("/etc/vaultcube/host.json")
host = json.loads(path.read_text())
settings = host["ssh"]["settings"]
settings["allowusers"] = " ".join(name for name in settings["allowusers"].split() if name != sys.argv[1])
path.write_text(json.dumps(host, indent=2) + "\n")
PYTHON
    fi
    sshd -t
}

clean() {
    settings_of_images
    forget_ssh_user "$1"
    # --machine-id would write "uninitialized", and systemd would enable every unit again: it is emptied below instead.
    cloud-init clean --logs --seed
    rm -rf /var/lib/cloud/*
    : >/etc/machine-id
    rm -f /var/lib/dbus/machine-id /etc/ssh/ssh_host_* /etc/ssl/private/ssl-cert-snakeoil.key
    # What tells machines apart beside that, or must be random on each.
    rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /etc/hostid
    rm -rf /var/lib/dhcp/* /var/lib/NetworkManager/* /var/lib/systemd/network/* /var/lib/fail2ban/fail2ban.sqlite3
    systemctl stop docker.service docker.socket containerd.service fail2ban.service 2>/dev/null || true
    rm -f /var/lib/docker/engine-id /etc/docker/key.json
    # The proxy of the build is no proxy of the box.
    rm -f /etc/apt/apt.conf.d/01vaultcube-proxy
    # It holds the way in of the build. An image is taken back by writing the one before it.
    rm -rf /var/lib/vaultcube/rollback/layer1
    apt-get clean
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/man/* /var/crash/* /var/lib/update-notifier/*
    rm -rf /root/.ssh /root/.cache /root/.ansible /home/*/.cache /home/*/.ansible
    sync
}

last() {
    # The machine must go off, whatever fails: what is left over, hygiene.sh finds.
    set +e
    # No more writers; what they say from here on is lost, as it should be.
    systemctl stop systemd-journald.socket systemd-journald-dev-log.socket systemd-journald-audit.socket \
        systemd-journald.service rsyslog.service syslog.socket unattended-upgrades.service cron.service 2>/dev/null || true
    # Its session is still open: --force. Its home goes with it.
    userdel --force --remove "$1" 2>/dev/null || true
    if getent passwd "$1" >/dev/null; then echo "the user $1 cannot be removed" >&2; fi
    groupdel "$1" 2>/dev/null || true
    rm -rf "/home/${1:?}" "/var/mail/$1" "/var/spool/mail/$1" /etc/sudoers.d/90-cloud-init-users
    rm -f /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- /etc/subuid- /etc/subgid-
    rm -f /root/.*_history /home/*/.*_history /root/.viminfo /home/*/.viminfo /root/.lesshst /home/*/.lesshst /root/.wget-hsts
    rm -rf /var/log/journal/* /var/log/installer /var/log/unattended-upgrades/*
    find /var/log -type f \( -name '*.gz' -o -name '*.[0-9]' -o -name '*.old' -o -name 'cloud-init*' \) -delete
    find /var/log -type f -exec truncate --size 0 {} +
    find /tmp /var/tmp -mindepth 1 -delete
    : >/etc/machine-id
    sync
    fstrim --all || true
    # Not the long way down: units that stop would write again.
    systemctl poweroff --force
}

case ${1:-} in
inventory) inventory "$2" "$3" ;;
clean) clean "$2" ;;
last) last "$2" ;;
*) echo "usage: finalise.sh inventory FILE USER | clean USER | last USER" >&2 && exit 2 ;;
esac
