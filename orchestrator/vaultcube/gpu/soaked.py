"""What telemetry adds to a soak: was it really load, and did the hardware bear it. With the checks of a soak. Pure.

Every figure is of the time in which workers say that they loaded their GPU. docs/soak.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from vaultcube.gpu.loads import BUSY_PERCENT, SETTLE_S, Figures, Loaded, Piece
from vaultcube.gpu.observed import COVERAGE, count_faults, events_of, hardware_checks
from vaultcube.gpu.soakfaults import fault_evidence, reset_evidence
from vaultcube.results.judge import CheckSpec, Measurement, check
from vaultcube.results.lives import Load
from vaultcube.results.schema import Evidence, Gpu, Metric
from vaultcube.results.soak import Soak, SoakTargets, Subject

if TYPE_CHECKING:
    from vaultcube.gpu.telemetry import Telemetry

# Parts of a soak: clocks of the first and of the last are compared. Before the first a card comes to its temperature.
_WARMUP, _FIRST, _MIDDLE, _LAST = range(4)
PART_S, WARMUP_S = 3600.0, 300.0
# Of fewer readings a mean clock says little.
MIN_READINGS = 30
# These look at phases that compute: others need not keep a GPU busy, or at its limit.
OF_PRODUCTS = frozenset({"busy", "power", "clock_stability"})

NAMES = (
    "gpus_lost",
    "xids_hardware",
    "busy_share_ratio",
    "power_share_ratio",
    "throttle_share_ratio",
    "temperature_margin_min_celsius",
    "clock_ratio",
    "pcie_link_ratio",
    "pcie_replays_per_hour",
)


def soak_checks(targets: SoakTargets) -> list[CheckSpec]:
    """Return what a soak is held to: what the workers tell of, which holds on the CPU too, then the GPUs."""
    return [
        check("covered", "covered_ratio", ">=", targets.covered_ratio, "ratio"),
        check("no_mismatch", "mismatches", "==", 0, "elements"),
        check("digests_agree", "digests_disagreeing", "==", 0, "digests"),
        check("no_unplanned_restart", "restarts_unplanned", "==", 0, "restarts"),
        check("no_fault_injected", "faults_injected", "==", 0, "sessions"),
        check("busy", "busy_share_ratio", ">=", targets.busy_share, "ratio", needs_gpu=True),
        check("power", "power_share_ratio", ">=", targets.power_share, "ratio", needs_gpu=True),
        check("throttling", "throttle_share_ratio", "<=", targets.throttle_share, "ratio", needs_gpu=True),
        check(
            "temperature_margin",
            "temperature_margin_min_celsius",
            ">=",
            targets.temperature_margin_celsius,
            "C",
            needs_gpu=True,
        ),
        check("clock_stability", "clock_ratio", ">=", targets.clock_ratio, "ratio", needs_gpu=True),
        check(
            "pcie_replays", "pcie_replays_per_hour", "<=", targets.pcie_replays_per_hour, "replays/h", needs_gpu=True
        ),
        *hardware_checks(),
    ]


def observe_soak(
    gpus: Sequence[Gpu],
    telemetry: Telemetry | None,
    soak: Soak,
    targets: SoakTargets,
    *,
    why_none: str = "no telemetry was recorded",
) -> Measurement:
    """Return what telemetry says about a soak.

    Args:
        gpus: the run's.
        telemetry: what was recorded, or None.
        soak: what the workers say.
        targets: what is asked for; what misses it gets evidence.
        why_none: the reason for what is missing when there is no telemetry.

    Raises:
        TelemetryError: the file breaks off.
    """
    if not gpus or telemetry is None:
        return Measurement(missing=dict.fromkeys(NAMES, why_none if gpus else "no GPU was used"))
    metrics: dict[str, Metric] = {}
    missing: dict[str, str] = {}
    count_faults(gpus, telemetry, metrics, missing)
    events = events_of(gpus, telemetry)
    evidence = [*fault_evidence(gpus, soak, events), *reset_evidence(soak, events)]
    seen = []
    for subject in soak.subjects:
        if subject.gpu is not None:
            with telemetry.under_load(subject.gpu.uuid, pieces(subject.loads)) as loaded:
                one = _Seen(subject, subject.gpu, loaded.figures(), loaded.period_s)
                seen.append(one)
                evidence += _misses(one, loaded, targets)
    _figures(seen, len(gpus), metrics, missing)
    return Measurement(metrics, missing, (), evidence)


def pieces(loads: Sequence[Load]) -> list[Piece]:
    """Return loads cut where one part of the soak ends and the next begins; parts are measured in time under load."""
    total = sum(load.end_s - load.start_s for load in loads)
    warm = min(WARMUP_S, total / 10)
    part = min(PART_S, total / 3)
    edges = [(warm, _WARMUP), (warm + part, _FIRST), (total - part, _MIDDLE), (total, _LAST)]
    found: list[Piece] = []
    done = 0.0
    # Boots in the order in which they come; loads are in the order of phases.
    boots = list(dict.fromkeys(load.boot_id for load in loads))
    for load in sorted(loads, key=lambda load: (boots.index(load.boot_id), load.start_s)):
        begun = done
        for edge, name in edges:
            start, end = load.start_s + done - begun, min(load.end_s, load.start_s + edge - begun)
            if end > start:
                phase = f"{load.unit}/{load.phase}"
                found.append(Piece(load.boot_id, phase, name, start, end, load.start_s + SETTLE_S))
                done += end - start
        # What rounding has left of it.
        done = begun + load.end_s - load.start_s
    return found


@dataclass(frozen=True)
class _Seen:
    """A GPU and what was read of it under load."""

    subject: Subject
    gpu: Gpu
    figures: Sequence[Figures]
    period_s: float

    @property
    def load_s(self) -> float:
        return sum(load.end_s - load.start_s for load in self.subject.loads)

    @property
    def coverage(self) -> float:
        """Return the share of the time under load that readings stand for."""
        readings = sum(one.readings for one in self.figures)
        return min(readings * self.period_s / self.load_s, 1.0) if self.load_s else 0.0

    @property
    def products(self) -> list[Figures]:
        """Return the figures of phases that compute."""
        return [one for one in self.figures if one.phase.startswith("flop/")]

    @property
    def busy(self) -> float | None:
        settled = sum(one.settled for one in self.products)
        return sum(one.busy for one in self.products) / settled if settled else None

    @property
    def power(self) -> float | None:
        """Return the share of the power limit that the hungriest phase draws, as a mean over all of it."""
        limit = self.gpu.power_limit_watts
        phases = {one.phase for one in self.products}
        means = [_mean(self._of(phase), lambda one: one.power_mean_w, lambda one: one.settled) for phase in phases]
        told = [mean for mean in means if mean is not None]
        return max(told) / limit if told and limit else None

    @property
    def throttled(self) -> tuple[float | None, str]:
        """Return the share of time held back (mask 0xE8), by the card's own counters where it has them; and which."""
        of_ms = sum(one.throttled_of_ms or 0 for one in self.figures)
        sampled = sum(one.sampled for one in self.figures)
        if of_ms:
            # Hardware slowdown by neither heat nor brake has no counter; one reading of it is a change of P-state.
            alone = max(sum(one.alone_sampled for one in self.figures) - 1, 0) / sampled if sampled else 0.0
            counted = sum(one.throttled_us or 0 for one in self.figures) / 1000 / of_ms
            return min(counted + alone, 1.0), "counters"
        return (sum(one.throttled_sampled for one in self.figures) / sampled if sampled else None), "sampled"

    @property
    def hottest(self) -> int | None:
        return max((one.temperature_max_c for one in self.figures if one.temperature_max_c is not None), default=None)

    @property
    def tells_margin(self) -> bool:
        return any(one.temperature_margin_min_c is not None for one in self.figures)

    @property
    def margin(self) -> float | None:
        """Return how near it came to its limit: as the card says, else by the limit that it states."""
        told = [one.temperature_margin_min_c for one in self.figures if one.temperature_margin_min_c is not None]
        if self.tells_margin:
            return min(told)
        limit, hottest = self.gpu.temperature_limit_celsius, self.hottest
        return None if limit is None or hottest is None else limit - hottest

    @property
    def clock(self) -> float | None:
        """Return the mean clock of the last part by that of the first, of the phase that lost most."""
        ratios = []
        for phase in {one.phase for one in self.products}:
            ends = [
                one
                for one in self._of(phase)
                if one.part in {_FIRST, _LAST} and one.settled >= MIN_READINGS and one.sm_clock_mean_mhz
            ]
            if len(ends) == 2:  # noqa: PLR2004 - the first and the last
                first, last = sorted(ends, key=lambda one: one.part)
                ratios.append((last.sm_clock_mean_mhz or 0) / (first.sm_clock_mean_mhz or 1))
        return min(ratios, default=None)

    @property
    def full_link(self) -> int | None:
        width, gen = self.gpu.pcie_width_max, self.gpu.pcie_gen_max
        return None if width is None or gen is None else width << gen

    @property
    def link(self) -> float | None:
        """Return the slowest PCIe link as a share of what card and slot can do: lanes x 2 a generation."""
        least = min((one.pcie_link_min for one in self.figures if one.pcie_link_min is not None), default=None)
        return None if least is None or self.full_link is None else least / self.full_link

    @property
    def replays(self) -> float | None:
        """Return the growth of the replay counter, an hour of load."""
        told = [one.pcie_replays for one in self.figures if one.pcie_replays is not None]
        return sum(told) * 3600 / self.load_s if told and self.load_s else None

    def _of(self, phase: str) -> list[Figures]:
        return [one for one in self.figures if one.phase == phase]


def _mean(
    figures: Sequence[Figures], value: Callable[[Figures], float | None], weight: Callable[[Figures], int]
) -> float | None:
    told = [(found, weight(one)) for one in figures if (found := value(one)) is not None and weight(one)]
    total = sum(count for _, count in told)
    return sum(found * count for found, count in told) / total if total else None


def _figures(seen: Sequence[_Seen], gpus: int, metrics: dict[str, Metric], missing: dict[str, str]) -> None:
    judged = [name for name in NAMES if name not in {*metrics, *missing}]
    loaded = sum(bool(one.subject.loads) for one in seen)
    if loaded < gpus:
        missing |= dict.fromkeys(judged, f"only {loaded} of {gpus} GPUs were ever under load")
        return
    coverage = min(one.coverage for one in seen)
    metrics["telemetry_coverage_ratio"] = Metric(value=coverage, unit="ratio")
    if coverage < COVERAGE:
        missing |= dict.fromkeys(judged, f"telemetry covers {coverage:.0%} of the time under load")
        return

    def add(
        name: str, unit: str, values: Sequence[float | None], choose: Callable[[list[float]], float], why: str
    ) -> None:
        told = [value for value in values if value is not None]
        if len(told) == len(values):
            metrics[name] = Metric(value=choose(told), unit=unit)
        elif name in NAMES:
            missing[name] = why

    add("busy_share_ratio", "ratio", [one.busy for one in seen], min, "a card does not tell its utilisation")
    add("power_share_ratio", "ratio", [one.power for one in seen], min, "a card does not tell its power, or its limit")
    add("throttle_share_ratio", "ratio", [one.throttled[0] for one in seen], max, "a card does not tell its throttling")
    why = "a card does not tell its temperature, or its limit"
    add("temperature_margin_min_celsius", "C", [one.margin for one in seen], min, why)
    add("temperature_max_celsius", "C", [one.hottest for one in seen], max, "")
    why = "a card does not tell its clocks, or the soak was too short to compare its beginning with its end"
    add("clock_ratio", "ratio", [one.clock for one in seen], min, why)
    add("pcie_link_ratio", "ratio", [one.link for one in seen], min, "a card does not tell its PCIe link")
    add("pcie_replays_per_hour", "replays/h", [one.replays for one in seen], max, "a card does not count PCIe replays")


class _Miss(NamedTuple):
    """What a GPU misses of the targets: in words, and which readings show it."""

    check: str
    text: str
    condition: str
    limits: Mapping[str, float] = MappingProxyType({})


def _misses(one: _Seen, loaded: Loaded, targets: SoakTargets) -> list[Evidence]:
    """Return evidence for what a GPU misses of the targets, with the times of the readings that show it."""
    if one.coverage < COVERAGE:
        return []
    found = []
    for miss in (*_idle(one, targets), *_strained(one, targets), *_linked(one, targets)):
        phases = sorted({figure.phase for figure in one.products}) if miss.check in OF_PRODUCTS else ()
        when = loaded.when(miss.condition, phases, miss.limits)
        found.append(
            one.subject.evidence(
                miss.check,
                f"{one.subject.called} {miss.text}",
                first=when.first if when else None,
                last=when.last if when else None,
                count=when.count if when else 1,
            )
        )
    return found


def _idle(one: _Seen, targets: SoakTargets) -> Iterator[_Miss]:
    """Yield what says that it was no full load."""
    if one.busy is not None and one.busy < targets.busy_share:
        share = f"{one.busy:.1%} of the time in which it computed"
        yield _Miss("busy", f"was at {BUSY_PERCENT} % utilisation or more for {share}", "idle")
    if one.power is not None and one.power < targets.power_share:
        limit = f"its limit of {one.gpu.power_limit_watts:.0f} W"
        yield _Miss("power", f"drew {one.power:.1%} of {limit} in its hungriest phase", "loaded")


def _strained(one: _Seen, targets: SoakTargets) -> Iterator[_Miss]:
    """Yield what says that it did not bear the load."""
    share, source = one.throttled
    if share is not None and share > targets.throttle_share:
        text = f"was held back by heat, power brake or hardware for {share:.1%} of the time ({source})"
        yield _Miss("throttling", text, "throttled")
    least = targets.temperature_margin_celsius
    if one.margin is not None and one.margin < least:
        text = f"came within {one.margin:.0f} C of its own temperature limit ({one.hottest} C)"
        if one.tells_margin:
            yield _Miss("temperature_margin", text, "hot", {"limit": least})
        else:
            yield _Miss("temperature_margin", text, "warm", {"limit": (one.gpu.temperature_limit_celsius or 0) - least})
    if one.clock is not None and one.clock < targets.clock_ratio:
        yield _Miss(
            "clock_stability", f"ended at {one.clock:.1%} of the clock that it began with", "last", {"part": _LAST}
        )


def _linked(one: _Seen, targets: SoakTargets) -> Iterator[_Miss]:
    """Yield what is wrong with its PCIe link."""
    if one.link is not None and one.link < 1:
        full = f"x{one.gpu.pcie_width_max} of generation {one.gpu.pcie_gen_max}"
        text = f"fell to {one.link:.3g} of its PCIe link under load ({full})"
        yield _Miss("pcie_link", text, "slow_link", {"link": one.full_link or 0})
    if one.replays is not None and one.replays > targets.pcie_replays_per_hour:
        yield _Miss("pcie_replays", f"repeated {one.replays:.0f} PCIe transfers an hour of load", "replays")
