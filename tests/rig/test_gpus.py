"""`vaultcube gpus` on every simulated machine, and with every fault."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.docker.conftest import ROOT, Vaultcube
from tests.rig.box import Box
from tests.rig.engine import RigEngine
from tests.rig.inside import still_box
from tests.rig.profiles import LAYOUTS

from vaultcube.report.gpuwords import NEXT_STEPS, NO_GPU
from vaultcube.results.gpus import GpusDocument

SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "docs/schema/gpus.schema.json").read_text()))


@pytest.fixture
def box(tmp_path: Path, request: pytest.FixtureRequest) -> Box:
    """Return a machine whose sensors do not waver: tests here compare whole lines."""
    return still_box(tmp_path / "box", getattr(request, "param", "4x5090"))


def table(vaultcube: Vaultcube, **env: str) -> str:
    seen = vaultcube("gpus", timeout=60, **env)
    assert (seen.returncode, seen.stderr) == (0, "")
    assert max(map(len, seen.stdout.splitlines())) <= 80
    return seen.stdout


def document(vaultcube: Vaultcube, **env: str) -> dict[str, Any]:
    """Return what --json prints, held to what was published: no key more, none less."""
    seen = vaultcube("gpus", "--json", timeout=60, **env)
    assert (seen.returncode, seen.stderr) == (0, "")
    found: dict[str, Any] = json.loads(seen.stdout)
    SCHEMA.validate(found)
    assert GpusDocument.model_validate(found).model_dump(mode="json", by_alias=True) == found
    return found


@pytest.mark.parametrize("box", LAYOUTS, indirect=True)
def test_every_machine_is_told_whole_and_as_simulated(box: Box, vaultcube: Vaultcube) -> None:
    told, text = document(vaultcube), table(vaultcube)
    assert told["simulated"] is True
    assert "SIMULATED: the GPUs are not real ones\n" in text
    assert [gpu["uuid"] for gpu in told["gpus"]] == box.uuids
    count = len(box.uuids)
    assert len(told["links"]) == count * (count - 1) // 2
    assert told["driver"] == box.layout.driver
    assert (told["problem"], told["missing"], told["holders_reason"]) == (None, [], None)
    for gpu in told["gpus"]:
        assert gpu["uuid"] in text
        assert gpu["problem"] is None
    if not count:
        assert text.startswith(f"no GPUs: the driver lists no GPU (driver {box.layout.driver})\n  next: {NO_GPU[:40]}")


FOUR = """\
4 x NVIDIA GeForce RTX 5090; driver 580.95.05, CUDA up to 13.0
SIMULATED: the GPUs are not real ones

GPU  MEMORY GiB  UTIL %  TEMP C  POWER W  PCIE NOW/MAX  HELD BY
0    0.5/31.8    99      71/90   556/575  5x16/5x16     free
1    0.5/31.8    0       31/90   12/575   1x16/5x16     free
2    0.5/31.8    0       31/90   12/575   1x16/5x16     free
3    0.5/31.8    0       31/90   12/575   1x16/5x16     free
"""


def test_the_customers_box(box: Box, vaultcube: Vaultcube) -> None:
    box.load(0)
    text = table(vaultcube)
    assert text.startswith(FOUR)
    assert "\nGPU 0-3  NVIDIA GeForce RTX 5090, 31.8 GiB\n" in text
    assert "computed limits: memory 1792 GB/s, tensor bf16 269.0 TFLOPS at 3090 MHz\n" in text
    assert "ECC -, MIG -, persistence mode off\n" in text
    assert "P2P reads: GNS (not supported by the GPUs) for all pairs\n" in text
    gpu = document(vaultcube)["gpus"][0]
    # GeForce has neither, and the card says so.
    assert (gpu["ecc"], gpu["ecc_uncorrected"], gpu["memory_temperature_celsius"]) == (None, None, None)
    assert (gpu["power_watts"], gpu["power_limit_watts"]) == (556, 575)
    assert gpu["clock_events"] == ["power cap"]
    assert gpu["throttled"] is False
    assert gpu["computed"]["memory_bandwidth_bytes_per_s"] == 2 * 14001e6 * 512 / 8


@pytest.mark.parametrize("box", ["8xh100"], indirect=True)
def test_a_server_with_nvlink_and_ecc(box: Box, vaultcube: Vaultcube) -> None:
    text, told = table(vaultcube), document(vaultcube)
    assert "GPU0  X     NV18  NV18  NV18  NV18  NV18  NV18  NV18  0\n" in text
    assert "ECC on (0 uncorrected), MIG off, persistence mode on\n" in text
    assert "P2P reads: OK for all pairs\n" in text
    assert {(link["level"], link["nvlinks"], link["p2p"]) for link in told["links"]} == {("NV", 18, "OK")}
    assert {gpu["numa_node"] for gpu in told["gpus"]} == {0, 1}
    assert told["gpus"][0]["memory_temperature_celsius"] is not None
    box.mig(3, 7)
    told = document(vaultcube)
    assert [gpu["mig"] for gpu in told["gpus"]].index(True) == 3
    assert told["gpus"][3]["utilisation_percent"] is None
    assert "MIG on (not supported here: whole GPUs only)" in table(vaultcube)


@pytest.mark.parametrize("box", ["1xold"], indirect=True)
@pytest.mark.usefixtures("box")
def test_an_old_card_has_dashes_and_no_topology(vaultcube: Vaultcube) -> None:
    text, gpu = table(vaultcube), document(vaultcube)["gpus"][0]
    assert "tensor bf16 -\n" in text
    assert "P2P" not in text
    assert gpu["energy_joules"] is None
    assert gpu["computed"]["tensor_peak_flop_per_s"] is None
    # Its limit is the threshold that cards had before they told their margin.
    assert gpu["temperature_limit_celsius"] == 99


# --- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("xid", [True, False])
def test_a_lost_gpu_is_listed_as_lost(box: Box, vaultcube: Vaultcube, xid: bool) -> None:  # noqa: FBT001
    box.lose(2, xid=xid)
    told, text = document(vaultcube), table(vaultcube)
    assert [gpu["index"] for gpu in told["gpus"]] == [0, 1, 3]
    assert told["missing"] == [{"index": 2, "problem": "lost"}]
    assert told["next_step"] == NEXT_STEPS["lost"]
    assert "\n2    -           -       -       -        -             LOST\n" in text
    assert "1 that does not answer" in text
    assert len(told["links"]) == 3


def test_all_lost(box: Box, vaultcube: Vaultcube) -> None:
    for index in range(4):
        box.lose(index, xid=False)
    told, text = document(vaultcube), table(vaultcube)
    assert (told["gpus"], len(told["missing"])) == ([], 4)
    assert told["reason"] == "the driver lists 4 GPU(s), and none answers"
    assert text.count("LOST\n") == 4


@pytest.mark.parametrize(
    ("fault", "problem", "words"),
    [
        (Box.driver_mismatch, "mismatch", "reboot"),
        (Box.permission_denied, "permission", "/dev/nvidia"),
    ],
)
def test_a_driver_that_does_not_start(box: Box, vaultcube: Vaultcube, fault: Any, problem: str, words: str) -> None:
    fault(box)
    told, text = document(vaultcube), table(vaultcube)
    assert (told["gpus"], told["problem"], told["driver"]) == ([], problem, None)
    assert told["simulated"] is True
    assert words in told["next_step"]
    assert text.startswith(f"no GPUs: {told['reason']}\n  next: ")
    box.heal()
    assert len(document(vaultcube)["gpus"]) == 4


def test_no_driver_at_all(vaultcube: Vaultcube) -> None:
    plain = {"LD_LIBRARY_PATH": "", "PATH": os.environ["PATH"]}
    told = document(vaultcube, **plain)
    if told["gpus"]:
        pytest.fail("this machine has GPUs of its own: run these tests where there are none")
    assert (told["simulated"], told["problem"]) == (False, "no-library")
    assert "SIMULATED" not in table(vaultcube, **plain)


def test_what_slows_a_gpu_down_and_what_is_wrong_with_its_link(box: Box, vaultcube: Vaultcube) -> None:
    box.thermal_slowdown(0)
    box.power_brake(1)
    box.pcie_width(2, 4)
    box.set(jitter=0)
    box.hot(3)
    told, text = document(vaultcube)["gpus"], table(vaultcube)
    assert [gpu["throttled"] for gpu in told] == [True, True, False, False]
    assert "hardware thermal slowdown" in told[0]["clock_events"]
    assert "power brake" in told[1]["clock_events"]
    assert told[2]["pcie_width"] == 4
    assert "1x4/5x16" in text
    assert told[3]["temperature_celsius"] == told[3]["temperature_limit_celsius"] - 1


def test_replays_are_counted(box: Box, vaultcube: Vaultcube) -> None:
    box.set_gpu(1, pcie_replay=12)
    assert [gpu["pcie_replays"] for gpu in document(vaultcube)["gpus"]] == [0, 12, 0, 0]


# --- who holds it -------------------------------------------------------------------------------------------------


def test_a_process_holds_its_gpu_and_is_told_until_it_ends(box: Box, vaultcube: Vaultcube) -> None:
    pid = os.getpid()
    name = Path("/proc/self/comm").read_text().strip()
    box.add_process(1, pid, 3 << 30)
    box.add_process(2, pid, 1 << 30, kind="graphics")
    gpus = document(vaultcube)["gpus"]
    assert gpus[1]["holders"] == [{"kind": "process", "name": name, "run": None, "pid": pid}]
    assert gpus[1]["processes"][0]["memory_bytes"] == 3 << 30
    # A desktop draws on a GPU and does not hold it.
    assert gpus[2]["holders"] == []
    assert gpus[2]["processes"][0]["kind"] == "graphics"
    assert f"process {pid} {name}" in " ".join(table(vaultcube).split())
    box.clear_processes(1)
    assert document(vaultcube)["gpus"][1]["holders"] == []


def test_a_process_that_ended_in_between_has_no_name(box: Box, vaultcube: Vaultcube) -> None:
    gone = 2**22 + 7
    box.add_process(0, gone, 1 << 30)
    (process,) = document(vaultcube)["gpus"][0]["processes"]
    assert (process["pid"], process["name"], process["user"]) == (gone, None, None)
    assert f"process {gone}" in table(vaultcube)


def test_without_an_engine_containers_are_not_known_and_processes_are(box: Box, vaultcube: Vaultcube) -> None:
    box.add_process(0, os.getpid(), 1 << 30)
    told = document(vaultcube, DOCKER_HOST="unix:///nonsuch/docker.sock")
    assert told["holders_reason"].startswith("no Docker engine answers")
    assert told["gpus"][0]["holders"][0]["pid"] == os.getpid()
    text = table(vaultcube, DOCKER_HOST="unix:///nonsuch/docker.sock")
    assert "Containers are not counted: no Docker engine answers" in text
    assert text.splitlines()[-1]
    assert "\n1    0.5/31.8    0       31/90   12/575   1x16/5x16     unknown\n" in text


def test_without_docker_there_is_no_error(box: Box, vaultcube: Vaultcube) -> None:
    told = document(vaultcube, PATH=f"{box.path}/bin")
    assert told["holders_reason"] == "there is no docker command on the PATH"
    assert len(told["gpus"]) == 4


@pytest.mark.parametrize("way", ["hook", "cdi"])
def test_containers_hold_what_they_asked_for(way: str, request: pytest.FixtureRequest) -> None:
    engine: RigEngine = request.getfixturevalue(f"rig_{way}")
    box: Box = request.getfixturevalue("box")
    vaultcube: Vaultcube = request.getfixturevalue("vaultcube")
    pins = ["--device", f"nvidia.com/gpu={box.uuids[1]}"] if way == "cdi" else ["--gpus", f"device={box.uuids[1]}"]
    image = ["vaultcube/pytorch:cu128", "sleep", "600"]
    run = ["run", "--detach", "--init", "--network", "none", "--name"]
    engine.ask(*run, "somebody-elses", *pins, *image)
    label = ["--label", "io.vaultcube.run=ddp-20260101-120000-ab12"]
    engine.ask(*run, "ours", *label, *pins, *image)
    holders = [gpu["holders"] for gpu in document(vaultcube)["gpus"]]
    assert [len(found) for found in holders] == [0, 2, 0, 0]
    assert {(one["name"], one["run"]) for one in holders[1]} == {
        ("somebody-elses", None),
        ("ours", "ddp-20260101-120000-ab12"),
    }
    text = table(vaultcube)
    assert "ddp-20260101-120000-ab12" in text
    engine.ask("rm", "--force", "somebody-elses", "ours")
    assert all(gpu["holders"] == [] for gpu in document(vaultcube)["gpus"])
