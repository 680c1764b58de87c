"""`vllm`: an OpenAI-compatible server of a language model, and what it is measured by."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, StringConstraints, field_validator, model_validator

from vaultcube.errors import BadParameterError
from vaultcube.workloads import DeviceKind, Layout, Params, Service, Targets, as_flags

if TYPE_CHECKING:
    from vaultcube.results.events import AnyEvent, Garbled
    from vaultcube.results.intervals import Interval
    from vaultcube.results.judge import CheckSpec, Measurement
    from vaultcube.results.schema import Gpu, Status

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

MOST_STREAMS = 4096
# Flags of the server that say something of the measurement.
TRUST = "--trust-remote-code"
SPECULATIVE = "--speculative"
# The client's own parameters.
MEASURED = (
    "input_len",
    "output_len",
    "concurrency",
    "requests",
    "warmup",
    "min_seconds",
    "level_timeout_s",
    "probes",
    "seed",
)

ModelName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]{1,4096}$")]


def spelled_out(flag: str) -> str:
    """Return a flag's name as argparse reads it: in either spelling, and shortened as far as that begins only one."""
    name = flag.partition("=")[0].replace("_", "-")
    if not name.startswith("--") or len(name) < len("--xx"):
        return name
    return next((known for known in (*SECRET_FLAGS, *OUR_FLAGS) if known.startswith(name)), name)


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
            name = spelled_out(flag)
            if name in SECRET_FLAGS:
                raise ValueError(f"{name} would show a secret to everybody who lists processes")
            if name in OUR_FLAGS:
                raise ValueError(f"{name} is for vaultcube to say: give {OUR_FLAGS[name]} before the --")
        return flags


class VllmParams(ServeParams):
    """Parameters of a measurement."""

    input_len: int = Field(default=512, ge=1, le=10**6, description="tokens of a prompt")
    output_len: int = Field(default=128, ge=2, le=10**6, description="tokens of an answer, always all of them")
    concurrency: str = Field(default="1,8,32,128", description="streams at the same time, ascending: 1,8,32,128")
    requests: int = Field(default=5, ge=1, le=10_000, description="least requests a stream")
    warmup: int = Field(default=2, ge=0, le=1000, description="requests a stream before each level, not counted")
    min_seconds: float = Field(default=35, ge=0, le=3600, description="least time a level lasts, by what warm-up took")
    level_timeout_s: float = Field(default=1800, gt=0, le=86400, description="a level that takes longer hangs, seconds")
    probes: bool = Field(default=True, description="ask questions with known answers first")
    seed: int = Field(default=0, ge=0, lt=2**31, description="random seed")

    @field_validator("concurrency")
    @classmethod
    def _levels_ascend(cls, text: str) -> str:
        words = [word.strip() for word in text.split(",")]
        if not all(re.fullmatch(r"[1-9][0-9]{0,3}", word) and int(word) <= MOST_STREAMS for word in words):
            raise ValueError(f"{text!r} is no list of whole numbers from 1 to {MOST_STREAMS}, like 1,8,32")
        if any(int(before) >= int(after) for before, after in pairwise(words)):
            raise ValueError(f"{text!r} does not ascend")
        return ",".join(words)

    @model_validator(mode="after")
    def _requests_fit(self) -> VllmParams:
        if self.max_model_len is not None and self.input_len + self.output_len > self.max_model_len:
            raise ValueError(
                f"input_len {self.input_len} and output_len {self.output_len} do not fit max_model_len "
                f"{self.max_model_len}"
            )
        if self.min_seconds and not self.warmup:
            raise ValueError("min_seconds is kept by what the warm-up took: give warmup 1 or more, or min_seconds 0")
        return self

    @property
    def levels(self) -> tuple[int, ...]:
        """The levels of load, ascending."""
        return tuple(int(word) for word in self.concurrency.split(","))


class VllmTargets(Targets):
    """Acceptance targets."""

    output_tokens_per_s: float = Field(default=10, gt=0)
    mbu: float = Field(default=0.60, gt=0, le=1)
    gpu_memory_used_ratio: float = Field(default=0.98, gt=0, le=1)


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
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "acceptance": {
            "input_len": 512,
            "output_len": 128,
            "concurrency": "1,8,32,128",
            "requests": 5,
            "warmup": 2,
            "min_seconds": 35,
        },
        # Proves the whole path; its figures mean nothing.
        "smoke": {
            "input_len": 32,
            "output_len": 16,
            "concurrency": "1,2",
            "requests": 2,
            "warmup": 0,
            "min_seconds": 0,
            "level_timeout_s": 600,
        },
    }

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

    def command(self, params: Any, *, world_size: int, device: DeviceKind) -> list[str]:  # noqa: ARG002 - replicas count
        """Return `python3 -m measure ...` with every parameter said, so that no default of the image matters."""
        argv = ["python3", "-m", "measure", "--results", "/results", "--device", device]
        argv += ["--url", f"http://{'vllm' if params.replicas == 1 else 'proxy'}:{self.port}"]
        if params.replicas > 1:
            for replica in range(params.replicas):
                argv += ["--replica-url", f"http://vllm{f'-{replica}' if replica else ''}:{self.port}"]
        argv += ["--ready-timeout-s", f"{self.ready_s:g}"]
        argv += as_flags({name: getattr(params, name) for name in MEASURED})
        # The client needs the model's tokenizer, and with it the code that the server was allowed to run.
        return [*argv, TRUST] if any(flag.replace("_", "-") == TRUST for flag in params.flags) else argv

    def timeout_s(self, params: Any, *, world_size: int, device: DeviceKind) -> float:  # noqa: ARG002 - levels have limits
        """Return the limit of loading plus those of every warm-up and level, one replica alone and probes included."""
        levels = float(params.level_timeout_s) * (2 * len(params.levels) + 3)
        return self.ready_s + levels

    def checks(self, targets: Any) -> list[CheckSpec]:
        """Return speed, the share of the card's bandwidth, memory, failures, answers, and the hardware's own."""
        from vaultcube.gpu.observed import hardware_checks
        from vaultcube.results.judge import check

        return [
            check(
                "output_tokens_per_s",
                "output_tokens_per_s",
                ">=",
                targets.output_tokens_per_s,
                "tokens/s",
                timed=True,
                needs_gpu=True,
            ),
            check("mbu", "mbu", ">=", targets.mbu, "ratio", timed=True, needs_gpu=True),
            check(
                "gpu_memory",
                "gpu_memory_used_max_ratio",
                "<=",
                targets.gpu_memory_used_ratio,
                "ratio",
                needs_gpu=True,
            ),
            *hardware_checks(),
            check("no_request_failed", "requests_failed", "==", 0, "requests"),
            check("answers_correct", "answers_wrong", "==", 0, "answers"),
            check("answers_repeatable", "answers_not_repeatable", "==", 0, "answers"),
        ]

    def measure(
        self,
        events: Sequence[AnyEvent],
        garbled: Sequence[Garbled],
        params: Any,
        *,
        world_size: int,  # noqa: ARG002 - replicas count
        status: Status,
        gpus: Sequence[Gpu] = (),
    ) -> Measurement:
        """Return what client and servers measured."""
        from vaultcube.results.serving import Expected, measure_serving

        expected = Expected(
            concurrency=params.levels,
            input_len=params.input_len,
            output_len=params.output_len,
            requests=params.requests,
            replicas=params.replicas,
            tensor_parallel=params.tensor_parallel,
            probes=params.probes,
            speculative=any(flag.replace("_", "-").startswith(SPECULATIVE) for flag in params.flags),
        )
        return measure_serving(events, garbled, expected, status, gpus)

    def intervals(self, events: Sequence[AnyEvent]) -> list[Interval]:
        """Return when the client put load on."""
        from vaultcube.results.intervals import serving_intervals

        return serving_intervals(events)


def is_directory(model: str) -> bool:
    """Say whether a model is named by its directory, which is absolute by the time a plan is made."""
    return model.startswith("/")


def served_name(model: str) -> str:
    """Return the name that clients ask for: the hub id, or the directory's own name."""
    if not is_directory(model):
        return model
    return re.sub(r"[^\w.-]", "-", model.rstrip("/").rpartition("/")[2]) or "model"


WORKLOAD = Vllm()
