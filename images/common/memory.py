"""The memory of this container's host part: what may still be taken, and whether the kernel took some back."""

from __future__ import annotations

from pathlib import Path

_OOM_COUNTERS = ("sys/fs/cgroup/memory.events", "sys/fs/cgroup/memory/memory.oom_control")
# Of cgroup v2 and v1: the limit, and what counts against it.
_LIMITS = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def oom_kills(root: Path = Path("/")) -> int:
    """Return how many processes the kernel has killed in this container for want of memory, 0 when it does not say."""
    for path in _OOM_COUNTERS:
        try:
            text = (root / path).read_text(encoding="ascii")
        except OSError:
            continue
        for line in text.splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0


def available(root: Path = Path("/")) -> int | None:
    """Return the bytes that this container may still take, None when nothing tells."""
    found = []
    for line in _read(root / "proc/meminfo").splitlines():
        name, *words = line.split()
        if name == "MemAvailable:":
            found.append(int(words[0]) * 1024)
    for limit, usage in _LIMITS:
        # "max" is no limit. What the container itself caches is given back when it is needed, so this errs downwards.
        allowed, used = _read(root / limit).strip(), _read(root / usage).strip()
        if allowed.isdigit() and used.isdigit():
            found.append(int(allowed) - int(used))
    return max(0, min(found)) if found else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
