from __future__ import annotations

import io
from typing import Any

import pytest
from tests.unit.support import event

from vaultcube.report.progress import JobProgress
from vaultcube.report.serving import describe_serving, stage_line
from vaultcube.results.events import Stage

MODEL: dict[str, Any] = {"model": "org/name", "source": "hub", "random_weights": False, "generates": True}
SPREAD = {"mean": 0.2, "p50": 0.1, "p90": 0.3, "p99": 0.4}
LEVEL: dict[str, Any] = {
    "concurrency": 8, "requests": 9, "completed": 9, "failed": 0, "input_tokens": 9, "output_tokens": 9,
    "elapsed_s": 2.0, "until_s": 9.0, "output_tokens_per_s": 4.5, "requests_per_s": 4.5, "ttft_s": SPREAD, "client": "vllm 0.10.2",
}  # fmt: skip


def stage(name: str, rank: int = 0, **fields: Any) -> Stage:
    found = event("stage", rank=rank, stage=name, elapsed_s=1.0, **fields)
    assert isinstance(found, Stage)
    return found


def test_what_a_server_is_doing() -> None:
    assert stage_line(stage("load")) == "loading"
    assert stage_line(stage("download", detail="2.1 of 15.2 GB", fraction=0.14)) == (
        "downloading the model 14% (2.1 of 15.2 GB)"
    )
    assert stage_line(stage("ready", detail="answers")) is None


@pytest.mark.parametrize(
    ("kind", "fields", "line"),
    [
        ("model", {**MODEL, "weights_bytes": 15 * 10**9}, "  org/name, 15.0 GB of weights"),
        ("model", MODEL, "  org/name"),
        ("error", {"code": "gpu-memory", "message": "no room", "exit_code": 69}, "  no room"),
        ("error", {"code": "interrupted", "message": "stopped by SIGTERM", "exit_code": 75}, None),
        ("server", {"version": "1", "model": "m", "load_s": 9.5}, "  ready after 9.5 s"),
        ("level", LEVEL, "  8 at once: 4.5 tokens/s, first token 100.0 ms, then - a token"),
        ("level", {**LEVEL, "failed": 2}, "  8 at once: 4.5 tokens/s, first token 100.0 ms, then - a token, 2 FAILED"),
        ("probe", {"name": "sum", "question": "?", "answer": "a", "correct": True, "repeatable": True}, "  question sum: the known answer"),
        ("probe", {"name": "sum", "question": "?", "answer": "a", "correct": False, "repeatable": False}, "  question sum: another answer than the known one, and not the same twice"),
        ("probe", {"name": "greedy", "question": "?", "answer": "a", "correct": None, "repeatable": True}, "  question greedy: answered"),
        ("error", {"code": "x", "message": "no\x1b[2Jroom", "exit_code": 70}, "  no [2Jroom"),
        ("unheard-of", {}, None),
    ],
)  # fmt: skip
def test_which_events_are_worth_a_line(kind: str, fields: dict[str, Any], line: str | None) -> None:
    assert describe_serving(event(kind, **fields), "") == line


def test_a_stage_is_shown_when_it_begins_and_now_and_then() -> None:
    stream = io.StringIO()
    shown = JobProgress(stream, servers=1)
    for fraction in (0.1, 0.2, 0.3):
        shown.event(stage("download", fraction=fraction))
    shown._spoke -= 60
    shown.event(stage("download", fraction=0.4))
    shown.event(stage("load"))
    shown.event(stage("ready"))
    assert stream.getvalue().splitlines() == [
        "  downloading the model 10%",
        "  downloading the model 40%",
        "  loading",
    ]


def test_several_servers_are_told_apart() -> None:
    stream = io.StringIO()
    shown = JobProgress(stream, servers=2)
    shown.event(stage("load", rank=0))
    shown.event(stage("load", rank=1))
    shown.event(event("server", rank=1, version="1", model="m", load_s=9.5))
    assert stream.getvalue().splitlines() == [
        "  server 0: loading",
        "  server 1: loading",
        "  server 1: ready after 9.5 s",
    ]
