"""The lock under which GPUs are chosen, with real processes, and with another user's files."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.support import unmeasured

from vaultcube.errors import InterruptedRunError, ReservationError
from vaultcube.stack import reservation
from vaultcube.stack.process import Child
from vaultcube.stack.reservation import NAME, Reservation, reserve
from vaultcube.stack.signals import Stop

HOLD = """
import sys, time
from pathlib import Path
from vaultcube.stack.reservation import reserve
from vaultcube.stack.signals import Stop
with Stop() as stop, reserve(stop, print, folders=[Path(sys.argv[1])]):
    print("held", flush=True)
    time.sleep(600)
"""
SOMEBODY = 54321


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder like /run/lock. Not below `tmp_path`, where other users cannot go."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o1777)
        yield Path(name)


@contextlib.contextmanager
def as_user(number: int, umask: int = 0o022) -> Iterator[None]:
    """Be another user for a while; who is not root stays who he is."""
    before = os.umask(umask)
    if os.getuid() == 0:
        os.setegid(number)
        os.seteuid(number)
    try:
        yield
        assert os.umask(umask) == umask, "the umask was left changed"
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
            os.setegid(0)
        os.umask(before)


@pytest.fixture
def take(folder: Path) -> Iterator[Callable[..., Reservation]]:
    """Return a function that takes the lock, or waits for it so many seconds."""
    with Stop() as stop:

        def reserve_it(limit_s: float = 0.2, note: Callable[[str], None] = print) -> Reservation:
            return reserve(stop, note, limit_s=limit_s, folders=[folder])

        yield reserve_it


@pytest.fixture
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Return another process that holds the lock."""
    argv = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=unmeasured()) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


# --- taking and letting go -------------------------------------------------------------------------------------


def test_one_after_the_other(folder: Path, take: Callable[..., Reservation]) -> None:
    for _ in range(3):
        with take():
            with pytest.raises(ReservationError):
                take()
            assert [path.name for path in folder.iterdir()] == [NAME]
    assert (folder / NAME).read_bytes() == b""


def test_it_may_be_let_go_early_and_twice(take: Callable[..., Reservation]) -> None:
    with take() as held:
        held.release()
        assert held.descriptors == ()
        with take():
            held.release()
            with pytest.raises(ReservationError):
                take()


def test_it_is_let_go_after_an_error(take: Callable[..., Reservation]) -> None:
    with pytest.raises(ZeroDivisionError), take():
        raise ZeroDivisionError
    take().release()


def test_who_has_it_is_named(take: Callable[..., Reservation], holder: subprocess.Popen[str]) -> None:
    with pytest.raises(ReservationError, match=rf"another vaultcube \(pid {holder.pid}\) has been choosing") as seen:
        take()
    assert (seen.value.code, seen.value.exit_code) == ("gpu-reservation", 3)
    assert NAME in seen.value.next_step


def test_a_kernel_that_does_not_tell_is_no_error(
    take: Callable[..., Reservation], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(reservation, "LOCKS", tmp_path / "nonsuch")
    with take(), pytest.raises(ReservationError, match="another vaultcube has been"):
        take()


def test_it_dies_with_its_process(take: Callable[..., Reservation], holder: subprocess.Popen[str]) -> None:
    with pytest.raises(ReservationError):
        take()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    take(60.0).release()


def test_waiting_is_said_once_and_ends_when_it_is_free(
    take: Callable[..., Reservation], holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservation, "PATIENCE_S", 0.1)
    said: list[str] = []
    timer = threading.Timer(0.6, holder.kill)
    timer.start()
    take(60.0, said.append).release()
    timer.join()
    assert said == [f"waiting: another vaultcube (pid {holder.pid}) is starting a workload on GPUs"]


def test_a_stop_ends_the_waiting(take: Callable[..., Reservation]) -> None:
    with take():
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        # Were it not to end early, the test's own time limit would come first.
        with pytest.raises(InterruptedRunError):
            take(3600)
        timer.join()


# --- what starts the container holds it too ---------------------------------------------------------------------


def test_a_start_goes_on_holding_it_when_its_vaultcube_is_killed(take: Callable[..., Reservation]) -> None:
    held = take()
    child = Child(["sleep", "600"], inherit=held.descriptors)
    # What the kernel does when the process dies: close, and nothing else.
    os.close(held.descriptors[0])
    with pytest.raises(ReservationError):
        take()
    child.end()
    take(60.0).release()


def test_once_let_go_a_child_holds_nothing(take: Callable[..., Reservation]) -> None:
    held = take()
    inheriting, other = Child(["sleep", "600"], inherit=held.descriptors), Child(["sleep", "600"])
    try:
        held.release()
        take().release()
    finally:
        inheriting.end()
        other.end()


def test_no_other_child_gets_it(take: Callable[..., Reservation]) -> None:
    held = take()
    child = Child(["sleep", "600"])
    try:
        os.close(held.descriptors[0])
        take().release()
    finally:
        child.end()


# --- many at once ------------------------------------------------------------------------------------------------

COUNT = """
import sys, time
from pathlib import Path
from vaultcube.stack.reservation import reserve
from vaultcube.stack.signals import Stop
folder, inside = Path(sys.argv[1]), Path(sys.argv[2])
with Stop() as stop:
    for _ in range(20):
        with reserve(stop, print, folders=[folder]):
            inside.mkdir()
            inside.rmdir()
"""


def test_no_two_are_ever_inside(folder: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", COUNT, str(folder), str(tmp_path / "inside")]
    children = [
        subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, env=unmeasured(), umask=0o077) for _ in range(6)
    ]
    for child in children:
        _, err = child.communicate(timeout=120)
        assert child.returncode == 0, err


# --- another user -----------------------------------------------------------------------------------------------


def test_two_users_exclude_each_other(folder: Path, take: Callable[..., Reservation]) -> None:
    with as_user(SOMEBODY, umask=0o077):
        held = take()
    assert (folder / NAME).stat().st_mode & 0o777 == 0o644
    with as_user(SOMEBODY + 1):
        with pytest.raises(ReservationError, match="has been choosing GPUs"):
            take()
        held.release()
        other = take()
    with pytest.raises(ReservationError):
        take()
    other.release()


def test_another_users_file_is_locked_as_well(folder: Path, take: Callable[..., Reservation]) -> None:
    (folder / NAME).touch(mode=0o444)
    with as_user(SOMEBODY), take(), (folder / NAME).open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# --- what somebody else put in its place ------------------------------------------------------------------------


def link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("put", "why"), [(link, "it is a link"), (os.mkfifo, "no plain file"), (Path.mkdir, "no plain file")]
)
def test_what_is_no_plain_file_is_refused_and_said_how_to_clear(
    folder: Path, take: Callable[..., Reservation], put: Callable[[Path], None], why: str
) -> None:
    put(folder / NAME)
    with pytest.raises(ReservationError, match=why) as seen:
        take()
    assert seen.value.next_step == f"Remove it: sudo rm {folder / NAME}."
    assert not (folder / "elsewhere").exists()


def test_a_file_that_may_not_be_read_is_refused(folder: Path, take: Callable[..., Reservation]) -> None:
    (folder / NAME).touch(mode=0o000)
    with as_user(SOMEBODY), pytest.raises(ReservationError, match="Permission denied"):
        take()


def test_a_file_that_was_removed_meanwhile_is_not_waited_for(
    folder: Path, take: Callable[..., Reservation], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = take()
    whole = reservation._locked

    def locked(descriptor: int, path: Path) -> bool:
        # Between opening and locking, once.
        monkeypatch.setattr(reservation, "_locked", whole)
        path.unlink()
        held.release()
        return whole(descriptor, path)

    monkeypatch.setattr(reservation, "_locked", locked)
    with take(60.0), (folder / NAME).open() as file, pytest.raises(BlockingIOError):
        # The one that others find is locked.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# --- its place ---------------------------------------------------------------------------------------------------


def test_all_users_look_in_the_same_place(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir(mode=0o755)
    file = tmp_path / "file"
    file.touch()
    file.chmod(0o777)
    with Stop() as stop:
        # Root may write to its own folder, and others may not: nobody uses it.
        reserve(stop, print, folders=[tmp_path / "nonsuch", file, own, folder]).release()
        assert list(own.iterdir()) == []
        assert (folder / NAME).exists()
        with pytest.raises(ReservationError, match="no place for the lock") as seen:
            reserve(stop, print, folders=[tmp_path / "nonsuch", own])
    assert seen.value.next_step == f"Give the last one its usual mode: sudo chmod 1777 {own}."
