from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.gpustates import CONTAINER, OURS, PROCESS, RUN, snapshot, state

from vaultcube.gpu.leases import Holder
from vaultcube.gpu.readings import Problem
from vaultcube.report import gpuwords
from vaultcube.results.gpus import Trouble


def test_every_problem_has_a_next_step_and_is_in_the_schema() -> None:
    assert set(gpuwords.NEXT_STEPS) == set(get_args(Problem)) == set(get_args(Trouble))


def test_what_to_do_next() -> None:
    assert gpuwords.next_step(snapshot(state())) is None
    assert gpuwords.next_step(snapshot(problem="mismatch")) == gpuwords.NEXT_STEPS["mismatch"]
    assert gpuwords.next_step(snapshot(state(), missing=((1, "lost"),))) == gpuwords.NEXT_STEPS["lost"]
    assert gpuwords.next_step(snapshot(state(), state(1, problem="lost"))) == gpuwords.NEXT_STEPS["lost"]
    assert gpuwords.next_step(snapshot()) == gpuwords.NO_GPU


@pytest.mark.parametrize(
    ("holders", "known", "said"),
    [
        ([], True, "free"),
        ([], False, "unknown"),
        ([OURS], True, RUN),
        ([CONTAINER], True, "container trainer"),
        ([PROCESS], False, "process 4711 python3"),
        ([PROCESS._replace(name="")], True, "process 4711"),
        ([OURS, PROCESS], True, f"{RUN}, process 4711 python3"),
    ],
)
def test_who_holds_a_gpu(*, holders: list[Holder], known: bool, said: str) -> None:
    assert gpuwords.held_by(state(holders=holders), known=known) == said


def test_what_is_not_told_is_a_dash_and_zero_is_zero() -> None:
    assert (gpuwords.whole(None), gpuwords.whole(0)) == ("-", "0")
    assert (gpuwords.gib(None), gpuwords.gib(0), gpuwords.gib(2**29)) == ("-", "0.0", "0.5")
    assert (gpuwords.of(None, 90), gpuwords.of(0, None)) == ("-/90", "0/-")
    assert (gpuwords.pcie(None, None), gpuwords.pcie(5, None), gpuwords.pcie(1, 16)) == ("-", "5x-", "1x16")
    assert (gpuwords.watts(None), gpuwords.watts(1500)) == (None, 1.5)
    assert [gpuwords.switch(value) for value in (None, True, False)] == ["-", "on", "off"]


@pytest.mark.parametrize(
    ("indices", "said"), [([0], "0"), ([0, 1, 2, 3], "0-3"), ([0, 2], "0,2"), ([1, 2, 5], "1-2,5")]
)
def test_ranges(indices: list[int], said: str) -> None:
    assert gpuwords.ranges(indices) == said


@given(st.lists(st.integers(0, 40), unique=True, min_size=1).map(sorted))
def test_ranges_can_be_read_back(indices: list[int]) -> None:
    found: list[int] = []
    for part in gpuwords.ranges(indices).split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    assert found == indices


@pytest.mark.parametrize(
    ("bus_id", "short"),
    [
        ("00000000:C1:00.0", "0000:c1:00.0"),
        ("0000:01:00.0", "0000:01:00.0"),
        ("00010000:01:00.0", "00010000:01:00.0"),
    ],
)
def test_pci_addresses_as_lspci_writes_them(bus_id: str, short: str) -> None:
    assert gpuwords.short_pci(bus_id) == short
