"""Runs of the ddp workload on a simulated machine, and what they saw there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.docker.conftest import Vaultcube

BENCH = ["bench", "ddp", "--preset", "smoke"]


def seen_inside(run: Path) -> list[str]:
    """Return the UUIDs of the GPUs that the workload saw, by rank."""
    parsed = [json.loads(line) for line in (run / "results/events.jsonl").read_text().splitlines()]
    return [event["uuid"] for event in parsed if event["kind"] == "device"]


def finished(vaultcube: Vaultcube, *args: str) -> tuple[dict[str, Any], Path]:
    """Run to the end, and return the plan and the run's folder."""
    before = set(vaultcube.run_ids())
    seen = vaultcube(*BENCH, *args)
    (run,) = set(vaultcube.run_ids()) - before
    folder = vaultcube.runs / run
    result = json.loads((folder / "result.json").read_text())
    assert result["run"]["status"] == "completed", seen.stderr
    assert result["simulated"]
    plan: dict[str, Any] = json.loads((folder / "plan.json").read_text())
    assert plan["simulated"]
    return plan, folder


def completed(vaultcube: Vaultcube) -> list[str]:
    """Return the runs, and check that each completed. On a machine this busy the timings may be worth nothing."""
    runs = [path.name for path in vaultcube.runs.iterdir()]
    results = [json.loads((vaultcube.runs / run / "result.json").read_text()) for run in runs]
    assert {result["run"]["status"] for result in results} == {"completed"}
    return runs


def plans(vaultcube: Vaultcube) -> list[dict[str, Any]]:
    """Return the plans of all runs."""
    return [json.loads(path.read_text()) for path in vaultcube.runs.glob("*/plan.json")]
