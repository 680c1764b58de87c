"""GPUs of a simulated machine in real containers, by hook and by CDI, seen from inside the containers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.docker.conftest import Vaultcube, until
from tests.rig import images
from tests.rig.box import Box
from tests.rig.engine import HOOK, ROOT, RigEngine

IMAGE = "vaultcube/pytorch:cu128"
# As our compose files confine a workload.
CONFINED = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "--network", "none"]
CONFINED += ["--user", "10001:10001"]


@dataclass
class Way:
    """An engine, and how its GPUs are asked for."""

    engine: RigEngine
    name: str

    def pins(self, gpus: Sequence[str]) -> list[str]:
        """Return docker's options for GPUs by index or UUID, or `all`."""
        if self.name == "cdi":
            return [word for gpu in gpus for word in ("--device", f"nvidia.com/gpu={gpu}")]
        return ["--gpus", "all" if gpus == ["all"] else f'"device={",".join(gpus)}"']

    def run(self, gpus: Sequence[str], *command: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        return self.engine.docker("run", "--rm", *self.pins(gpus), *options, IMAGE, *command)

    def device(self, gpus: Sequence[str]) -> dict[str, Any]:
        """Return a compose file's device reservation."""
        if self.name == "cdi":
            return {"driver": "cdi", "device_ids": [f"nvidia.com/gpu={gpu}" for gpu in gpus], "capabilities": ["gpu"]}
        return {"driver": "nvidia", "device_ids": list(gpus), "capabilities": ["gpu"]}


@pytest.fixture(params=["hook", "cdi"])
def way(request: pytest.FixtureRequest) -> Way:
    return Way(request.getfixturevalue(f"rig_{request.param}"), request.param)


def listed(seen: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the UUIDs that `nvidia-smi -L` lists, and check that it numbers them from 0."""
    assert seen.returncode == 0, seen.stderr
    lines = [line for line in seen.stdout.splitlines() if "GPU" in line]
    found = [re.search(r"GPU (\d+): NVIDIA .* \(UUID: (GPU-[0-9a-f-]{36})\)", line) for line in lines]
    assert [int(one[1]) for one in found if one] == list(range(len(lines))), seen.stdout
    return [one[2] for one in found if one]


def test_a_container_sees_exactly_its_gpus_numbered_from_0(way: Way, box: Box) -> None:
    first, second, third, fourth = box.uuids
    assert listed(way.run(["0", "2"], "nvidia-smi", "-L")) == [first, third]
    assert listed(way.run([fourth, second], "nvidia-smi", "-L")) == [second, fourth]
    assert listed(way.run(["all"], "nvidia-smi", "-L")) == box.uuids


def test_a_count_means_the_first_gpus(rig_hook: RigEngine, box: Box) -> None:
    assert listed(rig_hook.docker("run", "--rm", "--gpus", "2", IMAGE, "nvidia-smi", "-L")) == box.uuids[:2]


@pytest.mark.parametrize("by", ["index", "uuid"])
def test_a_compose_file_pins(way: Way, box: Box, tmp_path: Path, by: str) -> None:
    gpus = ["1", "3"] if by == "index" else [box.uuids[1], box.uuids[3]]
    service = {
        "image": IMAGE,
        "command": ["nvidia-smi", "-L"],
        "network_mode": "none",
        "deploy": {"resources": {"reservations": {"devices": [way.device(gpus)]}}},
    }
    file = tmp_path / "compose.yml"
    file.write_text(yaml.safe_dump({"services": {"one": service}}))
    asked = ["compose", "--file", str(file), "--project-name", "pins", "run", "--rm", "--no-TTY", "one"]
    assert listed(way.engine.docker(*asked)) == [box.uuids[1], box.uuids[3]]


def test_a_confined_container_sees_its_gpus_and_cannot_change_the_machine(way: Way, box: Box) -> None:
    assert listed(way.run(["3"], "nvidia-smi", "-L", options=CONFINED)) == [box.uuids[3]]
    spoil = "for f in /run/vaultcube-rig/state/scenario.ini /run/vaultcube-rig-gpus/x /usr/bin/nvidia-smi; do"
    seen = way.run(["3"], "sh", "-c", f"{spoil} echo >$f && echo changed $f; done; true", options=["--user", "0:0"])
    assert (seen.stdout, seen.stderr.count("Read-only file system")) == ("", 3)


def test_the_library_is_found_without_a_cache_of_the_loader(way: Way) -> None:
    look = "import ctypes; print(ctypes.CDLL('libnvidia-ml.so.1').nvmlInit_v2())"
    seen = way.run(["0"], "python3", "-c", look, options=CONFINED)
    assert (seen.stdout.strip(), seen.stderr) == ("0", "")


def test_a_gpu_that_there_is_not_keeps_the_container_from_starting(rig_hook: RigEngine, rig_cdi: RigEngine) -> None:
    by_hook = Way(rig_hook, "hook").run(["1", "9"], "true")
    assert by_hook.returncode == 125
    assert (
        "stderr: Auto-detected mode as 'legacy'\nnvidia-container-cli: device error: 9: unknown device"
        in by_hook.stderr
    )
    by_cdi = Way(rig_cdi, "cdi").run(["9"], "true")
    assert by_cdi.returncode == 125
    assert "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=9" in by_cdi.stderr


def test_a_driver_updated_under_the_machine_stops_the_hook(rig_hook: RigEngine, box: Box) -> None:
    box.driver_mismatch()
    seen = Way(rig_hook, "hook").run(["0"], "true")
    assert seen.returncode == 125
    assert "nvidia-container-cli: initialization error: nvml error: driver/library version mismatch" in seen.stderr


def test_the_hook_gives_what_the_image_says_it_needs(rig_hook: RigEngine) -> None:
    way = Way(rig_hook, "hook")
    without = way.run(
        ["0"], "sh", "-c", "ls /usr/bin/nvidia-smi", options=["--env", "NVIDIA_DRIVER_CAPABILITIES=compute"]
    )
    assert "No such file" in without.stderr
    unknown = way.run(["0"], "true", options=["--env", "NVIDIA_DRIVER_CAPABILITIES=teleport"])
    assert (unknown.returncode, "unsupported capabilities found in 'teleport'" in unknown.stderr) == (125, True)


def test_a_fault_shows_in_a_container_that_runs(way: Way, box: Box) -> None:
    way.engine.ask("run", "--detach", "--name", "runs", "--init", *way.pins(["1", "2"]), IMAGE, "sleep", "300")
    look = ["exec", "runs", "nvidia-smi", "-L"]
    assert listed(way.engine.docker(*look)) == box.uuids[1:3]
    box.lose(2, xid=False)

    def fault() -> bool:
        seen = way.engine.docker(*look)
        return "Unable to determine the device handle" in seen.stdout + seen.stderr

    until(fault, 20, "the loss shows inside")


def test_an_engine_without_hook_and_cdi_says_so_itself(rig_neither: RigEngine) -> None:
    no_driver = rig_neither.docker("run", "--rm", "--gpus", "all", IMAGE, "true")
    assert 'could not select device driver "" with capabilities: [[gpu]]' in no_driver.stderr
    no_cdi = rig_neither.docker("run", "--rm", "--device", "nvidia.com/gpu=0", IMAGE, "true")
    assert 'could not select device driver "cdi"' in no_cdi.stderr
    assert (no_driver.returncode, no_cdi.returncode) == (125, 125)


def test_each_way_alone_refuses_the_other(rig_hook: RigEngine, rig_cdi: RigEngine) -> None:
    assert Way(rig_hook, "cdi").run(["0"], "true").returncode == 125
    assert "could not select device driver" in Way(rig_cdi, "hook").run(["0"], "true").stderr


def devices(events: str) -> list[str | None]:
    parsed = [json.loads(line) for line in events.splitlines()]
    return [event["uuid"] for event in parsed if event["kind"] == "device"]


def test_a_run_on_pinned_gpus_reports_those(way: Way, vaultcube: Vaultcube, box: Box) -> None:
    images.pace(box.path, 0.01)
    seen = vaultcube("bench", "ddp", "--gpus", "device=1,3", "--preset", "smoke", "--json")
    assert vaultcube.env["DOCKER_HOST"] == way.engine.host
    files = list(vaultcube.runs.glob("*/results/events.jsonl"))
    assert len(files) == 1, seen.stderr
    assert devices(files[0].read_text()) == [box.uuids[1], box.uuids[3]], seen.stderr
    result = vaultcube.result()
    assert (result["run"]["status"], result["simulated"]) == ("completed", True)
    assert result["verdict"] != "PASS"


def test_a_gpu_lost_in_the_middle_ends_the_stand_in(way: Way, box: Box, tmp_path: Path) -> None:
    images.pace(box.path, 0.05)
    results = tmp_path / "results"
    results.mkdir()
    results.chmod(0o777)
    argv = ["run", "--detach", "--name", "runs", *way.pins(["0", "1"]), "--volume", f"{results}:/results", IMAGE]
    argv += ["python3", "-m", "ddp", "--results", "/results", "--device", "cuda", "--windows", "1000"]
    way.engine.ask(*argv)
    events = results / "events.jsonl"
    until(lambda: events.exists() and '"kind":"window"' in events.read_text(), 30, "it measures")
    box.lose(0, xid=True)
    assert way.engine.ask("wait", "runs") == "70"
    last = json.loads(events.read_text().splitlines()[-1])
    assert (last["kind"], last["code"], last["exit_code"]) == ("error", "device-failed", 70)


def test_the_stand_in_cannot_run_on_cuda_without_a_gpu(rig_neither: RigEngine) -> None:
    seen = rig_neither.docker("run", "--rm", IMAGE, "python3", "-m", "ddp", "--results", "/tmp/r", "--device", "cuda")
    assert (seen.returncode, "error [no-gpu]" in seen.stderr) == (69, True)


KILLED = """
import sys
from tests.rig.engine import Mode, RigEngine
engine = RigEngine(Mode.BOTH)
engine.__enter__()
print(engine.folder, engine._pid, flush=True)
sys.stdin.read()
"""


def processes(word: str) -> list[str]:
    """Return the command lines with a word in them."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if word in line:
            found.append(line)
    return found


def in_network(number: int) -> list[str]:
    """Return the processes in a network namespace."""
    found = []
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            if path.stat().st_ino == number:
                found.append(path.parts[2])
        except OSError:
            continue
    return found


def test_a_killed_test_run_leaves_nothing() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout
        folder, pid = child.stdout.readline().split()
        network = os.stat(f"/proc/{pid}/ns/net").st_ino  # noqa: PTH116 - a name of the kernel's, not a file
        assert network != Path("/proc/self/ns/net").stat().st_ino
        assert len(processes(folder)) >= 3  # the shell, dockerd, containerd
        child.send_signal(signal.SIGKILL)
    until(lambda: not Path(folder).exists(), 30, "its folder is gone")
    until(lambda: not processes(folder), 10, "its processes are gone")
    until(lambda: not in_network(network), 10, "its network is gone")
    assert folder not in Path("/proc/mounts").read_text()


def test_the_hook_of_this_machine_is_not_used_by_an_engine_without(rig_neither: RigEngine, box: Box) -> None:
    assert not (rig_neither.folder / "bin" / HOOK).exists()
    assert not (box.path / "bin" / HOOK).exists()
    assert "nvidia" not in json.loads(rig_neither.ask("info", "--format", "{{json .Runtimes}}"))


def shell(*args: str, profile: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tests.rig.shell", *args]
    env = {**os.environ, "PROFILE": profile}
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout, check=False)


def test_make_rig_runs_a_command_in_the_machine_and_takes_everything_away() -> None:
    inside = f"docker run --rm --gpus 1 {IMAGE} nvidia-smi -L; which nvidia-smi vaultcube; echo $DOCKER_HOST; exit 7"
    seen = shell("--", "sh", "-c", f"nvidia-smi -L; {inside}", profile="2x4090")
    lines = seen.stdout.splitlines()
    assert seen.returncode == 7, seen.stderr
    assert [bool(re.match(r"GPU [01]: NVIDIA GeForce RTX 4090 ", line)) for line in lines[:3]] == [True] * 3
    smi, command, host = lines[3:]
    assert command == str(ROOT / ".venv/bin/vaultcube")
    folder = Path(host.removeprefix("unix://")).parent
    assert smi.startswith(str(folder))
    assert not folder.exists()


def test_make_rig_refuses_a_machine_that_nobody_knows() -> None:
    seen = shell("--", "true", profile="5x6090")
    assert (seen.returncode, seen.stderr.count("\n")) == (3, 1)
    assert "5x6090" in seen.stderr
