"""The container hook's choices, and the CDI specification as text: no engine needed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rig import cdi
from tests.rig.hook import Refused, chosen, wants_utility
from tests.rig.injection import GPUS, LIBRARIES

UUIDS = [f"GPU-{number:08x}-0000-4000-8000-0123456789ab" for number in range(4)]
LISTED = {str(index): uuid for index, uuid in enumerate(UUIDS)}


@pytest.mark.parametrize(
    ("devices", "indices"),
    [
        ("all", [0, 1, 2, 3]),
        ("none", []),
        ("2", [2]),
        ("3,0", [3, 0]),
        (UUIDS[1], [1]),
        (UUIDS[1].lower(), [1]),
        (f"0,{UUIDS[3]}", [0, 3]),
    ],
)
def test_devices_are_named_by_index_and_by_uuid(devices: str, indices: list[int]) -> None:
    assert chosen(devices, LISTED) == [UUIDS[index] for index in indices]


@settings(derandomize=True, database=None, deadline=None)
@given(st.text(max_size=20).filter(lambda text: any(word not in LISTED for word in text.split(","))))
def test_what_the_machine_does_not_have_is_refused_by_its_name(word: str) -> None:
    with pytest.raises(Refused) as refused:
        chosen(f"0,{word}", LISTED)
    assert any(f"device error: {part}: unknown device" == str(refused.value) for part in word.split(","))


@pytest.mark.parametrize(
    ("capabilities", "utility"),
    [("compute,utility", True), ("all", True), ("compute", False), ("utility", True), ("compute,video", False)],
)
def test_utility_is_what_brings_nvml(capabilities: str, *, utility: bool) -> None:
    assert wants_utility(capabilities) is utility


def test_an_unknown_capability_is_refused() -> None:
    with pytest.raises(Refused, match="unsupported capabilities found in 'utility,teleport'"):
        wants_utility("utility,teleport")


def test_the_specification_names_every_gpu_twice_and_all_of_them(tmp_path: Path) -> None:
    cdi.write(tmp_path, tmp_path / "box", UUIDS, "580.95.05")
    text = (tmp_path / cdi.FILE).read_text()
    spec = yaml.safe_load(text)
    assert text.startswith("---\ncdiVersion: 0.5.0\n")
    assert spec["kind"] == "nvidia.com/gpu"
    assert f"containerPath: {LIBRARIES}/libnvidia-ml.so.580.95.05\n" in text
    seen = {
        device["name"]: [mount["containerPath"] for mount in device["containerEdits"]["mounts"]]
        for device in spec["devices"]
    }
    places = {uuid: [f"{GPUS}/{uuid}"] for uuid in UUIDS}
    every = {"all": [place for uuid in UUIDS for place in places[uuid]]}
    assert seen == places | {str(index): places[uuid] for index, uuid in enumerate(UUIDS)} | every


def test_a_machine_without_gpu_has_no_specification(tmp_path: Path) -> None:
    cdi.write(tmp_path, tmp_path / "box", UUIDS, "580.95.05")
    cdi.write(tmp_path, tmp_path / "box", [], "580.95.05")
    assert list(tmp_path.iterdir()) == []
