"""The first process of a soak: checks the parameters, reads what is covered, starts the worker, says how it ended.

It imports no framework, so that nonsense is refused at once and a signal is answered at any moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import memory, processes, results
from common.events import LAUNCHER, EventError, EventWriter, read_new
from common.outcome import (
    BAD_PARAMETERS,
    CANNOT_RUN_HERE,
    DONE,
    Problem,
    bad_parameter,
    events_unwritable,
    out_of_host_memory,
    say,
)
from common.signals import Signals
from common.watchdog import Board
from stress import cli, fault, progress, resume
from stress.gate import Gate
from stress.outcome import Unrecorded
from stress.params import CPU_PHASES, FAULT, GPU_ONLY, JOB, PHASES, Job, Params
from stress.sentry import Sentry, admit
from training import machine
from training.outcome import EVENTS_LOST

if TYPE_CHECKING:
    import subprocess  # noqa: TID251 - a type's name only
    from collections.abc import Iterator, Sequence

_POLL_S = 0.2
_GRACE_S = 1.0
_MARGIN_S = 5.0
"""The worker's own watchdog speaks first; it knows what the worker was doing."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def resolve(options: cli.Options) -> Params:
    """Return the parameters with everything decided by this machine.

    Raises:
        Problem: the machine cannot do what is asked (exit code 64 or 69).
    """
    gpus = 0 if options.device == "cpu" else machine.gpu_count()
    if options.device == "cuda" and not gpus:
        next_step = "give the container its GPU, or use --device cpu"
        raise Problem("no-gpu", "no GPU can be seen from here", next_step, CANNOT_RUN_HERE)
    phases = options.phases or (PHASES if gpus else CPU_PHASES)
    if not gpus and (wrong := [phase for phase in phases if phase in GPU_ONLY]):
        raise bad_parameter(f"--phases {wrong[0]} needs a GPU", f"on the CPU there are {','.join(CPU_PHASES)} and bf16")
    return Params(device="cuda" if gpus else "cpu", phases=phases, **options.values)


def environment(params: Params) -> dict[str, str]:
    """Return the environment of the worker: what is set by the user stays, except what would falsify a result."""
    # A workspace of one size: with another one cuBLAS may add in another order.
    wanted = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    given = dict(os.environ)
    for name in ("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", FAULT):
        given.pop(name, None)
    forced = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    if params.device == "cpu":
        forced["CUDA_VISIBLE_DEVICES"] = ""
    return wanted | given | forced


def boot_id() -> str | None:
    """Return what names this boot of the machine, None when it does not say."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return None


@contextlib.contextmanager
def alone(events: Path) -> Iterator[None]:
    """Keep every other worker away from this events file, on this machine, until the end.

    Raises:
        Problem: one is at work there (exit code 64). EventError: the file can be neither opened nor made.
    """
    try:
        fd = os.open(events, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise EventError(f"cannot open {events}: {error.strerror}") from error
    try:
        # Some network file systems have no locks: there nobody is kept away.
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message, next_step = f"another worker is writing {events}", "end it, or name another folder or GPU"
                raise Unrecorded("bad-parameter", message, next_step, BAD_PARAMETERS) from None
        yield
    finally:
        os.close(fd)


class Soak:
    """One session of the worker, from start to the word on how it ended."""

    def __init__(self, job: Job, events: EventWriter, sentry: Sentry) -> None:
        self._job = job
        self._writer = events
        self._sentry = sentry
        self._gate = Gate(Path(job.gate_path), create=True)
        self._params = job.params
        self._events = Path(job.events_path)
        # What earlier sessions said is past.
        self._offset = self._events.stat().st_size
        self._board = Board(Path(job.board_path), 1, create=True)
        self._started = time.monotonic()

    def go(self, signals: Signals) -> None:
        """Run the worker to its end.

        Raises:
            Problem: it failed, hung or was lost, or the soak was interrupted, or stopped for its safety.
            EventError: an event could not be written.
        """
        kills_before = memory.oom_kills()
        child = processes.start("stress.worker", environment(self._params) | {JOB: self._job.to_json()})
        try:
            while not processes.ended(child, _POLL_S):
                signals.check()
                self._sentry.look(self._writer, self._gate)
                self._check_board()
        finally:
            processes.stop(child, _GRACE_S)
        problem = self._conclude(child, oom_killed=memory.oom_kills() > kills_before)
        if problem:
            # What a signal broke off is not a failure of its own.
            signals.check()
            self._sentry.settle(signals.check, self._writer)
            raise problem

    def _check_board(self) -> None:
        """Raise the problem of a worker whose process stands still as a whole, watchdog included."""
        last = self._board.last(0)
        limit_s = self._params.hang_timeout_s if last else self._params.startup_limit_s
        silent_s = time.monotonic() - (last or self._started)
        if silent_s > limit_s + _MARGIN_S:
            what = "its process stands still" if last else "it never started"
            next_step = "see the container's log, and the host's kernel log for the GPU"
            raise Problem("hang", f"the worker gave no sign of life for {silent_s:.0f} s: {what}", next_step)

    def _conclude(self, child: subprocess.Popen[bytes], *, oom_killed: bool) -> Problem | None:
        events, _ = read_new(self._events, self._offset)
        return conclude(events, child.returncode, oom_killed=oom_killed)


def conclude(events: Sequence[dict[str, Any]], code: int, *, oom_killed: bool) -> Problem | None:
    """Return what ended a session that was not interrupted, None when all that was asked for is covered.

    `events` are the session's, `code` is the worker's, `oom_killed` says whether the kernel has killed a process of the
    container for want of memory.
    """
    for event in events:
        if event.get("kind") == "error":
            return Unrecorded(event["code"], event["message"], event["next_step"], event["exit_code"])
    if code == DONE and any(event.get("kind") == "finished" for event in events):
        return None
    if oom_killed:
        return out_of_host_memory("STRESS_MEMORY")
    if code == EVENTS_LOST:
        return events_unwritable("the worker could not write the events file")
    return Problem("worker-failed", f"the worker {processes.death(code)}", "see the container's log")


def main(argv: Sequence[str]) -> int:
    """Run a soak with the arguments `argv`; return its exit code."""
    started = time.monotonic()
    signals = Signals("start it again: it goes on where it stopped")
    events: EventWriter | None = None
    try:
        # Whoever owns the results folder (its group is inherited) can clear what a container's user wrote.
        os.umask(0o002)
        options = cli.parse(argv)
        path = results.prepare(options.folder, "stress", stamp=False, shared=True)
        with alone(path):
            past = resume.read(path)
            if past.finished and past.covered_s >= options.values["seconds"]:
                say(f"{options.values['gpu']}  {progress.duration(past.covered_s)} are covered already")
                return DONE
            admit(options.results, options.values["gpu"], options.values["on_fault"])
            events = EventWriter(path, LAUNCHER)
            params, sentry = _watched(options, past, signals)
            _launch(params, path, events, past, sentry, signals, started)
    except Problem as problem:
        return _end(problem, events, argv)
    except EventError as error:
        return _end(events_unwritable(error), events, argv)
    return DONE


def _watched(options: cli.Options, past: resume.Past, signals: Signals) -> tuple[Params, Sentry]:
    """Return the parameters, and who looks after the load. Without a GPU, the recorder may know that it is lost.

    Raises:
        Problem: as `resolve` does. Stopped: the GPU of earlier sessions is lost.
    """
    try:
        params = resolve(options)
        card = machine.card(0) if params.device == "cuda" else None
        return params, Sentry(options.results, params, card.uuid if card else None)
    except Problem as problem:
        if problem.exit_code == CANNOT_RUN_HERE:
            lost = Params(device="cuda", phases=PHASES, **options.values)
            Sentry(options.results, lost, past.uuid).settle(signals.check, None)
        raise


def _end(problem: Problem, events: EventWriter | None, argv: Sequence[str]) -> int:
    """Tell people and the events what ended the soak; return its exit code."""
    problem.tell()
    if not isinstance(problem, Unrecorded):
        # On a full disk, or in a folder that is itself what is wrong, stderr has to do.
        with contextlib.suppress(EventError, Problem):
            folder = cli.folder_of(argv)
            if events is None and folder:
                events = EventWriter(results.prepare(folder, "stress", stamp=False, shared=True), LAUNCHER)
            if events:
                problem.record(events)
    return problem.exit_code


def _launch(
    params: Params, path: Path, events: EventWriter, past: resume.Past, sentry: Sentry, signals: Signals, started: float
) -> None:
    asked = fault.asked()
    events.write(
        "started",
        program="stress",
        params=params.as_dict(),
        world_size=1,
        device=params.device,
        python=platform.python_version(),
        boot_id=boot_id(),
        session=uuid.uuid4().hex,
        resumed_s=past.covered_s,
        fault_injected=bool(asked),
    )
    say(
        f"{params.gpu}  {progress.duration(params.seconds)} of {', '.join(params.phases)} on {params.device}, "
        f"{progress.duration(past.covered_s)} covered so far, events in {path}"
    )
    if asked:
        say(f"{params.gpu}  A FAULT IS INJECTED ({asked}): this soak cannot pass")
    if past.covered_s >= params.seconds:
        events.write("finished", elapsed_s=time.monotonic() - started, covered_s=past.covered_s)
        return
    with results.scratch("stress") as scratch:
        board, gate = (str(Path(scratch) / name) for name in ("board", "gate"))
        job = Job(params, past.covered_s, str(path), board, asked, gate)
        Soak(job, events, sentry).go(signals)
