"""The soak's worker in the image, on the CPU, confined as the compose file confines it."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.docker.conftest import docker, until

pytestmark = [pytest.mark.docker, pytest.mark.image]
CONFINED = ["--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--init"]
CONFINED += ["--tmpfs=/tmp", "--user=10001:10001"]
Events = list[dict[str, Any]]
# The program's own way: bits of a result as the definition in stress.digest counts them.
DIGESTS = """
import torch
from stress import digest, loads
site = loads.Site(torch.device("cpu"), "fp32", 3, None)
for load in (loads.matmul(site, None), loads.memory(loads.Site(site.device, "memory", 3, None), None)):
    load.settle()
    assert load.run(0, 3) == []
    words = load._words[load._slot(2)].tolist()[: 1 << 16]
    load._words = [torch.tensor(words) for _ in load._words]
    assert load.digest(2) % 2**64 == digest.digest(words), load.key
"""


class Worker:
    """Runs workers of one soak, each in a container."""

    def __init__(self, image: str, folder: Path) -> None:
        self.image = image
        self.folder = folder
        self.names: list[str] = []

    def start(self, *argv: str, key: str = "gpu-0", options: Sequence[str] = (), fault: str = "") -> str:
        """Start a worker; return its container."""
        where = ["--volume", f"{self.folder}:/results", *options]
        program = ["python3", "-m", "stress", "--results", "/results", "--gpu", key, "--device", "cpu"]
        run = ["run", "--detach", *CONFINED, "--env", f"STRESS_FAULT={fault}", *where, self.image, *program, *argv]
        self.names.append(docker(*run))
        return self.names[-1]

    def end(self, container: str, seconds: float = 120) -> int:
        """Wait for a container; return its exit code."""
        return int(docker("wait", container, timeout=seconds))

    def run(self, *argv: str, **more: Any) -> int:
        return self.end(self.start(*argv, **more))

    def events(self, key: str = "gpu-0") -> Events:
        path = self.folder / key / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def of(self, kind: str, key: str = "gpu-0") -> Events:
        return [event for event in self.events(key) if event["kind"] == kind]

    def covered_until(self) -> float:
        """Return when the last load that was checked ended, on the clock that all of this machine share."""
        return max((event["until_mono"] for event in self.of("checked")), default=0.0)

    def signal(self, container: str, name: str) -> None:
        """Send a signal to the process that loads, past the one that watches it."""
        # Found by its command line; whoever looks for it has another one.
        mark = "grep -q '^[^ ]*python3 -m stress.worker'"
        find = (
            f"for p in /proc/[0-9]*; do if tr '\\0' ' ' <$p/cmdline | {mark}; then kill -{name} ${{p#/proc/}}; fi; done"
        )
        docker("exec", container, "sh", "-c", find)

    def said(self, container: str) -> str:
        seen = subprocess.run(["docker", "logs", container], capture_output=True, text=True, timeout=60, check=True)
        return seen.stdout + seen.stderr


class Recorder:
    """Writes the recorder's beat as the recorder does, once a second, until it is told to stop or to begin again."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "recorder.json"
        self._beats = 0
        self._ended = threading.Event()
        self.start()

    def start(self) -> None:
        self._ended.clear()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._ended.wait(1):
            self._beats += 1
            part = self._path.with_name("recorder.json.part")
            document = {"schema": 1, "session": "ab", "beat": self._beats, "boot_id": "b", "ended": False, "gpus": []}
            part.write_text(json.dumps(document))
            part.replace(self._path)


@pytest.fixture
def recorder(worker: Worker) -> Iterator[Recorder]:
    found = Recorder(worker.folder)
    yield found
    found.stop()


@pytest.fixture
def worker(image: str, tmp_path: Path) -> Iterator[Worker]:
    folder = tmp_path / "results"
    folder.mkdir()
    folder.chmod(0o777)
    found = Worker(image, folder)
    yield found
    docker("rm", "--force", *found.names)


def test_it_ends_by_itself_and_another_one_finds_the_same(worker: Worker) -> None:
    """Two workers with equal numbers are two equal cards: their digests can be held against each other."""
    both = [worker.start("--seconds", "8", "--seed", "5", key=key) for key in ("gpu-0", "gpu-1")]
    assert [worker.end(one) for one in both] == [0, 0]
    kinds = [event["kind"] for event in worker.events()]
    assert kinds[:5] == ["started", "frameworks", "device", "reference", "reference"]
    assert kinds[-1] == "finished"
    assert set(kinds[5:-1]) == {"checked"}
    assert [event["mismatches"] for event in worker.of("reference")] == [0, 0]
    assert 8 <= worker.of("finished")[0]["covered_s"] < 10
    digests = [{(event["key"], event["digest"]) for event in worker.of("checked", key)} for key in ("gpu-0", "gpu-1")]
    assert digests[0] == digests[1]
    assert {key for key, _ in digests[0]} == {"fp32/512/5", "memory/16777216/5"}
    assert "8 s of 8 s (100.0 %)  no mismatch" in worker.said(both[0])


def test_it_resumes_after_a_kill_and_then_has_nothing_to_do(worker: Worker) -> None:
    container = worker.start("--seconds", "20", "--phase-seconds", "2")
    until(lambda: len(worker.of("checked")) >= 2, 90, "it covers some time")
    docker("kill", container)
    before = sum(event["until_mono"] - event["from_mono"] for event in worker.of("checked"))
    covers = ["--seconds", str(int(before) + 2), "--phase-seconds", "2"]
    assert worker.run(*covers) == 0
    first, second = worker.of("started")
    assert first["session"] != second["session"]
    assert first["boot_id"] == second["boot_id"]
    assert second["resumed_s"] == pytest.approx(before)
    (finished,) = worker.of("finished")
    assert before < int(before) + 2 <= finished["covered_s"] < int(before) + 4
    count = len(worker.events())
    container = worker.start(*covers)
    assert worker.end(container) == 0
    assert "are covered already" in worker.said(container)
    assert len(worker.events()) == count


@pytest.mark.parametrize("moment", ["started", "checked"])
def test_told_to_stop_it_stops_at_once(worker: Worker, moment: str) -> None:
    """While the framework is loaded, and under load."""
    container = worker.start("--seconds", "600", "--phase-seconds", "2")
    until(lambda: worker.of(moment), 90, moment)
    start = time.monotonic()
    docker("stop", "--time", "60", container)
    # 2 s are promised; the engine and this machine get as much again.
    assert time.monotonic() - start < 4
    assert worker.end(container) == 75
    last = worker.events()[-1]
    assert (last["kind"], last["code"], last["exit_code"]) == ("error", "interrupted", 75)
    # What was done since the last report is not lost.
    if moment == "checked":
        assert [event["kind"] for event in worker.events()][-2] == "checked"


def test_a_flipped_bit_is_found_counted_and_not_the_end(worker: Worker) -> None:
    assert worker.run("--seconds", "6", "--phases", "fp32", fault="flip:fp32:5") == 0
    assert worker.of("started")[0]["fault_injected"] is True
    (mismatch,) = worker.of("mismatch")
    assert (mismatch["phase"], mismatch["iteration"], mismatch["elements"]) == ("fp32", 5, 1)
    assert int(mismatch["expected"], 16) ^ int(mismatch["found"], 16) == 2
    # In the middle, and the second of the two elements in its word.
    assert mismatch["first"] == [256, 1]
    first, *others = worker.of("checked")
    assert (first["mismatches"], sum(event["mismatches"] for event in others)) == (1, 0)
    # Others could tell as well.
    assert {event["digest"] for event in others} != {first["digest"]}


def test_a_card_that_is_always_wrong_is_told_by_others_only(worker: Worker) -> None:
    both = [
        worker.start("--seconds", "3", "--phases", "memory", key=key, fault=fault)
        for key, fault in (("gpu-0", ""), ("gpu-1", "flip:memory:all"))
    ]
    assert [worker.end(one) for one in both] == [0, 0]
    digests = [{event["digest"] for event in worker.of("checked", key)} for key in ("gpu-0", "gpu-1")]
    assert [len(found) for found in digests] == [1, 1]
    assert digests[0] != digests[1]
    assert worker.of("mismatch", "gpu-1") == []


def test_a_load_that_hangs_is_ended(worker: Worker) -> None:
    container = worker.start("--seconds", "60", "--hang-timeout-s", "2", fault="hang:fp32:3")
    assert worker.end(container) == 70
    error = worker.events()[-1]
    assert (error["code"], error["rank"]) == ("hang", 0)
    assert "loading with fp32" in error["message"]
    assert "session.py" in worker.said(container)


def test_a_worker_that_stands_still_is_ended(worker: Worker) -> None:
    container = worker.start("--seconds", "600", "--phase-seconds", "1", "--hang-timeout-s", "2")
    until(lambda: worker.of("checked"), 90, "it loads")
    worker.signal(container, "STOP")
    assert worker.end(container) == 70
    error = worker.events()[-1]
    assert (error["code"], error["rank"]) == ("hang", -1)
    assert "stands still" in error["message"]


def test_a_worker_that_is_killed_is_told(worker: Worker) -> None:
    container = worker.start("--seconds", "600", "--phase-seconds", "1")
    until(lambda: worker.of("checked"), 90, "it loads")
    worker.signal(container, "KILL")
    assert worker.end(container) == 70
    error = worker.events()[-1]
    assert (error["code"], error["message"]) == ("worker-failed", "the worker was killed by SIGKILL")


def test_a_lost_gpu_ends_it_with_a_word_why(worker: Worker) -> None:
    container = worker.start("--seconds", "60", "--phases", "fp32", fault="fail:fp32:4")
    assert worker.end(container) == 70
    error = worker.events()[-1]
    assert (error["code"], error["exit_code"]) == ("device-failed", 70)
    assert "error [device-failed]: CUDA error: injected by a test" in worker.said(container)


def test_no_load_runs_while_the_recorder_is_gone_and_all_of_the_time_is_made_up_for(
    worker: Worker, recorder: Recorder
) -> None:
    container = worker.start("--seconds", "12", "--phase-seconds", "2", "--recorder-lost-s", "3")
    until(lambda: worker.of("checked"), 90, "it loads once the recorder has said something")
    recorder.stop()
    until(lambda: worker.of("paused"), 30, "it waits")
    (paused,) = worker.of("paused")
    assert (paused["reason"], paused["rank"]) == ("recorder-lost", -1)
    # Looked at twice, a moment apart: the last report was written when the load ended.
    until(lambda: worker.covered_until() <= time.monotonic() - 3, 30, "the load has ended")
    assert worker.covered_until() <= paused["mono"] + 2
    recorder.start()
    assert worker.end(container) == 0
    (resumed,) = worker.of("resumed")
    assert (
        min(event["until_mono"] for event in worker.of("checked") if event["mono"] > resumed["mono"]) > paused["mono"]
    )
    assert not [
        event
        for event in worker.of("checked")
        if event["until_mono"] > paused["mono"] + 2 and event["from_mono"] < resumed["mono"] - 1
    ]
    assert 12 <= sum(event["until_mono"] - event["from_mono"] for event in worker.of("checked")) < 14
    assert len(worker.of("started")) == 1
    said = worker.said(container)
    assert said.count("PAUSED [recorder-lost]: gpu-0: the recorder has said nothing new") == 1
    assert "the recorder is back after" in said


def test_without_a_recorder_that_it_was_told_of_it_waits_from_the_start_and_can_be_stopped(worker: Worker) -> None:
    container = worker.start("--seconds", "60", "--recorder-lost-s", "2")
    until(lambda: worker.of("paused") and worker.of("device"), 90, "it waits")
    assert worker.of("reference") == worker.of("checked") == []
    start = time.monotonic()
    docker("stop", "--time", "60", container)
    assert time.monotonic() - start < 4
    assert worker.end(container) == 75
    assert worker.events()[-1]["code"] == "interrupted"


def test_told_to_stop_by_a_file_it_stops_at_once_and_for_good(worker: Worker) -> None:
    container = worker.start("--seconds", "600", "--phase-seconds", "2")
    until(lambda: worker.of("checked"), 90, "it loads")
    told = worker.folder / "stop.json"
    told.write_text('{"schema":1,"by":"judge","message":"rung 1 h: FAIL"}')
    assert worker.end(container) == 0
    (error,) = worker.of("error")
    assert (error["code"], error["exit_code"]) == ("told-to-stop", 0)
    assert worker.covered_until() <= error["mono"] + 2
    mark = json.loads((worker.folder / "gpu-0.stopped.json").read_text())
    assert (mark["gpu"], mark["code"]) == ("gpu-0", "told-to-stop")
    assert "rung 1 h: FAIL" in mark["message"]
    # Until a person takes the mark away.
    told.unlink()
    count = len(worker.events())
    container = worker.start("--seconds", "600")
    assert worker.end(container) == 0
    assert "was stopped before, and does not go on by itself" in worker.said(container)
    assert len(worker.events()) == count
    (worker.folder / "gpu-0.stopped.json").unlink()
    assert worker.run("--seconds", "1") == 0


def test_a_file_that_nobody_may_read_says_stop_as_well(worker: Worker) -> None:
    told = worker.folder / "stop.json"
    told.touch()
    told.chmod(0)
    assert worker.run("--seconds", "600") == 0
    assert not worker.events()
    assert (worker.folder / "gpu-0.stopped.json").exists()


def test_one_stop_stops_all_where_that_is_wanted(worker: Worker) -> None:
    policies = {"gpu-0": "gpu", "gpu-1": "all"}
    both = {
        key: worker.start("--seconds", "600", "--phase-seconds", "2", "--on-fault", policy, key=key)
        for key, policy in policies.items()
    }
    until(lambda: worker.of("checked", "gpu-0") and worker.of("checked", "gpu-1"), 90, "both load")
    (worker.folder / "gpu-7.stopped.json").write_text('{"schema":1,"gpu":"gpu-7","code":"gpu-lost"}')
    assert worker.end(both["gpu-1"]) == 0
    assert [event["code"] for event in worker.of("error", "gpu-1")] == ["other-gpu-stopped"]
    before = len(worker.of("checked", "gpu-0"))
    until(lambda: len(worker.of("checked", "gpu-0")) > before, 30, "the other one goes on")
    assert not worker.of("error", "gpu-0")


def test_a_full_disk_is_told_and_ends_it(worker: Worker) -> None:
    options = ["--tmpfs", "/full:size=4k,mode=1777"]
    argv = ["--results", "/full", "--seconds", "600", "--phase-seconds", "0.1"]
    container = worker.start(*argv, options=options)
    assert worker.end(container) == 74
    assert "error [events-unwritable]" in worker.said(container)
    assert "No space left on device" in worker.said(container) or "could not write" in worker.said(container)


def test_bf16_runs_on_a_cpu_too(worker: Worker) -> None:
    assert worker.run("--seconds", "1", "--phases", "bf16") == 0
    assert worker.of("reference")[0]["mismatches"] == 0
    assert worker.of("checked")[0]["key"] == "bf16/128/0"


def test_a_device_counts_digests_as_they_are_defined(image: str) -> None:
    docker("run", "--rm", *CONFINED, image, "python3", "-c", DIGESTS)


def test_results_can_be_cleared_by_who_owns_the_folder(worker: Worker) -> None:
    worker.folder.chmod(0o3777)
    container = worker.start("--seconds", "600")
    until(lambda: worker.of("started"), 60, "it has made its folder")
    docker("kill", container)
    path = worker.folder / "gpu-0"
    assert path.stat().st_gid == worker.folder.stat().st_gid
    assert path.stat().st_mode & 0o070 == 0o070
