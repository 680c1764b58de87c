"""What this machine is and who calls: for provenance and for the container's user."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from vaultcube import __version__
from vaultcube.gpu import kernellog
from vaultcube.results.schema import Provenance
from vaultcube.results.store import run_id
from vaultcube.stack.assets import checkout
from vaultcube.stack.docker import EngineInfo
from vaultcube.stack.plan import IMAGE_USER
from vaultcube.stack.process import CommandTimeoutError, run

DEFAULT_RANKS = 2


def container_user() -> tuple[int, int]:
    """Return uid and gid for containers: the caller's, or the images' own when root calls: nothing in them needs root."""
    return (os.getuid(), os.getgid()) if os.getuid() else (IMAGE_USER, IMAGE_USER)


def cpu_ranks() -> int:
    """Return how many ranks a run on the CPU has: two, so that there is something to scale over, if cores allow."""
    return min(DEFAULT_RANKS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def kernel_log() -> str | None:
    """Return the kernel's log that a container can be given: the one that was named, the device, or None."""
    named = os.environ.get(kernellog.VARIABLE)
    if named:
        return str(Path(named).absolute())
    return kernellog.DEVICE if Path(kernellog.DEVICE).exists() else None


def new_run_id(workload: str, now: datetime) -> str:
    """Return a fresh run id: workload, UTC time, and four random digits for two runs of one second."""
    return run_id(workload, now.strftime("%Y%m%d-%H%M%S"), os.urandom(2).hex())


def utc_now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


def provenance(
    engine: EngineInfo | None, *, driver: str | None, images: dict[str, str], compose_sha256: str | None
) -> Provenance:
    """Describe what ran, and on what. Parts that cannot be read are null, never guessed."""
    return Provenance(
        vaultcube=__version__,
        git=git_revision(),
        images=images,
        compose_sha256=compose_sha256,
        engine=engine.engine if engine else None,
        compose=engine.compose if engine else None,
        driver=driver,
        kernel=f"{platform.system()} {platform.release()}",
        os=_os_name(),
        cpu=cpu_model(_read(Path("/proc/cpuinfo"))) or platform.processor() or platform.machine(),
    )


def cpu_model(cpuinfo: str) -> str | None:
    """Return the processor's name from the text of /proc/cpuinfo, or None where it has none (arm64)."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return None


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.platform())
    except OSError:
        return platform.platform()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def git_revision() -> str | None:
    """Return the checkout's commit, with `-dirty` when files differ from it; None outside a checkout."""
    root = checkout()
    if root is None or not (root / ".git").exists():
        return None
    try:
        seen = run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"], timeout=10
        )
    except (OSError, CommandTimeoutError):
        return None
    return seen.stdout.strip() or None if seen.ok else None
