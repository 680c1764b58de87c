"""`vaultcube health` and the installed program: options, exit codes, the document."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jsonschema import validate
from tests.unit.cli.conftest import Command
from tests.unit.support import ROOT

from vaultcube import __version__
from vaultcube.host.words import schema

STANDALONE = "import sys; from vaultcube.cli.standalone import main; sys.exit(main())"
CHECKS = [word for code in ("system", "kernel", "disk") for word in ("--check", code)]


@pytest.fixture
def calm(vaultcube: Command) -> Command:
    """Return the command on a host that is as it should be, as far as `CHECKS` look."""
    root = vaultcube.home / "root"
    (root / "etc/vaultcube").mkdir(parents=True)
    (root / "etc/os-release").write_text("ID=ubuntu\nVERSION_ID=24.04\nPRETTY_NAME='Ubuntu 24.04.3 LTS'\n")
    (root / "etc/vaultcube/host.json").write_text('{"kernel_minimum": "2.6", "disk_free_bytes": 1}')
    vaultcube.env["VAULTCUBE_HOST_ROOT"] = str(root)
    return vaultcube


def standalone(command: Command, *words: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    env = {**command.environment(), "PYTHONPATH": str(ROOT / "orchestrator")}
    argv = [python, "-c", STANDALONE, *words]
    return subprocess.run(argv, capture_output=True, text=True, env=env, timeout=60, check=False)


@pytest.mark.parametrize("alone", [False, True])
def test_a_document_and_nothing_else(calm: Command, alone: bool) -> None:  # noqa: FBT001
    seen = standalone(calm, *CHECKS, "--json") if alone else calm("health", *CHECKS, "--json")
    assert (seen.returncode, seen.stderr) == (0, "")
    document = json.loads(seen.stdout)
    validate(document, schema())
    # These are another machine's files: that never passes.
    assert (document["verdict"], document["simulated"], document["layers"]) == ("UNAVAILABLE", True, [1])
    assert document["vaultcube"] == __version__
    assert [(one["code"], one["verdict"]) for one in document["checks"]] == [
        ("system", "PASS"),
        ("kernel", "PASS"),
        ("disk", "PASS"),
    ]


@pytest.mark.parametrize("alone", [False, True])
def test_exit_codes(calm: Command, alone: bool) -> None:  # noqa: FBT001
    def code(*words: str) -> int:
        return (standalone(calm, *words) if alone else calm("health", *words)).returncode

    assert code(*CHECKS) == 0
    assert code(*CHECKS, "--strict") == 1
    Path(calm.env["VAULTCUBE_HOST_ROOT"], "etc/os-release").write_text("ID=fedora\nVERSION_ID=40\n")
    assert code(*CHECKS) == 1
    for words in (["6"], ["--check", "nonsuch"], ["one"], ["--nonsuch"]):
        assert code(*words) == 2
    Path(calm.env["VAULTCUBE_HOST_ROOT"], "etc/vaultcube/host.json").write_text("{")
    assert code(*CHECKS) == 2


@pytest.mark.parametrize("alone", [False, True])
def test_what_is_waived_is_unavailable_and_says_why(calm: Command, alone: bool) -> None:  # noqa: FBT001
    root = Path(calm.env["VAULTCUBE_HOST_ROOT"])
    (root / "etc/vaultcube/host.json").write_text('{"kernel_minimum": "2.6", "disk_free_bytes": 1000000000000000}')

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        words = (*CHECKS, *words, "--json")
        return standalone(calm, *words) if alone else calm("health", *words)

    assert run().returncode == 1
    seen = run("--waive", "disk", "--waive", "system", "--patience", "3")
    assert seen.returncode == 0
    found = {one["code"]: one for one in json.loads(seen.stdout)["checks"]}
    assert found["disk"]["verdict"] == "UNAVAILABLE"
    assert found["disk"]["seen"].startswith("waived: ")
    # What is good needs no waiver.
    assert found["system"]["verdict"] == "PASS"
    assert run("--waive", "disk", "--strict").returncode == 1
    assert run("--waive", "nonsense").returncode == 2
    assert run("--patience", "0").returncode == 2


def test_what_failed_is_told_in_two_lines(calm: Command) -> None:
    Path(calm.env["VAULTCUBE_HOST_ROOT"], "etc/os-release").write_text("ID=fedora\nVERSION_ID=40\n")
    seen = standalone(calm, *CHECKS)
    first, second = seen.stderr.splitlines()
    assert first == "vaultcube-health: this host is not as it was provisioned: system"
    assert second == "  next: Do what the report says, then run it again.  [host-health]"
    assert "FAIL" in seen.stdout
    wrong = standalone(calm, "--nonsuch", "--json")
    assert json.loads(wrong.stdout)["error"]["code"] == "usage"
    assert "See `vaultcube-health --help`." in wrong.stderr


def test_help_and_version(calm: Command) -> None:
    assert standalone(calm, "--version").stdout == f"vaultcube-health {__version__}\n"
    assert "Example: sudo vaultcube-health 1 3" in standalone(calm, "--help").stdout


def test_a_reader_that_had_enough_is_no_error(calm: Command) -> None:
    read, write = os.pipe()
    os.close(read)
    env = {**calm.environment(), "PYTHONPATH": str(ROOT / "orchestrator")}
    argv = [sys.executable, "-c", STANDALONE, *CHECKS]
    seen = subprocess.run(argv, stdout=write, stderr=subprocess.PIPE, text=True, env=env, timeout=60, check=False)
    os.close(write)
    assert (seen.returncode, seen.stderr) == (0, "")


def test_a_signal_ends_it_with_130_and_what_it_asked_too(calm: Command, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    tool = tmp_path / "bin" / "timedatectl"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\necho $$ > {pid}\nexec sleep 600\n")
    tool.chmod(0o755)
    env = {
        **calm.environment(),
        "PYTHONPATH": str(ROOT / "orchestrator"),
        "PATH": f"{tool.parent}:{os.environ['PATH']}",
    }
    argv = [sys.executable, "-c", STANDALONE, "--check", "timezone"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as child:
        while not pid.exists() or not pid.read_text():
            time.sleep(0.01)
        child.send_signal(signal.SIGTERM)
        _, stderr = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "stopped by SIGTERM" in stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
