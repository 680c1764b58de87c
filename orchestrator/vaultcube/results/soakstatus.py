"""How a soak stands: what `vaultcube stress status --json` prints. Nothing of it is kept; it is read from the soak's files."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from vaultcube.results.schema import Model, Verdict

# Nothing was written yet; it computes; it does not, by its own decision; all hours are covered; it was told to stop, or
# its GPU's guard stopped it; it said why it could not go on (and may be started again); it cannot run here, or not so.
Standing = Literal["starting", "loading", "paused", "done", "stopped", "failed", "refused"]


class WorkerStatus(Model):
    """One worker of a soak.

    Attributes:
        name: the worker's, `gpu-0`.
        gpu_uuid: the GPU that it was given; null on the CPU.
        standing: what it does, by its own last word.
        covered_s: seconds of checked load.
        phase: the load that it last told of; empty before the first.
        mismatches: wrong elements that it told of.
        starts: how often it began.
        temperature_celsius: of its GPU, by the recorder; null when that tells none.
        said: the message of its last error; empty without one.
    """

    name: str
    gpu_uuid: str | None
    standing: Standing
    covered_s: float = 0
    phase: str = ""
    mismatches: int = 0
    starts: int = 0
    temperature_celsius: float | None = None
    said: str = ""


class RungStatus(Model):
    """A rung of the ladder that was judged."""

    hours: float
    verdict: Verdict


class SoakStatus(Model):
    """A soak.

    Attributes:
        name: the instance's.
        run: its run id, also the compose project's name.
        wanted_s: seconds to be covered on every GPU.
        covered_s: on the GPU that has least.
        left_s: estimate of the time to go in seconds, as fast as it went while somebody looked; null when unknown.
        running: whether a container of it runs; null when the engine does not say.
        keeper: pid of the vaultcube that looks after it; null when nobody does, which it does not need.
        verdict: its own judge's, once it has ended.
        simulated: whether the GPUs are simulated ones.
        directory: its run directory.
    """

    schema_: Literal["vaultcube.soak/1"] = Field(default="vaultcube.soak/1", alias="schema")
    name: str
    run: str
    wanted_s: float
    covered_s: float
    left_s: float | None = None
    running: bool | None = None
    keeper: int | None = None
    workers: tuple[WorkerStatus, ...] = ()
    rungs: tuple[RungStatus, ...] = ()
    verdict: Verdict | None = None
    simulated: bool = False
    directory: str = ""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, defer_build=True)

    def to_json(self) -> str:
        """Return the document as indented JSON with a newline at its end."""
        return self.model_dump_json(indent=2, by_alias=True) + "\n"
