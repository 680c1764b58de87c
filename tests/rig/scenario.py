"""A scenario as data, read from and written to the text that the mock reads (its form: nvml/scenario.c). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.rig.fields import ERRORS, GPU_NUMBERS, GPU_TEXTS, SYSTEM_NUMBERS, SYSTEM_TEXTS

Value = int | str

# What the mock has room for (nvml/rig.h), and its integers.
MAX_GPUS, MAX_PROCESSES, MAX_EVENTS, MAX_TEXT = 32, 32, 64, 95
LARGEST = 2**63
KINDS = ("compute", "graphics", "mps")

SW_POWER_CAP, SYNC_BOOST, SW_THERMAL, HW_THERMAL, POWER_BRAKE = 0x4, 0x10, 0x20, 0x40, 0x80
# What the mock's clock.c makes grow, and the clock-event reasons that make it.
VIOLATIONS = {
    "violation_power_ns": SW_POWER_CAP,
    "violation_thermal_ns": SW_THERMAL | HW_THERMAL,
    "violation_sync_boost_ns": SYNC_BOOST,
    "violation_sw_thermal_ns": SW_THERMAL,
    "violation_hw_thermal_ns": HW_THERMAL,
    "violation_power_brake_ns": POWER_BRAKE,
}


class Process(NamedTuple):
    """A process on a GPU: `kind` is compute, graphics or mps."""

    kind: str
    pid: int
    memory_bytes: int
    sm_percent: int = 0
    memory_percent: int = 0


class Event(NamedTuple):
    """An Xid that NVML reports. Sequence numbers only grow."""

    sequence: int
    gpu: int
    xid: int


@dataclass
class SimGpu:
    """One GPU: its readings by name, and its processes."""

    values: dict[str, Value] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)

    def number(self, key: str) -> int:
        """Return a reading, 0 where there is none."""
        value = self.values.get(key, 0)
        return value if isinstance(value, int) else 0

    def text(self, key: str) -> str:
        """Return a text."""
        return str(self.values[key])

    def set(self, **values: Value | None) -> None:
        """Change readings; None takes one away.

        Raises:
            ValueError: there is no such reading, or it cannot have this value.
        """
        for key, value in values.items():
            _check(key, value, GPU_NUMBERS, GPU_TEXTS)
            _put(self.values, key, value)

    def grow(self, now_ns: int) -> None:
        """Bring the counters to this moment, so that a change of what drives them leaves no step."""
        elapsed = max(0, now_ns - self.number("counters_at_ns")) if "counters_at_ns" in self.values else 0
        for counter, reasons in VIOLATIONS.items():
            self._add(counter, elapsed // 100 * self._share(reasons))
        self._add("energy_mj", elapsed // 1000 * self.number("power_mw") // 1_000_000)
        self._add("pcie_replay", elapsed // 1_000_000 * self.number("pcie_replay_per_minute") // 60_000)
        self.values["counters_at_ns"] = now_ns

    def _share(self, reasons: int) -> int:
        if self.number("reasons") & reasons:
            return 100
        return self.number("flicker_percent") if self.number("flicker_reasons") & reasons else 0

    def _add(self, counter: str, amount: int) -> None:
        if isinstance(value := self.values.get(counter), int):
            self.values[counter] = value + amount


@dataclass
class Scenario:
    """What a box's NVML says."""

    system: dict[str, Value] = field(default_factory=dict)
    gpus: list[SimGpu] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def set(self, **values: Value | None) -> None:
        """Change the driver's readings; None takes one away.

        Raises:
            ValueError: there is no such reading, or it cannot have this value.
        """
        for key, value in values.items():
            _check(key, value, SYSTEM_NUMBERS, SYSTEM_TEXTS)
            _put(self.system, key, value)

    def gpu(self, index: int) -> SimGpu:
        """Return a GPU.

        Raises:
            IndexError: there is no such GPU.
        """
        if not 0 <= index < len(self.gpus):
            raise IndexError(f"there is no GPU {index}: the box has {len(self.gpus)}, counted from 0")
        return self.gpus[index]

    def render(self) -> str:
        """Return the file's text."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield "[system]"
        yield from (f"{key} = {value}" for key, value in self.system.items())
        for index, gpu in enumerate(self.gpus):
            yield f"[gpu {index}]"
            yield from (f"{key} = {value}" for key, value in gpu.values.items())
            yield from ("process = " + " ".join(map(str, process)) for process in gpu.processes)
        yield "[events]"
        yield from ("xid = " + " ".join(map(str, event)) for event in self.events)
        yield "[end]"


def parse(text: str) -> Scenario:
    """Read a scenario back.

    Raises:
        ValueError: a line that the mock would refuse too, named by its number.
    """
    scenario, section = Scenario(), ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.split("#")[0].strip()
        try:
            if line == "[end]":
                return scenario
            if line.startswith("["):
                section = line
                _begin(scenario, line)
            elif line:
                _take(scenario, section, line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    raise ValueError("the scenario has no [end]: it is half written")


def _begin(scenario: Scenario, line: str) -> None:
    if line.startswith("[gpu "):
        if line != f"[gpu {len(scenario.gpus)}]":
            raise ValueError(f"GPUs are numbered from 0 in order, and this is {line}")
        _room(scenario.gpus, MAX_GPUS, "GPUs")
        scenario.gpus.append(SimGpu())
    elif line not in {"[system]", "[events]"}:
        raise ValueError(f"unknown section {line}")


def _take(scenario: Scenario, section: str, line: str) -> None:
    key, equals, value = (part.strip() for part in line.partition("="))
    if not equals or not section:
        raise ValueError(f"not of the form key = value: {line}")
    if section == "[events]":
        _room(scenario.events, MAX_EVENTS, "events")
        sequence, gpu, xid = map(_integer, value.split())
        scenario.events.append(Event(sequence, gpu, xid))
    elif section == "[system]":
        scenario.set(**{key: _value(key, value, SYSTEM_NUMBERS)})
    elif key == "process":
        _room(scenario.gpus[-1].processes, MAX_PROCESSES, "processes on a GPU")
        scenario.gpus[-1].processes.append(_process(*value.split()))
    else:
        scenario.gpus[-1].set(**{key: _value(key, value, GPU_NUMBERS)})


def _process(kind: str = "", *numbers: str) -> Process:
    pid, memory_bytes, sm, memory = [*map(_integer, numbers), *([0, 0] if len(numbers) == 2 else [])]
    if kind not in KINDS:
        raise ValueError(f"a process is {', '.join(KINDS)}, not {kind!r}")
    return Process(kind, pid, memory_bytes, sm, memory)


def _room(things: list[Any], most: int, name: str) -> None:
    if len(things) == most:
        raise ValueError(f"the mock has room for {most} {name}")


def _integer(text: str) -> int:
    value = int(text, 0)
    if not -LARGEST <= value < LARGEST:
        raise ValueError(f"{text} needs more than 64 bits")
    return value


def _value(key: str, text: str, numbers: dict[str, str]) -> Value:
    if len(text) > MAX_TEXT:
        raise ValueError(f"{key} has more than {MAX_TEXT} characters")
    if key not in numbers or text in ERRORS:
        return text
    try:
        return _integer(text)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def _check(key: str, value: Value | None, numbers: dict[str, str], texts: dict[str, str]) -> None:
    if key not in numbers and key not in texts:
        raise ValueError(f"there is no reading called {key}")
    if isinstance(value, bool) or (key in numbers and isinstance(value, str) and value not in ERRORS):
        raise ValueError(f"{key} is an integer or one of {', '.join(ERRORS)}, not {value!r}")
    if key in texts and not isinstance(value, str | None):
        raise ValueError(f"{key} is a text, not {value!r}")


def _put(values: dict[str, Value], key: str, value: Value | None) -> None:
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value
