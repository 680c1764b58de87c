"""Workloads: one module each. A module holds `WORKLOAD`; nothing else has to know of it.

A module whose name begins with `_` is no workload: several of them share it.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from vaultcube.errors import BadParameterError, NotFoundError
from vaultcube.gpu.flavours import KERNELS, Flavour, Kernels
from vaultcube.results.profile import Profile, describe, read_targets

if TYPE_CHECKING:
    # A plan needs none of these: judging comes when the container runs.
    from vaultcube.results.events import AnyEvent, Garbled
    from vaultcube.results.intervals import Interval
    from vaultcube.results.judge import CheckSpec, Measurement
    from vaultcube.results.schema import Gpu, Status

DeviceKind = Literal["cuda", "cpu"]
# What records telemetry: a child of the orchestrator, a container that outlives it, nothing.
Recorder = Literal["process", "container", "off"]


class Params(BaseModel):
    """A workload's parameters. Every field carries its range and its help text."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Targets(BaseModel):
    """A workload's acceptance targets; the defaults are the customer's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Workload(ABC):
    """What the orchestrator must know of a workload. Data and pure functions only.

    Attributes:
        name: its name in the CLI, in results, and of its compose file (`<name>.yml`, GPU-less: `<name>.cpu.yml`).
        summary: one line for --help.
        image: the folder in images/ it runs in.
        service: the compose service that does the work.
        recorder: what records its telemetry, unless somebody says otherwise: a container for runs of hours.
        cpu_flavour: the flavour of its image that runs on the CPU; `cpu` when that is an image of its own, `any` when it
            is the same for every CUDA and for none.
        cpu_compose: whether there is a `<name>.cpu.yml`; not where `<name>.yml` asks for no GPU by itself.
        kernels: which compute capabilities each flavour of its image has kernels for.
        presets: named parameter sets; "acceptance" is used on GPUs and "smoke" on the CPU unless one is named.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    image: ClassVar[str]
    service: ClassVar[str]
    recorder: ClassVar[Recorder] = "process"
    cpu_flavour: ClassVar[str] = "cu124"
    cpu_compose: ClassVar[bool] = True
    kernels: ClassVar[Mapping[Flavour, Kernels]] = KERNELS
    params_type: ClassVar[type[Params]]
    targets_type: ClassVar[type[Targets]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]

    @abstractmethod
    def command(self, params: Any, *, world_size: int, device: DeviceKind) -> list[str]:
        """Return the container's argv."""

    @abstractmethod
    def timeout_s(self, params: Any, *, world_size: int, device: DeviceKind) -> float:
        """Return after how many seconds a run of these parameters is certainly stuck."""

    @abstractmethod
    def checks(self, targets: Any) -> list[CheckSpec]:
        """Return the acceptance checks."""

    @abstractmethod
    def measure(
        self,
        events: Sequence[AnyEvent],
        garbled: Sequence[Garbled],
        params: Any,
        *,
        world_size: int,
        status: Status,
        gpus: Sequence[Gpu] = (),
    ) -> Measurement:
        """Turn events into metrics. Must not raise on what events say.

        Args:
            events: in file order.
            garbled: lines that could not be read.
            params: the run's.
            world_size: how many ranks were planned.
            status: how the run ended.
            gpus: the run's, for what their limits say of a figure.
        """

    def intervals(self, events: Sequence[AnyEvent]) -> list[Interval]:  # noqa: ARG002 - for those that measure
        """Return when it measured, for telemetry to be held against."""
        return []

    def data_folders(self, params: Any) -> dict[str, str]:  # noqa: ARG002 - most have none
        """Return host folders to mount read-only: {path in the container: path on the host}."""
        return {}

    def resolve(self, preset: str | None, given: Mapping[str, Any], device: DeviceKind) -> Params:
        """Return a preset's parameters with the given ones (those that are not None) on top.

        Raises:
            BadParameterError: no such preset, or a value out of its range.
        """
        name = ("acceptance" if device == "cuda" else "smoke") if preset is None else preset
        if name not in self.presets:
            raise BadParameterError(
                f"there is no preset {name!r} of {self.name}", next_step=f"Presets: {', '.join(self.presets)}."
            )
        chosen = {key: value for key, value in given.items() if value is not None}
        return validated(self.params_type, {**self.presets[name], **chosen}, self.command_line, self.name)

    @property
    def command_line(self) -> str:
        """The command that runs it, as a person types it."""
        return f"vaultcube bench {self.name}"

    def targets(self, profile: Profile) -> Targets:
        """Return the profile's targets for this workload; what it leaves out keeps its default.

        Raises:
            ProfileError: a target this workload does not know.
        """
        return read_targets(profile, self.name, self.targets_type)


class Layout(NamedTuple):
    """How a service is spread over GPUs: each of `replicas` servers has `gpus_per_replica`."""

    replicas: int
    gpus_per_replica: int

    @property
    def gpus(self) -> int:
        """How many GPUs it takes in all."""
        return self.replicas * self.gpus_per_replica


class Service(Workload):
    """A workload that runs until it is stopped. `bench` measures it with a client that ends by itself.

    Its compose service is the server, `client` is the service of `<name>.bench.yml` that measures it; `command` is the
    client's.

    Attributes:
        port: where the server answers inside its container.
        client: the compose service that measures it.
        serve_type: the parameters of the server; those of `params_type` begin with them.
        ready_s: after how many seconds a server that does not answer is certainly stuck.
    """

    port: ClassVar[int]
    client: ClassVar[str]
    serve_type: ClassVar[type[Params]]
    ready_s: ClassVar[float] = 7200

    @abstractmethod
    def settle(self, params: Any, device: DeviceKind, gpus: int | None) -> Any:
        """Return the parameters with what was left open filled in.

        Args:
            params: as they were given.
            device: where it will run.
            gpus: how many GPUs were asked for; None when nobody said.

        Raises:
            BadParameterError: they do not fit the number of GPUs.
        """

    @abstractmethod
    def layout(self, params: Any) -> Layout:
        """Return how the server is spread over GPUs."""

    @abstractmethod
    def serve_command(self, params: Any, *, replica: int, device: DeviceKind) -> list[str]:
        """Return the argv of the container of one replica (from 0)."""

    def resolve_serving(self, given: Mapping[str, Any]) -> Params:
        """Return the server's parameters from the given ones (those that are not None).

        Raises:
            BadParameterError: a value out of its range.
        """
        return validated(self.serve_type, given, f"vaultcube up {self.name}", self.name)


class Soak(Workload):
    """A workload of hours: a container a GPU, a recorder and a judge beside them. It outlives whoever started it.

    Its compose service is the first of its workers, which the others are copies of. What its workers wrote is measured
    and judged by `stack/soak/weigh.py`, GPU by GPU.
    """

    @property
    def command_line(self) -> str:
        """The command that runs it, as a person types it."""
        return f"vaultcube {self.name}"

    def command(self, params: Any, *, world_size: int, device: DeviceKind) -> list[str]:  # noqa: ARG002 - as for all
        """Return nothing: no container does the work of all GPUs."""
        return []

    @abstractmethod
    def worker_command(self, params: Any, *, key: str, device: DeviceKind) -> list[str]:
        """Return the argv of one GPU's container; `key` names it, `gpu-0`."""

    @abstractmethod
    def judge_command(self, params: Any) -> list[str]:
        """Return the arguments of `vaultcube` in the container that judges."""

    def measure(
        self,
        events: Sequence[AnyEvent],  # noqa: ARG002
        garbled: Sequence[Garbled],  # noqa: ARG002
        params: Any,  # noqa: ARG002
        *,
        world_size: int,  # noqa: ARG002
        status: Status,  # noqa: ARG002
        gpus: Sequence[Gpu] = (),  # noqa: ARG002
    ) -> Measurement:
        """Return nothing: there is no one file of events."""
        from vaultcube.results.judge import Measurement

        return Measurement()


def as_flags(values: Mapping[str, Any]) -> list[str]:
    """Return values as a program of ours takes them: `--steps 2`, `--probes` or `--no-probes`; None is left out."""
    argv: list[str] = []
    for key, value in values.items():
        name = key.replace("_", "-")
        if isinstance(value, bool):
            argv.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            argv += [f"--{name}", str(value).removesuffix(".0")]
    return argv


def validated(kind: type[Params], given: Mapping[str, Any], command: str, name: str) -> Params:
    """Return parameters from what was given, leaving out what is None.

    Raises:
        BadParameterError: a value out of its range; it names the option of `command`.
    """
    try:
        return kind.model_validate({key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        where = str(error.errors()[0]["loc"][0]).replace("_", "-") if error.errors()[0]["loc"] else ""
        raise BadParameterError(
            f"{name}: {describe(error)}",
            next_step=f"See --{where} in `{command} --help`." if where else f"See `{command} --help`.",
        ) from error


def names() -> list[str]:
    """Return the names of all workloads, without importing them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> Workload:
    """Return a workload by name.

    Raises:
        NotFoundError: there is none of that name.
    """
    if name not in names():
        raise NotFoundError(f"there is no workload {name!r}", next_step=f"Workloads: {', '.join(names())}.")
    workload: Workload = importlib.import_module(f"{__name__}.{name}").WORKLOAD
    return workload
