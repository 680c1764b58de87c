"""What a run will do, decided before anything is started. Pure: no clock, no subprocess, no environment."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from vaultcube.errors import UsageError
from vaultcube.gpu.flavours import Flavour, choose_flavour
from vaultcube.gpu.inventory import Inventory
from vaultcube.gpu.pinning import Method, PinningFacts, choose_pinning
from vaultcube.gpu.selection import NOBODY, GpuRequest, Held, choose
from vaultcube.results.profile import Profile
from vaultcube.results.schema import Gpu, Model
from vaultcube.workloads import DeviceKind, Recorder, Workload

MEMORY_UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# The service of compose/recorder.yml, and its image.
RECORDER_SERVICE, RECORDER_IMAGE = "recorder", "vaultcube/recorder:any"
# Docker itself refuses a container with less; no machine has more.
MEMORY_FLOOR, MEMORY_CEILING = 6 * 2**20, 2**50


class Node(Model):
    """A machine and the GPUs used on it, by UUID. There is one today; the plan names it so that there can be more."""

    name: str
    gpus: tuple[str, ...]


class Request(Model):
    """What the user asked for, after parsing.

    Attributes:
        preset: a preset's name, or null for the device's own.
        given: parameters named on the command line; null ones are not given.
        flavour: `auto` or a flavour.
        timeout_s: the run's time limit in seconds, or null for the workload's own.
        memory_bytes: the container's memory limit, or null for the compose file's.
        ranks: ranks on the CPU, or null for as many as `cpu_ranks`; on GPUs there is one a GPU.
        recorder: what records telemetry of the GPUs, or null for the workload's own.
        telemetry_hz: how many samples a second it takes.
        share: take GPUs that somebody holds.
    """

    gpus: GpuRequest
    preset: str | None = None
    given: dict[str, Any] = Field(default_factory=dict)
    flavour: str = "auto"
    timeout_s: float | None = None
    memory_bytes: int | None = None
    ranks: int | None = Field(default=None, ge=1, le=1024)
    recorder: Recorder | None = None
    telemetry_hz: float = Field(default=1.0, ge=0.1, le=10)
    share: bool = False


class Plan(Model):
    """One run, complete: everything that is needed to start it, and later to judge it on another machine.

    Attributes:
        kernel_log: the kernel's log that a recorder in a container reads; null when this machine has none for it.
        pinning: the engine's driver that hands out the GPUs; null in a draft, which nothing was asked about.
        pinning_reason: why that one.
        pins: the GPUs' names to that driver, in the order of `gpus`.
        shared: a sentence for every GPU that somebody else holds too.
    """

    schema_: Literal["vaultcube.plan/1"] = Field(default="vaultcube.plan/1", alias="schema")
    run_id: str
    created: datetime
    workload: str
    service: str
    device: DeviceKind
    world_size: int
    flavour: Flavour
    flavour_reason: str
    image: str
    nodes: tuple[Node, ...]
    gpus: tuple[Gpu, ...]
    driver: str | None
    simulated: bool
    params: dict[str, Any]
    profile: Profile
    command: tuple[str, ...]
    data_folders: dict[str, str]
    compose_files: tuple[str, ...]
    user: str
    memory_bytes: int | None
    timeout_s: float
    recorder: Recorder = "off"
    telemetry_hz: float = 1.0
    kernel_log: str | None = None
    pinning: Method | None = None
    pinning_reason: str = ""
    pins: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    @property
    def images(self) -> tuple[str, ...]:
        """The images that the run needs."""
        return (self.image, RECORDER_IMAGE) if self.recorder == "container" else (self.image,)

    @property
    def indices(self) -> str:
        """The GPUs as a person counts them, `0, 2`."""
        return ", ".join(str(gpu.index) for gpu in self.gpus)

    def to_json(self) -> str:
        """Return the document as indented JSON with a newline at its end."""
        return self.model_dump_json(indent=2, by_alias=True) + "\n"


def make_plan(
    workload: Workload,
    request: Request,
    *,
    profile: Profile,
    inventory: Inventory,
    run_id: str,
    created: datetime,
    user: str,
    cpu_ranks: int = 2,
    held: Held = NOBODY,
    engine: PinningFacts | None = None,
    kernel_log: str | None = None,
) -> Plan:
    """Decide everything about a run.

    Args:
        workload: which one.
        request: what the user asked for.
        profile: the acceptance targets.
        inventory: the GPUs that are there.
        run_id: also the compose project's name.
        created: now, in UTC.
        user: `uid:gid` that the container runs as.
        cpu_ranks: how many ranks a run on the CPU has when nobody says.
        held: who holds which GPU.
        engine: what it offers for pinning; None makes a draft, good for being refused early and for runs on the CPU.
        kernel_log: where this machine's kernel log is, if anywhere.

    Raises:
        UsageError, BadParameterError, GpuSelectionError, GpuUnavailableError, GpuBusyError, MigError, PinningError,
        FlavourError, ProfileError: as named.
    """
    gpus = () if request.flavour == Flavour.CPU and request.gpus.kind == "auto" else _gpus(request, inventory, held)
    flavour, reason = choose_flavour(request.flavour, gpus)
    device: DeviceKind = "cuda" if gpus else "cpu"
    params = workload.resolve(request.preset, request.given, device)
    workload.targets(profile)
    if gpus and request.ranks is not None:
        raise UsageError(
            "--ranks is for runs on the CPU: on GPUs there is one rank a GPU",
            next_step="Choose the number of GPUs with --gpus, or add --gpus none.",
        )
    world_size = len(gpus) or request.ranks or cpu_ranks
    pinning = choose_pinning(engine, gpus) if gpus and engine else None
    # The cu124 image runs on the CPU as it is: there is no third one to build and keep.
    tag = Flavour.CU124 if flavour is Flavour.CPU else flavour
    recorder: Recorder = (request.recorder or workload.recorder) if gpus else "off"
    files = (f"{workload.name}.yml",) + (() if gpus else (f"{workload.name}.cpu.yml",))
    files += (f"{RECORDER_SERVICE}.yml",) if recorder == "container" else ()
    return Plan(
        run_id=run_id,
        created=created,
        workload=workload.name,
        service=workload.service,
        device=device,
        world_size=world_size,
        flavour=flavour,
        flavour_reason=reason,
        image=f"vaultcube/{workload.image}:{tag}",
        nodes=(Node(name="localhost", gpus=tuple(gpu.uuid for gpu in gpus)),),
        gpus=gpus,
        driver=inventory.driver,
        simulated=inventory.simulated and bool(gpus),
        params=params.model_dump(),
        profile=profile,
        command=tuple(workload.command(params, world_size=world_size, device=device)),
        data_folders=workload.data_folders(params),
        compose_files=files,
        user=user,
        memory_bytes=request.memory_bytes,
        recorder=recorder,
        telemetry_hz=request.telemetry_hz,
        kernel_log=kernel_log if recorder == "container" else None,
        timeout_s=request.timeout_s or workload.timeout_s(params, world_size=world_size, device=device),
        pinning=pinning.method if pinning else None,
        pinning_reason=pinning.reason if pinning else "",
        pins=pinning.devices if pinning else (),
        shared=tuple(
            f"GPU {gpu.index} was shared with {holder.said}" for gpu in gpus for holder in held.get(gpu.uuid, ())
        ),
    )


def _gpus(request: Request, inventory: Inventory, held: Held) -> tuple[Gpu, ...]:
    return choose(request.gpus, inventory.gpus, inventory.reason, held=held, links=inventory.links, share=request.share)


def parse_memory(text: str) -> int:
    """Read a size in Docker's way (`512m`, `8g`) and return bytes.

    Raises:
        UsageError: it is none, or not one that a container can have.
    """
    found = re.fullmatch(r"([0-9]{1,16})([bkmgt]?)b?", text.strip().lower())
    size = int(found[1]) * MEMORY_UNITS[found[2]] if found else 0
    if not MEMORY_FLOOR <= size <= MEMORY_CEILING:
        raise UsageError(f"--memory {text!r} is no size from 6m to 1024t", next_step="Write it as 512m or 8g.")
    return size


def parse_duration(text: str) -> float:
    """Read a duration (`90`, `90s`, `30m`, `24h`, `1.5d`) and return seconds, more than 0 and at most 366 days.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhd]?)", text.strip().lower())
    seconds = float(found[1]) * DURATION_UNITS[found[2] or "s"] if found else 0.0
    if not 0 < seconds <= 366 * DURATION_UNITS["d"]:
        raise UsageError(f"{text!r} is no duration", next_step="Write it as 90s, 30m or 24h.")
    return seconds
