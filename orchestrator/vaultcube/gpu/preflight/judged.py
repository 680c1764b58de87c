"""What a check returns, and which GPUs there are for it to look at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from vaultcube.gpu.preflight.facts import NOT_ASKED, Facts, Nvml, Unseen
from vaultcube.gpu.readings import GpuInfo, Reading
from vaultcube.results.doctor import FindingStatus

NO_GPU: Final = "no NVIDIA GPU on this machine"
# With these NVML says nothing about whether there are GPUs.
_SILENT: Final = frozenset({"no-library", "no-driver", ""})


class Judged(NamedTuple):
    """A status, what was seen, and what to do about it. Without the check's code, which its registry knows."""

    status: FindingStatus
    seen: str
    next_step: str | None = None


class Looked(NamedTuple):
    """A GPU to look at, and how it is now."""

    info: GpuInfo
    now: Reading


def good(seen: str) -> Judged:
    """Return a PASS."""
    return Judged(FindingStatus.PASS, seen)


def warn(seen: str, next_step: str) -> Judged:
    """Return a WARN: it works, but not as well or as safely as it could."""
    return Judged(FindingStatus.WARN, seen, next_step)


def fail(seen: str, next_step: str) -> Judged:
    """Return a FAIL: it must be mended."""
    return Judged(FindingStatus.FAIL, seen, next_step)


def unavailable(reason: str | Unseen, next_step: str | None = None) -> Judged:
    """Return an UNAVAILABLE: what this check looks at is not there, or cannot be seen."""
    return Judged(FindingStatus.UNAVAILABLE, reason if isinstance(reason, str) else reason.reason, next_step)


def absence(facts: Facts) -> str | None:
    """Return why there is no GPU to prepare for, or None when there is one, even one that does not answer."""
    if facts.asked.request.kind == "none":
        return "no GPU is asked for"
    nvml, pci = facts.nvml, facts.pci
    if isinstance(nvml, Nvml):
        if nvml.gpus or nvml.missing:
            return None
    elif nvml.code not in _SILENT:
        return None
    if not isinstance(pci, Unseen):
        return None if pci else NO_GPU
    # Without sight of the bus, a driver's library without its module is a sign of GPUs.
    return None if isinstance(nvml, Unseen) and nvml.code == "no-driver" else NO_GPU


def looked_at(facts: Facts) -> list[Looked] | Judged:
    """Return the GPUs to look at, or why there are none."""
    reason = absence(facts)
    if reason is not None:
        return unavailable(reason)
    nvml = facts.nvml
    if isinstance(nvml, Unseen):
        return unavailable(nvml if nvml is NOT_ASKED else "NVML does not answer (see driver)")
    if not nvml.gpus:
        return unavailable("NVML lists no GPU that answers (see gpu-visibility)")
    pairs = map(Looked, nvml.gpus, nvml.readings)
    wanted = facts.asked.uuids
    return [one for one in pairs if wanted is None or one.info.uuid in wanted]


def named(indices: Iterable[int]) -> str:
    """Return `GPU 2`, or `GPUs 0-2, 5`."""
    numbers = sorted(set(indices))
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    text = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in parts)
    return f"GPU{'s' if len(numbers) > 1 else ''} {text}"


def each(found: Iterable[tuple[int, str]]) -> str:
    """Return GPUs with something said of each, those of which the same is said together: `GPUs 0-2: on; GPU 3: off`."""
    groups: dict[str, list[int]] = {}
    for index, text in found:
        groups.setdefault(text, []).append(index)
    return "; ".join(f"{named(indices)}: {text}" for text, indices in groups.items())
