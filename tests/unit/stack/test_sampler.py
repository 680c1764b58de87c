from __future__ import annotations

import select
import threading
from typing import cast

import pytest
from tests.unit.gpustates import frame, snapshot, state

from vaultcube.stack import sampler
from vaultcube.stack.sampler import Sampler
from vaultcube.stack.watch import Frame, Watch


class Looks:
    """A watch that sees a new frame at every look, or does what a test has it do."""

    def __init__(self) -> None:
        self.patience: list[float] = []
        self.gate = threading.Event()
        self.gate.set()
        self.closed = threading.Event()
        self.error: Exception | None = None

    def look(self, patience_s: float) -> Frame:
        self.patience.append(patience_s)
        self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return frame(snapshot(state()))

    def close(self) -> None:
        self.closed.set()


def made(looks: Looks, interval_s: float = 0.01) -> Sampler:
    return Sampler(cast("Watch", looks), interval_s)


def heard(found: Sampler) -> None:
    """Wait for a frame, as a view does."""
    assert select.select([found], [], [], 30)[0]
    found.heed()


def test_frames_come_and_only_the_first_waits_for_the_engine() -> None:
    looks = Looks()
    with made(looks) as found:
        assert found.silent_s() == 0
        while len(looks.patience) < 3:
            heard(found)
            assert found.frame is not None
    assert looks.closed.is_set()
    assert looks.patience[0] == sampler.FIRST_S
    assert set(looks.patience[1:]) == {0.0}


def test_its_pipe_is_quiet_once_it_was_heard() -> None:
    looks = Looks()
    with made(looks, 60) as found:
        heard(found)
        assert not select.select([found], [], [], 0)[0]


def test_a_long_interval_does_not_delay_the_end() -> None:
    looks = Looks()
    with made(looks, 3600) as found:
        heard(found)
    assert looks.closed.is_set()


def test_a_driver_that_hangs_is_noticed_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "FIRST_S", -1.0)
    monkeypatch.setattr(sampler, "LEAVE_S", 0.05)
    looks = Looks()
    looks.gate.clear()
    with made(looks) as found:
        while not found.silent_s():
            assert found.frame is None
    assert not looks.closed.is_set()
    looks.gate.set()
    assert looks.closed.wait(30)


def test_a_bug_in_the_thread_is_raised_where_it_is_seen() -> None:
    looks = Looks()
    looks.error = RuntimeError("a bug")
    with made(looks) as found, pytest.raises(RuntimeError, match="a bug"):
        heard(found)
