"""A measurement of a model server as events: Llama-2-7B on one RTX 5090 unless said otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.unit.support import event, gpu

from vaultcube.results.events import AnyEvent

# Facts of the model: bf16 weights, and 2 x 32 layers x 4096 x 2 bytes of KV cache a token.
WEIGHTS, KV = 13_476_831_232, 524_288
BANDWIDTH = 1_792_128_000_000.0
GPUS = [gpu(0).model_copy(update={"memory_bandwidth_bytes_per_s": BANDWIDTH})]
# Streams: seconds a token, and requests that a stream sends.
LEVELS: Mapping[int, tuple[float, int]] = {1: (0.0100, 30), 8: (0.0105, 30), 32: (0.0130, 20), 128: (0.0260, 10)}
OUTPUT = 128


def spread(p50: float) -> dict[str, float]:
    return {"mean": p50 * 1.01, "p50": p50, "p90": p50 * 1.05, "p99": p50 * 1.2}


def level(
    concurrency: int, *, start_s: float, tpot_s: float = 0.01, rounds: int = 30, failed: int = 0, **changes: Any
) -> dict[str, Any]:
    """Return the fields of a level whose requests take `tpot_s` a token after a TTFT of 50 ms."""
    requests = concurrency * rounds
    completed = requests - failed
    request_s = 0.05 + tpot_s * (OUTPUT - 1)
    elapsed_s = request_s * rounds
    return {
        "concurrency": concurrency,
        "requests": requests,
        "completed": completed,
        "failed": failed,
        "input_tokens": completed * 512,
        "output_tokens": completed * OUTPUT,
        "elapsed_s": elapsed_s,
        "until_s": start_s + elapsed_s,
        "output_tokens_per_s": completed * OUTPUT / elapsed_s,
        "requests_per_s": completed / elapsed_s,
        "ttft_s": spread(0.05),
        "tpot_s": spread(tpot_s),
        "itl_s": spread(tpot_s),
        "e2e_s": spread(request_s),
        "client": "vllm bench serve 0.10.2",
        **changes,
    }


def server(replica: int = 0, **changes: Any) -> list[AnyEvent]:
    """Return what a server says of its model and its start."""
    model: dict[str, Any] = {
        "model": "meta-llama/Llama-2-7b-hf",
        "source": "hub",
        "dtype": "bfloat16",
        "weights_bytes": WEIGHTS,
        "active_weights_bytes": WEIGHTS,
        "kv_bytes_per_token": KV,
        "max_model_len": 4096,
        "random_weights": False,
        "generates": True,
        **changes,
    }
    ready: dict[str, Any] = {
        "version": "0.10.2",
        "model": model["model"],
        "load_s": 40.0 + replica,
        "first_token_s": 41.0 + replica,
        "kv_cache_tokens": 30_000 - replica,
        "model_memory_bytes": 13_600_000_000,
    }
    return [
        event("model", rank=replica, seq=0, mono=5.0, **model),
        event("server", rank=replica, seq=1, mono=45.0, **ready),
    ]


def run(
    *servers: list[AnyEvent],
    levels: list[dict[str, Any]] | None = None,
    probes: list[tuple[bool | None, bool]] | None = None,
    finished: bool = True,
) -> list[AnyEvent]:
    """Return the events of servers, then of the client: questions (correct, repeatable), levels, its end."""
    if levels is None:
        levels = []
        for number, (concurrency, (tpot_s, rounds)) in enumerate(LEVELS.items()):
            levels.append(level(concurrency, start_s=200.0 + number * 100, tpot_s=tpot_s, rounds=rounds))
    said: list[tuple[str, float, dict[str, Any]]] = [
        ("started", 60.0, {"program": "vllm-bench", "params": {}, "world_size": 1, "device": "cuda", "python": "3.11"})
    ]
    for number, (right, again) in enumerate([(True, True)] * 4 + [(None, True)] if probes is None else probes):
        asked = {"name": f"q{number}", "question": "?", "answer": "!", "correct": right, "repeatable": again}
        said.append(("probe", 70.0 + number, asked))
    said += [("level", one["until_s"] + 3, one) for one in levels]
    said += [("finished", 900.0, {"elapsed_s": 840.0})] if finished else []
    client = [event(kind, rank=-1, seq=at, mono=mono, **fields) for at, (kind, mono, fields) in enumerate(said)]
    return [one for events in (servers or (server(),)) for one in events] + client
