"""Measurements of a model server from its events: latency, throughput, memory bandwidth, answers, and what spoils them.

The client (`images/vllm/measure`) writes under the launcher's rank, the servers under the number of their replica.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from vaultcube.results.envelope import LAUNCHER_RANK
from vaultcube.results.events import (
    AnyEvent,
    Finished,
    Garbled,
    Level,
    ModelEvent,
    Probe,
    ServerReady,
    Started,
    sequence_gaps,
    unreadable,
)
from vaultcube.results.judge import Measurement
from vaultcube.results.schema import Gpu, Metric, Status

CLIENT = "vllm-bench"
# Rates that are said beside the counts they follow from may differ by rounding only.
RATE_SLACK = 1.01
# A load may begin this much before the one before it ended, in seconds: the client sees ends in a progress bar.
OVERLAP_S = 1.0
# Weak scaling compares equal loads; a replica's share of the load that is further off is another load.
SHARE_SLACK = 0.05

# What checks look at: each is measured, or its absence explained.
NAMES = (
    "output_tokens_per_s",
    "requests_failed",
    "mbu",
    "answers_wrong",
    "answers_not_repeatable",
)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the plan asked for.

    Attributes:
        concurrency: the levels of load, ascending.
        input_len, output_len: tokens of a request.
        requests: least requests of a stream and level.
        replicas: servers.
        tensor_parallel: GPUs of a server that read their part of every layer at the same time.
        probes: whether questions are asked.
        speculative: whether several tokens may come of one pass over the weights.
    """

    concurrency: tuple[int, ...]
    input_len: int
    output_len: int
    requests: int
    replicas: int = 1
    tensor_parallel: int = 1
    probes: bool = True
    speculative: bool = False


class _Figures:
    """Metrics, and reasons for those that are missing."""

    def __init__(self) -> None:
        self.metrics: dict[str, Metric] = {}
        self.missing: dict[str, str] = {}

    def add(self, name: str, value: float, unit: str) -> None:
        self.metrics[name] = Metric(value=value, unit=unit)

    def lack(self, reason: str, *names: str) -> None:
        self.missing |= {name: reason for name in names if name not in self.metrics}


def measure_serving(
    events: Sequence[AnyEvent],
    garbled: Sequence[Garbled],
    expected: Expected,
    status: Status,
    gpus: Sequence[Gpu] = (),
) -> Measurement:
    """Turn the events of client and servers into metrics.

    Args:
        events: in file order.
        garbled: lines that could not be read.
        expected: what the plan asked for.
        status: how the run ended.
        gpus: those of the servers.

    Returns:
        Metrics, reasons for those that are missing, and disturbances. Never raises on what events say.
    """
    found = _Figures()
    _servers(events, expected, found)
    started = [event for event in events if isinstance(event, Started) and event.program == CLIENT]
    if not started:
        found.lack("the client never started", *NAMES, "scaling_efficiency_replicas")
        return Measurement(found.metrics, found.missing, unreadable(garbled))
    said = [event for event in events if isinstance(event, Level) and event.rank == LAUNCHER_RANK]
    levels = {one.concurrency: one for one in reversed(said) if one.replica is None}
    levels = {one: levels[one] for one in expected.concurrency if one in levels}
    _rates(levels, expected, found)
    _times(levels, found)
    _failures(said, levels, expected, found)
    _replicas(said, levels, expected, found)
    _answers(events, expected, status, found)
    _bandwidth(events, levels.get(1), expected, gpus, found)
    disturbances = [
        *unreadable(garbled),
        *sequence_gaps(list(events)),
        *_strangers(events, started, expected),
        *_numbering(said, expected),
        *(text for one in said for text in _contradiction(one, expected)),
        *_overlaps(said),
    ]
    return Measurement(found.metrics, found.missing, disturbances)


def memory_bandwidth_utilisation(
    *, weight_bytes: float, kv_bytes_per_token: float, context: float, tpot_s: float, bandwidth: float, gpus: int
) -> float:
    """Return the share of the memory bandwidth that decoding uses with one stream (MBU).

    MBU = (weights + KV cache that a token reads) / (time per output token x bandwidth of the GPUs). Source: Databricks,
    "LLM Inference Performance Engineering" (2023), which defines it so. Llama-2-7B in bf16 has 13.48 GB of weights:
    on 1792 GB/s (RTX 5090) 133 tokens/s are the ceiling, an MBU of 1.

    Args:
        weight_bytes: what one token reads of the weights.
        kv_bytes_per_token: KV cache that one token of context takes.
        context: mean length of the context while tokens are made.
        tpot_s: time per output token after the first, in seconds; more than 0.
        bandwidth: of one GPU, bytes/s; more than 0.
        gpus: how many read at the same time (tensor parallel).
    """
    return (weight_bytes + kv_bytes_per_token * context) / (tpot_s * bandwidth * gpus)


def _servers(events: Sequence[AnyEvent], expected: Expected, found: _Figures) -> None:
    ready = {one.rank: one for one in reversed(events) if isinstance(one, ServerReady) and one.rank >= 0}
    ready = {rank: ready[rank] for rank in range(expected.replicas) if rank in ready}
    if len(ready) < expected.replicas:
        found.lack(f"{len(ready)} of {expected.replicas} servers became ready", "load_s", "first_token_s")
    else:
        servers = list(ready.values())
        found.add("load_s", max(one.load_s for one in servers), "s")
        firsts = [one.first_token_s for one in servers if one.first_token_s is not None]
        if len(firsts) == len(servers):
            found.add("first_token_s", max(firsts), "s")
        tokens = [one.kv_cache_tokens for one in servers if one.kv_cache_tokens is not None]
        if len(tokens) == len(servers):
            found.add("kv_cache_tokens", min(tokens), "tokens")
        memory = [one.model_memory_bytes for one in servers if one.model_memory_bytes is not None]
        if len(memory) == len(servers):
            found.add("model_memory_bytes", max(memory), "bytes")
    model = _model(events)
    if model is not None and model.weights_bytes is not None:
        found.add("weights_bytes", model.weights_bytes, "bytes")


def _model(events: Sequence[AnyEvent]) -> ModelEvent | None:
    return next((one for one in events if isinstance(one, ModelEvent) and one.rank >= 0), None)


def _rates(levels: dict[int, Level], expected: Expected, found: _Figures) -> None:
    for concurrency, level in levels.items():
        if not level.completed:
            continue
        found.add(f"output_tokens_per_s_c{concurrency}", level.output_tokens_per_s, "tokens/s")
        found.add(f"requests_per_s_c{concurrency}", level.requests_per_s, "requests/s")
    alone = found.metrics.get("output_tokens_per_s_c1")
    if alone is not None:
        found.metrics["output_tokens_per_s"] = alone
    elif 1 in levels:
        found.lack("no request of the single stream was answered", "output_tokens_per_s")
    elif 1 in expected.concurrency:
        found.lack("the single stream was not measured to its end", "output_tokens_per_s")
    else:
        found.lack("a single stream was not asked for: there is no 1 in --concurrency", "output_tokens_per_s")
    most = [one.output_tokens_per_s for one in levels.values() if one.completed]
    if most:
        found.add("output_tokens_per_s_max", max(most), "tokens/s")


def _times(levels: dict[int, Level], found: _Figures) -> None:
    for concurrency, level in levels.items():
        spreads = {"ttft": level.ttft_s, "tpot": level.tpot_s, "itl": level.itl_s, "e2e": level.e2e_s}
        for name, spread in spreads.items():
            if spread is not None:
                found.add(f"{name}_p50_s_c{concurrency}", spread.p50, "s")
                found.add(f"{name}_p90_s_c{concurrency}", spread.p90, "s")
                found.add(f"{name}_p99_s_c{concurrency}", spread.p99, "s")


def _failures(said: Sequence[Level], levels: dict[int, Level], expected: Expected, found: _Figures) -> None:
    # What failed in a level that was repeated, or is a stranger's, failed all the same.
    failed = sum(max(one.failed, one.requests - one.completed, 0) for one in said)
    if failed or len(levels) == len(expected.concurrency):
        found.add("requests_failed", failed, "requests")
    else:
        found.lack(f"{len(levels)} of {len(expected.concurrency)} levels of load were measured", "requests_failed")


def _replicas(said: Sequence[Level], levels: dict[int, Level], expected: Expected, found: _Figures) -> None:
    """Compare all replicas under the highest load with one under its share: E = T_R / (R x T_1), weak scaling."""
    name, replicas = "scaling_efficiency_replicas", expected.replicas
    if replicas == 1:
        found.lack("there is one replica, and nothing to scale over", name)
        return
    together = levels.get(expected.concurrency[-1])
    most = found.metrics.get("output_tokens_per_s_max")
    if most is not None:
        found.add("output_tokens_per_s_per_replica", most.value / replicas, "tokens/s")
    alone = next((one for one in said if one.replica is not None), None)
    if together is None or alone is None or not together.completed or not alone.output_tokens_per_s:
        found.lack("one replica alone and all together were not both measured", name)
    elif abs(alone.concurrency * replicas / together.concurrency - 1) > SHARE_SLACK:
        said_load = f"{alone.concurrency} x {replicas} replicas is no load of {together.concurrency}"
        found.lack(f"{said_load}: make the highest concurrency a multiple of the replicas", name)
    else:
        found.add(name, together.output_tokens_per_s / (replicas * alone.output_tokens_per_s), "ratio")


def _answers(events: Sequence[AnyEvent], expected: Expected, status: Status, found: _Figures) -> None:
    names = ("answers_wrong", "answers_not_repeatable")
    model = _model(events)
    probes = [event for event in events if isinstance(event, Probe) and event.rank == LAUNCHER_RANK]
    if model is not None and model.random_weights:
        found.lack("random weights: what they answer means nothing", *names)
        return
    if not expected.probes:
        found.lack("no question was asked: --no-probes", *names)
        return
    wrong = sum(probe.correct is False for probe in probes)
    unlike = sum(not probe.repeatable for probe in probes)
    # Questions come before the load: one level, or the end, says that all of them were asked.
    asked = any(isinstance(event, Level | Finished) and event.rank == LAUNCHER_RANK for event in events)
    reason = "the run was interrupted" if status is Status.INTERRUPTED else "the questions did not come to their end"
    known = any(probe.correct is not None for probe in probes)
    if wrong or (asked and known):
        found.add("answers_wrong", wrong, "answers")
    if unlike or (asked and probes):
        found.add("answers_not_repeatable", unlike, "answers")
    found.lack(reason, *names)


def _bandwidth(
    events: Sequence[AnyEvent], single: Level | None, expected: Expected, gpus: Sequence[Gpu], found: _Figures
) -> None:
    sizes, bandwidth = _sizes(_model(events), expected), _bandwidth_of(gpus)
    if isinstance(bandwidth, str):
        found.lack(bandwidth, "mbu")
    elif isinstance(sizes, str):
        found.lack(sizes, "mbu")
    elif single is None or single.tpot_s is None or not single.tpot_s.p50:
        found.lack("the time per token of a single stream was not measured", "mbu")
    else:
        share = memory_bandwidth_utilisation(
            weight_bytes=sizes[0],
            kv_bytes_per_token=sizes[1],
            context=expected.input_len + expected.output_len / 2,
            tpot_s=single.tpot_s.p50,
            bandwidth=bandwidth,
            gpus=expected.tensor_parallel,
        )
        if share <= 1:
            found.add("mbu", share, "ratio")
        else:
            need = f"{share:.3g} of the memory bandwidth"
            found.lack(f"the model's sizes and the measured time need {need}: one of them is wrong", "mbu")


def _bandwidth_of(gpus: Sequence[Gpu]) -> float | str:
    """Return the memory bandwidth of the quickest card in bytes/s, or why it is not known.

    Which card answered is not known where there are several kinds: the quickest is the one less in our favour.
    """
    told = [gpu.memory_bandwidth_bytes_per_s for gpu in gpus]
    known = [one for one in told if one is not None and one > 0]
    if not told:
        return "no GPU was used"
    return max(known) if len(known) == len(told) else "a card does not tell its memory bandwidth"


def _sizes(model: ModelEvent | None, expected: Expected) -> tuple[int, int] | str:
    """Return the bytes of weights that a token reads and of KV cache a token, or why they are not known."""
    if model is None:
        return "no server told what its model is"
    if model.random_weights:
        return "the random model is too small to need memory bandwidth"
    if expected.speculative:
        return "speculative decoding makes several tokens of one pass over the weights"
    if model.active_weights_bytes is None:
        return "what a token reads of the weights is not known: a mixture of experts, or files that do not tell"
    if model.kv_bytes_per_token is None:
        return "the size of the KV cache is not known from the model's files"
    return model.active_weights_bytes, model.kv_bytes_per_token


def _strangers(events: Sequence[AnyEvent], started: Sequence[Started], expected: Expected) -> list[str]:
    found = ["the client started more than once in one run"] if len(started) > 1 else []
    strangers = {event.rank for event in events if event.rank >= expected.replicas}
    return found + [f"server {rank} reported, and there are {expected.replicas}" for rank in sorted(strangers)]


def _numbering(said: Sequence[Level], expected: Expected) -> list[str]:
    times = Counter(one.concurrency for one in said if one.replica is None)
    found = [f"concurrency {one} was measured {count} times" for one, count in times.items() if count > 1]
    found += [
        f"concurrency {one} was measured, and was not asked for" for one in times if one not in expected.concurrency
    ]
    alone = Counter(one.replica for one in said if one.replica is not None)
    found += [f"replica {one} was measured alone {count} times" for one, count in alone.items() if count > 1]
    found += [
        f"replica {one} was measured, and there are {expected.replicas}" for one in alone if one >= expected.replicas
    ]
    return found


def _contradiction(level: Level, expected: Expected) -> list[str]:
    """Return the first thing in a level that cannot be."""
    where = f"concurrency {level.concurrency}" + ("" if level.replica is None else f" of replica {level.replica} alone")
    if level.completed + level.failed != level.requests:
        said = f"{level.completed} answered and {level.failed} failed"
        return [f"{where}: {said}, and there were {level.requests} requests"]
    if level.requests < level.concurrency * expected.requests:
        least = level.concurrency * expected.requests
        return [f"{where}: {level.requests} requests were sent, and {least} were planned"]
    if level.output_tokens != level.completed * expected.output_len:
        said = f"{level.output_tokens} tokens in {level.completed} answers"
        return [f"{where}: {said}, and {expected.output_len} tokens were asked for each time"]
    if not _close(level.output_tokens_per_s, level.output_tokens / level.elapsed_s):
        said = f"{level.output_tokens} tokens in {level.elapsed_s:.3f} s"
        return [f"{where}: {said} are not {level.output_tokens_per_s:.6g} tokens/s"]
    if not _close(level.requests_per_s, level.completed / level.elapsed_s):
        said = f"{level.completed} answers in {level.elapsed_s:.3f} s"
        return [f"{where}: {said} are not {level.requests_per_s:.6g} requests/s"]
    spreads = {"TTFT": level.ttft_s, "TPOT": level.tpot_s, "ITL": level.itl_s, "E2E": level.e2e_s}
    for name, spread in spreads.items():
        if spread is not None and not spread.p50 <= spread.p90 <= spread.p99:
            return [f"{where}: the percentiles of {name} are not in order"]
    if level.ttft_s is not None and level.e2e_s is not None and level.ttft_s.p50 > level.e2e_s.p50:
        return [f"{where}: first tokens came later than whole answers"]
    if level.until_s > level.mono:
        return [f"{where}: it is said to have ended after it was reported"]
    return []


def _close(one: float, other: float) -> bool:
    return one <= other * RATE_SLACK and other <= one * RATE_SLACK


def _overlaps(said: Sequence[Level]) -> list[str]:
    for before, level in pairwise(said):
        if level.until_s - level.elapsed_s < before.until_s - OVERLAP_S:
            loads = f"{before.concurrency} and {level.concurrency}"
            return [f"the loads of concurrency {loads} overlap: one of their times is wrong"]
    return []
