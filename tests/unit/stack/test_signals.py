from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vaultcube.errors import InterruptedRunError
from vaultcube.stack.signals import SIGNALS, Stop, put_off


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_remembered_and_raises_only_when_asked(number: signal.Signals) -> None:
    with Stop() as stop:
        assert not stop.requested
        stop.check()
        signal.raise_signal(number)
        assert stop.received is number
        with pytest.raises(InterruptedRunError, match=f"stopped by {number.name}") as seen:
            stop.check()
    assert seen.value.exit_code == 130


def test_waiting_ends_when_the_signal_comes() -> None:
    with Stop() as stop:
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        # Were it not to end early, the test's own time limit would come first.
        assert stop.wait(3600)
        assert stop.wait(3600)
        timer.join()


def test_waiting_without_a_signal_just_waits() -> None:
    with Stop() as stop:
        assert not stop.wait(0.01)


def test_a_flood_of_signals_is_one_stop() -> None:
    """More than a pipe holds."""
    with Stop() as stop:
        for _ in range(66_000):
            signal.raise_signal(signal.SIGHUP)
        assert stop.requested


def test_the_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with Stop():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with pytest.raises(ZeroDivisionError), Stop():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_stop_may_be_entered_again() -> None:
    stop = Stop()
    for _ in range(2):
        with stop:
            assert not stop.wait(0)


def test_no_descriptor_is_left_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        with Stop():
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    """As under nohup."""
    code = (
        "import signal\n"
        "from vaultcube.stack.signals import Stop\n"
        "with Stop() as stop:\n"
        "    signal.raise_signal(signal.SIGHUP)\n"
        "    print(stop.requested)\n"
    )
    ignored = ["env", "--ignore-signal=HUP", sys.executable, "-c", code]
    assert subprocess.run(ignored, capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_stop_can_be_asked_for_without_a_signal() -> None:
    stop = Stop()
    stop.ask()
    with pytest.raises(InterruptedRunError, match="stopped by SIGTERM"):
        stop.check()


def test_it_becomes_readable_when_a_signal_comes() -> None:
    with Stop() as stop:
        assert not select.select([stop], [], [], 0)[0]
        signal.raise_signal(signal.SIGINT)
        assert select.select([stop], [], [], 0)[0]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_is_put_off_is_told_at_the_end(number: signal.Signals) -> None:
    with Stop() as stop:
        with put_off() as came:
            signal.raise_signal(number)
            assert not stop.requested
        assert came == [number]
        signal.raise_signal(number)
        assert stop.requested


def test_one_that_is_ignored_stays_so_while_signals_are_put_off() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with put_off() as came:
            signal.raise_signal(signal.SIGHUP)
        assert came == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_puts_nothing_off() -> None:
    seen: list[list[int]] = []

    def work() -> None:
        with put_off() as came:
            seen.append(came)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [[]]
