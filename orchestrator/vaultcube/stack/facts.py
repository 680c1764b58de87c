"""Looks at a machine for `vaultcube doctor`: docker, NVML and files, side by side. What cannot be seen is `Unseen`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from vaultcube.errors import InterruptedRunError, VaultCubeError
from vaultcube.gpu.leases import derive
from vaultcube.gpu.nvml import Nvml
from vaultcube.gpu.preflight import facts as known
from vaultcube.gpu.preflight.facts import Asked, Engine, Facts, Holders, Toolkit, Unseen
from vaultcube.gpu.preflight.parse import parse_engine
from vaultcube.gpu.readings import GpuInfo, NvmlError
from vaultcube.gpu.versions import parse_toolkit_version
from vaultcube.stack import host
from vaultcube.stack.docker import PROBE_S, Docker, compose_version
from vaultcube.stack.dockerwords import checked
from vaultcube.stack.leases import read_leases
from vaultcube.stack.pinning import find_hook, pinning_facts
from vaultcube.stack.process import Child, CommandTimeoutError, Finished

# Port and workload of what is published when a service runs.
USUAL_PORTS: Final = ((8000, "vllm"),)
_ARGS: Final = {
    "engine": ["info", "--format", "{{json .}}"],
    "compose": ["compose", "version", "--short"],
    "buildx": ["buildx", "version"],
    "images": ["image", "ls", "--filter", "reference=vaultcube/*", "--format", "{{.Repository}}:{{.Tag}}"],
}
# What follows from what the engine says.
_OF_ENGINE: Final = frozenset({"offers", "cdi", "images_disk", "holders"})
_HOST: Final[dict[str, Callable[[], Any]]] = {
    "driver": host.read_driver,
    "pci": host.read_pci,
    "nouveau": host.read_nouveau,
    "secure_boot": host.read_secure_boot,
    "hook_config": host.read_hook_config,
    "memory": host.read_memory,
    "memlock": host.read_memlock,
    "synchronised": host.read_synchronised,
    "faults": host.read_faults,
}


class _Questions:
    """Programs that were asked something at once; each answer is waited for until one common deadline."""

    def __init__(self, docker: Docker, fields: Collection[str]) -> None:
        self._docker = docker
        self._children: dict[str, Child] = {}
        self._answers: dict[str, Any] = {}
        self._deadline = time.monotonic() + PROBE_S
        for name, args in _ARGS.items():
            if name in fields:
                try:
                    self._children[name] = docker.start(args)
                except VaultCubeError as error:
                    self._answers[name] = Unseen(error.message, error.code)
        if "toolkit" in fields:
            try:
                self._children["toolkit"] = Child(["nvidia-ctk", "--version"])
            except OSError as error:
                missing = isinstance(error, FileNotFoundError)
                self._answers["toolkit"] = (
                    Toolkit(None, find_hook()) if missing else Unseen(f"nvidia-ctk: {error.strerror}")
                )

    def answer(self, name: str) -> Any:
        """Return what a program answered, or why there is no answer."""
        if name not in self._answers:
            self._answers[name] = self._wait(name)
        return self._answers[name]

    def _wait(self, name: str) -> Any:
        try:
            left = max(0.1, self._deadline - time.monotonic())
            return _READERS[name](self._children[name].result(timeout=left, stop=self._docker.stop))
        except VaultCubeError as error:
            if isinstance(error, InterruptedRunError):
                raise
            return Unseen(error.message, error.code)
        except CommandTimeoutError as error:
            return Unseen(str(error), "engine-unreachable")

    def close(self) -> None:
        """End what still runs."""
        for child in self._children.values():
            child.end()


def look(
    fields: Collection[str],
    asked: Asked,
    *,
    docker: Docker,
    results_root: Path | None = None,
    ports: Iterable[tuple[int, str]] = USUAL_PORTS,
) -> Facts:
    """Return these fields of `Facts`; the others stay not looked at.

    Args:
        fields: which ones.
        asked: what the machine is held against; passed through.
        docker: the engine. Its `stop` ends the looking.
        results_root: where runs are kept; None where nobody needs to know.
        ports: number and workload of the ports to look at.

    Raises:
        InterruptedRunError: a stop was asked for.
    """
    wanted = set(fields) | ({"engine"} if _OF_ENGINE & set(fields) else set())
    questions = _Questions(docker, wanted)
    try:
        seen: dict[str, Any] = {name: read() for name, read in _HOST.items() if name in wanted}
        if "results_disk" in wanted and results_root is not None:
            seen["results_disk"] = host.read_disk(results_root, writable=True)
        if "ports" in wanted:
            seen["ports"] = host.read_ports(ports)
        if "nvml" in wanted:
            seen |= _nvml(
                lambda nvml, gpus: (
                    _holders(docker, nvml, gpus, questions.answer("engine")) if "holders" in wanted else None
                )
            )
        seen |= {name: questions.answer(name) for name in _READERS if name in wanted}
        if "engine" in wanted:
            seen |= _of_engine(seen["engine"])
    finally:
        questions.close()
    simulated = host.is_simulated() or seen.get("simulated", False)
    return Facts(asked, simulated, **{name: value for name, value in seen.items() if name in wanted})


def _engine(seen: Finished) -> Engine | Unseen:
    try:
        return parse_engine(json.loads(checked(seen).stdout))
    except ValueError:
        return Unseen("docker info is no JSON")


def _buildx(seen: Finished) -> str | Unseen:
    words = seen.stdout.split()
    version = next((word for word in words if word.lstrip("v")[:1].isdecimal()), None)
    return version.lstrip("v") if seen.ok and version else Unseen("docker has no buildx plugin", "buildx-missing")


def _toolkit(seen: Finished) -> Toolkit | Unseen:
    version = parse_toolkit_version(seen.stdout) if seen.ok else None
    return Toolkit(version, find_hook()) if version else Unseen("nvidia-ctk --version does not say its version")


_READERS: Final[dict[str, Callable[[Finished], Any]]] = {
    "engine": _engine,
    "compose": compose_version,
    "buildx": _buildx,
    "images": lambda seen: frozenset(checked(seen).stdout.split()),
    "toolkit": _toolkit,
}


def _of_engine(engine: Engine | Unseen) -> dict[str, Any]:
    if isinstance(engine, Unseen):
        return dict.fromkeys(("offers", "cdi", "images_disk"), engine)
    offers = pinning_facts({"CDISpecDirs": engine.cdi_dirs, "Runtimes": engine.runtimes})
    return {
        "offers": offers if engine.cdi_devices is None else offers._replace(cdi=engine.cdi_devices),
        "cdi": host.read_cdi(engine.cdi_dirs),
        "images_disk": host.read_disk(Path(engine.root_dir or "/"), writable=False),
    }


def _nvml(holders: Callable[[Nvml, Sequence[GpuInfo]], Holders | None]) -> dict[str, Any]:
    """Return what NVML says, and who holds the GPUs."""
    nvml = Nvml()
    try:
        with nvml:
            gpus = nvml.gpus()
            readings = tuple(nvml.read(position) for position in range(len(gpus)))
            seen = known.Nvml(nvml.driver, nvml.cuda, tuple(gpus), readings, tuple(nvml.missing))
            return {"nvml": seen, "holders": holders(nvml, gpus), "simulated": nvml.simulated}
    except NvmlError as error:
        unseen = Unseen("NVML does not answer (see driver)")
        return {"nvml": Unseen(str(error), error.problem), "holders": unseen, "simulated": nvml.simulated}


def _holders(docker: Docker, nvml: Nvml, gpus: Sequence[GpuInfo], engine: Engine | Unseen) -> Holders:
    """Return who holds GPUs; an engine that did not answer once is not asked again."""
    if isinstance(engine, Unseen):
        found = derive(gpus, (), {gpu.uuid: nvml.processes(at) for at, gpu in enumerate(gpus)})
        notes: tuple[str, ...] = ("which containers hold GPUs cannot be seen: no engine answers (see docker)",)
    else:
        found = read_leases(docker, nvml, gpus)
        notes = found.notes
    return Holders(tuple((uuid, tuple(one.said for one in by)) for uuid, by in found.items()), notes)
