"""A stand-in for a training framework, not for our programs: `python3 -m ddp` or `mirrored` of the rig's images.

The launcher, its command line and the measuring protocol are the real ones of images/training and images/common. Only
what a framework would do is not done: a step sleeps, nothing is summed, and GPUs are those that NVML lists. Times are real
times. A step takes the seconds in the box's file `state/step_s` (read again before every step), else STEP_S.
A GPU that stops answering fails the run, as it does a real one.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cards import ARCHITECTURES, Nvml, gpu_count

from common import windows
from common.events import EventWriter, read_new
from common.outcome import say
from training import arch, launcher, machine, summary

if TYPE_CHECKING:
    from common.signals import Signals
    from training.params import Params
    from training.program import Program

STEP_S = 0.05
STEP_FILE = Path("/run/vaultcube-rig/state/step_s")
# What the programs of each workload say of frameworks; none is there.
FRAMEWORKS = {
    "ddp": ("torch", "torchvision", "cuda", "cudnn", "nccl"),
    "tensorflow": ("tensorflow", "keras", "cuda", "cudnn", "nccl"),
}


class Run:
    """One run, all its ranks in this process: takes the place of the launcher's own, which starts torchrun."""

    def __init__(self, program: Program, params: Params, events: Path, scratch: Path) -> None:  # noqa: ARG002 - as the real one
        self._program = program
        self._params = params
        self._path = events
        self._writers = [EventWriter(events, rank) for rank in range(params.ranks)]
        self._nvml = Nvml() if params.device == "cuda" else None
        self._done = 0
        self._due = 0.0
        self._worked_s = 0.0

    def go(self, signals: Signals) -> None:
        """Write what ranks that train would write.

        Raises:
            Problem: the run was interrupted, cannot run here, or lost a GPU.
        """
        self._signals = signals
        started, ranks = time.monotonic(), range(self._params.ranks)
        flavour = os.environ.get("VAULTCUBE_FLAVOUR", "")
        architectures = ARCHITECTURES.get(flavour, [])
        absent = dict.fromkeys(FRAMEWORKS[self._program.workload])
        self._writers[0].write("frameworks", versions=absent | {"stand-in": "1"})
        for rank in ranks:
            device = self._device(rank, architectures)
            if self._nvml:
                major, minor = (int(part) for part in device["compute_capability"].split("."))
                arch.check(device["name"], (major, minor), architectures, self._params.precision, flavour)
            self._writers[rank].write("device", **device)
        if self._program.workload == "tensorflow":
            self._prove_devices()
        for writer in self._writers:
            writer.write("allreduce", backend="stand-in", correct=True, mismatches=0, sizes_bytes=[], elapsed_s=0.0)
        for rank in ranks:
            self._measure(rank)
        self._measure(None)
        for writer in self._writers:
            elapsed_s = time.monotonic() - started
            writer.write("finished", elapsed_s=elapsed_s, loss=1.0, memory_peak_bytes=None)

    def table(self) -> list[str]:
        """Return the lines of the table of what was measured."""
        return summary.table(read_new(self._path, 0)[0], self._program.workload)

    def _prove_devices(self) -> None:
        """Say what TensorFlow's devices would have to prove."""
        kind = "GPU" if self._nvml else "CPU"
        found = self._nvml.count() if self._nvml else len(self._writers)
        names = [f"/physical_device:{kind}:{index}" for index in range(found)]
        self._writers[0].write("detection", wanted=len(self._writers), found=found, names=names)
        for rank, writer in enumerate(self._writers):
            placed = f"/job:localhost/replica:0/task:0/device:{kind}:{rank}"
            for name in ("matmul", "xla_matmul"):
                writer.write("operation", name=name, placed=placed, elements=1, mismatches=0)
            writer.write("allocation", growth=True, bytes=1, peak_bytes=None)

    def _device(self, rank: int, architectures: list[str]) -> dict[str, Any]:
        if self._nvml:
            found: dict[str, Any] = self._nvml.describe(rank, architectures)
            return found
        return {"device_index": rank, "name": "stand-in", "uuid": None, "compute_capability": None}

    def _measure(self, subject: int | None) -> None:
        """Warm up, then time the windows: of rank `subject` alone, or (None) of all ranks."""
        params = self._params
        measured = list(range(params.ranks)) if subject is None else [subject]
        speaker = self._writers[measured[0]]
        about = {"phase": "all" if subject is None else "solo", "subject_rank": subject}

        def step() -> None:
            self._signals.check()
            if self._nvml:
                for rank in measured:
                    self._nvml.touch(rank)
            # Against a schedule, and counted by it: steps are even however late a busy machine ends a sleep.
            seconds = step_s()
            self._due += seconds
            self._worked_s += seconds
            time.sleep(max(0.0, self._due - time.monotonic()))

        def sync() -> None:
            self._due = time.monotonic()

        def report(window: windows.Window) -> None:
            samples = window.steps * params.batch_size
            for rank in measured:
                self._writers[rank].write(
                    "window",
                    **about,
                    index=window.index,
                    steps=window.steps,
                    samples=samples,
                    elapsed_s=window.elapsed_s,
                )
            self._progress(speaker)

        speaker.write("phase", **about)
        least, most = params.warmup_steps, params.max_warmup_steps
        warmup = windows.warm_up(step, sync, min_steps=least, max_steps=most, clock=self._clock)
        speaker.write("warmup", **about, steps=warmup.steps, plateau=warmup.plateau, step_time_s=warmup.step_time_s)
        self._progress(speaker)
        count, steps_each = params.windows, params.steps_per_window
        windows.measure(step, sync, windows=count, steps=steps_each, report=report, clock=self._clock)

    def _clock(self) -> float:
        return self._worked_s

    def _progress(self, speaker: EventWriter) -> None:
        self._done += 1
        total = (self._params.ranks + 1) * (self._params.windows + 1)
        speaker.write("progress", done=self._done, total=total)
        say(f"[{self._done}/{total}] stand-in")


def step_s() -> float:
    """Return how long a step takes, in seconds."""
    try:
        return float(STEP_FILE.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return STEP_S


if __name__ == "__main__":
    machine.gpu_count = gpu_count
    launcher.Run = Run  # type: ignore[misc, assignment]
    sys.exit(launcher.main(sys.argv[1:], importlib.import_module(f"{__package__}.program").PROGRAM))
