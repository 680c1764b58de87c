"""Stage 1: everything that can be found wrong before a machine is booted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from vaultcube.errors import BaseChecksumError, DiskTooSmallError, HostBuildError, LoginKeyError, UsageError
from vaultcube.results.hostimage import sha256_of
from vaultcube.stack.hostimage.guest import Hardware
from vaultcube.stack.hostimage.packer import Packer
from vaultcube.stack.hostimage.seeds import fingerprint
from vaultcube.stack.hostimage.stages import Options, Stage, Watcher
from vaultcube.stack.hostimage.tools import check_tools, checked, choose_accelerator
from vaultcube.stack.process import run
from vaultcube.stack.signals import Stop

# The disks of two stages, a copy-on-write layer, and the compressed image; layers 2 and 3 carry 8 GB of CUDA.
ROOM_GB: Final = {1: 10, 2: 40, 3: 40}


def check_machine(options: Options, stop: Stop) -> Hardware:
    """Refuse a machine that cannot build, and return what its virtual machines get. Cheap: every call does it.

    Raises:
        HostToolsError, NoAccelerationError, DiskTooSmallError: it cannot.
    """
    check_tools()
    accelerator = choose_accelerator(options.accelerator, stop)
    needed = ROOM_GB[max(options.layers)]
    options.work.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(options.work).free / 1e9
    if free < needed:
        raise DiskTooSmallError(
            f"{free:.0f} GB are free in {options.work}, and building this image takes {needed} GB",
            next_step="Free some, or work on another disk: --work-dir DIR.",
        )
    return Hardware(accelerator, options.memory_mb, options.cpus)


def check_keys(options: Options, stop: Stop) -> list[str]:
    """Return the fingerprints of the keys that will log in.

    Raises:
        LoginKeyError: one is no public key.
    """
    found = []
    for number, key in enumerate(options.keys, 1):
        seen = None if "PRIVATE KEY" in key else fingerprint(key, options.work, stop)
        if seen is None:
            raise LoginKeyError(f"key {number} of --authorized-key is no public key: it begins with {key[:20]!r}")
        found.append(seen)
    return found


def check_given(options: Options) -> None:
    """Refuse what makes no sense on any machine: no key, a cloud image that is not the one that is pinned.

    One on the network is Packer's to fetch and to check.

    Raises:
        LoginKeyError: there is no key.
        UsageError: there is no such file, or its sum is none.
        BaseChecksumError: it is another one.
    """
    if not options.keys:
        raise LoginKeyError("no public key was given, and only keys can log in to the image")
    sha256 = options.source_sha256
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):  # noqa: PLR2004 - hex digits of a SHA-256
        raise UsageError(f"--base-sha256 {sha256!r} is no SHA-256: 64 digits of 0-9 and a-f")
    if "://" in options.source:
        return
    path = Path(options.source)
    if not path.is_file():
        raise UsageError(
            f"--base {options.source}: there is no such file", next_step="Give a qcow2 file, or an address."
        )
    seen = sha256_of(path)
    if seen != sha256:
        raise BaseChecksumError(f"{path.name} has the SHA-256 {seen}, and {sha256} is pinned")


def check_sources(root: Path, packer: Packer, options: Options, watcher: Watcher, stop: Stop) -> None:
    """Refuse a template or playbooks with faults.

    Raises:
        HostBuildError: one has; its own words are in the message.
    """
    watcher.note("template: packer fmt, packer validate")
    for folder in (root / "packer", root / "packer/plugins"):
        fmt = run(["packer", "fmt", "-check", str(folder)], timeout=60, stop=stop)
        if not fmt.ok:
            told = (fmt.stdout or fmt.stderr).split()[:5]
            raise HostBuildError(
                f"not in the canonical format: {' '.join(told)}", next_step=f"Run packer fmt {folder}."
            )
    for stage in (Stage.BUILD, Stage.PROVISION):
        # What an earlier call left of a stage that is not done again stays as it is.
        if stage.number < options.start.number:
            continue
        packer.prepare(stage)
        argv = packer.argv(["validate"], stage, options.source, options.source_sha256)
        done = run(argv, timeout=120, stop=stop)
        if not done.ok:
            said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            told = [line for line in said if line.startswith("*")] or said[-1:]
            raise HostBuildError(f"packer validate: {'; '.join(line.lstrip('* ') for line in told)}")
    watcher.note("playbooks: syntax" + (", ansible-lint" if options.lint else ""))
    ansible = str(root / "scripts/ansible.sh")
    inventory = str(root / "ansible/inventories/build/hosts.yml")
    playbook = str(root / "ansible/playbooks/site.yml")
    syntax = [ansible, "ansible-playbook", "--syntax-check", "-i", inventory, playbook]
    checked(syntax, "ansible-playbook --syntax-check", timeout=300, stop=stop)
    if options.lint:
        lint = [ansible, "ansible-lint", "--offline", "--strict", "-q", "-c", str(root / "ansible/.ansible-lint.yml")]
        lint += ["--project-dir", str(root / "ansible"), str(root / "ansible")]
        checked(lint, "ansible-lint", timeout=900, stop=stop)
