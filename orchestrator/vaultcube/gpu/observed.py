"""What telemetry adds to a run's measurement: figures of the GPUs while it measured, and what disturbed them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vaultcube.gpu.clockevents import THROTTLE_MASK, names
from vaultcube.gpu.xid import classify
from vaultcube.results.intervals import Interval
from vaultcube.results.judge import CheckSpec, Measurement, check
from vaultcube.results.schema import Gpu, Metric

if TYPE_CHECKING:
    from vaultcube.gpu.telemetry import Event, Summary, Telemetry

# Clocks that are held back for less than this share of the time flicker at a change of P-state.
THROTTLE_SHARE = 0.01
THROTTLES = frozenset(names(THROTTLE_MASK))
# With fewer of the samples that were due, a mean says little about the whole.
COVERAGE = 0.9
# Energy counters move in steps: over less time a difference says little (docs/measuring.md).
ENERGY_S = 30.0
# So far from the recording nothing is measured, and arithmetic is still exact.
FAR_S = 1e6

# What every run on GPUs is asked for.
NAMES = (
    "gpu_utilisation",
    "gpus_lost",
    "xids_hardware",
    "pcie_link_ratio",
    "gpu_memory_used_max_ratio",
)


def hardware_checks() -> list[CheckSpec]:
    """Return what every workload on GPUs is held to: full PCIe links, no GPU lost, no Xid that speaks of the machine."""
    return [
        check("pcie_link", "pcie_link_ratio", ">=", 1, "ratio", needs_gpu=True),
        check("no_gpu_lost", "gpus_lost", "==", 0, "GPUs", needs_gpu=True),
        check("no_xid", "xids_hardware", "==", 0, "events", needs_gpu=True),
    ]


def observe(
    gpus: Sequence[Gpu],
    telemetry: Telemetry | None,
    intervals: Sequence[Interval],
    ranks: Mapping[int, str],
    *,
    containers: Collection[str] = (),
    why_none: str = "no telemetry was recorded",
) -> Measurement:
    """Return what telemetry says about a run.

    Args:
        gpus: the run's.
        telemetry: what was recorded, or None.
        intervals: when the workload measured.
        ranks: the GPU (UUID) that a rank says it computed on.
        containers: the ids of the run's own containers.
        why_none: the reason for what is missing when there is no telemetry.
    """
    if not gpus or telemetry is None:
        return Measurement(missing=dict.fromkeys(_asked(intervals), why_none if gpus else "no GPU was used"))
    metrics: dict[str, Metric] = {}
    missing: dict[str, str] = {}
    count_faults(gpus, telemetry, metrics, missing)
    intervals = _recorded(intervals, telemetry)
    together = next((one for one in reversed(intervals) if one.rank is None), None)
    if together is None:
        reason = "nothing that used all GPUs was timed while telemetry was recorded"
        missing |= {name: reason for name in _asked(intervals) if name not in metrics}
    else:
        seen = [(gpu, telemetry.summarise(gpu.uuid, together.start_s, together.end_s)) for gpu in gpus]
        _figures(seen, together, metrics, missing)
    disturbances = _held_back(gpus, telemetry, intervals, ranks) + _guests(gpus, telemetry, intervals, containers)
    return Measurement(metrics, missing, disturbances)


def _asked(intervals: Sequence[Interval]) -> tuple[str, ...]:
    return (*NAMES, *dict.fromkeys(_energy_name(one) for one in intervals))


def _energy_name(interval: Interval) -> str:
    return f"energy_per_{interval.unit}_joules"


def _recorded(intervals: Sequence[Interval], telemetry: Telemetry) -> list[Interval]:
    """Return the intervals that touch the recording, cut where a container's clock cannot be ours."""
    meta = telemetry.meta
    first, last = meta.started_s, meta.last_s
    return [
        replace(one, start_s=max(one.start_s, first - FAR_S), end_s=min(one.end_s, last + FAR_S))
        for one in intervals
        if one.start_s <= last and one.end_s >= first
    ]


def events_of(gpus: Sequence[Gpu], telemetry: Telemetry) -> list[Event]:
    """Return what happened over the whole recording; an event of which nobody says the GPU may be ours."""
    ours = {gpu.uuid for gpu in gpus}
    # The kernel names a GPU by its place: without a name too, it is one that is not recorded. One that NVML counts and
    # that never answered was given to the recorder's container: it is ours.
    return [
        event
        for event in telemetry.events()
        if event.uuid in ours or (event.uuid is None and event.detail.get("pci") is None)
    ]


def count_faults(
    gpus: Sequence[Gpu], telemetry: Telemetry, metrics: dict[str, Metric], missing: dict[str, str]
) -> None:
    """Count lost GPUs and Xids over the whole recording."""
    events = events_of(gpus, telemetry)
    lost = {event.uuid for event in events if event.kind == "lost"}
    metrics["gpus_lost"] = Metric(value=len(lost), unit="GPUs")
    xids = [classify(event.code) for event in events if event.kind == "xid" and event.code is not None]
    if not xids and telemetry.meta.kernel_log is None and not telemetry.meta.xid_events:
        missing["xids_hardware"] = "neither the kernel's log nor NVML's events could be read"
        return
    for name in ("hardware", "application"):
        metrics[f"xids_{name}"] = Metric(value=xids.count(name), unit="events")


def _figures(
    seen: Sequence[tuple[Gpu, Summary]], interval: Interval, metrics: dict[str, Metric], missing: dict[str, str]
) -> None:
    summaries = [summary for _, summary in seen]
    coverage = min(summary.coverage for summary in summaries)
    metrics["telemetry_coverage_ratio"] = Metric(value=coverage, unit="ratio")
    if coverage < COVERAGE:
        reason = f"telemetry covers {coverage:.0%} of the timed windows"
        missing |= {name: reason for name in (*NAMES, _energy_name(interval)) if name not in {*metrics, *missing}}
        return

    def add(name: str, unit: str, values: Sequence[float | None], choose: Callable[[list[float]], float]) -> bool:
        told = [value for value in values if value is not None]
        if len(told) == len(values):
            metrics[name] = Metric(value=choose(told), unit=unit)
        return name in metrics

    if not add("gpu_utilisation", "ratio", [one.utilisation_mean for one in summaries], min):
        missing["gpu_utilisation"] = "a card does not tell its utilisation"
    add("sm_clock_mean_mhz", "MHz", [one.sm_clock_mean_mhz for one in summaries], min)
    add("memory_clock_mean_mhz", "MHz", [one.memory_clock_mean_mhz for one in summaries], min)
    add("power_mean_watts", "W", [one.power_mean_w for one in summaries], sum)
    add("temperature_max_celsius", "C", [one.temperature_max_c for one in summaries], max)
    add("temperature_margin_min_celsius", "C", [one.temperature_margin_min_c for one in summaries], min)
    add("throttle_share_ratio", "ratio", [one.throttle_share for one in summaries], max)
    add("power_cap_share_ratio", "ratio", [one.power_cap_share for one in summaries], max)
    add("gpu_memory_used_max_bytes", "bytes", [one.memory_used_max_bytes for one in summaries], max)
    if not add("gpu_memory_used_max_ratio", "ratio", [_memory(*one) for one in seen], max):
        missing["gpu_memory_used_max_ratio"] = "a card does not tell its memory"
    add("pcie_replays", "replays", [one.pcie_replays for one in summaries], sum)
    if not add("pcie_link_ratio", "ratio", [_link(*one) for one in seen], min):
        missing["pcie_link_ratio"] = "a card was never busy, or does not tell its PCIe link"
    _energy(summaries, interval, metrics, missing)


def _link(gpu: Gpu, summary: Summary) -> float | None:
    """Return the slowest PCIe link under load as a share of what card and slot can do: lanes x 2 a generation."""
    now, most = (summary.pcie_width_min, summary.pcie_gen_min), (gpu.pcie_width_max, gpu.pcie_gen_max)
    if now[0] is None or now[1] is None or most[0] is None or most[1] is None:
        return None
    return now[0] / most[0] * 2.0 ** (now[1] - most[1])


def _memory(gpu: Gpu, summary: Summary) -> float | None:
    """Return the most memory in use, the driver's own included, as a share of the card's."""
    return None if summary.memory_used_max_bytes is None else summary.memory_used_max_bytes / gpu.memory_total_bytes


def _energy(
    summaries: Sequence[Summary], interval: Interval, metrics: dict[str, Metric], missing: dict[str, str]
) -> None:
    name = _energy_name(interval)
    seconds = interval.end_s - interval.start_s
    if seconds < ENERGY_S:
        missing[name] = f"the windows lasted {seconds:.0f} s, and {ENERGY_S:.0f} s are needed"
        return
    total = 0.0
    for summary in summaries:
        if summary.energy_j is None:
            missing[name] = summary.energy_reason or "a card does not tell its energy"
            return
        # The counter may miss a little of the interval at its edges.
        total += summary.energy_j * seconds / (summary.energy_s or seconds)
    metrics[name] = Metric(value=total / interval.samples, unit=f"J/{interval.unit}")
    if interval.unit == "token" and total > 0:
        metrics["tokens_per_joule"] = Metric(value=interval.samples / total, unit="tokens/J")


def _held_back(
    gpus: Sequence[Gpu], telemetry: Telemetry, intervals: Sequence[Interval], ranks: Mapping[int, str]
) -> list[str]:
    """Return a sentence for every GPU whose clocks were held back while it was timed."""
    found = []
    for interval in intervals:
        working = [gpu for gpu in gpus if interval.rank is None or ranks.get(interval.rank) == gpu.uuid]
        for gpu in working:
            summary = telemetry.summarise(gpu.uuid, interval.start_s, interval.end_s)
            if summary.throttle_share is not None and summary.throttle_share > THROTTLE_SHARE:
                who = "replica" if interval.unit == "token" else "rank"
                everybody = f"all {who}s worked"
                when = everybody if interval.rank is None else f"{who} {interval.rank} worked alone"
                why = ", ".join(name for name in summary.reasons if name in THROTTLES) or "an unnamed reason"
                found.append(
                    f"the clocks of GPU {gpu.index} were held back for {summary.throttle_share:.0%} of the time while "
                    f"{when} ({why})"
                )
    return found


def _guests(
    gpus: Sequence[Gpu], telemetry: Telemetry, intervals: Sequence[Interval], containers: Collection[str]
) -> list[str]:
    """Return a sentence for every process of somebody else that computed on a GPU while something was timed."""
    # A run that broke off before its containers were known has no verdict to spoil.
    if not intervals or not containers:
        return []
    first, last = min(one.start_s for one in intervals), max(one.end_s for one in intervals)
    index = {gpu.uuid: gpu.index for gpu in gpus}
    found: dict[tuple[str, int], str] = {}
    for event in telemetry.events(None, last):
        if event.uuid not in index:
            continue
        process = event.uuid, int(event.detail.get("pid", 0))
        if event.kind == "process" and not set(event.detail["containers"]) & set(containers):
            said = f"process {process[1]} ({event.detail['name'] or 'ended'})"
            found[process] = f"{said} computed on GPU {index[event.uuid]} at the same time"
        elif event.kind == "process_ended" and event.at_s < first:
            found.pop(process, None)
    return list(found.values())
