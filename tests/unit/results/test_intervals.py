from __future__ import annotations

from tests.unit.support import event

from vaultcube.results.events import AnyEvent
from vaultcube.results.intervals import Interval, training_intervals


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
