"""The only file that talks to NVML.

Imports nothing but nvidia-ml-py, and that late: the recorder container and `vaultcube gpus` run on this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Self

from vaultcube.gpu.nvmlcodes import ABSENT, FATAL, FIELDS, LEVELS, P2P, PROBLEMS
from vaultcube.gpu.readings import GpuInfo, GpuProcess, Level, Link, NvmlError, Problem, Reading, XidEvent

# A symbol that the tests' simulated driver exports and NVIDIA's library does not.
SIMULATED_SYMBOL: Final = "vaultcube_rig_simulated"

_LINKS_MAX: Final = 18
_SWITCH: Final = "switch"


class Nvml:
    """NVML, open for as long as the context lasts. Not for use by several threads at once.

    Attributes:
        driver: the driver's version.
        cuda: the newest CUDA version that the driver runs, such as `13.0`.
        simulated: true when the library is a simulator's, started or not.
        missing: indices of the GPUs that `gpus` found not to answer, and why.

    Raises:
        NvmlError: on entering, when NVML does not start.
    """

    def __init__(self) -> None:
        self.driver = ""
        self.cuda: str | None = None
        self.simulated = False
        self.missing: list[tuple[int, Problem]] = []
        self._devices: list[Any] = []
        self._uuids: list[tuple[Any, str]] = []
        self._events: Any = None
        # What each device was found not to tell is not asked again.
        self._queries: dict[int, list[tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]]] = {}
        self._fields: dict[int, list[tuple[str, int]]] = {}

    def __enter__(self) -> Self:
        try:
            import pynvml
        except ImportError as error:
            raise NvmlError("no-library", f"the Python module nvidia-ml-py is not installed ({error})") from error

        self._nvml = pynvml
        self._absent = {getattr(pynvml, name) for name in ABSENT}
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise self._problem(error) from error
        finally:
            # Also of a driver that does not start.
            self.simulated = hasattr(pynvml.nvmlLib, SIMULATED_SYMBOL)
        try:
            self.driver = _text(self._ask(pynvml.nvmlSystemGetDriverVersion))
            version = self._optional(pynvml.nvmlSystemGetCudaDriverVersion_v2)
            self.cuda = None if version is None else f"{version // 1000}.{version % 1000 // 10}"
        except NvmlError:
            pynvml.nvmlShutdown()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError:
            # A driver that was taken away cannot be closed either.
            return

    def gpus(self) -> list[GpuInfo]:
        """Return the GPUs in PCI bus order. A GPU that is lost already is left out: `missing` counts it.

        Raises:
            NvmlError: NVML does not answer.
        """
        found = []
        self._devices, self._uuids, self.missing = [], [], []
        for index in range(self._ask(self._nvml.nvmlDeviceGetCount)):
            # A GPU that is listed and has no handle fell off the bus, and the driver calls that an unknown error.
            unknown: Problem = "lost"
            try:
                device = self._ask(self._nvml.nvmlDeviceGetHandleByIndex, index)
                unknown = "unknown"
                found.append(self._describe(index, device))
                self._devices.append(device)
                self._uuids.append((device, found[-1].uuid))
            except NvmlError as error:
                self.missing.append((index, unknown if error.problem == "unknown" else error.problem))
        return found

    def why_none(self) -> str:
        """Say why `gpus` returned none."""
        if self.missing:
            return f"the driver lists {len(self.missing)} GPU(s), and none answers"
        return "the driver lists no GPU"

    def read(self, position: int) -> Reading:
        """Return how a GPU is now. `position` counts in what `gpus` returned. Never raises on what NVML says."""
        if position not in self._queries:
            self._queries[position] = self._all_queries()
            self._fields[position] = list(FIELDS.items())
        try:
            return self._read(position)
        except NvmlError as error:
            return Reading(problem=error.problem)

    def _read(self, position: int) -> Reading:
        values: dict[str, Any] = {}
        absent, failed = [], None
        for query in self._queries[position]:
            names, ask = query
            try:
                values.update(zip(names, ask(self._devices[position]), strict=True))
            except self._nvml.NVMLError as error:
                problem = _survived(self._problem(error))
                if error.value in self._absent:
                    absent.append(query)
                if error.value not in self._absent or problem.problem == "permission":
                    failed = problem
        try:
            values.update(self._field_values(position))
        except NvmlError as error:
            failed = _survived(error)
        # One value that fails for once is a gap; a GPU of which nothing can be read has a problem.
        if failed is not None and not values:
            raise failed
        for query in absent:
            self._queries[position].remove(query)
        return Reading(**values)

    def processes(self, position: int) -> list[GpuProcess]:
        """Return the processes on a GPU; none where NVML does not tell."""
        device = self._devices[position]
        kinds: tuple[tuple[Literal["compute", "graphics"], Any], ...] = (
            ("compute", self._nvml.nvmlDeviceGetComputeRunningProcesses),
            ("graphics", self._nvml.nvmlDeviceGetGraphicsRunningProcesses),
        )
        found: dict[int, GpuProcess] = {}
        for kind, ask in kinds:
            try:
                for one in ask(device):
                    # A process that draws and computes is listed twice; computing is what counts.
                    found.setdefault(int(one.pid), GpuProcess(int(one.pid), kind, one.usedGpuMemory))
            except self._nvml.NVMLError:
                continue
        return list(found.values())

    def links(self, gpus: Sequence[GpuInfo]) -> list[Link]:
        """Return every pair of the GPUs that `gpus` returned, with how they reach each other.

        Raises:
            NvmlError: a GPU was lost meanwhile.
        """
        nvlinks = [self._nvlink_peers(device) for device in self._devices] if len(gpus) > 1 else []
        found = []
        for a in range(len(gpus)):
            for b in range(a + 1, len(gpus)):
                one, other = self._devices[a], self._devices[b]
                level = self._optional(self._nvml.nvmlDeviceGetTopologyCommonAncestor, one, other)
                p2p = self._optional(self._nvml.nvmlDeviceGetP2PStatus, one, other, 0)
                # Links into the switches of a board reach every GPU that has such links.
                switched = min(nvlinks[a].count(_SWITCH), nvlinks[b].count(_SWITCH))
                joined = nvlinks[a].count(_pci(gpus[b].pci_bus_id)) + switched
                near: Level | None = "NV" if joined else None if level is None else LEVELS.get(level)
                word = None if p2p is None else P2P[p2p] if p2p < len(P2P) else "U"
                found.append(Link(gpus[a].uuid, gpus[b].uuid, near, joined, word))
        return found

    def watch_xids(self) -> bool:
        """Begin to collect the Xid events of all GPUs; those before it are lost. Says whether any GPU reports them."""
        nvml = self._nvml
        try:
            self._events = self._ask(nvml.nvmlEventSetCreate)
        except NvmlError:
            return False
        watched = False
        for device in self._devices:
            try:
                nvml.nvmlDeviceRegisterEvents(device, nvml.nvmlEventTypeXidCriticalError, self._events)
                watched = True
            except nvml.NVMLError:
                continue
        return watched

    def xids(self) -> list[XidEvent]:
        """Return the Xid events since the last call, after `watch_xids`. Does not wait."""
        found: list[XidEvent] = []
        while self._events is not None:
            try:
                event = self._nvml.nvmlEventSetWait(self._events, 0)
            except self._nvml.NVMLError:
                # A timeout: there are no more.
                break
            found.append(XidEvent(self._uuid(event.device), int(event.eventData)))
        return found

    def _uuid(self, device: Any) -> str | None:
        if not device:
            return None
        # A lost GPU cannot say its name, and its handle is still the one that we know.
        known = next((uuid for one, uuid in self._uuids if _address(one) == _address(device)), None)
        try:
            return known or _text(self._nvml.nvmlDeviceGetUUID(device))
        except self._nvml.NVMLError:
            return None

    def _describe(self, index: int, device: Any) -> GpuInfo:
        nvml, must, ask = self._nvml, self._ask, self._optional
        major, minor = must(nvml.nvmlDeviceGetCudaComputeCapability, device)
        ecc, mig = ask(nvml.nvmlDeviceGetEccMode, device), ask(nvml.nvmlDeviceGetMigMode, device)
        persistence = ask(nvml.nvmlDeviceGetPersistenceMode, device)
        vbios = ask(nvml.nvmlDeviceGetVbiosVersion, device)
        return GpuInfo(
            uuid=_text(must(nvml.nvmlDeviceGetUUID, device)),
            index=index,
            name=_text(must(nvml.nvmlDeviceGetName, device)),
            pci_bus_id=_text(must(nvml.nvmlDeviceGetPciInfo, device).busId),
            compute_capability=f"{major}.{minor}",
            memory_total_bytes=int(must(nvml.nvmlDeviceGetMemoryInfo, device).total),
            cores=ask(nvml.nvmlDeviceGetNumGpuCores, device),
            memory_bus_bits=ask(nvml.nvmlDeviceGetMemoryBusWidth, device),
            sm_clock_max_mhz=ask(nvml.nvmlDeviceGetMaxClockInfo, device, nvml.NVML_CLOCK_SM),
            memory_clock_max_mhz=ask(nvml.nvmlDeviceGetMaxClockInfo, device, nvml.NVML_CLOCK_MEM),
            pcie_gen_max=ask(nvml.nvmlDeviceGetMaxPcieLinkGeneration, device),
            pcie_width_max=ask(nvml.nvmlDeviceGetMaxPcieLinkWidth, device),
            power_limit_mw=ask(nvml.nvmlDeviceGetEnforcedPowerLimit, device),
            temperature_limit_c=self._temperature_limit(device),
            numa_node=self._numa_node(device),
            ecc=None if ecc is None else bool(ecc[0]),
            mig=None if mig is None else bool(mig[0]),
            persistence=None if persistence is None else bool(persistence),
            vbios=None if vbios is None else _text(vbios),
        )

    def _numa_node(self, device: Any) -> int | None:
        """Return the lowest node whose memory is near. nvmlDeviceGetNumaNodeId is for GPUs that are nodes themselves."""
        nodes = self._optional(self._nvml.nvmlDeviceGetMemoryAffinity, device, 1, self._nvml.NVML_AFFINITY_SCOPE_NODE)
        mask = int(nodes[0]) if nodes else 0
        return (mask & -mask).bit_length() - 1 if mask else None

    def _temperature_limit(self, device: Any) -> int | None:
        """Return where the card slows down, in degrees Celsius: its margin from now on, or an older card's threshold."""
        nvml = self._nvml
        margin = self._optional(nvml.nvmlDeviceGetMarginTemperature, device)
        now = self._optional(nvml.nvmlDeviceGetTemperature, device, nvml.NVML_TEMPERATURE_GPU)
        if margin is not None and now is not None:
            return int(now + margin)
        limit = self._optional(nvml.nvmlDeviceGetTemperatureThreshold, device, nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
        return None if limit is None else int(limit)

    def _all_queries(self) -> list[tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]]:
        nvml = self._nvml

        def one(ask: Callable[..., Any], *args: Any) -> Callable[[Any], tuple[Any, ...]]:
            return lambda device: (ask(device, *args),)

        def rates(device: Any) -> tuple[int, int]:
            found = nvml.nvmlDeviceGetUtilizationRates(device)
            return found.gpu, found.memory

        def used(device: Any) -> tuple[int]:
            return (int(nvml.nvmlDeviceGetMemoryInfo(device).used),)

        uncorrected = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        return [
            (("temperature_c",), one(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU)),
            (("temperature_margin_c",), one(nvml.nvmlDeviceGetMarginTemperature)),
            (("power_mw",), one(nvml.nvmlDeviceGetPowerUsage)),
            (("energy_mj",), one(nvml.nvmlDeviceGetTotalEnergyConsumption)),
            (("sm_clock_mhz",), one(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM)),
            (("memory_clock_mhz",), one(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM)),
            (("utilisation_percent", "memory_utilisation_percent"), rates),
            (("memory_used_bytes",), used),
            (("fan_percent",), one(nvml.nvmlDeviceGetFanSpeed)),
            (("pstate",), one(nvml.nvmlDeviceGetPerformanceState)),
            (("pcie_gen",), one(nvml.nvmlDeviceGetCurrPcieLinkGeneration)),
            (("pcie_width",), one(nvml.nvmlDeviceGetCurrPcieLinkWidth)),
            (("clock_events",), one(nvml.nvmlDeviceGetCurrentClocksEventReasons)),
            (("ecc_uncorrected",), one(nvml.nvmlDeviceGetTotalEccErrors, *uncorrected)),
        ]

    def _field_values(self, position: int) -> dict[str, int]:
        """Ask for all fields in one call; a value that is not supported is left out and not asked again."""
        fields = self._fields[position]
        if not fields:
            return {}
        try:
            values = self._nvml.nvmlDeviceGetFieldValues(self._devices[position], [number for _, number in fields])
        except self._nvml.NVMLError as error:
            problem = self._problem(error)
            if error.value not in self._absent or problem.problem == "permission":
                raise problem from error
            fields.clear()
            return {}
        found: dict[str, int] = {}
        for (name, number), value in zip(fields.copy(), values, strict=True):
            if value.nvmlReturn in self._absent:
                fields.remove((name, number))
            elif value.nvmlReturn == 0:
                found[name] = _value(value)
            else:
                raise self._problem(self._nvml.NVMLError(value.nvmlReturn))
        return found

    def _nvlink_peers(self, device: Any) -> list[str]:
        """Return what is behind every active NVLink of a device: a PCI address, or `_SWITCH`."""
        found = []
        for link in range(_LINKS_MAX):
            state = self._optional(self._nvml.nvmlDeviceGetNvLinkState, device, link)
            if state is None:
                break
            if not state:
                continue
            kind = self._optional(self._nvml.nvmlDeviceGetNvLinkRemoteDeviceType, device, link)
            if kind == self._nvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
                found.append(_SWITCH)
                continue
            peer = self._optional(self._nvml.nvmlDeviceGetNvLinkRemotePciInfo, device, link)
            if peer is not None:
                found.append(_pci(_text(peer.busId)))
        return found

    def _ask(self, ask: Callable[..., Any], *args: Any) -> Any:
        try:
            return ask(*args)
        except self._nvml.NVMLError as error:
            raise self._problem(error) from error

    def _optional(self, ask: Callable[..., Any], *args: Any) -> Any:
        """Return NVML's answer, or None when this card, driver or user cannot have it.

        Raises:
            NvmlError: the GPU, or the whole driver, is gone.
        """
        try:
            return ask(*args)
        except self._nvml.NVMLError as error:
            problem = self._problem(error)
            if problem.problem in FATAL:
                raise problem from error
            return None

    def _problem(self, error: Any) -> NvmlError:
        known = next((word for name, word in PROBLEMS.items() if getattr(self._nvml, name) == error.value), None)
        return NvmlError(known or "unknown", str(error))


def _address(device: Any) -> int:
    """Return where the driver keeps a device, which is what a handle is."""
    from ctypes import addressof

    return addressof(device.contents)


def _survived(error: NvmlError) -> NvmlError:
    if error.problem in FATAL:
        raise error
    return error


def _pci(bus_id: str) -> str:
    """Return a PCI address in one spelling: NVML writes the domain with four digits or with eight."""
    domain, _, rest = bus_id.lower().partition(":")
    return f"{int(domain, 16):x}:{rest}"


def _value(field: Any) -> int:
    """Return a field's value by its own type: double, unsigned int, unsigned long, unsigned long long, signed, ..."""
    kinds = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
    return int(getattr(field.value, kinds[field.valueType] if field.valueType < len(kinds) else "ullVal"))


def _text(value: str | bytes) -> str:
    """Return text: nvidia-ml-py gives bytes in places, and which ones changes between its majors."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
