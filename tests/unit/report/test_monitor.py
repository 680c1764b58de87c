from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tests.unit.gpustates import CONTAINER, NOON, OLD, OURS, PROCESS, frame, snapshot, state

from vaultcube.gpu.readings import Problem
from vaultcube.report.graphs import ASCII, BLOCKS, Glyphs
from vaultcube.report.monitor import picture
from vaultcube.stack.snapshot import GpuState, Process, Snapshot
from vaultcube.stack.system import System
from vaultcube.stack.watch import Frame, SeenXid

BASH = Process(4711, "compute", 3 << 30, "python3", "ada")
GONE = Process(4712, "graphics", None, None, None)

AT_80 = """\
vaultcube monitor  driver 580.95.05  CUDA 13.0               2026-01-01 12:00:00
load 3.50 2.25 1.00 on 64 CPUs   memory 56/256 GiB   disk 812 GiB free
SIMULATED: the GPUs are not real ones

GPU 0  NVIDIA GeForce RTX 5090                          ddp-20260101-120000-ab12
  util   99 %        ▅▅▅▅▅▅▆▆▆▆▆▆▆▇▇▇▇▇▇▇███  memory ███████████▎ 30.0/31.8 GiB
  power  556/575 W   ▅▅▅▅▅▅▆▆▆▆▆▆▆▇▇▇▇▇▇▇███  clock  2580/3090 MHz  power cap
  temp   71/90 C     ▅▅▅▅▅▅▅▅▅▆▆▆▆▆▆▆▆▆▇▇▇▇▇  PCIe   5x16 of 5x16  0 replays
  4711 python3 (ada)  3.0 GiB  compute

GPU 1  NVIDIA GeForce RTX 5090                                 container trainer
  util   99 %        ▅▅▅▅▅▅▆▆▆▆▆▆▆▇▇▇▇▇▇▇███  memory ███████████▎ 30.0/31.8 GiB
  power  556/575 W   ▅▅▅▅▅▅▆▆▆▆▆▆▆▇▇▇▇▇▇▇███  clock  2580/3090 MHz  power cap
  temp   92/90 C     ▅▅▅▅▅▅▅▅▅▆▆▆▆▆▆▆▆▆▇▇▇▇▇  PCIe   5x4 of 5x16  188 replays
  SLOWED BY hardware slowdown, software thermal slowdown, hardware thermal
    slowdown, power brake
  4712 -  graphics

GPU 2  NVIDIA GeForce RTX 5090
  LOST since 11:59:00, at 0000:03:00.0

12:00:00 Xid 79 on GPU 2: GPU has fallen off the bus
"""
NARROW = """\
vaultcube monitor  driver 580.95.05  CUDA 13.0
2026-01-01 12:00:00   load 3.50 2.25 1.00 on 64 CPUs
memory 56/256 GiB   disk 812 GiB free

GPU 0  NVIDIA GeForce RTX 5090      ddp-20260101-120000-ab12
  util   99 %        #######################################
  power  556/575 W   #######################################
  temp   71/90 C     #######################################
  memory ###########. 30.0/31.8 GiB
  clock  2580/3090 MHz  power cap
  PCIe   5x16 of 5x16  0 replays
"""
ROWS = """\
vaultcube monitor  driver 580.95.05  CUDA 13.0               2026-01-01 12:00:00
load 3.50 2.25 1.00 on 64 CPUs   memory 56/256 GiB   disk 812 GiB free
GPU            UTIL %   MEMORY GiB  TEMP C  POWER W   MHz  PCIE  HELD BY
  0  ▇▇▇▇▇███      99    30.0/31.8   71/90  556/575  2580  5x16  ddp-20260101-12
  1  ▇▇▇▇▇███      99    30.0/31.8   71/90  556/575  2580  5x16  free
  2  does not answer (unknown), held by container trainer
  3  ▇▇▇▇▇███       -       -/31.8    -/90    -/575     -     -  free
GPU 1 slowed by power brake
"""


def box(**changes: Any) -> Snapshot:
    hot: dict[str, Any] = {
        "temperature_c": 92,
        "temperature_margin_c": -2,
        "clock_events": 0xEC,
        "pcie_width": 4,
        "pcie_replays": 188,
    }
    return snapshot(
        state(0, holders=[OURS], processes=[BASH]),
        state(1, holders=[CONTAINER], processes=[GONE], **hot),
        state(2, problem="lost"),
        **changes,
    )


def rows() -> Snapshot:
    broken: Problem = "unknown"
    return snapshot(
        state(0, holders=[OURS]),
        state(1, clock_events=0x80),
        state(2, problem=broken, holders=[CONTAINER]),
        state(3, silent=True),
    )


def lines(found: Frame, width: int = 80, height: int | None = None, glyphs: Glyphs = BLOCKS, **more: Any) -> list[str]:
    return picture(found, width, height, glyphs=glyphs, **more).plain.splitlines()


def test_at_80_columns() -> None:
    seen = box(simulated=True)
    lost = {seen.gpus[2].info.uuid: NOON - timedelta(minutes=1)}
    found = frame(seen, lost=lost, xids=(SeenXid(NOON, 2, 79),))
    assert picture(found, 80).plain + "\n" == AT_80


def test_narrow_and_without_blocks() -> None:
    found = frame(snapshot(state(0, holders=[OURS])))
    full = {uuid: history._replace(utilisation=(100,) * 60) for uuid, history in found.histories.items()}
    full = {u: h._replace(power_mw=(575_000,) * 60, temperature_c=(90,) * 60) for u, h in full.items()}
    assert picture(found._replace(histories=full), 60, glyphs=ASCII).plain + "\n" == NARROW


def test_one_line_a_gpu_where_blocks_do_not_fit() -> None:
    assert picture(frame(rows()), 80, 10).plain + "\n" == ROWS


def test_at_200_columns_two_are_beside_each_other() -> None:
    told = lines(frame(snapshot(*(state(index) for index in range(4)))), 200)
    assert [line.count("GPU ") for line in told if line.startswith("GPU ")] == [2, 2]
    (first, *_) = (line for line in told if line.startswith("GPU 0"))
    assert first[101:107] == "GPU 1 "
    assert max(map(len, told)) <= 200


def test_a_16_gpu_box_fits_a_common_terminal() -> None:
    told = lines(frame(snapshot(*(state(index) for index in range(16)))), 80, 24)
    assert len(told) <= 24
    assert [line.split()[0] for line in told[-16:]] == [str(index) for index in range(16)]


def test_four_gpus_with_a_process_each_are_blocks_on_a_common_terminal() -> None:
    seen = snapshot(*(state(index, processes=[BASH]) for index in range(4)))
    told = lines(frame(seen), 80, 24)
    assert sum(line.startswith("GPU ") for line in told) == 4
    assert sum("python3" in line for line in told) == 4


def test_where_room_is_scarce_only_some_processes_are_shown_and_the_rest_counted() -> None:
    seen = snapshot(*(state(index, processes=[BASH._replace(pid=at) for at in range(9)]) for index in range(2)))
    told = lines(frame(seen), 80, 24)
    assert sum("python3" in line for line in told) == 4
    assert told.count("  and 7 more processes") == 2
    assert sum("python3" in line for line in lines(frame(seen))) == 18


def test_one_line_a_gpu_has_its_processes_below_where_they_fit() -> None:
    seen = snapshot(*(state(index, processes=[BASH]) for index in range(8)))
    told = lines(frame(seen), 80, 24)
    assert told[-1] == "GPU 7:  4711 python3 (ada)  3.0 GiB  compute"
    assert told[-10:-8] == ["  7  ▇▇▇▇▇███      99    30.0/31.8   71/90  556/575  2580  5x16  free", ""]
    assert "python3" not in "\n".join(lines(frame(seen), 80, 16))
    # What a wide terminal has left is shared between the past and the holder.
    assert lines(frame(rows()), 100, 10)[3].startswith("  0  ▅▆▆▆▆▆▆▆▇▇▇▇▇▇▇███      99  ")


def test_what_does_not_fit_is_said_to_be_there() -> None:
    told = lines(frame(rows()), 80, 5)
    assert len(told) == 5
    assert told[-1] == "... 4 more lines: make the terminal taller"
    assert lines(frame(rows()), 80, 1) == ["... 8 more lines: make the terminal taller"]


@pytest.mark.parametrize("problem", ["no-library", "no-driver", "mismatch", "permission", "unknown"])
def test_without_nvml_it_says_why_since_when_and_what_to_do(problem: Problem) -> None:
    told = "\n".join(lines(frame(Snapshot(problem=problem, reason="NVML: its words"), down_since=NOON)))
    assert "no GPUs: NVML: its words (since 12:00:00; asked again all the time)" in told
    assert "next: " in told
    assert "driver -  CUDA -" in told


def test_no_gpu_and_one_that_was_lost_before() -> None:
    assert "no GPUs: the driver lists no GPU" in lines(frame(snapshot(reason="the driver lists no GPU")))
    told = lines(frame(snapshot(state(0), missing=((1, "lost"), (2, "unknown")))))
    assert "GPU 1  LOST" in told
    assert "GPU 2  unknown" in told


def test_what_was_not_asked_or_does_not_answer_is_said() -> None:
    seen = snapshot(state(0), holders_reason="there is no docker command on the PATH")
    told = lines(frame(seen), notes=["Nothing has answered for 9 s; this is how it was."])
    assert "containers are not counted: there is no docker command on the PATH" in told
    assert "Nothing has answered for 9 s; this is how it was." in told
    assert any(line.startswith("GPU 0") and line.endswith(" unknown") for line in told)


def test_sensors_that_are_not_there_are_dashes_and_gaps() -> None:
    card = OLD | {"temperature_limit_c": None, "power_limit_mw": None, "pcie_gen_max": None, "pcie_width_max": None}
    seen = snapshot(state(0, silent=True, card=card))
    told = lines(frame(seen, histories={}))
    assert "  util   - %                                  memory              -/31.8 GiB" in told
    assert "  power  -/- W                                clock  -/3090 MHz" in told
    assert "  temp   -/- C                                PCIe   - of -  - replays" in told


def test_an_xid_of_an_unknown_gpu_and_code() -> None:
    told = lines(frame(snapshot(state(0)), xids=(SeenXid(NOON, None, 999), SeenXid(NOON, 0, 31))))
    assert told[-2:] == [
        "12:00:00 Xid 999 on a GPU: not in Vault Cube's table",
        "12:00:00 Xid 31 on GPU 0: GPU memory page fault",
    ]


def test_a_system_that_tells_nothing() -> None:
    nothing = System(None, None, None, None, None, None, "/runs", None, None)
    told = lines(frame(snapshot(state(0)), system=nothing))
    assert told[1] == "load - - - on - CPUs   memory -/- GiB   disk - GiB free"


def test_a_long_holder_has_lines_of_its_own() -> None:
    name = "a-container-whose-name-goes-on-and-on"
    holders = [CONTAINER._replace(name=name), CONTAINER._replace(name=f"{name}-2"), PROCESS]
    told = lines(frame(snapshot(state(0, holders=holders))))
    at = told.index("GPU 0  NVIDIA GeForce RTX 5090")
    assert " ".join(told[at + 1 : at + 3]).split() == (
        f"container {name}, container {name}-2, process 4711 python3".split()
    )


STATES = st.sampled_from(
    [
        state(0),
        state(1, holders=[OURS, PROCESS], processes=[BASH] * 7),
        state(2, problem="lost"),
        state(3, silent=True),
        state(
            4, clock_events=0x7FF, temperature_margin_c=0, pcie_replays=10**9, processes=[GONE._replace(name="試" * 60)]
        ),
        state(5, card={"name": "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition"}),
    ]
)


@given(
    states=st.lists(STATES, max_size=16, unique_by=lambda one: one.info.uuid),
    width=st.integers(1, 220),
    height=st.none() | st.integers(1, 60),
    glyphs=st.sampled_from([BLOCKS, ASCII]),
    simulated=st.booleans(),
)
def test_a_picture_never_leaves_its_frame(
    *, states: list[GpuState], width: int, height: int | None, glyphs: Glyphs, simulated: bool
) -> None:
    found = frame(snapshot(*states, simulated=simulated), xids=(SeenXid(NOON, 0, 79),) * 5)
    told = picture(found, width, height, glyphs=glyphs)
    assert height is None or len(told.plain.split("\n")) <= height
    assert all(line.cell_len <= width for line in told.split("\n"))


def test_colour_is_only_paint() -> None:
    """The same text with and without: nothing is told by colour alone."""
    found = frame(box(simulated=True))
    painted, plain = io.StringIO(), io.StringIO()
    for stream, system in ((painted, "truecolor"), (plain, None)):
        console = Console(file=stream, width=80, force_terminal=system is not None, color_system=system, no_color=False)  # type: ignore[arg-type]
        console.print(picture(found, 80))
    assert "\x1b[1;31m" in painted.getvalue()
    assert "\x1b" not in plain.getvalue()
    assert plain.getvalue() == picture(found, 80).plain + "\n"
