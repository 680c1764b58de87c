"""Versions of driver and container toolkit: how they are read, and below which there is a hole. Standard library only.

`vaultcube health` reads them as well, on hosts that have Python and nothing else.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

# Below it a hostile image can break out of its container. Source: NVIDIA's security bulletins for the toolkit.
TOOLKIT_FLOOR: Final = (1, 17, 8)
# The first version without each of them.
CVES: Final = (
    ((1, 16, 2), "CVE-2024-0132"),
    ((1, 17, 0), "CVE-2024-0134"),
    ((1, 17, 4), "CVE-2025-23359"),
    ((1, 17, 8), "CVE-2025-23266"),
)
ACCEPT_ENVVAR: Final = "accept-nvidia-visible-devices-envvar-when-unprivileged"

_VERSION = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})+")
_MODULE = re.compile(r"^NVRM version:.*\bKernel Module\b.*?\s([0-9]{2,4}\.[0-9.]+)\s", re.MULTILINE)


class Module(NamedTuple):
    """The driver's loaded kernel module: its version, and whether it is of the open ones."""

    version: str
    open_modules: bool


def version_of(text: str) -> tuple[int, ...]:
    """Return the first dotted version in a text as numbers; none is empty, and older than everything."""
    found = _VERSION.search(text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def toolkit_holes(version: str) -> str:
    """Return the known ways out of a container that a version of the toolkit has, or nothing."""
    have = version_of(version)
    return ", ".join(name for mended, name in CVES if have < mended)


def parse_toolkit_version(text: str) -> str | None:
    """Read `nvidia-ctk --version`: `NVIDIA Container Toolkit CLI version 1.17.8`."""
    found = re.search(r"version\s+v?([0-9]+\.[0-9]+\.[0-9]+\S*)", text)
    return found[1] if found else None


def parse_module(text: str) -> Module | None:
    """Read /proc/driver/nvidia/version; None when it names no module."""
    found = _MODULE.search(text)
    return Module(found[1], "Open Kernel Module" in found[0]) if found else None


def parse_accepts_envvar(text: str) -> bool:
    """Say whether the toolkit's config.toml lets containers take GPUs by a variable. Without the entry it does.

    Raises:
        ValueError: it is not valid TOML, or the entry is neither true nor false; the text says which.
    """
    import tomllib

    try:
        value = tomllib.loads(text).get(ACCEPT_ENVVAR, True)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"not valid TOML: {error}") from error
    if not isinstance(value, bool):
        raise ValueError(f"{ACCEPT_ENVVAR} is neither true nor false")  # noqa: TRY004 - a fault of the file
    return value
