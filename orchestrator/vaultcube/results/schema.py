"""The shape of `result.json` (`vaultcube.result/1`). Its JSON Schema is published in docs/schema/."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    """An immutable record. Unknown keys are kept out, so that a newer reader can read an older file."""

    # Built on first use: commands that only list things import these and never need them.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, defer_build=True)


class Verdict(StrEnum):
    """How a check, or a whole run, came out."""

    PASS = "PASS"  # noqa: S105 - the word for a good verdict
    FAIL = "FAIL"
    UNAVAILABLE = "UNAVAILABLE"
    INVALID = "INVALID"


class Status(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    TIMEOUT = "timeout"


class Failure(Model):
    """Why a run did not complete: the error as the user saw it."""

    code: str
    message: str
    next_step: str


class RunInfo(Model):
    """The run itself. Times are UTC."""

    id: str
    workload: str
    status: Status
    started: datetime
    finished: datetime
    error: Failure | None = None


class Metric(Model):
    """One measured figure. `ci95` is the 95 % confidence interval [low, high] in the same unit."""

    value: float
    unit: str
    ci95: tuple[float, float] | None = None


Operator = Literal[">=", "<=", "=="]


class Target(Model):
    """What a check asks for."""

    op: Operator
    value: float
    unit: str


class Check(Model):
    """One target held against one measurement. `measured` is null when nothing was measured."""

    name: str
    target: Target
    measured: float | None = None
    ci95: tuple[float, float] | None = None
    verdict: Verdict
    reason: str


class Evidence(Model):
    """What counted against a check: on which GPU, when, how often.

    `gpu_index`, `gpu_uuid` and `pci_bus_id` say which card to look at; null where it is the machine, or nobody knows.
    `first` and `last` are wall time (UTC); `boot_id` is the kernel's at that time.
    """

    check: str
    text: str
    gpu_index: int | None = None
    gpu_uuid: str | None = None
    pci_bus_id: str | None = None
    first: datetime | None = None
    last: datetime | None = None
    boot_id: str | None = None
    count: int = 1


class Gpu(Model):
    """A GPU as NVML describes it; `null` is what the card does not tell.

    The two peaks are computed (`gpu/limits.py`): memory bandwidth, and dense bf16 tensor arithmetic.
    """

    uuid: str
    index: int
    name: str
    pci_bus_id: str
    compute_capability: str
    memory_total_bytes: int
    memory_bandwidth_bytes_per_s: float | None = None
    tensor_peak_flop_per_s: float | None = None
    pcie_gen_max: int | None = None
    pcie_width_max: int | None = None
    power_limit_watts: float | None = None
    temperature_limit_celsius: int | None = None
    numa_node: int | None = None
    ecc: bool | None = None
    mig: bool | None = None


class Provenance(Model):
    """Everything needed to say what exactly was run, and on what."""

    vaultcube: str
    git: str | None = None
    images: dict[str, str] = Field(default_factory=dict)
    compose_sha256: str | None = None
    engine: str | None = None
    compose: str | None = None
    driver: str | None = None
    kernel: str
    os: str
    cpu: str
    frameworks: dict[str, str | None] = Field(default_factory=dict)


class Artifact(Model):
    """A file of the run directory, by its relative path and SHA-256 (hex)."""

    path: str
    sha256: str


class Result(Model):
    """The outcome of one run: `result.json`."""

    schema_: Literal["vaultcube.result/1"] = Field(default="vaultcube.result/1", alias="schema")
    run: RunInfo
    verdict: Verdict
    simulated: bool
    device: Literal["cuda", "cpu"]
    checks: list[Check]
    metrics: dict[str, Metric]
    params: dict[str, Any]
    gpus: list[Gpu]
    disturbances: list[str] = Field(default_factory=list)
    evidence: list[Evidence] = Field(default_factory=list)
    provenance: Provenance
    artifacts: list[Artifact]

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True, defer_build=True)

    def to_json(self) -> str:
        """Return the document as indented JSON with a newline at its end."""
        return self.model_dump_json(indent=2, by_alias=True) + "\n"
