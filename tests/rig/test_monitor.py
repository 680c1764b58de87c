"""`vaultcube monitor` over simulated machines: on a terminal of 80 columns, with every fault, and printed once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.docker.conftest import ROOT, Vaultcube
from tests.rig.box import Box
from tests.rig.engine import RigEngine
from tests.rig.inside import still_box
from tests.rig.profiles import LAYOUTS
from tests.unit.terminals import Terminal

from vaultcube.report.gpuwords import NEXT_STEPS
from vaultcube.results.gpus import MonitorDocument

SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "docs/schema/monitor.schema.json").read_text()))


@pytest.fixture
def box(tmp_path: Path, request: pytest.FixtureRequest) -> Box:
    """Return a machine whose sensors do not waver, and whose changes are seen at once."""
    return still_box(tmp_path / "box", getattr(request, "param", "4x5090"))


@pytest.fixture
def terminal(box: Box, vaultcube: Vaultcube) -> Iterator[Terminal]:
    """Return the view on a terminal of 80 columns and 24 lines, in the box."""
    argv = vaultcube.argv("monitor", "--interval", "0.1")
    env = {**vaultcube.environment(box.env()), "TERM": "xterm-256color"}
    env.pop("COLUMNS", None)
    with Terminal(argv, env) as found:
        yield found
        found.press("q")
        assert found.end() == 0
        assert found.clean()
        assert "Traceback" not in found.raw


def once(vaultcube: Vaultcube, **env: str) -> str:
    seen = vaultcube("monitor", "--once", timeout=60, **env)
    assert (seen.returncode, seen.stderr) == (0, "")
    return seen.stdout


def document(vaultcube: Vaultcube) -> dict[str, Any]:
    """Return what --once --json prints, held to what was published: no key more, none less."""
    seen = vaultcube("monitor", "--once", "--json", timeout=60)
    assert (seen.returncode, seen.stderr) == (0, "")
    found: dict[str, Any] = json.loads(seen.stdout)
    SCHEMA.validate(found)
    read = MonitorDocument.model_validate(found).model_dump(mode="json", by_alias=True)
    assert {**read, "time": found["time"]} == found
    return found


# --- once ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("box", LAYOUTS, indirect=True)
def test_every_machine_once(box: Box, vaultcube: Vaultcube) -> None:
    told, text = document(vaultcube), once(vaultcube, COLUMNS="80")
    assert told["simulated"] is True
    assert "SIMULATED: the GPUs are not real ones\n" in text
    assert [gpu["uuid"] for gpu in told["gpus"]] == box.uuids
    assert text.count("\nGPU ") == len(box.uuids)
    assert told["system"]["cpus"] == os.cpu_count()
    assert told["system"]["disk_free_bytes"] > 0
    assert all(max(map(len, once(vaultcube, COLUMNS=str(width)).splitlines())) <= width for width in (60, 80, 200))


def test_what_cannot_be_written_is_written_otherwise(box: Box, vaultcube: Vaultcube) -> None:
    box.load()
    text = once(vaultcube, PYTHONIOENCODING="ascii", COLUMNS="80")
    assert text.isascii()
    assert "  util   99 %" in text


def test_no_driver_once(vaultcube: Vaultcube) -> None:
    text = once(vaultcube, LD_LIBRARY_PATH="", PATH=os.environ["PATH"])
    assert "no GPUs: NVML: " in text
    assert "SIMULATED" not in text
    assert "load " in text


@pytest.mark.parametrize("box", ["1xold"], indirect=True)
@pytest.mark.usefixtures("box")
def test_an_old_card_once(vaultcube: Vaultcube) -> None:
    gpu = document(vaultcube)["gpus"][0]
    assert (gpu["energy_joules"], gpu["power_watts"] is not None) == (None, True)


# --- the view -----------------------------------------------------------------------------------------------------


def test_it_follows_the_gpus(box: Box, terminal: Terminal) -> None:
    terminal.shows("SIMULATED", "GPU 0  NVIDIA GeForce RTX 5090", "GPU 3", "util   0 %", "clock  180/3090 MHz  idle")
    assert terminal.fits(80, 24)
    box.load(1)
    terminal.shows(
        "util   99 %", "power  556/575 W", "temp   71/90 C", "clock  2580/3090 MHz  power cap", "5x16 of 5x16"
    )
    # What was before is left of what is now.
    terminal.until(lambda: any("▁█" in line for line in terminal.picture))
    box.idle(1)
    terminal.until(lambda: any("█▁" in line for line in terminal.picture))


def test_it_follows_its_own_size(box: Box, terminal: Terminal) -> None:
    box.load()
    terminal.shows("GPU 3", "util   99 %")
    terminal.resize(200, 40)
    terminal.until(lambda: any(line.count("GPU ") == 2 for line in terminal.picture))
    terminal.resize(60, 12)
    terminal.until(lambda: terminal.fits(60, 12))
    terminal.shows("GPU  UTIL %", "HELD BY")
    terminal.resize(80, 24)
    terminal.shows("util   99 %")


@pytest.mark.parametrize("box", ["16x5090"], indirect=True)
def test_sixteen_gpus_have_a_line_each(box: Box, terminal: Terminal) -> None:
    terminal.shows("GPU            UTIL %", "\n 15  ")
    assert terminal.fits(80, 24)
    box.power_brake(7)
    terminal.shows("GPU 7 slowed by hardware slowdown, power brake")


@pytest.mark.parametrize("box", ["none"], indirect=True)
@pytest.mark.usefixtures("box")
def test_no_gpu_at_all(terminal: Terminal) -> None:
    terminal.shows("no GPUs: the driver lists no GPU", "SIMULATED", "load ")


@pytest.mark.parametrize("box", ["8xh100", "2x4090", "1xold"], indirect=True)
def test_other_machines(box: Box, terminal: Terminal) -> None:
    terminal.shows(*(f"\n{'GPU ' if len(box.uuids) <= 2 else '  '}{index}  " for index in range(len(box.uuids))))


# --- faults -------------------------------------------------------------------------------------------------------


def test_faults_are_told_in_words_as_they_come_and_go(box: Box, terminal: Terminal) -> None:
    terminal.shows("GPU 3")
    box.thermal_slowdown(0)
    terminal.shows("SLOWED BY hardware slowdown, software thermal slowdown, hardware thermal", "temp   92/90 C")
    box.heal()
    terminal.until(lambda: "SLOWED" not in "\n".join(terminal.picture))
    box.power_brake(1)
    box.pcie_width(2, 4)
    box.set_gpu(3, pcie_replay=12)
    terminal.shows("SLOWED BY hardware slowdown, power brake", "1x4 of 5x16", "12 replays")


def test_a_gpu_lost_while_it_is_watched(box: Box, terminal: Terminal) -> None:
    terminal.shows("GPU 2  NVIDIA GeForce RTX 5090", "GPU 3")
    box.lose(2, xid=True)
    terminal.shows("LOST since ", "at 0000:81:00.0", "Xid 79 on GPU 2: GPU has fallen off the bus")
    # The others go on.
    box.load(3)
    terminal.shows("LOST since ", "util   99 %")
    box.heal()
    terminal.until(lambda: "LOST" not in "\n".join(terminal.picture))


def test_a_gpu_lost_before(box: Box, vaultcube: Vaultcube) -> None:
    box.lose(1, xid=False)
    assert "\nGPU 1  LOST\n" in once(vaultcube)


@pytest.mark.parametrize(
    ("fault", "problem"), [(Box.driver_mismatch, "mismatch"), (Box.permission_denied, "permission")]
)
def test_a_driver_that_goes_and_comes_back(box: Box, terminal: Terminal, fault: Any, problem: str) -> None:
    terminal.shows("GPU 3")
    fault(box, running=True)
    if problem == "mismatch":
        terminal.shows("no GPUs: NVML: ", "(since ", NEXT_STEPS[problem][:30])
    else:
        terminal.shows("does not answer (permission)")
    terminal.shows("load ")
    box.heal()
    terminal.shows("GPU 0  NVIDIA GeForce RTX 5090", "GPU 3", "util   0 %")


@pytest.mark.parametrize("box", ["8xh100"], indirect=True)
def test_an_application_xid_is_told_as_well(box: Box, terminal: Terminal) -> None:
    terminal.shows("  7  ")
    box.xid(4, 31, log=False)
    terminal.shows("Xid 31 on GPU 4: GPU memory page fault")


# --- who holds it -------------------------------------------------------------------------------------------------


def test_a_process_that_comes_and_ends(box: Box, terminal: Terminal) -> None:
    name = Path("/proc/self/comm").read_text().strip()
    box.add_process(1, os.getpid(), 3 << 30)
    terminal.shows(f"process {os.getpid()} {name}", f"  {os.getpid()} {name} (", "3.0 GiB  compute")
    box.clear_processes(1)
    terminal.until(lambda: name not in "\n".join(terminal.picture))


def test_a_container_that_comes_and_ends(rig_both: RigEngine, box: Box, vaultcube: Vaultcube) -> None:
    run = ["run", "--detach", "--init", "--network", "none", "--name", "trainer", "--gpus", f"device={box.uuids[2]}"]
    argv = vaultcube.argv("monitor", "--interval", "0.1")
    env = {**vaultcube.environment(), "TERM": "xterm"}
    env.pop("COLUMNS", None)
    with Terminal(argv, env) as terminal:
        terminal.shows("GPU 2", " free")
        rig_both.ask(*run, "vaultcube/pytorch:cu128", "sleep", "600")
        terminal.shows("container trainer")
        rig_both.ask("rm", "--force", "trainer")
        terminal.until(lambda: "trainer" not in "\n".join(terminal.picture))
        terminal.press("q")
        assert terminal.end() == 0
        assert terminal.clean()


def test_an_engine_that_does_not_answer_costs_only_the_containers(
    box: Box, vaultcube: Vaultcube, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    hanging = tmp_path / "bin" / "docker"
    hanging.write_text("#!/bin/sh\nexec sleep 600\n")
    hanging.chmod(0o755)
    env = {**vaultcube.environment(box.env()), "TERM": "xterm", "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    env.pop("COLUMNS", None)
    with Terminal([sys.executable, "-m", "vaultcube", "monitor", "--interval", "0.1"], env) as terminal:
        terminal.shows("containers are not counted: the engine has not answered yet", "GPU 3")
        box.load(0)
        terminal.shows("util   99 %", " unknown")
        terminal.press("q")
        assert terminal.end() == 0
        assert terminal.clean()
