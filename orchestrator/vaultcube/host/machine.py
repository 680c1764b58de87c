"""The machine as the checks see it: programs to ask, files to read, and how it should be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

from vaultcube.gpu.pci import DEVICES, pci_gpus
from vaultcube.host.expected import PATH, load_expected
from vaultcube.host.shell import LIMIT_S, Answer, ask, search_path
from vaultcube.host.words import Judged, JudgedError, Unseen, again, fail, invalid, unavailable

# Where the files that are read are looked for; for tests on a simulated machine.
ROOT_VARIABLE: Final = "VAULTCUBE_HOST_ROOT"
NO_GPU: Final = "no NVIDIA GPU on this machine"
AS_ROOT: Final = "Run it as root: sudo vaultcube-health"
_REFUSED: Final = ("permission denied", "must be root", "need to be root", "not permitted", "operation not allowed")
# What its tools say in a container, where something else is process 1.
_NO_SYSTEMD: Final = ("failed to connect to bus", "not been booted with systemd")


class Machine:
    """Answers are kept: what two checks ask is asked once.

    Args:
        vaultcube: how the orchestrator's command is called.
        probes: whether containers and network namespaces may be started.
        patience: how many times longer than usual a program may take; an emulated machine is many times slower.

    Raises:
        UsageError: /etc/vaultcube/host.json makes no sense.

    Attributes:
        expected: how the machine should be.
        told: whether the file said so.
        privileged: whether we are root.
        simulated: whether the files are another machine's.
    """

    def __init__(self, *, vaultcube: Sequence[str] = ("vaultcube",), probes: bool = True, patience: float = 1) -> None:
        self.root = Path(os.environ.get(ROOT_VARIABLE) or "/")
        self.simulated = bool(os.environ.get(ROOT_VARIABLE))
        self.vaultcube = tuple(vaultcube)
        self.probes = probes
        self.patience = patience
        self.privileged = os.geteuid() == 0
        self.expected, self.told = load_expected(self.path(PATH))
        self._answers: dict[tuple[str, ...], Answer] = {}

    def path(self, path: str) -> Path:
        """Return where a file of the host is looked for."""
        return self.root / path.lstrip("/")

    def text(self, path: str) -> str | Unseen:
        """Return what a file holds, or why it cannot be read."""
        try:
            return self.path(path).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            return Unseen(f"{path}: {error.strerror}")

    def ask(self, *argv: str, limit_s: float = LIMIT_S) -> Answer:
        """Return what a program says."""
        if argv not in self._answers:
            self._answers[argv] = ask(argv, limit_s=limit_s * self.patience)
        return self._answers[argv]

    def output(self, *argv: str, role: str, limit_s: float = LIMIT_S) -> str:
        """Return what a program wrote.

        Args:
            argv: what is called.
            role: the Ansible role that installs it.
            limit_s: how long it may take.

        Raises:
            JudgedError: it is missing (FAIL), did not answer or failed (INVALID), or needs root or systemd
                (UNAVAILABLE).
        """
        answer = self.ask(*argv, limit_s=limit_s)
        if answer.ok:
            return answer.stdout
        if answer.missing:
            raise JudgedError(fail(answer.why, again(role)))
        said = (answer.stderr + answer.stdout).lower()
        if any(sign in said for sign in _NO_SYSTEMD):
            raise JudgedError(unavailable("systemd does not run here"))
        if not self.privileged and any(sign in said for sign in _REFUSED):
            raise JudgedError(unavailable(f"{answer.argv[0]} tells this only to root", AS_ROOT))
        raise JudgedError(invalid(answer.why, f"See what it says: {' '.join(argv)}"))

    def need_root(self) -> None:
        """Return when we are root.

        Raises:
            JudgedError: we are not: UNAVAILABLE.
        """
        if not self.privileged:
            raise JudgedError(unavailable("only root can see this", AS_ROOT))

    def has(self, program: str) -> bool:
        """Say whether there is such a program for root."""
        return shutil.which(program, path=search_path()) is not None

    def active(self, *units: str) -> str:
        """Return the first of these units that is active, or nothing."""
        answer = self.ask("systemctl", "is-active", *units)
        states = answer.stdout.split()
        return next((unit for unit, state in zip(units, states, strict=False) if state == "active"), "")

    def provisioned(self, layer: int) -> bool:
        """Say whether Ansible brought this layer here."""
        return layer in self.expected.layers

    @cached_property
    def gpus(self) -> list[tuple[str, int]] | Unseen:
        """Return address and device id of the GPUs on the PCI bus."""
        try:
            return pci_gpus(self.path(DEVICES))
        except FileNotFoundError:
            return []
        except OSError as error:
            return Unseen(f"{DEVICES}: {error.strerror}")

    def need_gpu(self) -> list[tuple[str, int]]:
        """Return the GPUs on the PCI bus.

        Raises:
            JudgedError: there is none: UNAVAILABLE.
        """
        if isinstance(self.gpus, Unseen) or not self.gpus:
            raise JudgedError(self.without_gpu())
        return self.gpus

    def without_gpu(self) -> Judged:
        """Return what a check says that needs a GPU where there is none."""
        return unavailable(self.gpus if isinstance(self.gpus, Unseen) else NO_GPU)
