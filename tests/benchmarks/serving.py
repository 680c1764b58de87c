"""What `up` and `bench vllm` cost beside vLLM called by hand: the same image, model, limits and flags, on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

IMAGE = "vaultcube/vllm:cpu"
VAULTCUBE = str(Path(sys.executable).with_name("vaultcube"))
# Where the tiny model is in the volume, once `up` has made it.
TINY = "/cache/tiny/v1"
CACHE = "vaultcube-models" if os.getuid() in {0, 10001} else f"vaultcube-models-{os.getuid()}"
USER = "10001:10001" if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}"
CONFINED = ["--init", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", USER]
CONFINED += ["--tmpfs", "/tmp:mode=1777,size=4g,exec", "--shm-size", "1g", "--volume", f"{CACHE}:/cache"]
INPUT, OUTPUT, STREAMS, REQUESTS = 64, 32, 4, 40
POLL_S = 0.05
LIMIT_S = 600.0


def call(*argv: str) -> str:
    """Run a command, which must succeed, and return its stdout."""
    seen = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    if seen.returncode:
        raise SystemExit(f"{' '.join(argv)}: exit {seen.returncode}\n{seen.stderr}")
    return seen.stdout


def first_token(port: int) -> bool:
    """Ask for one token, and say whether it came."""
    body = json.dumps({"model": "tiny", "prompt": "a", "max_tokens": 1}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - likewise
            return bool(json.load(answer)["choices"])
    except (OSError, urllib.error.URLError, ValueError):
        return False


def bare_start() -> float:
    """Return the seconds from `docker run ... vllm serve` to its first token."""
    name, port = f"bare-vllm-{os.getpid()}", 8790
    start = time.perf_counter()
    command = ["vllm", "serve", TINY, "--served-model-name", "tiny", "--host", "0.0.0.0"]  # noqa: S104 - published on loopback
    publish = ["--publish", f"127.0.0.1:{port}:8000", "--env", "VLLM_CPU_KVCACHE_SPACE=1"]
    call("docker", "run", "--detach", "--rm", "--name", name, *CONFINED, *publish, IMAGE, *command)
    try:
        while not first_token(port):
            if time.perf_counter() - start > LIMIT_S:
                raise SystemExit("vllm serve did not answer")
            time.sleep(POLL_S)
        return time.perf_counter() - start
    finally:
        call("docker", "stop", "--time", "20", name)


@contextmanager
def instance(folder: str) -> Iterator[dict[str, str]]:
    """Run `up vllm`, and stop it in the end."""
    record = json.loads(call(VAULTCUBE, "up", "vllm", "--gpus", "none", "--json", "--results-dir", folder))
    try:
        yield record
    finally:
        call(VAULTCUBE, "down", record["name"], "--results-dir", folder)


def our_start() -> float:
    """Return the seconds that `vaultcube up vllm` takes; it returns after the first token."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with instance(folder):
            return time.perf_counter() - start


Figures = dict[str, float]


@contextmanager
def loads() -> Iterator[tuple[Callable[[], Figures], Callable[[], Figures]]]:
    """Give two measurements of one running server: ours, and the tool called by hand with the same flags."""
    with tempfile.TemporaryDirectory() as folder, instance(folder) as record:
        sizes = ["--input-len", str(INPUT), "--output-len", str(OUTPUT), "--concurrency", str(STREAMS)]
        sizes += ["--requests", str(REQUESTS // STREAMS), "--min-seconds", "0"]

        def ours() -> Figures:
            argv = [VAULTCUBE, "bench", "vllm", "--instance", record["name"], "--json", "--results-dir", folder]
            metrics = json.loads(call(*argv, *sizes))["metrics"]
            named = {"tokens/s": f"output_tokens_per_s_c{STREAMS}"}
            named |= {f"{name} {p}": f"{name}_{p}_s_c{STREAMS}" for name in ("ttft", "tpot") for p in ("p50", "p99")}
            return {name: float(metrics[key]["value"]) for name, key in named.items()}

        def by_hand() -> Figures:
            seed = str(time.monotonic_ns() % 2**31)
            tool = ["vllm", "bench", "serve", "--backend", "openai", "--base-url", "http://vllm:8000"]
            tool += [
                "--endpoint",
                "/v1/completions",
                "--model",
                "tiny",
                "--tokenizer",
                TINY,
                "--dataset-name",
                "random",
            ]
            tool += [
                "--random-input-len",
                str(INPUT),
                "--random-output-len",
                str(OUTPUT),
                "--random-range-ratio",
                "0.0",
            ]
            tool += ["--num-prompts", str(REQUESTS), "--max-concurrency", str(STREAMS), "--request-rate", "inf"]
            tool += ["--seed", seed, "--ignore-eos", "--temperature", "0", "--percentile-metrics", "ttft,tpot,itl,e2el"]
            tool += ["--metric-percentiles", "50,90,99", "--save-result", "--result-filename", "/tmp/result.json"]
            script = f"{' '.join(tool)} >&2 && cat /tmp/result.json"
            network = ["--network", f"{record['run']}_default"]
            seen = json.loads(call("docker", "run", "--rm", *CONFINED, *network, IMAGE, "sh", "-c", script))
            found = {"tokens/s": float(seen["output_throughput"])}
            return found | {
                f"{name} {p}": float(seen[f"{p}_{name}_ms"]) / 1000 for name in ("ttft", "tpot") for p in ("p50", "p99")
            }

        yield ours, by_hand
