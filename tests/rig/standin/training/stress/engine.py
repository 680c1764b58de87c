"""In place of `stress.engine`: the loads of a simulated card. Everything above them is the real worker.

A result is a few words, computed and compared as the real ones are, at an even pace. A card that is lost in the box fails as
a real one does. Faults come from STRESS_FAULT, which the worker tells of, and from the box's file `state/stress_fault`,
which nobody is told of: lines of `UUID FAULT`, read again before every batch.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cards import ARCHITECTURES, Nvml
from stress import digest, fault
from stress.session import Wrong

from common.outcome import Problem
from training import arch, machine

if TYPE_CHECKING:
    from stress.fault import Fault
    from stress.params import Params

FAULTS = Path("/run/vaultcube-rig/state/stress_fault")
EACH_S = 0.02
WORDS = 64
SLOTS = 32
_FLIPPED = 1 << 33
_SETTLING = -1
"""The iteration of the result that others are held against, as in stress.loads."""


class Simulated:
    """The card that the container was given, or the CPU.

    Attributes:
        about: the fields of its `device` event.
    """

    def __init__(self, params: Params) -> None:
        """Find it. Raises Problem when it does not answer, or the image has nothing for it."""
        self._nvml = Nvml() if params.device == "cuda" else None
        self.about: dict[str, Any] = {"device_index": 0, "name": machine.cpu_name(), "uuid": None}
        if self._nvml:
            flavour = os.environ.get("VAULTCUBE_FLAVOUR", "")
            self.about = self._nvml.describe(0, ARCHITECTURES.get(flavour, []))
            major, minor = (int(part) for part in self.about["compute_capability"].split("."))
            arch.check(self.about["name"], (major, minor), self.about["architectures"], "fp32", flavour)

    def touch(self) -> None:
        """Fail as CUDA does when the card is gone."""
        if not self._nvml:
            return
        try:
            self._nvml.touch(0)
        except Problem as problem:
            raise RuntimeError(f"CUDA error: unspecified launch failure ({problem})") from problem

    def fault(self) -> Fault | None:
        """Return what the box breaks on this card."""
        try:
            lines = FAULTS.read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        found = (line.split() for line in lines)
        return next((fault.parse(words[1]) for words in found if words[:1] == [self.about["uuid"]]), None)


def select(params: Params) -> Simulated:
    """Return the device. Raises the Problem of `Simulated`."""
    return Simulated(params)


class Device:
    """What makes the loads."""

    def __init__(self, params: Params, device: Simulated, told: Fault | None) -> None:
        self._params = params
        self._device = device
        self._told = told

    def reference(self, phase: str) -> tuple[int, int]:  # noqa: ARG002 - as the real one
        """Compare nothing with the CPU: there is no other."""
        self._device.touch()
        return WORDS, 0

    def load(self, phase: str) -> Load:
        """Return the load of a phase."""
        return Load(self._device, phase, self._params.seed, self._told)


class Load:
    """See stress.session.Load."""

    def __init__(self, device: Simulated, phase: str, seed: int, told: Fault | None) -> None:
        self.key = f"{phase}/{WORDS}/{seed}"
        self.unit = "bytes" if phase in {"memory", "transfer"} else "flop"
        self.work = 10**9
        self.capacity = SLOTS
        self._device = device
        self._phase = phase
        self._factor = digest.weight(seed + len(phase)) * digest.GOLDEN
        self._told = told
        self._expected: list[int] = []
        self._results: list[list[int]] = []

    def settle(self) -> None:
        """Make the result that all others are held against."""
        self._device.touch()
        self._expected = self._once(_SETTLING, self._device.fault())

    def run(self, first: int, count: int) -> list[int]:
        """Do some iterations; return the positions of wrong results."""
        due, secret = time.monotonic(), self._device.fault()
        self._results = []
        for iteration in range(first, first + count):
            due += EACH_S
            self._device.touch()
            self._break(secret, iteration)
            self._results.append(self._once(iteration, secret))
            time.sleep(max(0.0, due - time.monotonic()))
        return [place for place, result in enumerate(self._results) if result != self._expected]

    def examine(self, position: int) -> Wrong:
        """Return what is wrong at a position of the last run."""
        found = self._results[position]
        places = [place for place in range(WORDS) if found[place] != self._expected[place]]
        words = [f"0x{digest.hexadecimal(values[places[0]])}" for values in (self._expected, found)]
        return Wrong(len(places), places[:1], *words)

    def digest(self, position: int) -> int:
        """Return the digest of the result at a position of the last run."""
        return int(digest.digest(self._results[position]))

    def _once(self, iteration: int, secret: Fault | None) -> list[int]:
        result = [self._factor * (place + 1) & digest.MASK for place in range(WORDS)]
        for one in (self._told, secret):
            if one and one.hits("flip", self._phase, iteration):
                result[WORDS // 2] ^= _FLIPPED
        return result

    def _break(self, secret: Fault | None, iteration: int) -> None:
        if secret and secret.hits("fail", self._phase, iteration):
            raise RuntimeError("CUDA error: the box breaks it")
        while secret and secret.hits("hang", self._phase, iteration):
            time.sleep(1)
