"""A box's files: its scenario, read, changed and replaced under a lock, and its kernel log."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.rig import host, profiles
from tests.rig.build import build
from tests.rig.scenario import Scenario, parse

# Kernel log priorities as /dev/kmsg writes them: facility 0 and the level.
ERROR, WARNING, INFO = 3, 4, 6
BOOT_US = 5_000_000


class Store:
    """The directory of one simulated box. It holds no state but its files, so any process may change a box.

    Attributes:
        path: the directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def scenario_path(self) -> Path:
        """Where the mock reads."""
        return self.path / "state" / "scenario.ini"

    @property
    def kmsg_path(self) -> Path:
        """The simulated kernel log."""
        return self.path / "state" / "kmsg"

    @property
    def profile(self) -> str:
        """The profile that the box was made from."""
        return (self.path / "profile").read_text().strip()

    @property
    def layout(self) -> profiles.Layout:
        """The layout of that profile."""
        return profiles.LAYOUTS[self.profile]

    def create(self, profile: str, *, jitter: bool) -> None:
        """Make the box, or make it new.

        Raises:
            ValueError: there is no such profile.
            RuntimeError: the mock cannot be compiled.
        """
        scenario = profiles.scenario(profile)
        built = build()
        for folder in ("lib", "bin", "state", "host"):
            (self.path / folder).mkdir(parents=True, exist_ok=True)
        _install(built.library, self.path / "lib" / built.library.name)
        _install(built.smi, self.path / "bin" / built.smi.name)
        (self.path / "profile").write_text(profile + "\n")
        now = time.monotonic_ns()
        scenario.set(jitter=int(jitter), epoch_ns=now)
        for gpu in scenario.gpus:
            gpu.values["counters_at_ns"] = now
        host.write(self.path / "host", self.layout, scenario)
        self.kmsg_path.write_text("")
        self._append(host.boot_lines(self.layout), INFO, min(BOOT_US, now // 1000))
        self._replace(scenario)

    def read(self) -> Scenario:
        """Return the scenario as it is.

        Raises:
            ValueError: someone broke it.
        """
        return parse(self.scenario_path.read_text())

    @contextmanager
    def edit(self) -> Iterator[Scenario]:
        """Yield the scenario with its counters at this moment; at the end it replaces the file in one step.

        Raises:
            ValueError: the mock would refuse what it has become; the file stays as it was.
        """
        with self._lock():
            scenario = self.read()
            now = time.monotonic_ns()
            for gpu in scenario.gpus:
                gpu.grow(now)
            yield scenario
            self._replace(scenario)

    def log(self, lines: Sequence[str], priority: int = INFO) -> None:
        """Append lines to the kernel log, each a record; lines that begin with a space belong to the one before."""
        with self._lock():
            self._append(lines, priority, time.monotonic_ns() // 1000)

    def _append(self, lines: Sequence[str], priority: int, microseconds: int) -> None:
        records = [line for line in self.kmsg_path.read_text().splitlines() if not line.startswith(" ")]
        sequence = int(records[-1].split(",")[1]) + 1 if records else 0
        text = ""
        for line in lines:
            if line.startswith(" "):
                text += f"{line}\n"
            else:
                # The kernel writes what would break its records so.
                escaped = line.replace("\\", "\\x5c").replace("\n", "\\x0a")
                text += f"{priority},{sequence},{microseconds},-;{escaped}\n"
                sequence += 1
        with self.kmsg_path.open("a") as log:
            log.write(text)

    def _replace(self, scenario: Scenario) -> None:
        text = scenario.render()
        parse(text)  # what the mock would refuse in silence is refused here, aloud
        fresh = self.scenario_path.with_name(f".scenario.{os.getpid()}")
        fresh.write_text(text)
        fresh.replace(self.scenario_path)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.path / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _install(source: Path, target: Path) -> None:
    """Put a new file in place: one that a process has mapped must not change under it."""
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copy(source, fresh)
    fresh.replace(target)
