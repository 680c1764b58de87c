"""What data-parallel training has in common, whatever the framework: parameters, presets, targets, checks, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints, model_validator

from vaultcube.workloads import DeviceKind, Params, Targets, Workload, as_flags

if TYPE_CHECKING:
    from vaultcube.results.events import AnyEvent, Garbled
    from vaultcube.results.intervals import Interval
    from vaultcube.results.judge import CheckSpec, Measurement
    from vaultcube.results.schema import Gpu, Status

DATA_MOUNT = "/data"
ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]

# The same for every framework, so that runs can be compared; as images/training/presets.py has them.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "acceptance": {
        "model": "resnet50",
        "batch_size": 256,
        "image_size": 224,
        "precision": "bf16",
        "windows": 10,
        "steps_per_window": 20,
        "warmup_steps": 20,
        "max_warmup_steps": 200,
    },
    # The customer's own script: batch 32, fp32, 100 iterations.
    "seed": {
        "model": "resnet50",
        "batch_size": 32,
        "image_size": 224,
        "precision": "fp32",
        "windows": 5,
        "steps_per_window": 20,
        "warmup_steps": 10,
        "max_warmup_steps": 100,
    },
    "smoke": {
        "model": "resnet50",
        "batch_size": 4,
        "image_size": 64,
        "precision": "fp32",
        "windows": 5,
        "steps_per_window": 2,
        "warmup_steps": 2,
        "max_warmup_steps": 8,
        "allreduce_timeout_s": 30,
        "hang_timeout_s": 120,
    },
}


class TrainingParams(Params):
    """Parameters of a training run. A framework adds the switches that only it has."""

    model: ModelName = Field(description="classification model")
    batch_size: int = Field(ge=1, le=16384, description="samples a rank and step")
    image_size: int = Field(ge=32, le=1024, description="image side in pixels")
    precision: Literal["fp32", "tf32", "bf16"] = Field(description="arithmetic: fp32, tf32 or bf16")
    windows: int = Field(ge=5, le=1000, description="timed windows a phase")
    steps_per_window: int = Field(ge=1, le=10000, description="steps a window")
    warmup_steps: int = Field(ge=1, le=10000, description="least warm-up steps")
    max_warmup_steps: int = Field(ge=1, le=100000, description="most warm-up steps")
    data: str | None = Field(default=None, description="image folder to train on, instead of synthetic data")
    allreduce_timeout_s: float = Field(default=60, gt=0, le=3600, description="limit of the all-reduce check, seconds")
    hang_timeout_s: float = Field(default=300, gt=0, le=36000, description="no step for this long is a hang, seconds")
    seed: int = Field(default=0, ge=0, lt=2**32, description="random seed")

    @model_validator(mode="after")
    def _warmup_has_room(self) -> TrainingParams:
        if self.max_warmup_steps < self.warmup_steps:
            raise ValueError(f"max_warmup_steps {self.max_warmup_steps} is below warmup_steps {self.warmup_steps}")
        return self


class TrainingTargets(Targets):
    """Acceptance targets of a training run."""

    scaling_efficiency: float = Field(default=0.80, gt=0, le=1.5)
    throughput_samples_per_s: float = Field(default=100, gt=0)
    gpu_utilisation: float = Field(default=0.90, gt=0, le=1)


class Training(Workload):
    """A program that trains on every device alone, then on all together (`images/training`).

    Attributes:
        program: its module in the image.
    """

    program: ClassVar[str]
    targets_type = TrainingTargets

    def command(self, params: TrainingParams, *, world_size: int, device: DeviceKind) -> list[str]:
        """Return `python3 -m <program> ...` with every parameter said, so that no default of the image matters."""
        argv = ["python3", "-m", self.program, "--results", "/results", "--device", device, "--ranks", str(world_size)]
        return argv + as_flags({**params.model_dump(), "data": DATA_MOUNT if params.data else None})

    def timeout_s(self, params: TrainingParams, *, world_size: int, device: DeviceKind) -> float:
        """Return ten minutes for start-up plus a generous time for every step of every phase."""
        per_step = 5.0 if device == "cuda" else 60.0
        steps = params.max_warmup_steps + params.windows * params.steps_per_window
        return 600 + per_step * steps * (world_size + 1)

    def intervals(self, events: Sequence[AnyEvent]) -> list[Interval]:
        """Return the phases: every rank alone, then all together."""
        from vaultcube.results.intervals import training_intervals

        return training_intervals(events)

    def data_folders(self, params: TrainingParams) -> dict[str, str]:
        """Return the image folder, if one is used."""
        return {DATA_MOUNT: params.data} if params.data else {}

    def checks(self, targets: TrainingTargets) -> list[CheckSpec]:
        """Return scaling, throughput, what telemetry shows, and the three checks that hold on the CPU too."""
        from vaultcube.gpu.observed import hardware_checks
        from vaultcube.results.judge import check

        return [
            check(
                "scaling_efficiency",
                "scaling_efficiency",
                ">=",
                targets.scaling_efficiency,
                "ratio",
                timed=True,
                needs_gpu=True,
            ),
            check(
                "throughput",
                "throughput_samples_per_s",
                ">=",
                targets.throughput_samples_per_s,
                "samples/s",
                timed=True,
                needs_gpu=True,
            ),
            check(
                "gpu_utilisation",
                "gpu_utilisation",
                ">=",
                targets.gpu_utilisation,
                "ratio",
                timed=True,
                needs_gpu=True,
            ),
            *hardware_checks(),
            check("no_rank_lost", "ranks_lost", "==", 0, "ranks"),
            check("allreduce_correct", "allreduce_mismatches", "==", 0, "elements"),
            check("loss_finite", "losses_not_finite", "==", 0, "ranks"),
        ]

    def measure(
        self,
        events: Sequence[AnyEvent],
        garbled: Sequence[Garbled],
        params: TrainingParams,
        *,
        world_size: int,
        status: Status,
        gpus: Sequence[Gpu] = (),  # noqa: ARG002 - no figure of training is held against a card's limit
    ) -> Measurement:
        """Return throughput, scaling, and what spoiled them."""
        from vaultcube.results.scaling import Expected, measure_training

        expected = Expected(world_size=world_size, batch_size=params.batch_size, windows=params.windows)
        return measure_training(events, garbled, expected, status)


def adapted(changes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the presets, each with what `changes` has for it: a program's switches, and where it has to differ."""
    return {preset: {**shared, **changes[preset]} for preset, shared in PRESETS.items()}
