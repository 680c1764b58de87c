"""Machines to judge: the customer's box in good health, and what can be different about one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vaultcube.gpu.pinning import PinningFacts
from vaultcube.gpu.preflight import CHECKS
from vaultcube.gpu.preflight.facts import (
    Asked,
    CdiSpecs,
    Disk,
    Driver,
    Engine,
    Facts,
    Holders,
    HookConfig,
    Memlock,
    Memory,
    Nvml,
    PciGpu,
    Port,
    Toolkit,
    Unseen,
)
from vaultcube.gpu.readings import GpuInfo, Reading
from vaultcube.results.doctor import Finding
from vaultcube.results.profile import Hardware

UUIDS = tuple(f"GPU-0000000{index}-aaaa-bbbb-cccc-{index:012d}" for index in range(4))
HARDWARE = Hardware(
    gpu_name="NVIDIA GeForce RTX 5090", gpu_count=4, gpu_memory_total_bytes=34190917632, compute_capability="12.0"
)
NO_LIBRARY = Unseen("NVML: NVML Shared Library Not Found", "no-library")


def card(index: int = 0, **changes: Any) -> GpuInfo:
    """Return an RTX 5090."""
    found = GpuInfo(
        uuid=UUIDS[index] if index < 4 else f"GPU-{index:08x}-aaaa-bbbb-cccc-{index:012d}",
        index=index,
        name="NVIDIA GeForce RTX 5090",
        pci_bus_id=f"00000000:{0x01 + 0x10 * index:02X}:00.0",
        compute_capability="12.0",
        memory_total_bytes=34190917632,
        pcie_gen_max=5,
        pcie_width_max=16,
        temperature_limit_c=90,
        persistence=True,
    )
    return found._replace(**changes)


def reading(**changes: Any) -> Reading:
    """Return an idle card's."""
    found = Reading(temperature_c=34, temperature_margin_c=56, pcie_gen=1, pcie_width=16, clock_events=0x1)
    return found._replace(**changes)


def nvml(count: int = 4, *, driver: str = "580.95.05", now: Reading | None = None, **changes: Any) -> Nvml:
    """Return NVML of a box with so many RTX 5090, each changed like this."""
    gpus = tuple(card(index, **changes) for index in range(count))
    return Nvml(driver, "13.0", gpus, (now or reading(),) * count)


def one_of(whole: Nvml, index: int, now: Reading | None = None, **changes: Any) -> Nvml:
    """Return NVML with one GPU changed."""
    gpus = [gpu._replace(**changes) if gpu.index == index else gpu for gpu in whole.gpus]
    readings = [now or old if at == index else old for at, old in enumerate(whole.readings)]
    return whole._replace(gpus=tuple(gpus), readings=tuple(readings))


def box(**changes: Any) -> Facts:
    """Return the customer's box in good health, with these facts instead."""
    healthy = Facts(
        asked=Asked(hardware=HARDWARE, profile="vault-cube-5090", build_bytes=18 * 10**9),
        engine=Engine("28.3.3", "/var/lib/docker", frozenset({"runc"}), "runc", "systemd", ("/etc/cdi",)),
        compose="2.39.1",
        buildx="0.26.1",
        images=frozenset({"vaultcube/pytorch:cu128"}),
        images_disk=Disk("/var/lib/docker", 500 * 10**9),
        results_disk=Disk("/home/ada/runs", 500 * 10**9),
        toolkit=Toolkit("1.18.1", "/usr/bin/nvidia-container-runtime-hook"),
        hook_config=HookConfig("/etc/nvidia-container-runtime/config.toml", accepts_envvar=False),
        offers=PinningFacts(frozenset({"0", "1", "2", "3", "all", *UUIDS}), hook=True),
        cdi=CdiSpecs(("/etc/cdi/nvidia.yaml",), frozenset({"580.95.05"})),
        driver=Driver("580.95.05", open_modules=True),
        nouveau=False,
        secure_boot=False,
        pci=tuple(PciGpu(f"0000:{0x01 + 0x10 * index:02x}:00.0", 0x2B85) for index in range(4)),
        nvml=nvml(),
        holders=Holders(tuple((uuid, ()) for uuid in UUIDS)),
        memory=Memory(256 * 2**30, 128 * 2**30),
        memlock=Memlock(None, may_raise=True),
        ports=(Port(8000, "vllm", taken=False),),
        synchronised=True,
        faults=(),
    )
    return replace(healthy, **changes)


def bare(**changes: Any) -> Facts:
    """Return a machine without any GPU or driver, with these facts instead."""
    none: dict[str, Any] = {
        "offers": PinningFacts(None, hook=False),
        "toolkit": Toolkit(None, None),
        "hook_config": Unseen("no such file"),
        "cdi": CdiSpecs(),
        "driver": Unseen("no such file"),
        "pci": (),
        "nvml": NO_LIBRARY,
        "holders": NO_LIBRARY,
        "images": frozenset({"vaultcube/pytorch:cu124"}),
    }
    return box(**{**none, **changes})


def found(code: str, facts: Facts) -> Finding:
    """Return what one check finds."""
    return next(check for check in CHECKS if check.code == code).run(facts)
