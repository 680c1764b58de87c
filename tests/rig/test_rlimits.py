"""Limits of containers on machines whose root may not raise any."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.rig import rlimits
from tests.rig.engine import ROOT

ENDLESS = 2**64 - 1


def memlock(value: int) -> dict[str, Any]:
    return {"type": "RLIMIT_MEMLOCK", "hard": value, "soft": value}


@pytest.mark.parametrize(("asked", "got"), [(ENDLESS, 4096), (4096, 4096), (1024, 1024)])
def test_no_limit_is_above_this_machines(monkeypatch: pytest.MonkeyPatch, asked: int, got: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert rlimits.lowered({"args": ["true"], "rlimits": [memlock(asked)]})["rlimits"] == [memlock(got)]


def test_a_machine_without_limits_grants_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    process = {"args": ["true"], "rlimits": [memlock(ENDLESS)]}
    assert rlimits.lowered(process) == process


@pytest.mark.parametrize("verb", ["create", "exec"])
def test_what_runc_is_about_to_read_is_rewritten_and_nothing_else_of_it(tmp_path: Path, verb: str) -> None:
    process = {"args": ["true"], "rlimits": [{"type": "RLIMIT_NOFILE", "hard": ENDLESS, "soft": 16}]}
    file = tmp_path / ("config.json" if verb == "create" else "process.json")
    file.write_text(json.dumps({"root": {"path": "rootfs"}, "process": process} if verb == "create" else process))
    told = ["--bundle", str(tmp_path)] if verb == "create" else ["--process", str(file)]
    argv = [sys.executable, "-m", "tests.rig.rlimits", "--root", "/run/runc", verb, *told, "identity"]
    limit = f"ulimit -n 64; exec {' '.join(argv)}"
    subprocess.run(["bash", "-c", limit], cwd=ROOT, check=True, timeout=30)
    seen = json.loads(file.read_text())
    lowered = {"args": ["true"], "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 64, "soft": 16}]}
    assert seen == ({"root": {"path": "rootfs"}, "process": lowered} if verb == "create" else lowered)
