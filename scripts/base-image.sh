#!/usr/bin/env bash
# Makes sure the base image is there; its name is the last line on stdout.
#   BASE_IMAGE (default debian:bookworm-slim) present -> that; else pulled; else, for the default only,
#   the same thing is made from Debian's packages as vaultcube/base:bookworm.
# Exit: 0; 3 it cannot be had here, and what to do; 1 making it failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/lib.sh
. ./lib.sh

readonly DEFAULT=debian:bookworm-slim
readonly LOCAL=vaultcube/base:bookworm
readonly SUITE=bookworm
readonly PULL_LIMIT_S=${BASE_IMAGE_PULL_LIMIT_S:-180}
# An empty setting means the default, as in compose's `${BASE_IMAGE:-...}`.
readonly WANTED=${BASE_IMAGE:-${VAULTCUBE_BASE_IMAGE:-$DEFAULT}}

present() { docker image inspect "$1" >/dev/null 2>&1; }

pull() {
    local why limit=(timeout "$PULL_LIMIT_S")
    # A Mac has no `timeout`; there Docker's own limits have to do.
    command -v timeout >/dev/null 2>&1 || limit=(env)
    say "pulling $WANTED (at most $PULL_LIMIT_S s)"
    if why=$("${limit[@]}" docker pull --quiet "$WANTED" 2>&1 >/dev/null); then return 0; fi
    note "cannot pull it: $(tail -n 1 <<<"${why:-no answer within $PULL_LIMIT_S s}" | cut -c 1-200)"
    return 1
}

ensure_mmdebstrap() {
    local wanted=()
    command -v mmdebstrap >/dev/null 2>&1 || wanted+=(mmdebstrap)
    # Ubuntu does not carry Debian's keys by default.
    [ -e "$DEBIAN_KEYRING" ] || wanted+=(debian-archive-keyring)
    ensure_packages "$WANTED cannot be pulled, and making it needs" \
        "or: docker load an image and set BASE_IMAGE to its name" "${wanted[@]}"
}

# What debian:bookworm-slim leaves out as well; copyright files stay, as their licences ask.
# The hook merges /usr itself; without it apt takes the package usrmerge, and with that 50 MB of perl.
# shellcheck disable=SC2016 # mmdebstrap's shell expands the hook's $1, the root being made
readonly SLIM=(
    '--dpkgopt=path-exclude=/usr/share/doc/*' '--dpkgopt=path-include=/usr/share/doc/*/copyright'
    '--dpkgopt=path-exclude=/usr/share/man/*' '--dpkgopt=path-exclude=/usr/share/info/*'
    '--dpkgopt=path-exclude=/usr/share/groff/*' '--dpkgopt=path-exclude=/usr/share/linda/*'
    '--dpkgopt=path-exclude=/usr/share/lintian/*' '--dpkgopt=path-exclude=/usr/share/locale/*'
    '--dpkgopt=path-include=/usr/share/locale/locale.alias'
    --dpkgopt=force-unsafe-io '--aptopt=Acquire::Languages "none"'
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr
    # This machine's name and resolver are no part of an image; the engine gives a container its own.
    '--customize-hook=rm -f "$1/etc/hostname" "$1/etc/resolv.conf"'
)

make_base() {
    local work tarball lines keyring runner=(mmdebstrap --mode=auto)
    ensure_mmdebstrap
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # the path of now
    trap "rm -rf -- '$work'" EXIT
    tarball=$work/base.tar
    lines=$(mirror_lines "$SUITE")
    say "making $LOCAL from Debian's packages (mmdebstrap, about half a minute)"
    if can_be_root; then runner=(as_root mmdebstrap --mode=root); fi
    while IFS= read -r keyring; do runner+=("--keyring=$keyring"); done < <(keyrings "$SUITE")
    "${runner[@]}" --variant=minbase "${SLIM[@]}" "$SUITE" "$tarball" ${lines:+-} < <(printf '%s\n' "$lines") >&2 ||
        die 1 "mmdebstrap could not make the base image" "see its message above: the Debian mirror must answer"
    docker import --change 'CMD ["bash"]' \
        --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --message "Debian $SUITE, minbase, by mmdebstrap" "$tarball" "$LOCAL" >/dev/null
}

command -v docker >/dev/null 2>&1 || die "$EXIT_REFUSED" "no docker command" "run scripts/engine.sh first"
engine_answers || die "$EXIT_REFUSED" "no Docker engine answers" "run scripts/engine.sh first"

base=$WANTED
if ! present "$WANTED"; then
    if [ "$WANTED" != "$DEFAULT" ]; then
        # Asked for by name: anything else in its place would be a surprise.
        pull || die "$EXIT_REFUSED" "the base image $WANTED is not here and cannot be pulled" \
            "docker load it, or unset BASE_IMAGE to use $DEFAULT"
    else
        base=$LOCAL
        if ! present "$LOCAL"; then
            if pull; then base=$WANTED; else make_base; fi
        fi
    fi
fi
say "base image: $base"
printf '%s\n' "$base"
