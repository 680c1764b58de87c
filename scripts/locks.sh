#!/usr/bin/env bash
# Resolves every lock again: the package's (requirements/) and each image flavour's (images/*/requirements/).
# A lock carries hashes for every platform and no index address: where packages come from is the machine's business.
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

lock 3.11 requirements/base.txt pyproject.toml
# The tools must run on the very runtime versions that ship.
lock 3.11 requirements/dev.txt pyproject.toml --extra dev --constraint requirements/base.txt
for source in images/*/requirements/*.in; do
    [ -e "$source" ] || continue
    # Ubuntu 22.04 bases carry Python 3.10.
    lock 3.10 "${source%.in}.txt" "$source"
done
