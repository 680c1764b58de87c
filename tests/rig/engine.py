"""The rig's private Docker engine: by hook, by CDI, by both or by neither it puts a simulated box into containers."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.docker.engines import Engine, as_before, in_root
from tests.rig import cdi, rlimits

if TYPE_CHECKING:
    from tests.rig.box import Box

ROOT = Path(__file__).resolve().parents[2]
HOOK = "nvidia-container-runtime-hook"
# The toolkit's own command, as far as it is asked for its version.
CTK = "nvidia-ctk"
CTK_SAYS = "NVIDIA Container Toolkit CLI version 1.18.1\ncommit: simulated\n"
# How long containers get when the engine ends: there is nothing in them to lose.
SHUTDOWN_S = 2


class RigError(Exception):
    """The rig cannot be set up on this machine; the text says why, and what would help."""


class Mode(StrEnum):
    """Which ways to GPUs an engine offers: the classic driver needs the hook, CDI a specification."""

    HOOK = "hook"
    CDI = "cdi"
    BOTH = "both"
    NEITHER = "neither"


class RigEngine(Engine):
    """A second engine (its disk is a folder, removed at its end) that offers the GPUs of one box at a time.

    Args:
        mode: which ways to GPUs it offers.

    Raises:
        RigError: when it is entered, and this machine lacks something.
    """

    # A real disk, also where /tmp is in memory.
    parent = "/var/tmp"

    def __init__(self, mode: Mode) -> None:
        super().__init__(None)
        self.mode = mode

    def __enter__(self) -> Self:
        check_machine()
        try:
            return super().__enter__()
        except AssertionError as error:
            raise RigError(str(error)) from error

    def __exit__(self, *_: object) -> None:
        self.clear()
        super().__exit__()

    def prepare(self) -> None:
        """Write the engine's settings, and the hook into the first folder of its PATH."""
        config = {
            "features": {"cdi": self._cdi},
            "cdi-spec-dirs": [str(self.folder / "cdi")],
            "shutdown-timeout": SHUTDOWN_S,
        }
        (self.folder / "daemon.json").write_text(json.dumps(config))
        (self.folder / "bin").mkdir()
        (self.folder / "cdi").mkdir()
        if self._hook:
            self._program(HOOK, f'exec {_python("hook")} {shlex.quote(str(self.folder / "box"))} "$@"')
        if self.mode is not Mode.NEITHER:
            self._program(CTK, f"printf %s {shlex.quote(CTK_SAYS)}")
        if not rlimits.may_raise():
            runc = shutil.which("runc") or "runc"
            limit = f'case " $* " in *" create "* | *" exec "*) {_python("rlimits")} "$@" ;; esac'
            self._program("runc", f'{limit}\nexec {shlex.quote(runc)} "$@"')

    def _program(self, name: str, script: str) -> None:
        file = self.folder / "bin" / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    @property
    def _hook(self) -> bool:
        return self.mode in {Mode.HOOK, Mode.BOTH}

    @property
    def _cdi(self) -> bool:
        return self.mode in {Mode.CDI, Mode.BOTH}

    def use(self, box: Box | None) -> None:
        """Clear the engine, and offer the GPUs of this box from now on; None offers none.

        Hook and toolkit are the machine's: a box has them in its PATH exactly while its engine has them.
        """
        self.clear()
        link = self.folder / "box"
        link.unlink(missing_ok=True)
        (self.folder / "cdi" / cdi.FILE).unlink(missing_ok=True)
        if box is None:
            return
        link.symlink_to(box.path)
        if self._cdi:
            cdi.write(self.folder / "cdi", box.path, box.uuids, str(box.read().system["driver_version"]))
        for name in (HOOK, CTK):
            (box.path / "bin" / name).unlink(missing_ok=True)
            if (self.folder / "bin" / name).exists():
                shutil.copy(self.folder / "bin" / name, box.path / "bin")

    def docker(self, *args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run the docker command against this engine; whether it went well is the caller's to look at."""
        env = {**os.environ, "DOCKER_HOST": self.host}
        return subprocess.run(["docker", *args], env=env, capture_output=True, text=True, timeout=timeout, check=False)

    def ask(self, *args: str, timeout: float = 60) -> str:
        """Run the docker command against this engine and return its stdout.

        Raises:
            AssertionError: it failed.
        """
        seen = self.docker(*args, timeout=timeout)
        if seen.returncode:
            raise AssertionError(f"docker {shlex.join(args)}: {seen.stderr}")
        return seen.stdout.strip()

    @property
    def network(self) -> list[str]:
        """Words before a command that put it where the engine's published ports are."""
        return [*in_root(["nsenter", "--net", f"--target={self._pid}"]), *as_before()]

    def clear(self) -> None:
        """Remove all containers, and the networks that they had; images stay."""
        if containers := self.docker("ps", "--all", "--quiet").stdout.split():
            self.docker("rm", "--force", *containers)
        if networks := self.docker("network", "ls", "--quiet", "--filter", "type=custom").stdout.split():
            self.docker("network", "rm", *networks)


def _python(module: str) -> str:
    """Return the shell's words for a module of the rig, run by this interpreter wherever it is called from."""
    return shlex.join(["env", f"PYTHONPATH={ROOT}", sys.executable, "-SB", "-m", f"tests.rig.{module}"])


def check_machine() -> None:
    """Refuse a machine that cannot run the rig's engine.

    Raises:
        RigError: as named.
    """
    if not sys.platform.startswith("linux"):
        raise RigError("the rig needs Linux: its engine lives in namespaces")
    for tool in ("docker", "dockerd", "unshare", "ip"):
        if shutil.which(tool) is None:
            raise RigError(f"the rig needs {tool} on this machine (make setup)")
    if os.getuid():
        able = (
            shutil.which("sudo")
            and not subprocess.run(["sudo", "-n", "true"], capture_output=True, timeout=10, check=False).returncode
        )
        if not able:
            raise RigError("the rig needs root, or sudo without a password, for its engine's namespaces")
