"""`vllm`: an OpenAI-compatible server of a language model, and what it is measured by."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, StringConstraints, field_validator

from vaultcube.errors import BadParameterError
from vaultcube.workloads import DeviceKind, Layout, Params, Service, Targets

if TYPE_CHECKING:
    from vaultcube.results.events import AnyEvent, Garbled
    from vaultcube.results.intervals import Interval
    from vaultcube.results.judge import CheckSpec, Measurement
    from vaultcube.results.schema import Status

# Where a model's own directory is in the container.
MODEL_MOUNT = "/model"
# A random model that is made on the spot: it proves the path, and needs neither network nor GPU.
TINY = "tiny"
# Open to everybody, and with its KV cache it fits one card of 24 GB.
DEFAULT_MODEL = "Qwen/Qwen2.5-7B-Instruct"
# Of vLLM's own flags, those that would carry a secret into the process list or contradict what we decide.
SECRET_FLAGS = ("--api-key", "--hf-token")
OUR_FLAGS = {
    "--model": "--model",
    "--port": "--port",
    "--host": "--host",
    "--tensor-parallel-size": "--tensor-parallel",
    "-tp": "--tensor-parallel",
    "--pipeline-parallel-size": "--pipeline-parallel",
    "-pp": "--pipeline-parallel",
    "--max-model-len": "--max-model-len",
    "--data-parallel-size": "--replicas",
    "-dp": "--replicas",
    "--device": "--gpus",
}

ModelName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]{1,4096}$")]


class ServeParams(Params):
    """Parameters of a vLLM server."""

    model: ModelName | None = Field(default=None, description="hub id, directory of a model, or tiny")
    tensor_parallel: int = Field(default=1, ge=1, le=64, description="GPUs that split every layer")
    pipeline_parallel: int = Field(default=1, ge=1, le=64, description="GPUs that split the layers among them")
    replicas: int = Field(default=1, ge=1, le=64, description="servers behind one address, each on its own GPUs")
    max_model_len: int | None = Field(default=None, ge=16, le=10**8, description="longest context in tokens")
    flags: tuple[str, ...] = Field(default=(), description="further flags of vllm serve")

    @field_validator("flags")
    @classmethod
    def _flags_are_vllms(cls, flags: tuple[str, ...]) -> tuple[str, ...]:
        for flag in flags:
            # argparse takes both spellings.
            name = flag.partition("=")[0].replace("_", "-")
            if name in SECRET_FLAGS:
                raise ValueError(f"{name} would show a secret to everybody who lists processes")
            if name in OUR_FLAGS:
                raise ValueError(f"{name} is for vaultcube to say: give {OUR_FLAGS[name]} before the --")
        return flags


class VllmParams(ServeParams):
    """Parameters of a measurement."""


class VllmTargets(Targets):
    """Acceptance targets."""


class Vllm(Service):
    """vLLM's OpenAI-compatible server."""

    name = "vllm"
    summary = "vLLM serving a language model: latency, throughput, and the share of the card's memory bandwidth"
    image = "vllm"
    service = "vllm"
    client = "client"
    cpu_flavour = "cpu"
    port = 8000
    serve_type = ServeParams
    params_type = VllmParams
    targets_type = VllmTargets
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"acceptance": {}, "smoke": {}}

    def settle(self, params: Any, device: DeviceKind, gpus: int | None) -> Any:
        """Return the parameters with the model named, and GPUs that nobody divided given to tensor parallelism.

        Raises:
            BadParameterError: the layout does not take the GPUs that were asked for.
        """
        changed: dict[str, Any] = {}
        if params.model is None:
            changed["model"] = TINY if device == "cpu" else DEFAULT_MODEL
        wanted = self.layout(params).gpus
        if device == "cuda" and gpus is not None and gpus != wanted:
            if wanted > 1 or gpus & (gpus - 1):
                raise BadParameterError(
                    f"{gpus} GPUs were asked for, and tensor {params.tensor_parallel} x pipeline "
                    f"{params.pipeline_parallel} x replicas {params.replicas} take {wanted}",
                    next_step="Make the product of --tensor-parallel, --pipeline-parallel and --replicas the number "
                    "of GPUs, or leave --gpus out.",
                )
            changed["tensor_parallel"] = gpus
        if device == "cpu" and params.tensor_parallel * params.pipeline_parallel > 1:
            raise BadParameterError(
                "--tensor-parallel and --pipeline-parallel divide GPUs, and none is used",
                next_step="Leave them out; --replicas works on the CPU too.",
            )
        return params.model_copy(update=changed)

    def layout(self, params: Any) -> Layout:
        """Return the replicas, and the product of tensor and pipeline parallelism for each."""
        return Layout(params.replicas, params.tensor_parallel * params.pipeline_parallel)

    def serve_command(self, params: Any, *, replica: int, device: DeviceKind) -> list[str]:
        """Return `python3 -m serve ...`."""
        argv = ["python3", "-m", "serve", "--results", "/results", "--replica", str(replica), "--device", device]
        argv += ["--model", MODEL_MOUNT if is_directory(params.model) else params.model]
        argv += ["--served-model-name", served_name(params.model)]
        argv += ["--tensor-parallel", str(params.tensor_parallel), "--pipeline-parallel", str(params.pipeline_parallel)]
        argv += ["--max-model-len", str(params.max_model_len)] if params.max_model_len is not None else []
        return [*argv, "--", *params.flags] if params.flags else argv

    def data_folders(self, params: Any) -> dict[str, str]:
        """Return the model's directory, if it is one."""
        return {MODEL_MOUNT: params.model} if params.model and is_directory(params.model) else {}

    def command(self, params: Any, *, world_size: int, device: DeviceKind) -> list[str]:
        """Return the client's argv."""
        raise NotImplementedError

    def timeout_s(self, params: Any, *, world_size: int, device: DeviceKind) -> float:
        """Return after how long a measurement is stuck."""
        raise NotImplementedError

    def checks(self, targets: Any) -> list[CheckSpec]:
        """Return the acceptance checks."""
        raise NotImplementedError

    def measure(
        self,
        events: Sequence[AnyEvent],
        garbled: Sequence[Garbled],
        params: Any,
        *,
        world_size: int,
        status: Status,
    ) -> Measurement:
        """Return what client and servers measured."""
        raise NotImplementedError

    def intervals(self, events: Sequence[AnyEvent]) -> list[Interval]:
        """Return when the client put load on."""
        raise NotImplementedError


def is_directory(model: str) -> bool:
    """Say whether a model is named by its directory, which is absolute by the time a plan is made."""
    return model.startswith("/")


def served_name(model: str) -> str:
    """Return the name that clients ask for: the hub id, or the directory's own name."""
    if not is_directory(model):
        return model
    return re.sub(r"[^\w.-]", "-", model.rstrip("/").rpartition("/")[2]) or "model"


WORKLOAD = Vllm()
