"""What the vLLM server's program reads of the GPUs of its container, through its own few lines of ctypes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.rig.box import Box
from tests.rig.inside import still_box

ROOT = Path(__file__).resolve().parents[2]
READ = """
import json
from serve import cards
found = cards.read()
print(json.dumps(None if found is None else [vars(card) for card in found]))
"""


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return still_box(tmp_path / "box")


def read(box: Box, **env: str) -> Any:
    path = f"{ROOT / 'images'}:{ROOT / 'images/vllm'}"
    done = subprocess.run(
        [sys.executable, "-c", READ], env={**box.env(), "PYTHONPATH": path, **env}, capture_output=True, text=True, check=True
    )  # fmt: skip
    return json.loads(done.stdout)


def test_the_cards_of_the_box(box: Box) -> None:
    found = read(box)
    assert [card["index"] for card in found] == [0, 1, 2, 3]
    for card in found:
        assert (card["name"], card["capability"]) == ("NVIDIA GeForce RTX 5090", [12, 0])
        assert card["total_bytes"] == 32607 * 2**20
        assert 0.9 < card["free_bytes"] / card["total_bytes"] < 1


def test_only_the_pinned_cards_are_seen(tmp_path: Path, box: Box) -> None:
    markers = tmp_path / "markers"
    markers.mkdir()
    (markers / box.uuids[2]).touch()
    assert [card["index"] for card in read(box, VAULTCUBE_RIG_GPUS=str(markers))] == [0]


def test_a_driver_that_does_not_answer_is_no_card(box: Box) -> None:
    box.lose(1)
    assert read(box) is None
