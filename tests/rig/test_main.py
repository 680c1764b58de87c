"""`python -m tests.rig`: a person's way to faults."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.rig.__main__ import main
from tests.rig.box import Box


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    made = Box(tmp_path / "box")
    monkeypatch.setenv("VAULTCUBE_RIG", str(made.path))
    return made


VERBS: dict[str, Callable[[Box], object]] = {
    "lose 2": lambda box: box.read().gpus[2].number("lost") == 1 and len(box.read().events) == 1,
    "lose 2 --no-xid": lambda box: box.read().gpus[2].number("lost") == 1 and not box.read().events,
    "hot 1": lambda box: box.read().gpus[1].number("temperature_c") == 89,
    "brake 1": lambda box: box.read().gpus[1].number("reasons") & 0x80,
    "thermal 1": lambda box: box.read().gpus[1].number("reasons") & 0x40,
    "pcie 3 4": lambda box: box.read().gpus[3].number("pcie_width") == 4,
    "replay 3 2.5": lambda box: box.read().gpus[3].number("pcie_replay_per_minute") == 150,
    "aer 0 7": lambda box: box.kmsg_path.read_text().count("AER:") == 7,
    "xid 0 13": lambda box: "Xid (PCI:0000:01:00): 13" in box.kmsg_path.read_text(),
    "reset-energy 0": lambda box: box.read().gpus[0].number("energy_mj") < 10**6,
    "mismatch": lambda box: box.read().system["init_error"] == "mismatch",
    "permission": lambda box: box.read().system["init_error"] == "permission",
    "load 1": lambda box: [gpu.number("load") for gpu in box.read().gpus] == [0, 1, 0, 0],
    "load all": lambda box: [gpu.number("load") for gpu in box.read().gpus] == [1, 1, 1, 1],
    "idle all": lambda box: [gpu.number("load") for gpu in box.read().gpus] == [0, 0, 0, 0],
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_does_what_it_says_and_heals(box: Box, verb: str) -> None:
    assert main(verb.split()) == 0
    assert VERBS[verb](box)
    assert main(["heal"]) == 0
    assert not any(gpu.number("lost") for gpu in box.read().gpus)
    assert box.read().system["init_error"] == "none"


def test_list_shows_each_gpu(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    box.lose(2)
    assert main(["list"]) == 0

    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("4x5090 at ")
    assert [row.split()[0] for row in rows] == ["0", "1", "2", "3"]
    assert rows[2].endswith("lost")
    assert "31 C  12 W" in rows[0]


@pytest.mark.parametrize(
    ("argv", "words"),
    [("lose 9", "there is no GPU 9: the box has 4"), ("load 4", "there is no GPU 4"), ("load x", "invalid literal")],
)
def test_what_is_not_there_is_named(box: Box, capsys: pytest.CaptureFixture[str], argv: str, words: str) -> None:
    assert box.uuids
    assert main(argv.split()) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("argv", ["", "frobnicate", "lose", "lose -1", "lose two", "pcie 0", "xid 0 many"])
def test_wrong_usage(box: Box, argv: str) -> None:
    assert box.uuids
    with pytest.raises(SystemExit) as ended:
        main(argv.split())
    assert ended.value.code == 2


def test_outside_a_box_it_says_how_to_get_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("VAULTCUBE_RIG", raising=False)
    assert main(["list"]) == 2
    monkeypatch.setenv("VAULTCUBE_RIG", str(tmp_path))
    assert main(["list"]) == 2

    first, second = capsys.readouterr().err.splitlines()
    assert "make rig" in first
    assert second == f"tests.rig: there is no simulated box at {tmp_path}"


def test_a_scenario_broken_by_hand_is_named_by_its_line(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    box.scenario_path.write_text(box.scenario_path.read_text().replace("pstate = 8", "pstate = fast", 1))

    assert main(["list"]) == 2
    assert "pstate" in capsys.readouterr().err


def test_a_box_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "box with spaces"
    assert main(["box", str(path), "--profile", "2x4090"]) == 0

    script = capsys.readouterr().out + "nvidia-smi -L"
    seen = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env={**os.environ}, check=True)
    assert seen.stdout.count("RTX 4090") == 2
