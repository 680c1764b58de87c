"""Exit codes 1, 4 and 130: the workload, or what it needs, failed; a bug; an interruption."""

from __future__ import annotations

from vaultcube.errors.base import VaultCubeError


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
    next_step = "See who else holds memory (vaultcube gpus), and ask for less: a smaller batch, context or model."


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


class HostHealthError(VaultCubeError):
    """The host is not as it was provisioned."""

    code = "host-health"
    summary = "the host is not as it was provisioned (with --strict also: not all of it could be seen)"
    next_step = "Do what the report says, then run it again."


class BugError(VaultCubeError):
    """Vault Cube itself failed."""

    code = "bug"
    exit_code = 4
    summary = "vaultcube itself failed; a crash log was written"
    next_step = "Report it with the crash log."


class InterruptedRunError(VaultCubeError):
    """Ctrl-C or SIGTERM."""

    code = "interrupted"
    exit_code = 130
    summary = "stopped by Ctrl-C, SIGTERM or `vaultcube down`"
    next_step = "Run it again when you want the measurement."
