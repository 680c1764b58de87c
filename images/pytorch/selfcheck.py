"""Proves, without a GPU, that every CUDA library the framework loads is the pinned one and there only once.

Run it as `python3 -m selfcheck [--json]`. Exit codes: 0 all is well; 1 something is not, and what.
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
    from collections.abc import Callable, Iterable, Mapping, Sequence

Version = tuple[int, ...]

_MAPPED = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ +(?P<path>/.+)$")
_PINNED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)(?P<marker> *;)?")
_CUDA = re.compile(r"^lib(cu[a-z]|nv|nccl|cupti|cudnn)[A-Za-z0-9_-]*\.so")
_DRIVER = re.compile(r"^lib(cuda|nvidia-[a-z0-9-]+|nvcuvid|cudadebugger|nvidia_[a-z]+)\.so")
_CUDNN_PARTS = ("Graph", "Ops", "Cnn", "Adv")
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
    """Say whether a library's `version` is `pinned`, as far as the library tells: (12, 4, 5) is 12.4.5.8."""
    parts = pinned.partition("+")[0].split(".")
    return [str(part) for part in version] == parts[: len(version)]


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
"""How each library tells its version without a driver. All of them have to be there."""


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


def load_everything(files: Mapping[str, tuple[str, str]]) -> set[str]:
    """Have the loader resolve what the framework loads, at start or later; return the mapped paths.

    Raises:
        OSError, ImportError: something cannot be loaded; the text names it.
    """
    import torch
    import torchvision  # noqa: F401 - its extension's own needs count too

    for library in sorted((Path(torch.__file__).parent / "lib").glob("*.so*")):
        _open(str(library))
    for path in sorted(_mapped()):
        if stem(path) == "libcudnn":
            _load_cudnn_parts(path)
    mapped = _mapped()
    for name, (path, _) in sorted(files.items()):
        if _DLOPENED.match(name) and not any(other.endswith("/" + name) for other in mapped):
            ctypes.CDLL(path)
    return _mapped()


def _load_cudnn_parts(path: str) -> None:
    """Have cuDNN open its parts the way it does; it aborts where one is missing, so a process of its own tries first."""
    calls = "".join(f"status = status or cudnn.cudnn{part}VersionCheck()\n" for part in _CUDNN_PARTS)
    program = f"import ctypes, sys\ncudnn, status = ctypes.CDLL({path!r}), 0\n{calls}sys.exit(status and 1)"
    tried = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, errors="replace", check=False
    )
    if tried.returncode:
        why = tried.stderr.strip().splitlines() or ["their versions differ"]
        raise OSError(f"libcudnn cannot use its parts: {why[0]}")
    cudnn = ctypes.CDLL(path)
    for part in _CUDNN_PARTS:
        getattr(cudnn, f"cudnn{part}VersionCheck")()


def _open(path: str) -> None:
    try:
        ctypes.CDLL(path)
    except OSError as error:
        # The driver comes with the host's GPU; what else such a library needs is mapped by others.
        if "libcuda.so.1" not in str(error):
            raise


def _mapped() -> set[str]:
    return parse_maps(Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace"))


def inspect(
    mapped: Iterable[str],
    files: Mapping[str, tuple[str, str]],
    lock: Mapping[str, tuple[str, bool]],
    read: Callable[[str], Version | None],
) -> list[Finding]:
    """Judge the mapped CUDA libraries; `read(path)` returns what the library at `path` says its version is."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in mapped:
        name = path.rpartition("/")[2]
        if _CUDA.match(name) and not _DRIVER.match(name):
            # By stem: libcudart.so.11 beside libcudart.so.12 is one library too many as well.
            places[stem(path)].append(path)
    findings = []
    for library, paths in sorted(places.items()):
        findings.append(_judge(library, sorted(paths), files, lock, read))
    findings += [
        Finding(library, None, None, None, "is not loaded from anywhere")
        for library in READERS
        if library not in places
    ]
    return findings


def _judge(
    library: str,
    paths: list[str],
    files: Mapping[str, tuple[str, str]],
    lock: Mapping[str, tuple[str, bool]],
    read: Callable[[str], Version | None],
) -> Finding:
    path = paths[0]
    if len(paths) > 1:
        return Finding(library, path, None, None, f"is loaded from {len(paths)} places: {', '.join(paths)}")
    expected, distribution = files.get(path.rpartition("/")[2], (None, ""))
    if path != expected:
        return Finding(library, path, None, None, f"is not the one the locked wheels brought ({expected or 'none'})")
    pinned = lock.get(distribution, (None, False))[0]
    if pinned is None:
        return Finding(library, path, None, None, f"comes from {distribution}, which the lock does not name")
    try:
        version = read(path)
    except (OSError, AttributeError) as error:
        return Finding(library, path, None, pinned, f"does not tell its version: {error}")
    if version is None:
        return Finding(library, path, None, pinned, None)
    dotted = ".".join(str(part) for part in version)
    wrong = None if matches(version, pinned) else f"says it is {dotted}, the lock says {pinned}"
    return Finding(library, path, dotted, pinned, wrong)


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


def check(lock_path: Path) -> tuple[list[Finding], dict[str, Any]]:
    """Return all findings, and the versions of the framework itself."""
    lock = parse_lock(lock_path.read_text(encoding="utf-8"))
    try:
        files = library_files()
        mapped = load_everything(files)
        import torch
    except (OSError, ImportError, RuntimeError) as error:
        return [Finding("loader", None, None, None, str(error))], {}
    cuda = torch.version.cuda
    findings = distributions(lock, cuda=cuda is not None)
    # Without CUDA in the build (64-bit Arm), there is no library to look at.
    findings += inspect(mapped, files, lock, read_version) if cuda else []
    return findings, {"torch": torch.__version__, "cuda": cuda, "architectures": _architectures()}


def _architectures() -> list[str]:
    # torch.cuda.get_arch_list() answers only where there is a GPU.
    import torch

    flags = getattr(torch._C, "_cuda_getArchFlags", lambda: None)()  # noqa: SLF001
    return str(flags or "").split()


def main(argv: Sequence[str]) -> int:
    """Check, print, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m selfcheck", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--lock", type=Path, default=Path(__file__).with_name("lock.txt"), help="the requirement lock")
    arguments = parser.parse_args(argv)
    findings, framework = check(arguments.lock)
    problems = [finding for finding in findings if finding.problem]
    if arguments.json:
        document = {"ok": not problems, "framework": framework, "findings": [asdict(one) for one in findings]}
        print(json.dumps(document, indent=2))
    else:
        for one in findings:
            print(
                f"{'FAIL' if one.problem else 'ok':<5}{one.library:<34}{one.version or '-':<10}pinned {one.pinned or '-'}"
            )
    for one in problems:
        print(f"selfcheck: {one.library} {one.problem}", file=sys.stderr)
    if not arguments.json and not problems:
        print(f"ok: torch {framework['torch']}, CUDA {framework['cuda']}, {len(findings)} libraries")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
