#!/usr/bin/env bash
# Resolves every lock again: the package's and Ansible's (requirements/), and each image flavour's (images/*/requirements/).
# A lock carries hashes for every platform and no index address: where packages come from is the machine's business.
# A line `#: WORD VALUE` in an .in is for this script:
#   python VERSION                  the oldest Python of the lock (3.10 without it)
#   override REQUIREMENT            whatever packages ask for instead
#   exclude NAME                    leave it out, whoever asks for it
#   hash NAME==VERSION sha256:HEX   of one more file that may be installed, which is in no index
#
#   locks.sh            newest versions that the bounds allow
#   locks.sh --keep     keep locked versions, resolve only what changed
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

UV=${UV:-.venv/bin/uv}
[ -x "$UV" ] || die "$EXIT_REFUSED" "uv is not in the virtual environment" "run: make setup"

# uv does not read pip's settings: hand over a configured index and CA bundle.
index=$(.venv/bin/python -m pip config get global.index-url 2>/dev/null || true)
if [ -n "$index" ]; then export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$index}; fi
if [ -n "${PIP_CERT:-}" ]; then export SSL_CERT_FILE=${SSL_CERT_FILE:-$PIP_CERT}; fi

case ${1:-} in
"") mode=--upgrade ;;
--keep) mode= ;;
*) die 2 "locks.sh: unknown option '$1'" "locks.sh, or locks.sh --keep" ;;
esac

# lock PYTHON OUT ARGUMENT...
lock() {
    local python=$1 out=$2
    shift 2
    say "locking $out (Python >= $python)"
    "$UV" pip compile --quiet --no-config --universal --python-version "$python" --generate-hashes \
        --no-emit-index-url --no-emit-find-links --custom-compile-command "make locks" \
        ${mode:+"$mode"} --output-file "$out" "$@" >/dev/null
    if grep -nE '^ *(--(extra-)?index-url|--find-links|[^#]*https?://)' "$out" >&2; then
        die 1 "$out names an address" "a lock must not: see the lines above"
    fi
}

# told IN WORD: the values of its `#: WORD VALUE` lines, one a line.
told() { sed -n "s/^#: $2 //p" "$1"; }

# add_hash LOCK NAME==VERSION HASH: put it before the hashes that are there.
add_hash() {
    # uv keeps what a lock has.
    if grep -q "$3" "$1"; then return; fi
    awk -v pin="$2" -v hash="$3" '
        { print }
        $1 == pin { print "    --hash=" hash " \\"; found = 1 }
        END { exit !found }
    ' "$1" >"$1.new" || die 1 "$1 does not pin $2" "correct the line '#: hash' of its .in"
    mv "$1.new" "$1"
}

# lock_image IN: the lock beside it.
lock_image() {
    local out=${1%.in}.txt python pin hash
    # Ubuntu 22.04 bases carry Python 3.10.
    python=$(told "$1" python)
    lock "${python:-3.10}" "$out" "$1" --override <(told "$1" override) --excludes <(told "$1" exclude)
    while read -r pin hash; do add_hash "$out" "$pin" "$hash"; done < <(told "$1" hash)
}

lock 3.11 requirements/base.txt pyproject.toml
# The tools must run on the very runtime versions that ship.
lock 3.11 requirements/dev.txt pyproject.toml --extra dev --constraint requirements/base.txt
lock 3.11 requirements/ansible.txt requirements/ansible.in
# In the order of the alphabet: vllm, which takes the versions of pytorch, comes after it.
for source in images/*/requirements/*.in; do
    [ -e "$source" ] || continue
    lock_image "$source"
done
