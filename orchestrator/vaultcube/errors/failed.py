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


class HostBuildError(VaultCubeError):
    """A stage of building the host image failed."""

    code = "host-build"
    summary = "a stage of building the host image failed"
    next_step = "Mend what the lines above say, then go on from that stage: vaultcube host build --from STAGE."


class GuestSilentError(HostBuildError):
    """The virtual machine never answered over SSH."""

    code = "guest-silent"
    summary = "the virtual machine that builds or tries the host image never answered over SSH"
    next_step = "Read the last lines of its console above; they say how far the boot came."


class ProvisionError(HostBuildError):
    """A task of Ansible failed while the host image was provisioned."""

    code = "host-provision"
    summary = "a task of Ansible failed while the host image was provisioned"
    next_step = "Mend the role, then go on from there: vaultcube host build --from provision."


class DirtyImageError(HostBuildError):
    """The host image holds something of its build or of one machine."""

    code = "host-dirty"
    summary = "the host image still holds something of its build, or of one machine"
    next_step = "Have packer/scripts/finalise.sh remove what was found, then: vaultcube host build --from provision."


class SignOffError(HostBuildError):
    """The host image booted, and is not what it should be."""

    code = "host-signoff"
    summary = "the finished host image was booted, and is not as it should be"
    next_step = "Mend what the lines above say, then: vaultcube host build --from provision."


class TamperedImageError(VaultCubeError):
    """A host image is not the one that was signed off."""

    code = "image-tampered"
    summary = "a host image, or what was published beside it, is not what was signed off"
    next_step = "Do not write it to a disk: fetch all its files again, or build it again."


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
