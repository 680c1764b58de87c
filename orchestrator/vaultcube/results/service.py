"""A service that runs: what `vaultcube up` prints with --json, and keeps as service.json in the run's directory."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError

from vaultcube.results.schema import Gpu, Model
from vaultcube.results.store import SERVICE, RunDirectory


class ServiceRecord(Model):
    """An instance that answers.

    Attributes:
        name: the instance's.
        run: its run id, also the compose project's name.
        url: where it answers on this machine.
        model: the name that clients ask for.
        servers: how many there are behind the address.
        load_s: seconds until the slowest of them answered, from the start of its program.
        first_token_s: until the first token of the slowest; null for a model that generates none.
        reachable: whether the address answered when it was tried from this machine.
        up_s: until then, from the start of the containers.
        key_needed: whether clients must send an API key.
        example: a command that asks it something.
        stop: the command that stops it.
    """

    schema_: Literal["vaultcube.service/1"] = Field(default="vaultcube.service/1", alias="schema")
    name: str
    run: str
    workload: str
    url: str
    model: str
    device: Literal["cuda", "cpu"]
    gpus: tuple[Gpu, ...]
    simulated: bool
    servers: int
    ready: datetime
    load_s: float
    first_token_s: float | None
    reachable: bool = True
    up_s: float
    key_needed: bool
    random_weights: bool
    example: str
    stop: str

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, defer_build=True)

    def to_json(self) -> str:
        """Return the document as indented JSON with a newline at its end."""
        return self.model_dump_json(indent=2, by_alias=True) + "\n"


def read_record(directory: RunDirectory) -> ServiceRecord | None:
    """Return what a run's directory says of the service that it left running, or None."""
    with suppress(OSError, ValidationError):
        return ServiceRecord.model_validate_json((directory.path / SERVICE).read_bytes())
    return None
