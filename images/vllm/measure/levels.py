"""One level of load: its warm-up, the tool, and what it measured as an event's fields."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from common.outcome import Problem, say
from measure import result, runner, sizes, tool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from common.signals import Signals
    from measure.cli import Options
    from measure.server import Model, Server
    from serve.secrets import Secrets

WARMUP_SHARE = 0.25
"""Of a level's progress: a guess, to keep a bar moving."""


@dataclass
class Loader:
    """Puts load on servers, call after call.

    Attributes:
        version: vLLM's.
        calls: how many there were: every call has prompts of its own, because known ones come from the prefix cache.
    """

    options: Options
    model: Model
    version: str
    scratch: Path
    secrets: Secrets
    signals: Signals
    calls: int = 0

    def level(
        self, server: Server, concurrency: int, replica: int | None, progress: Callable[[float], None]
    ) -> dict[str, Any]:
        """Warm up, measure, and return the fields of a `level` event.

        Args:
            server: who is asked.
            concurrency: streams.
            replica: which server it is, None for all of them.
            progress: is told the share that is done.

        Raises:
            Problem: the tool failed or hung, or the server died.
        """
        load = tool.Load(
            server.url,
            self.model.name,
            self.model.root,
            self.options.input_len,
            self.options.output_len,
            concurrency,
            sizes.warmup_requests(concurrency, self.options.warmup),
            seed=0,
            trust_remote_code=self.options.trust_remote_code,
        )
        known = None
        if load.requests:
            warm, _ = self._call(server, load, lambda done: progress(WARMUP_SHARE * done))
            known = warm["e2e_s"]["p50"] if warm["e2e_s"] else None
        share = WARMUP_SHARE if load.requests else 0.0
        requests = sizes.level_requests(concurrency, self.options.requests, self.options.min_seconds, known)
        load = replace(load, requests=requests)
        fields, until_s = self._call(server, load, lambda done: progress(share + (1 - share) * done))
        where = {"concurrency": concurrency, "replica": replica, "until_s": until_s}
        return {**where, **fields, "client": f"vllm bench serve {self.version}"}

    def _call(self, server: Server, load: tool.Load, progress: Callable[[float], None]) -> tuple[dict[str, Any], float]:
        """Run the tool once; return what it measured, and when the load ended on the monotonic clock."""
        load = replace(load, seed=(self.options.seed + self.calls) % 2**32)
        self.calls += 1
        file = self.scratch / tool.RESULT
        file.unlink(missing_ok=True)
        argv = [*runner.program(), *tool.arguments(load, self.version, str(self.scratch))]
        env = runner.environment(os.environ, self.secrets.api_key, [server.url])
        try:
            code, output = runner.run(
                argv,
                env,
                requests=load.requests,
                timeout_s=self.options.level_timeout_s,
                signals=self.signals,
                strike=self.secrets.strike,
                progress=lambda done: progress(done / load.requests),
            )
        except runner.HangError:
            raise self._problem(server, load, f"did not end within {self.options.level_timeout_s:.0f} s", []) from None
        if code:
            raise self._problem(server, load, f"ended with exit code {code}", output.last())
        try:
            text = file.read_text(encoding="utf-8")
            fields = result.parse(text, requests=load.requests, output_len=load.output_len)
        except (OSError, ValueError, result.ResultError) as error:
            raise self._problem(server, load, f"left no result: {error}", output.last()) from error
        if output.ended_s is None:
            raise self._problem(server, load, "did not say when the load ended", output.last())
        if not fields["completed"] and not server.alive():
            raise self._problem(server, load, "got no answer at all", [])
        return fields, output.ended_s

    def _problem(self, server: Server, load: tool.Load, what: str, lines: list[str]) -> Problem:
        """Return what is wrong: a server that is gone is the cause, whatever the tool says."""
        self.signals.check()
        for line in lines:
            say(f"  | {line}")
        said = f"with {load.concurrency} streams `vllm bench serve` {what}"
        if not server.alive():
            return Problem("server-died", f"{server.url} no longer answers: {said}", "see what the server's log says")
        cause = f" ({lines[-1]})" if lines else ""
        return Problem("workload-failed", f"{said}{cause}", "see the lines above it in the client's log")
