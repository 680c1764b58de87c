"""How the host should be: /etc/vaultcube/host.json, which the Ansible role `health` writes, or the documents' values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

from vaultcube.errors import UsageError

PATH: Final = "/etc/vaultcube/host.json"
SCHEMA: Final = "vaultcube.host/1"


@dataclass(frozen=True)
class User:
    """The administrator. `password`: it has one, which sudo asks for; without, it cannot use sudo until one is set."""

    name: str = "vaultadmin"
    uid: int = 1000
    groups: tuple[str, ...] = ("sudo", "docker")
    shell: str = "/bin/bash"
    password: bool = True


@dataclass(frozen=True)
class Ssh:
    """The effective settings of sshd, as `sshd -T` names them (lower case)."""

    port: int = 22
    settings: Mapping[str, str] = field(
        default_factory=lambda: {
            "permitrootlogin": "no",
            "passwordauthentication": "no",
            "kbdinteractiveauthentication": "no",
            "permitemptypasswords": "no",
            "pubkeyauthentication": "yes",
            "clientaliveinterval": "300",
            "clientalivecountmax": "2",
            "allowusers": "vaultadmin",
        }
    )


@dataclass(frozen=True)
class Firewall:
    """UFW's policy, and which ports it lets in (`22/tcp`)."""

    incoming: str = "deny"
    outgoing: str = "allow"
    allowed: tuple[str, ...] = ("22/tcp",)


@dataclass(frozen=True)
class Fail2ban:
    """The jail of sshd. Times are in seconds."""

    jail: str = "sshd"
    maxretry: int = 5
    bantime: int = 600


@dataclass(frozen=True)
class Updates:
    """What unattended-upgrades does by itself, and what is held back from every upgrade.

    `held` are patterns of package names; one that begins with `!` takes names out again.
    """

    enabled: bool = True
    automatic_reboot: bool = False
    blacklist: tuple[str, ...] = ("nvidia-", "libnvidia-", "cuda-")
    held: tuple[str, ...] = ("nvidia-*", "libnvidia-*", "linux-modules-nvidia-*", "!nvidia-driver-pinning-*")


@dataclass(frozen=True)
class Docker:
    """The engine. `loopback`: a port published without an address is bound to 127.0.0.1."""

    minimum: str = "24.0"
    live_restore: bool = True
    log_driver: str = "json-file"
    cdi: bool = True
    loopback: bool = True
    compose_minimum: str = "2.24.4"


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver: its branch (`580`) and the flavour of its modules (`open` or `proprietary`)."""

    branch: str = "580"
    modules: str = "open"
    persistence: bool = True


@dataclass(frozen=True)
class Expected:
    """How the host should be.

    Attributes:
        layers: which layers were provisioned; empty where nobody said.
        systems: id and version of the systems that it may be.
        kernel_minimum: the oldest kernel.
        timezone: the time zone's names that are right.
        python_minimum: the oldest Python.
        disk_free_bytes: what must be free on the root file system.
        commands: monitoring tools that must be there.
        gpus: how many GPUs; 0 where any number is right.
        cuda: version of the toolkit on the host; empty where none is expected.
        cudnn_major: major version of cuDNN on the host; empty where none is expected.
        toolkit_minimum: the oldest NVIDIA Container Toolkit.
        images: the images of layer 4; empty for one of each in the catalogue.
        recorder_unit: the unit that records the GPUs on a demo box.
        image_build_phase: whether the host was built without its hardware and has not booted on it yet.
    """

    layers: tuple[int, ...] = ()
    systems: tuple[str, ...] = ("ubuntu 24.04", "debian 12", "debian 13")
    kernel_minimum: str = "6.1"
    timezone: tuple[str, ...] = ("Etc/UTC", "UTC")
    python_minimum: str = "3.11"
    disk_free_bytes: int = 5 * 10**9
    commands: tuple[str, ...] = ("htop", "iotop", "nvtop", "sar", "sensors")
    user: User = User()
    ssh: Ssh = field(default_factory=Ssh)
    firewall: Firewall = Firewall()
    fail2ban: Fail2ban = Fail2ban()
    updates: Updates = Updates()
    docker: Docker = Docker()
    driver: Driver = Driver()
    gpus: int = 4
    cuda: str = "12.4"
    cudnn_major: str = "9"
    toolkit_minimum: str = "1.17.8"
    images: tuple[str, ...] = ()
    recorder_unit: str = "vaultcube-recorder.service"
    image_build_phase: bool = False


def load_expected(path: Path) -> tuple[Expected, bool]:
    """Return how the host should be, and whether the file said so; without the file, the documents' values.

    Raises:
        UsageError: the file is there and makes no sense; the text names the entry.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Expected(), False
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(path, getattr(error, "strerror", None) or str(error)) from error
    try:
        return parse_expected(text), True
    except (ValueError, RecursionError) as error:
        raise _wrong(path, str(error)) from error


def parse_expected(text: str) -> Expected:
    """Return what a document of `vaultcube.host/1` says, and the documents' values for what it leaves out.

    Raises:
        ValueError: it makes no sense; the text names the entry.
    """
    told = json.loads(text)
    if not isinstance(told, dict) or told.pop("schema", SCHEMA) != SCHEMA:
        raise ValueError(f"it is no document of {SCHEMA}")
    found: Expected = _filled(Expected(), told, "")
    return found


def _wrong(path: Path, why: str) -> UsageError:
    return UsageError(f"{path}: {why}", next_step="Write it anew: ansible-playbook playbooks/site.yml --tags health.")


def _filled(base: Any, told: Mapping[str, Any], where: str) -> Any:
    """Return a dataclass with what a document says in place of its values.

    Raises:
        ValueError: an entry that there is none of, or of another kind.
    """
    hints = get_type_hints(type(base))
    names = {one.name for one in fields(base)}
    if unknown := sorted(set(told) - names):
        raise ValueError(f"there is no entry {where}{unknown[0]!r}")
    found = {}
    for name, value in told.items():
        old = getattr(base, name)
        if is_dataclass(old):
            if not isinstance(value, dict):
                raise ValueError(f"{where}{name} is no object")
            found[name] = _filled(old, value, f"{where}{name}.")
        else:
            found[name] = _typed(value, hints[name], f"{where}{name}")
    return replace(base, **found)


def _typed(value: Any, wanted: Any, name: str) -> Any:
    origin = get_origin(wanted)
    if origin is tuple and isinstance(value, list):
        return tuple(_typed(one, get_args(wanted)[0], name) for one in value)
    if origin not in {None, tuple, UnionType} and isinstance(value, dict):
        return {str(key): _typed(one, str, name) for key, one in value.items()}
    if origin is None and type(value) is wanted:
        return value
    raise ValueError(f"{name} is not of the right kind: {str(value)[:60]!r}")
