"""Judges the folder of a soak: what its workers and its recorder left, here or copied from another machine."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vaultcube.errors import DataUnreadableError, NotFoundError, RunActiveError
from vaultcube.gpu.soaked import observe_soak, soak_checks
from vaultcube.gpu.telemetry import RecordedGpu, Telemetry, TelemetryError, settle
from vaultcube.results.events import Device, EventLog, Finished, Frameworks, Started
from vaultcube.results.judge import Measurement, joined, judge
from vaultcube.results.lives import Worker
from vaultcube.results.profile import Profile, read_targets
from vaultcube.results.schema import Check, Gpu, Result, RunInfo, Status, Verdict
from vaultcube.results.soak import SoakTargets, measure_soak, read_soak
from vaultcube.results.store import RunDirectory, read_plain
from vaultcube.stack.environment import provenance
from vaultcube.workloads import DeviceKind

EVENTS, TELEMETRY = "events.jsonl", "run.db"
WORKLOAD = "stress"
_INDEX = re.compile(r"gpu-([0-9]{1,3})")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the files of a soak say.

    Attributes:
        device: what its workers computed on.
        seconds: covered time that was asked for.
        gpus: those that were computed on, and those that were planned.
        simulated: whether the recording came from a simulator.
        driver: its version, as far as it was recorded.
        measured: metrics, and evidence for what counts against checks.
        checks, verdict: the judgement; PASS only if every worker was done.
        ended: whether every worker was done.
        versions: of the frameworks, by name.
    """

    device: DeviceKind
    seconds: float
    gpus: Sequence[Gpu]
    simulated: bool
    driver: str | None
    measured: Measurement
    checks: Sequence[Check]
    verdict: Verdict
    ended: bool
    versions: Mapping[str, str | None]


def judge_soak(folder: Path, profile: Profile, *, alive: bool = False, rung_s: float = 0) -> Result:
    """Measure and judge a soak that has ended. The same files always give the same verdict.

    Args:
        folder: `gpu-0/events.jsonl` and so on, and `run.db` where there was something to record.
        profile: what is asked for.
        alive: judge what there is by now: workers or recorder go on, and nothing of theirs is touched.
        rung_s: seconds to be covered by now, and the end of nothing; 0 takes the workers' word.

    Raises:
        NotFoundError: no worker of a soak wrote into the folder. RunActiveError: one is at work there.
        DataUnreadableError: it cannot be read. ProfileError: the profile asks for what no soak has.
    """
    workers = read_workers(folder, alive=alive)
    found = weigh(folder, workers, profile, seconds=rung_s, alive=alive)
    times = [event.time for worker in workers.values() for event in worker.events]
    source = provenance(None, driver=found.driver, images={}, compose_sha256=None)
    return Result(
        run=RunInfo(
            id=folder.name,
            workload=WORKLOAD,
            status=Status.COMPLETED if found.ended or rung_s else Status.INTERRUPTED,
            started=min(times),
            finished=max(times),
        ),
        verdict=found.verdict,
        simulated=found.simulated,
        device=found.device,
        checks=list(found.checks),
        metrics=dict(found.measured.metrics),
        params={"seconds": found.seconds},
        gpus=list(found.gpus),
        disturbances=list(found.measured.disturbances),
        evidence=list(found.measured.evidence),
        provenance=source.model_copy(update={"frameworks": dict(found.versions)}),
        # A file that is being written has no lasting hash.
        artifacts=[] if alive else RunDirectory(folder).artifacts(),
    )


def weigh(
    folder: Path,
    workers: Mapping[str, Worker],
    profile: Profile,
    *,
    planned: Sequence[Gpu] = (),
    seconds: float = 0,
    device: DeviceKind | None = None,
    alive: bool = False,
) -> Judgement:
    """Hold what workers and recorder left against the profile.

    Args:
        folder: where the recording is.
        workers: by name, also those that were planned and never wrote a word.
        profile: what is asked for.
        planned: GPUs that were to be loaded; they are judged even if nobody computed on them.
        seconds: what was to be covered; 0 takes the workers' word.
        device: what was planned; None takes the workers' word, who then must have said one.
        alive: what is left goes on being written. With `seconds`, a PASS is one though no worker is done.

    Raises:
        NotFoundError: no worker ever started. ProfileError: the profile asks for what no soak has.
    """
    targets = read_targets(profile, WORKLOAD, SoakTargets)
    events = [event for worker in workers.values() for event in worker.events]
    starts = [event for event in events if isinstance(event, Started)]
    if not starts and device is None:
        raise NotFoundError(
            f"no worker of a soak ever started in {folder}",
            next_step="Name the folder that holds gpu-0/events.jsonl: results/soak, unless STRESS_NAME was set.",
        )
    ran_on: DeviceKind = device or ("cuda" if any(start.device == "cuda" for start in starts) else "cpu")
    wanted = seconds or max((_asked(start) for start in starts), default=0.0)
    telemetry, why_none = _open(folder, alive=alive)
    try:
        gpus = gpus_of(workers, telemetry.meta.gpus if telemetry else ()) if ran_on == "cuda" else []
        gpus = _as_planned(gpus, planned)
        soak = read_soak(workers, gpus)
        told = measure_soak(soak, wanted, targets)
        seen = observe_soak(gpus, telemetry, soak, targets, why_none=why_none)
        simulated = telemetry is not None and telemetry.meta.simulated
        driver = telemetry.meta.driver if telemetry else None
    finally:
        if telemetry:
            telemetry.close()
    measured = joined(told, seen)
    checks, verdict = judge(soak_checks(targets), measured, device=ran_on, simulated=simulated)
    ended = all(worker.events and isinstance(worker.events[-1], Finished) for worker in workers.values())
    if verdict is Verdict.PASS and not ended and not (alive and seconds):
        verdict = Verdict.UNAVAILABLE
    return Judgement(
        device=ran_on,
        seconds=wanted,
        gpus=gpus,
        simulated=simulated,
        driver=driver,
        measured=measured,
        checks=checks,
        verdict=verdict,
        ended=ended,
        versions=next((event.versions for event in reversed(events) if isinstance(event, Frameworks)), {}),
    )


def read_workers(folder: Path, *, alive: bool = False) -> dict[str, Worker]:
    """Return what every worker left, by its name; with `alive`, what it has written so far.

    Raises:
        RunActiveError: one is at work. DataUnreadableError: the folder, or a file in it, cannot be read.
    """
    found: dict[str, Worker] = {}
    try:
        paths = sorted(path / EVENTS for path in folder.iterdir() if (path / EVENTS).is_file())
        for path in paths:
            if not alive and at_work(path):
                raise RunActiveError(
                    f"the worker {path.parent.name} is at work in {folder}",
                    next_step="Wait for its end, or stop it: docker compose -f compose/stress.yml stop.",
                )
            log = EventLog()
            log.feed(read_plain(path))
            if not alive:
                # The line that is being written is not torn.
                log.close()
            uuid = next((event.uuid for event in log.events if isinstance(event, Device)), None)
            found[path.parent.name] = Worker(log.events, log.garbled, uuid)
    except OSError as error:
        raise DataUnreadableError(
            f"{error.filename or folder} cannot be read: {error.strerror}",
            next_step="Name the folder of a soak, and see that you may read it.",
        ) from error
    return found


def at_work(events: Path) -> bool:
    """Say whether a worker of this machine is writing a file: it holds a lock on it.

    Raises:
        OSError: it cannot be opened.
    """
    with events.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            # A file system without locks says nothing.
            return False
    return False


def gpus_of(workers: Mapping[str, Worker], recorded: Sequence[RecordedGpu]) -> list[Gpu]:
    """Return the GPUs that workers computed on, as the recorder saw them; without one as far as workers know them."""
    known = {one.uuid: one for one in recorded}
    found: dict[str, Gpu] = {}
    for name, worker in workers.items():
        for event in worker.events:
            if not isinstance(event, Device) or event.uuid is None:
                continue
            seen = known.get(event.uuid)
            index = _INDEX.fullmatch(name)
            found[event.uuid] = Gpu(
                uuid=event.uuid,
                # A recorder that was given some of the cards counts those.
                index=int(index[1]) if index else seen.nvml_index if seen else event.device_index,
                name=event.name,
                pci_bus_id=seen.pci_bus_id if seen else "",
                compute_capability=event.compute_capability or "",
                memory_total_bytes=seen.memory_total_bytes if seen else event.memory_bytes or 0,
                pcie_gen_max=seen.pcie_gen_max if seen else None,
                pcie_width_max=seen.pcie_width_max if seen else None,
                power_limit_watts=seen.power_limit_mw / 1000 if seen and seen.power_limit_mw else None,
                temperature_limit_celsius=seen.temperature_limit_c if seen else None,
            )
    return sorted(found.values(), key=lambda gpu: gpu.index)


def _as_planned(gpus: Sequence[Gpu], planned: Sequence[Gpu]) -> list[Gpu]:
    """Return the GPUs by the machine's own indices, and those that nobody computed on: a recorder counts what it was given."""
    known = {gpu.uuid: gpu for gpu in planned}
    found = [one.model_copy(update={"index": known[one.uuid].index}) if one.uuid in known else one for one in gpus]
    there = {one.uuid for one in gpus}
    return sorted([*found, *(gpu for gpu in planned if gpu.uuid not in there)], key=lambda gpu: gpu.index)


def _asked(start: Started) -> float:
    value = start.params.get("seconds")
    # What a container says is no figure until it is one.
    return float(value) if isinstance(value, int | float) and 0 < value <= 10**9 else 1.0


def _open(folder: Path, *, alive: bool = False) -> tuple[Telemetry | None, str]:
    """Return the recording of a soak, or None and why there is none."""
    path = folder / TELEMETRY
    if not path.is_file():
        return None, "no telemetry was recorded"
    try:
        if not alive:
            settle(path)
        telemetry = Telemetry.open(path)
    except (TelemetryError, OSError):
        return None, "the recorded telemetry cannot be read"
    try:
        telemetry.meta  # noqa: B018 - asks the file
    except TelemetryError:
        telemetry.close()
        return None, "the recorded telemetry cannot be read"
    return telemetry, ""
