"""What the workers of a soak say while they load their GPUs (`images/pytorch/stress`): one file a worker."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vaultcube.results.envelope import Count, Event, Positive, Seconds

# Above what any card does between two reports, and exact as a float.
Work = Annotated[float, Field(strict=True, ge=0, le=2.0**70)]
Name = Annotated[str, Field(max_length=100)]


class Reference(Event):
    """A small case of a phase, held against the CPU when a worker starts."""

    kind: Literal["reference"]
    phase: Name
    elements: Positive
    mismatches: Count


class Checked(Event):
    """A stretch of load of one phase of which every result was checked, from and until on the clock of `mono`.

    `key` names the computation: on equal cards the same key gives the same `digest`. `mismatches` counts wrong elements.
    """

    kind: Literal["checked"]
    phase: Name
    iterations: Count
    from_mono: Seconds
    until_mono: Seconds
    work: Work
    unit: Literal["flop", "bytes"]
    mismatches: Count
    key: Name
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class Paused(Event):
    """The load waits from now on, and why: "recorder-lost" when nobody would record it."""

    kind: Literal["paused"]
    reason: Name
    message: str = ""


class Resumed(Event):
    """The load that has waited goes on."""

    kind: Literal["resumed"]
    reason: Name


class Mismatch(Event):
    """A result that was wrong: how many elements, where the first is, and its bits in hexadecimal."""

    kind: Literal["mismatch"]
    phase: Name
    iteration: Count
    elements: Positive
    first: list[int]
    expected: Name
    found: Name
