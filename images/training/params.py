"""What one run does: the parameters, resolved. Travels from the launcher to the processes that train as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from common.watchdog import Board

PRECISIONS = ("fp32", "tf32", "bf16")
STARTUP_LIMIT_S = 120.0
"""Least time for interpreters, frameworks and devices to start, however short the hang timeout is."""


@dataclass(frozen=True)
class Params:
    """Every option with its value. `data` None means synthetic images; sizes are per rank.

    A program adds the options that only it has.
    """

    preset: str
    device: str
    ranks: int
    model: str
    batch_size: int
    image_size: int
    precision: str
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


P = TypeVar("P", bound=Params)


@dataclass(frozen=True)
class Job(Generic[P]):
    """A run as its processes see it: what to do, and where to write.

    Attributes:
        params: what to do.
        events_path: the events file.
        board_path: where ranks show that they live.
        report_path: where the child may leave its report for the launcher.
        log_path: the file that the child's stderr goes to; "" where nobody keeps it.
    """

    params: P
    events_path: str
    board_path: str
    report_path: str
    log_path: str = ""

    @property
    def board(self) -> Board:
        """The board, which the launcher has made."""
        return Board(Path(self.board_path), self.params.ranks)

    def to_json(self) -> str:
        """Return the job as one JSON object."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str, params: type[P]) -> Job[P]:
        """Rebuild a job from `to_json`'s text; `params` is the class of its parameters."""
        raw = json.loads(text)
        return cls(**(raw | {"params": params(**raw["params"])}))
