"""Layer 3: the NVIDIA Container Toolkit, CDI, and the proof that a container gets the GPUs."""

from __future__ import annotations

import os
from typing import Any

from vaultcube.gpu.versions import (
    ACCEPT_ENVVAR,
    TOOLKIT_FLOOR,
    parse_accepts_envvar,
    parse_toolkit_version,
    toolkit_holes,
    version_of,
)
from vaultcube.host.engine import info
from vaultcube.host.machine import Machine
from vaultcube.host.parse import gpu_uuids
from vaultcube.host.probe import NO_PROBES
from vaultcube.host.shell import ask
from vaultcube.host.words import Judged, JudgedError, Unseen, again, fail, good, invalid, together, unavailable

CONFIG = "/etc/nvidia-container-runtime/config.toml"
ROLE = "nvidia_container_toolkit"
KIND = "nvidia.com/gpu="
REFRESH = "systemctl restart nvidia-cdi-refresh.service"
CONTAINER_S = 90.0


def _version(machine: Machine) -> str:
    answer = machine.ask("nvidia-ctk", "--version")
    if answer.missing:
        absent = machine.provisioned(3) or bool(machine.gpus)
        raise JudgedError(fail(answer.why, again(ROLE)) if absent else machine.without_gpu())
    version = parse_toolkit_version(answer.stdout)
    if version is None:
        raise JudgedError(invalid(f"nvidia-ctk names no version ({answer.why})", "See: nvidia-ctk --version"))
    return version


def toolkit_version(machine: Machine) -> Judged:
    """Is the toolkit there, and without its known ways out of a container?"""
    version, minimum = _version(machine), machine.expected.toolkit_minimum
    have = version_of(version)
    if have < TOOLKIT_FLOOR:
        return fail(f"{version} lets an image break out of its container ({toolkit_holes(version)})", again(ROLE))
    if have < version_of(minimum):
        return fail(f"{version} is older than {minimum}", again(ROLE))
    return good(version)


def default_runtime(machine: Machine) -> Judged:
    """Does a container get GPUs only when it is given some?"""
    runtime = str(info(machine).get("DefaultRuntime") or "runc")
    if runtime.startswith("nvidia"):
        step = f'Take "default-runtime" out of /etc/docker/daemon.json. {again("docker")}'
        return fail(f"the default runtime is {runtime}: images take all GPUs unasked", step)
    return good(f"the default runtime is {runtime}")


def env_leak(machine: Machine) -> Judged:
    """Is an unprivileged container kept from taking GPUs with NVIDIA_VISIBLE_DEVICES?"""
    _version(machine)
    text = machine.text(CONFIG)
    if isinstance(text, Unseen):
        return fail(text.reason, again(ROLE))
    try:
        accepts = parse_accepts_envvar(text)
    except ValueError as error:
        return fail(f"{CONFIG}: {error}", again(ROLE))
    if accepts:
        return fail(f"{ACCEPT_ENVVAR} is true: any container may take GPUs", again(ROLE))
    return good(f"{ACCEPT_ENVVAR} is false")


def cdi_devices(machine: Machine) -> Judged:
    """Are all GPUs among the CDI devices, for the toolkit and for the engine?"""
    version, gpus = _version(machine), machine.need_gpu()
    text = machine.output("nvidia-ctk", "cdi", "list", role=ROLE)
    listed = _names(text.split())
    faults = _lacking(listed, len(gpus), "nvidia-ctk cdi list")
    found = info(machine)
    if not found.get("CDISpecDirs"):
        faults.append("the engine does no CDI")
    elif isinstance(devices := found.get("DiscoveredDevices"), list):
        faults += _lacking(_names(_ids(devices)), len(gpus), "docker info")
    return together(faults, f"{len(gpus)} GPUs and `all`, by nvidia-ctk {version}", f"{REFRESH}. {again(ROLE)}")


def _ids(devices: list[Any]) -> list[str]:
    return [str(one["ID"]) for one in devices if isinstance(one, dict) and isinstance(one.get("ID"), str)]


def _names(words: list[str]) -> frozenset[str]:
    return frozenset(word.removeprefix(KIND) for word in words if word.startswith(KIND))


def _lacking(names: frozenset[str], count: int, who: str) -> list[str]:
    cards = [name for name in names if name.isdecimal()] or [name for name in names if name.startswith("GPU-")]
    said = [] if len(cards) == count else [f"{who} has {len(cards)} of {count} GPUs"]
    return said if "all" in names else [*said, f"{who} has no {KIND}all"]


def gpu_container(machine: Machine) -> Judged:
    """Does a container that is given all GPUs see just those that the host sees?"""
    machine.need_gpu()
    if not machine.probes:
        return unavailable(NO_PROBES)
    host = gpu_uuids(machine.output("nvidia-smi", "-L", role="nvidia_driver", limit_s=60))
    if not host:
        return fail("nvidia-smi -L lists no GPU on the host", "See module and versions.")
    info(machine)
    image = _image()
    if image is None:
        return unavailable("there is no image on this machine to prove it with", "vaultcube images build recorder")
    name = f"vaultcube-health-{os.urandom(4).hex()}"
    confined = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none"]
    confined += ["--user", "65534:65534", "--memory", "256m", "--pids-limit", "64"]
    start = ["docker", "run", "--rm", "--pull", "never", "--name", name, *confined, "--device", f"{KIND}all"]
    try:
        answer = ask([*start, "--entrypoint", "nvidia-smi", image, "-L"], limit_s=CONTAINER_S)
    finally:
        ask(["docker", "rm", "--force", "--volumes", name], limit_s=60)
    if not answer.ok:
        return fail(f"a container of {image} could not use the GPUs ({answer.why})", f"{REFRESH}; see cdi-devices.")
    inside = gpu_uuids(answer.stdout)
    if set(inside) != set(host):
        return fail(f"a container sees {len(inside)} GPUs, and the host {len(host)}", f"{REFRESH}; see cdi-devices.")
    return good(f"a container of {image} sees the host's {len(host)} GPUs")


def _image() -> str | None:
    """Return an image to prove it with: one of ours, the smallest (the recorder) first; else any."""
    answer = ask(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"])
    names = [one for one in answer.stdout.split() if "<none>" not in one]

    def order(name: str) -> tuple[bool, bool, str]:
        return not name.startswith("vaultcube/recorder"), not name.startswith("vaultcube/"), name

    return min(names, key=order, default=None)
