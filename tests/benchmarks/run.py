"""`make bench`: what Vault Cube costs beside the plain tool, as ratios of one run on one machine.

Every pair is measured in turns (A, B, A, B, ...), so that a machine that grows slower slows both. Medians are compared;
the spread is the half distance between the quartiles. Nothing here asserts: it prints a Markdown table, and with
`--write FILE` puts it between the markers of that file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Run as a script: its own folder is on the path, and the checkout is not.
sys.path.insert(0, str(ROOT))
HERE = Path(__file__).resolve().parent
IMAGE = "vaultcube/pytorch:cu124"
VAULTCUBE = str(Path(sys.executable).with_name("vaultcube"))
BEGIN, END = "<!-- begin: make bench -->", "<!-- end: make bench -->"
WARMUP, WINDOWS, STEPS = 8, 5, 6
Row = tuple[str, str, str, str, str]


from tests.benchmarks import judging, serving, telemetry  # noqa: E402 - found by the line above
from tests.rig.box import Box  # noqa: E402 - likewise


def call(*argv: str, env: dict[str, str] | None = None) -> str:
    """Run a command, which must succeed, and return its stdout."""
    seen = subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=600, env={**os.environ, **(env or {})}
    )
    if seen.returncode:
        raise SystemExit(f"{' '.join(argv)}: exit {seen.returncode}\n{seen.stderr}")
    return seen.stdout


def seconds(*argv: str, env: dict[str, str] | None = None) -> Callable[[], float]:
    """Return a measurement: the wall time of a command."""

    def measure() -> float:
        start = time.perf_counter()
        call(*argv, env=env)
        return time.perf_counter() - start

    return measure


def in_turns(count: int, *measures: Callable[[], float]) -> list[list[float]]:
    """Return `count` values of each measurement, taken in turns after one unrecorded round."""
    for measure in measures:
        measure()
    rounds = [[measure() for measure in measures] for _ in range(count)]
    return [list(values) for values in zip(*rounds, strict=True)]


def told(values: Sequence[float], unit: str, scale: float = 1.0, digits: int = 1) -> str:
    """Return `median ± half the interquartile range`."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle * scale:.{digits}f} ± {(high - low) / 2 * scale:.{digits}f} {unit}"


def quick_verbs(count: int) -> list[Row]:
    """Compare `--version` and `ps` with the imports and the docker command they cannot do without."""
    python = sys.executable
    ours, plain = in_turns(count, seconds(VAULTCUBE, "--version"), seconds(python, "-c", "import typer"))
    rows = [row("`vaultcube --version`", "`import typer`", ours, plain, "1.3x")]
    imports, listing = seconds(python, "-c", "import typer, pydantic"), seconds("docker", "compose", "ls")
    ours, plain = in_turns(count, seconds(VAULTCUBE, "ps"), lambda: imports() + listing())
    return [*rows, row("`vaultcube ps`", "`import typer, pydantic` + `docker compose ls`", ours, plain, "1.5x")]


def inventory(count: int) -> list[Row]:
    """Compare `gpus` over the simulated 4x5090 with importing and initialising nvidia-ml-py over the same one."""
    beside, found = "`import pynvml; nvmlInit()`", []
    with tempfile.TemporaryDirectory() as folder:
        # An installed vaultcube has its bytecode beside it; the first, unrecorded round writes that of a checkout.
        env = {**Box(Path(folder) / "box").env(), "PYTHONDONTWRITEBYTECODE": ""}
        plain = seconds(sys.executable, "-c", "import pynvml; pynvml.nvmlInit()", env=env)
        verbs = {"`vaultcube gpus`": [], "`vaultcube gpus --json`": ["--json"]}
        measures = [seconds(VAULTCUBE, "gpus", *words, env=env) for words in verbs.values()]
        for there in ("", ", a container running"):
            # What holds GPUs is told by a second question, when there is a container to ask about.
            run = ["docker", "run", "--detach", "--rm", "--network", "none", "--entrypoint", "sleep", IMAGE, "600"]
            container = call(*run).strip() if there else ""
            try:
                *ours, other = in_turns(count, *measures, plain)
            finally:
                if container:
                    call("docker", "rm", "--force", container)
            found += [row(name + there, beside, times, other, "1.5x") for name, times in zip(verbs, ours, strict=True)]
    return found


def row(name: str, beside: str, ours: Sequence[float], plain: Sequence[float], bound: str) -> Row:
    """Return a row of the table: times in ms and their ratio."""
    ratio = statistics.median(ours) / statistics.median(plain)
    return name, beside, f"{told(ours, 'ms', 1000)} / {told(plain, 'ms', 1000)}", f"{ratio:.2f}x", bound


def started_at(container: str, start: float) -> float:
    """Return the seconds from `start` (epoch) to the start of a container, by the engine's own record."""
    text = call("docker", "inspect", "--format", "{{.State.StartedAt}}", container).strip()
    whole, _, fraction = text.rstrip("Z").partition(".")
    moment = datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp() + float(f"0.{fraction or 0}")
    return moment - start


def first_start_in(folder: str, events: subprocess.Popen[str]) -> str:
    """Return the id of the first container that starts for a run kept in a folder. Costs nothing while it waits."""
    assert events.stdout is not None
    for line in events.stdout:
        container, _, where = line.strip().partition(" ")
        if where.startswith(folder):
            return container
    raise SystemExit("docker events ended")


def start_of_a_run(count: int) -> list[Row]:
    """Compare the time to a started container: `vaultcube bench ddp`, and `docker compose up` of the same files."""
    with tempfile.TemporaryDirectory() as folder:
        dry = [VAULTCUBE, "bench", "ddp", "--gpus", "none", "--results-dir", folder]
        document = json.loads(call(*dry, "--dry-run", "--json"))
        directory = Path(folder) / document["plan"]["run_id"]
        (directory / "results").mkdir(parents=True, mode=0o777)
        (directory / "compose.override.yml").write_text(document["override"])
        argv, project = document["command"], document["plan"]["run_id"]

        def raw() -> float:
            time.sleep(0.5)
            start = time.time()
            call(*argv)
            elapsed = started_at(
                call("docker", "ps", "-q", "--filter", f"label=io.vaultcube.run={project}").strip(), start
            )
            call("docker", "compose", "-p", project, "down", "--timeout", "0")
            return elapsed

        def files() -> float:
            time.sleep(0.5)
            start = time.time()
            named = ["--file", str(ROOT / "compose/ddp.yml"), "--file", str(ROOT / "compose/ddp.cpu.yml")]
            compose = ["docker", "compose", "--project-name", "vaultcube-bench", *named]
            call(*compose, "up", "--detach", env={"VAULTCUBE_RESULTS_DIR": folder})
            elapsed = started_at(call(*compose, "ps", "--quiet", "ddp").strip(), start)
            call(*compose, "down", "--timeout", "0")
            return elapsed

        def ours() -> float:
            watch = ["docker", "events", "--filter", "event=start", "--filter", "label=io.vaultcube.run"]
            shape = '{{.ID}} {{index .Actor.Attributes "io.vaultcube.run-dir"}}'
            with subprocess.Popen([*watch, "--format", shape], stdout=subprocess.PIPE, text=True) as events:
                time.sleep(0.5)
                start = time.time()
                child = subprocess.Popen(dry, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                found = first_start_in(folder, events)
                events.terminate()
            elapsed = started_at(found, start)
            call("docker", "kill", found)
            child.wait(120)
            return elapsed

        mine, plain, same = in_turns(count, ours, files, raw)
    rows = []
    for beside, times in (
        ("`docker compose up` of compose/ddp.yml", plain),
        ("`docker compose up` with the run's override", same),
    ):
        extra = (statistics.median(mine) - statistics.median(times)) * 1000
        cells = row("start of `vaultcube bench ddp`", beside, mine, times, "1.05x or +150 ms")
        rows.append((*cells[:3], f"{cells[3]} ({extra:+.0f} ms)", cells[4]))
    return rows


# What trains bare, each beside the workload that does the same steps: image, script, and how it is started.
BARE = {
    "ddp": (IMAGE, "bare_ddp.py", ["python3", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]),
    "tensorflow": ("vaultcube/tensorflow:cu124", "bare_tensorflow.py", ["python3"]),
}


def training(workload: str, count: int) -> list[Row]:
    """Compare the throughput that our training program measures with that of a bare script doing the same steps."""
    image, script, start = BARE[workload]
    common = ["docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp:exec", "--shm-size", "1g"]
    common += ["--env", "OMP_NUM_THREADS=1", "--env", "GLOO_SOCKET_IFNAME=lo"]
    common += ["--volume", f"{HERE / script}:/{script}:ro", image, *start, f"/{script}"]

    def bare() -> float:
        out = call(*common, *map(str, (WARMUP, WINDOWS, STEPS)))
        return float(re.findall(r"samples/s ([\d.]+)", out)[0])

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            sizes = ["--windows", str(WINDOWS), "--steps-per-window", str(STEPS)]
            sizes += ["--warmup-steps", str(WARMUP), "--max-warmup-steps", str(WARMUP)]
            bench = [VAULTCUBE, "bench", workload, "--gpus", "none", "--json", "--results-dir", folder, "--ranks", "2"]
            found = json.loads(call(*bench, *sizes))
        return float(found["metrics"]["throughput_samples_per_s"]["value"])

    mine, plain = in_turns(count, ours, bare)
    ratio = statistics.median(mine) / statistics.median(plain)
    values = f"{told(mine, 'samples/s')} / {told(plain, 'samples/s')}"
    beside = "bare torchrun script" if workload == "ddp" else "bare TensorFlow script"
    return [(f"throughput of `{workload}`, 2 ranks on the CPU", beside, values, f"{ratio:.3f}x", "0.98x to 1.02x")]


def checking(count: int) -> list[Row]:
    """Compare products whose results are all checked, as a soak does, with the same products bare."""
    mount = ["--volume", f"{HERE / 'bare_matmul.py'}:/bare_matmul.py:ro"]
    argv = ["docker", "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", *mount, IMAGE]
    out = call(*argv, "python3", "/bare_matmul.py", str(count * 25), "0.2")
    rounds = [[float(word) for word in line.split()] for line in out.splitlines()]
    mine, plain = zip(*rounds, strict=True)
    # Of the two halves of each round: a machine that grows slower slows both.
    ratio = statistics.median(checked / bare for checked, bare in rounds)
    values = f"{told(mine, 'GFLOP/s', 1000)} / {told(plain, 'GFLOP/s', 1000)}"
    name = "products of `stress`, every result checked, on the CPU"
    cost = f"{ratio:.3f}x ({(1 - ratio) * 100:.1f} % of the FLOP)"
    return [(name, "the same products bare", values, cost, "at least 0.95x")]


def recording(count: int) -> list[Row]:
    """Compare the recorder with a loop of nvidia-smi and with nvitop, and its file with what SQLite needs at least."""
    shares, memory = telemetry.cost(count)
    ours = shares["recorder"]
    found: list[Row] = []
    for name, beside in (("nvidia-smi", "a loop of `nvidia-smi --query-gpu`"), ("nvitop", "nvitop's collector")):
        values = f"{told(ours, '%', 100, 2)} / {told(shares[name], '%', 100, 2)} of a core"
        ratio = statistics.median(ours) / statistics.median(shares[name])
        found.append(("recording 4 GPUs at 1 Hz: CPU", beside, values, f"{ratio:.2f}x", "0.5 % of a core"))
    mine, others = memory["recorder"], memory["nvitop"]
    found.append(
        ("its memory", "nvitop's collector", f"{mine:.1f} / {others:.1f} MB", f"{mine / others:.2f}x", "40 MB")
    )
    size = telemetry.size_of_a_day() / 1e6
    found.append(("24 h of 4 GPUs at 1 Hz on disk", "-", f"{size:.1f} MB", "-", "25 MB"))
    with telemetry.recorded(100_000) as (summarise, average):
        ours, plain = in_turns(max(count, 4), summarise, average)
    cells = row("100 000 samples summarised", "`SELECT avg(power_mw)` of the same rows", ours, plain, "1 s")
    return [*found, cells]


def soak(count: int) -> list[Row]:
    """Compare judging a soak of a day with parsing the same lines and averaging one column."""
    with judging.day() as (ours, plain):
        mine, other = in_turns(count, ours, plain)
    return [row("a soak of 24 h, 4 GPUs, judged", "`json.loads` of its lines, one `SELECT avg`", mine, other, "3 s")]


def server(count: int) -> list[Row]:
    """Compare the start of a server, and its measurement, with vLLM and its own tool called by hand."""
    ours, plain = in_turns(count, serving.our_start, serving.bare_start)
    extra = statistics.median(ours) - statistics.median(plain)
    values = f"{told(ours, 's')} / {told(plain, 's')}"
    ratio = f"{statistics.median(ours) / statistics.median(plain):.2f}x ({extra:+.1f} s)"
    rows = [("first token of `vaultcube up vllm`", "`vllm serve` in the same image", values, ratio, "1.05x or +2 s")]
    with serving.loads() as (mine, by_hand):
        mine(), by_hand()
        rounds = [(mine(), by_hand()) for _ in range(count)]
    for name in rounds[0][0]:
        unit, scale = ("tokens/s", 1.0) if name == "tokens/s" else ("ms", 1000.0)
        ours, plain = [one[0][name] for one in rounds], [one[1][name] for one in rounds]
        ratio = f"{statistics.median(ours) / statistics.median(plain):.2f}x"
        values = f"{told(ours, unit, scale)} / {told(plain, unit, scale)}"
        rows.append((f"`bench vllm`: {name}", "`vllm bench serve`", values, ratio, "the spread of the right"))
    return rows


def machine() -> str:
    """Return one line about this machine and the versions."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "",
    )
    engine = call("docker", "version", "--format", "{{.Server.Version}}").strip()
    compose = call("docker", "compose", "version", "--short").strip()
    return f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({cpu or platform.machine()}), Python {platform.python_version()}, engine {engine}, compose {compose}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="put the table between the markers of this file")
    parser.add_argument("--count", type=int, default=15, help="rounds of the quick comparisons")
    parser.add_argument("--slow-count", type=int, default=4, help="rounds of the throughput comparison")
    parser.add_argument("--only", type=int, choices=range(1, 10), help="measure one part (of nine), and print it")
    args = parser.parse_args()
    if args.only is not None and args.write:
        parser.error("--write wants the whole table")
    rows: list[Row] = [("what", "beside", "median ± spread", "ratio", "bound"), ("---",) * 5]
    parts: list[Callable[[], list[Row]]] = [
        lambda: quick_verbs(args.count),
        lambda: inventory(args.count),
        lambda: start_of_a_run(max(args.count // 2, 4)),
        lambda: recording(max(args.slow_count, 3)),
        lambda: training("ddp", args.slow_count),
        lambda: server(max(args.slow_count, 3)),
        lambda: training("tensorflow", args.slow_count),
        lambda: soak(max(args.slow_count, 4)),
        lambda: checking(max(args.slow_count, 4)),
    ]
    if args.only is not None:
        parts = parts[args.only - 1 : args.only]
    for part in parts:
        rows += (found := part())
        print(*(f"{line[0]}: {line[3]} (bound {line[4]})" for line in found), sep="\n", file=sys.stderr, flush=True)
    text = f"{machine()}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    print(text)
    if args.write:
        page = args.write.read_text()
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        args.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
