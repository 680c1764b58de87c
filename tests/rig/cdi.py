"""The CDI specification of a box, as `nvidia-ctk cdi generate` writes one: GPUs by index, by UUID, and all of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import yaml
from tests.rig.injection import GPUS, LIBRARIES, Bind, binds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KIND = "nvidia.com/gpu"
FILE = "nvidia.yaml"
_READ_ONLY = ["ro", "nosuid", "nodev", "rbind", "rprivate"]


def spec(box: Path, uuids: Sequence[str], driver: str) -> dict[str, Any]:
    """Return the specification of a box with these GPUs, in the order of their indices, under a driver's version."""
    # The real one has the libraries under their versions, by which a specification that is too old shows.
    versioned = Bind(f"{os.path.realpath(box)}/lib/libnvidia-ml.so.1", f"{LIBRARIES}/libnvidia-ml.so.{driver}")
    return {
        "cdiVersion": "0.5.0",
        "kind": KIND,
        "devices": [
            *({"name": str(index), "containerEdits": _edits([uuid])} for index, uuid in enumerate(uuids)),
            *({"name": uuid, "containerEdits": _edits([uuid])} for uuid in uuids),
            {"name": "all", "containerEdits": _edits(uuids)},
        ],
        "containerEdits": {
            # The devices came by CDI: a hook must not add its own on top.
            "env": ["NVIDIA_VISIBLE_DEVICES=void"],
            "mounts": [
                *(
                    {"hostPath": mount.source, "containerPath": mount.target, "options": _READ_ONLY}
                    for mount in [*binds(box), versioned]
                ),
                {
                    "hostPath": "tmpfs",
                    "containerPath": GPUS,
                    "type": "tmpfs",
                    "options": ["ro", "nosuid", "nodev", "noexec", "mode=755", "size=64k"],
                },
            ],
        },
    }


def _edits(uuids: Sequence[str]) -> dict[str, Any]:
    # Any file does: what counts is that it is there.
    return {
        "mounts": [
            {"hostPath": "/dev/null", "containerPath": f"{GPUS}/{uuid}", "options": ["ro", "nosuid", "bind"]}
            for uuid in uuids
        ]
    }


def write(folder: Path, box: Path, uuids: Sequence[str], driver: str) -> None:
    """Write a box's specification into a folder, whole or not at all; a box without GPU has none, as with nvidia-ctk."""
    path = folder / FILE
    if not uuids:
        path.unlink(missing_ok=True)
        return
    fresh = folder / f"{FILE}.new"
    fresh.write_text("---\n" + yaml.safe_dump(spec(box, uuids, driver), default_flow_style=False))
    os.replace(fresh, path)  # noqa: PTH105 - as atomic as it reads
