"""Readers of what docker, the toolkit, the driver and /proc write. They take any text and never raise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from vaultcube.gpu.pinning import qualified
from vaultcube.gpu.preflight.facts import Driver, Engine, HookConfig, Memlock, Unseen
from vaultcube.gpu.versions import parse_accepts_envvar, parse_module

# Bit of CAP_SYS_RESOURCE in the masks of /proc/PID/status: who has it may raise hard limits.
CAP_SYS_RESOURCE: Final = 24
# `uid_map` of a process that is in no user namespace of its own.
INITIAL_NAMESPACE: Final = ["0", "0", "4294967295"]

_MOUNTED = re.compile(r"/lib(?:cuda|nvidia-ml)\.so\.([0-9]{2,4}\.[0-9]+(?:\.[0-9]+)*)")
_LOCKED = re.compile(r"^Max locked memory\s+\S+\s+(\S+)", re.MULTILINE)
_CAPABILITIES = re.compile(r"^CapEff:\s+([0-9a-fA-F]{1,16})$", re.MULTILINE)


def parse_engine(info: Any) -> Engine | Unseen:
    """Read `docker info --format '{{json .}}'`. Newer engines say more: what is left out has its default."""
    if not isinstance(info, Mapping) or not _text(info.get("ServerVersion")):
        return Unseen("docker info does not name the engine's version")
    listed = info.get("DiscoveredDevices")
    return Engine(
        version=_text(info["ServerVersion"]),
        root_dir=_text(info.get("DockerRootDir")),
        runtimes=frozenset(_texts(info.get("Runtimes"))),
        default_runtime=_text(info.get("DefaultRuntime")),
        cgroup_driver=_text(info.get("CgroupDriver")),
        cdi_dirs=tuple(_texts(info.get("CDISpecDirs"))),
        cdi_devices=None if listed is None else _devices(listed),
        rootless=any("rootless" in one for one in _texts(info.get("SecurityOptions"))),
    )


def parse_hook_config(path: str, text: str) -> HookConfig:
    """Read the toolkit's config.toml. Without the entry the toolkit takes true."""
    try:
        return HookConfig(path, accepts_envvar=parse_accepts_envvar(text))
    except ValueError as error:
        return HookConfig(path, accepts_envvar=True, broken=str(error))


def parse_cdi_drivers(text: str) -> frozenset[str]:
    """Return the driver versions whose libraries a CDI specification mounts."""
    return frozenset(_MOUNTED.findall(text))


def parse_driver(text: str) -> Driver | None:
    """Read /proc/driver/nvidia/version; None when it names no module."""
    found = parse_module(text)
    return Driver(*found) if found else None


def parse_memlock(limits: str, status: str, uid_map: str) -> Memlock | None:
    """Read /proc/PID/limits, status and uid_map; None when the limit is not among them."""
    found = _LOCKED.search(limits)
    if not found or not (found[1] == "unlimited" or found[1].isdecimal()):
        return None
    mask = _CAPABILITIES.search(status)
    able = bool(mask and int(mask[1], 16) >> CAP_SYS_RESOURCE & 1)
    # The capability counts only where the engine is in no user namespace of its own.
    may_raise = able and uid_map.split() == INITIAL_NAMESPACE
    return Memlock(None if found[1] == "unlimited" else int(found[1]), may_raise)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list | Mapping) else []


def _devices(listed: Any) -> frozenset[str]:
    found = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    return qualified([{key: _text(one.get(key)) for key in ("Source", "ID")} for one in found])
