"""Builders that several tests share: GPUs, plans, results and event lines, complete and valid."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from vaultcube import workloads
from vaultcube.gpu.inventory import Inventory
from vaultcube.gpu.pinning import PinningFacts
from vaultcube.gpu.selection import NOBODY, Held, parse_gpus
from vaultcube.results.events import AnyEvent, Garbled, parse_line
from vaultcube.results.profile import load_profile
from vaultcube.results.schema import (
    Artifact,
    Check,
    Gpu,
    Metric,
    Provenance,
    Result,
    RunInfo,
    Status,
    Target,
    Verdict,
)
from vaultcube.stack.assets import PROFILES
from vaultcube.stack.plan import Plan, Request, make_plan

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
RUN_ID = "ddp-20260101-120000-ab12"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def gpu(index: int = 0, *, capability: str = "12.0", name: str = "NVIDIA GeForce RTX 5090") -> Gpu:
    """Return a GPU of the customer's box."""
    return Gpu(
        uuid=f"GPU-0000000{index}-aaaa-bbbb-cccc-{index:012d}",
        index=index,
        name=name,
        pci_bus_id=f"00000000:{index + 1:02X}:00.0",
        compute_capability=capability,
        memory_total_bytes=34190917632,
    )


def box(count: int = 4, *, simulated: bool = False, capability: str = "12.0") -> Inventory:
    """Return a machine with so many GPUs; with none, it has no driver either."""
    if not count:
        return Inventory(reason="NVML: Driver Not Loaded")
    gpus = tuple(gpu(index, capability=capability) for index in range(count))
    return Inventory(driver="575.57.08", gpus=gpus, simulated=simulated)


def plan(
    inventory: Inventory | None = None,
    *,
    gpus: str | None = None,
    held: Held = NOBODY,
    engine: PinningFacts | None = None,
    workload: workloads.Workload | None = None,
    **asked: Any,
) -> Plan:
    """Return a plan of the ddp workload for the customer's box, unless said otherwise."""
    return make_plan(
        workload or workloads.load("ddp"),
        Request(gpus=parse_gpus(gpus), **asked),
        profile=load_profile("vault-cube-5090", PROFILES),
        inventory=box() if inventory is None else inventory,
        run_id=RUN_ID,
        created=NOON,
        user="1000:1000",
        held=held,
        engine=engine,
    )


def raw_event(kind: str, *, rank: int = 0, seq: int = 0, mono: float = 1.0, **fields: Any) -> dict[str, Any]:
    """Return an event as the writer would put it into JSON."""
    envelope = {"schema": 1, "seq": seq, "time": "2026-01-01T12:00:00.000000Z", "mono": mono, "rank": rank}
    return {**envelope, "kind": kind, **fields}


def event(kind: str, *, rank: int = 0, seq: int = 0, mono: float = 1.0, **fields: Any) -> AnyEvent:
    """Return an event as the reader understands it."""
    parsed = parse_line(json.dumps(raw_event(kind, rank=rank, seq=seq, mono=mono, **fields)), 1)
    assert not isinstance(parsed, Garbled), parsed
    return parsed


STARTED: Mapping[str, Any] = {"program": "ddp", "params": {}, "device": "cuda", "python": "3.11.2"}


def result(**changes: Any) -> Result:
    """Return the result of a good run on four GPUs."""
    found = Result(
        run=RunInfo(
            id=RUN_ID, workload="ddp", status=Status.COMPLETED, started=NOON, finished=NOON + timedelta(seconds=95)
        ),
        verdict=Verdict.UNAVAILABLE,
        simulated=False,
        device="cuda",
        checks=[
            Check(
                name="throughput",
                target=Target(op=">=", value=100, unit="samples/s"),
                measured=7600.5,
                ci95=(7590.25, 7611.0),
                verdict=Verdict.PASS,
                reason="the lower bound 7590 meets the target",
            ),
            Check(
                name="gpu_utilisation",
                target=Target(op=">=", value=0.9, unit="ratio"),
                verdict=Verdict.UNAVAILABLE,
                reason="no telemetry was recorded",
            ),
        ],
        metrics={
            "throughput_samples_per_s": Metric(value=7600.5, unit="samples/s", ci95=(7590.25, 7611.0)),
            "ranks_lost": Metric(value=0, unit="ranks"),
        },
        params={"batch_size": 256},
        gpus=list(box(4).gpus),
        provenance=Provenance(vaultcube="0.1.0", kernel="Linux 6.8.0", os="Ubuntu 24.04", cpu="Threadripper PRO"),
        artifacts=[Artifact(path="plan.json", sha256="0" * 64)],
    )
    return found.model_copy(update=changes)


def unmeasured() -> dict[str, str]:
    """Return our environment for a child that will be killed: its half-written coverage would be no use."""
    return {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
