from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import cast

import pytest
from tests.unit.gpustates import NOON, frame, snapshot, state

from vaultcube.errors import InterruptedRunError
from vaultcube.report import live
from vaultcube.stack.sampler import Sampler
from vaultcube.stack.signals import Stop
from vaultcube.stack.watch import Frame


class Told:
    """A sampler that tells one thing after the other, and then asks for the end."""

    began = NOON

    def __init__(self, stop: Stop, *told: tuple[Frame | None, float]) -> None:
        self._stop, self._told = stop, list(told)
        self._read, self._write = os.pipe()
        os.write(self._write, b".")
        self.frame: Frame | None = None
        self._silent = 0.0
        self.heed()

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        return self._read

    def silent_s(self) -> float:
        return self._silent

    def heed(self) -> None:
        if self._told:
            self.frame, self._silent = self._told.pop(0)
        else:
            self._stop.ask()


@pytest.fixture
def stop() -> Iterator[Stop]:
    with Stop() as found:
        yield found


def shown(stop: Stop, *told: tuple[Frame | None, float]) -> str:
    """Return what a file gets of what a sampler tells."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    sampler = Told(stop, *told)
    try:
        with pytest.raises(InterruptedRunError):
            live.watch(cast("Sampler", sampler), stop, stream)
    finally:
        sampler.close()
    stream.seek(0)
    return stream.read()


ONE = frame(snapshot(state()))
LATER = ONE._replace(time=NOON.replace(second=1))


def test_every_frame_is_one_picture(stop: Stop) -> None:
    text = shown(stop, (None, 0.0), (ONE, 0.0), (ONE, 0.0), (LATER, 0.0))
    assert text.count("vaultcube monitor") == 2
    assert text.startswith("vaultcube monitor")
    assert "\n\nvaultcube monitor" in text
    assert "2026-01-01 12:00:01" in text


def test_a_driver_that_never_answered_is_said_to_hang(stop: Stop) -> None:
    text = shown(stop, (None, 3.0), (None, 4.0))
    assert text.count("vaultcube monitor") == 1
    assert "no GPUs: the driver has not answered for 3 s" in text
    assert "next: The driver, or a GPU, has stopped" in text


def test_a_driver_that_stops_answering_is_said_once_more_with_what_was(stop: Stop) -> None:
    text = shown(stop, (ONE, 0.0), (ONE, 9.0), (ONE, 10.0))
    assert text.count("vaultcube monitor") == 2
    assert text.count("The driver has not answered for 9 s; this is how it was.") == 1
