"""In a container only the pinned GPUs are there, counted from 0: the marker files say which."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.rig.box import Box
from tests.rig.inside import enter, still_box


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return still_box(tmp_path / "box")


def mark(tmp_path: Path, uuids: Sequence[str]) -> Path:
    markers = tmp_path / "markers"
    markers.mkdir()
    for uuid in uuids:
        (markers / uuid).touch()
    return markers


@pytest.mark.parametrize("pinned", [[3], [1, 3], [0, 1, 2, 3], []])
def test_only_marked_gpus_are_there(tmp_path: Path, box: Box, pinned: list[int]) -> None:
    wanted = [box.uuids[index] for index in pinned]
    with enter(box, VAULTCUBE_RIG_GPUS=str(mark(tmp_path, wanted))) as inside:
        assert inside("p.nvmlDeviceGetCount()") == len(pinned)
        assert inside("[p.nvmlDeviceGetUUID(h[i]) for i in range(p.nvmlDeviceGetCount())]") == wanted
        # The minor number is the host's, as in a real container.
        assert inside("[p.nvmlDeviceGetMinorNumber(h[i]) for i in range(p.nvmlDeviceGetCount())]") == pinned
        for index in set(range(4)) - set(pinned):
            assert inside.error(f"p.nvmlDeviceGetHandleByUUID({box.uuids[index].encode()!r})") == 6


def test_events_and_faults_go_to_the_right_gpu(tmp_path: Path, box: Box) -> None:
    markers = mark(tmp_path, [box.uuids[1], box.uuids[3]])
    with enter(box, VAULTCUBE_RIG_GPUS=str(markers)) as inside:
        inside("events = p.nvmlEventSetCreate(); p.nvmlDeviceRegisterEvents(h[1], 8, events); h[0]")
        box.xid(1, 13)
        box.lose(3)

        inside("found = p.nvmlEventSetWait_v2(events, 15000)")
        assert inside("found.eventData") == 79
        inside.wait_error("p.nvmlDeviceGetName(h[1])", 15)
        assert inside.error("p.nvmlDeviceGetName(h[0])") == 0


def test_nvidia_smi_lists_the_marked_gpus(tmp_path: Path, box: Box) -> None:
    markers = mark(tmp_path, [box.uuids[2]])
    seen = subprocess.run(
        ["nvidia-smi", "-L"], env={**box.env(), "VAULTCUBE_RIG_GPUS": str(markers)}, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert seen.stdout == f"GPU 0: NVIDIA GeForce RTX 5090 (UUID: {box.uuids[2]})\n"
