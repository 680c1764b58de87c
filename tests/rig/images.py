"""The stand-ins for our images: built and kept on this machine's own engine, loaded into the rig's.

They answer to the names of the real images, and only in the rig's engine; what they do is said in tests/rig/standin.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.rig.engine import ROOT, RigError

if TYPE_CHECKING:
    from tests.rig.engine import RigEngine

FLAVOURS = ("cu124", "cu128")
NAME = "vaultcube/pytorch"
RECORDER = "vaultcube/recorder:any"
PROXY = "vaultcube/proxy:any"
PYTHON = "vaultcube-rig/python"
BASES = ("vaultcube/base:bookworm", "debian:bookworm-slim")
HERE = Path(__file__).parent / "standin"
PACKAGE = ROOT / "orchestrator/vaultcube"
BUILD_LIMIT_S = 600
# How the real image of vLLM takes our programs.
COPIES = re.compile(
    r"^COPY (?P<package>--from=vaultcube )?--chmod=755 (?P<sources>.+) /opt/vaultcube/(?:common|vaultcube|serve|measure)\b.*$",
    re.MULTILINE,
)
# The soak's worker, its loads and what it asks of PyTorch's devices replaced.
SOAK = """\
COPY --chmod=755 pytorch/stress /opt/vaultcube/stress
COPY --from=rig --chmod=755 stress/main.py /opt/vaultcube/stress/__main__.py
COPY --from=rig --chmod=755 stress/engine.py /opt/vaultcube/stress/engine.py
COPY --from=rig --chmod=755 stress/gpu.py /opt/vaultcube/ddp/gpu.py"""
COPIES_HERE = "# Here tests/rig/images.py puts "


@dataclass(frozen=True)
class Standin:
    """A stand-in for one image.

    Attributes:
        name: the image's, without its flavour.
        folder: its Dockerfile and programs.
        kept: its name on this machine's own engine.
        sources: what else it is made of.
        copies: lines of its Dockerfile that the real one says.
        args: arguments of its build, `NAME=VALUE`.
    """

    name: str
    folder: Path
    kept: str
    sources: tuple[Path, ...]
    copies: str = ""
    args: tuple[str, ...] = ()

    def load(self, engine: RigEngine) -> None:
        """Put it into the rig's engine, in every flavour that needs a GPU.

        Raises:
            RigError: this machine's own engine does not answer, has no base image, or cannot build.
        """
        kept = [f"{self.kept}:{flavour}-{self.fingerprint()}" for flavour in FLAVOURS]
        if not all(_docker("image", "ls", "--quiet", name) for name in kept):
            self._build(kept)
        copy(engine, kept)
        for flavour, name in zip(FLAVOURS, kept, strict=True):
            engine.ask("tag", name, f"{self.name}:{flavour}")
        engine.ask("image", "rm", *kept)

    def fingerprint(self) -> str:
        """Return a short hash of everything that it is made of, the base image apart."""
        digest = hashlib.sha256(
            (ROOT / "images/pytorch/Dockerfile").read_bytes() + repr((self.copies, self.args)).encode()
        )
        for file in _files((self.folder, *self.sources)):
            digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
        return digest.hexdigest()[:12]

    def _build(self, names: list[str]) -> None:
        """Build it on this machine's own engine, one image a flavour, and forget older ones."""
        old = _docker("image", "ls", "--filter", f"reference={self.kept}", "--format", "{{.Repository}}:{{.Tag}}")
        before = _docker("image", "ls", "--quiet", "--no-trunc", PYTHON)
        # As the real image has it, so that its cache serves.
        python = ["--file", "images/pytorch/Dockerfile", "--target", "python", "--build-arg", f"BASE_IMAGE={_base()}"]
        if bundle := next((os.environ[name] for name in ("PIP_CERT", "SSL_CERT_FILE") if os.environ.get(name)), None):
            python += ["--secret", f"id=ca,src={bundle}"]
        _docker("build", "--quiet", *python, "--tag", PYTHON, "images")
        text = re.sub(rf"^{re.escape(COPIES_HERE)}.*$", self.copies, self._dockerfile(), flags=re.MULTILINE)
        rig = ["--file", "-", "--build-context", f"rig={self.folder}", "--build-context", f"vaultcube={PACKAGE}"]
        rig += [word for arg in (f"PYTHON={PYTHON}", *self.args) for word in ("--build-arg", arg)]
        for flavour, name in zip(FLAVOURS, names, strict=True):
            _docker("build", "--quiet", *rig, "--build-arg", f"FLAVOUR={flavour}", "--tag", name, "images", text=text)
        gone = set(old.split()) - set(names)
        if before != _docker("image", "ls", "--quiet", "--no-trunc", PYTHON):
            gone.add(before)
        # Names before the image that they were built on. Another run may have been here first, which is no failure.
        for one in sorted(gone - {""}, reverse=True):
            subprocess.run(["docker", "image", "rm", one], capture_output=True, timeout=60, check=False)

    def _dockerfile(self) -> str:
        return (self.folder / "Dockerfile").read_text()


def pytorch() -> Standin:
    """Return the one for PyTorch: the real launcher of ddp, sleeping where PyTorch would compute, and the soak's worker.

    Of the worker everything is real but the loads: those are of the simulated card (standin/training/stress).
    """
    return _training("pytorch", "ddp", "vaultcube-rig/standin", (ROOT / "images/pytorch/stress",), SOAK)


def tensorflow() -> Standin:
    """Return the one for TensorFlow: the real launcher of mirrored, sleeping where TensorFlow would compute."""
    return _training("tensorflow", "mirrored", "vaultcube-rig/tensorflow")


def _training(image: str, program: str, kept: str, more: tuple[Path, ...] = (), copies: str = "") -> Standin:
    sources = (ROOT / "images/common", ROOT / "images/training", ROOT / "images" / image / program, *more)
    args = (f"IMAGE={image}", f"PROGRAM={program}")
    return Standin(f"vaultcube/{image}", HERE / "training", kept, sources, copies, args)


def vllm() -> Standin:
    """Return the one for vLLM: the real launcher and client, over a `vllm` that answers with words."""
    found = list(COPIES.finditer((ROOT / "images/vllm/Dockerfile").read_text()))
    sources = tuple(
        (PACKAGE if one["package"] else ROOT / "images") / source for one in found for source in one["sources"].split()
    )
    return Standin("vaultcube/vllm", HERE / "vllm", "vaultcube-rig/vllm", sources, "\n".join(one[0] for one in found))


def load_recorder(engine: RigEngine) -> bool:
    """Put this machine's image of the recorder into the rig's engine; say whether there is one.

    Raises:
        RigError: it cannot be copied.
    """
    return _load(engine, RECORDER)


def load_proxy(engine: RigEngine) -> bool:
    """Put this machine's image of the proxy into the rig's engine; say whether there is one.

    Raises:
        RigError: it cannot be copied.
    """
    return _load(engine, PROXY)


def _load(engine: RigEngine, name: str) -> bool:
    found = bool(_docker("image", "ls", "--quiet", name))
    if found:
        copy(engine, [name])
    return found


def copy(engine: RigEngine, names: Sequence[str]) -> None:
    """Put images of this machine's own engine into the rig's.

    Raises:
        RigError: they cannot be copied.
    """
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


def _files(sources: Iterable[Path]) -> list[Path]:
    found = [path for source in sources for path in (source.rglob("*") if source.is_dir() else [source])]
    return sorted(path for path in found if path.suffix in {".py", ""} and path.is_file())


def breaks(box: Path, faults: Mapping[str, str]) -> None:
    """Break the loads of soaks from now on, by UUID, as STRESS_FAULT would (`flip:fp32:all`), and tell nobody."""
    fresh = box / "state/stress_fault.new"
    fresh.write_text("".join(f"{uuid} {fault}\n" for uuid, fault in faults.items()))
    fresh.rename(box / "state/stress_fault")


def pace(box: Path, step_s: float) -> None:
    """Let every step of a stand-in that trains take this long from now on, also in containers that run; seconds."""
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


def _docker(*args: str, text: str | None = None) -> str:
    """Ask this machine's own engine, with a text on stdin where there is one."""
    seen = subprocess.run(
        ["docker", *args], cwd=ROOT, capture_output=True, text=True, input=text, timeout=BUILD_LIMIT_S, check=False
    )
    if seen.returncode:
        raise RigError(f"docker {args[0]} on this machine's own engine: {seen.stderr.strip()[-800:]}")
    return seen.stdout.strip()
