"""Waiting beside the workers of a soak, over the files that they and the recorder leave."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.unit.results.soakruns import Plant, Story, write

from vaultcube.errors import InterruptedRunError, NotFoundError
from vaultcube.results.profile import Profile
from vaultcube.results.schema import Result, Status, Verdict
from vaultcube.stack.signals import Stop
from vaultcube.stack.soak.judge import Patience, SoakWatch, rung_file

HOUR = 3600
PROFILE = Profile(name="p")


class Locks:
    """The locks that workers hold while they live."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, ExitStack] = {}

    def take(self, *names: str) -> None:
        for name in names:
            held = self._held[name] = ExitStack()
            file = held.enter_context((self._folder / name / "events.jsonl").open("rb"))
            fcntl.flock(file, fcntl.LOCK_EX)

    def free(self, *names: str) -> None:
        for name in names or tuple(self._held):
            self._held.pop(name).close()


@pytest.fixture
def locks(tmp_path: Path) -> Iterator[Locks]:
    found = Locks(tmp_path)
    yield found
    found.free()


class Watched:
    """A watch whose every line lets the test do something."""

    def __init__(
        self, folder: Path, ladder: Sequence[float] = (), *, patience_s: float = 60, settle_s: float = 0
    ) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.stop = Stop()
        self.then: dict[str, tuple[Callable[[], object], ...]] = {}
        patience = Patience(settle_s=settle_s, patience_s=patience_s)
        self.watch = SoakWatch(folder, PROFILE, ladder, self._say, self.stop, patience)

    def _say(self, line: str) -> None:
        self.lines.append(line)
        for words, do in list(self.then.items()):
            if words in line:
                del self.then[words]
                for one in do:
                    one()

    def on(self, words: str, *do: Callable[[], object]) -> Watched:
        self.then[words] = do
        return self

    def wait(self) -> tuple[Result, InterruptedRunError | None]:
        with self.stop:
            found, cause = self.watch.wait()
        assert Result.model_validate_json((self.folder / "result.json").read_bytes()) == found
        return found, cause


def half(folder: Path, *plants: Plant, gpus: int = 2) -> dict[str, str]:
    """Write the first half of a soak of an hour; return what the other half of each worker's events is."""
    write(folder, Story(HOUR, plants, gpus=gpus))
    rest = {}
    for path in folder.glob("*/events.jsonl"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[: len(lines) // 2]))
        rest[path.parent.name] = "".join(lines[len(lines) // 2 :])
    return rest


def test_a_soak_that_has_ended_is_judged_at_once(tmp_path: Path) -> None:
    write(tmp_path, Story(HOUR))
    seen = Watched(tmp_path)
    found, cause = seen.wait()
    assert (found.verdict, found.run.status, cause) == (Verdict.PASS, Status.COMPLETED, None)
    assert {artifact.path for artifact in found.artifacts} >= {"run.db", "gpu-3/events.jsonl"}
    # For the recorder.
    assert (tmp_path / "ended").exists()
    assert not (tmp_path / "stop.json").exists()
    assert seen.lines == [f"waiting for the workers in {tmp_path}", "all workers have ended"]


def test_it_waits_for_who_is_at_work_and_says_how_far_they_are(tmp_path: Path, locks: Locks) -> None:
    rest = half(tmp_path)
    locks.take("gpu-0", "gpu-1")

    def finish() -> None:
        for name, lines in rest.items():
            with (tmp_path / name / "events.jsonl").open("a") as file:
                file.write(lines)
        locks.free()

    seen = Watched(tmp_path).on("to go", finish)
    found, cause = seen.wait()
    assert (found.verdict, found.run.status, cause) == (Verdict.PASS, Status.COMPLETED, None)
    covered = "29 min 45 s of 1 h 00 min"
    assert seen.lines[1] == f"gpu-0 {covered}; gpu-1 {covered}; at least 30 min 15 s to go"


def test_the_recorder_is_let_end_first(tmp_path: Path) -> None:
    write(tmp_path, Story(HOUR))
    (tmp_path / "recorder.json").write_text(json.dumps({"ended": False}))
    code = """
import json, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
while not (folder / "ended").exists():
    time.sleep(0.01)
assert not (folder / "result.json").exists()
(folder / "part").write_text(json.dumps({"ended": True}))
(folder / "part").rename(folder / "recorder.json")
"""
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) as recorder:
        Watched(tmp_path).wait()
        assert recorder.wait(30) == 0


def test_a_worker_that_is_gone_for_good_is_not_waited_for(tmp_path: Path) -> None:
    half(tmp_path)
    found, cause = Watched(tmp_path, patience_s=1).wait()
    assert (found.verdict, found.run.status, cause) == (Verdict.FAIL, Status.INTERRUPTED, None)
    assert {one.check for one in found.evidence} >= {"covered"}


def test_a_worker_that_its_guard_stopped_is_told_of_and_not_waited_for(tmp_path: Path) -> None:
    half(tmp_path)
    for name in ("gpu-0", "gpu-1"):
        mark = {"schema": 1, "gpu": name, "code": "over-temperature", "message": f"{name} is too\nhot"}
        (tmp_path / f"{name}.stopped.json").write_text(json.dumps(mark))
    seen = Watched(tmp_path)
    found, _ = seen.wait()
    assert found.run.status is Status.INTERRUPTED
    assert [line for line in seen.lines if "stopped:" in line] == [
        "gpu-0 was stopped: gpu-0 is too hot",
        "gpu-1 was stopped: gpu-1 is too hot",
    ]


# --- a ladder -------------------------------------------------------------------------------------------------


def test_a_rung_is_judged_while_workers_go_on(tmp_path: Path, locks: Locks) -> None:
    half(tmp_path)
    locks.take("gpu-0", "gpu-1")
    seen = Watched(tmp_path, (0.25, 0.4, 1))
    seen.on("after 0.4 h", locks.free, seen.stop.ask)
    found, cause = seen.wait()
    assert isinstance(cause, InterruptedRunError)
    assert found.run.status is Status.INTERRUPTED
    assert [line for line in seen.lines if line.startswith("after")] == ["after 0.25 h: PASS", "after 0.4 h: PASS"]
    for hours in (0.25, 0.4):
        rung = Result.model_validate_json((tmp_path / rung_file(hours)).read_bytes())
        assert (rung.verdict, rung.run.status) == (Verdict.PASS, Status.COMPLETED)
        assert (rung.params["seconds"], rung.artifacts) == (hours * HOUR, [])
    assert not (tmp_path / "stop.json").exists()
    assert not (tmp_path / "ended").exists()


def test_a_rung_that_is_missed_stops_all_workers(tmp_path: Path, locks: Locks) -> None:
    half(tmp_path, Plant("flip", 1, 60))
    locks.take("gpu-0", "gpu-1")
    seen = Watched(tmp_path, (0.25, 0.4, 1)).on("after 0.25 h", locks.free)
    found, cause = seen.wait()
    assert (found.verdict, cause) == (Verdict.FAIL, None)
    told = json.loads((tmp_path / "stop.json").read_text())
    assert (told["schema"], told["by"]) == (1, "judge")
    assert told["message"].startswith("the verdict after 0.25 h is FAIL: no_mismatch")
    assert not (tmp_path / rung_file(0.4)).exists()


def test_rungs_that_nobody_was_there_to_judge_are_judged_at_the_end(tmp_path: Path) -> None:
    write(tmp_path, Story(HOUR))
    seen = Watched(tmp_path, (0.25, 0.4, 1))
    found, cause = seen.wait()
    assert (found.verdict, cause) == (Verdict.PASS, None)
    assert seen.lines[1:] == ["all workers have ended", "after 0.25 h: PASS", "after 0.4 h: PASS"]
    assert Result.model_validate_json((tmp_path / rung_file(0.25)).read_bytes()).params["seconds"] == HOUR / 4
    assert not (tmp_path / rung_file(1)).exists()


def test_at_the_end_no_rung_beyond_a_missed_one_is_judged_and_nobody_is_stopped(tmp_path: Path) -> None:
    write(tmp_path, Story(HOUR, (Plant("flip", 1, 60),)))
    seen = Watched(tmp_path, (0.25, 0.4))
    found, _ = seen.wait()
    assert found.verdict is Verdict.FAIL
    assert (tmp_path / rung_file(0.25)).exists()
    assert not (tmp_path / rung_file(0.4)).exists()
    assert not (tmp_path / "stop.json").exists()


def test_a_rung_that_was_judged_is_not_judged_again(tmp_path: Path, locks: Locks) -> None:
    half(tmp_path, Plant("flip", 1, 60))
    (tmp_path / rung_file(0.25)).write_text("a person has seen it, and went on")
    locks.take("gpu-0", "gpu-1")
    seen = Watched(tmp_path, (0.25, 1))
    seen.on("to go", locks.free, seen.stop.ask)
    seen.wait()
    assert not (tmp_path / "stop.json").exists()


# --- told to stop ---------------------------------------------------------------------------------------------


def test_told_to_stop_it_judges_what_the_others_left(tmp_path: Path, locks: Locks) -> None:
    half(tmp_path)
    locks.take("gpu-0", "gpu-1")
    seen = Watched(tmp_path)
    seen.on("to go", locks.free, seen.stop.ask)
    found, cause = seen.wait()
    assert (found.run.status, found.verdict) == (Status.INTERRUPTED, Verdict.FAIL)
    assert cause is not None
    assert (cause.exit_code, cause.message) == (130, "stopped by SIGTERM before the soak had ended")
    assert found.artifacts
    # The recorder goes on when it is started again.
    assert not (tmp_path / "ended").exists()


def test_told_to_stop_after_the_end_it_was_the_end(tmp_path: Path) -> None:
    write(tmp_path, Story(HOUR))
    # Vaultcube sees the end at once; here another worker is still waited for.
    seen = Watched(tmp_path, (0.25, 1), settle_s=HOUR)
    seen.on("to go", seen.stop.ask)
    found, cause = seen.wait()
    assert (found.run.status, found.verdict, cause) == (Status.COMPLETED, Verdict.PASS, None)
    assert (tmp_path / rung_file(0.25)).exists()


def test_told_to_stop_alone_it_judges_beside_workers_that_go_on(tmp_path: Path, locks: Locks) -> None:
    half(tmp_path)
    locks.take("gpu-0", "gpu-1")
    seen = Watched(tmp_path)
    seen.on("to go", seen.stop.ask)
    found, cause = seen.wait()
    assert cause is not None
    assert (found.run.status, found.artifacts) == (Status.INTERRUPTED, [])


def test_told_to_stop_before_anything_was_there(tmp_path: Path) -> None:
    seen = Watched(tmp_path)
    seen.on("waiting", seen.stop.ask)
    with pytest.raises(InterruptedRunError, match=r"not judged: no worker of a soak ever started"):
        seen.wait()
    assert not (tmp_path / "result.json").exists()


def test_a_worker_that_never_began_cannot_be_judged(tmp_path: Path) -> None:
    (tmp_path / "gpu-0").mkdir()
    (tmp_path / "gpu-0/events.jsonl").touch()
    with pytest.raises(NotFoundError):
        Watched(tmp_path, patience_s=1).wait()


# --- the command ----------------------------------------------------------------------------------------------


def command(folder: Path, *words: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "vaultcube", "stress", "judge", str(folder), *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)


def test_with_wait_its_exit_code_says_only_that_it_judged(tmp_path: Path) -> None:
    write(tmp_path, Story(HOUR, (Plant("flip", 2, 600),)))
    with command(tmp_path, "--wait", "--settle", "0") as judge:
        out, error = judge.communicate(timeout=60)
    assert (judge.returncode, error) == (0, "")
    assert "verdict FAIL" in out
    assert "GPU 2 computed" in out


def test_stopped_it_prints_what_there_was_and_fails(tmp_path: Path, locks: Locks) -> None:
    half(tmp_path)
    locks.take("gpu-0", "gpu-1")
    with command(tmp_path, "--wait", "--settle", "0", "--json") as judge:
        assert judge.stderr is not None
        while "to go" not in judge.stderr.readline():
            pass
        locks.free()
        judge.send_signal(signal.SIGTERM)
        out, error = judge.communicate(timeout=60)
    assert judge.returncode == 130
    found: Any = json.loads(out)
    assert (found["run"]["status"], found["verdict"]) == ("interrupted", "FAIL")
    assert error.startswith(
        "vaultcube: stopped by SIGTERM before the soak had ended\n  next: What there is was judged."
    )
