"""Real child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from vaultcube.errors import InterruptedRunError
from vaultcube.stack.process import Child, CommandTimeoutError, run
from vaultcube.stack.signals import Stop

FOREVER = ["sleep", "600"]


def alive(pid: int) -> bool:
    """Say whether a process runs; one that nobody reaped yet does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def gone(pid: int) -> bool:
    """Wait until a process is gone; a kill takes a moment to arrive."""
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_command_that_ends_tells_its_status_and_both_streams() -> None:
    seen = run(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout=30)
    assert (seen.returncode, seen.stdout, seen.stderr, seen.ok) == (3, "out\n", "err\n", False)
    assert run(["true"], timeout=30).ok


def test_a_signal_is_a_negative_status() -> None:
    assert run(["sh", "-c", "kill -9 $$"], timeout=30).returncode == -signal.SIGKILL


def test_a_program_that_is_not_there_is_the_callers_business() -> None:
    with pytest.raises(FileNotFoundError):
        run(["/nonsuch/program"], timeout=30)
    with pytest.raises(PermissionError):
        run(["/etc/passwd"], timeout=30)


def test_much_output_on_both_streams_does_not_block() -> None:
    code = "import sys\nfor _ in range(200): sys.stdout.write('o' * 20000); sys.stderr.write('e' * 20000)"
    seen = run(python(code), timeout=60)
    assert (len(seen.stdout), len(seen.stderr)) == (4_000_000, 4_000_000)


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert run(["printf", r"a\377b"], timeout=30).stdout == "a\N{REPLACEMENT CHARACTER}b"


def test_nothing_is_read_from_our_stdin() -> None:
    assert run(["cat"], timeout=30).stdout == ""


def test_the_environment_is_ours_or_exactly_the_one_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VC_TEST", "ours")
    assert run(["printenv", "VC_TEST"], timeout=30).stdout == "ours\n"
    assert run(["/usr/bin/env"], timeout=30, env={"ONLY": "this"}).stdout == "ONLY=this\n"


def test_a_child_has_a_session_of_its_own() -> None:
    """So that the terminal's Ctrl-C reaches only us."""
    assert int(run(python("import os; print(os.getsid(0))"), timeout=30).stdout) != os.getsid(0)


def test_a_command_past_its_limit_is_ended() -> None:
    child = Child(FOREVER)
    with pytest.raises(CommandTimeoutError, match=r"sleep 600 did not answer within 0\.2 s"):
        child.result(timeout=0.2)
    assert not child.running


def test_a_limit_does_not_wait_for_a_grandchild_that_holds_the_pipe() -> None:
    child = Child(["sh", "-c", "sleep 600 & echo $!"])
    with pytest.raises(CommandTimeoutError):
        child.result(timeout=0.2)


def interrupt_soon() -> threading.Timer:
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    return timer


def test_a_stop_ends_the_command_that_is_waited_for() -> None:
    with Stop() as stop:
        child = Child(FOREVER)
        timer = interrupt_soon()
        with pytest.raises(InterruptedRunError, match="SIGINT"):
            child.result(timeout=60, stop=stop)
        timer.join()
    assert not child.running


def test_a_stop_ends_the_command_whose_lines_are_read() -> None:
    with Stop() as stop:
        child = Child(["sh", "-c", "echo first; sleep 600"])
        lines = child.lines(stop)
        assert next(lines) == "first"
        timer = interrupt_soon()
        with pytest.raises(InterruptedRunError):
            next(lines)
        timer.join()
    assert not child.running


# --- ending ----------------------------------------------------------------------------------------------------

FAMILIES = {
    "obedient": 'sleep 600 & echo "$$ $!"; wait',
    "deaf parent": "trap '' TERM; sleep 600 & echo \"$$ $!\"; wait; wait; sleep 600",
    "deaf child": 'sh -c "trap \'\' TERM; while :; do sleep 1; done" & echo "$$ $!"; wait',
    "deaf both": "trap '' TERM; sh -c 'while :; do sleep 1; done' & echo \"$$ $!\"; while :; do sleep 1; done",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_ending_a_command_leaves_none_of_its_processes(family: str) -> None:
    child = Child(["sh", "-c", FAMILIES[family]])
    with Stop() as stop:
        parent, grandchild = map(int, next(child.lines(stop)).split())
    # The shell says its line before the trap of its child is set.
    time.sleep(0.2)
    assert alive(parent)
    assert alive(grandchild)
    child.end(grace_s=0.3)
    assert gone(parent)
    assert gone(grandchild)


def test_ending_twice_or_after_the_end_is_harmless() -> None:
    child = Child(["true"])
    child.result(timeout=30)
    child.end()
    child.end()
    child = Child(FOREVER)
    child.end()
    child.end()
    assert not child.running


def test_a_command_is_asked_before_it_is_killed(tmp_path: Path) -> None:
    said = tmp_path / "said"
    child = Child(["sh", "-c", f"trap 'echo bye > {said}; exit' TERM; echo ready; while :; do sleep 0.05; done"])
    with Stop() as stop:
        assert next(child.lines(stop)) == "ready"
    child.end()
    assert said.read_text() == "bye\n"


# --- lines -----------------------------------------------------------------------------------------------------


def lines(code: str, *, merged: bool = False) -> list[str]:
    child = Child(python(code), merged=merged)
    with Stop() as stop:
        found = list(child.lines(stop))
    child.result(timeout=30)
    return found


def test_lines_come_whole_however_they_were_written() -> None:
    code = "import sys, time\nfor c in 'one\\ntwo\\n\\nlast': sys.stdout.write(c); sys.stdout.flush()"
    assert lines(code) == ["one", "two", "", "last"]


def test_lines_end_with_the_program_while_one_that_it_left_holds_the_pipe() -> None:
    """As Packer leaves a virtual machine, when it is told to."""
    child = Child(["sh", "-c", "sleep 600 & echo $!; exit 3"], merged=True)
    with Stop() as stop:
        (left,) = child.lines(stop, until_exit=True)
    try:
        assert child.wait(5) == 3
        assert alive(int(left))
    finally:
        child.end()
    assert gone(int(left))


def test_waiting_for_the_end_alone_has_a_limit_and_ends_nothing() -> None:
    child = Child(FOREVER)
    with pytest.raises(CommandTimeoutError):
        child.wait(0.1)
    assert child.running
    child.end()


def test_a_line_may_be_longer_than_any_buffer() -> None:
    assert [len(line) for line in lines("print('x' * 1_000_000); print('y')")] == [1_000_000, 1]


def test_a_character_cut_in_two_by_the_pipe_is_whole_again() -> None:
    code = "import os, time\nos.write(1, 'ü'.encode()[:1]); time.sleep(0.2); os.write(1, 'ü'.encode()[1:] + b'\\n')"
    assert lines(code) == ["ü"]


def test_merged_streams_come_in_their_order() -> None:
    code = "import sys\nfor n in range(3): print('o', n, flush=True); print('e', n, file=sys.stderr, flush=True)"
    assert lines(code, merged=True) == ["o 0", "e 0", "o 1", "e 1", "o 2", "e 2"]


def test_no_output_is_no_lines() -> None:
    assert lines("pass") == []


# --- becoming --------------------------------------------------------------------------------------------------


def test_becoming_another_program_passes_on_its_output_and_status() -> None:
    code = "from vaultcube.stack.process import replace\nreplace(['sh', '-c', 'echo $A; exit 7'], {'A': 'became'})"
    seen = subprocess.run(python(code), capture_output=True, text=True, check=False)
    assert (seen.stdout, seen.returncode) == ("became\n", 7)


def test_what_is_told_to_stop_says_its_last_words() -> None:
    child = Child(["sh", "-c", "trap 'echo bye; echo why >&2; exit 3' TERM; echo ready; while :; do :; done"])
    assert next(child.lines(Stop())) == "ready"
    seen = child.stop()
    assert seen is not None
    assert (seen.returncode, seen.stdout, seen.stderr) == (3, "bye\n", "why\n")


def test_what_has_ended_already_is_stopped_without_ado() -> None:
    child = Child(["sh", "-c", "echo why >&2; exit 69"])
    while child.running:
        time.sleep(0.01)
    seen = child.stop()
    assert seen is not None
    assert (seen.returncode, seen.stderr) == (69, "why\n")


def test_what_does_not_stop_is_killed() -> None:
    child = Child(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.01; done"])
    assert next(child.lines(Stop())) == "ready"
    assert child.stop(grace_s=0.3) is None
    assert gone(child._process.pid)


def test_a_signal_while_it_starts_leaves_no_program_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    popen, started = subprocess.Popen, []

    def interrupted(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        child = popen(*args, **options)
        started.append(child.pid)
        signal.raise_signal(signal.SIGTERM)
        return child

    def stop(number: int, _frame: FrameType | None) -> None:
        raise InterruptedRunError(f"stopped by {number}")

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(InterruptedRunError):
            Child(FOREVER)
        assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, before)
    (pid,) = started
    assert gone(pid)
