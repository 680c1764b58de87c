"""Exit code 3: the environment cannot do it."""

from __future__ import annotations

from vaultcube.errors.base import VaultCubeError


class RefusedError(VaultCubeError):
    """The environment cannot do what was asked; nothing was started."""

    code = "refused"
    exit_code = 3
    summary = "the environment cannot do it"


class EngineMissingError(RefusedError):
    """There is no `docker` command."""

    code = "docker-missing"
    summary = "there is no docker command on the PATH"
    next_step = "Install Docker Engine with the compose and buildx plugins (in a checkout: make setup)."


class EngineUnreachableError(RefusedError):
    """The docker command is there and no engine answers it."""

    code = "engine-unreachable"
    summary = "no Docker engine answers"
    next_step = "Start it (sudo systemctl start docker; in a checkout: make setup) or point DOCKER_HOST at one."


class EnginePermissionError(RefusedError):
    """The engine's socket may not be used by this user."""

    code = "engine-permission"
    summary = "this user may not use the engine's socket"
    next_step = "Join the docker group (sudo usermod -aG docker $USER) and log in again, or use sudo."


class ComposeMissingError(RefusedError):
    """Docker has no compose plugin, or one that is too old."""

    code = "compose-missing"
    summary = "docker has no compose v2 plugin, or one older than 2.24.4"
    next_step = "Install Docker Compose 2.24.4 or newer (Debian: docker-compose, Ubuntu: docker-compose-v2)."


class BuildxMissingError(RefusedError):
    """Docker has no buildx plugin, or one that is too old."""

    code = "buildx-missing"
    summary = "docker has no buildx plugin, or one older than 0.13"
    next_step = "Install Docker Buildx 0.13 or newer (Debian and Ubuntu: docker-buildx)."


class DiskTooSmallError(RefusedError):
    """There is too little room for what is about to be written."""

    code = "disk-too-small"
    summary = "too little disk space for an image or a run"
    next_step = "Free space (docker system df shows what Docker holds, docker builder prune clears its cache)."


class ResultsUnwritableError(RefusedError):
    """The results directory cannot be written."""

    code = "results-unwritable"
    summary = "the results directory cannot be created or written"
    next_step = "Choose another place with --results-dir or VAULTCUBE_RESULTS_DIR."


class DataUnreadableError(RefusedError):
    """A folder that a workload needs cannot be read by the container's user."""

    code = "data-unreadable"
    summary = "a data folder is missing, or the container's user cannot read it"
    next_step = "Give a folder of class folders with images that the user who runs vaultcube can read."


class ModelGatedError(RefusedError):
    """The hub gives the model only to who accepted its licence."""

    code = "model-gated"
    summary = "the hub gives this model only to accounts that accepted its licence"
    next_step = "Accept the licence on the model's page, then give a token: HF_TOKEN=... or --hf-token-file FILE."


class ModelTooLargeError(RefusedError):
    """A model cannot fit the memory it is to run in."""

    code = "model-too-large"
    summary = "the model's weights and KV cache do not fit the memory of the chosen GPUs"
    next_step = "Use more GPUs (--tensor-parallel), a shorter context (--max-model-len) or a quantised model."


class ModelUnreadableError(RefusedError):
    """A model's files cannot be read, or are not whole."""

    code = "model-unreadable"
    summary = "the model's files cannot be read, or are truncated or corrupt"
    next_step = "Download the model again, and let the user who runs vaultcube read it."


class ModelUnsupportedError(RefusedError):
    """This vLLM, or its transformers, does not know the model."""

    code = "model-unsupported"
    summary = "this vLLM, or the transformers it carries, does not know the model"
    next_step = "Use a model that vLLM's list of supported models names for this version."


class HubUnreachableError(RefusedError):
    """A model is not on this machine and the hub does not answer."""

    code = "hub-unreachable"
    summary = "the model is not on this machine, and the hub cannot be reached"
    next_step = "Check the network and proxies, or give the directory of a model: --model ./my-model."


class PortTakenError(RefusedError):
    """The port that an instance is to answer on is taken."""

    code = "port-taken"
    summary = "the port is taken"
    next_step = "Choose another with --port, or leave it out: the first free one is taken then."


class KeyNeededError(RefusedError):
    """A server that others can reach needs an API key."""

    code = "key-needed"
    summary = "a server that is reachable from outside this machine needs an API key"
    next_step = "Give one: VLLM_API_KEY=... or --api-key-file FILE; or leave --host at 127.0.0.1."


class GpuUnavailableError(RefusedError):
    """GPUs were asked for and there are not enough."""

    code = "gpu-unavailable"
    summary = "fewer GPUs are there than were asked for"
    next_step = "Ask for fewer (--gpus), or run on the CPU with --gpus none."


class GpuBusyError(RefusedError):
    """A GPU that was asked for is held by somebody else."""

    code = "gpu-busy"
    summary = "a GPU that was asked for is held by another workload"
    next_step = "Wait for it, choose free ones with --gpus, or add --share."


class MigError(RefusedError):
    """A GPU is cut into MIG devices; only whole GPUs are used."""

    code = "gpu-mig"
    summary = "a GPU has MIG enabled, and only whole GPUs can be used"
    next_step = "Leave it out with --gpus, or make it whole again: sudo nvidia-smi -i INDEX -mig 0."


class PinningError(RefusedError):
    """The engine has no way to give GPUs to a container."""

    code = "gpu-pinning"
    summary = "the engine cannot give GPUs to a container: it offers neither CDI nor the NVIDIA hook"
    next_step = (
        "Install the NVIDIA Container Toolkit, then: "
        "sudo nvidia-ctk runtime configure --runtime=docker --cdi.enabled && sudo systemctl restart docker."
    )


class ReservationError(RefusedError):
    """The lock under which GPUs are chosen cannot be had."""

    code = "gpu-reservation"
    summary = "the lock under which GPUs are chosen cannot be had"
    next_step = "See who holds it: sudo fuser -v /run/lock/vaultcube-gpus.lock."


class FlavourError(RefusedError):
    """The image flavour has no code for a chosen GPU."""

    code = "flavour-unsupported"
    summary = "the image flavour cannot run on a chosen GPU"
    next_step = "Leave --flavour at auto."


class LibraryMissingError(RefusedError):
    """A framework cannot load a CUDA library that it needs."""

    code = "library-missing"
    summary = "the framework in the image cannot load a CUDA library that it needs"
    next_step = "Build the image again, its self-check names what is missing: vaultcube images build IMAGE."


class FewerDevicesError(RefusedError):
    """A framework lists fewer devices than its container was given."""

    code = "fewer-devices"
    summary = "the framework lists fewer devices than its container was given"
    next_step = "See why with `vaultcube doctor` and in `vaultcube logs RUN`."


class PreflightError(RefusedError):
    """A check of the machine failed."""

    code = "preflight"
    summary = "a check of the machine failed: what was asked for cannot work, or not as it should"
    next_step = "See every check with `vaultcube doctor`."


class SoakChangedError(RefusedError):
    """A soak cannot be gone on with as something else."""

    code = "soak-changed"
    summary = "a soak that is to be gone on with is not what was asked for, or its GPU or image is not there any more"
    next_step = "Go on with it as it is (vaultcube stress --resume), or end it (vaultcube stress stop) and begin anew."


class BaseImageError(RefusedError):
    """The base image is not there and cannot be pulled."""

    code = "base-image"
    summary = "the base image is not on this machine and cannot be pulled"
    next_step = "Check the network, or name another one with --base-image (in a checkout: make setup makes one)."


class RunActiveError(RefusedError):
    """Something that must be finished is still running."""

    code = "run-active"
    summary = "the run is still going on"
    next_step = "Wait for it, or stop it with `vaultcube down RUN`."


class CheckoutNeededError(RefusedError):
    """What was asked for needs the sources beside the package."""

    code = "checkout-needed"
    summary = "building the host image needs the checkout: its roles, its template, its tests"
    next_step = "Clone the repository, run make setup there, and call .venv/bin/vaultcube from it."


class HostToolsError(RefusedError):
    """A program that builds the host image is not installed, or too old."""

    code = "host-tools"
    summary = "a program that builds host images is missing (packer, qemu, a maker of ISO images, ssh)"
    next_step = "Install it; on Debian and Ubuntu scripts/hostimage-tools.sh does."


class NoAccelerationError(RefusedError):
    """This machine cannot run virtual machines at full speed."""

    code = "no-acceleration"
    summary = "this machine cannot run virtual machines at full speed (no KVM, or one that does not work)"
    next_step = "Build where /dev/kvm works, or take the slow way, many times slower: --accelerator tcg."


class BaseChecksumError(RefusedError):
    """The cloud image is not the one that is pinned."""

    code = "base-checksum"
    summary = "the cloud image that the host image is built from has another SHA-256 than the one that is pinned"
    next_step = "Fetch it again; for another image give its sum with --base-sha256."
