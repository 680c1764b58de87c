"""The stand-in for the PyTorch image: built and kept on this machine's own engine, loaded into the rig's.

It answers to the names of the real images, and only in the rig's engine; tests/rig/standin/program.py says what it does.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.rig.engine import ROOT, RigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.rig.engine import RigEngine

FLAVOURS = ("cu124", "cu128")
NAME = "vaultcube/pytorch"
RECORDER = "vaultcube/recorder:any"
KEPT = "vaultcube-rig/standin"
PYTHON = "vaultcube-rig/python"
BASES = ("vaultcube/base:bookworm", "debian:bookworm-slim")
HERE = Path(__file__).parent / "standin"
SOURCES = (HERE, ROOT / "images/common", ROOT / "images/pytorch/ddp")
BUILD_LIMIT_S = 600


def load(engine: RigEngine) -> None:
    """Put the stand-in into the rig's engine, as vaultcube/pytorch:cu124 and :cu128.

    Raises:
        RigError: this machine's own engine does not answer, has no base image, or cannot build.
    """
    kept = [f"{KEPT}:{flavour}-{fingerprint()}" for flavour in FLAVOURS]
    if not all(_docker("image", "ls", "--quiet", name) for name in kept):
        build(kept)
    _copy(engine, kept)
    for flavour, name in zip(FLAVOURS, kept, strict=True):
        engine.ask("tag", name, f"{NAME}:{flavour}")
    engine.ask("image", "rm", *kept)


def load_recorder(engine: RigEngine) -> bool:
    """Put this machine's image of the recorder into the rig's engine; say whether there is one.

    Raises:
        RigError: it cannot be copied.
    """
    found = bool(_docker("image", "ls", "--quiet", RECORDER))
    if found:
        _copy(engine, [RECORDER])
    return found


def _copy(engine: RigEngine, names: Sequence[str]) -> None:
    save = subprocess.Popen(["docker", "save", *names], stdout=subprocess.PIPE)
    with save:
        read = subprocess.run(
            ["docker", "--host", engine.host, "load", "--quiet"],
            stdin=save.stdout,
            check=False,
            capture_output=True,
            text=True,
        )
    if save.returncode or read.returncode:
        raise RigError(f"{', '.join(names)} cannot be copied into the rig's engine: {read.stderr}")


def fingerprint() -> str:
    """Return a short hash of everything that the stand-in is made of, the base image apart."""
    digest = hashlib.sha256((ROOT / "images/pytorch/Dockerfile").read_bytes())
    for folder in SOURCES:
        for file in sorted(path for path in folder.rglob("*") if path.suffix in {".py", ""} and path.is_file()):
            digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def build(names: list[str]) -> None:
    """Build the stand-in on this machine's own engine, one image a flavour, and forget older ones.

    Raises:
        RigError: as named for `load`.
    """
    old = _docker("image", "ls", "--filter", f"reference={KEPT}", "--format", "{{.Repository}}:{{.Tag}}").split()
    before = _docker("image", "ls", "--quiet", "--no-trunc", PYTHON)
    # As the real image has it, so that its cache serves.
    python = ["--file", "images/pytorch/Dockerfile", "--target", "python", "--build-arg", f"BASE_IMAGE={_base()}"]
    if bundle := next((os.environ[name] for name in ("PIP_CERT", "SSL_CERT_FILE") if os.environ.get(name)), None):
        python += ["--secret", f"id=ca,src={bundle}"]
    _docker("build", "--quiet", *python, "--tag", PYTHON, "images")
    rig = ["--file", str(HERE / "Dockerfile"), "--build-context", f"rig={HERE}", "--build-arg", f"PYTHON={PYTHON}"]
    for flavour, name in zip(FLAVOURS, names, strict=True):
        _docker("build", "--quiet", *rig, "--build-arg", f"FLAVOUR={flavour}", "--tag", name, "images")
    gone = set(old) - set(names)
    if before != _docker("image", "ls", "--quiet", "--no-trunc", PYTHON):
        gone.add(before)
    # Names before the image that they were built on. Another run may have been here first, which is no failure.
    for one in sorted(gone - {""}, reverse=True):
        subprocess.run(["docker", "image", "rm", one], capture_output=True, timeout=60, check=False)


def pace(box: Path, step_s: float) -> None:
    """Let every step of the stand-in take this long from now on, also in containers that run; seconds."""
    fresh = box / "state/step_s.new"
    fresh.write_text(f"{step_s:g}")
    fresh.rename(box / "state/step_s")


def _base() -> str:
    wanted = os.environ.get("BASE_IMAGE") or os.environ.get("VAULTCUBE_BASE_IMAGE")
    names = [wanted] if wanted else BASES
    for name in names:
        if _docker("image", "ls", "--quiet", name):
            return name
    raise RigError(f"the rig needs a base image, and none of {', '.join(names)} is here (scripts/base-image.sh)")


def _docker(*args: str) -> str:
    """Ask this machine's own engine."""
    seen = subprocess.run(
        ["docker", *args], cwd=ROOT, capture_output=True, text=True, timeout=BUILD_LIMIT_S, check=False
    )
    if seen.returncode:
        raise RigError(f"docker {args[0]} on this machine's own engine: {seen.stderr.strip()[-800:]}")
    return seen.stdout.strip()
