"""What one run does: the parameters, resolved. Travels from the launcher to the ranks as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

PRECISIONS = ("fp32", "tf32", "bf16")
STARTUP_LIMIT_S = 120.0
"""Least time for interpreters, frameworks and devices to start, however short the hang timeout is."""


@dataclass(frozen=True)
class Params:
    """Every option with its value. `data` None means synthetic images; sizes are per rank."""

    preset: str
    device: str
    ranks: int
    model: str
    batch_size: int
    image_size: int
    precision: str
    channels_last: bool
    data: str | None
    windows: int
    steps_per_window: int
    warmup_steps: int
    max_warmup_steps: int
    allreduce_timeout_s: float
    hang_timeout_s: float
    seed: int

    @property
    def startup_limit_s(self) -> float:
        """Seconds a rank may take until it has joined the others."""
        return max(self.hang_timeout_s, STARTUP_LIMIT_S)

    def as_dict(self) -> dict[str, Any]:
        """Return all options, snake_case, as JSON types."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Job:
    """A run as its processes see it: what to do, and where to write."""

    params: Params
    events_path: str
    board_path: str
    report_path: str

    def to_json(self) -> str:
        """Return the job as one JSON object."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Rebuild a job from `to_json`'s text."""
        raw = json.loads(text)
        return cls(**(raw | {"params": Params(**raw["params"])}))
