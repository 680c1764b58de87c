"""`stress`: every GPU loaded for hours, every result checked bit by bit. One container a GPU (`images/pytorch/stress`)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from vaultcube.results.soak import SoakTargets
from vaultcube.workloads import DeviceKind, Params, Soak, Targets, as_flags

if TYPE_CHECKING:
    from vaultcube.results.judge import CheckSpec

HOUR_S = 3600
# As images/pytorch/stress/cli.py has it: thirty days.
LONGEST_H = 720
GPU_PHASES, CPU_PHASES = "bf16,tf32,fp32,memory,transfer", "fp32,memory"
_PHASE = "(?:bf16|tf32|fp32|memory|transfer)"
Phases = Annotated[str, StringConstraints(pattern=rf"^{_PHASE}(?:,{_PHASE})*$")]


class StressParams(Params):
    """Parameters of a soak; all GPUs have the same."""

    hours: float = Field(ge=0.001, le=LONGEST_H, description="covered time wanted on every GPU, in hours")
    ladder: tuple[float, ...] = Field(default=(), description="judge at these hours too, and stop at a FAIL: 1,6,24")
    phases: Phases | None = Field(default=None, description=f"loads in turn, {GPU_PHASES}")
    phase_seconds: float = Field(ge=0.2, le=3600, description="until the next phase's turn, seconds")
    memory_fraction: float = Field(default=0.85, ge=0.01, le=0.95, description="of the GPU's free memory")
    seed: int = Field(default=0, ge=0, lt=2**31, description="random seed")
    hang_timeout_s: float = Field(
        default=120, ge=1, le=36000, description="no progress for this long is a hang, seconds"
    )
    recorder_lost_s: int = Field(
        ge=0, le=86400, description="pause when nothing records for this long, seconds; 0: never"
    )
    max_celsius: int | None = Field(
        default=None, ge=30, le=120, description="stop a GPU at this temperature instead of its own limit"
    )
    on_fault: Literal["gpu", "all"] = Field(
        default="gpu", description="what stops when a GPU is too hot or lost: it alone, or all"
    )

    @model_validator(mode="after")
    def _rungs_ascend(self) -> StressParams:
        rungs = self.ladder
        if rungs and (rungs[0] < 0.001 or any(low >= high for low, high in pairwise(rungs))):  # noqa: PLR2004 - as hours
            raise ValueError("the hours of a ladder ascend, as 1,6,24 do")
        if rungs and rungs[-1] != self.hours:
            raise ValueError(f"a ladder ends with all hours, {self.hours:g}, and not with {rungs[-1]:g}")
        if self.phases and len(set(self.phases.split(","))) < len(self.phases.split(",")):
            raise ValueError(f"phases {self.phases} names one twice")
        return self

    @property
    def seconds(self) -> int:
        """Covered time wanted on every GPU, in seconds, at least one."""
        return max(round(self.hours * HOUR_S), 1)


class StressTargets(SoakTargets, Targets):
    """Acceptance targets of a soak."""


class Stress(Soak):
    """Load that fills the power limit, with every result checked."""

    name = "stress"
    summary = "load every GPU for hours, check every result bit by bit, and judge what was seen"
    image = "pytorch"
    service = "gpu-0"
    recorder = "container"
    params_type = StressParams
    targets_type = StressTargets
    presets = {  # noqa: RUF012 - a mapping that nobody changes, as in every workload
        "acceptance": {"hours": 24, "phase_seconds": 60, "recorder_lost_s": 60},
        # Proves the path on a machine without a GPU, where there is nothing to record.
        "smoke": {"hours": 1 / 60, "phase_seconds": 10, "recorder_lost_s": 0},
    }

    def worker_command(self, params: StressParams, *, key: str, device: DeviceKind) -> list[str]:
        """Return the argv of one GPU's container."""
        flags = as_flags(
            {
                "results": "/results",
                "gpu": key,
                "device": device,
                "seconds": params.seconds,
                "phases": params.phases or (GPU_PHASES if device == "cuda" else CPU_PHASES),
                "phase_seconds": params.phase_seconds,
                "memory_fraction": params.memory_fraction,
                "seed": params.seed,
                "hang_timeout_s": params.hang_timeout_s,
                "recorder_lost_s": params.recorder_lost_s if device == "cuda" else 0,
                "max_celsius": params.max_celsius,
                "on_fault": params.on_fault,
            }
        )
        return ["python3", "-m", "stress", *flags]

    def judge_command(self, params: StressParams) -> list[str]:
        """Return the arguments of `vaultcube` that wait for the end of the soak and judge it, in its own container."""
        rungs = ["--ladder", ",".join(f"{hours:g}" for hours in params.ladder)] if params.ladder else []
        return ["stress", "judge", "/results", "--wait", *rungs]

    def timeout_s(self, params: StressParams, *, world_size: int, device: DeviceKind) -> float:  # noqa: ARG002
        """Return a limit in seconds: what is paused is made up for, and a soak that takes twice its time is stuck."""
        return 2 * params.seconds + HOUR_S

    def checks(self, targets: StressTargets) -> list[CheckSpec]:
        """Return the acceptance checks."""
        from vaultcube.gpu.soaked import soak_checks

        return soak_checks(targets)


WORKLOAD = Stress()
