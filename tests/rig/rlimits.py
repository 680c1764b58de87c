"""For machines whose root may not raise limits (a sandbox without CAP_SYS_RESOURCE): lowers what a container asks for.

The engine's wrapper of runc calls it as `python -m tests.rig.rlimits ARGUMENTS` before the real runc. Nothing else of
a container is changed; without it, a compose file with `memlock: -1` could not be started there. Standard library only.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

CAP_SYS_RESOURCE = 24


def may_raise() -> bool:
    """Say whether root of this machine may raise hard limits: whether the capability can be had at all."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    bounding = next(line.split()[1] for line in status.splitlines() if line.startswith("CapBnd:"))
    return bool(int(bounding, 16) >> CAP_SYS_RESOURCE & 1)


def lowered(process: dict[str, Any]) -> dict[str, Any]:
    """Return a process of the OCI runtime specification with no limit above what this process has itself."""
    return {**process, "rlimits": [_lowered(limit) for limit in process.get("rlimits") or []]}


def _lowered(limit: dict[str, Any]) -> dict[str, Any]:
    _, ours = resource.getrlimit(getattr(resource, limit["type"]))
    if ours == resource.RLIM_INFINITY:
        return limit
    return {**limit, "hard": min(limit["hard"], ours), "soft": min(limit["soft"], ours)}


def main() -> None:
    """Rewrite the file that runc is about to read: a bundle's configuration, or the process of an exec."""
    options = dict(zip(sys.argv, sys.argv[1:], strict=False))
    if bundle := options.get("--bundle"):
        path = Path(bundle, "config.json")
        config = json.loads(path.read_bytes())
        path.write_text(json.dumps(config | {"process": lowered(config["process"])}))
    elif process := options.get("--process"):
        path = Path(process)
        path.write_text(json.dumps(lowered(json.loads(path.read_bytes()))))


if __name__ == "__main__":
    main()
