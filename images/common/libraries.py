"""What the self-checks of the images share: which CUDA libraries a process has mapped, and what is wrong with them.

Nothing here needs a GPU, a driver or a framework. Versions are tuples of numbers, as far as a library tells: (12, 4).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
import subprocess  # noqa: TID251 - the rule is the package's; a library that aborts must not take the check along
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

Version = tuple[int, ...]

_MAPPED = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ +(?P<path>/.+)$")
_PINNED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)(?P<marker> *;)?")
_CUDA = re.compile(r"^lib(cu[a-z]|nv|nccl|cupti|cudnn)[A-Za-z0-9_-]*\.so")
_DRIVER = re.compile(r"^lib(cuda|nvidia-[a-z0-9-]+|nvcuvid|cudadebugger|nvidia_[a-z]+)\.so")
_DLOPENED = re.compile(r"^lib(cudnn_|nvrtc-builtins)")
"""Opened by their own family, by name, when first needed: no loader error tells of them before that."""


@dataclass(frozen=True)
class Finding:
    """One library: where the loader took it from, what it says it is, and what is wrong with that (None: nothing)."""

    library: str
    path: str | None
    version: str | None
    pinned: str | None
    problem: str | None


def parse_maps(text: str) -> set[str]:
    """Return the paths of the shared objects in a /proc/PID/maps."""
    found = (_MAPPED.match(line) for line in text.splitlines())
    return {match["path"] for match in found if match and ".so" in match["path"].rpartition("/")[2]}


def parse_lock(text: str) -> dict[str, tuple[str, bool]]:
    """Return {distribution: (version, whether only some platforms want it)} of a requirement lock."""
    found = (_PINNED.match(line) for line in text.splitlines())
    return {match["name"].lower(): (match["version"], bool(match["marker"])) for match in found if match}


def matches(version: Version, pinned: str) -> bool:
    """Say whether a library's `version` is `pinned`, as far as both tell: (12, 4, 5) is 12.4.5.8, and it is 12.4."""
    parts = pinned.partition("+")[0].split(".")
    return all(str(part) == wanted for part, wanted in zip(version, parts, strict=False))


def dotted(version: Version) -> str:
    """Return "12.4" for (12, 4)."""
    return ".".join(str(part) for part in version)


def stem(path: str) -> str:
    """Return "libcudart" for "/x/libcudart.so.12"."""
    return path.rpartition("/")[2].split(".so", maxsplit=1)[0]


def _by_property(symbol: str) -> Callable[[ctypes.CDLL], Version]:
    def read(library: ctypes.CDLL) -> Version:
        function, value = getattr(library, symbol), ctypes.c_int()
        parts = []
        for kind in range(3):  # major, minor, patch
            status = function(kind, ctypes.byref(value))
            if status:
                raise OSError(f"{symbol} returns {status}")
            parts.append(value.value)
        return tuple(parts)

    return read


def _by_pair(symbol: str) -> Callable[[ctypes.CDLL], Version]:
    def read(library: ctypes.CDLL) -> Version:
        major, minor = ctypes.c_int(), ctypes.c_int()
        status = getattr(library, symbol)(ctypes.byref(major), ctypes.byref(minor))
        if status:
            raise OSError(f"{symbol} returns {status}")
        return major.value, minor.value

    return read


def _by_number(symbol: str, split: Callable[[int], Version]) -> Callable[[ctypes.CDLL], Version]:
    def read(library: ctypes.CDLL) -> Version:
        value = ctypes.c_int()
        status = getattr(library, symbol)(ctypes.byref(value))
        if status:
            raise OSError(f"{symbol} returns {status}")
        return split(value.value)

    return read


def runtime_version(number: int) -> Version:
    """Return (12, 4) for 12040, as the CUDA runtime counts."""
    return number // 1000, number % 1000 // 10


def nccl_version(number: int) -> Version:
    """Return (2, 21, 5) for 22105, as NCCL counts."""
    return number // 10000, number // 100 % 100, number % 100


READERS: Mapping[str, Callable[[ctypes.CDLL], Version]] = {
    "libcudart": _by_number("cudaRuntimeGetVersion", runtime_version),
    "libcublas": _by_property("cublasGetProperty"),
    "libcublasLt": _by_property("cublasLtGetProperty"),
    "libcudnn": _by_property("cudnnGetProperty"),
    "libcufft": _by_property("cufftGetProperty"),
    "libcurand": _by_property("curandGetProperty"),
    "libcusolver": _by_property("cusolverGetProperty"),
    "libcusparse": _by_property("cusparseGetProperty"),
    "libcusparseLt": _by_property("cusparseLtGetProperty"),
    "libnccl": _by_number("ncclGetVersion", nccl_version),
    "libnvJitLink": _by_pair("nvJitLinkVersion"),
    "libnvrtc": _by_pair("nvrtcVersion"),
}
"""How each library tells its version without a driver."""


def library_files() -> dict[str, tuple[str, str]]:
    """Return {file name: (path, distribution)} of the CUDA libraries that installed distributions brought.

    Raises:
        RuntimeError: two distributions brought the same one.
    """
    found: dict[str, tuple[str, str]] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"].lower()
        if not name.startswith("nvidia-"):
            continue
        for file in distribution.files or []:
            if _CUDA.match(file.name):
                if file.name in found:
                    raise RuntimeError(f"{file.name} comes from both {found[file.name][1]} and {name}")
                found[file.name] = (str(Path(str(file.locate())).resolve()), name)
    return found


def load_cudnn(path: str, checks: Sequence[str]) -> None:
    """Have the cuDNN at `path` open its parts the way it does, by calling the version checks with these names.

    It aborts where a part is missing, so a process of its own tries first.

    Raises:
        OSError: it cannot use its parts.
    """
    calls = "".join(f"status = status or cudnn.{check}()\n" for check in checks)
    program = f"import ctypes, sys\ncudnn, status = ctypes.CDLL({path!r}), 0\n{calls}sys.exit(status and 1)"
    tried = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, errors="replace", check=False
    )
    if tried.returncode:
        why = tried.stderr.strip().splitlines() or ["their versions differ"]
        raise OSError(f"libcudnn cannot use its parts: {why[0]}")
    cudnn = ctypes.CDLL(path)
    for check in checks:
        getattr(cudnn, check)()


def load_the_rest(files: Mapping[str, tuple[str, str]]) -> None:
    """Load what its own family opens by name, when first needed, and nobody has opened yet.

    Raises:
        OSError: one of them cannot be loaded.
    """
    here = mapped()
    for name, (path, _) in sorted(files.items()):
        if _DLOPENED.match(name) and not any(other.endswith("/" + name) for other in here):
            ctypes.CDLL(path)


def mapped() -> set[str]:
    """Return the paths of the shared objects this process has mapped."""
    return parse_maps(Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace"))


def inspect(
    paths: Iterable[str],
    files: Mapping[str, tuple[str, str]],
    lock: Mapping[str, tuple[str, bool]],
    required: Collection[str],
    read: Callable[[str], Version | None],
    base: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Judge the mapped CUDA libraries.

    Args:
        paths: the mapped ones, all of this process.
        files: what the wheels brought, from library_files.
        lock: what was locked, from parse_lock.
        required: the stems that have to be among them.
        read: returns what the library at a path says its version is, None when it has no way to tell.
        base: {stem: version} of libraries that are not the wheels' but the base image's own; None for no such base.
    """
    places: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        name = path.rpartition("/")[2]
        if _CUDA.match(name) and not _DRIVER.match(name):
            # By stem: libcudart.so.11 beside libcudart.so.12 is one library too many as well.
            places[stem(path)].append(path)
    findings = []
    for library, found in sorted(places.items()):
        pinned, wrong = _pin(min(found), files, lock, base)
        findings.append(_judge(library, sorted(found), pinned, wrong, read))
    findings += [
        Finding(library, None, None, None, "is not loaded from anywhere")
        for library in required
        if library not in places
    ]
    return findings


def _pin(
    path: str,
    files: Mapping[str, tuple[str, str]],
    lock: Mapping[str, tuple[str, bool]],
    base: Mapping[str, str] | None,
) -> tuple[str | None, str | None]:
    """Return the version a library must have, if any is told, and what is wrong with where it is."""
    expected, distribution = files.get(path.rpartition("/")[2], (None, ""))
    if base is not None and expected is None:
        return base.get(stem(path)), None
    if path != expected:
        return None, f"is not the one the locked wheels brought ({expected or 'none'})"
    pinned = lock.get(distribution, (None, False))[0]
    return pinned, None if pinned else f"comes from {distribution}, which the lock does not name"


def _judge(
    library: str, paths: list[str], pinned: str | None, wrong: str | None, read: Callable[[str], Version | None]
) -> Finding:
    path = paths[0]
    if len(paths) > 1:
        return Finding(library, path, None, None, f"is loaded from {len(paths)} places: {', '.join(paths)}")
    if wrong:
        return Finding(library, path, None, pinned, wrong)
    try:
        version = read(path)
    except (OSError, AttributeError) as error:
        return Finding(library, path, None, pinned, f"does not tell its version: {error}")
    if version is None or pinned is None:
        return Finding(library, path, None if version is None else dotted(version), pinned, None)
    wrong = None if matches(version, pinned) else f"says it is {dotted(version)}, the lock says {pinned}"
    return Finding(library, path, dotted(version), pinned, wrong)


def read_version(path: str) -> Version | None:
    """Ask the mapped library at `path` for its version; None when it has no way to tell."""
    reader = READERS.get(stem(path))
    return reader(ctypes.CDLL(path)) if reader else None


def distributions(lock: Mapping[str, tuple[str, bool]], *, cuda: bool) -> list[Finding]:
    """Compare what is installed with the lock; `cuda` says whether this build of the framework uses CUDA."""
    findings = []
    for name, (pinned, elsewhere) in sorted(lock.items()):
        installed = _installed(name)
        if installed is None:
            if not elsewhere or (cuda and name.startswith("nvidia-")):
                findings.append(Finding(name, None, None, pinned, "is not installed"))
        elif installed.partition("+")[0] != pinned:
            findings.append(
                Finding(name, None, installed, pinned, f"is installed as {installed}, the lock says {pinned}")
            )
    return findings


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def run(
    argv: Sequence[str], about: str, lock: Path, check: Callable[[Path], tuple[list[Finding], dict[str, Any]]]
) -> int:
    """Check, print, and return the exit code: 0 all is well, 1 something is not, and what.

    Args:
        argv: `--json` and `--lock FILE` are understood.
        about: what is proved, in a sentence.
        lock: the image's requirement lock.
        check: returns all findings about a lock, and the versions of the framework itself.
    """
    parser = argparse.ArgumentParser(prog="python3 -m selfcheck", description=about)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--lock", type=Path, default=lock, help="the requirement lock")
    arguments = parser.parse_args(argv)
    findings, framework = check(arguments.lock)
    problems = [finding for finding in findings if finding.problem]
    if arguments.json:
        document = {"ok": not problems, "framework": framework, "findings": [asdict(one) for one in findings]}
        print(json.dumps(document, indent=2))
    else:
        for one in findings:
            told = f"{one.library:<34}{one.version or '-':<10}pinned {one.pinned or '-'}"
            print(f"{'FAIL' if one.problem else 'ok':<5}{told}")
    for one in problems:
        print(f"selfcheck: {one.library} {one.problem}", file=sys.stderr)
    if not arguments.json and not problems:
        versions = ", ".join(
            f"{name.upper() if name == 'cuda' else name} {value}"
            for name, value in framework.items()
            if isinstance(value, str)
        )
        print(f"ok: {versions}, {len(findings)} checks")
    return 1 if problems else 0
