"""What every event has, and the bounds of what it may say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

LAUNCHER_RANK = -1

# Strict and bounded: a "3", a true or a 1e300 is no figure, and arithmetic on what a container says cannot overflow.
Count = Annotated[int, Field(strict=True, ge=0, le=10**15)]
Positive = Annotated[int, Field(strict=True, ge=1, le=10**15)]
Seconds = Annotated[float, Field(strict=True, ge=0, le=10**9)]
Elapsed = Annotated[float, Field(strict=True, ge=1e-9, le=10**9)]


class Event(BaseModel):
    """The envelope: every event has these, `seq` counts per rank from 0, `mono` is a monotonic clock in seconds."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, defer_build=True)

    schema_: Literal[1] = Field(alias="schema")
    seq: Count
    time: AwareDatetime
    mono: float
    rank: int = Field(strict=True, ge=LAUNCHER_RANK, le=10**6)
