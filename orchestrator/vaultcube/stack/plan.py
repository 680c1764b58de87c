"""What a run will do, decided before anything is started. Pure: no clock, no subprocess, no environment."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import count
from typing import Any, Literal

from pydantic import ConfigDict, Field

from vaultcube.errors import FlavourError, InstanceNameError, UsageError
from vaultcube.gpu.flavours import ANY, Flavour, choose_flavour
from vaultcube.gpu.inventory import Inventory
from vaultcube.gpu.pinning import Method, Pinning, PinningFacts, choose_pinning
from vaultcube.gpu.selection import NOBODY, GpuRequest, Held, choose
from vaultcube.results.profile import Profile
from vaultcube.results.schema import Gpu, Model
from vaultcube.workloads import DeviceKind, Params, Recorder, Service, Soak, Workload

# The images' own user.
IMAGE_USER = 10001
INSTANCE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
# The service of compose/recorder.yml, and its image.
RECORDER_SERVICE, RECORDER_IMAGE = "recorder", "vaultcube/recorder:any"
# The service of compose/proxy.yml, and its image.
PROXY_SERVICE, PROXY_IMAGE = "proxy", "vaultcube/proxy:any"


class Node(Model):
    """A machine and the GPUs used on it, by UUID. There is one today; the plan names it so that there can be more."""

    name: str
    gpus: tuple[str, ...]


class Server(Model):
    """A replica of a service, or a worker: its compose service, GPUs by UUID, and their names to the engine's driver."""

    service: str
    command: tuple[str, ...]
    gpus: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()


class Address(Model):
    """Where a service answers on this machine."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The address as a client on this machine says it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 - any of its addresses
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{self.port}"


# `bench` ends by itself and is judged, `up` leaves a service running, a `soak` ends by itself whoever started it.
Purpose = Literal["bench", "up", "soak"]


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
        purpose: what for.
        name: of the instance that `up` starts, or null for the first that is free.
        address: where it is to answer; null in a request of `bench`.
        secrets: names of the secrets that are given to it, never their values.
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
    purpose: Purpose = "bench"
    name: str | None = None
    address: Address | None = None
    secrets: tuple[str, ...] = ()


class Plan(Model):
    """One run, complete: everything that is needed to start it, and later to judge it on another machine.

    Attributes:
        kernel_log: the kernel's log that a recorder in a container reads; null when this machine has none for it.
        pinning: the engine's driver that hands out the GPUs; null in a draft, which nothing was asked about.
        pinning_reason: why that one.
        pins: the GPUs' names to that driver, in the order of `gpus`.
        shared: a sentence for every GPU that somebody else holds too.
        purpose: what the run is for.
        instance: the name of the service that it leaves running.
        servers: the replicas of a service; none for a job, and for the measurement of a running instance.
        workers: of a soak, one a GPU.
        judge: the arguments of `vaultcube` in the container that judges a soak.
        address: where the service answers on this machine, if it does.
        cache: the volume that keeps models.
        secrets: the names of the secrets that its containers are given.
        target: the run id of the running instance that is measured.
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
    purpose: Purpose = "bench"
    instance: str = ""
    servers: tuple[Server, ...] = ()
    workers: tuple[Server, ...] = ()
    judge: tuple[str, ...] = ()
    address: Address | None = None
    cache: str = ""
    secrets: tuple[str, ...] = ()
    target: str = ""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    @property
    def images(self) -> tuple[str, ...]:
        """The images that the run needs."""
        # The judge of a soak is in the recorder's image.
        recorder = (RECORDER_IMAGE,) if self.recorder == "container" or self.judge else ()
        return (self.image, *((PROXY_IMAGE,) if self.proxied else ()), *recorder)

    @property
    def proxied(self) -> bool:
        """Whether one address stands in front of several servers."""
        return len(self.servers) > 1

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
    taken: Collection[str] = (),
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
        taken: the names of the instances that are running.

    Raises:
        UsageError, BadParameterError, GpuSelectionError, GpuUnavailableError, GpuBusyError, MigError, PinningError,
        FlavourError, ProfileError, InstanceNameError: as named.
    """
    request = _counted(workload, request, inventory)
    gpus = () if request.flavour == Flavour.CPU and request.gpus.kind == "auto" else _gpus(request, inventory, held)
    flavour, reason = choose_flavour(request.flavour, gpus, workload.kernels)
    device: DeviceKind = "cuda" if gpus else "cpu"
    params = _params(workload, request, device, len(gpus) if gpus else None)
    workload.targets(profile)
    if gpus and request.ranks is not None:
        raise UsageError(
            "--ranks is for runs on the CPU: on GPUs there is one rank a GPU",
            next_step="Choose the number of GPUs with --gpus, or add --gpus none.",
        )
    pinning = choose_pinning(engine, gpus) if gpus and engine else None
    servers = _servers(workload, params, device, gpus, pinning)
    world_size = len(gpus) or len(servers) or request.ranks or cpu_ranks
    up, soak = request.purpose == "up", isinstance(workload, Soak)
    recorder: Recorder = (request.recorder or workload.recorder) if gpus and (soak or not up) else "off"
    client = workload.client if isinstance(workload, Service) and not up else ""
    limit = workload.ready_s if isinstance(workload, Service) and up else None
    return Plan(
        run_id=run_id,
        created=created,
        workload=workload.name,
        service=client or workload.service,
        device=device,
        world_size=world_size,
        flavour=flavour,
        flavour_reason=reason,
        image=f"vaultcube/{workload.image}:{_tag(workload, flavour, device)}",
        nodes=(Node(name="localhost", gpus=tuple(gpu.uuid for gpu in gpus)),),
        gpus=gpus,
        driver=inventory.driver,
        simulated=inventory.simulated and bool(gpus),
        params=params.model_dump(),
        profile=profile,
        command=() if up else tuple(workload.command(params, world_size=world_size, device=device)),
        data_folders=workload.data_folders(params),
        compose_files=compose_files(workload, device, client=bool(client), proxy=len(servers) > 1, recorder=recorder),
        user=user,
        memory_bytes=request.memory_bytes,
        recorder=recorder,
        telemetry_hz=request.telemetry_hz,
        kernel_log=kernel_log if recorder == "container" else None,
        timeout_s=request.timeout_s or limit or workload.timeout_s(params, world_size=world_size, device=device),
        pinning=pinning.method if pinning else None,
        pinning_reason=pinning.reason if pinning else "",
        pins=pinning.devices if pinning else (),
        shared=tuple(
            f"GPU {gpu.index} was shared with {holder.said}" for gpu in gpus for holder in held.get(gpu.uuid, ())
        ),
        purpose="soak" if soak else request.purpose,
        instance=instance_name(request.name, workload.name, taken) if up or soak else "",
        servers=servers,
        workers=_workers(workload, params, device, gpus, pinning, world_size),
        judge=tuple(workload.judge_command(params)) if isinstance(workload, Soak) else (),
        address=request.address if up else None,
        cache=cache_volume(user) if servers else "",
        secrets=request.secrets if servers else (),
    )


def instance_name(asked: str | None, workload: str, taken: Collection[str]) -> str:
    """Return the name of a new instance: the one asked for, else the workload's, with a number if that is taken.

    Raises:
        InstanceNameError: the one asked for is taken, or is no name.
    """
    if asked is None:
        numbered = (workload if number == 1 else f"{workload}-{number}" for number in count(1))
        return next(name for name in numbered if name not in taken)
    if not INSTANCE_NAME.fullmatch(asked):
        raise InstanceNameError(
            f"{asked!r} is no name for an instance",
            next_step="Use up to 40 small letters, digits, - and _, beginning with a letter.",
        )
    if asked in taken:
        raise InstanceNameError(f"an instance named {asked} is running")
    return asked


def cache_volume(user: str) -> str:
    """Return the name of the volume that keeps models for a `uid:gid`.

    One a user: what one downloads, another could not add to, and must not have to trust. The images' own user shares it
    with the compose files as they are.
    """
    uid = user.partition(":")[0]
    return "vaultcube-models" if uid == str(IMAGE_USER) else f"vaultcube-models-{uid}"


def _counted(workload: Workload, request: Request, inventory: Inventory) -> Request:
    """Return the request with a number of GPUs where nobody said which: a service takes what its layout needs."""
    if not isinstance(workload, Service) or request.gpus.kind != "auto" or not inventory.gpus:
        return request
    if request.flavour == Flavour.CPU:
        return request
    needed = workload.layout(_params(workload, request, "cuda", None)).gpus
    return request.model_copy(update={"gpus": GpuRequest("count", count=needed)})


def _params(workload: Workload, request: Request, device: DeviceKind, gpus: int | None) -> Params:
    if not isinstance(workload, Service):
        return workload.resolve(request.preset, request.given, device)
    up = request.purpose == "up"
    given = workload.resolve_serving(request.given) if up else workload.resolve(request.preset, request.given, device)
    settled: Params = workload.settle(given, device, gpus)
    return settled


def _servers(
    workload: Workload, params: Params, device: DeviceKind, gpus: Sequence[Gpu], pinning: Pinning | None
) -> tuple[Server, ...]:
    """Return the replicas of a service, each with the next GPUs."""
    if not isinstance(workload, Service):
        return ()
    layout = workload.layout(params)
    found = []
    for replica in range(layout.replicas):
        mine = slice(replica * layout.gpus_per_replica, (replica + 1) * layout.gpus_per_replica)
        found.append(
            Server(
                service=workload.service + (f"-{replica}" if replica else ""),
                command=tuple(workload.serve_command(params, replica=replica, device=device)),
                gpus=tuple(gpu.uuid for gpu in gpus[mine]),
                pins=pinning.devices[mine] if pinning else (),
            )
        )
    return tuple(found)


def _workers(
    workload: Workload, params: Params, device: DeviceKind, gpus: Sequence[Gpu], pinning: Pinning | None, count: int
) -> tuple[Server, ...]:
    """Return the workers of a soak, named after the index of their GPU as nvidia-smi counts."""
    if not isinstance(workload, Soak):
        return ()
    keys = [f"gpu-{gpu.index}" for gpu in gpus] or [f"gpu-{number}" for number in range(count)]
    return tuple(
        Server(
            service=key,
            command=tuple(workload.worker_command(params, key=key, device=device)),
            gpus=tuple(gpu.uuid for gpu in gpus[number : number + 1]),
            pins=pinning.devices[number : number + 1] if pinning else (),
        )
        for number, key in enumerate(keys)
    )


def _tag(workload: Workload, flavour: Flavour, device: DeviceKind) -> str:
    """Return the image's tag. Most images run on the CPU as they are: there is no third one to build and keep.

    Raises:
        FlavourError: the flavour needs a GPU, and none is used.
    """
    if flavour is Flavour.CPU or workload.cpu_flavour == ANY:
        return workload.cpu_flavour
    if device == "cpu" and workload.cpu_flavour == Flavour.CPU:
        raise FlavourError(
            f"the {flavour} image of {workload.name} needs a GPU, and none is used",
            next_step="Leave --flavour at auto, or use --flavour cpu.",
        )
    return str(flavour)


def compose_files(
    workload: Workload, device: DeviceKind, *, client: bool, proxy: bool, recorder: Recorder
) -> tuple[str, ...]:
    """Return the compose files of a run, each on top of those before it."""
    name = workload.name
    wanted = (
        (f"{name}.yml", True),
        (f"{name}.cpu.yml", device == "cpu" and workload.cpu_compose),
        (f"{name}.bench.yml", client),
        (f"{PROXY_SERVICE}.yml", proxy),
        # A soak's file has it in it.
        (f"{RECORDER_SERVICE}.yml", recorder == "container" and not isinstance(workload, Soak)),
    )
    return tuple(file for file, used in wanted if used)


def _gpus(request: Request, inventory: Inventory, held: Held) -> tuple[Gpu, ...]:
    return choose(request.gpus, inventory.gpus, inventory.reason, held=held, links=inventory.links, share=request.share)
