"""What this machine itself tells, without asking the engine: files, limits, ports, the clock. Raises nothing."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from vaultcube.gpu.kernellog import since_boot
from vaultcube.gpu.pci import DEVICES, pci_gpus
from vaultcube.gpu.pinning import cdi_names
from vaultcube.gpu.preflight.facts import (
    CdiSpecs,
    Disk,
    Driver,
    HookConfig,
    Memlock,
    Memory,
    PciGpu,
    Port,
    Unseen,
)
from vaultcube.gpu.preflight.parse import parse_cdi_drivers, parse_driver, parse_hook_config, parse_memlock
from vaultcube.gpu.xid import Fault, Parser

# Where the files of the driver and of the container toolkit are looked for; for tests on a simulated machine.
ROOT_VARIABLE: Final = "VAULTCUBE_HOST_ROOT"
HOOK_CONFIG: Final = "/etc/nvidia-container-runtime/config.toml"
ENGINE_PID: Final = "/var/run/docker.pid"
SOCKETS: Final = ("unix:///var/run/docker.sock", "unix:///run/docker.sock")
# UEFI's variable: four bytes of attributes, then 1 where Secure Boot is on.
SECURE_BOOT: Final = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
# adjtimex(2): room for struct timex, where its `status` is, and the bit that says nobody keeps the clock right.
TIMEX_BYTES: Final = 256
TIMEX_STATUS: Final = 40
STA_UNSYNC: Final = 0x40
# No CDI specification of GPUs is longer by far.
SPEC_BYTES: Final = 4 * 2**20


def host_path(path: str) -> Path:
    """Return where a file of the driver or of the container toolkit is looked for."""
    return Path(os.environ.get(ROOT_VARIABLE) or "/") / path.lstrip("/")


def is_simulated() -> bool:
    """Say whether these files are another machine's than this one's."""
    return bool(os.environ.get(ROOT_VARIABLE))


def read_driver() -> Driver | Unseen:
    """Return the loaded kernel module."""
    path = host_path("/proc/driver/nvidia/version")
    try:
        found = parse_driver(path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        return Unseen(f"/proc/driver/nvidia/version: {error.strerror}")
    return found or Unseen("/proc/driver/nvidia/version names no kernel module")


def read_pci() -> tuple[PciGpu, ...] | Unseen:
    """Return the NVIDIA GPUs on the PCI bus, but for those given to a virtual machine."""
    try:
        return tuple(PciGpu(*one) for one in pci_gpus(host_path(DEVICES)))
    except OSError as error:
        return Unseen(f"{DEVICES}: {error.strerror}")


def read_nouveau() -> bool:
    """Say whether nouveau is loaded."""
    return host_path("/sys/module/nouveau").is_dir()


def read_secure_boot() -> bool | Unseen:
    """Say whether Secure Boot is on."""
    try:
        data = Path(SECURE_BOOT).read_bytes()
    except OSError as error:
        return Unseen(f"no Secure Boot variable: {error.strerror}")
    return data[4:5] == b"\1"


def read_hook_config() -> HookConfig | Unseen:
    """Return the toolkit's settings."""
    try:
        text = host_path(HOOK_CONFIG).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return Unseen(f"{HOOK_CONFIG}: {error.strerror}")
    return parse_hook_config(HOOK_CONFIG, text)


def read_cdi(dirs: Iterable[str]) -> CdiSpecs:
    """Return the specifications of GPUs in these folders (the engine's); one that cannot be read is none."""
    files, drivers = list[str](), frozenset[str]()
    for folder in dirs:
        for path in sorted(Path(folder).glob("*")):
            if path.suffix not in {".yaml", ".json"}:
                continue
            with suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
                text = file.read(SPEC_BYTES)
                if cdi_names(text):
                    files.append(str(path))
                    drivers |= parse_cdi_drivers(text)
    return CdiSpecs(tuple(files), drivers)


def read_disk(path: Path, *, writable: bool) -> Disk | Unseen:
    """Return the room in a folder that need not be there yet."""
    there = next((folder for folder in (path, *path.parents) if os.path.lexists(folder)), path)
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Disk(str(path), 0, error.strerror or "?") if writable else Unseen(f"{path}: {error.strerror}")
    why = ""
    if writable and not there.is_dir():
        why = f"{there} is no folder"
    elif writable and not os.access(there, os.W_OK | os.X_OK):
        why = f"{there} may not be written by this user"
    return Disk(str(path), free, why)


def read_memory() -> Memory | Unseen:
    """Return the machine's memory and the size of its /dev/shm."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return Memory(total, shutil.disk_usage("/dev/shm").total)  # noqa: S108 - it is what is looked at
    except (OSError, ValueError) as error:
        return Unseen(f"/dev/shm: {error}")  # noqa: S108 - as above


def read_memlock() -> Memlock | Unseen:
    """Return how much memory the engine may lock, as its process's limits say."""
    pid = _engine_pid()
    if isinstance(pid, Unseen):
        return pid
    try:
        limits, status, uid_map = (
            Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace")
            for name in ("limits", "status", "uid_map")
        )
    except OSError as error:
        return Unseen(f"the engine's limits cannot be read: {error.strerror}")
    return parse_memlock(limits, status, uid_map) or Unseen("the engine's limit of locked memory is not told")


def _engine_pid() -> int | Unseen:
    host = os.environ.get("DOCKER_HOST", "")
    if host and not host.startswith("unix://"):
        return Unseen("the engine is on another machine")
    try:
        if not host or host in SOCKETS:
            # With systemd's socket activation the other end of the socket is systemd itself.
            return int(Path(ENGINE_PID).read_text())
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(1)
            line.connect(host.removeprefix("unix://"))
            seen = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return int(struct.unpack("3i", seen)[0])
    except (OSError, ValueError) as error:
        return Unseen(f"the engine's process cannot be found: {getattr(error, 'strerror', None) or error}")


def read_ports(wanted: Iterable[tuple[int, str]]) -> tuple[Port, ...]:
    """Say of every port (number, workload) whether something has it on the loopback interface."""
    return tuple(Port(number, workload, _taken(number)) for number, workload in wanted)


def _taken(number: int) -> bool:
    with socket.socket() as probe:
        # What lingers of a closed connection is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def read_synchronised() -> bool | Unseen:
    """Say whether the kernel counts its clock as kept right by somebody (NTP, PTP)."""
    buffer = ctypes.create_string_buffer(TIMEX_BYTES)
    try:
        ask = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError) as error:
        return Unseen(f"adjtimex: {error}")
    # Without a mode in the structure it only reads.
    if ask(buffer) < 0:
        return Unseen(f"adjtimex: {os.strerror(ctypes.get_errno())}")
    (status,) = struct.unpack_from("i", buffer, TIMEX_STATUS)
    return not status & STA_UNSYNC


def read_faults() -> tuple[Fault, ...] | Unseen:
    """Return what the kernel log says of GPUs and the PCI bus."""
    messages, why_not = since_boot()
    if why_not:
        return Unseen(f"the kernel log cannot be read: {why_not}")
    parser = Parser()
    return tuple(fault for text in messages for fault in parser.feed(text))
