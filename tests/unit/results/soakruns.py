"""Soaks as workers and recorder leave them behind, of any length, with planted faults: events of every worker, and run.db.

Times of plants are seconds since the soak began. Nothing is random: the same story gives the same files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tests.unit.gpu.recording import NOON as NOON_MS
from tests.unit.gpu.recording import begun
from tests.unit.support import gpu

from vaultcube.gpu.readings import GpuInfo, Reading
from vaultcube.gpu.rundb import Writer
from vaultcube.results.events import EventLog
from vaultcube.results.lives import Worker
from vaultcube.results.schema import Gpu

PHASES = ("bf16", "tf32", "fp32", "memory", "transfer")
PHASE_S, REPORT_S, START_S = 60, 5, 20
FIRST_BOOT, SECOND_BOOT = "8e4a5b6c-0000-4000-8000-000000000001", "8e4a5b6c-0000-4000-8000-000000000002"
# CLOCK_MONOTONIC when the soak begins, and when it goes on after a reboot.
MONO, MONO_AGAIN = 5000, 40
LIMIT_W = 575
IDLE = len(PHASES)
# Power, utilisation: of the three that compute, of memory, of transfer, and with no load.
POWER = (570, 565, 545, 430, 180, 40)
USE = (100, 100, 100, 100, 30, 0)


class Plant(NamedTuple):
    """A fault: what, on which GPU, from when, for how long, and how much of it.

    Workers: `flip` (one wrong result), `wrong` (all results of fp32 are), `restart` (killed; it comes back), `stop` (told
    to; it comes back), `dead` (fails, and does not come back), `injected`, `torn` (a report cannot be read).
    Readings: `throttle`, `hot`, `link`, `replays` (so many a second), `idle`, `power` (a factor), `clock` (a factor).
    Events: `xid` (code in `value`), `lost`. The machine: `reboot`, `clock_step` (by `value` seconds).
    """

    kind: str
    gpu: int = 0
    start: int = 0
    seconds: int = 0
    value: float = 1


@dataclass
class Story:
    """A soak that is to be written."""

    seconds: int
    plants: Sequence[Plant] = ()
    gpus: int = 4
    # Which phase runs on which GPU at which second; filled in by the events.
    running: list[list[int]] = field(default_factory=list)

    def of(self, *kinds: str, gpu: int | None = None) -> list[Plant]:
        return [one for one in self.plants if one.kind in kinds and gpu in {None, one.gpu}]

    @property
    def reboot(self) -> Plant | None:
        return next(iter(self.of("reboot")), None)

    def again(self) -> int:
        """Return the second at which the machine is back."""
        return self.reboot.start + self.reboot.seconds if self.reboot else 1 << 60

    def mono(self, second: float) -> float:
        return second + MONO if second < self.again() else second - self.again() + MONO_AGAIN

    def boot(self, second: float) -> str:
        return FIRST_BOOT if second < self.again() else SECOND_BOOT

    def wall_ms(self, second: float) -> int:
        steps = sum(one.value for one in self.of("clock_step") if second >= one.start)
        return NOON_MS + round((second + steps) * 1000)


def cards(count: int = 4) -> list[Gpu]:
    """Return the GPUs of a soak."""
    more = {"power_limit_watts": LIMIT_W, "temperature_limit_celsius": 90, "pcie_gen_max": 5, "pcie_width_max": 16}
    return [gpu(index).model_copy(update=more) for index in range(count)]


def wall(story: Story, second: float) -> datetime:
    """Return the wall time of a second."""
    return datetime.fromtimestamp(story.wall_ms(second) / 1000, UTC)


def write(folder: Path, story: Story) -> None:
    """Write `gpu-N/events.jsonl` of every worker, and `run.db`."""
    for index in range(story.gpus):
        place = folder / f"gpu-{index}"
        place.mkdir(parents=True)
        running: list[int] = []
        story.running.append(running)
        (place / "events.jsonl").write_text("".join(_worker(story, index, running)))
    _record(folder / "run.db", story)


def read(folder: Path, gpus: Sequence[Gpu]) -> dict[str, Worker]:
    """Read the events of every worker back."""
    found = {}
    for one in gpus:
        log = EventLog()
        log.feed((folder / f"gpu-{one.index}" / "events.jsonl").read_bytes())
        log.close()
        found[f"gpu-{one.index}"] = Worker(log.events, log.garbled, one.uuid)
    return found


class _Lines:
    """The lines of one life."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._seq = 0

    def line(self, second: float, kind: str, **fields: Any) -> str:
        time = wall(self._story, second).isoformat(timespec="microseconds").replace("+00:00", "Z")
        envelope = {"schema": 1, "seq": self._seq, "time": time, "mono": self._story.mono(second), "rank": 0}
        self._seq += 1
        return json.dumps(envelope | {"kind": kind} | fields, separators=(",", ":")) + "\n"


@cache
def _digest(phase: str) -> str:
    return f"{sum(phase.encode()) * 0x9E3779B97F4A7C15 % 2**64:016x}"


def _worker(story: Story, index: int, running: list[int]) -> Iterator[str]:
    """Yield the events of a worker, life after life, until enough is covered."""
    away = sorted(story.of("restart", "stop", "dead", gpu=index) + story.of("reboot"), key=lambda one: one.start)
    second, covered = 0, 0
    while True:
        lines = _Lines(story)
        yield from _begin(story, lines, index, second, covered)
        running += [IDLE] * (second + START_S - len(running))
        second += START_S
        until = away[0].start if away else 1 << 60
        while covered < story.seconds and second < until:
            end = min(second + REPORT_S, until, second + story.seconds - covered)
            # One that was killed had no time for its last report.
            if end == until and away[0].kind not in {"stop", "dead"}:
                break
            phase = covered // PHASE_S % len(PHASES)
            yield from _report(story, lines, index, phase, second, end)
            running += [phase] * (end - second)
            covered += end - second
            second = end
        if covered >= story.seconds:
            yield lines.line(second, "finished", elapsed_s=float(second), covered_s=float(covered))
            return
        gone = away.pop(0)
        running += [IDLE] * (gone.start + gone.seconds - len(running))
        if gone.kind == "stop":
            yield lines.line(second, "error", code="interrupted", message="stopped by SIGTERM", exit_code=75)
        if gone.kind == "dead":
            yield lines.line(second, "error", code="device-failed", message="CUDA error: unspecified", exit_code=70)
            return
        second = gone.start + gone.seconds


def _begin(story: Story, lines: _Lines, index: int, second: int, covered: int) -> Iterator[str]:
    yield lines.line(
        second,
        "started",
        program="stress",
        params={"seconds": story.seconds},
        world_size=1,
        device="cuda",
        python="3.11.2",
        boot_id=story.boot(second),
        session=f"{index}{second:031x}",
        resumed_s=float(covered),
        fault_injected=bool(story.of("injected", gpu=index)),
    )
    one = gpu(index)
    yield lines.line(
        second + 10,
        "device",
        device_index=0,
        name=one.name,
        uuid=one.uuid,
        compute_capability=one.compute_capability,
        memory_bytes=one.memory_total_bytes,
    )
    for phase in PHASES:
        yield lines.line(second + 12, "reference", phase=phase, elements=65536, mismatches=0)


def _report(story: Story, lines: _Lines, index: int, phase: int, second: int, end: int) -> Iterator[str]:
    name, wrong = PHASES[phase], 0
    digest = _digest(name)
    if any(second <= one.start < end for one in story.of("flip", gpu=index)):
        wrong, digest = 3, f"{int(digest, 16) ^ 1:016x}"
        bits = {"first": [7, 9], "expected": "0x3f80", "found": "0x3f81"}
        yield lines.line(end - 1, "mismatch", phase=name, iteration=12, elements=wrong, **bits)
    if name == "fp32" and story.of("wrong", gpu=index):
        digest = f"{int(digest, 16) ^ 4:016x}"
    line = lines.line(
        end,
        "checked",
        phase=name,
        iterations=8 * (end - second),
        from_mono=story.mono(second),
        until_mono=story.mono(second) + end - second,
        work=(200_000_000_000_000 if phase < 3 else 1_500_000_000_000) * (end - second),
        unit="flop" if phase < 3 else "bytes",
        mismatches=wrong,
        key=f"{name}/8192/0",
        digest=digest,
    )
    torn = any(second <= one.start < end for one in story.of("torn", gpu=index))
    yield line[:40] + "\n" if torn else line


def _record(path: Path, story: Story) -> None:
    """Write what a recorder of 1 Hz would: through reboots, and until the last worker is done."""
    infos = [
        GpuInfo(
            uuid=one.uuid,
            index=one.index,
            name=one.name,
            pci_bus_id=one.pci_bus_id,
            compute_capability=one.compute_capability,
            memory_total_bytes=one.memory_total_bytes,
            pcie_gen_max=5,
            pcie_width_max=16,
            power_limit_mw=LIMIT_W * 1000,
        )
        for one in cards(story.gpus)
    ]
    last = max(len(running) for running in story.running)
    box = [_Card(story, index) for index in range(story.gpus)]
    events = sorted(story.of("xid", "lost"), key=lambda one: one.start)
    stretches = [(0, last)] if story.reboot is None else [(0, story.reboot.start), (story.again(), last)]
    for first, end in stretches:
        start = begun(mono_ms=round(story.mono(first) * 1000), wall_ms=story.wall_ms(first), boot_id=story.boot(first))
        writer = Writer(str(path), start, infos)
        for card in box:
            card.begin(story.reboot is not None and first == story.again())
        for second in range(first, end):
            mono_ms = round(story.mono(second) * 1000)
            for card in box:
                writer.reading(card.index, mono_ms + card.index, card.read(second))
            while events and events[0].start <= second:
                one = events.pop(0)
                code = int(one.value) if one.kind == "xid" else None
                writer.event(mono_ms, one.kind, position=one.gpu, code=code, sources="nvml,kernel")
            if any(one.start == second for one in story.of("clock_step")):
                writer.clock(mono_ms, story.wall_ms(second))
            if second % 600 == 0:
                writer.commit()
        writer.close(round(story.mono(end - 1) * 1000) + 10, "SIGTERM")


class _Card:
    """One simulated card: its counters, and what is planted on it."""

    def __init__(self, story: Story, index: int) -> None:
        self.index = index
        self._running = story.running[index]
        own = {kind: story.of(kind, gpu=index) for kind in ("throttle", "hot", "link", "replays", "idle", "clock")}
        self._plants = sorted((one for plants in own.values() for one in plants), key=lambda one: one.start)
        self._factor = next((one.value for one in story.of("power", gpu=index)), 1.0)
        self._lost = min((one.start for one in story.of("lost", gpu=index)), default=1 << 60)
        self.begin(fresh=True)

    def begin(self, fresh: bool) -> None:  # noqa: FBT001 - a new driver, or the same
        if fresh:
            self._energy = self._capped = self._thermal = self._replays = 0

    def read(self, second: int) -> Reading:
        if second >= self._lost:
            return Reading(problem="lost")
        phase = self._running[second] if second < len(self._running) else IDLE
        waver = (second * 7 + self.index * 3) % 11 - 5
        power = round(POWER[phase] * self._factor * 1000) + waver * 400
        use, clock, margin, width, bits = USE[phase], 2580 + waver * 9, 19 + waver % 3, 16, 4 if phase < 3 else 0
        for one in self._plants:
            if not one.start <= second < one.start + one.seconds:
                continue
            if one.kind == "throttle":
                self._thermal += 10**9
                bits |= 0x48
            elif one.kind == "hot":
                margin = 0
            elif one.kind == "link":
                width = 8
            elif one.kind == "replays":
                self._replays += int(one.value)
            elif one.kind == "idle":
                use = min(use, 40)
            else:
                clock = round(clock * one.value)
        self._energy += power
        self._capped += 10**9 * (phase < 3)
        return Reading(
            temperature_c=90 - margin,
            temperature_margin_c=margin,
            power_mw=power,
            energy_mj=self._energy,
            sm_clock_mhz=clock,
            memory_clock_mhz=14001,
            utilisation_percent=use,
            memory_utilisation_percent=50,
            memory_used_bytes=28 << 30,
            fan_percent=70,
            pstate=0,
            pcie_gen=5,
            pcie_width=width,
            pcie_replays=self._replays,
            clock_events=bits,
            power_cap_ns=self._capped,
            sw_thermal_ns=0,
            hw_thermal_ns=self._thermal,
            power_brake_ns=0,
        )
