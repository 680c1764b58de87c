"""What one soak does: the parameters, resolved. Travels from the launcher to the worker as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from stress.guard import Limits

MATMULS = ("bf16", "tf32", "fp32")
PHASES = (*MATMULS, "memory", "transfer")
CPU_PHASES = ("fp32", "memory")
GPU_ONLY = ("tf32", "transfer")
"""Phases that have no meaning on a CPU: a number format of GPUs, and a bus to them."""
STARTUP_LIMIT_S = 120.0
"""Least time for the interpreter, the framework and the device to start, however short the hang timeout is."""
JOB = "STRESS_JOB"
"""The variable that carries the job to the worker."""
FAULT = "STRESS_FAULT"
"""The variable that injects a fault: for tests only, and such a run says so (see stress.fault)."""


@dataclass(frozen=True)
class Params:
    """Every option with its value: `gpu` names the folder, `seconds` is the covered time wanted in all."""

    gpu: str
    device: str
    seconds: int
    phases: tuple[str, ...]
    phase_seconds: float
    memory_fraction: float
    seed: int
    hang_timeout_s: float
    recorder_lost_s: float = 0.0
    max_celsius: int | None = None
    on_fault: str = "gpu"

    @property
    def startup_limit_s(self) -> float:
        """Seconds that a step of the preparations may take."""
        return max(self.hang_timeout_s, STARTUP_LIMIT_S)

    @property
    def limits(self) -> Limits:
        """What the guard allows."""
        return Limits(self.recorder_lost_s, self.max_celsius, self.on_fault)

    @property
    def turn_s(self) -> float:
        """Seconds until the next phase has its turn: in a short soak each one still gets one."""
        return min(self.phase_seconds, self.seconds / len(self.phases))

    def as_dict(self) -> dict[str, Any]:
        """Return all options, snake_case, as JSON types."""
        return dataclasses.asdict(self) | {"phases": list(self.phases)}


@dataclass(frozen=True)
class Job:
    """A soak as its worker sees it.

    Attributes:
        params: what to do.
        resumed_s: seconds that earlier sessions have covered.
        events_path: the events file.
        board_path: where the worker shows that it lives.
        fault: what to inject, as `STRESS_FAULT` says it; "" for nothing.
        gate_path: the gate that the load waits at while it is shut; "" for none.
    """

    params: Params
    resumed_s: float
    events_path: str
    board_path: str
    fault: str = ""
    gate_path: str = ""

    def to_json(self) -> str:
        """Return the job as one JSON object."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Rebuild a job from `to_json`'s text."""
        raw = json.loads(text)
        params = raw.pop("params")
        return cls(Params(**(params | {"phases": tuple(params["phases"])})), **raw)
