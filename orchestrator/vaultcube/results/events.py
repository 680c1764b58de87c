"""What a workload says while it runs: one JSON object a line in `events.jsonl`.

Writers live in the images (`images/common/events.py`); this is the reading side. A line that cannot be read is
never dropped silently: it is counted, and a run with such lines cannot get a verdict on its timings.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from vaultcube.results.envelope import Count, Elapsed, Event, Positive, Seconds
from vaultcube.results.soakevents import Checked, Mismatch, Paused, Reference, Resumed


class Started(Event):
    """A program's first line. What follows `python` only a soak's worker says (`results/soakevents.py`)."""

    kind: Literal["started"]
    program: str
    params: dict[str, Any]
    world_size: Positive
    device: Literal["cuda", "cpu"]
    python: str
    boot_id: str | None = None
    session: str | None = None
    resumed_s: Seconds | None = None
    fault_injected: bool = False


class Frameworks(Event):
    """Versions of what the image carries; null where a part is absent."""

    kind: Literal["frameworks"]
    versions: dict[str, str | None]


class Device(Event):
    """The device a rank computes on."""

    kind: Literal["device"]
    device_index: int
    name: str
    uuid: str | None = None
    compute_capability: str | None = None
    memory_bytes: int | None = None
    architectures: list[str] = Field(default_factory=list)


class AllReduce(Event):
    """The value-checked all-reduce of one rank; `mismatches` counts wrong elements over all sizes."""

    kind: Literal["allreduce"]
    backend: str
    correct: bool
    mismatches: Count
    sizes_bytes: list[int]
    elapsed_s: Seconds


class Detection(Event):
    """The devices that a framework lists, and how many it was to find."""

    kind: Literal["detection"]
    wanted: Positive
    found: Count
    names: list[str]


class Operation(Event):
    """An operation of whole numbers on a rank's own device: where its result is, and how many elements are wrong."""

    kind: Literal["operation"]
    name: str
    placed: str
    elements: Positive
    mismatches: Count


class Allocation(Event):
    """Memory that was allocated, written and read back on a rank's own device; `growth`: it is taken as it is needed."""

    kind: Literal["allocation"]
    growth: bool
    bytes: Count
    peak_bytes: Count | None = None


class Phase(Event):
    """A measuring phase begins: one rank alone (`solo`) or all together (`all`)."""

    kind: Literal["phase"]
    phase: Literal["solo", "all"]
    subject_rank: int | None = None


class Warmup(Event):
    """Warm-up ended; `plateau` says whether the step time became flat."""

    kind: Literal["warmup"]
    phase: Literal["solo", "all"]
    subject_rank: int | None = None
    steps: Count
    plateau: bool
    step_time_s: Elapsed


class Window(Event):
    """One timed window as one rank saw it: its own samples and its own elapsed time."""

    kind: Literal["window"]
    phase: Literal["solo", "all"]
    subject_rank: int | None = None
    index: Count
    steps: Positive
    samples: Positive
    elapsed_s: Elapsed


class Progress(Event):
    """How far the run is, in units of windows."""

    kind: Literal["progress"]
    done: Count
    total: Positive


class Finished(Event):
    """A rank came to its end. `loss` is null when it was not finite, `covered_s` is what a soak has covered in all."""

    kind: Literal["finished"]
    elapsed_s: Seconds
    loss: float | None = None
    memory_peak_bytes: Count | None = None
    covered_s: Seconds | None = None


class ErrorEvent(Event):
    """A program says why it stops, and the exit code it stops with."""

    kind: Literal["error"]
    code: str
    message: str
    next_step: str = ""
    exit_code: int


class Stage(Event):
    """A server's start comes to its next stage; `fraction` says how much of the stage is done, where that is known."""

    kind: Literal["stage"]
    stage: Literal["check", "download", "load", "compile", "kv_cache", "warmup", "ready"]
    elapsed_s: Seconds
    detail: str = ""
    fraction: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None


class ModelEvent(Event):
    """What a server is about to serve, from the model's own files; null is what they do not tell.

    `weights_bytes` is all of the weights on disk; `active_weights_bytes` what one token reads of them, and is null for
    a mixture of experts.
    """

    kind: Literal["model"]
    model: str
    source: Literal["hub", "directory", "tiny"]
    revision: str | None = None
    architecture: str | None = None
    dtype: str | None = None
    weights_bytes: Count | None = None
    active_weights_bytes: Count | None = None
    kv_bytes_per_token: Count | None = None
    max_model_len: Count | None = None
    random_weights: bool
    generates: bool


class ServerReady(Event):
    """A server answers. Times are seconds since its container's program began."""

    kind: Literal["server"]
    version: str
    model: str
    load_s: Elapsed
    first_token_s: Elapsed | None = None
    max_model_len: Count | None = None
    kv_cache_tokens: Count | None = None
    model_memory_bytes: Count | None = None


class Spread(BaseModel):
    """How a time in seconds is spread over requests or tokens."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, defer_build=True)

    mean: Seconds
    p50: Seconds
    p90: Seconds
    p99: Seconds


class Level(Event):
    """What a load generator measured at one concurrency; a time is null where there was nothing to time.

    The load lasted `elapsed_s` until `until_s` on the clock of `mono`: the event itself comes when the generator has
    done its sums. `replica` is the only server that was asked, null for all of them; `error` is the first request's
    that failed.
    """

    kind: Literal["level"]
    concurrency: Positive
    replica: Count | None = None
    requests: Positive
    completed: Count
    failed: Count
    input_tokens: Count
    output_tokens: Count
    elapsed_s: Elapsed
    until_s: float
    output_tokens_per_s: Seconds
    requests_per_s: Seconds
    ttft_s: Spread | None = None
    tpot_s: Spread | None = None
    itl_s: Spread | None = None
    e2e_s: Spread | None = None
    client: str
    error: str = ""


class Probe(Event):
    """A question asked again and again at temperature 0; `correct` is null where nobody knows the answer."""

    kind: Literal["probe"]
    name: str
    replica: Count | None = None
    question: str
    answer: str
    correct: bool | None
    repeatable: bool


class Other(Event):
    """A kind this version does not know. Kept, not judged."""

    kind: str


Known = Annotated[
    Started
    | Frameworks
    | Device
    | AllReduce
    | Detection
    | Operation
    | Allocation
    | Phase
    | Warmup
    | Window
    | Progress
    | Finished
    | ErrorEvent
    | Stage
    | ModelEvent
    | ServerReady
    | Level
    | Probe
    | Reference
    | Checked
    | Mismatch
    | Paused
    | Resumed,
    Field(discriminator="kind"),
]
AnyEvent = Known | Other
KINDS = frozenset(str(get_args(kind.model_fields["kind"].annotation)[0]) for kind in get_args(get_args(Known)[0]))


@cache
def _adapter() -> TypeAdapter[Known]:
    return TypeAdapter(Known)


class Garbled(BaseModel):
    """A line that is not an event, and why (line numbers from 1)."""

    model_config = ConfigDict(frozen=True)

    line: int
    reason: str


def parse_line(text: str, line: int) -> AnyEvent | Garbled:
    """Read one line.

    Returns:
        The event, `Other` for a kind unknown to this version, or `Garbled` for anything that is not an event.
    """
    # A soak of a day has 70 000 lines: pydantic's own reader takes half the time, and lets NaN into what has no model.
    if "NaN" not in text and "Infinity" not in text:
        with suppress(ValidationError):
            return _adapter().validate_json(text)
    try:
        raw = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        return Garbled(line=line, reason=f"not JSON: {str(error)[:80]}")
    if not isinstance(raw, dict):
        return Garbled(line=line, reason="not a JSON object")
    try:
        if isinstance(raw.get("kind"), str) and raw["kind"] not in KINDS:
            return Other.model_validate(raw)
        return _adapter().validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return Garbled(line=line, reason=f"{where}: {first['msg']}"[:120])


def _no_number(word: str) -> None:
    """Refuse NaN and the infinities, which Python reads and JSON has not."""
    raise ValueError(f"{word} is no JSON")


class EventLog:
    """Collects events from chunks of bytes, as they come out of a file that is being written.

    Attributes:
        events: what was read so far, in file order.
        garbled: the lines that were no events.
    """

    def __init__(self) -> None:
        self.events: list[AnyEvent] = []
        self.garbled: list[Garbled] = []
        self._rest = b""
        self._line = 0

    def feed(self, chunk: bytes) -> list[AnyEvent]:
        """Take more bytes and return the events completed by them; an unfinished line waits for its newline."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        fresh = [event for line in lines if (event := self._take(line)) is not None]
        self.events += fresh
        return fresh

    def close(self) -> list[AnyEvent]:
        """Say that nothing more comes: what is left without a newline is read as a last line."""
        rest, self._rest = self._rest, b""
        event = self._take(rest) if rest else None
        if event is None:
            return []
        self.events.append(event)
        return [event]

    def _take(self, line: bytes) -> AnyEvent | None:
        self._line += 1
        text = line.decode("utf-8", errors="replace").strip()
        if not text:
            return None
        parsed = parse_line(text, self._line)
        if isinstance(parsed, Garbled):
            self.garbled.append(parsed)
            return None
        return parsed


def one_line(text: str) -> str:
    """Return what a program said in one line, without what could steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in text).strip()


def sequence_gaps(events: list[AnyEvent]) -> list[str]:
    """Return one sentence for every rank whose `seq` does not count 0, 1, 2, ... in file order."""
    expected: dict[int, int] = {}
    gaps: dict[int, str] = {}
    for event in events:
        want = expected.get(event.rank, 0)
        if event.seq != want and event.rank not in gaps:
            gaps[event.rank] = f"rank {event.rank} wrote event {event.seq} where {want} was due"
        expected[event.rank] = event.seq + 1
    return list(gaps.values())


def unreadable(garbled: Sequence[Garbled]) -> list[str]:
    """Return a sentence about the lines that were no events, none when there are none."""
    if not garbled:
        return []
    lines = ", ".join(str(line.line) for line in garbled[:5])
    return [f"{len(garbled)} event line(s) cannot be read (line {lines}): {garbled[0].reason}"]
