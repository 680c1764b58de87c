"""The first process of a run: checks the parameters, starts what trains, watches it, says how it ended.

It imports no framework, so that nonsense is refused at once and a signal is answered at any moment.
"""

from __future__ import annotations

import contextlib
import json
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import memory, processes, results
from common.arguments import results_of
from common.events import LAUNCHER, EventError, EventWriter, read_new
from common.outcome import CANNOT_RUN_HERE, DONE, Problem, bad_parameter, events_unwritable, out_of_host_memory, say
from common.signals import Signals
from common.watchdog import Board
from training import cli, data, machine, summary
from training.outcome import EVENTS_LOST, PEER_LOST
from training.params import Job, Params
from training.program import JOB

if TYPE_CHECKING:
    import subprocess  # noqa: TID251 - a type's name only
    from collections.abc import Sequence

    from training.program import Program

_POLL_S = 0.2
_GRACE_S = 1.0
_FAREWELL_S = 5.0
"""After the first error what trains gets this long to end: torchrun itself would wait 30 s for a stopped rank."""
_MARGIN_S = 5.0
"""A rank's own watchdog speaks first; it knows what the rank was doing."""


def resolve(options: cli.Options, program: Program) -> Params:
    """Return the parameters with everything `auto` decided by this machine.

    Raises:
        Problem: the machine cannot do what is asked (exit code 64 or 69).
    """
    gpus = 0 if options.device == "cpu" else machine.gpu_count()
    if options.device == "cuda" and not gpus:
        raise Problem(
            "no-gpu",
            "no GPU can be seen from here",
            "give the container its GPUs, or use --device cpu",
            CANNOT_RUN_HERE,
        )
    device = "cuda" if gpus else "cpu"
    ranks = options.ranks or gpus or machine.cpu_ranks()
    if gpus and ranks > gpus:
        raise bad_parameter(f"--ranks {ranks} asks for more than the {gpus} GPUs seen from here", "use --ranks auto")
    if device == "cpu" and options.values["precision"] == "tf32":
        raise bad_parameter("--precision tf32 is a format of GPUs", "use fp32 or bf16 on the CPU")
    if options.values["data"]:
        data.check_images(options.values["data"], program.image_suffixes)
    return program.params(device=device, ranks=ranks, **options.values)


class Run:
    """One run of the ranks, from start to the word on how it ended."""

    def __init__(self, program: Program, params: Params, events: Path, scratch: Path) -> None:
        self._program = program
        self._params = params
        self._events = events
        self._offset = 0
        self._seen: list[dict[str, Any]] = []
        self._report = scratch / "report.json"
        self._board = Board(scratch / "board", params.ranks, create=True)
        self._log = Log(scratch / "log") if program.keeps_log else None
        log_path = str(scratch / "log") if self._log else ""
        self._job = Job(params, str(events), str(scratch / "board"), str(self._report), log_path)
        self._started = time.monotonic()

    def go(self, signals: Signals) -> None:
        """Run all ranks to their end.

        Raises:
            Problem: a rank failed, hung or was lost, or the run was interrupted.
        """
        kills_before = memory.oom_kills()
        environment = self._program.environment(self._params) | {JOB: self._job.to_json()}
        child = processes.start(self._program.child, environment, stderr=self._log.file if self._log else None)
        try:
            self._watch(child, signals)
        finally:
            processes.stop(child, _GRACE_S)
            self._read()
        problem = conclude(
            self._seen,
            self._program,
            self._params,
            child_code=child.returncode,
            report=self._read_report(),
            oom_killed=memory.oom_kills() > kills_before,
            log=self._log.path if self._log else None,
        )
        if problem:
            # What a signal broke off is not a failure of its own.
            signals.check()
            raise problem

    def _watch(self, child: subprocess.Popen[bytes], signals: Signals) -> None:
        farewell: float | None = None
        while not processes.ended(child, _POLL_S):
            signals.check()
            self._read()
            now = time.monotonic()
            if farewell is None and any(event.get("kind") == "error" for event in self._seen):
                farewell = now + _FAREWELL_S
            if farewell is None:
                self._check_board(now)
            elif now > farewell:
                return

    def _check_board(self, now: float) -> None:
        """Raise the problem of a rank whose process stands still as a whole, watchdog included."""
        for rank in range(self._params.ranks):
            last = self._board.last(rank)
            limit_s = self._params.hang_timeout_s if last else self._params.startup_limit_s
            silent_s = now - (last or self._started)
            if silent_s > limit_s + _MARGIN_S:
                what = "its process stands still" if last else "it never started"
                raise Problem(
                    "hang",
                    f"rank {rank} gave no sign of life for {silent_s:.0f} s: {what}",
                    "see the container's log, and the host's kernel log for the GPU",
                )

    def _read(self) -> None:
        new, self._offset = read_new(self._events, self._offset)
        self._seen += new
        if self._log:
            self._log.hand_on()

    def _read_report(self) -> dict[str, Any]:
        try:
            report = json.loads(self._report.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return {}
        return report if isinstance(report, dict) else {}

    def table(self) -> list[str]:
        """Return the lines of the table of what was measured."""
        return summary.table(self._seen, self._program.workload)


class Log:
    """The file that keeps a child's stderr, handed on to our own as it grows.

    Attributes:
        path: where it is.
        file: open for the child to append to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("ab")
        self._offset = 0

    def hand_on(self) -> None:
        """Copy what is new to stderr. Nobody has to listen."""
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
            self._offset += len(new)
            sys.stderr.buffer.write(new)
            sys.stderr.buffer.flush()


class Recorded(Problem):
    """A problem that a rank has already written to the events itself."""


def conclude(
    events: Sequence[dict[str, Any]],
    program: Program,
    params: Params,
    *,
    child_code: int,
    report: dict[str, Any],
    oom_killed: bool = False,
    log: Path | None = None,
) -> Problem | None:
    """Return what ended a run that was not interrupted, None when every rank finished.

    `events` are the run's, `report` is the child's ({} when it left none), `oom_killed` says whether
    the kernel has killed a process of the container for want of memory, `log` is what the child said on stderr.
    """
    errors = [event for event in events if event.get("kind") == "error"]
    causes = [event for event in errors if event["code"] != PEER_LOST]
    if causes:
        return _recorded(causes[0])
    finished = {event["rank"] for event in events if event.get("kind") == "finished"}
    if child_code == DONE and len(finished) == params.ranks:
        return None
    if oom_killed:
        return out_of_host_memory(program.memory_setting, ", or use a smaller batch")
    told = {event["rank"] for event in errors}
    for rank, code in sorted(report.get("failures", {}).items()):
        if code == EVENTS_LOST:
            return events_unwritable(f"rank {rank} could not write the events file")
        if int(rank) not in told:
            return Problem("rank-failed", f"rank {rank} {processes.death(code)}", "see the container's log")
    if errors:
        return _recorded(errors[0])
    if child_code == EVENTS_LOST:
        return events_unwritable(f"{program.child_name} could not write the events file")
    if log and (cause := program.autopsy(params, log)):
        return cause
    what = report.get("error") or f"{program.child_name} {processes.death(child_code)}"
    return Problem(
        "rank-failed", f"only {len(finished)} of {params.ranks} ranks finished: {what}", "see the container's log"
    )


def _recorded(event: dict[str, Any]) -> Recorded:
    message = f"rank {event['rank']}: {event['message']}"
    return Recorded(event["code"], message, event["next_step"], event["exit_code"])


def main(argv: Sequence[str], program: Program) -> int:
    """Run `program` with the arguments `argv`; return its exit code."""
    signals = Signals("start it again to measure")
    events: EventWriter | None = None
    try:
        options = cli.parse(argv, program)
        path = results.prepare(options.results, program.workload, stamp=options.stamp)
        events = EventWriter(path, LAUNCHER)
        _launch(program, resolve(options, program), path, events, signals)
    except Problem as problem:
        return _end(problem, events, argv, program)
    except EventError as error:
        return _end(events_unwritable(error), events, argv, program)
    return DONE


def _end(problem: Problem, events: EventWriter | None, argv: Sequence[str], program: Program) -> int:
    """Tell people and the events what ended the run; return its exit code."""
    problem.tell()
    if not isinstance(problem, Recorded):
        # On a full disk, or in a folder that is itself what is wrong, stderr has to do.
        with contextlib.suppress(EventError, Problem):
            folder = results_of(argv)
            if events is None and folder:
                path = results.prepare(folder, program.workload, stamp="--stamp" in argv)
                events = EventWriter(path, LAUNCHER)
            if events:
                problem.record(events)
    return problem.exit_code


def _launch(program: Program, params: Params, path: Path, events: EventWriter, signals: Signals) -> None:
    events.write(
        "started",
        program=program.name,
        params=params.as_dict(),
        world_size=params.ranks,
        device=params.device,
        python=platform.python_version(),
    )
    say(
        f"{program.workload} {params.preset}: {params.model}, batch {params.batch_size} a rank, {params.image_size} px, "
        f"{params.precision}, {params.ranks} x {params.device}, events in {path}"
    )
    with results.scratch(program.workload) as scratch:
        run = Run(program, params, path, Path(scratch))
        try:
            run.go(signals)
        finally:
            for line in run.table():
                say(line)
