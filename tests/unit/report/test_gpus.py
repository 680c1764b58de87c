from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.gpustates import CONTAINER, OLD, OURS, PROCESS, snapshot, state

from vaultcube.gpu.leases import Holder
from vaultcube.gpu.readings import Level, Link
from vaultcube.report.gpus import show, text
from vaultcube.stack.snapshot import Snapshot

FOUR = """\
4 x NVIDIA GeForce RTX 5090; driver 580.95.05, CUDA up to 13.0
SIMULATED: the GPUs are not real ones

GPU  MEMORY GiB  UTIL %  TEMP C  POWER W  PCIE NOW/MAX  HELD BY
0    30.0/31.8   99      71/90   556/575  5x16/5x16     ddp-20260101-120000-ab12
1    0.5/31.8    0       31/90   12/575   1x16/5x16     container trainer,
                                                        process 4711 python3
2    30.0/31.8   99      71/90   556/575  5x16/5x16     free
3    -           -       -       -        -             LOST, held by container
                                                        trainer
next: Read the kernel log (sudo dmesg | grep -E 'NVRM|AER'), then reboot: only
that brings a lost GPU back.

GPU  UUID                                      PCI           CC    NUMA
0    GPU-00000000-aaaa-bbbb-cccc-000000000000  0000:01:00.0  12.0  0
1    GPU-00000001-aaaa-bbbb-cccc-000000000001  0000:02:00.0  12.0  0
2    GPU-00000002-aaaa-bbbb-cccc-000000000002  0000:03:00.0  12.0  1
3    GPU-00000003-aaaa-bbbb-cccc-000000000003  0000:04:00.0  12.0  1

GPU 0-3  NVIDIA GeForce RTX 5090, 31.8 GiB
         computed limits: memory 1792 GB/s, tensor bf16 269.0 TFLOPS at 3090 MHz
         ECC -, MIG -, persistence mode off

      GPU0  GPU1  GPU2  GPU3  NUMA
GPU0  X     NODE  SYS   SYS   0
GPU1  NODE  X     SYS   SYS   0
GPU2  SYS   SYS   X     NODE  1
GPU3  SYS   SYS   NODE  X     1
NODE: host bridges of one NUMA node
SYS: from one NUMA node to another
P2P reads: GNS (not supported by the GPUs) for all pairs
"""
OLD_CARD = """\
1 x NVIDIA GeForce GTX 1060 6GB; driver 580.95.05, CUDA up to -

GPU  MEMORY GiB  UTIL %  TEMP C  POWER W  PCIE NOW/MAX  HELD BY
0    -/6.0       -       -/-     -/-      -/3x16        unknown
Containers are not counted: there is no docker command on the PATH
a note

GPU  UUID                                      PCI           CC   NUMA
0    GPU-00000000-aaaa-bbbb-cccc-000000000000  0000:01:00.0  6.1  -

GPU 0  NVIDIA GeForce GTX 1060 6GB, 6.0 GiB
       computed limits: memory -, tensor bf16 -
       ECC -, MIG -, persistence mode -
"""


def test_four_of_the_customers_box() -> None:
    idle: dict[str, Any] = {
        "memory_used_bytes": 2**29,
        "utilisation_percent": 0,
        "temperature_c": 31,
        "power_mw": 12_005,
    }
    seen = snapshot(
        state(0, holders=[OURS]),
        state(1, holders=[CONTAINER, PROCESS], pcie_gen=1, **idle),
        state(2),
        state(3, problem="lost", holders=[CONTAINER]),
        simulated=True,
    )
    assert text(seen) == FOUR


def test_an_old_card_where_there_is_no_engine() -> None:
    card = OLD | {
        "memory_total_bytes": 6 << 30,
        "memory_bus_bits": None,
        "pcie_gen_max": 3,
        "power_limit_mw": None,
        "temperature_limit_c": None,
        "numa_node": None,
        "persistence": None,
    }
    seen = snapshot(
        state(silent=True, card=card),
        cuda=None,
        holders_reason="there is no docker command on the PATH",
        notes=("a note",),
    )
    assert text(seen) == OLD_CARD


def test_no_driver_is_told_with_what_to_do() -> None:
    seen = Snapshot(problem="no-library", reason="NVML: NVML Shared Library Not Found")
    assert text(seen) == (
        "no GPUs: NVML: NVML Shared Library Not Found\n"
        "  next: Install the NVIDIA driver, or go on without: every verb works on the\n"
        "    CPU.\n"
    )
    assert "reboot" in text(Snapshot(problem="mismatch", reason="NVML: Driver/library version mismatch"))


def test_a_driver_without_gpus() -> None:
    told = text(snapshot(reason="the driver lists no GPU", simulated=True))
    assert told.startswith("no GPUs: the driver lists no GPU (driver 580.95.05)\n  next: See whether")
    assert told.endswith("SIMULATED: the GPUs are not real ones\n")


def test_a_gpu_that_was_lost_before_is_a_row() -> None:
    told = text(snapshot(state(0), missing=((1, "lost"), (2, "unknown"))))
    assert told.startswith("1 x NVIDIA GeForce RTX 5090, 2 that do not answer; ")
    assert "\n1    -           -       -       -        -             LOST\n" in told
    assert "\n2    -           -       -       -        -             unknown\n" in told
    alone = text(snapshot(missing=((0, "lost"),), reason="the driver lists 1 GPU(s), and none answers"))
    assert alone.startswith("1 that does not answer; driver 580.95.05")


def test_cards_of_two_kinds_are_described_apart() -> None:
    h100 = {"name": "NVIDIA H100 80GB HBM3", "compute_capability": "9.0", "ecc": True, "mig": True}
    told = text(snapshot(state(0), state(1, card=h100, ecc_uncorrected=2), state(2)))
    assert "2 x NVIDIA GeForce RTX 5090, 1 x NVIDIA H100 80GB HBM3; driver" in told
    assert "\nGPU 0,2  NVIDIA GeForce RTX 5090, 31.8 GiB\n" in told
    assert "\nGPU 1  NVIDIA H100 80GB HBM3, 31.8 GiB\n" in told
    assert "ECC on (2 uncorrected), MIG on (not supported here: whole GPUs only)" in told


def joined(level: Level | None, nvlinks: int, *p2p: str | None) -> str:
    seen = snapshot(*(state(index) for index in range(3)))
    links = (link._replace(level=level, nvlinks=nvlinks, p2p=word) for link, word in zip(seen.links, p2p, strict=True))
    return text(seen._replace(links=tuple(links)))


def test_nvlinks_are_counted_and_p2p_that_differs_is_told_by_pair() -> None:
    told = joined("NV", 18, "OK", "OK", "TNS")
    assert "GPU0  X     NV18  NV18  0\n" in told
    assert "NV: NVLink, and how many of them\n" in told
    assert "P2P reads: OK for pairs 0-1, 0-2\n" in told
    assert "P2P reads: TNS (not supported by the topology) for pairs 1-2\n" in told


def test_what_the_driver_does_not_tell_of_a_pair_is_a_dash() -> None:
    told = joined(None, 0, None, None, None)
    assert "GPU0  X     -     -     0\n" in told
    assert "P2P reads: - for all pairs\n" in told


def test_one_gpu_has_no_topology() -> None:
    assert "P2P" not in text(snapshot(state()))


def test_lost_and_simulated_stand_out_in_colour() -> None:
    seen = snapshot(state(0, problem="lost"), simulated=True)
    assert "\x1b[1;31mLOST\x1b[0m" in text(seen, color=True)
    assert "\x1b[1;33mSIMULATED" in text(seen, color=True)
    assert "\x1b" not in text(seen)


NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=70)
HOLDERS = st.lists(st.builds(Holder, st.just("container"), NAMES, st.just(""), st.none(), NAMES), max_size=3)


@given(st.lists(HOLDERS, min_size=1, max_size=16), st.sampled_from([None, "GPU 7 is not here " * 9]), NAMES)
def test_nothing_is_wider_than_80_columns_and_no_name_is_cut(
    held: list[list[Holder]], reason: str | None, driver: str
) -> None:
    seen = snapshot(
        *(state(index, holders=holders) for index, holders in enumerate(held)), holders_reason=reason, driver=driver
    )
    told = text(seen)
    assert max(map(len, told.splitlines())) <= 80
    # Where it was wrapped, only spaces and ends of lines were put in between.
    squeezed = "".join(line[56:].strip() for line in told.splitlines())
    for holders in held:
        for one in holders:
            assert one.name.strip(",") in squeezed


def test_a_stream_gets_the_table_or_one_document() -> None:
    seen = snapshot(state())
    assert show(seen, io.StringIO(), as_json=False) == text(seen)
    assert json.loads(show(seen, io.StringIO(), as_json=True))["schema"] == "vaultcube.gpus/1"


@pytest.mark.parametrize("count", [1, 2, 8, 9, 16])
def test_every_pair_is_in_the_topology_once_each_way(count: int) -> None:
    seen = snapshot(*(state(index) for index in range(count)))
    rows = [line.split() for line in text(seen).splitlines() if line.startswith("GPU") and " X " in f"{line} "]
    assert len(rows) == (count if count > 1 else 0)
    assert Link("a", "b", "PIX", 0, "OK") not in seen.links
