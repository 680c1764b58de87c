"""Asking the engine and NVML. What containers of every kind look like was recorded on a real engine."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from tests.unit.replay import Recording
from tests.unit.support import DATA, gpu

from vaultcube.errors import EngineUnreachableError, InterruptedRunError, RefusedError
from vaultcube.gpu.leases import leased
from vaultcube.gpu.nvml import Nvml
from vaultcube.gpu.readings import GpuProcess
from vaultcube.stack import leases
from vaultcube.stack.docker import Docker
from vaultcube.stack.leases import live_containers, parse_container, read_leases, stale, take_leases
from vaultcube.stack.signals import Stop

RECORDED: list[dict[str, Any]] = json.loads((DATA / "docker" / "gpu-containers.json").read_text())
BY_NAME = {raw["Name"].removeprefix("/"): raw for raw in RECORDED}
WHEN = datetime(2026, 11, 25, 1, 18, tzinfo=UTC)
RUN = "ddp-20260101-120000-ab12"
# Those of the recorded machine.
BOX = [
    gpu(index).model_copy(update={"uuid": uuid})
    for index, uuid in enumerate(
        (
            "GPU-b393768e-83d6-5ae9-89ff-76eae99966d4",
            "GPU-4a86f53c-d499-537c-bbf5-3ad97e5c8430",
            "GPU-aefc958e-d52c-58ae-a9ed-0e7354bed0a7",
            "GPU-4eb50394-bfba-5655-83f8-8b008725d2b5",
        )
    )
]
UUIDS = [one.uuid for one in BOX]
DEAD = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"

ALL, NONE = [0, 1, 2, 3], list[int]()
EXPECTED: Mapping[str, list[int]] = {
    "plain": NONE,
    "gpus-all": ALL,
    "gpus-2": [0, 1],
    "gpus-0": NONE,
    "by-index": [0, 2],
    "by-uuid": [3],
    "utility": NONE,
    "all-utility": NONE,
    "graphics": ALL,
    "env-utility": NONE,
    "env-only": NONE,
    "cdi-index": [1],
    "cdi-two": [0, 2],
    "cdi-all": ALL,
    "runtime-env": [0, 1],
    "runtime-all": ALL,
    "runtime-void": NONE,
    "runtime-only": NONE,
    "recorder": NONE,
    "created": [1],
    "failed": NONE,
    "paused": [1],
    "rec-count-1": [0],
    "rec-every-1": ALL,
    "rec-uuids-1": [1, 2],
    "rec-cdi-1": [0],
    "rec-recorder-1": NONE,
}


class Listing:
    """NVML as far as leases ask it: what it lists, call by call; the last list stays."""

    def __init__(self, *lists: Mapping[int, Sequence[GpuProcess]]) -> None:
        self.lists = list(lists) or [{}]
        self.asked: list[int] = []

    def processes(self, position: int) -> list[GpuProcess]:
        turn = self.asked.count(position)
        self.asked.append(position)
        return list(self.lists[min(turn, len(self.lists) - 1)].get(position, ()))


def nvml(*lists: Mapping[int, Sequence[GpuProcess]]) -> Nvml:
    return cast("Nvml", Listing(*lists))


def raw(name: str, **state: Any) -> dict[str, Any]:
    return {**BY_NAME[name], "State": {**BY_NAME[name]["State"], **state}}


def holds(recording: Recording, *containers: Mapping[str, Any]) -> None:
    recording.says("ps --quiet --no-trunc", "".join(f"{one['Id']}\n" for one in containers))
    recording.says_json("inspect --type container", list(containers))


def said(found: Mapping[str, Sequence[Any]]) -> list[list[str]]:
    return [[holder.said for holder in found[uuid]] for uuid in UUIDS]


# --- containers of every kind ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPECTED)
def test_what_every_kind_of_container_holds(name: str) -> None:
    assert set(EXPECTED) == set(BY_NAME)
    found = parse_container(BY_NAME[name])
    assert found.name == name
    lease = leased(found, BOX)
    assert [UUIDS.index(uuid) for uuid in lease.uuids] == EXPECTED[name]
    assert lease.unknown == (("9",) if name == "failed" else ())


def test_ours_say_their_run() -> None:
    assert parse_container(BY_NAME["rec-cdi-1"]).run == RUN
    assert (parse_container(BY_NAME["recorder"]).run, parse_container(BY_NAME["recorder"]).role) == (RUN, "recorder")
    assert parse_container(BY_NAME["plain"]).run == ""


def test_an_engine_may_leave_out_what_is_empty() -> None:
    bare = raw("plain")
    bare = {**bare, "HostConfig": {"Runtime": ""}, "Config": {"Env": None, "Labels": None}}
    found = parse_container(bare)
    assert (found.requests, found.visible_devices, found.run) == ((), None, "")
    empty: dict[str, None] = dict.fromkeys(("Driver", "Count", "DeviceIDs", "Capabilities"))
    found = parse_container({**bare, "HostConfig": {"DeviceRequests": [empty]}})
    assert leased(found, BOX) == ((), ())


def test_a_container_that_is_about_to_start_holds_what_it_will_have() -> None:
    assert parse_container(BY_NAME["created"]).starting
    assert not parse_container(BY_NAME["paused"]).starting
    assert not stale(BY_NAME["created"], WHEN + timedelta(seconds=30))


def test_one_that_failed_to_start_or_was_only_made_holds_nothing() -> None:
    assert stale(BY_NAME["failed"], WHEN)
    assert stale(BY_NAME["created"], WHEN + timedelta(minutes=2))
    assert not stale(BY_NAME["gpus-all"], WHEN + timedelta(days=400))


# --- asking ------------------------------------------------------------------------------------------------------


def test_the_engine_is_asked_twice_whatever_runs(recording: Recording) -> None:
    holds(recording, raw("by-index"), raw("rec-cdi-1"), raw("failed"))
    found = take_leases(Docker(), nvml(), BOX)
    assert said(found) == [["container by-index", f"run {RUN} (container rec-cdi-1)"], [], ["container by-index"], []]
    listing, inspecting = recording.calls
    for state in ("created", "running", "paused", "restarting"):
        assert f"--filter status={state}" in listing
    assert inspecting.split()[3:] == [BY_NAME[name]["Id"] for name in ("by-index", "rec-cdi-1", "failed")]


def test_nothing_runs(recording: Recording) -> None:
    recording.says("ps")
    assert said(take_leases(Docker(), nvml(), BOX)) == [[], [], [], []]
    assert live_containers(Docker()) == []


def test_a_container_that_ends_in_between_is_no_error(recording: Recording) -> None:
    recording.says("ps", f"{'a' * 64}\n{BY_NAME['paused']['Id']}\n")
    recording.says("inspect", json.dumps([raw("paused")]), stderr=f"Error: No such container: {'a' * 64}\n", status=1)
    assert said(take_leases(Docker(), nvml(), BOX)) == [[], ["container paused"], [], []]
    assert take_leases(Docker(), nvml(), BOX).notes == ()


def test_for_a_look_an_engine_that_is_gone_is_a_note_and_for_a_choice_an_error(recording: Recording) -> None:
    recording.says("ps", stderr=DEAD, status=1)
    one = {1: [GpuProcess(os.getpid(), "compute", None)]}
    found = read_leases(Docker(), nvml(one), BOX)
    assert [bool(who) for who in said(found)] == [False, True, False, False]
    assert "no Docker engine answers" in found.notes[0]
    with pytest.raises(EngineUnreachableError):
        take_leases(Docker(), nvml(one), BOX)


def test_an_engine_that_will_not_inspect_tells_nothing(recording: Recording) -> None:
    recording.says("ps", f"{'a' * 64}\n")
    recording.says("inspect", stderr="Error response from daemon: something new\n", status=1)
    assert "something new" in read_leases(Docker(), nvml(), BOX).notes[0]
    with pytest.raises(RefusedError, match="something new"):
        take_leases(Docker(), nvml(), BOX)


def test_a_stop_is_no_note(recording: Recording) -> None:
    recording.says("ps", after_s=600)
    with Stop() as stop:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        with pytest.raises(InterruptedRunError):
            read_leases(Docker(stop), nvml(), BOX)
        timer.join()


# --- processes ---------------------------------------------------------------------------------------------------


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a /proc with nobody in it."""
    folder = tmp_path / "proc"
    folder.mkdir()
    monkeypatch.setattr(leases, "PROC", folder)
    return folder


def runs(proc: Path, pid: int, comm: str, cgroup: str = "0::/\n") -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "comm").write_text(f"{comm}\n")
    (proc / str(pid) / "cgroup").write_text(cgroup)


def test_processes_are_named_and_put_into_their_containers(recording: Recording, proc: Path) -> None:
    plain, asked = raw("plain"), raw("by-uuid")
    holds(recording, plain, asked)
    runs(proc, 10, "python3", f"0::/system.slice/docker-{plain['Id']}.scope\n")
    runs(proc, 20, "python3", f"8:pids:/docker/{asked['Id']}\n0::/docker/{asked['Id']}\n")
    runs(proc, 30, "blender")
    runs(proc, 40, "Xorg")
    listed = {
        0: [GpuProcess(10, "compute", None), GpuProcess(40, "graphics", 2**20)],
        1: [GpuProcess(30, "compute", 2**30)],
        3: [GpuProcess(20, "compute", None)],
    }
    found = take_leases(Docker(), nvml(listed), BOX)
    assert said(found) == [["container plain"], ["process 30 (blender)"], [], ["container by-uuid"]]


def test_a_process_that_ends_in_between_holds_nothing(recording: Recording, proc: Path) -> None:
    recording.says("ps")
    runs(proc, 30, "python3")
    first = {0: [GpuProcess(30, "compute", None), GpuProcess(31, "compute", None)]}
    listing = Listing(first, {0: [GpuProcess(30, "compute", None)]})
    assert said(take_leases(Docker(), cast("Nvml", listing), BOX)) == [["process 30 (python3)"], [], [], []]
    # Only where something had gone is NVML asked again.
    assert listing.asked == [0, 0, 1, 2, 3]


def test_a_process_that_cannot_be_seen_from_here_holds_all_the_same(recording: Recording, proc: Path) -> None:
    recording.says("ps")
    assert list(proc.iterdir()) == []
    listed = {2: [GpuProcess(77, "compute", None)]}
    assert said(take_leases(Docker(), nvml(listed), BOX)) == [[], [], ["process 77"], []]
