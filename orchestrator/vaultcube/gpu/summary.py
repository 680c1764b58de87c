"""What a stretch of telemetry says about one GPU. The counting is done by SQLite, in one pass over the rows."""

import sqlite3
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from vaultcube.gpu.clockevents import POWER_CAP, REASONS, THROTTLE_MASK
from vaultcube.gpu.rundb import GPU_BITS

# Up to here the distance of two readings is the period and its jitter; beyond it one reading was missed.
_LATE: Final = 1.5
_HW_SLOWDOWN, _SW_THERMAL, _HW_THERMAL, _POWER_BRAKE, _ALONE = 0x8, 0x20, 0x40, 0x80, -1
# Which reason each counter measures.
_COUNTERS: Final = {
    "power_cap_us": POWER_CAP,
    "sw_thermal_us": _SW_THERMAL,
    "hw_thermal_us": _HW_THERMAL,
    "power_brake_us": _POWER_BRAKE,
}


class Summary(NamedTuple):
    """One GPU over one interval; None is what the card does not tell, or what nothing was recorded of.

    Shares, utilisations and `coverage` are ratios from 0 to 1; units of the rest are in the names; times are
    CLOCK_MONOTONIC in seconds.

    Attributes:
        uuid: the GPU.
        start_s, end_s: the interval.
        samples: readings in it that gave values.
        expected: readings that were due.
        coverage: share of the interval that readings stand for. A reading stands for the time since the one before; when
            that was missed, for one period.
        longest_gap_s: the longest time without a reading; one period when none was missed.
        utilisation_mean, utilisation_min: share of time in which a kernel ran.
        memory_utilisation_mean: share of time in which memory was read or written.
        sm_clock_mean_mhz, sm_clock_min_mhz, memory_clock_mean_mhz, memory_clock_min_mhz: clocks.
        power_mean_w, power_max_w: NVML's power, itself a mean over a second.
        energy_j: difference of the card's energy counter, board only, taken at the edges between two readings.
        energy_s: the seconds that `energy_j` is of: less than the interval where readings are missing.
        energy_reason: why `energy_j` is None.
        temperature_max_c, temperature_margin_min_c: highest, and how near it came to the card's own limit.
        memory_temperature_max_c: highest of the memory.
        throttle_share: time slowed down by heat, by the power brake or by the hardware (mask 0xE8). With counters, two
            reasons at once count twice, up to the whole.
        throttle_source: `counters`: the card's own nanosecond counters, which miss nothing; `sampled`: the share of
            readings that showed a reason.
        reasons: share of time of every clock-event reason that was seen; from counters where there are any.
        power_cap_share: time at the power limit; normal at full load.
        pcie_gen_min, pcie_width_min: least while the GPU was busy; an idle link slows down by itself.
        pcie_replays: growth of the replay counter.
        memory_used_max_bytes: most memory in use.
        ecc_uncorrected: growth of the uncorrected ECC errors.
        problem, problem_at_s: the first thing that kept the GPU from being read, and when it was seen.
    """

    uuid: str
    start_s: float
    end_s: float
    samples: int
    expected: int
    coverage: float
    longest_gap_s: float
    utilisation_mean: float | None = None
    utilisation_min: float | None = None
    memory_utilisation_mean: float | None = None
    sm_clock_mean_mhz: float | None = None
    sm_clock_min_mhz: int | None = None
    memory_clock_mean_mhz: float | None = None
    memory_clock_min_mhz: int | None = None
    power_mean_w: float | None = None
    power_max_w: float | None = None
    energy_j: float | None = None
    energy_s: float | None = None
    energy_reason: str | None = None
    temperature_max_c: int | None = None
    temperature_margin_min_c: int | None = None
    memory_temperature_max_c: int | None = None
    throttle_share: float | None = None
    throttle_source: Literal["counters", "sampled"] | None = None
    reasons: Mapping[str, float] = MappingProxyType({})
    power_cap_share: float | None = None
    pcie_gen_min: int | None = None
    pcie_width_min: int | None = None
    pcie_replays: int | None = None
    memory_used_max_bytes: int | None = None
    ecc_uncorrected: int | None = None
    problem: str | None = None
    problem_at_s: float | None = None


class Span(NamedTuple):
    """An interval in a file's time (ms), its distance to CLOCK_MONOTONIC (ms), and what applies to it."""

    start_ms: int
    end_ms: int
    base_ms: int
    period_ms: int
    suspended_ms: int


# Those of the interval, and as far as the one after it.
_HERE: Final = "FROM readings WHERE id BETWEEN :begin AND :finish AND id & 63 = :gpu AND problem IS NULL"
_ON: Final = "FROM readings WHERE id BETWEEN :begin AND :after AND id & 63 = :gpu AND problem IS NULL"
_PLAIN: Final = {
    "avg": ("utilisation_percent", "memory_utilisation_percent", "sm_clock_mhz", "memory_clock_mhz", "power_mw"),
    "min": ("utilisation_percent", "sm_clock_mhz", "memory_clock_mhz", "temperature_margin_c"),
    "max": ("power_mw", "temperature_c", "memory_temperature_c", "memory_used_kib"),
    # What happened between the interval's beginning and its first reading counts whole.
    "sum": ("pcie_replays", "ecc_uncorrected"),
}
_BUSY: Final = "FILTER (WHERE utilisation_percent > 0)"


def _select(columns: Mapping[str, str], source: str) -> str:
    picked = ", ".join(f"{text} AS {name}" for name, text in columns.items())
    return f"SELECT {picked} {source}"


_VALUES: Final = _select(
    {"samples": "count(*)", "last_ms": "max(id) >> 6"}
    | {f"{kind}_{name}": f"{kind}({name})" for kind, names in _PLAIN.items() for name in names}
    | {name: f"min({name}) {_BUSY}" for name in ("pcie_gen", "pcie_width")},
    _HERE,
)
_BITS: Final = f"SELECT clock_events, count(*) {_HERE} AND clock_events IS NOT NULL GROUP BY clock_events"
# What lies between the readings: `overlap` is the part of the time since the reading before that is in the interval,
# `stands` the part of the interval that the reading stands for.
_BETWEEN: Final = _select(
    {"covered": "coalesce(sum(stands), 0)", "gap": "coalesce(max(overlap), 0)"}
    | {name: f"sum(1.0 * {name} * overlap / since_ms)" for name in ("energy_mj", *_COUNTERS)}
    | {f"{name}_of_ms": f"sum(overlap) FILTER (WHERE {name} IS NOT NULL)" for name in ("energy_mj", *_COUNTERS)},
    f"""
    FROM (
        SELECT *, min(id >> 6, :end) - max((id >> 6) - coalesce(since_ms, id >> 6), :start) AS overlap,
            max(min(id >> 6, :end) - max((id >> 6) - iif(since_ms <= :late, since_ms, :period), :start), 0) AS stands
        {_ON}
    )
    """,
)


def summarise(db: sqlite3.Connection, gpu: int, uuid: str, span: Span) -> Summary:
    """Return a GPU's summary. `gpu` is its number in the file.

    Raises:
        sqlite3.Error: the file cannot be read.
    """
    start, end = span.start_ms, max(span.end_ms, span.start_ms)
    begin, finish = start << GPU_BITS, (end + 1 << GPU_BITS) - 1
    keys: dict[str, float] = {"gpu": gpu, "begin": begin, "finish": finish, "start": start, "end": end}
    after = db.execute(_AFTER, keys).fetchone()
    keys |= {"after": after[0] if after else finish, "period": span.period_ms, "late": span.period_ms * _LATE}
    row = _one(db, _VALUES, keys) | _one(db, _BETWEEN, keys)
    bits = _bits(db.execute(_BITS, keys).fetchall())
    duration = end - start + span.suspended_ms
    covered, gap = _coverage(row, span, is_last=after is None)
    problem = db.execute(_PROBLEM, keys).fetchone()
    energy_j, energy_s, energy_reason = _energy(row, reset=db.execute(_RESET, keys).fetchone() is not None)
    shares = {bit: _share(row, counter, bits.get(bit)) for counter, bit in _COUNTERS.items()}
    share, source = _throttled(row, shares, bits)
    return Summary(
        uuid=uuid,
        start_s=(start + span.base_ms) / 1000,
        end_s=(end + span.base_ms) / 1000,
        samples=row["samples"],
        expected=max(round(duration / span.period_ms), 1),
        coverage=min(covered / duration, 1.0) if duration else float(row["samples"] > 0),
        longest_gap_s=max(gap, span.suspended_ms) / 1000,
        utilisation_mean=_scaled(row["avg_utilisation_percent"], 100),
        utilisation_min=_scaled(row["min_utilisation_percent"], 100),
        memory_utilisation_mean=_scaled(row["avg_memory_utilisation_percent"], 100),
        sm_clock_mean_mhz=row["avg_sm_clock_mhz"],
        sm_clock_min_mhz=row["min_sm_clock_mhz"],
        memory_clock_mean_mhz=row["avg_memory_clock_mhz"],
        memory_clock_min_mhz=row["min_memory_clock_mhz"],
        power_mean_w=_scaled(row["avg_power_mw"], 1000),
        power_max_w=_scaled(row["max_power_mw"], 1000),
        energy_j=energy_j,
        energy_s=energy_s,
        energy_reason=energy_reason,
        temperature_max_c=row["max_temperature_c"],
        temperature_margin_min_c=row["min_temperature_margin_c"],
        memory_temperature_max_c=row["max_memory_temperature_c"],
        throttle_share=share,
        throttle_source=source,
        reasons={name: part for bit, name in REASONS.items() if (part := shares.get(bit, bits.get(bit)))},
        power_cap_share=shares[POWER_CAP],
        pcie_gen_min=row["pcie_gen"],
        pcie_width_min=row["pcie_width"],
        pcie_replays=row["sum_pcie_replays"],
        memory_used_max_bytes=None if row["max_memory_used_kib"] is None else row["max_memory_used_kib"] << 10,
        ecc_uncorrected=row["sum_ecc_uncorrected"],
        problem=problem[0] if problem else None,
        problem_at_s=(problem[1] + span.base_ms) / 1000 if problem else None,
    )


_AFTER: Final = "SELECT id FROM readings WHERE id > :finish AND id & 63 = :gpu AND problem IS NULL ORDER BY id LIMIT 1"
_PROBLEM: Final = (
    "SELECT problem, id >> 6 FROM readings "
    "WHERE id BETWEEN :begin AND :finish AND id & 63 = :gpu AND problem IS NOT NULL ORDER BY id LIMIT 1"
)
_RESET: Final = (
    "SELECT 1 FROM happenings WHERE kind = 'energy_reset' AND gpu = :gpu AND t_ms > :start AND t_ms <= :end LIMIT 1"
)


def _one(db: sqlite3.Connection, sql: str, keys: Mapping[str, float]) -> dict[str, Any]:
    cursor = db.execute(sql, keys)
    return dict(zip((column[0] for column in cursor.description), cursor.fetchone(), strict=True))


def _bits(counts: list[tuple[int, int]]) -> dict[int, float]:
    """Return the share of readings that showed each bit. Empty without readings.

    Under THROTTLE_MASK stands the share of any of its bits. Under _ALONE that of a hardware slowdown by neither heat nor
    brake, which has no counter: it shows for a moment at a change of P-state too, so one reading of them is not believed.
    """
    total = sum(count for _, count in counts)
    if not total:
        return {}
    found = {
        mask: sum(count for events, count in counts if events & mask) / total for mask in (*REASONS, THROTTLE_MASK)
    }
    alone = sum(
        count for events, count in counts if events & _HW_SLOWDOWN and not events & (_HW_THERMAL | _POWER_BRAKE)
    )
    return found | {_ALONE: max(alone - 1, 0) / total}


def _coverage(row: Mapping[str, Any], span: Span, *, is_last: bool) -> tuple[float, float]:
    """Return for how long readings stand and the longest time without one, in ms."""
    covered, gap = row["covered"], row["gap"]
    if is_last:
        # Nothing follows, and the next reading may not have been due yet.
        rest = span.end_ms - (row["last_ms"] if row["samples"] else span.start_ms)
        gap = max(gap, rest)
        covered += rest if row["samples"] and rest <= _LATE * span.period_ms else 0
    return covered, gap


def _energy(row: Mapping[str, Any], *, reset: bool) -> tuple[float | None, float | None, str | None]:
    if reset:
        return None, None, "the energy counter began anew"
    if row["energy_mj"] is None:
        few = row["samples"] < 2  # noqa: PLR2004 - a difference is of two
        return None, None, "fewer than two readings" if few else "the card has no energy counter"
    return row["energy_mj"] / 1000, row["energy_mj_of_ms"] / 1000, None


def _share(row: Mapping[str, Any], counter: str, sampled: float | None) -> float | None:
    """Return the share of time of a counter's reason; where there is no counter, what was sampled."""
    of_ms = row[f"{counter}_of_ms"]
    return min(float(row[counter] / 1000 / of_ms), 1.0) if of_ms else sampled


def _throttled(
    row: Mapping[str, Any], shares: Mapping[int, float | None], bits: Mapping[int, float]
) -> tuple[float | None, Literal["counters", "sampled"] | None]:
    bad = {counter: bit for counter, bit in _COUNTERS.items() if bit & THROTTLE_MASK}
    if all(row[f"{counter}_of_ms"] for counter in bad):
        return min(sum(shares[bit] or 0.0 for bit in bad.values()) + bits.get(_ALONE, 0.0), 1.0), "counters"
    return bits.get(THROTTLE_MASK), "sampled" if bits else None


def _scaled(value: float | None, divisor: int) -> float | None:
    return None if value is None else value / divisor
