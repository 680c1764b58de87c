"""The lock of a run directory, with real processes holding it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.support import unmeasured

from vaultcube.errors import ResultsUnwritableError, RunActiveError
from vaultcube.results.lock import LOCK, keeper, locked

HOLD = (
    "import pathlib, sys, time\n"
    "from vaultcube.results.lock import locked\n"
    "with locked(pathlib.Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(600)\n"
)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Return another process that holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True, env=unmeasured()
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


def test_nobody_looks_after_a_run_without_a_lock(tmp_path: Path) -> None:
    assert keeper(tmp_path) is None
    assert keeper(tmp_path / "nonsuch") is None


def test_the_holder_is_named_and_asking_does_not_disturb_it(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    for _ in range(3):
        assert keeper(tmp_path) == holder.pid
    with pytest.raises(RunActiveError), locked(tmp_path):
        pytest.fail("two hold the same lock")
    assert keeper(tmp_path) == holder.pid


def test_a_lock_dies_with_its_process(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).read_text() == str(holder.pid)
    assert keeper(tmp_path) is None
    with locked(tmp_path):
        assert (tmp_path / LOCK).read_text() == str(os.getpid())


def test_a_lock_is_let_go_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    assert keeper(tmp_path) is None


def test_a_lock_file_with_nonsense_names_nobody(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    for text in ("", "x", "ü"):
        (tmp_path / LOCK).write_text(text)
        assert keeper(tmp_path) is None
    assert holder.poll() is None


def test_a_folder_that_is_gone_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked(tmp_path / "nonsuch"):
        pytest.fail("there is nothing to lock")


def test_a_lock_file_that_takes_no_pid_is_named(tmp_path: Path) -> None:
    # It can be opened and locked, but neither truncated nor written; a full disk is tried in tests/docker.
    (tmp_path / LOCK).symlink_to("/dev/full")
    with pytest.raises(ResultsUnwritableError, match=r"cannot write .*run\.lock"), locked(tmp_path):
        pytest.fail("the pid could not be noted")
