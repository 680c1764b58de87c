"""What can be known of a machine before anything is started on it: `vaultcube doctor`'s checks, each a pure function.

`facts.py` holds what was seen (`stack/facts.py` sees it); the other modules judge it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, Literal, NamedTuple

from vaultcube.gpu.preflight import containers, driver, engine, gpus, machine
from vaultcube.gpu.preflight.facts import Facts
from vaultcube.gpu.preflight.judged import Judged
from vaultcube.results.doctor import Finding

# What a FAIL means to a run on GPUs that is about to start: it cannot work, it is worth a note, or nothing (planning
# refuses the run by itself, or it is no matter of a single run).
Start = Literal["refuse", "note", "ignore"]


class Check(NamedTuple):
    """One check.

    Attributes:
        code: its name.
        judge: the check itself.
        needs: the fields of `Facts` that it looks at.
        start: what a FAIL means to a run on GPUs.
    """

    code: str
    judge: Callable[[Facts], Judged]
    needs: frozenset[str]
    start: Start

    def run(self, facts: Facts) -> Finding:
        """Return what the check finds."""
        status, seen, next_step = self.judge(facts)
        return Finding(code=self.code, status=status, seen=seen, next_step=next_step)


def _check(code: str, judge: Callable[[Facts], Judged], needs: str, start: Start = "ignore") -> Check:
    return Check(code, judge, frozenset(needs.split()), start)


# Whether there are GPUs to look at.
_GPUS: Final = "nvml pci"
_WAY: Final = f"{_GPUS} engine offers cdi toolkit"

CHECKS: Final = (
    _check("docker", engine.docker, f"engine {_GPUS}"),
    _check("socket-permission", engine.socket_permission, "engine"),
    _check("compose", engine.compose, "compose"),
    _check("buildx", engine.buildx, f"buildx images {_GPUS}"),
    _check("disk-images", engine.disk_images, f"engine images images_disk {_GPUS}"),
    _check("disk-results", engine.disk_results, "results_disk"),
    _check("toolkit", containers.toolkit, _WAY, "note"),
    _check("toolkit-version", containers.toolkit_version, f"toolkit {_GPUS}", "note"),
    _check("cdi-devices", containers.cdi_devices, _WAY, "refuse"),
    _check("pinning", containers.pinning, _WAY),
    _check("default-runtime", containers.default_runtime, f"engine {_GPUS}"),
    _check("env-leak", containers.env_leak, f"{_WAY} hook_config", "refuse"),
    _check("cgroup-driver", containers.cgroup_driver, _WAY, "note"),
    _check("driver", driver.driver, f"{_GPUS} nouveau secure_boot"),
    _check("gpu-visibility", driver.gpu_visibility, f"{_GPUS} driver faults", "note"),
    _check("driver-generation", driver.driver_generation, f"{_GPUS} driver", "refuse"),
    _check("driver-flavour", driver.driver_flavour, _GPUS, "refuse"),
    _check("flavour", driver.flavour, _GPUS),
    _check("nouveau", driver.nouveau, f"{_GPUS} nouveau"),
    _check("gpu-count", gpus.gpu_count, _GPUS),
    _check("pcie-link", gpus.pcie_link, _GPUS, "note"),
    _check("temperature", gpus.temperature, _GPUS, "note"),
    _check("slowdown", gpus.slowdown, _GPUS, "note"),
    _check("ecc", gpus.ecc, _GPUS, "note"),
    _check("mig", gpus.mig, _GPUS),
    _check("persistence", gpus.persistence, _GPUS),
    _check("gpu-processes", gpus.gpu_processes, f"{_GPUS} holders"),
    _check("shm", machine.shm, f"{_GPUS} memory"),
    _check("memlock", machine.memlock, f"{_GPUS} memlock", "note"),
    _check("ports", machine.ports, "ports", "refuse"),
    _check("clock", machine.clock, "synchronised"),
    _check("xid", machine.xid, f"{_GPUS} faults", "note"),
)
CODES: Final = tuple(check.code for check in CHECKS)


def needs(codes: Collection[str]) -> frozenset[str]:
    """Return the fields of `Facts` that these checks look at."""
    return frozenset[str]().union(*(check.needs for check in CHECKS if check.code in codes))


def examine(facts: Facts, codes: Collection[str]) -> list[Finding]:
    """Run these checks, in the order of all."""
    return [check.run(facts) for check in CHECKS if check.code in codes]
