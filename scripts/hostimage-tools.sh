#!/usr/bin/env bash
# Makes sure that host images can be built here: QEMU, Packer, a maker of ISO images, SSH. Does nothing when they are there.
# Exit: 0; 3 this machine cannot install them, and what to install; 1 apt failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/lib.sh
. ./lib.sh

has() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null 2>&1; }

if [ "$(uname -s)" = Darwin ]; then
    missing=()
    for pair in qemu-img:qemu packer:hashicorp/tap/packer; do has "${pair%%:*}" || missing+=("${pair#*:}"); done
    [ "${#missing[@]}" -eq 0 ] || die "$EXIT_REFUSED" "host images need ${missing[*]}" "brew install ${missing[*]}"
    exit 0
fi
wanted=()
has qemu-system-x86_64 || wanted+=(qemu-system-x86)
has qemu-img || wanted+=(qemu-utils)
has xorriso || has mkisofs || has genisoimage || wanted+=(genisoimage)
has ssh || wanted+=(openssh-client)
has openssl || wanted+=(openssl)
if ! has packer; then
    # Debian 12 has 1.6.6, which builds; Debian 13 and Ubuntu have none.
    [ "$(os_kind)" = debian12 ] || die "$EXIT_REFUSED" "packer is not installed, and $(os_name) has no package of it" \
        "install it from HashiCorp (https://developer.hashicorp.com/packer/install), then run: packer init packer/plugins"
    wanted+=(packer)
fi
ensure_packages "building host images needs" "" "${wanted[@]}"
# From 1.7 on the plug-ins are not in it. Those that are there already cost nothing.
version=$(CHECKPOINT_DISABLE=1 packer version | sed -n '1s/[^0-9]*\([0-9.]*\).*/\1/p')
if version_at_least "$version" 1.7; then packer init ../packer/plugins >&2; fi
