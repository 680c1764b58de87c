"""The first process of a server: checks the model, starts vLLM, watches it, says how it ended.

It imports no framework: nonsense is refused at once, a signal is answered at any moment, and a server is ready
hardly later than vLLM alone would be.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import memory, results
from common.arguments import results_of
from common.children import Child
from common.events import EventError, EventWriter
from common.outcome import CANNOT_RUN_HERE, DONE, Problem, events_unwritable, say
from common.processes import ended
from common.signals import Signals
from serve import cli, death, hub, model, state
from serve.client import Server
from serve.output import Output
from serve.progress import Progress
from serve.ready import Waiter
from serve.secrets import Secrets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROGRAM = "vllm"
_POLL_S = 0.1
_IDLE_S = 0.25
_DYING_S = 3.0
_GRACE_S = 6.0
"""vLLM ends within 2 s when nothing is being answered; compose waits longer than this before it kills everything."""
_STARTED = time.monotonic()


def command(options: cli.Options, location: str) -> list[str]:
    """Return the argv of vLLM; no secret is in it.

    Raises:
        Problem: vLLM is not installed here (exit code 69).
    """
    beside = Path(sys.executable).parent / "vllm"
    program = str(beside) if beside.is_file() else shutil.which("vllm")
    if program is None:
        message = "there is no vllm command in this image"
        raise Problem("server-died", message, "use the image vaultcube/vllm", CANNOT_RUN_HERE)
    argv = [sys.executable, program, "serve", location, "--served-model-name", options.served_model_name]
    argv += ["--host", "0.0.0.0", "--port", str(options.port)]  # noqa: S104 - compose decides who reaches the container
    argv += ["--tensor-parallel-size", str(options.tensor_parallel)] if options.tensor_parallel > 1 else []
    argv += ["--pipeline-parallel-size", str(options.pipeline_parallel)] if options.pipeline_parallel > 1 else []
    argv += ["--max-model-len", str(options.max_model_len)] if options.max_model_len else []
    return [*argv, *options.flags]


def environment(options: cli.Options, found: model.Model, secrets: Secrets) -> dict[str, str]:
    """Return the environment of vLLM: what is set stays, the model's and the secrets come on top."""
    wanted = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if options.device == "cpu":
        wanted[model.KV_SPACE] = str(model.kv_space_gib(found, options))
    # A variable that a compose file leaves empty is not set.
    given = {name: value for name, value in os.environ.items() if value or name not in wanted}
    return wanted | given | dict(found.environment) | secrets.environment() | {"PYTHONUNBUFFERED": "1"}


def main(argv: Sequence[str]) -> int:
    """Run the program with the arguments `argv`; return its exit code."""
    signals = Signals("start it again to serve")
    secrets = Secrets()
    events: EventWriter | None = None
    try:
        options = cli.parse(argv)
        path = results.prepare(options.results, PROGRAM, stamp=options.stamp, shared=not options.stamp)
        events = EventWriter(path, options.replica)
        _serve(options, events, signals, secrets)
    except Problem as problem:
        return _end(problem, events, argv)
    except EventError as error:
        return _end(events_unwritable(error), events, argv)
    return DONE


def _end(problem: Problem, events: EventWriter | None, argv: Sequence[str]) -> int:
    """Tell people and the events what ended the server; return its exit code."""
    problem.tell()
    # On a full disk, or in a folder that is itself what is wrong, stderr has to do.
    with contextlib.suppress(EventError, Problem):
        folder = results_of(argv)
        if events is None and folder:
            events = EventWriter(results.prepare(folder, PROGRAM, stamp="--stamp" in argv, shared=True), 0)
        if events:
            problem.record(events)
    return problem.exit_code


def _serve(options: cli.Options, events: EventWriter, signals: Signals, secrets: Secrets) -> None:
    state.clear(options.port)
    events.write(
        "started",
        program=PROGRAM,
        params=options.as_dict(),
        world_size=options.gpus,
        device=options.device,
        python=platform.python_version(),
    )
    events.write("frameworks", versions=versions())
    progress = Progress(events, _STARTED)
    progress.enter("check")
    say(f"vllm {options.model}: {options.gpus} x {options.device}, events in {events.path}")
    found = model.local(options)
    if found is None:
        found = hub.fetch(options, secrets, signals, progress, events)
    else:
        events.write("model", **found.event(options))
        progress.enter("check", model.check_memory(found, options))
    signals.check()
    _run(options, found, events, signals, secrets, progress)


def versions() -> dict[str, str | None]:
    """Return the versions of what answers."""
    return {name: _version(name) for name in ("vllm", "torch", "transformers")}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _run(
    options: cli.Options,
    found: model.Model,
    events: EventWriter,
    signals: Signals,
    secrets: Secrets,
    progress: Progress,
) -> None:
    """Run vLLM until it, or somebody else, ends it.

    Raises:
        Problem: always: a server has no other end.
    """
    _check_port(options.port)
    kills_before = memory.oom_kills()
    child = _start(command(options, found.location), environment(options, found, secrets))
    output = Output(child.process, secrets)
    progress.enter("load", "starting vLLM")
    waiter = Waiter(Server(options.port, secrets.api_key), options.served_model_name, _STARTED)
    generates = found.generates(options.flags)
    try:
        waiter.start(generates=generates)
        ready = False
        # Slept through, not waited for: subprocess would look ten times as often, for as long as the server lives.
        while child.process.poll() is None:
            signals.check()
            time.sleep(_IDLE_S if ready else _POLL_S)
            if ready:
                continue
            progress.follow(output.stages())
            # One that dies over its first question says by its end why it did not answer.
            if waiter.problem and not ended(child.process, _DYING_S):
                raise waiter.problem
            if waiter.answer:
                ready = True
                output.quieten()
                events.write("server", **waiter.answer, **_memory(output))
                state.leave(state.State(options.port, options.served_model_name, generates))
                progress.enter("ready", f"answers on port {options.port}")
                say(f"vllm {options.served_model_name}: ready after {waiter.answer['load_s']:.1f} s")
        # It has ended by itself: a signal that came meanwhile reached this process alone, and is no reason.
    finally:
        state.clear(options.port)
        waiter.stop()
        code = child.process.poll()
        child.end(_GRACE_S)
        output.close()
    problem = death.explain(output.last(), code or 0, ready=ready, oom_killed=memory.oom_kills() > kills_before)
    for line in death.telling(output.last()):
        sys.stderr.write(f"  | {line}\n")
    raise problem


def _check_port(port: int) -> None:
    """Raise the problem (exit code 69) of a port that somebody else answers on: it would pass for the server."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - as the server will
        except OSError as error:
            message = f"cannot listen on port {port}: {error.strerror}"
            raise Problem("port-taken", message, "choose another --port", CANNOT_RUN_HERE) from error


def _memory(output: Output) -> Mapping[str, Any]:
    return {"kv_cache_tokens": output.log.kv_cache_tokens, "model_memory_bytes": output.log.model_memory_bytes}


def _start(argv: Sequence[str], variables: Mapping[str, str]) -> Child:
    try:
        return Child(argv, variables)
    except OSError as error:
        message = f"cannot start vLLM: {error}"
        raise Problem("server-died", message, "see the limits of the container: pids, memory") from error
