from __future__ import annotations

import io
import os
import pty
import re
from pathlib import Path
from typing import Any

import pytest
from tests.unit.support import DATA, STARTED, event

from vaultcube.report.progress import BarProgress, JobProgress, describe, job_progress
from vaultcube.results.events import EventLog
from vaultcube.stack.buildlog import BuildLog

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
START = event("started", rank=-1, world_size=4, **STARTED)


def good() -> EventLog:
    log = EventLog()
    log.feed((DATA / "runs" / "good" / "events.jsonl").read_bytes())
    return log


def long_ago(shown: JobProgress, seconds: float = 60) -> None:
    """Let the last line be old; ETAs and pauses then come without waiting for them."""
    shown._spoke -= seconds


def test_which_events_are_worth_a_line() -> None:
    fields: dict[str, Any] = {"backend": "nccl", "sizes_bytes": [4], "elapsed_s": 0.1}
    assert describe(START) == "ddp: 4 rank(s) on GPUs"
    assert describe(START.model_copy(update={"device": "cpu", "world_size": 1})) == "ddp: 1 rank(s) on the CPU"
    assert describe(event("phase", phase="solo", subject_rank=2)) == "  rank 2 alone"
    assert describe(event("phase", phase="all", subject_rank=None)) == "  all ranks together"
    assert describe(event("allreduce", rank=1, correct=False, mismatches=3, **fields)) == (
        "  all-reduce of rank 1: 3 wrong element(s)"
    )
    assert describe(event("allreduce", correct=True, mismatches=0, **fields)) is None
    assert describe(event("error", code="x", message="lost", exit_code=70)) == "  rank 0: lost"
    assert describe(event("error", rank=-1, code="x", message="lost", exit_code=70)) == "  launcher: lost"
    assert describe(event("progress", done=1, total=2)) is None
    assert describe(event("unheard-of")) is None


def test_what_a_container_says_cannot_steer_the_terminal() -> None:
    said = describe(event("error", code="x", message="a\x1b[2Jb\nc\x07d\x9be", exit_code=70))
    assert said is not None
    assert said.isprintable()


def test_off_a_terminal_there_are_lines_and_few_of_them() -> None:
    stream = io.StringIO()
    with job_progress(stream) as shown:
        assert type(shown) is JobProgress
        shown.note("run x")
        for one in good().events:
            shown.event(one)
    assert stream.getvalue().splitlines() == [
        "run x",
        "ddp: 4 rank(s) on GPUs",
        "  rank 0 alone",
        "  rank 1 alone",
        "  rank 2 alone",
        "  rank 3 alone",
        "  all ranks together",
    ]


def test_after_a_silence_there_is_a_line_with_what_is_left() -> None:
    stream = io.StringIO()
    shown = JobProgress(stream)
    shown.event(event("progress", done=1, total=4))
    assert stream.getvalue() == ""
    long_ago(shown)
    shown._began -= 30
    shown.event(event("progress", done=3, total=4))
    assert stream.getvalue() == "  3 of 4, about 10 s left\n"


def test_what_is_left_does_not_count_the_time_before_the_start() -> None:
    """An image was built for an hour; the workload began a moment ago."""
    stream = io.StringIO()
    shown = JobProgress(stream)
    shown._began -= 3600
    shown.event(START)
    long_ago(shown)
    shown.event(event("progress", done=1, total=4))
    assert stream.getvalue().splitlines()[-1] == "  1 of 4, about 0 s left"


def test_what_is_left_does_not_count_the_waiting_for_a_server() -> None:
    stream = io.StringIO()
    shown = JobProgress(stream, servers=1)
    shown.event(START)
    shown._began -= 3600
    shown.event(event("progress", done=0, total=4))
    long_ago(shown)
    shown.event(event("progress", done=1, total=4))
    assert stream.getvalue().splitlines()[-1] == "  1 of 4, about 0 s left"


@pytest.mark.parametrize(("done", "total"), [(0, 4), (4, 4), (9, 4)])
def test_odd_progress_is_shown_without_nonsense(done: int, total: int) -> None:
    stream = io.StringIO()
    shown = JobProgress(stream)
    long_ago(shown)
    shown.event(event("progress", done=done, total=total))
    assert re.fullmatch(r"  \d of 4, about \d+ s left\n", stream.getvalue())


def test_a_long_build_says_how_far_it_is() -> None:
    stream = io.StringIO()
    shown = JobProgress(stream)
    log = BuildLog()
    for line in (DATA / "buildlogs" / "good.txt").read_text().split("\n"):
        shown.building(log, log.feed(line))
    assert stream.getvalue() == ""
    long_ago(shown)
    shown.building(log, [])
    assert stream.getvalue() == "  step 4 of 4: exporting to image\n"


def test_a_reader_that_went_away_does_not_end_the_run() -> None:
    """`vaultcube bench ddp 2>&1 | head -1`: the containers are not to pay for it."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as stream, Path(os.devnull).open("w") as nobody:
        shown = JobProgress(stream)
        for _ in range(3):
            shown.note("anybody there?")
        # Closing says again what could not be said.
        os.dup2(nobody.fileno(), stream.fileno())


class Screen:
    """A real terminal, and what was painted on it."""

    def __init__(self) -> None:
        self._ours, theirs = pty.openpty()
        self.stream = os.fdopen(theirs, "w")

    def text(self) -> str:
        self.stream.close()
        painted = b""
        while True:
            try:
                chunk = os.read(self._ours, 65536)
            except OSError:
                break
            if not chunk:
                break
            painted += chunk
        os.close(self._ours)
        return ESCAPES.sub("", painted.decode())


def test_on_a_terminal_there_is_a_bar_with_the_lines_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    screen = Screen()
    log = BuildLog()
    with job_progress(screen.stream) as shown:
        assert type(shown) is BarProgress
        for line in (DATA / "buildlogs" / "good.txt").read_text().split("\n"):
            shown.building(log, log.feed(line))
        shown.note(f"run x in {Path('/data')} [bold]not markup[/bold]")
        for one in good().events[:40]:
            shown.event(one)
    text = screen.text()
    assert "[bold]not markup[/bold]" in text
    for line in ("ddp: 4 rank(s) on GPUs", "rank 0 alone", "rank 1 alone"):
        assert line in text


def test_without_colour_a_terminal_gets_lines_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Screen()
    with job_progress(screen.stream) as shown:
        shown.note("plain")
    assert screen.text() == "plain\r\n"
