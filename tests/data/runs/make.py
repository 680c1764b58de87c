"""Makes the recorded runs of this folder: `python tests/data/runs/make.py`.

Each is what the ddp program writes on four GPUs (256 samples a rank and step, 20 steps a window, 5 windows a phase),
good or spoilt in one way. The same bytes come out every time; tests/unit/results/test_recorded_runs.py checks that too.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

RANKS, BATCH, STEPS, WINDOWS = 4, 256, 20, 5
START = datetime(2026, 1, 1, 12, tzinfo=UTC)
# Windows of 4x RTX 5090: one alone, and the share of it that is left to each when all work.
ALONE_SAMPLES_PER_S, SHARE = 2000.0, 0.95


class Recorder:
    """Writes events the way four ranks and their launcher do, on one made-up clock."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.mono = 1000.0
        self._seq: dict[int, int] = {}
        self._dice = random.Random(5090)  # noqa: S311 - jitter, not secrecy

    def say(self, rank: int, kind: str, **fields: Any) -> None:
        """Write one event."""
        seq = self._seq.get(rank, 0)
        self._seq[rank] = seq + 1
        self.mono = round(self.mono + 0.001, 6)
        time = START + timedelta(seconds=self.mono - 1000)
        stamp = time.isoformat(timespec="microseconds").replace("+00:00", "Z")
        envelope = {"schema": 1, "seq": seq, "time": stamp, "mono": self.mono, "rank": rank, "kind": kind}
        self.lines.append(envelope | fields)

    def begin(self, *, mismatches: int = 0, world_size: int = RANKS) -> None:
        """Start, name the devices, and check the all-reduce."""
        params = {"model": "resnet50", "batch_size": BATCH, "windows": WINDOWS, "steps_per_window": STEPS}
        self.say(-1, "started", program="ddp", params=params, world_size=world_size, device="cuda", python="3.11.2")
        versions = {"torch": "2.8.0", "torchvision": "0.23.0", "cuda": "12.8", "cudnn": "9.10.2", "nccl": "2.27.3"}
        self.say(0, "frameworks", versions=versions)
        for rank in range(RANKS):
            self.say(
                rank,
                "device",
                device_index=rank,
                name="NVIDIA GeForce RTX 5090",
                uuid=f"GPU-0000000{rank}-aaaa-bbbb-cccc-{rank:012d}",
                compute_capability="12.0",
                memory_bytes=34190917632,
                architectures=["sm_90", "sm_100", "sm_120"],
            )
        for rank in range(RANKS):
            wrong = mismatches if rank == 1 else 0
            sizes = [4, 1048576, 67108864]
            self.say(
                rank,
                "allreduce",
                backend="nccl",
                correct=not wrong,
                mismatches=wrong,
                sizes_bytes=sizes,
                elapsed_s=0.21,
            )

    def phase(self, subject: int | None, samples_per_s: float, *, plateau: bool = True, windows: int = WINDOWS) -> None:
        """Measure one rank alone, or (None) all together at this rate each."""
        about = {"phase": "all" if subject is None else "solo", "subject_rank": subject}
        ranks = range(RANKS) if subject is None else (subject,)
        step_s = BATCH / samples_per_s
        self.say(ranks[0], "phase", **about)
        self.mono += 25 * step_s
        self.say(ranks[0], "warmup", **about, steps=25, plateau=plateau, step_time_s=round(step_s, 6))
        before = (RANKS if subject is None else subject) * (WINDOWS + 1)
        total = (RANKS + 1) * (WINDOWS + 1)
        self.say(ranks[0], "progress", done=before + 1, total=total)
        for index in range(windows):
            self.mono += STEPS * step_s * 1.02
            for rank in ranks:
                elapsed = STEPS * step_s * self._dice.uniform(0.995, 1.005)
                self.say(
                    rank,
                    "window",
                    **about,
                    index=index,
                    steps=STEPS,
                    samples=STEPS * BATCH,
                    elapsed_s=round(elapsed, 6),
                )
            self.say(ranks[0], "progress", done=before + 2 + index, total=total)

    def end(self, *, losses: tuple[float | None, ...] = (6.91, 6.9, 6.92, 6.89)) -> None:
        """Let every rank come to its end."""
        for rank, loss in enumerate(losses):
            elapsed = round(self.mono - 1000, 6)
            self.say(rank, "finished", elapsed_s=elapsed, loss=loss, memory_peak_bytes=21_000_000_000 + rank)

    def bytes(self) -> bytes:
        """Return the file."""
        return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in self.lines)


def whole(alone: float = ALONE_SAMPLES_PER_S, share: float = SHARE) -> Recorder:
    """Return a run from start to end, nothing wrong with it."""
    run = Recorder()
    run.begin()
    for rank in range(RANKS):
        run.phase(rank, alone)
    run.phase(None, alone * share)
    run.end()
    return run


def changed(change: Callable[[dict[str, Any]], None], *, rank: int, index: int) -> bytes:
    """Return a good run with one window of all ranks together changed."""
    run = whole()
    for line in run.lines:
        if (line["kind"], line.get("phase"), line["rank"], line.get("index")) == ("window", "all", rank, index):
            change(line)
    return run.bytes()


def throttled() -> bytes:
    """All ranks together lose a third of their clock; nothing in the events says so."""
    return whole(share=SHARE * 0.67).bytes()


def truncated() -> bytes:
    """The machine died in the middle of a line of the last phase."""
    text = whole().bytes()
    at = text.index(b'"kind":"window","phase":"all","subject_rank":null,"index":3')
    return text[:at]


def garbled() -> bytes:
    """Two writers' lines ran into each other, and a block of the file is zero."""
    lines = whole().bytes().split(b"\n")
    first, second = lines[20], lines[21]
    lines[20:22] = [first[:40] + second, first[40:]]
    lines[30] = b"\0" * len(lines[30])
    return b"\n".join(lines)


def wrong_allreduce() -> bytes:
    """The value check failed on one rank: the program stops there."""
    run = Recorder()
    run.begin(mismatches=3)
    step = "Run the check again with NCCL_P2P_DISABLE=1; if it passes, the path between the GPUs is at fault."
    for rank in range(RANKS):
        said = "the all-reduce summed 3 elements wrongly on rank 1"
        run.say(rank, "error", code="allreduce-mismatch", message=said, next_step=step, exit_code=70)
    return run.bytes()


def lost_rank() -> bytes:
    """Rank 2 was killed while all worked together: three windows came through."""
    run = Recorder()
    run.begin()
    for rank in range(RANKS):
        run.phase(rank, ALONE_SAMPLES_PER_S)
    run.phase(None, ALONE_SAMPLES_PER_S * SHARE, windows=3)
    said = "rank 2 was killed by SIGKILL"
    run.say(-1, "error", code="rank-failed", message=said, next_step="see the container's log", exit_code=70)
    return run.bytes()


def unfinished_rank() -> bytes:
    """Every window was timed, and rank 3 was gone before its end; a rank that does not exist spoke in its place."""
    run = whole()
    run.lines = [line for line in run.lines if (line["kind"], line["rank"]) != ("finished", 3)]
    run.say(7, "finished", elapsed_s=60.0, loss=6.9, memory_peak_bytes=None)
    return run.bytes()


def restless() -> bytes:
    """The step time never became flat."""
    run = Recorder()
    run.begin()
    for rank in range(RANKS):
        run.phase(rank, ALONE_SAMPLES_PER_S)
    run.phase(None, ALONE_SAMPLES_PER_S * SHARE, plateau=False)
    run.end()
    return run.bytes()


def not_finite() -> bytes:
    """The loss of one rank became NaN, which JSON says as null."""
    run = whole()
    run.lines = [line for line in run.lines if line["kind"] != "finished"]
    run._seq = {rank: max(line["seq"] for line in run.lines if line["rank"] == rank) + 1 for rank in range(RANKS)}
    run.end(losses=(6.91, None, 6.92, 6.89))
    return run.bytes()


def restarted() -> bytes:
    """The file of one run was continued by another."""
    return whole().bytes() + whole().bytes()


def other_world() -> bytes:
    """Fewer ranks started than were planned, and yet all of them report."""
    run = whole()
    run.lines[0]["world_size"] = 2
    return run.bytes()


CASES: dict[str, Callable[[], bytes]] = {
    "good": lambda: whole().bytes(),
    "slow": lambda: whole(alone=30, share=0.7).bytes(),
    "throttled": throttled,
    "truncated": truncated,
    "garbled": garbled,
    "wrong-allreduce": wrong_allreduce,
    "lost-rank": lost_rank,
    "unfinished-rank": unfinished_rank,
    "loss-not-finite": not_finite,
    "restless": restless,
    "contradictory-samples": lambda: changed(lambda line: line.update(samples=9999), rank=2, index=1),
    "contradictory-time": lambda: changed(lambda line: line.update(elapsed_s=600.0), rank=1, index=4),
    "contradictory-numbering": lambda: changed(lambda line: line.update(index=2), rank=0, index=3),
    "contradictory-restart": restarted,
    "contradictory-ranks": other_world,
}


def main() -> None:
    """Write every case."""
    for name, make in CASES.items():
        folder = Path(__file__).parent / name
        folder.mkdir(exist_ok=True)
        (folder / "events.jsonl").write_bytes(make())


if __name__ == "__main__":
    main()
