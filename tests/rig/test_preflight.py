"""What doctor's checks mean to a run that is about to start on a simulated box."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.docker.conftest import Vaultcube
from tests.docker.engines import told
from tests.rig import cdi
from tests.rig.box import Box
from tests.rig.engine import RigEngine

pytestmark = [pytest.mark.docker]
BENCH = ("bench", "ddp", "--preset", "smoke", "--json")


def refused(vaultcube: Vaultcube, *words: str) -> str:
    seen: subprocess.CompletedProcess[str] = vaultcube(*BENCH, *words)
    lines = seen.stderr.splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith("vaultcube: "))
    seen.stderr = "".join(lines[at:])
    message = told(seen, "preflight", 3, as_json=True)
    assert vaultcube.run_ids() == []
    return message


def test_a_run_that_cannot_work_is_refused_before_anything_starts(
    vaultcube: Vaultcube, rig_both: RigEngine, box: Box
) -> None:
    box.set(driver_version="565.57.01")
    # Its specification is of that driver.
    rig_both.use(box)
    assert refused(vaultcube).startswith("driver-generation: driver 565.57.01 is older than 570.86.16")


def test_a_run_with_a_stale_specification_is_refused(vaultcube: Vaultcube, rig_cdi: RigEngine, box: Box) -> None:
    cdi.write(rig_cdi.folder / "cdi", box.path, box.uuids, "575.57.08")
    assert "cdi-devices:" in refused(vaultcube, "--gpus", "1")


def test_a_run_is_told_what_disturbs_it(vaultcube: Vaultcube, rig_both: RigEngine, box: Box, tmp_path: Path) -> None:
    assert rig_both
    box.pcie_width(0, 4)
    # It would fail for a reason of its own, after the notes.
    (tmp_path / "file").touch()
    seen = vaultcube(*BENCH, "--gpus", "1", "--results-dir", str(tmp_path / "file" / "runs"))
    assert "pcie-link: GPU 0: x4 of x16" in seen.stderr
