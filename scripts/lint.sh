#!/usr/bin/env bash
# Every static check, or those named: lint.sh [ruff|format|mypy|imports|hadolint|shellcheck|yamllint|compose|ansible]...
# All of them run even when one fails; the exit code is 1 then. Tools come from the dev lock in .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

readonly ALL=(ruff format mypy imports hadolint shellcheck yamllint compose ansible)
readonly BIN=.venv/bin

# run_on PATTERNS -- COMMAND...: the command with all files git knows or would add.
run_on() {
    local patterns=() here=() file
    while [ "$1" != -- ]; do patterns+=("$1") && shift; done
    shift
    while IFS= read -r -d '' file; do
        # A file deleted but still in the index is no longer there to check.
        if [ -e "$file" ]; then here+=("$file"); fi
    done < <(git ls-files -z --cached --others --exclude-standard --deduplicate -- "${patterns[@]}")
    [ "${#here[@]}" -gt 0 ] || { note "no file matches ${patterns[*]}" && return 1; }
    "$@" "${here[@]}"
}

check_ruff() { "$BIN/ruff" check .; }
check_format() { "$BIN/ruff" format --check .; }
check_imports() { "$BIN/lint-imports" --no-logo; }
check_hadolint() { run_on '*Dockerfile' '*.Dockerfile' -- "$BIN/hadolint"; }
check_shellcheck() { run_on '*.sh' .ci/run -- "$BIN/shellcheck"; }
check_yamllint() { run_on '*.yml' '*.yaml' .yamllint -- "$BIN/yamllint" --strict; }

# Three worlds: the package (pyproject.toml says what), each image's programs, the tests. An image's
# framework is not installed here, so what it hands out is taken as it comes.
check_mypy() {
    local failed=0 image init packages
    "$BIN/mypy" || failed=1
    for image in images/*/; do
        packages=()
        for init in "$image"*/__init__.py; do
            if [ -e "$init" ]; then packages+=(-p "$(basename "$(dirname "$init")")"); fi
        done
        if [ "${#packages[@]}" -eq 0 ]; then continue; fi
        MYPYPATH=orchestrator:images:${image%/} "$BIN/mypy" --explicit-package-bases --ignore-missing-imports \
            -p common -p training "${packages[@]}" || failed=1
    done
    MYPYPATH=orchestrator:images:images/pytorch:images/vllm:images/tensorflow "$BIN/mypy" --explicit-package-bases --ignore-missing-imports tests || failed=1
    return "$failed"
}

# A GPU-less or measuring file only means something on top of the file it changes; the recorder also stands beside each
# workload, and the proxy in front of a service.
check_compose() {
    local file failed=0
    for file in compose/*.yml; do
        case $file in
        *.cpu.yml) docker compose -f "${file%.cpu.yml}.yml" -f "$file" config -q || failed=1 ;;
        *.bench.yml)
            docker compose -f "${file%.bench.yml}.yml" -f "$file" -f compose/proxy.yml -f compose/recorder.yml config -q || failed=1
            docker compose -f "${file%.bench.yml}.yml" -f "${file%.bench.yml}.cpu.yml" -f "$file" config -q || failed=1
            ;;
        # stress.yml has the recorder in it.
        */recorder.yml | */proxy.yml | */stress.yml) docker compose -f "$file" config -q || failed=1 ;;
        *)
            docker compose -f "$file" config -q || failed=1
            docker compose -f "$file" -f compose/recorder.yml config -q || failed=1
            ;;
        esac
    done
    return "$failed"
}

# From its own environment. The bundle's collections are all there is: no server is asked.
check_ansible() {
    local playbook failed=0
    scripts/ansible.sh
    for playbook in ansible/playbooks/*.yml; do
        scripts/ansible.sh ansible-playbook --syntax-check -i ansible/inventories/local "$playbook" >/dev/null || failed=1
    done
    scripts/ansible.sh ansible-lint --offline --strict -q -c ansible/.ansible-lint.yml --project-dir ansible ansible || failed=1
    return "$failed"
}

[ -x "$BIN/ruff" ] || die "$EXIT_REFUSED" "the tools are not installed" "run: make setup"
failed=()
[ "$#" -gt 0 ] || set -- "${ALL[@]}"
for name; do
    [[ " ${ALL[*]} " == *" $name "* ]] || die 2 "lint.sh: no check is called '$name'" "one of: ${ALL[*]}"
    say "$name"
    "check_$name" || failed+=("$name")
done
[ "${#failed[@]}" -eq 0 ] || die 1 "these checks failed: ${failed[*]}" "see above; 'make format' mends what can be mended"
say "all clean"
