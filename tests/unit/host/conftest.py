"""A host made of what real tools were recorded to say: programs in a PATH of its own, files below a root of its own."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote
from typing import Any

import pytest
from tests.unit.support import DATA

from vaultcube.host import shell
from vaultcube.host.expected import PATH
from vaultcube.host.health import CHECKS
from vaultcube.host.machine import ROOT_VARIABLE, Machine
from vaultcube.host.words import Finding

RECORDED = DATA / "host"


def recorded(name: str) -> str:
    return (RECORDED / name).read_text(encoding="utf-8")


class Host:
    """A host for tests. Programs that are not `says` are not installed.

    Attributes:
        root: its files.
        privileged: whether we are root on it.
    """

    def __init__(self, folder: Path) -> None:
        self.root, self.bin = folder / "root", folder / "bin"
        self.privileged = True
        self._cases: dict[str, list[str]] = {}
        self._count = 0
        for one in (self.root / "sys/bus/pci/devices", self.bin):
            one.mkdir(parents=True)

    def says(self, command: str, stdout: str = "", *, stderr: str = "", status: int = 0) -> None:
        """Give this reply to calls of a program that begin with these words; the last one said counts."""
        program, _, words = command.partition(" ")
        self._count += 1
        out, err = self.bin / f".{self._count}.out", self.bin / f".{self._count}.err"
        out.write_text(stdout, encoding="utf-8")
        err.write_text(stderr, encoding="utf-8")
        case = f"{quote(words)}*) /bin/cat {quote(str(out))}; /bin/cat {quote(str(err))} >&2; exit {status};;\n"
        self._cases.setdefault(program, []).insert(0, case)
        target = self.bin / program
        lines = "".join(self._cases[program])
        target.write_text(f'#!/bin/sh\ncase "$*" in\n{lines}*) echo "not recorded: $*" >&2; exit 99;;\nesac\n')
        target.chmod(0o755)

    def lacks(self, program: str) -> None:
        """Take a program away."""
        (self.bin / program).unlink()
        self._cases.pop(program)

    def file(self, path: str, text: str) -> Path:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        return target

    def card(self, address: str, device: str = "0x2b85") -> None:
        """Put an NVIDIA GPU on the PCI bus; an RTX 5090 unless said otherwise."""
        for name, value in (("vendor", "0x10de"), ("class", "0x030000"), ("device", device)):
            self.file(f"/sys/bus/pci/devices/{address}/{name}", value + "\n")

    def expects(self, **entries: Any) -> None:
        """Write host.json."""
        self.file(PATH, json.dumps({"schema": "vaultcube.host/1", **entries}))

    def machine(self, **options: Any) -> Machine:
        found = Machine(**options)
        found.privileged = self.privileged
        return found

    def check(self, code: str, **options: Any) -> Finding:
        """Run one check."""
        (one,) = [check for check in CHECKS if check.code == code]
        return one.run(self.machine(**options))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    found = Host(tmp_path)
    monkeypatch.setenv("PATH", str(found.bin))
    monkeypatch.setenv(ROOT_VARIABLE, str(found.root))
    monkeypatch.setattr(shell, "ROOT_PATH", ())
    return found


@pytest.fixture
def box(host: Host) -> Host:
    """Return a box with four cards and everything of layers 2 and 3 as it should be."""
    uuids = [f"GPU-0000000{index}-aaaa-bbbb-cccc-00000000000{index}" for index in range(4)]
    for index in range(4):
        host.card(f"0000:0{index + 1}:00.0")
    host.expects(layers=[1, 2, 3])
    version = (DATA / "preflight" / "driver-open.txt").read_text(encoding="utf-8").split("x86_64")[1].split()[0]
    host.expects(layers=[1, 2, 3], driver={"branch": version.partition(".")[0]})
    host.file("/proc/driver/nvidia/version", (DATA / "preflight" / "driver-open.txt").read_text(encoding="utf-8"))
    host.says("modinfo nvidia", recorded("modinfo-open.txt").replace("580.95.05", version))
    host.says("nvidia-smi --query-gpu=uuid", "".join(f"{uuid}\n" for uuid in uuids))
    host.says("nvidia-smi --query-gpu=driver_version", f"{version}\n" * 4)
    host.says("nvidia-smi --query-gpu=index,persistence_mode", "".join(f"{index}, Enabled\n" for index in range(4)))
    listed = "".join(f"GPU {index}: NVIDIA GeForce RTX 5090 (UUID: {uuid})\n" for index, uuid in enumerate(uuids))
    host.says("nvidia-smi -L", listed)
    host.says("modprobe --showconfig", "options nvidia NVreg_X=1\nblacklist nouveau\n")
    host.says("nvcc --version", recorded("nvcc-12.4.txt"))
    host.says("ldconfig -p", "\tlibcudnn.so.9 (libc6,x86-64) => /lib/x86_64-linux-gnu/libcudnn.so.9\n")
    host.says("nvidia-ctk --version", "NVIDIA Container Toolkit CLI version 1.18.0\ncommit: 1\n")
    names = "".join(f"nvidia.com/gpu={name}\n" for name in ["0", "1", "2", "3", *uuids, "all"])
    host.says("nvidia-ctk cdi list", names)
    host.file(
        "/etc/nvidia-container-runtime/config.toml", "accept-nvidia-visible-devices-envvar-when-unprivileged = false\n"
    )
    host.says("docker info", recorded("docker-info.json"))
    return host
