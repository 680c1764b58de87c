"""Exit code 2: the command line, or a file it names, is wrong."""

from __future__ import annotations

from vaultcube.errors.base import VaultCubeError


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


class LoginKeyError(UsageError):
    """There is no public key that could log in to the host image."""

    code = "login-key"
    summary = "no public key was given for the host image, and nobody could log in"
    next_step = "Give the .pub file of whoever administers the box: --authorized-key ~/.ssh/id_ed25519.pub."


class ResumeError(UsageError):
    """A build of the host image cannot be gone on with from there."""

    code = "host-resume"
    summary = "a build of the host image cannot be gone on with from that stage"
    next_step = "Leave out --from: the build then begins at its first stage."
