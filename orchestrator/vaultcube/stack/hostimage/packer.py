"""Stages 2 and 3: Packer boots the machine, and Ansible provisions it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from vaultcube.errors import UsageError
from vaultcube.stack.hostimage.guest import Hardware, console_end
from vaultcube.stack.hostimage.packerlog import PackerLog
from vaultcube.stack.hostimage.seeds import (
    BUILD_USER,
    build_user_data,
    make_key,
    public_half,
    write_private,
    write_seed,
)
from vaultcube.stack.hostimage.stages import Options, Stage, Watcher
from vaultcube.stack.hostimage.tools import cpu_model, free_port
from vaultcube.stack.process import Child
from vaultcube.stack.signals import Stop

QUIET_S: Final = 20.0
BOOT_S, EMULATED_BOOT_S = 600.0, 2400.0
LOG: Final = "packer.log"
INVENTORY: Final = "inventory.tar"
BUILDS: Final = {Stage.BUILD: "qemu.base", Stage.PROVISION: "qemu.image"}


class Packer:
    """Packer with this checkout's template.

    Args:
        root: the checkout.
        options: what was asked for.
        hardware: what the virtual machine gets.
        stop: ends it.
    """

    def __init__(self, root: Path, options: Options, hardware: Hardware, stop: Stop) -> None:
        self._root, self._options, self._hardware, self._stop = root, options, hardware, stop
        self.port = free_port()

    def argv(self, verb: Sequence[str], stage: Stage, source: str, sha256: str) -> list[str]:
        """Return the command line for a stage, with every variable of the template."""
        options, hardware = self._options, self._hardware
        slow = hardware.accelerator == "tcg"
        values = {
            "source_image": source,
            "source_sha256": sha256,
            "accelerator": hardware.accelerator,
            "cpu_model": cpu_model(hardware.accelerator),
            "disk_size": options.disk_size,
            "memory": str(hardware.memory_mb),
            "cpus": str(hardware.cpus),
            "work": str(folder_of(options, stage)),
            "output": str(disk_of(options, stage).parent),
            "facts_cache": str(options.cache / "facts" / sha256[:12]),
            "build_user": BUILD_USER,
            "build_key": str(folder_of(options, stage) / "key"),
            "ssh_port": str(self.port),
            "ssh_timeout": f"{boot_limit(options, hardware):g}s",
            "shutdown_timeout": "20m" if slow else "5m",
            "tags": ",".join(f"layer{layer}" for layer in options.layers),
        }
        given = [word for name, value in values.items() for word in ("-var", f"{name}={value}")]
        return [str(self._root / "scripts/ansible.sh"), "packer", *verb, *given, str(self._root / "packer")]

    def prepare(self, stage: Stage) -> None:
        """Make a stage's seed, key and variables, and take away what an earlier call left.

        Raises:
            HostBuildError: no key can be made here.
        """
        folder = folder_of(self._options, stage)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        folder.chmod(0o700)
        key = make_key(folder, self._stop)
        write_seed(folder / "seed", build_user_data(public_half(key)), "vault-cube")
        write_private(folder / "variables.json", json.dumps(self.variables(folder)))

    def variables(self, folder: Path) -> dict[str, object]:
        """Return what the roles are told."""
        options = self._options
        told: dict[str, object] = {
            "build_port": self.port,
            "build_user": BUILD_USER,
            "build_key": str(folder / "key"),
            "image_build_phase": True,
            "users_admin_authorized_keys": list(options.keys),
            "health_provisioned": list(options.layers),
            "health_waived": list(options.waived),
            "health_patience": round(self._hardware.patience),
            "apt_cache_proxy": options.apt_proxy,
        }
        if options.variables is not None:
            told |= read_variables(options.variables)
        if not told.get("users_admin_password_hash"):
            # The first boot's seed sets one; docs/host-image.md.
            told.setdefault("users_admin_without_password", True)
        return told

    def build(self, stage: Stage, source: str, sha256: str, watcher: Watcher) -> Path:
        """Run a stage and return the disk that came out.

        Raises:
            BaseChecksumError, GuestSilentError, HostBuildError, ProvisionError: it failed; with --keep the machine is left.
            InterruptedRunError: a stop was asked for; the machine is gone.
        """
        options, folder = self._options, folder_of(self._options, stage)
        verb = ["build", "-color=false", "-timestamp-ui=false", f"-only={BUILDS[stage]}"]
        verb += ["-on-error=abort" if options.keep else "-on-error=cleanup"]
        log, failed = PackerLog(), True
        environment = {**os.environ, "PACKER_CACHE_DIR": str(options.cache / "packer"), "CHECKPOINT_DISABLE": "1"}
        # Packer's plug-ins find each other over loopback, and a proxy would be asked for it.
        environment["NO_PROXY"] = ",".join(filter(None, [environment.get("NO_PROXY"), "127.0.0.1,localhost"]))
        child = Child(self.argv(verb, stage, source, sha256), env=environment, merged=True)
        try:
            with (options.work / LOG).open("a", encoding="utf-8") as kept:
                kept.write(f"##### stage {stage}\n")
                spoke = time.monotonic()
                for line in child.lines(self._stop, until_exit=True):
                    kept.write(line + "\n")
                    told = log.feed(line)
                    if told is not None or (log.task and time.monotonic() - spoke > QUIET_S):
                        watcher.note(told or log.task)
                        spoke = time.monotonic()
            failed = child.wait(60) != 0
        finally:
            if not (failed and options.keep and not self._stop.requested):
                child.end()
                end_by_pidfile(folder / "vm.pid")
        if failed:
            error = log.error(stage, console_end(folder / "console.log"))
            if options.keep:
                watcher.note(self._where_it_is(folder))
            raise error
        return disk_of(options, stage)

    def _where_it_is(self, folder: Path) -> str:
        reach = f"ssh -i {folder / 'key'} -p {self.port} {BUILD_USER}@127.0.0.1"
        return f"the machine is left running (--keep): {reach}; end it with: kill $(cat {folder / 'vm.pid'})"


def boot_limit(options: Options, hardware: Hardware) -> float:
    """Return how many seconds a machine may take until it answers over SSH."""
    return options.boot_limit_s or (EMULATED_BOOT_S if hardware.accelerator == "tcg" else BOOT_S)


def folder_of(options: Options, stage: Stage) -> Path:
    """Return a stage's folder below the work folder."""
    return options.work / stage


def disk_of(options: Options, stage: Stage) -> Path:
    """Return where a stage leaves its disk."""
    return folder_of(options, stage) / "out" / "disk.qcow2"


def read_variables(path: Path) -> dict[str, object]:
    """Return the variables of a JSON file.

    Raises:
        UsageError: it cannot be read, or is no object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--variables {path}: {error}", next_step="Give a JSON file with the roles' variables."
        ) from error
    if not isinstance(found, dict):
        raise UsageError(f"--variables {path} holds no object", next_step='Write {"name": value, ...}.')
    return found


def end_by_pidfile(path: Path) -> None:
    """End the virtual machine that a pid file names, if it still is one."""
    try:
        pid = int(path.read_text(encoding="ascii"))
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return
    if name.startswith("qemu-system"):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    path.unlink(missing_ok=True)
