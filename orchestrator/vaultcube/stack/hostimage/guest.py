"""A virtual machine on a copy-on-write layer of an image: booted, reached over SSH, and gone with the context."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from vaultcube.errors import GuestSilentError, HostBuildError
from vaultcube.stack.hostimage.seeds import make_iso
from vaultcube.stack.hostimage.tools import QEMU, checked, cpu_model, free_port
from vaultcube.stack.process import Child, CommandTimeoutError, Finished, run
from vaultcube.stack.signals import Stop

CONSOLE_LINES: Final = 15
# Never a host key on record, never another key than ours, never a question.
SSH_OPTIONS: Final = (
    *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
    *("-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-F", "none"),
)


@dataclass(frozen=True)
class Hardware:
    """What a virtual machine gets."""

    accelerator: str
    memory_mb: int
    cpus: int

    @property
    def patience(self) -> float:
        """Return how much longer things may take than at full speed."""
        return 6.0 if self.accelerator == "tcg" else 1.0


class Guest:
    """A machine booted from an image that stays as it is.

    Args:
        image: the disk, qcow2.
        seed: the folder of its seed.
        folder: where its layer, its console and its control socket go.
        hardware: what it gets.
        key: the private key that its seed lets in, for `user`.
        stop: ends it.
    """

    def __init__(
        self, image: Path, seed: Path, folder: Path, hardware: Hardware, key: Path, user: str, stop: Stop
    ) -> None:
        self._image, self._seed, self._folder = image, seed, folder
        self._hardware, self._key, self.user, self._stop = hardware, key, user, stop
        self.port = free_port()
        self._child: Child | None = None
        # The path of a Unix socket has 107 bytes at most, and a work folder may lie deep.
        self._short = tempfile.mkdtemp(prefix="vc-vm-")

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        layer, iso = self._folder / "layer.qcow2", self._folder / "seed.iso"
        layer.unlink(missing_ok=True)
        argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(self._image.absolute()), str(layer)]
        try:
            checked(argv, "making a copy-on-write layer", timeout=60, stop=self._stop)
            make_iso(self._seed, iso, self._stop)
            self._child = Child(self._argv(layer, iso), merged=True)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.end()
        shutil.rmtree(self._short, ignore_errors=True)
        (self._folder / "layer.qcow2").unlink(missing_ok=True)

    def _argv(self, layer: Path, iso: Path) -> list[str]:
        hardware = self._hardware
        argv = [QEMU, "-machine", "pc", "-accel", hardware.accelerator, "-cpu", cpu_model(hardware.accelerator)]
        argv += ["-smp", str(hardware.cpus), "-m", str(hardware.memory_mb), "-display", "none"]
        argv += ["-serial", f"file:{self.console}", "-drive", f"file={layer},if=virtio,format=qcow2,discard=unmap"]
        argv += ["-drive", f"file={iso},if=virtio,format=raw,readonly=on"]
        # It reaches what this machine reaches; only this machine reaches it.
        argv += ["-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self.port}-:22", "-device", "virtio-net,netdev=net"]
        return [*argv, "-qmp", f"unix:{self._control},server=on,wait=off"]

    @property
    def console(self) -> Path:
        """Return the file with what it says on its serial console."""
        return self._folder / "console.log"

    @property
    def _control(self) -> str:
        return os.path.join(self._short, "qmp")  # noqa: PTH118 - a socket's name, not a file of ours

    def wait(self, limit_s: float) -> float:
        """Wait until it answers over SSH, and return after how many seconds.

        Raises:
            GuestSilentError: it did not; its console's last lines are in the message.
            InterruptedRunError: a stop was asked for.
        """
        start = time.monotonic()
        while time.monotonic() - start < limit_s:
            if self._child is None or not self._child.running:
                raise GuestSilentError(f"the virtual machine ended while it booted\n{self.console_end()}")
            with suppress(CommandTimeoutError):
                if self.ssh("true", timeout=60).ok:
                    return time.monotonic() - start
            self._stop.wait(1)
            self._stop.check()
        raise GuestSilentError(f"no answer over SSH within {limit_s:.0f} s\n{self.console_end()}")

    def console_end(self) -> str:
        """Return the last lines of its console."""
        return console_end(self.console)

    def ssh(
        self, command: str, *, timeout: float = 120, options: tuple[str, ...] = (), env: Mapping[str, str] | None = None
    ) -> Finished:
        """Run a shell command in it.

        Raises:
            CommandTimeoutError: it took longer than `timeout` seconds of full speed.
        """
        argv = ["ssh", *options, *SSH_OPTIONS, "-o", "ConnectTimeout=30", "-i", str(self._key), "-p", str(self.port)]
        environment = None if env is None else {**os.environ, **env}
        limit = timeout * self._hardware.patience
        return run([*argv, f"{self.user}@127.0.0.1", command], timeout=limit, stop=self._stop, env=environment)

    def must(self, command: str, what: str, *, timeout: float = 120) -> str:
        """Run a shell command that must work, and return what it wrote.

        Raises:
            HostBuildError: it did not.
        """
        try:
            done = self.ssh(command, timeout=timeout)
        except CommandTimeoutError as error:
            raise HostBuildError(f"{what}: {error}") from error
        if not done.ok:
            said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise HostBuildError(f"{what}: {said[-1].strip() if said else f'ended with {done.returncode}'}")
        return done.stdout

    def put(self, *files: Path) -> None:
        """Copy files into the user's home.

        Raises:
            HostBuildError: they did not arrive.
        """
        argv = ["scp", "-q", *SSH_OPTIONS, "-i", str(self._key), "-P", str(self.port), *map(str, files)]
        limit = 60 * self._hardware.patience
        checked(
            [*argv, f"{self.user}@127.0.0.1:"], "copying files into the virtual machine", timeout=limit, stop=self._stop
        )

    def attach(self, image: Path, serial: str) -> None:
        """Attach a disk image for reading while it runs; it appears as /dev/disk/by-id/virtio-SERIAL.

        Raises:
            HostBuildError: the emulator refused.
        """
        file = {"driver": "file", "filename": str(image.absolute()), "read-only": True}
        node = {"driver": "qcow2", "node-name": serial, "read-only": True, "file": file}
        device = {"driver": "virtio-blk-pci", "drive": serial, "id": serial, "serial": serial}
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(60)
            control.connect(self._control)
            lines = control.makefile("rw", encoding="utf-8")
            for command, arguments in (("qmp_capabilities", {}), ("blockdev-add", node), ("device_add", device)):
                lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
                lines.flush()
                answer = _answer(lines)
                if "error" in answer:
                    raise HostBuildError(f"the emulator refused {command}: {answer['error'].get('desc')}")


def _answer(lines: Any) -> dict[str, Any]:
    """Return the next line that is an answer: greetings and events come in between."""
    while line := lines.readline():
        found: dict[str, Any] = json.loads(line)
        if "return" in found or "error" in found:
            return found
    raise HostBuildError("the emulator closed its control socket")


def console_end(path: Path) -> str:
    """Return the last lines of a console that say something, without what moves a cursor."""
    try:
        text = path.read_bytes()[-16384:].decode("utf-8", errors="replace")
    except FileNotFoundError:
        return "  (its console said nothing)"
    kept = "".join(one if one.isprintable() or one == "\n" else " " for one in text.replace("\r", "\n"))
    lines = [line.strip() for line in kept.splitlines() if line.strip()]
    return "\n".join(f"  console: {line[:150]}" for line in lines[-CONSOLE_LINES:]) or "  (its console said nothing)"
