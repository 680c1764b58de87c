from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from vaultcube.host.shell import ask


def test_what_a_program_says() -> None:
    seen = ask(["sh", "-c", "echo out; echo one >&2; echo two >&2; exit 3"])
    assert (seen.ok, seen.returncode, seen.stdout, seen.stderr) == (False, 3, "out\n", "one\ntwo\n")
    assert seen.why == "sh -c echo out; echo one >&2; echo two >&2; exit 3: two"
    assert ask(["true"]).ok


def test_it_speaks_english_whatever_the_user_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert ask(["sh", "-c", 'echo "$LC_ALL"']).stdout == "C.UTF-8\n"


def test_a_program_that_is_not_there() -> None:
    seen = ask(["vaultcube-nonsuch", "word"])
    assert (seen.missing, seen.ok, seen.why) == (True, False, "vaultcube-nonsuch is not installed")


def test_a_program_that_may_not_be_run(tmp_path: Path) -> None:
    (tmp_path / "program").write_text("#!/bin/sh\n")
    seen = ask([str(tmp_path / "program")])
    assert (seen.returncode, seen.missing, seen.stderr) == (126, False, "Permission denied")


def test_what_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    before = time.monotonic()
    seen = ask(["sh", "-c", f"echo begun; sleep 600 & echo $! > {pids}; wait"], limit_s=0.5)
    assert (seen.ok, seen.returncode, seen.stdout) == (False, None, "begun\n")
    assert seen.why.endswith("did not answer in time")
    assert time.monotonic() - before < 60
    child = int(pids.read_text())
    while _alive(child):
        assert time.monotonic() - before < 60
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    """Say whether a process runs; one that ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_it_reads_what_it_is_given_and_nothing_else() -> None:
    assert ask(["cat"], data=b"given\xff").stdout == "given\ufffd"
    assert ask(["cat"]).stdout == ""


def test_root_s_programs_are_found_without_root_s_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert "/usr/sbin" in ask(["sh", "-c", 'echo "$PATH"']).stdout.strip().split(os.pathsep)
