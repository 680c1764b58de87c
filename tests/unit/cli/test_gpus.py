"""`vaultcube gpus` on this machine as it is: mostly without GPUs. The rig's tests see it with some."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Command
from tests.unit.fakenvml import Driver
from tests.unit.replay import Recording
from tests.unit.support import ROOT

from vaultcube.__main__ import QUICK, _run
from vaultcube.cli.main import dispatch
from vaultcube.errors import UsageError

PS = "ps --quiet --no-trunc"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, recording: Recording) -> Driver:
    """Return a driver with two GPUs, and an engine without containers."""
    recording.says(PS)
    found = Driver()
    found.install(monkeypatch, "vaultcube.stack.snapshot")
    return found


@pytest.mark.parametrize("words", QUICK)
@pytest.mark.usefixtures("driver")
def test_the_quick_way_says_what_typers_way_says(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(words, debug=False) == 0
    quick = capsys.readouterr().out
    dispatch(words)
    assert capsys.readouterr().out == quick
    assert "GPU-00000001" in quick


def test_every_other_command_line_is_typers(vaultcube: Command) -> None:
    seen = vaultcube("gpus", "--help")
    assert (seen.returncode, seen.stderr) == (0, "")
    assert "Example: vaultcube gpus --json" in seen.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_an_output_without_room_is_told_on_the_quick_way_too(vaultcube: Command, recording: Recording) -> None:
    recording.says(PS)
    with Path("/dev/full").open("w") as full:
        seen = vaultcube("gpus", stdout=full.fileno())
    assert (seen.returncode, "[disk-too-small]" in seen.stderr) == (3, True)


def test_what_gpus_does_not_know_is_refused() -> None:
    with pytest.raises(UsageError, match="--wide"):
        dispatch(["gpus", "--wide"])


@pytest.mark.parametrize("words", [["gpus"], ["gpus", "--json"]])
def test_it_imports_nothing_heavy(vaultcube: Command, recording: Recording, words: list[str]) -> None:
    recording.says(PS)
    code = (
        "import os, sys\n"
        "end = os._exit\n"
        "os._exit = lambda code: (print(*sys.modules, file=sys.stderr, flush=True), end(code))\n"
        f"sys.argv = ['vaultcube', *{words}]\n"
        "from vaultcube.__main__ import main\n"
        "main()\n"
    )
    seen = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=vaultcube.environment(), check=True
    )
    assert {"pynvml", "vaultcube.stack.snapshot"} <= set(seen.stderr.split())
    heavy = {"pydantic", "typer", "click", "rich", "dataclasses", "pathlib", "datetime", "inspect", "platformdirs"}
    # What the tests' own start brings along (coverage) is not ours.
    alone = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        env=vaultcube.environment(),
        check=True,
    )
    assert heavy & set(seen.stderr.split()) <= set(alone.stdout.split())


def test_this_machine(vaultcube: Command, recording: Recording) -> None:
    """With or without a driver, it is an answer."""
    recording.says(PS)
    seen = vaultcube("gpus", "--json")
    assert (seen.returncode, seen.stderr) == (0, "")
    document = json.loads(seen.stdout)
    assert document["schema"] == "vaultcube.gpus/1"
    assert bool(document["gpus"]) != bool(document["reason"])
    told = vaultcube("gpus")
    assert (told.returncode, told.stderr) == (0, "")
    if not document["gpus"]:
        assert told.stdout.startswith(f"no GPUs: {document['reason']}")
        assert " ".join(f"  next: {document['next_step']}".split()) in " ".join(told.stdout.split())


def test_ctrl_c_while_the_engine_hangs_ends_it_and_what_it_asked(vaultcube: Command, recording: Recording) -> None:
    pid = recording.folder / "pid"
    recording.says(PS, does=f"echo $$ > '{pid}.part'; mv '{pid}.part' '{pid}'; kill -INT $PPID; exec sleep 600")
    code = (
        "import sys\n"
        "import vaultcube.stack.snapshot as snapshot\n"
        "from tests.unit.fakenvml import Driver, FakeNvml\n"
        "snapshot.Nvml = lambda: FakeNvml(Driver())\n"
        "snapshot.PATIENCE_S = 600\n"
        "sys.argv = ['vaultcube', 'gpus']\n"
        "from vaultcube.__main__ import main\n"
        "main()\n"
    )
    seen = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**vaultcube.environment(), "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=60,
    )
    assert (seen.returncode, seen.stdout) == (130, "")
    assert "stopped by SIGINT" in seen.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
