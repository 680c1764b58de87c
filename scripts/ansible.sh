#!/usr/bin/env bash
# Makes .venv-ansible from its hash lock, then runs COMMAND with its tools and the settings of ansible/ansible.cfg:
#   ansible.sh [COMMAND...]
#   ansible.sh ansible-playbook ansible/playbooks/site.yml -i ansible/inventories/box --tags layer1
# A second call installs nothing: a stamp holds the hash of the lock. PYTHON names the interpreter, as in venv.sh.
# Exit: COMMAND's own code; 3 no usable Python here; 1 the installation failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

readonly LOCK=requirements/ansible.txt
readonly ENVIRONMENT=.venv-ansible

hash_of() { { sha256sum 2>/dev/null <"$1" || shasum -a 256 <"$1"; } | cut -d' ' -f1; }

install_tools() {
    local wanted python
    wanted=$(hash_of "$LOCK")
    if [ "$(cat "$ENVIRONMENT/lock.sha256" 2>/dev/null)" = "$wanted" ] && "$ENVIRONMENT/bin/python" -c '' 2>/dev/null; then return; fi
    # The interpreter of .venv passed the checks of venv.sh: whatever is wrong with Python here is said there.
    scripts/venv.sh
    python=.venv/bin/python
    if ! "$ENVIRONMENT/bin/python" -c '' 2>/dev/null; then
        say "making $ENVIRONMENT"
        rm -rf "$ENVIRONMENT"
        "$python" -m venv "$ENVIRONMENT"
    fi
    say "installing Ansible ($LOCK, about 60 MB)"
    "$ENVIRONMENT/bin/python" -m pip install --disable-pip-version-check --quiet --no-deps --only-binary :all: \
        --require-hashes -r "$LOCK" >&2 ||
        die 1 "pip could not install $LOCK" "see pip's own message above; behind a private CA set PIP_CERT to its bundle"
    printf '%s' "$wanted" >"$ENVIRONMENT/lock.sha256"
}

# Two calls at once must not install into one environment. Another descriptor than venv.sh's, on another file.
mkdir -p "$ENVIRONMENT"
if command -v flock >/dev/null 2>&1; then
    exec 8<"$ENVIRONMENT"
    flock 8
fi
install_tools
exec 8<&-

export ANSIBLE_CONFIG=$PWD/ansible/ansible.cfg PATH=$PWD/$ENVIRONMENT/bin:$PATH
if [ "$#" -gt 0 ]; then exec "$@"; fi
