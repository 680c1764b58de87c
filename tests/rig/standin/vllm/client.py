"""A stand-in for `vllm bench serve`: it sends requests of random words, and writes the result that vLLM writes."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

LIMIT_S = 60


@dataclass
class Answer:
    """One request: when its tokens came, in seconds since it was sent; `error` is empty when all is well."""

    prompt_tokens: int
    times: list[float] = field(default_factory=list)
    error: str = ""


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the options that matter here; others of vLLM's many are taken and not looked at."""
    parser = argparse.ArgumentParser(prog="vllm bench serve", allow_abbrev=False)
    parser.add_argument("--backend", default="vllm")
    parser.add_argument("--endpoint-type")
    parser.add_argument("--base-url")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--endpoint", default="/v1/completions")
    parser.add_argument("--model", required=True)
    parser.add_argument("--served-model-name")
    parser.add_argument("--tokenizer")
    parser.add_argument("--random-input-len", type=int, default=1024)
    parser.add_argument("--random-output-len", type=int, default=128)
    parser.add_argument("--num-prompts", type=int, default=1000)
    parser.add_argument("--max-concurrency", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--percentile-metrics", default="ttft,tpot,itl")
    parser.add_argument("--metric-percentiles", default="99")
    parser.add_argument("--save-result", action="store_true")
    parser.add_argument("--save-detailed", action="store_true")
    parser.add_argument("--result-dir", default=".")
    parser.add_argument("--result-filename")
    return parser.parse_known_args(argv)[0]


def ask(given: argparse.Namespace, where: str, number: int) -> Answer:
    """Send one request and time its tokens."""
    source = random.Random(given.seed + number)  # noqa: S311 - random words
    prompt = " ".join(f"w{source.randrange(1000)}" for _ in range(given.random_input_len))
    answer = Answer(given.random_input_len)
    body = {
        "model": given.served_model_name or given.model,
        "prompt": prompt,
        "max_tokens": given.random_output_len,
        "temperature": 0,
        "stream": True,
        "ignore_eos": True,
    }
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("OPENAI_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    connection = http.client.HTTPConnection(where, timeout=LIMIT_S)
    sent = time.perf_counter()
    try:
        connection.request("POST", given.endpoint, json.dumps(body), headers)
        reply = connection.getresponse()
        if reply.status != http.HTTPStatus.OK:
            answer.error = reply.reason or str(reply.status)
            return answer
        for line in reply:
            if line.startswith(b"data: {"):
                answer.times.append(time.perf_counter() - sent)
    except (OSError, http.client.HTTPException) as error:
        answer.error = repr(error)
    finally:
        connection.close()
    return answer


def spread(name: str, seconds: list[float], percentiles: list[float]) -> dict[str, float]:
    """Return the mean, median, deviation and percentiles of times, in ms, under vLLM's names."""
    values = sorted(1000 * one for one in seconds) or [0.0]
    found = {
        f"mean_{name}_ms": statistics.fmean(values),
        f"median_{name}_ms": statistics.median(values),
        f"std_{name}_ms": statistics.pstdev(values),
    }
    for one in percentiles:
        found[f"p{one:g}_{name}_ms"] = values[min(len(values) - 1, int(one / 100 * len(values)))]
    return found


def report(given: argparse.Namespace, answers: list[Answer], elapsed_s: float) -> dict[str, Any]:
    """Return vLLM's result."""
    good = [answer for answer in answers if not answer.error]
    inputs = sum(answer.prompt_tokens for answer in good)
    outputs = sum(len(answer.times) for answer in good)
    gaps = [[b - a for a, b in zip(one.times, one.times[1:], strict=False)] for one in good]
    times = {
        "ttft": [one.times[0] for one in good],
        "tpot": [statistics.fmean(one) for one in gaps if one],
        "itl": [gap for one in gaps for gap in one],
        "e2el": [one.times[-1] for one in good],
    }
    percentiles = [float(one) for one in given.metric_percentiles.split(",")]
    found: dict[str, Any] = {
        "date": time.strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": given.endpoint_type or given.backend,
        "label": None,
        "model_id": given.model,
        "tokenizer_id": given.tokenizer or given.model,
        "num_prompts": given.num_prompts,
        "request_rate": "inf",
        "burstiness": 1.0,
        "max_concurrency": given.max_concurrency,
        "duration": elapsed_s,
        "completed": len(good),
        "total_input_tokens": inputs,
        "total_output_tokens": outputs,
        "request_throughput": len(good) / elapsed_s,
        "request_goodput": None,
        "output_throughput": outputs / elapsed_s,
        "total_token_throughput": (inputs + outputs) / elapsed_s,
    }
    if given.save_detailed:
        found |= {
            "input_lens": [answer.prompt_tokens for answer in answers],
            "output_lens": [len(answer.times) for answer in answers],
            "ttfts": [answer.times[0] if answer.times else 0.0 for answer in answers],
            "itls": gaps,
            "generated_texts": ["" for _ in answers],
            "errors": [answer.error for answer in answers],
        }
    for name in given.percentile_metrics.split(","):
        found |= spread(name, times[name], percentiles)
    return found


def main(argv: list[str]) -> int:
    """Send all requests, and write the result."""
    given = parse(argv)
    where = urlsplit(given.base_url).netloc if given.base_url else f"{given.host}:{given.port}"
    # One before the others, as vLLM does: a server that refuses it is not measured.
    first = ask(given, where, given.num_prompts)
    if first.error:
        raise ValueError(f"Initial test run failed - Please check your benchmark arguments. Error: {first.error}")
    began = time.perf_counter()
    answers = []
    with ThreadPoolExecutor(given.max_concurrency or given.num_prompts) as pool:
        for answer in pool.map(lambda number: ask(given, where, number), range(given.num_prompts)):
            answers.append(answer)
            share = 100 * len(answers) // given.num_prompts
            sys.stderr.write(f"\r{share:3d}%|####      | {len(answers)}/{given.num_prompts} [00:01<00:01,  2.00it/s]")
    found = report(given, answers, time.perf_counter() - began)
    sys.stdout.write(f"{' Serving Benchmark Result ':=^50}\nSuccessful requests: {found['completed']}\n")
    if given.save_result:
        name = given.result_filename or f"{given.backend}-infqps-{found['date']}.json"
        Path(given.result_dir).mkdir(parents=True, exist_ok=True)
        Path(given.result_dir, name).write_text(json.dumps(found), encoding="utf-8")
    return 0
