"""A simulated box: a directory with a mock of NVML, what it says, and the faults that can be put into it.

    box = Box(tmp_path / "box")                       # four RTX 5090, healthy and idle
    subprocess.run([...], env={**os.environ, **box.env()})
    box.load(0)
    box.lose(2, xid=True)
    box.heal()

A running process sees a change within a second (`reread_ms`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tests.rig import profiles
from tests.rig.host import kernel_bus_id
from tests.rig.scenario import HW_THERMAL, MAX_EVENTS, POWER_BRAKE, SW_THERMAL, Event, Process, Scenario, SimGpu, Value
from tests.rig.store import ERROR, INFO, WARNING, Store

HW_SLOWDOWN = 0x8
FALLEN = 79


class Box(Store):
    """A box, and what can be done to it.

    Args:
        path: a directory of its own; what it holds of another box is replaced.
        profile: one of `profiles.LAYOUTS`.
        jitter: whether sensors waver around their values, as real ones do.

    Raises:
        ValueError: there is no such profile.
        RuntimeError: the mock cannot be compiled.
    """

    def __init__(self, path: Path, profile: str = "4x5090", *, jitter: bool = True) -> None:
        super().__init__(path)
        self.create(profile, jitter=jitter)

    @classmethod
    def open(cls, path: Path) -> Box:
        """Return a box that is there already, as it is.

        Raises:
            FileNotFoundError: there is none.
        """
        if not (path / "profile").exists():
            raise FileNotFoundError(f"there is no simulated box at {path}")
        box = cls.__new__(cls)
        Store.__init__(box, path)
        return box

    def env(self) -> dict[str, str]:
        """Return the variables that put a process into the box; they must be set before it starts."""
        return {
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [f"{self.path}/lib", os.environ.get("LD_LIBRARY_PATH")])),
            "PATH": os.pathsep.join(filter(None, [f"{self.path}/bin", os.environ.get("PATH")])),
            "VAULTCUBE_RIG": str(self.path),
            "VAULTCUBE_KERNEL_LOG": str(self.kmsg_path),
            "VAULTCUBE_HOST_ROOT": f"{self.path}/host",
        }

    @property
    def uuids(self) -> list[str]:
        """The GPUs' UUIDs, by index."""
        return [gpu.text("uuid") for gpu in self.read().gpus]

    def set(self, **values: Value | None) -> None:
        """Change the driver's readings; None takes one away.

        Raises:
            ValueError: there is no such reading, or it cannot have this value.
        """
        with self.edit() as scenario:
            scenario.set(**values)

    def set_gpu(self, index: int, **values: Value | None) -> None:
        """Change a GPU's readings; None, like the word `unsupported`, means that it has none.

        Raises:
            ValueError: there is no such reading, or it cannot have this value.
            IndexError: there is no such GPU.
        """
        with self.edit() as scenario:
            scenario.gpu(index).set(**values)

    def add_process(
        self,
        index: int,
        pid: int,
        memory_bytes: int,
        kind: str = "compute",
        *,
        sm_percent: int = 0,
        memory_percent: int = 0,
    ) -> None:
        """Let a process use a GPU; its memory comes on top of what is used already."""
        with self.edit() as scenario:
            process = Process(kind, pid, memory_bytes, sm_percent, memory_percent)
            scenario.gpu(index).processes.append(process)

    def clear_processes(self, index: int) -> None:
        """Take all processes off a GPU."""
        with self.edit() as scenario:
            scenario.gpu(index).processes.clear()

    def load(self, *indices: int) -> None:
        """Let GPUs work as hard as they can; without an index, all of them."""
        self._sensors(indices, load=True)

    def idle(self, *indices: int) -> None:
        """Let GPUs rest; without an index, all of them."""
        self._sensors(indices, load=False)

    def _sensors(self, indices: Iterable[int], *, load: bool) -> None:
        with self.edit() as scenario:
            for index in list(indices) or range(len(scenario.gpus)):
                scenario.gpu(index).set(**self.layout.card.sensors(load=load))

    def kmsg(self, text: str, priority: int = INFO) -> None:
        """Write a line into the kernel log."""
        self.log([text], priority)

    # Faults

    def xid(self, index: int, code: int, text: str = "", *, log: bool = True, event: bool = True) -> None:
        """Report an Xid, in the kernel log and as an NVML event; each can miss what the other has."""
        with self.edit() as scenario:
            gpu = scenario.gpu(index)
            if event:
                _add_event(scenario, index, code)
        if log:
            what = text or "pid='<unknown>', name=<unknown>, Ch 00000008"
            self.kmsg(f"NVRM: Xid (PCI:{kernel_bus_id(gpu)}): {code}, {what}", ERROR)

    def lose(self, index: int, *, xid: bool = True) -> None:
        """Let a GPU fall off the bus, with an Xid 79 or, as also happens, without any."""
        with self.edit() as scenario:
            gpu = scenario.gpu(index)
            gpu.set(lost=1)
            if xid:
                _add_event(scenario, index, FALLEN)
        self.log(_fallen(gpu) if xid else [_not_responding(gpu)], ERROR)

    def aer_storm(self, index: int, lines: int) -> None:
        """Let the port above a GPU report corrected PCIe errors, so many lines of them."""
        with self.edit() as scenario:
            gpu = scenario.gpu(index)
        port, address = _port(gpu), f"{kernel_bus_id(gpu)}.0"
        device = f"[10de:{gpu.number('pci_device_id') >> 16:04x}]"
        report = f"pcieport {port}: AER: Corrected error received: {address}"
        details = [
            f"nvidia {address}: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)",
            f"nvidia {address}:   device {device} error status/mask=00000001/0000a000",
            f"nvidia {address}:    [ 0] RxErr                  (First)",
        ]
        of_port = [" SUBSYSTEM=pci_express", f" DEVICE=+pci_express:{port}:pcie002"]
        self.log([report, *of_port, *details, *([report, *of_port] * (lines - 1))][: None if lines else 0], WARNING)

    def thermal_slowdown(self, index: int) -> None:
        """Let a GPU reach its limit, where software and hardware both take its clocks down."""
        self._throttle(index, SW_THERMAL | HW_THERMAL | HW_SLOWDOWN, 2)
        self.set_gpu(index, temperature_c=self.layout.card.hot_c + 2, fan_percent=100)

    def power_brake(self, index: int) -> None:
        """Let the power supply ask for less: the hardware halves the clocks."""
        self._throttle(index, POWER_BRAKE | HW_SLOWDOWN, 2)

    def _throttle(self, index: int, reasons: int, divisor: int) -> None:
        with self.edit() as scenario:
            gpu = scenario.gpu(index)
            gpu.set(**self.layout.card.sensors(load=True))
            gpu.set(reasons=gpu.number("reasons") | reasons)
            for key in ("clock_sm_mhz", "clock_graphics_mhz", "power_mw"):
                gpu.set(**{key: gpu.number(key) // divisor})

    def hot(self, index: int) -> None:
        """Bring a GPU to a degree below its limit; nothing slows down yet."""
        self.set_gpu(index, temperature_c=self.layout.card.hot_c - 1)

    def pcie_width(self, index: int, width: int) -> None:
        """Let a GPU's link come up with fewer lanes."""
        self.set_gpu(index, pcie_width=width)

    def pcie_gen(self, index: int, gen: int) -> None:
        """Let a GPU's link come up with an older generation."""
        self.set_gpu(index, pcie_gen=gen, pcie_gen_max=gen)

    def replay_growth(self, index: int, per_second: float) -> None:
        """Let a GPU's PCIe replay counter grow."""
        self.set_gpu(index, pcie_replay_per_minute=round(per_second * 60))

    def energy_reset(self, index: int) -> None:
        """Let a GPU's energy counter begin again, as when the driver is loaded anew."""
        self.set_gpu(index, energy_mj=0)

    def driver_mismatch(self, *, running: bool = False) -> None:
        """Update the driver under the kernel module: new processes fail, and running ones too if asked for."""
        self.set(init_error="mismatch", query_error="mismatch" if running else "none")

    def permission_denied(self, *, running: bool = False) -> None:
        """Let the driver refuse this user."""
        self.set(init_error="permission", query_error="permission" if running else "none")

    def mig(self, index: int, devices: int) -> None:
        """Cut a GPU into MIG devices; 0 makes it whole. A cut GPU has no utilisation of its own."""
        percent: Value = "unsupported" if devices else 0
        mode = int(devices > 0)
        self.set_gpu(index, mig_mode=mode, mig_pending=mode, mig_devices=devices, util_gpu=percent, util_memory=percent)

    def heal(self) -> None:
        """Take every fault back. Load, processes, settings of the mock and all counters stay."""
        with self.edit() as scenario:
            healthy = profiles.scenario(self.profile)
            kept = ("reread_ms", "jitter", "seed", "epoch_ns")
            scenario.system = {
                **healthy.system,
                **{key: scenario.system[key] for key in kept if key in scenario.system},
            }
            for gpu, fresh in zip(scenario.gpus, healthy.gpus, strict=True):
                _heal(gpu, fresh, self.layout.card.sensors(load=gpu.number("load") == 1))


def _heal(gpu: SimGpu, fresh: SimGpu, sensors: dict[str, Value]) -> None:
    """Give a GPU its profile's readings back, except where it has counted on."""
    counters = {
        key: value
        for key, value in gpu.values.items()
        if isinstance(value, int)
        and (key.startswith(("violation_", "counters_")) or key in {"energy_mj", "pcie_replay"})
    }
    gpu.values = {**fresh.values, **sensors, **counters}


def _add_event(scenario: Scenario, index: int, code: int) -> None:
    last = max((event.sequence for event in scenario.events), default=0)
    scenario.events = [*scenario.events, Event(last + 1, index, code)][-MAX_EVENTS:]


def _port(gpu: SimGpu) -> str:
    """Return the root port above a GPU, as an EPYC or Threadripper numbers them."""
    bus = int(gpu.text("bus_id")[9:11], 16)
    return f"0000:{bus & 0xE0:02x}:01.1"


def _fallen(gpu: SimGpu) -> list[str]:
    """What open modules 580 and 595 write when an RTX 5090 is gone (open-gpu-kernel-modules issue 1151)."""
    address = kernel_bus_id(gpu)
    return [
        f"NVRM: GPU at PCI:{address}: {gpu.text('uuid')}",
        "NVRM: GPU Board Serial Number: 0",
        f"NVRM: Xid (PCI:{address}): {FALLEN}, GPU has fallen off the bus.",
        f"NVRM: GPU {address}.0: GPU has fallen off the bus.",
        f"NVRM: GPU {address}.0: GPU serial number is 0.",
        f"NVRM: kgspRcAndNotifyAllChannels_IMPL: RC all channels for critical error {FALLEN}.",
    ]


def _not_responding(gpu: SimGpu) -> str:
    """One record of three lines, and no Xid (NVSentinel issue 155)."""
    return (
        f"NVRM: The NVIDIA GPU {kernel_bus_id(gpu)}.0\n"
        f"NVRM: (PCI ID: 10de:{gpu.number('pci_device_id') >> 16:04x}) installed in this system has\n"
        "NVRM: fallen off the bus and is not responding to commands."
    )
