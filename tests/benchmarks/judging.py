"""What judging a soak costs: a day of four GPUs at 1 Hz, beside reading the same files and doing nothing with them."""

from __future__ import annotations

import json
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.unit.results.soakruns import Plant, Story, cards, read, write

from vaultcube.gpu.soaked import observe_soak, soak_checks
from vaultcube.gpu.telemetry import Telemetry
from vaultcube.results.judge import Measurement, judge
from vaultcube.results.soak import SoakTargets, measure_soak, read_soak

DAY_S = 86_400


@contextmanager
def day() -> Iterator[tuple[Callable[[], float], Callable[[], float]]]:
    """Give two measurements over a soak of a day, in seconds: judging it, and parsing its lines and averaging its power."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, Story(DAY_S, [Plant("flip", 2, 40_000), Plant("throttle", 1, 3600, 1200)]))
        gpus, targets = cards(), SoakTargets()

        def ours() -> float:
            begin = time.perf_counter()
            soak = read_soak(read(folder, gpus), gpus)
            told = measure_soak(soak, DAY_S, targets)
            with Telemetry.open(folder / "run.db") as telemetry:
                seen = observe_soak(gpus, telemetry, soak, targets)
            both = Measurement({**told.metrics, **seen.metrics}, {**told.missing, **seen.missing})
            judge(soak_checks(targets), both, device="cuda", simulated=False)
            elapsed = time.perf_counter() - begin
            found = {(one.check, one.gpu_index) for one in (*told.evidence, *seen.evidence)}
            if found != {("no_mismatch", 2), ("digests_agree", 2), ("throttling", 1)}:
                raise SystemExit(f"the judge found {found}")
            return elapsed

        def plain() -> float:
            begin = time.perf_counter()
            for file in folder.glob("*/events.jsonl"):
                for line in file.read_text().splitlines():
                    json.loads(line)
            with closing(sqlite3.connect(folder / "run.db")) as db:
                db.execute("SELECT avg(power_mw) FROM readings").fetchone()
            return time.perf_counter() - begin

        yield ours, plain
