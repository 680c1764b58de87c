"""The command as a user calls it: a process of its own, with a home and results of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ERASED = ("VAULTCUBE_", "XDG_", "DOCKER_", "COMPOSE_", "PYTHON", "NO_COLOR", "COV")


@dataclass
class Command:
    """`python -m vaultcube`.

    Attributes:
        home: its home directory.
        runs: where it keeps runs.
        env: further variables.
    """

    home: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def runs(self) -> Path:
        return self.home / ".local" / "share" / "vaultcube" / "runs"

    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(ERASED)}
        # Coverage follows into child processes through these.
        kept |= {key: value for key, value in os.environ.items() if key.startswith("COVERAGE_")}
        return {**kept, "HOME": str(self.home), "COLUMNS": "100", "LC_ALL": "C.UTF-8", **self.env}

    def argv(self, *words: str | bytes) -> list[str | bytes]:
        return [sys.executable, "-m", "vaultcube", *words]

    def __call__(self, *words: str | bytes, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.argv(*words),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(),
            cwd=self.home,
            timeout=60,
            check=False,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start it and leave it going."""
        return subprocess.Popen(
            self.argv(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment()
        )


@pytest.fixture
def vaultcube(tmp_path: Path) -> Command:
    """Return the command, in a home of its own without any run."""
    home = tmp_path / "home with spaces"
    home.mkdir()
    return Command(home)
