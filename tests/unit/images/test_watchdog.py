import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.watchdog import Board, Watchdog


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def dog(clock: Clock, barks: list[tuple[str, float, str]], limit_s: float = 10.0) -> Watchdog:
    return Watchdog(limit_s, lambda *bark: barks.append(bark), clock=clock)


def test_it_barks_after_the_limit_and_not_before() -> None:
    clock, barks = Clock(), list[tuple[str, float, str]]()
    watchdog = dog(clock, barks)
    clock.time += 10
    watchdog.check()
    assert barks == []
    clock.time += 1
    watchdog.check()
    assert barks == [("starting", 11.0, "hang")]


def test_a_beat_starts_the_time_anew() -> None:
    clock, barks = Clock(), list[tuple[str, float, str]]()
    watchdog = dog(clock, barks)
    for _ in range(5):
        clock.time += 9
        watchdog.beat()
        watchdog.check()
    assert barks == []


def test_a_phase_has_a_limit_a_name_and_a_code_of_its_own() -> None:
    clock, barks = Clock(), list[tuple[str, float, str]]()
    watchdog = dog(clock, barks)
    with watchdog.doing("all-reducing", 3.0, "allreduce-timeout"):
        clock.time += 4
        watchdog.check()
    assert barks == [("all-reducing", 4.0, "allreduce-timeout")]
    watchdog.check()
    assert len(barks) == 1


def test_waiting_for_others_is_no_hang_and_ends_cleanly() -> None:
    clock, barks = Clock(), list[tuple[str, float, str]]()
    watchdog = dog(clock, barks)
    with watchdog.doing("measuring"):
        with watchdog.waiting("rank 1 is measured"):
            clock.time += 1e6
            watchdog.check()
        watchdog.check()
        assert barks == []
        clock.time += 11
        watchdog.check()
    assert barks == [("measuring", 11.0, "hang")]


def test_a_stopped_watchdog_is_silent() -> None:
    clock, barks = Clock(), list[tuple[str, float, str]]()
    watchdog = dog(clock, barks)
    watchdog.start()
    watchdog.stop()
    clock.time += 1e6
    watchdog.check()
    assert barks == []


def test_its_thread_ends_a_process_whose_main_thread_stands_still(program_env: dict[str, str]) -> None:
    program = (
        "import os, time; from common.watchdog import Watchdog\n"
        "dog = Watchdog(0.3, lambda what, seconds, code: os._exit(70)); dog.start()\n"
        "with dog.doing('sleeping'): time.sleep(60)\n"
    )
    start = time.monotonic()
    assert subprocess.run([sys.executable, "-c", program], env=program_env, timeout=30, check=False).returncode == 70
    assert time.monotonic() - start < 20


def test_the_board_is_shared_by_processes(tmp_path: Path, program_env: dict[str, str]) -> None:
    path = tmp_path / "board"
    board = Board(path, 2, create=True)
    assert (board.last(0), board.last(1)) == (0.0, 0.0)
    before = time.monotonic()
    program = (
        "import sys; from pathlib import Path; from common.watchdog import Board; Board(Path(sys.argv[1]), 2).beat(1)"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], env=program_env, timeout=30, check=True)
    assert board.last(0) == 0.0
    assert before <= board.last(1) <= time.monotonic()
    board.leave(1)
    assert board.last(1) == float("inf")


def test_a_board_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Board(tmp_path / "board", 2)
