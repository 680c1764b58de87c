#!/usr/bin/env bash
# Makes .venv in the checkout: the tools from the hash lock, then the package itself, editable.
# Quick when nothing changed: a stamp in .venv holds the hash of what it was made from.
# PYTHON names the interpreter to use; otherwise the first of python3, python3.11, ... that is new enough.
# Exit: 0; 3 no usable Python here, and what to install; 1 the installation failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

readonly LOCK=requirements/dev.txt
readonly MINIMUM=3.11

python_version() {
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

# find_python: the interpreter's name on stdout. A shim that is in PATH but runs nothing is passed over.
find_python() {
    local name version seen=""
    for name in ${PYTHON:+"$PYTHON"} python3 python3.11 python3.12 python3.13 python3.14; do
        version=$(python_version "$name") || continue
        if version_at_least "$version" "$MINIMUM"; then
            printf '%s' "$name"
            return
        fi
        seen="$seen, $name is $version"
    done
    die "$EXIT_REFUSED" "Python $MINIMUM or newer is needed (${seen#, }${seen:+; }none in PATH is new enough)" \
        "Debian 12/13, Ubuntu 24.04: sudo apt-get install python3 python3-venv; a Mac: brew install python" \
        "or name one: make setup PYTHON=/path/to/python3"
}

# Debian and Ubuntu split the part that makes virtual environments off into a package.
ensure_venv_module() {
    local python=$1 package
    "$python" -c 'import ensurepip, venv' 2>/dev/null && return
    package="python$(python_version "$python")-venv"
    if ! command -v apt-get >/dev/null 2>&1 || ! can_be_root; then
        die "$EXIT_REFUSED" "$python cannot make virtual environments (its module ensurepip is missing)" \
            "sudo apt-get install $package"
    fi
    say "installing $package"
    as_root apt-get update -q >&2 || note "apt-get update was not clean; going on with what it has"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "$package" >&2 || die 1 "apt could not install $package" "see apt's own message above"
}

hash_of() {
    cat -- "$@" | { sha256sum 2>/dev/null || shasum -a 256; } | cut -d' ' -f1
}

# is_current STAMP HASH
is_current() { [ "$(cat ".venv/$1" 2>/dev/null)" = "$2" ]; }

# The directory itself is the lock: two makes at once must not install into one .venv.
if command -v flock >/dev/null 2>&1; then
    exec 9<.
    flock 9
fi

lock_hash=$(hash_of "$LOCK")
package_hash=$(hash_of pyproject.toml orchestrator/vaultcube/__init__.py)

if ! .venv/bin/python -c '' 2>/dev/null; then
    python=$(find_python)
    ensure_venv_module "$python"
    say "making .venv with $python ($(python_version "$python"))"
    rm -rf .venv
    "$python" -m venv .venv
fi
if ! is_current lock.sha256 "$lock_hash"; then
    say "installing the locked tools ($LOCK)"
    .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off --no-deps --only-binary :all: --require-hashes -r "$LOCK" >&2 ||
        die 1 "pip could not install $LOCK" "see pip's own message above; behind a private CA set PIP_CERT to its bundle"
    printf '%s' "$lock_hash" >.venv/lock.sha256
fi
if ! is_current package.sha256 "$package_hash"; then
    say "installing vaultcube itself, editable"
    .venv/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e . >&2 ||
        die 1 "pip could not install the package" "see pip's own message above"
    printf '%s' "$package_hash" >.venv/package.sha256
fi
say "virtual environment: .venv ($(.venv/bin/python --version))"
