"""Compiles the mock of libnvidia-ml.so.1 and its nvidia-smi, once for all boxes of a checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

SOURCES = Path(__file__).parent / "nvml"
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "rig"
SMI = "smi"

# No _GNU_SOURCE: with it a newer libc links against symbols that the libc of a Debian 12 container lacks.
COMMON = ["-std=c11", "-D_POSIX_C_SOURCE=200809L", "-O1", "-Wall", "-Wextra", "-Werror"]
# As NVIDIA's own: every exported name carries the SONAME as its version.
LIBRARY = ["-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-Wl,--default-symver", "-pthread"]


class Built(NamedTuple):
    """Where the compiled files are."""

    library: Path
    smi: Path


def build(compiler: str | None = None, cache: Path = CACHE) -> Built:
    """Compile what is not compiled yet. Safe for several processes at once: whoever is first to rename wins.

    Raises:
        RuntimeError: there is no C compiler, or it refuses the sources.
    """
    found = shutil.which(compiler or os.environ.get("CC", "cc"))
    if found is None:
        raise RuntimeError("the simulated box needs a C compiler: sudo apt-get install gcc libc6-dev")
    place = cache / _key(found)
    if not place.exists():
        cache.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix="building-", dir=cache))
        try:
            fresh.chmod(0o755)  # containers of any user load it
            _compile(found, fresh)
            fresh.rename(place)
        except OSError:
            if not place.exists():
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return Built(place / "libnvidia-ml.so.1", place / "nvidia-smi")


def sources() -> tuple[list[Path], list[Path]]:
    """Return the C files of the library and those of nvidia-smi."""
    files = sorted(SOURCES.glob("*.c"))
    return [one for one in files if not one.stem.startswith(SMI)], [one for one in files if one.stem.startswith(SMI)]


def _key(compiler: str) -> str:
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    digest.update(version + " ".join([*COMMON, *LIBRARY]).encode())
    return digest.hexdigest()[:16]


def _compile(compiler: str, into: Path) -> None:
    library, smi = sources()
    exports = f"-Wl,--version-script={SOURCES / 'exports.map'}"
    _run([compiler, *COMMON, *LIBRARY, exports, "-o", into / "libnvidia-ml.so.1", *library])
    _run([compiler, *COMMON, "-o", into / "nvidia-smi", *smi, "-ldl"])


def _run(argv: list[str | Path]) -> None:
    seen = subprocess.run(argv, capture_output=True, text=True, check=False)
    if seen.returncode:
        raise RuntimeError(f"the mock of NVML does not compile:\n{seen.stderr}")
