"""Proves, without a GPU, that every CUDA library the framework loads is the pinned one and there only once.

Run it as `python3 -m selfcheck [--json]`. Exit codes: 0 all is well; 1 something is not, and what.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.libraries import (
    READERS,
    Finding,
    distributions,
    inspect,
    library_files,
    load_cudnn,
    load_the_rest,
    mapped,
    parse_lock,
    read_version,
    run,
    stem,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

REQUIRED = tuple(READERS)
_CUDNN_CHECKS = ("cudnnGraphVersionCheck", "cudnnOpsVersionCheck", "cudnnCnnVersionCheck", "cudnnAdvVersionCheck")


def load_everything(files: Mapping[str, tuple[str, str]]) -> set[str]:
    """Have the loader resolve what the framework loads, at start or later; return the mapped paths.

    Raises:
        OSError, ImportError: something cannot be loaded; the text names it.
    """
    import torch
    import torchvision  # noqa: F401 - its extension's own needs count too

    for library in sorted((Path(torch.__file__).parent / "lib").glob("*.so*")):
        _open(str(library))
    for path in sorted(mapped()):
        if stem(path) == "libcudnn":
            load_cudnn(path, _CUDNN_CHECKS)
    load_the_rest(files)
    return mapped()


def _open(path: str) -> None:
    try:
        ctypes.CDLL(path)
    except OSError as error:
        # The driver comes with the host's GPU; what else such a library needs is mapped by others.
        if "libcuda.so.1" not in str(error):
            raise


def check(lock_path: Path) -> tuple[list[Finding], dict[str, Any]]:
    """Return all findings, and the versions of the framework itself."""
    lock = parse_lock(lock_path.read_text(encoding="utf-8"))
    try:
        files = library_files()
        paths = load_everything(files)
        import torch
    except (OSError, ImportError, RuntimeError) as error:
        return [Finding("loader", None, None, None, str(error))], {}
    cuda = torch.version.cuda
    findings = distributions(lock, cuda=cuda is not None)
    # Without CUDA in the build (64-bit Arm), there is no library to look at.
    findings += inspect(paths, files, lock, REQUIRED, read_version) if cuda else []
    return findings, {"torch": torch.__version__, "cuda": cuda, "architectures": _architectures()}


def _architectures() -> list[str]:
    # torch.cuda.get_arch_list() answers only where there is a GPU.
    import torch

    flags = getattr(torch._C, "_cuda_getArchFlags", lambda: None)()  # noqa: SLF001
    return str(flags or "").split()


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:], (__doc__ or "").splitlines()[0], Path(__file__).with_name("lock.txt"), check))
