"""`python3 -m serve.health`: exit code 0 when the model answers, 1 when it does not.

A server at work is healthy by its work: when tokens or requests were counted since the last look, no request is
added to the load. An idle one is asked for one token.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from typing import TYPE_CHECKING

from serve import state
from serve.client import NoAnswerError, Server
from serve.secrets import Secrets

if TYPE_CHECKING:
    from collections.abc import Sequence

METRICS_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 5.0
"""With two looks at the metrics this stays below the timeout of the compose file's healthcheck, 10 s."""

_COUNTERS = re.compile(
    r"^vllm:(?:generation_tokens_total|prompt_tokens_total|request_success_total)(?:\{.*\})? (\S+)$", re.MULTILINE
)


def work_done(metrics: str) -> float | None:
    """Return the sum of tokens and requests that Prometheus text counts; None where it counts none."""
    values = []
    for value in _COUNTERS.findall(metrics):
        with contextlib.suppress(ValueError):
            values.append(float(value))
    return sum(values) if values else None


def check(port: int, secrets: Secrets) -> str:
    """Return why the server on `port` counts as healthy.

    Raises:
        NoAnswerError: it does not.
    """
    known = state.read(port)
    if known is None:
        raise NoAnswerError("still loading")
    server = Server(port, secrets.api_key)
    done = work_done(server.get("/metrics", METRICS_TIMEOUT_S).decode("utf-8", "replace"))
    before = _last(port)
    why = "at work"
    if done is None or before is None or done <= before:
        server.one_answer(known.model, ANSWER_TIMEOUT_S, generates=known.generates)
        why = "answered"
        # Our own request is no sign of life of the next interval.
        done = work_done(server.get("/metrics", METRICS_TIMEOUT_S).decode("utf-8", "replace"))
    with contextlib.suppress(OSError):
        state.write(state.path("counters", port), json.dumps(done))
    return why


def _last(port: int) -> float | None:
    try:
        found = json.loads(state.path("counters", port).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, float) else None


def main(argv: Sequence[str]) -> int:
    """Look once; return the exit code of a healthcheck."""
    parser = argparse.ArgumentParser(prog="python3 -m serve.health", allow_abbrev=False)
    parser.add_argument("--port", type=int, default=8000)
    try:
        print(check(parser.parse_args(argv).port, Secrets()))
    except NoAnswerError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
