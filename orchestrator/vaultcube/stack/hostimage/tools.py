"""The programs that a build needs, and whether this machine can run virtual machines at full speed."""

from __future__ import annotations

import os
import platform
import re
import shutil
import socket
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final

from vaultcube.errors import HostBuildError, HostToolsError, NoAccelerationError
from vaultcube.stack.process import Child, CommandTimeoutError, Finished, run
from vaultcube.stack.signals import Stop

QEMU: Final = "qemu-system-x86_64"
NEEDED: Final = ("packer", QEMU, "qemu-img", "ssh", "scp", "ssh-keygen", "openssl", "bash")
ISO_MAKERS: Final = ("xorriso", "mkisofs", "genisoimage", "hdiutil")
# SeaBIOS says this a second after it was started, wherever a processor is really run.
PROBE_WORDS: Final = "No bootable device"
PROBE_S: Final = 10.0


def check_tools() -> None:
    """Refuse to begin without the programs of a build.

    Raises:
        HostToolsError: some are missing; all of them are named.
    """
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if iso_maker() is None:
        missing.append("xorriso (or genisoimage)")
    if missing:
        raise HostToolsError(f"these programs are not installed: {', '.join(missing)}")


def iso_maker() -> str | None:
    """Return the program here that makes ISO images."""
    return next((name for name in ISO_MAKERS if shutil.which(name)), None)


def versions(stop: Stop) -> dict[str, str]:
    """Return the versions of the programs that make an image, by name."""
    asked = {"packer": ["packer", "version"], "qemu": [QEMU, "--version"]}
    found = {}
    for name, argv in asked.items():
        said = run(argv, timeout=30, stop=stop).stdout
        match = re.search(r"\d+\.\d+(\.\d+)?", said)
        found[name] = match[0] if match else "unknown"
    return found


def choose_accelerator(asked: str, stop: Stop) -> str:
    """Return kvm, hvf or tcg.

    Args:
        asked: one of them, or auto: what this system has; emulation is only taken when it was asked for.
        stop: ends the probe.

    Raises:
        NoAccelerationError: it does not work here; why, and that tcg would.
    """
    wanted = ("hvf" if platform.system() == "Darwin" else "kvm") if asked == "auto" else asked
    if wanted == "tcg":
        return wanted
    why = _why_not(wanted, stop)
    if why is not None:
        raise NoAccelerationError(why)
    return wanted


def _why_not(accelerator: str, stop: Stop) -> str | None:
    """Return why an accelerator does not work here, or None."""
    if accelerator == "kvm":
        device = Path("/dev/kvm")
        if not device.exists():
            return "there is no /dev/kvm on this machine"
        if not os.access(device, os.R_OK | os.W_OK):
            return "this user may not use /dev/kvm (group kvm)"
    # That the device opens says little: nested ones open, and their guests stand still.
    with tempfile.TemporaryDirectory(prefix="vc-probe-") as folder:
        said = Path(folder, "bios.log")
        argv = [QEMU, "-accel", accelerator, "-m", "64", "-display", "none", "-nodefaults", "-no-user-config"]
        argv += ["-monitor", "none", "-chardev", f"file,id=bios,path={said}"]
        argv += ["-device", "isa-debugcon,iobase=0x402,chardev=bios"]
        child = Child(argv, merged=True)
        try:
            for _ in range(int(PROBE_S / 0.1)):
                if said.exists() and PROBE_WORDS in said.read_text(errors="replace"):
                    return None
                if not child.running:
                    break
                stop.wait(0.1)
                stop.check()
        finally:
            ended = not child.running
            child.end(1)
    how = "ends at once" if ended else f"does not get through its firmware in {PROBE_S:g} s"
    return f"{accelerator} is there and does not work: a virtual machine {how}"


def cpu_model(accelerator: str) -> str:
    """Return which processor the guest sees."""
    return "max" if accelerator == "tcg" else "host"


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def checked(argv: list[str], what: str, *, timeout: float, stop: Stop) -> Finished:
    """Run a command that must work.

    Raises:
        HostBuildError: it did not; its last line is in the message.
        InterruptedRunError: `stop` was asked for.
    """
    try:
        done = run(argv, timeout=timeout, stop=stop)
    except CommandTimeoutError as error:
        raise HostBuildError(f"{what}: {error}") from error
    if not done.ok:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise HostBuildError(f"{what}: {said[-1] if said else f'{argv[0]} ended with {done.returncode}'}")
    return done
