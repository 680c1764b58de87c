"""A measurement from its start to the word on how it ended.

It imports no framework: nonsense is refused at once, and a signal is answered at any moment.
"""

from __future__ import annotations

import contextlib
import platform
import time
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import results
from common.arguments import results_of
from common.events import LAUNCHER, EventError, EventWriter
from common.outcome import DONE, Problem, bad_parameter, events_unwritable, say
from common.signals import Signals
from measure import cli, probes, runner
from measure.levels import Loader
from measure.server import NoAnswerError, RefusedError, Server
from measure.table import table
from serve.secrets import Secrets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from measure.server import Model

PROGRAM = "vllm-bench"
TICKS = 10
"""Progress is told in this many parts of a level."""
SHOWN_CHARS = 60
PACKAGES = ("vllm", "torch", "transformers")


class Progress:
    """Tells how far a measurement is, in parts of levels."""

    def __init__(self, events: EventWriter, levels: int) -> None:
        self._events = events
        self._total = levels * TICKS
        self._told = -1

    def at(self, level: int, share: float) -> None:
        """Say that so many levels are done, and such a share of the next one."""
        done = min(level * TICKS + int(share * TICKS), self._total)
        if done > self._told:
            self._told = done
            self._events.write("progress", done=done, total=self._total)


def versions() -> dict[str, str | None]:
    """Return the versions of what this image carries."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def main(argv: Sequence[str]) -> int:
    """Run the program with the arguments `argv`; return its exit code."""
    signals = Signals("start it again to measure")
    events: EventWriter | None = None
    try:
        options = cli.parse(argv)
        # Servers of the same run write into the same file.
        path = results.prepare(options.results, PROGRAM, stamp=options.stamp, shared=not options.stamp)
        events = EventWriter(path, LAUNCHER)
        _measure(options, events, signals)
    except Problem as problem:
        return _end(problem, events, argv)
    except EventError as error:
        return _end(events_unwritable(error), events, argv)
    return DONE


def _end(problem: Problem, events: EventWriter | None, argv: Sequence[str]) -> int:
    """Tell people and the events what ended the measurement; return its exit code."""
    problem.tell()
    # On a full disk, or in a folder that is itself what is wrong, stderr has to do.
    with contextlib.suppress(EventError, Problem):
        folder = results_of(argv)
        if events is None and folder:
            stamp = "--stamp" in argv
            events = EventWriter(results.prepare(folder, PROGRAM, stamp=stamp, shared=not stamp), LAUNCHER)
        if events:
            problem.record(events)
    return problem.exit_code


def _measure(options: cli.Options, events: EventWriter, signals: Signals) -> None:
    began = time.monotonic()
    runner.program()
    events.write(
        "started",
        program=PROGRAM,
        params=options.as_dict(),
        world_size=options.replicas,
        device=options.device,
        python=platform.python_version(),
    )
    found = versions()
    events.write("frameworks", versions=found)
    say(f"vllm-bench: {options.input_len} tokens in, {options.output_len} out, events in {events.path}")
    secrets = Secrets()
    server = Server(options.url, secrets.api_key, signals)
    replicas = [Server(url, secrets.api_key, signals) for url in options.replica_urls]
    deadline = began + options.ready_timeout_s
    model = [one.wait(max(deadline - time.monotonic(), 0)) for one in (*replicas, server)][-1]
    say(f"measuring {model.name} at {options.url}")
    _check_length(options, model)
    if options.probes:
        _probe(replicas or [server], model, events, signals)
    with results.scratch("measure") as scratch:
        loader = Loader(options, model, found["vllm"] or "", Path(scratch), secrets, signals)
        _load(loader, server, replicas, events)
    events.write("finished", elapsed_s=time.monotonic() - began)


def _check_length(options: cli.Options, model: Model) -> None:
    if model.max_len is not None and options.input_len + options.output_len > model.max_len:
        raise bad_parameter(
            f"{options.input_len} tokens in and {options.output_len} out do not fit the context of {model.max_len}",
            "lower --input-len or --output-len, or serve with a longer --max-model-len",
        )


def _probe(servers: Sequence[Server], model: Model, events: EventWriter, signals: Signals) -> None:
    """Ask every server all questions: each has to prove itself."""
    for number, server in enumerate(servers):
        _ask(server, model, number if len(servers) > 1 else None, events, signals)


def _ask(server: Server, model: Model, replica: int | None, events: EventWriter, signals: Signals) -> None:
    try:
        for fields in probes.ask_all(server, model):
            events.write("probe", **fields, replica=replica)
            say(f"  {fields['name']}: {_printable(fields['answer'])}{_remarks(fields)}")
    except (NoAnswerError, RefusedError) as error:
        signals.check()
        message = f"{server.url} did not answer a question: {error}"
        code = "workload-failed" if server.alive() else "server-died"
        raise Problem(code, message, "see what the server's log says") from error


def _printable(text: str) -> str:
    """Return the beginning of what a model wrote in one line, without what could steer a terminal."""
    line = "".join(char if char.isprintable() else " " for char in text)
    return line if len(line) <= SHOWN_CHARS else line[: SHOWN_CHARS - 3] + "..."


def _remarks(fields: dict[str, Any]) -> str:
    wrong = " (WRONG)" if fields["correct"] is False else ""
    return wrong + ("" if fields["repeatable"] else " (NOT THE SAME AGAIN)")


def _load(loader: Loader, server: Server, replicas: Sequence[Server], events: EventWriter) -> None:
    """Measure one replica under its share of the highest load, where there are several; then every level."""
    highest = loader.options.concurrency[-1]
    plan: list[tuple[Server, int, int | None]] = []
    if len(replicas) > 1 and highest >= len(replicas):
        plan.append((replicas[0], highest // len(replicas), 0))
    plan += [(server, concurrency, None) for concurrency in loader.options.concurrency]
    progress = Progress(events, len(plan))
    seen: list[dict[str, Any]] = []
    try:
        for number, (asked, concurrency, replica) in enumerate(plan):
            progress.at(number, 0)
            fields = loader.level(asked, concurrency, replica, partial(progress.at, number))
            events.write("level", **fields)
            seen.append(fields)
            if fields["failed"]:
                say(f"  {fields['failed']} of {fields['requests']} requests failed: {fields['error'] or 'no word why'}")
        progress.at(len(plan), 0)
    finally:
        for line in table(seen):
            say(line)
