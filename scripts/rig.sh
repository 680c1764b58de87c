#!/usr/bin/env bash
# Makes sure that the simulated box of tests/rig can be built and run here: a C compiler, and ip for its network namespace.
# Does nothing where there is no Linux: the rig's tests say so themselves.
# Exit: 0; 3 this user cannot install, and what to install; 1 apt failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/lib.sh
. ./lib.sh

[ "$(uname -s)" = Linux ] || exit 0
wanted=()
command -v cc >/dev/null 2>&1 || wanted+=(gcc)
# The headers come with it only when recommended packages do.
[ -e "${LIBC_HEADER:-/usr/include/stdlib.h}" ] || wanted+=(libc6-dev)
command -v ip >/dev/null 2>&1 || [ -x /sbin/ip ] || wanted+=(iproute2)
ensure_packages "the simulated box of the tests needs" "" "${wanted[@]}"
