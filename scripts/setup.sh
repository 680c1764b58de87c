#!/usr/bin/env bash
# Everything a fresh machine lacks, then COMMAND in that environment:
#   setup.sh [COMMAND...]
# Virtual environment, Docker engine, base image, the images that run without a GPU: PyTorch, TensorFlow, recorder, vLLM
# for the CPU, proxy. Each step does nothing when its work is done.
# IMAGES names fewer of them: IMAGES="pytorch:cu124 recorder".
# COMMAND sees the base image's name in BASE_IMAGE (compose, bake) and VAULTCUBE_BASE_IMAGE (vaultcube).
# Exit: COMMAND's own code, or that of the step that failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

scripts/venv.sh
scripts/engine.sh
# The engine was installed a moment ago, and this session is older than the user's new group.
if ! engine_answers && group_is_new; then with_docker_group "$PWD/scripts/setup.sh" "$@"; fi
base=$(scripts/base-image.sh)
export BASE_IMAGE=$base VAULTCUBE_BASE_IMAGE=$base
for image in ${IMAGES:-pytorch:cu124 tensorflow:cu124 recorder vllm:cpu proxy}; do
    flavour=()
    case $image in *:*) flavour=(--flavour "${image#*:}") ;; esac
    .venv/bin/vaultcube images build "${image%%:*}" "${flavour[@]}" >&2
done
if [ "$#" -gt 0 ]; then exec "$@"; fi
