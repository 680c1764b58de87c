"""What a soak shows by the events of its workers alone: covered time, restarts, wrong results, who is to blame. Pure.

What telemetry adds, and the checks, are in `gpu/soaked.py`. docs/soak.md says how a soak is judged.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from pydantic import BaseModel, ConfigDict, Field

from vaultcube.results.coverage import Coverage, Pause, Restart, account
from vaultcube.results.judge import Measurement
from vaultcube.results.lives import Life, Load, Worker, last_word, read_lives
from vaultcube.results.schema import Evidence, Gpu, Metric
from vaultcube.results.vote import Answer, Blame, vote

_PHASE = re.compile(r"[a-z][a-z0-9_]{0,19}")


class SoakTargets(BaseModel):
    """Acceptance targets of a soak; docs/soak.md says what each is held against."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    covered_ratio: float = Field(default=1.0, gt=0, le=1)
    busy_share: float = Field(default=0.95, gt=0, le=1)
    power_share: float = Field(default=0.90, gt=0, le=1)
    throttle_share: float = Field(default=0.01, ge=0, le=1)
    temperature_margin_celsius: float = Field(default=1, ge=0, le=100)
    clock_ratio: float = Field(default=0.95, gt=0, le=1)
    pcie_replays_per_hour: float = Field(default=60, ge=0, le=10**6)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A GPU of a soak (or the CPU under one worker), and what was reported of it.

    Attributes:
        name: the worker that was given it; a GPU that none was given has its UUID.
        gpu: the GPU, or None on the CPU, and for one that is not of the run.
        model: what says that two are equal: name and compute capability.
        lives: all lives that loaded it, in the order in which they began.
        coverage: what became of its time.
        loads: when it was under load.
    """

    name: str
    gpu: Gpu | None
    model: str
    lives: Sequence[Life]
    coverage: Coverage
    loads: Sequence[Load]

    @property
    def called(self) -> str:
        """Return what it is called in sentences."""
        return f"worker {self.name}" if self.gpu is None else f"GPU {self.gpu.index}"

    def evidence(
        self,
        check: str,
        text: str,
        *,
        first: datetime | None = None,
        last: datetime | None = None,
        boot_id: str | None = None,
        count: int = 1,
    ) -> Evidence:
        """Return evidence that names this GPU and its slot."""
        where = {}
        if self.gpu is not None:
            where = {"gpu_uuid": self.gpu.uuid, "pci_bus_id": self.gpu.pci_bus_id}
        return Evidence(
            check=check,
            text=text,
            gpu_index=None if self.gpu is None else self.gpu.index,
            first=first,
            last=last,
            boot_id=boot_id,
            count=count,
            **where,
        )


@dataclass(frozen=True, kw_only=True)
class Soak:
    """A soak as its workers tell it: every GPU that was to be loaded, and what contradicts itself."""

    subjects: Sequence[Subject]
    disturbances: Sequence[str] = ()


def read_soak(workers: Mapping[str, Worker], gpus: Sequence[Gpu]) -> Soak:
    """Sort what workers say by the GPU they computed on: after a reboot it may be another one.

    Args:
        workers: by name, every one that was planned, also those that never wrote a word.
        gpus: the run's; none on the CPU.

    Returns:
        A subject for every worker that was planned, and for every GPU besides that one of them computed on. Never raises
        on what events say.
    """
    lives, disturbances = read_lives(workers)
    known = {gpu.uuid: gpu for gpu in gpus}
    by_place: dict[str, list[Life]] = {worker.uuid or name: [] for name, worker in workers.items()}
    names = {worker.uuid or name: name for name, worker in workers.items()}
    for life in lives:
        place = life.uuid or life.worker
        by_place.setdefault(place, []).append(life)
        if place != (workers[life.worker].uuid or place):
            disturbances.append(f"{life.worker} computed on {place}, and {workers[life.worker].uuid} was its GPU")
    return Soak(
        subjects=[_subject(names.get(place, place), known.get(place), own) for place, own in by_place.items()],
        disturbances=list(dict.fromkeys(disturbances)),
    )


def _subject(name: str, gpu: Gpu | None, lives: Sequence[Life]) -> Subject:
    if len({life.worker for life in lives}) > 1:
        lives = sorted(lives, key=lambda life: life.session.began.wall)
    device = next((life.device for life in lives if life.device is not None), None)
    return Subject(
        name=name,
        gpu=gpu,
        model=f"{device.name} {device.compute_capability}" if device else name,
        lives=lives,
        coverage=account([life.session for life in lives]),
        loads=[load for life in lives for load in life.loads()],
    )


# What every soak is asked for, whatever it ran on.
NAMES = (
    "covered_ratio",
    "restarts_unplanned",
    "mismatches",
    "digests_disagreeing",
    "faults_injected",
)


def measure_soak(soak: Soak, seconds: float, targets: SoakTargets) -> Measurement:
    """Turn what workers say into metrics, and into evidence for what counts against them.

    Args:
        soak: from `read_soak`.
        seconds: how much was to be covered on every GPU.
        targets: what is asked for.

    Returns:
        Metrics, reasons for those that are missing, disturbances, evidence. Never raises on what events say.
    """
    if not any(subject.lives for subject in soak.subjects):
        return Measurement(missing=dict.fromkeys(NAMES, "no worker ever started"), disturbances=soak.disturbances)
    metrics: dict[str, Metric] = {}
    missing: dict[str, str] = {}
    evidence: list[Evidence] = []
    _covered(soak, seconds, targets, metrics, evidence)
    _restarts(soak, metrics, evidence)
    wrong = _mismatches(soak, metrics, missing, evidence)
    _votes(soak, wrong, metrics, missing, evidence)
    _injected(soak, metrics, evidence)
    _rates(soak, metrics)
    return Measurement(metrics, missing, soak.disturbances, evidence)


def covered_ratio(subject: Subject, seconds: float) -> float:
    """Return the covered share of what was asked, at most 1; a millionth of it is rounding."""
    return min(round(subject.coverage.covered_s / seconds, 6), 1.0)


def _covered(
    soak: Soak, seconds: float, targets: SoakTargets, metrics: dict[str, Metric], evidence: list[Evidence]
) -> None:
    least = min(subject.coverage.covered_s for subject in soak.subjects)
    metrics["covered_hours"] = Metric(value=least / 3600, unit="h")
    metrics["covered_ratio"] = Metric(value=min(covered_ratio(one, seconds) for one in soak.subjects), unit="ratio")
    most = max(subject.coverage.uncovered_s for subject in soak.subjects)
    metrics["uncovered_hours"] = Metric(value=most / 3600, unit="h")
    longest = max(subject.coverage.longest_gap_s for subject in soak.subjects)
    metrics["longest_gap_s"] = Metric(value=longest, unit="s")
    waited = max(sum(pause.end_s - pause.start_s for pause in _pauses(subject)) for subject in soak.subjects)
    metrics["paused_hours"] = Metric(value=waited / 3600, unit="h")
    for one in soak.subjects:
        if covered_ratio(one, seconds) >= targets.covered_ratio:
            continue
        text = f"{one.called} covered {one.coverage.covered_s / 3600:.4g} h of {seconds / 3600:.4g} h"
        gap = max(one.coverage.gaps, key=lambda gap: gap.seconds, default=None)
        if gap is not None:
            why = f"{gap.why}: {gap.reason}" if gap.reason else gap.why
            text += f"; its longest gap is {gap.seconds:.0f} s ({why})"
        text += f"; in the end {last_word(one.lives[-1])}" if one.lives else "; its worker never started"
        evidence.append(
            one.evidence(
                "covered",
                text,
                first=gap.start if gap else None,
                last=gap.end if gap else None,
                boot_id=gap.boot_id if gap else None,
            )
        )


def _pauses(subject: Subject) -> list[Pause]:
    return [pause for life in subject.lives for pause in life.session.pauses]


def reboots(soak: Soak) -> list[Restart]:
    """Return every unplanned reboot of the machine once, in order."""
    found: dict[tuple[str, str], Restart] = {}
    for subject in soak.subjects:
        for restart in subject.coverage.restarts:
            if restart.why == "reboot":
                key = restart.before, restart.boot_id
                # One worker that had no time for a word is enough: nobody told the machine to stop.
                if key not in found or not restart.planned:
                    found[key] = restart
    return sorted((one for one in found.values() if not one.planned), key=lambda one: one.at)


def _unplanned(subject: Subject) -> Iterator[tuple[str, Restart]]:
    """Yield the restarts of a worker that nobody asked for, each with how the life before it ended."""
    for life, restart in zip(subject.lives, subject.coverage.restarts, strict=False):
        if restart.why == "restart" and not restart.planned:
            yield last_word(life), restart


def _restarts(soak: Soak, metrics: dict[str, Metric], evidence: list[Evidence]) -> None:
    count = 0
    for subject in soak.subjects:
        who = subject.called if subject.gpu is None else f"the worker of {subject.called}"
        # One that ends the same way at every start is told once.
        for (why, boot), alike in groupby(_unplanned(subject), key=lambda pair: (pair[0], pair[1].boot_id)):
            starts = [restart for _, restart in alike]
            count += len(starts)
            times = f" {len(starts)} times" if len(starts) > 1 else ""
            evidence.append(
                subject.evidence(
                    "no_unplanned_restart",
                    f"{who} began again{times}: before that, {why}",
                    first=starts[0].away_since,
                    last=starts[-1].at,
                    boot_id=boot,
                    count=len(starts),
                )
            )
    evidence += [
        Evidence(
            check="no_unplanned_restart",
            text=f"the machine was booted again, and nobody had told the workers to stop (boot {one.before} before)",
            first=one.away_since,
            last=one.at,
            boot_id=one.boot_id,
        )
        for one in reboots(soak)
    ]
    metrics["restarts_unplanned"] = Metric(value=count + len(reboots(soak)), unit="restarts")
    every = [restart for subject in soak.subjects for restart in subject.coverage.restarts]
    own = sum(one.why == "restart" for one in every)
    boots = len({(one.before, one.boot_id) for one in every if one.why == "reboot"})
    metrics["restarts"] = Metric(value=own + boots, unit="restarts")


def _mismatches(
    soak: Soak, metrics: dict[str, Metric], missing: dict[str, str], evidence: list[Evidence]
) -> dict[str, int]:
    """Count wrong elements and return them by subject."""
    by_subject: dict[str, int] = {}
    for subject in soak.subjects:
        wrong = 0
        for phase, (elements, times) in _wrong(subject).items():
            wrong += elements
            text = f"{subject.called} computed {elements} wrong element(s) in {phase} (reported {len(times)} times)"
            evidence.append(subject.evidence("no_mismatch", text, first=min(times), last=max(times), count=len(times)))
        by_subject[subject.name] = wrong
    checking = sum(any(life.checked for life in subject.lives) for subject in soak.subjects)
    total = sum(by_subject.values())
    if total or checking == len(soak.subjects):
        metrics["mismatches"] = Metric(value=total, unit="elements")
    else:
        missing["mismatches"] = f"only {checking} of {len(soak.subjects)} workers checked a result"
    return by_subject


def _wrong(subject: Subject) -> dict[str, tuple[int, list[datetime]]]:
    """Return wrong elements by phase, and when they were reported."""
    counted: Counter[str] = Counter()
    detailed: Counter[str] = Counter()
    reference: Counter[str] = Counter()
    times: dict[str, list[datetime]] = defaultdict(list)
    precise: dict[str, list[datetime]] = defaultdict(list)
    for life in subject.lives:
        for checked in life.checked:
            if checked.mismatches:
                counted[checked.phase] += checked.mismatches
                times[checked.phase].append(checked.time)
        for mismatch in life.mismatches:
            detailed[mismatch.phase] += mismatch.elements
            precise[mismatch.phase].append(mismatch.time)
        for one in life.references:
            if one.mismatches:
                reference[one.phase] += one.mismatches
                precise[one.phase].append(one.time)
    # The same elements are told twice, in sum and one by one: either is enough to condemn.
    return {
        phase: (max(counted[phase], detailed[phase]) + reference[phase], precise[phase] or times[phase])
        for phase in sorted({*counted, *detailed, *reference})
    }


def _votes(
    soak: Soak,
    wrong: Mapping[str, int],
    metrics: dict[str, Metric],
    missing: dict[str, str],
    evidence: list[Evidence],
) -> None:
    subjects = {subject.name: subject for subject in soak.subjects}
    answers = {
        name: [Answer(checked.key, checked.digest, checked.time) for life in subject.lives for checked in life.checked]
        for name, subject in subjects.items()
    }
    models = {name: subject.model for name, subject in subjects.items()}
    found = vote(answers, models, {name for name, count in wrong.items() if count})
    evidence += [_blamed(subjects, blame) for blame in found]
    if found or all(answers.values()):
        metrics["digests_disagreeing"] = Metric(value=len(found), unit="digests")
    else:
        told = sum(bool(given) for given in answers.values())
        missing["digests_disagreeing"] = f"only {told} of {len(answers)} workers gave a digest"


def _blamed(subjects: Mapping[str, Subject], blame: Blame) -> Evidence:
    subject = subjects[blame.gpu]
    what = {
        "inconsistent": f"{subject.called} contradicts itself",
        "outvoted": f"{subject.called} contradicts the other GPUs of its kind",
        "suspect": f"{subject.called} and an equal GPU contradict each other, and one of them is wrong",
    }[blame.kind]
    text = f"{what}: {blame.key} gave {blame.found} where {blame.expected} was due"
    return subject.evidence("digests_agree", text, first=blame.first, last=blame.last, count=blame.count)


def _injected(soak: Soak, metrics: dict[str, Metric], evidence: list[Evidence]) -> None:
    count = 0
    for subject in soak.subjects:
        for life in subject.lives:
            if life.started.fault_injected:
                count += 1
                text = f"a fault was injected into {subject.called} on purpose: this run can prove nothing"
                evidence.append(subject.evidence("no_fault_injected", text, first=life.started.time))
    metrics["faults_injected"] = Metric(value=count, unit="sessions")


def _rates(soak: Soak, metrics: dict[str, Metric]) -> None:
    """Say how fast each phase was on the slowest GPU."""
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    for subject in soak.subjects:
        work: dict[tuple[str, str], float] = defaultdict(float)
        lasted: dict[tuple[str, str], float] = defaultdict(float)
        for life in subject.lives:
            for checked in life.checked:
                work[checked.phase, checked.unit] += checked.work
                lasted[checked.phase, checked.unit] += checked.until_mono - checked.from_mono
        for name, total in work.items():
            rates[name].append(total / lasted[name])
    for (phase, unit), values in rates.items():
        if _PHASE.fullmatch(phase):
            said = "FLOP/s" if unit == "flop" else "bytes/s"
            metrics[f"{phase}_{unit}_per_s"] = Metric(value=min(values), unit=said)
