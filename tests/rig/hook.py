"""The stub of `nvidia-container-runtime-hook`: runc calls it while a container starts, before its root is turned.

It does by bind mounts what libnvidia-container does on a machine with GPUs, and refuses what that refuses in its
words. Called as `python -m tests.rig.hook BOX prestart` by the wrapper that the engine finds in its PATH, as root.
Standard library only.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.rig.injection import GPUS, binds

# What the real hook takes when a container does not say.
DRIVER_CAPABILITIES = "utility,compute"
KNOWN_CAPABILITIES = {"compute", "compat32", "display", "graphics", "ngx", "utility", "video"}
NO_LIBRARY = (
    "initialization error: load library failed: libnvidia-ml.so.1: cannot open shared object file: "
    "no such file or directory"
)
LISTED = re.compile(r"GPU (\d+): .*\(UUID: (GPU-[0-9a-f-]+)\)")
CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096


class Refused(Exception):  # noqa: N818 - what nvidia-container-cli says is no error of ours
    """Keeps the container from starting; the text is nvidia-container-cli's."""


def chosen(devices: str, listed: dict[str, str]) -> list[str]:
    """Return the UUIDs that NVIDIA_VISIBLE_DEVICES means.

    Args:
        devices: `all`, `none`, or indices and UUIDs with commas between.
        listed: index to UUID of the box's GPUs.

    Raises:
        Refused: a device that the box does not have.
    """
    if devices == "all":
        return list(listed.values())
    if devices == "none":
        return []
    names = listed | {uuid.lower(): uuid for uuid in listed.values()}
    found = []
    for word in devices.split(","):
        if word.lower() not in names:
            raise Refused(f"device error: {word}: unknown device")
        found.append(names[word.lower()])
    return found


def wants_utility(capabilities: str) -> bool:
    """Say whether NVIDIA_DRIVER_CAPABILITIES asks for NVML and nvidia-smi.

    Raises:
        Refused: it names a capability that there is not.
    """
    words = {word for word in capabilities.split(",") if word}
    if "all" in words:
        return True
    if unknown := words - KNOWN_CAPABILITIES:
        raise Refused(f"unsupported capabilities found in '{capabilities}': {', '.join(sorted(unknown))}")
    return "utility" in words


def list_gpus(box: Path) -> dict[str, str]:
    """Return index to UUID of the box's GPUs, as its NVML lists them.

    Raises:
        Refused: there is no box, or its NVML does not start.
    """
    smi = box / "bin/nvidia-smi"
    if not smi.exists():
        raise Refused(NO_LIBRARY)
    env = {"LD_LIBRARY_PATH": str(box / "lib"), "VAULTCUBE_RIG": str(box), "PATH": "/usr/bin:/bin"}
    seen = subprocess.run([str(smi), "-L"], env=env, capture_output=True, text=True, timeout=30, check=False)
    told = (seen.stdout + seen.stderr).strip()
    if seen.returncode and "No devices" not in told:
        start, _, why = told.partition("Failed to initialize NVML: ")
        # One GPU that does not answer stops every container, whichever it asks for.
        kind = "detection error" if start or not why else "initialization error"
        raise Refused(f"{kind}: nvml error: {(why or 'unknown error').splitlines()[0].lower()}")
    return dict(LISTED.findall(seen.stdout))


class Root:
    """A container's file system while it is still a folder of the host's, seen from the container's mounts."""

    def __init__(self, pid: int, path: str) -> None:
        """Enter the mount namespace of process `pid`, for good; `path` is its future root."""
        self._path = path
        self._libc = ctypes.CDLL(None, use_errno=True)
        namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
        self._check(self._libc.setns(namespace, CLONE_NEWNS), f"setns {pid}")
        os.close(namespace)

    def bind(self, source: str, target: str) -> None:
        """Mount a file or folder of the host's read-only.

        Raises:
            OSError: as mount says.
        """
        place = self._path + target
        if Path(source).is_dir():
            Path(place).mkdir(parents=True, exist_ok=True)
        else:
            self.touch(target)
        self._mount(source, place, None, MS_BIND)
        self._mount(None, place, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)

    def tmpfs(self, target: str, files: list[str]) -> None:
        """Mount an own small file system with empty files in it, read-only.

        Raises:
            OSError: as mount says.
        """
        place = self._path + target
        Path(place).mkdir(parents=True, exist_ok=True)
        self._mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=64k")
        for name in files:
            self.touch(f"{target}/{name}")
        self._mount(None, place, None, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)

    def touch(self, target: str) -> None:
        """Make an empty file where there is none."""
        place = Path(self._path + target)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch(mode=0o444)

    def _mount(self, source: str | None, place: str, kind: str | None, flags: int, data: str | None = None) -> None:
        words = [None if word is None else word.encode() for word in (source, place, kind, data)]
        status = self._libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])
        self._check(status, f"mount {place}")

    def _check(self, status: int, what: str) -> None:
        if status:
            number = ctypes.get_errno()
            raise OSError(number, f"{what}: {os.strerror(number)}")


def inject(state: dict[str, Any], box: Path) -> None:
    """Put into a container what its environment asks for; `state` is what runc tells of it.

    Raises:
        Refused: it asks for what the box does not have.
        OSError: it cannot be mounted.
    """
    config = json.loads(Path(state["bundle"], "config.json").read_bytes())
    env = dict(word.split("=", 1) for word in config["process"]["env"] if "=" in word)
    devices = env.get("NVIDIA_VISIBLE_DEVICES", "")
    if devices in {"", "void"}:
        return
    utility = wants_utility(env.get("NVIDIA_DRIVER_CAPABILITIES") or DRIVER_CAPABILITIES)
    uuids = chosen(devices, list_gpus(box))
    if not utility:
        return
    mounts = binds(box)
    path = os.path.normpath(Path(state["bundle"], config["root"]["path"]))
    root = Root(state["pid"], path)
    for mount in mounts:
        root.bind(mount.source, mount.target)
    root.tmpfs(GPUS, uuids)


def main() -> int:
    """Run the hook; its exit code is 1 where the container must not start, with the reason on stderr."""
    box, *verbs = sys.argv[1:]
    if verbs != ["prestart"]:
        return 0
    try:
        inject(json.load(sys.stdin), Path(box))
    except Refused as error:
        sys.stderr.write(f"Auto-detected mode as 'legacy'\nnvidia-container-cli: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"nvidia-container-cli: mount error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
