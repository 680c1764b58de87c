"""The command line of `vllm bench serve`, which changed from version to version. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

PERCENTILES = (50, 90, 99)
RESULT = "result.json"


@dataclass(frozen=True)
class Dialect:
    """What differs between versions.

    Attributes:
        backend: the flags that choose completions of the OpenAI API.
        same_length: the range ratio that makes all prompts, and all answers, equally long.
        extra: flags that older versions do not know. The oldest samples greedily and keeps all details by itself.
    """

    backend: tuple[str, str]
    same_length: str
    extra: tuple[str, ...] = ()


# From this version on. Read in vllm/benchmarks/serve.py of 0.8.5.post1, 0.10.2 and 0.32.0, the versions of our images.
DIALECTS: dict[tuple[int, int], Dialect] = {
    # Lengths are drawn from [ratio x length, length].
    (0, 0): Dialect(("--endpoint-type", "openai-comp"), "1.0"),
    # ... from [(1 - ratio) x length, (1 + ratio) x length].
    (0, 9): Dialect(("--endpoint-type", "openai"), "0.0", ("--temperature", "0", "--save-detailed")),
    # It repeats its first prompt for ten minutes until that is answered; here whoever calls it has waited already.
    (0, 10): Dialect(
        ("--endpoint-type", "openai"),
        "0.0",
        ("--temperature", "0", "--save-detailed", "--ready-check-timeout-sec", "1"),
    ),
    # The first prompt is not sent once before the load, which would leave it in the prefix cache.
    (0, 11): Dialect(
        ("--backend", "openai"),
        "0.0",
        ("--temperature", "0", "--save-detailed", "--ready-check-timeout-sec", "0"),
    ),
}


def dialect(version: str) -> Dialect:
    """Return what a version of vLLM understands; an unreadable one counts as new."""
    match = re.match(r"(\d+)\.(\d+)", version)
    number = (int(match[1]), int(match[2])) if match else max(DIALECTS)
    return DIALECTS[max(since for since in DIALECTS if since <= number)]


@dataclass(frozen=True)
class Load:
    """One call of the tool: so many requests, at most `concurrency` at the same time, lengths in tokens."""

    url: str
    model: str
    tokenizer: str
    input_len: int
    output_len: int
    concurrency: int
    requests: int
    seed: int
    trust_remote_code: bool = False


def arguments(load: Load, version: str, folder: str) -> list[str]:
    """Return the arguments of `vllm` that put `load` on a server and write RESULT into `folder`. No secret is in it."""
    spoken = dialect(version)
    argv = ["bench", "serve", *spoken.backend, "--base-url", load.url, "--endpoint", "/v1/completions"]
    argv += ["--model", load.model, "--tokenizer", load.tokenizer, "--dataset-name", "random"]
    argv += ["--random-input-len", str(load.input_len), "--random-output-len", str(load.output_len)]
    argv += ["--random-range-ratio", spoken.same_length, "--num-prompts", str(load.requests)]
    argv += ["--max-concurrency", str(load.concurrency), "--request-rate", "inf", "--seed", str(load.seed)]
    argv += ["--ignore-eos", "--percentile-metrics", "ttft,tpot,itl,e2el"]
    argv += ["--metric-percentiles", ",".join(map(str, PERCENTILES))]
    argv += ["--save-result", "--result-dir", folder, "--result-filename", RESULT, *spoken.extra]
    return [*argv, "--trust-remote-code"] if load.trust_remote_code else argv
