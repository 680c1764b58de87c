"""What recording telemetry costs: CPU time, memory, bytes, and the time to read it back. Over the simulated 4x5090.

The mock answers at once, so that what is measured is the asking; a real driver's own time comes on top for everybody.
"""

from __future__ import annotations

import os
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.rig.box import Box
from tests.unit.gpu.recording import BEGIN, BUSY, infos, writing

from vaultcube.gpu.telemetry import Telemetry

# What nvidia-smi can tell of what a reading holds.
QUERY = (
    "index,uuid,temperature.gpu,power.draw,clocks.sm,clocks.mem,utilization.gpu,utilization.memory,memory.used,"
    "fan.speed,pstate,pcie.link.gen.current,pcie.link.width.current,clocks_event_reasons.active"
)
NVITOP = """
import nvitop
collector = nvitop.ResourceMetricCollector(nvitop.Device.all(), interval=1.0)
thread = collector.daemonize(on_collect=lambda metrics: True, interval=1.0)
print("recording", flush=True)
thread.join()
"""
DAY_S, GPUS = 86_400, 4
SHARES = dict[str, list[float]]


def cost(windows: int, seconds: int = 10) -> tuple[SHARES, dict[str, float]]:
    """Run the recorder, a loop of nvidia-smi and nvitop's collector side by side over one box, each once a second.

    Returns:
        CPU time of each window as a share of one core, and the most memory (MB) each held.
    """
    with tempfile.TemporaryDirectory() as folder:
        box = Box(Path(folder) / "box")
        box.load()
        env = {**os.environ, **box.env()}
        recorder = [sys.executable, "-P", "-m", "vaultcube.gpu.recorder", "--db", f"{folder}/run.db"]
        with started(recorder, env) as ours, started([sys.executable, "-c", NVITOP], env) as nvitop:
            counters: dict[str, Callable[[], float]] = {
                "recorder": lambda: cpu_of(ours),
                "nvidia-smi": cpu_of_children,
                "nvitop": lambda: cpu_of(nvitop),
            }
            smi = [str(box.path / "bin" / "nvidia-smi"), f"--query-gpu={QUERY}", "--format=csv"]
            shares: SHARES = {name: [] for name in counters}
            # One window for all to settle.
            for window in range(windows + 1):
                before = {name: count() for name, count in counters.items()}
                begin = time.monotonic()
                for second in range(seconds):
                    subprocess.run(smi, env=env, stdout=subprocess.DEVNULL, check=True)
                    time.sleep(max(begin + second + 1 - time.monotonic(), 0))
                elapsed = time.monotonic() - begin
                for name, count in counters.items():
                    if window:
                        shares[name].append((count() - before[name]) / elapsed)
            memory = {"recorder": peak_of(ours), "nvitop": peak_of(nvitop)}
    memory["nvidia-smi"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    return shares, memory


@contextmanager
def started(argv: list[str], env: dict[str, str]) -> Iterator[int]:
    """Run a program that says when it begins; give its process id."""
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def cpu_of(pid: int) -> float:
    """Return the CPU seconds that a process has used, to the nanosecond, of all its threads."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def cpu_of_children() -> float:
    """Return the CPU seconds of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def peak_of(pid: int) -> float:
    """Return the most memory that a process held, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def record(path: Path, ticks: int) -> None:
    """Write readings of four busy GPUs, with values that waver as real ones do."""
    waver = random.Random(1)  # noqa: S311 - figures, no secrets
    counted = [[812_345_678, 10**15, 0] for _ in range(GPUS)]
    with writing(path, infos(GPUS), end_ms=ticks * 1000) as writer:
        for tick in range(ticks):
            for gpu, counters in enumerate(counted):
                power = 556_000 + waver.randint(-9000, 9000)
                counters[0] += power
                counters[1] += waver.randint(6, 10) * 10**8 + waver.randint(0, 10**6)
                counters[2] += waver.random() < 0.01
                reading = BUSY._replace(
                    temperature_c=71 + waver.randint(-2, 2),
                    temperature_margin_c=19 + waver.randint(-2, 2),
                    power_mw=power,
                    energy_mj=counters[0],
                    sm_clock_mhz=2580 + waver.randint(-90, 90),
                    utilisation_percent=waver.randint(90, 100),
                    memory_utilisation_percent=waver.randint(40, 60),
                    memory_used_bytes=(30 << 30) + waver.randint(0, 1 << 30),
                    fan_percent=62 + waver.randint(-1, 1),
                    clock_events=4,
                    power_cap_ns=counters[1],
                    pcie_replays=counters[2],
                )
                writer.reading(gpu, BEGIN + tick * 1000 + gpu, reading)
            if not tick % 60:
                writer.commit()


def size_of_a_day() -> int:
    """Return the bytes of 24 hours of four GPUs at 1 Hz."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.db"
        record(path, DAY_S)
        return path.stat().st_size


@contextmanager
def recorded(samples: int) -> Iterator[tuple[Callable[[], float], Callable[[], float]]]:
    """Give two measurements over so many samples, in seconds: summarising every GPU, and one plain average."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.db"
        record(path, samples // GPUS)

        def ours() -> float:
            begin = time.perf_counter()
            with Telemetry.open(path) as telemetry:
                for gpu in telemetry.meta.gpus:
                    telemetry.summarise(gpu.uuid)
            return time.perf_counter() - begin

        def plain() -> float:
            begin = time.perf_counter()
            db = sqlite3.connect(path)
            db.execute("SELECT avg(power_mw) FROM readings").fetchone()
            db.close()
            return time.perf_counter() - begin

        yield ours, plain
