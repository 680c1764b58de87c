"""What a framework made of its devices before it trained: are they all there, do they compute right, can memory be had."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from vaultcube.results.events import Allocation, AnyEvent, Detection, Operation, Started
from vaultcube.results.judge import Measurement
from vaultcube.results.schema import Metric

NAMES = ("devices_missing", "operation_mismatches", "allocations_failed")


def measure_devices(events: Sequence[AnyEvent], world_size: int, operations: Collection[str]) -> Measurement:
    """Turn what ranks said of their devices into metrics.

    Args:
        events: in file order.
        world_size: how many devices were planned, one a rank.
        operations: the operations that every rank is to report.

    Returns:
        Metrics, and reasons for those that are missing. Never raises on what events say.
    """
    started = next((event for event in events if isinstance(event, Started)), None)
    if started is None:
        return Measurement(missing=dict.fromkeys(NAMES, "the workload never started"))
    metrics: dict[str, Metric] = {}
    missing: dict[str, str] = {}
    _detected(events, world_size, metrics, missing)
    _operations(events, world_size, operations, started.device, metrics, missing)
    _allocations(events, world_size, started.device, metrics, missing)
    return Measurement(metrics=metrics, missing=missing)


def _detected(events: Sequence[AnyEvent], world_size: int, metrics: dict[str, Metric], missing: dict[str, str]) -> None:
    # Of several words the worst counts, and a name that is told twice is one device.
    found = [min(event.found, len(set(event.names))) for event in events if isinstance(event, Detection)]
    if found:
        metrics["devices_missing"] = Metric(value=max(world_size - min(found), 0), unit="devices")
    else:
        missing["devices_missing"] = "the framework did not say which devices it lists"


def _operations(
    events: Sequence[AnyEvent],
    world_size: int,
    operations: Collection[str],
    device: str,
    metrics: dict[str, Metric],
    missing: dict[str, str],
) -> None:
    told = [event for event in events if isinstance(event, Operation) and event.rank in range(world_size)]
    # A right result of another device proves nothing of this one.
    wrong = sum(max(event.mismatches, 0 if _at_home(event, device) else event.elements) for event in told)
    reported = {(event.rank, event.name) for event in told}
    due = {(rank, name) for rank in range(world_size) for name in operations}
    if wrong or due <= reported:
        metrics["operation_mismatches"] = Metric(value=wrong, unit="elements")
    else:
        missing["operation_mismatches"] = f"only {len(due & reported)} of {len(due)} operations were reported"


def _at_home(event: Operation, device: str) -> bool:
    """Say whether a result was where its rank computes: `.../device:GPU:2` for rank 2."""
    kind = "GPU" if device == "cuda" else "CPU"
    return event.placed.upper().endswith(f"{kind}:{event.rank}")


def _allocations(
    events: Sequence[AnyEvent], world_size: int, device: str, metrics: dict[str, Metric], missing: dict[str, str]
) -> None:
    told = [event for event in events if isinstance(event, Allocation) and event.rank in range(world_size)]
    # On the CPU memory always grows as it is needed, and no setting says so.
    failed = {event.rank for event in told if not event.bytes or not (event.growth or device == "cpu")}
    reported = len({event.rank for event in told})
    if failed or reported == world_size:
        metrics["allocations_failed"] = Metric(value=len(failed), unit="devices")
    else:
        missing["allocations_failed"] = f"only {reported} of {world_size} devices reported it"
