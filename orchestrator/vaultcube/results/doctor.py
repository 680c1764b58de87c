"""What `vaultcube doctor` says (`vaultcube.doctor/1`). Its JSON Schema is published in docs/schema/."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict, Field

from vaultcube.results.schema import Model


class FindingStatus(StrEnum):
    """How a check of the machine came out: FAIL must be mended, WARN works but not as well as it could."""

    PASS = "PASS"  # noqa: S105 - the word for a good outcome
    WARN = "WARN"
    FAIL = "FAIL"
    UNAVAILABLE = "UNAVAILABLE"


class Finding(Model):
    """One check of the machine: what was seen, in one line, and what to do about it."""

    code: str
    status: FindingStatus
    seen: str
    next_step: str | None = None


class DoctorReport(Model):
    """All findings, in the order of the checks. `gpus` are the UUIDs of those that were looked at."""

    schema_: Literal["vaultcube.doctor/1"] = Field(default="vaultcube.doctor/1", alias="schema")
    vaultcube: str
    simulated: bool
    engine: str | None
    driver: str | None
    flavour: str | None
    profile: str
    gpus: list[str]
    checks: list[Finding]

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True, defer_build=True)

    @property
    def failed(self) -> list[Finding]:
        """Return the findings that must be mended."""
        return [one for one in self.checks if one.status is FindingStatus.FAIL]

    def to_json(self) -> str:
        """Return the document as indented JSON with a newline at its end."""
        return self.model_dump_json(indent=2, by_alias=True) + "\n"
