"""Every error a user can meet: a stable code, what happened, what to do next, and the exit code of the command.

The text of an error is two lines: the message and the next step. Codes are stable words to search for;
docs/errors.md lists them and is tested to be current.
"""

from __future__ import annotations

from typing import ClassVar


class VaultCubeError(Exception):
    """Base of all errors that are shown without a traceback.

    Args:
        message: One line of what happened.
        next_step: One line of what to do about it; the class's own when left out.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    summary: ClassVar[str] = "something failed"
    next_step: str = "Run the same command with --debug and read the traceback."
    # Set when a result that was printed says it: --json prints no second document then.
    in_result: bool = False

    def __init__(self, message: str, *, next_step: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if next_step is not None:
            self.next_step = next_step


# --- 2: usage ---------------------------------------------------------------------------------------------


class UsageError(VaultCubeError):
    """The command line or a file it names is wrong."""

    code = "usage"
    exit_code = 2
    summary = "the command line, or a file it names, does not make sense"
    next_step = "See the command's --help for what it takes."


class BadParameterError(UsageError):
    """A parameter of a workload is out of its range or contradicts another one."""

    code = "bad-parameter"
    summary = "a workload parameter is out of range, or the workload itself refused it"


class GpuSelectionError(UsageError):
    """`--gpus` is not in the grammar, or names a GPU that is not there."""

    code = "gpu-selection"
    summary = "--gpus is not in the grammar, or names GPUs that are not there"
    next_step = "Use all, none, a count such as 2, or device=0,2 or device=GPU-<uuid>."


class ModelNotFoundError(UsageError):
    """There is no model of that name, on the hub or on this machine."""

    code = "model-not-found"
    summary = "there is no model of that name, on the hub or on this machine"
    next_step = "Give a hub id such as Qwen/Qwen2.5-7B-Instruct, a directory with config.json in it, or tiny."


class InstanceNameError(UsageError):
    """An instance of that name is running, or the name cannot be one."""

    code = "instance-name"
    summary = "the instance's name is taken, or is no name"
    next_step = "Choose another with --name, or stop the one that has it: vaultcube down NAME."


class ProfileError(UsageError):
    """A profile cannot be found or read."""

    code = "profile"
    summary = "the profile cannot be found, or its TOML is wrong"
    next_step = "Name a built-in profile (vault-cube-5090) or a TOML file."


class NotFoundError(UsageError):
    """No run or instance has that name."""

    code = "not-found"
    summary = "no run or instance has that name"
    next_step = "See `vaultcube ps` for what is running and `vaultcube runs list` for what was kept."


# --- 3: refused: the environment cannot do it ---------------------------------------------------------------


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


class PreflightError(RefusedError):
    """A check of the machine failed."""

    code = "preflight"
    summary = "a check of the machine failed: what was asked for cannot work, or not as it should"
    next_step = "See every check with `vaultcube doctor`."


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


# --- 1: the workload, or what it needs, failed ---------------------------------------------------------------


class WorkloadError(VaultCubeError):
    """A workload failed after it began."""

    code = "workload-failed"
    summary = "the workload ended with an error of its own"
    next_step = "Read `vaultcube logs RUN`."


class ImageBuildError(WorkloadError):
    """An image build failed half-way."""

    code = "image-build"
    summary = "building an image failed half-way"
    next_step = "Fix what the lines above say and run the same command again: finished steps are kept."


class ContainerKilledError(WorkloadError):
    """Something outside killed a container."""

    code = "container-killed"
    summary = "a container was killed from outside (docker kill, a crash of the engine, the kernel)"
    next_step = "Find out who killed it (journalctl -k, docker events), then run again."


class ContainerMemoryError(WorkloadError):
    """A container met its memory limit."""

    code = "container-out-of-memory"
    summary = "the kernel killed a container at its memory limit"
    next_step = "Give it more with --memory, or a smaller --batch-size."


class GpuMemoryError(WorkloadError):
    """A GPU's memory ran out."""

    code = "gpu-memory"
    summary = "a GPU's memory ran out"
    next_step = "Use a shorter context (--max-model-len), more GPUs (--tensor-parallel) or a smaller model."


class ServerDiedError(WorkloadError):
    """A server ended while it loaded, or while it was used."""

    code = "server-died"
    summary = "a server ended by itself: while it loaded, or while it was used"
    next_step = "Read its last lines above, and all of them with `vaultcube logs RUN`."


class ContainerStoppedError(WorkloadError):
    """Somebody else stopped a container."""

    code = "container-stopped"
    summary = "a container was stopped by somebody else"
    next_step = "Run again when nobody stops it."


class StartError(WorkloadError):
    """The engine refused to create or start a container."""

    code = "start-failed"
    summary = "the engine could not create or start a container"
    next_step = "Read the engine's words above."


class RunTimeoutError(WorkloadError):
    """A run took longer than its limit."""

    code = "timeout"
    summary = "the run took longer than --timeout and was stopped"
    next_step = "Read `vaultcube logs RUN` for where it stood still, or allow more with --timeout."


class EngineLostError(WorkloadError):
    """The engine stopped answering while a run was going on."""

    code = "engine-lost"
    summary = "the engine went away in the middle of a run"
    next_step = "Start the engine again, then clear what is left with `vaultcube down RUN`."


class VerdictError(VaultCubeError):
    """A run completed, and its verdict is not good enough."""

    code = "verdict"
    summary = "the run completed, and its verdict is FAIL or INVALID (with --strict also UNAVAILABLE)"
    next_step = "See which check and why with `vaultcube runs show RUN`."


# --- 4: a bug -----------------------------------------------------------------------------------------------


class BugError(VaultCubeError):
    """Vault Cube itself failed."""

    code = "bug"
    exit_code = 4
    summary = "vaultcube itself failed; a crash log was written"
    next_step = "Report it with the crash log."


# --- 130: interrupted ----------------------------------------------------------------------------------------


class InterruptedRunError(VaultCubeError):
    """Ctrl-C or SIGTERM."""

    code = "interrupted"
    exit_code = 130
    summary = "stopped by Ctrl-C, SIGTERM or `vaultcube down`"
    next_step = "Run it again when you want the measurement."


def all_errors() -> list[type[VaultCubeError]]:
    """Return every error class, parents before children, in the order they are written."""
    found: list[type[VaultCubeError]] = []

    def walk(cls: type[VaultCubeError]) -> None:
        found.append(cls)
        for child in cls.__subclasses__():
            walk(child)

    walk(VaultCubeError)
    return found
