"""What vLLM is doing, read from what it logs. Pure: lines in, findings out.

Its log is no interface, so every pattern is one sentence of it that held over versions, tested on recorded text
(0.32.0) and on lines made from the format strings in the sources (0.8.5.post1, 0.10.2). What is not recognised
changes nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

GIB = 2**30


@dataclass(frozen=True)
class Stage:
    """The server came to `stage`; `fraction` of it is done, None where that is not known."""

    stage: str
    detail: str = ""
    fraction: float | None = None


class Log:
    """Follows the log of one server.

    Attributes:
        stage: the stage it is in.
        kv_cache_tokens: tokens that fit its KV cache; None until it says so. Several engines (data parallel) add up.
        caches: the same of each engine, by the prefix of its lines, which one without data parallelism may lack.
        model_memory_bytes: what the weights take on one GPU; None until it says so.
    """

    def __init__(self) -> None:
        self.stage = Stage("check")
        self.kv_cache_tokens: int | None = None
        self.caches: dict[str, int] = {}
        self.model_memory_bytes: int | None = None

    def feed(self, line: str) -> Stage | None:
        """Take a line; return the stage when it changed, or got on."""
        for pattern, read in _PATTERNS:
            match = pattern.search(line)
            if match is None:
                continue
            found = read(self, match)
            # Workers of one server log side by side: a stage that is over is not gone back to.
            if found is None or found == self.stage or _ORDER[found.stage] < _ORDER[self.stage.stage]:
                return None
            if found.stage == self.stage.stage and (found.fraction or 0) < (self.stage.fraction or 0):
                return None
            self.stage = found
            return found
        return None


_PROCESS = re.compile(r"\([^()]+ pid=\d+\)")
_ORDER = {name: at for at, name in enumerate(("check", "download", "load", "compile", "kv_cache", "warmup", "ready"))}


def _share(match: re.Match[str]) -> float:
    done, total = int(match["done"]), int(match["total"])
    return min(1.0, done / total) if total else 0.0


def _load(_log: Log, _match: re.Match[str]) -> Stage:
    return Stage("load")


def _shards(_log: Log, match: re.Match[str]) -> Stage:
    return Stage("load", f"{match['done']} of {match['total']} files of weights", _share(match))


def _memory(log: Log, match: re.Match[str]) -> None:
    # Each worker says what it took; they are as good as equal.
    log.model_memory_bytes = max(log.model_memory_bytes or 0, int(float(match["gib"]) * GIB))


def _compile(_log: Log, _match: re.Match[str]) -> Stage:
    return Stage("compile")


def _profile(_log: Log, _match: re.Match[str]) -> Stage:
    return Stage("kv_cache")


def _tokens(log: Log, match: re.Match[str]) -> Stage:
    tokens = int(match["tokens"].replace(",", ""))
    # 0.8.5 and 0.10.2 say it once for each GPU of an engine, and then give all of them the least.
    process = _PROCESS.match(match.string)
    engine = process[0] if process else ""
    log.caches[engine] = min(tokens, log.caches.get(engine, tokens))
    log.kv_cache_tokens = sum(log.caches.values())
    return Stage("kv_cache", f"room for {log.kv_cache_tokens} tokens")


def _blocks(log: Log, match: re.Match[str]) -> Stage:
    # The older engine (0.8.5 below compute capability 8.0) counts blocks, of 16 tokens unless --block-size is given.
    log.kv_cache_tokens = int(match["blocks"]) * 16
    return Stage("kv_cache", f"room for {log.kv_cache_tokens} tokens")


def _graphs(_log: Log, match: re.Match[str]) -> Stage:
    return Stage("warmup", f"{match['done']} of {match['total']} CUDA graphs", _share(match))


def _warmup(_log: Log, _match: re.Match[str]) -> Stage:
    return Stage("warmup")


_PATTERNS: tuple[tuple[re.Pattern[str], Callable[[Log, re.Match[str]], Stage | None]], ...] = (
    (
        re.compile(r"[Ll]oading [^:|]*:\s+\d+% Completed \| (?P<done>\d+)/(?P<total>\d+)"),
        _shards,
    ),
    (re.compile(r"Starting to load model "), _load),
    (re.compile(r"Model loading took (?P<gib>\d+(?:\.\d+)?) (?:GiB|GB)"), _memory),
    (
        re.compile(
            r"Using cache directory: \S+ for vLLM's torch\.compile"
            r"|Dynamo bytecode transform time|Warming up model for the compilation"
            r"|Start compiling function|Compiling a graph for"
        ),
        _compile,
    ),
    (re.compile(r"KV cache size: (?P<tokens>[\d,]+) tokens"), _tokens),
    (re.compile(r"# (?:cuda|cpu|GPU) blocks: (?P<blocks>\d+), # CPU blocks"), _blocks),
    (
        re.compile(r"Memory profiling takes|Available KV cache memory|Explicitly set \([\d./]+\) GiB for KV cache"),
        _profile,
    ),
    (
        re.compile(r"Capturing (?:CUDA|cuda) ?graph[^:]*(?::[^:]*)??:\s+\d+%\|[^|]*\| (?P<done>\d+)/(?P<total>\d+)"),
        _graphs,
    ),
    # Once the cache's size is settled, what is left is warming up; 0.8.5 captures its graphs without a word.
    (
        re.compile(
            r"Maximum concurrency for |Compile and warming up model for size"
            r"|Capturing (?:the model for )?(?:CUDA|cuda) ?graph|init engine \(profile"
        ),
        _warmup,
    ),
)
