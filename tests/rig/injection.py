"""What the rig puts into a container, by whichever way: the mock, `nvidia-smi`, the box's state, and which GPUs it sees.

Standard library only: the container hook imports it as well.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LIBRARIES = f"/usr/lib/{platform.machine()}-linux-gnu"
"""Where Debian's loader looks without any cache: nothing in the container has to run ldconfig."""
BOX = "/run/vaultcube-rig"
GPUS = "/run/vaultcube-rig-gpus"
"""A file for every GPU that the container sees, named by UUID."""


@dataclass(frozen=True)
class Bind:
    """A file or folder of the host, read-only in the container."""

    source: str
    target: str


def binds(box: Path) -> list[Bind]:
    """Return what every container with a GPU gets of a box. Links are followed now: a box may be swapped later."""
    home = os.path.realpath(box)
    return [
        # The folder, not its files: the scenario is replaced by renaming.
        Bind(home, BOX),
        Bind(f"{home}/lib/libnvidia-ml.so.1", f"{LIBRARIES}/libnvidia-ml.so.1"),
        Bind(f"{home}/bin/nvidia-smi", "/usr/bin/nvidia-smi"),
    ]
