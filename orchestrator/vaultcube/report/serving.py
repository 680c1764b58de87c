"""What a server and the client that measures it are doing, in lines."""

from __future__ import annotations

from vaultcube.errors import InterruptedRunError
from vaultcube.results.events import (
    AnyEvent,
    ErrorEvent,
    Level,
    ModelEvent,
    Probe,
    ServerReady,
    Spread,
    Stage,
    one_line,
)

# In the order in which a server comes to them.
DOING = {
    "check": "looking at the model",
    "download": "downloading the model",
    "load": "loading",
    "compile": "compiling",
    "kv_cache": "making room for the KV cache",
    "warmup": "warming up",
}


def stage_line(stage: Stage) -> str | None:
    """Return what a server is doing, or None for a stage that is told otherwise."""
    if stage.stage == "ready":
        return None
    share = f" {stage.fraction:.0%}" if stage.fraction is not None else ""
    detail = f" ({one_line(stage.detail)})" if stage.detail else ""
    return f"{DOING[stage.stage]}{share}{detail}"


def describe_serving(event: AnyEvent, who: str) -> str | None:
    """Return the line that an event of a server or its client is worth, or None.

    Args:
        event: what was said.
        who: the server, where there are several: `server 1: `, else empty.
    """
    if isinstance(event, ModelEvent):
        size = f", {event.weights_bytes / 1e9:.1f} GB of weights" if event.weights_bytes else ""
        return f"  {who}{one_line(event.model)}{size}"
    if isinstance(event, ServerReady):
        room = f", KV cache for {event.kv_cache_tokens} tokens" if event.kv_cache_tokens else ""
        return f"  {who}ready after {event.load_s:.1f} s{room}"
    if isinstance(event, Probe):
        words = {True: "the known answer", False: "another answer than the known one", None: "answered"}
        found = words[event.correct]
        return f"  question {one_line(event.name)}: {found}{'' if event.repeatable else ', and not the same twice'}"
    if isinstance(event, Level):
        failed = f", {event.failed} FAILED" if event.failed else ""
        alone = f" of server {event.replica} alone" if event.replica is not None else ""
        return (
            f"  {event.concurrency} at once{alone}: {event.output_tokens_per_s:.1f} tokens/s, first token "
            f"{_ms(event.ttft_s)}, then {_ms(event.tpot_s)} a token{failed}"
        )
    if isinstance(event, ErrorEvent) and event.code != InterruptedRunError.code:
        # Whoever stopped it says so.
        return f"  {who}{one_line(event.message)}"
    return None


def _ms(spread: Spread | None) -> str:
    return f"{spread.p50 * 1000:.1f} ms" if spread else "-"
