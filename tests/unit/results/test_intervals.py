from __future__ import annotations

from tests.unit.support import event

from vaultcube.results.events import AnyEvent
from vaultcube.results.intervals import Interval, serving_intervals, training_intervals


def window(rank: int, mono: float, *, phase: str = "all", index: int = 0, elapsed_s: float = 2.0) -> AnyEvent:
    subject = rank if phase == "solo" else None
    return event(
        "window",
        rank=rank,
        mono=mono,
        phase=phase,
        subject_rank=subject,
        index=index,
        steps=2,
        samples=8,
        elapsed_s=elapsed_s,
    )


def test_a_phase_lasts_from_its_first_window_to_its_last() -> None:
    events = [window(rank, mono, index=index) for index, mono in enumerate((12.0, 14.5)) for rank in (0, 1)]
    assert training_intervals(events) == [Interval(10.0, 14.5, 32)]


def test_the_slowest_rank_ends_a_phase_and_the_quickest_begins_it() -> None:
    events = [window(0, 12.0, elapsed_s=2.5), window(1, 13.0, elapsed_s=2.0)]
    assert training_intervals(events) == [Interval(9.5, 13.0, 16)]


def test_every_rank_alone_is_a_phase_of_its_own_and_they_come_in_time() -> None:
    events = [window(0, 30.0), window(1, 30.0), window(1, 20.0, phase="solo"), window(0, 10.0, phase="solo")]
    assert [(one.rank, one.end_s) for one in training_intervals(events)] == [(0, 10.0), (1, 20.0), (None, 30.0)]


def test_without_windows_nothing_was_measured() -> None:
    assert training_intervals([event("progress", done=1, total=3)]) == []


def level(concurrency: int, until_s: float, *, replica: int | None = None, tokens: int = 640) -> AnyEvent:
    return event(
        "level",
        rank=-1,
        mono=until_s + 3,
        concurrency=concurrency,
        replica=replica,
        requests=10,
        completed=10,
        failed=0,
        input_tokens=5120,
        output_tokens=tokens,
        elapsed_s=8.0,
        until_s=until_s,
        output_tokens_per_s=tokens / 8,
        requests_per_s=1.25,
        client="vllm bench serve 0.10.2",
    )


def test_a_level_lasts_as_long_as_its_load_and_not_until_its_event() -> None:
    assert serving_intervals([level(8, 100.0), level(1, 50.0), level(4, 70.0, replica=0)]) == [
        Interval(42.0, 50.0, 640, unit="token"),
        Interval(62.0, 70.0, 640, rank=0, unit="token"),
        Interval(92.0, 100.0, 640, unit="token"),
    ]


def test_a_level_of_which_nothing_came_is_no_interval() -> None:
    assert serving_intervals([level(8, 100.0, tokens=0)]) == []
