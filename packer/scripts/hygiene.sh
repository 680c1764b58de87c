#!/usr/bin/env bash
# Is anything of the build, or of one machine, left in an image?
#   hygiene.sh ROOT BUILD_USER ADMIN [KEYS]
# ROOT is where its root file system is mounted, read-only and untouched by a boot; KEYS a file with the public keys that
# may be in it. Every finding is a line `dirty: CHECK: what`; then `clean: N checks`, or `dirty: N findings`.
# Exit: 0 clean; 1 something is left; 2 ROOT is no root file system.
set -uo pipefail
shopt -s nullglob dotglob

root=${1%/} user=$2 admin=$3 keys=${4:-}
findings=0 checks=0

check() { checks=$((checks + 1)) name=$1; }
dirty() { findings=$((findings + 1)) && printf 'dirty: %s: %s\n' "$name" "$1"; }
# none PATH...: nothing may be at these paths (patterns were expanded by the caller).
none() { local path; for path; do if [ -e "$path" ] || [ -L "$path" ]; then dirty "${path#"$root"}"; fi; done; }
# empty_below PATH: no file below may hold anything.
empty_below() { local path; while IFS= read -r -d '' path; do dirty "${path#"$root"}"; done < <(find "$1" -type f -size +0 -print0 2>/dev/null); }
field() { awk -F: -v key="$2" -v number="$3" '$1 == key { print $number }' "$root/etc/$1" 2>/dev/null; }

if [ ! -f "$root/etc/passwd" ] || [ ! -f "$root/etc/shadow" ] || [ ! -d "$root/var/lib/dpkg" ]; then
    echo "hygiene.sh: $root is no root file system of Debian or Ubuntu that this user can read" >&2
    exit 2
fi

check build-user
for file in passwd shadow group gshadow subuid subgid passwd- shadow- group- gshadow- subuid- subgid-; do
    if grep -qE "(^|[:,])$user([:,]|\$)" "$root/etc/$file" 2>/dev/null; then dirty "/etc/$file names $user"; fi
done
none "$root/home/$user" "$root/var/mail/$user" "$root/var/spool/cron/crontabs/$user"
while IFS= read -r file; do dirty "${file#"$root"} names $user"; done < <(
    grep -rlwsI --exclude-dir=ssl -- "$user" "$root/etc/ssh" "$root/etc/sudoers" "$root/etc/sudoers.d" "$root/etc/cloud" \
        "$root/etc/vaultcube" "$root/var/lib/vaultcube")

check sudoers
while IFS= read -r line; do dirty "${line#"$root"}"; done < <(
    grep -rEs '^[^#]*NOPASSWD' "$root/etc/sudoers" "$root/etc/sudoers.d")

check passwords
while IFS=: read -r account password _; do
    case $password in
    "") dirty "$account has no password at all" ;;
    '!'* | '*'*) ;;
    *) [ "$account" = "$admin" ] || dirty "$account has a password" ;;
    esac
done <"$root/etc/shadow"
case $(field shadow root 2) in '!'* | '*'*) ;; *) dirty "root is not locked" ;; esac

check authorized-keys
for file in "$root"/root/.ssh/authorized_keys* "$root"/home/*/.ssh/authorized_keys* "$root"/etc/ssh/authorized_keys*; do
    if [ ! -s "$file" ]; then continue; fi
    if [ "$file" != "$root/home/$admin/.ssh/authorized_keys" ]; then
        dirty "${file#"$root"}"
    elif [ -n "$keys" ]; then
        while read -r type key _; do
            case $type in "" | '#'*) continue ;; esac
            grep -qF -- "$type $key" "$keys" || dirty "${file#"$root"} has a key that was not asked for: $type ${key:0:20}..."
        done <"$file"
    fi
done
none "$root"/root/.ssh/id_* "$root"/home/*/.ssh/id_* "$root"/root/.ssh/known_hosts* "$root"/home/*/.ssh/known_hosts*

check host-keys
none "$root"/etc/ssh/ssh_host_*

check machine-id
# Emptied, not deleted: without the file systemd takes every boot for a first one and enables units again.
if [ ! -f "$root/etc/machine-id" ]; then
    dirty "/etc/machine-id is not there"
elif [ -s "$root/etc/machine-id" ]; then
    dirty "/etc/machine-id is not empty"
fi
if [ ! -L "$root/var/lib/dbus/machine-id" ]; then none "$root/var/lib/dbus/machine-id"; fi
none "$root/etc/hostid" "$root/var/lib/systemd/random-seed" "$root/var/lib/systemd/credential.secret"
none "$root/var/lib/docker/engine-id" "$root/etc/docker/key.json"

check cloud-init
none "$root"/var/lib/cloud/*
if [ ! -f "$root/etc/cloud/cloud.cfg.d/90-vaultcube.cfg" ]; then dirty "/etc/cloud/cloud.cfg.d/90-vaultcube.cfg is not there"; fi

check network
none "$root/etc/netplan/50-cloud-init.yaml" "$root/etc/network/interfaces.d/50-cloud-init" "$root/etc/udev/rules.d/70-persistent-net.rules"
while IFS= read -r file; do dirty "${file#"$root"} names one card's address"; done < <(grep -rlEis '(macaddress|hwaddress|ATTR\{address\}).*([0-9a-f]{2}:){5}' "$root/etc/netplan" "$root/etc/network" "$root/etc/systemd/network" "$root/etc/udev/rules.d")
none "$root"/var/lib/dhcp/*.lease* "$root"/var/lib/dhclient/* "$root"/var/lib/NetworkManager/*.lease

check logs
empty_below "$root/var/log"
none "$root"/var/log/journal/* "$root/var/log/installer"
none "$root/var/lib/fail2ban/fail2ban.sqlite3"

check histories
none "$root"/root/.*_history "$root"/home/*/.*_history "$root"/root/.viminfo "$root"/home/*/.viminfo "$root"/root/.lesshst "$root"/home/*/.lesshst

check caches
none "$root"/var/cache/apt/archives/*.deb "$root"/var/cache/apt/archives/partial/* "$root"/var/cache/apt/*.bin
empty_below "$root/var/lib/apt/lists"
none "$root/root/.cache" "$root/root/.ansible" "$root"/home/*/.cache "$root"/home/*/.ansible

check temporary
none "$root"/tmp/* "$root"/var/tmp/* "$root"/var/crash/*

check secrets
# A signing key in an image would be the same on every box made from it.
none "$root"/var/lib/shim-signed/mok/*.priv "$root"/var/lib/dkms/*.key "$root/etc/ssl/private/ssl-cert-snakeoil.key"
while IFS= read -r file; do dirty "${file#"$root"} holds a private key"; done < <(
    grep -rlsE -e '-----BEGIN [A-Z ]*PRIVATE KEY-----' "$root/root" "$root/home" "$root/etc/vaultcube" "$root/var/lib/vaultcube")
none "$root/root/.netrc" "$root/root/.docker/config.json" "$root"/home/*/.docker/config.json "$root/root/.aws"

check build-settings
none "$root/etc/apt/apt.conf.d/01vaultcube-proxy" "$root/var/lib/vaultcube/rollback/layer1"
# Specifications of GPUs are written at boot, for the driver and the cards that are there.
none "$root"/etc/cdi/*

if [ "$findings" -gt 0 ]; then
    printf 'dirty: %d finding(s)\n' "$findings"
    exit 1
fi
printf 'clean: %d checks\n' "$checks"
