"""What a check says, and the document of all of them (`vaultcube.health/1`, docs/schema/health.schema.json)."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

SCHEMA: Final = "vaultcube.health/1"


class Verdict(StrEnum):
    """How a check came out, the gravest first: as in a result (docs/results.md)."""

    FAIL = "FAIL"
    INVALID = "INVALID"
    UNAVAILABLE = "UNAVAILABLE"
    PASS = "PASS"  # noqa: S105 - the word for a good outcome


class Unseen(NamedTuple):
    """Something that could not be seen, and why."""

    reason: str


class Judged(NamedTuple):
    """A verdict, what was seen in one line, and what to do about it."""

    verdict: Verdict
    seen: str
    next_step: str | None = None


class JudgedError(Exception):
    """Ends a check early: what it has to go by is not there, and `judged` says what that comes to."""

    def __init__(self, judged: Judged) -> None:
        super().__init__(judged.seen)
        self.judged = judged


@dataclass(frozen=True)
class Finding:
    """One check of one layer."""

    layer: int
    code: str
    verdict: Verdict
    seen: str
    next_step: str | None = None


@dataclass(frozen=True)
class HealthReport:
    """All findings, in the order of layers and checks.

    Attributes:
        vaultcube: our version.
        simulated: whether files of another machine were looked at (`VAULTCUBE_HOST_ROOT`); it never passes then.
        privileged: whether we ran as root; without, some checks are UNAVAILABLE.
        expected: the file that says how the host should be, or `defaults`.
        layers: which were looked at.
        checks: the findings.
    """

    vaultcube: str
    simulated: bool
    privileged: bool
    expected: str
    layers: tuple[int, ...]
    checks: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """Return the gravest of the checks' verdicts; without a check, and for a simulated host, no PASS."""
        found = [one.verdict for one in self.checks]
        if self.simulated or not found:
            found.append(Verdict.UNAVAILABLE)
        return min(found, key=list(Verdict).index)

    def to_json(self) -> str:
        """Return the document as indented JSON with a newline at its end."""
        told: dict[str, Any] = {
            "schema": SCHEMA,
            "vaultcube": self.vaultcube,
            "simulated": self.simulated,
            "privileged": self.privileged,
            "expected": self.expected,
            "layers": list(self.layers),
            "verdict": str(self.verdict),
            "checks": [
                {
                    "layer": one.layer,
                    "code": one.code,
                    "verdict": str(one.verdict),
                    "seen": one.seen,
                    "next_step": one.next_step,
                }
                for one in self.checks
            ],
        }
        return json.dumps(told, indent=2) + "\n"


def good(seen: str) -> Judged:
    """Return a PASS."""
    return Judged(Verdict.PASS, seen)


def fail(seen: str, next_step: str) -> Judged:
    """Return a FAIL: the host is not as it was provisioned."""
    return Judged(Verdict.FAIL, seen, next_step)


def invalid(seen: str, next_step: str) -> Judged:
    """Return an INVALID: it was looked at, and what came of it cannot be judged."""
    return Judged(Verdict.INVALID, seen, next_step)


def unavailable(reason: str | Unseen, next_step: str | None = None) -> Judged:
    """Return an UNAVAILABLE: what this check looks at is not there, or cannot be seen."""
    return Judged(Verdict.UNAVAILABLE, reason if isinstance(reason, str) else reason.reason, next_step)


def together(faults: list[str], seen: str, next_step: str) -> Judged:
    """Return a FAIL with all faults, or a PASS with what was seen when there is none."""
    return fail("; ".join(faults), next_step) if faults else good(seen)


def again(role: str) -> str:
    """Return the step that brings a role's settings back."""
    return f"Provision it again: ansible-playbook playbooks/site.yml --tags {role}"


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the document (draft 2020-12)."""
    verdict = {"enum": [str(one) for one in Verdict]}
    layer = {"type": "integer", "minimum": 1, "maximum": 5}
    text = {"type": "string"}
    finding = {
        "layer": layer,
        "code": {"type": "string", "pattern": "^[a-z0-9-]+$"},
        "verdict": verdict,
        "seen": text,
        "next_step": {"type": ["string", "null"]},
    }
    top = {
        "schema": {"const": SCHEMA},
        "vaultcube": text,
        "simulated": {"type": "boolean"},
        "privileged": {"type": "boolean"},
        "expected": text,
        "layers": {"type": "array", "items": layer},
        "verdict": verdict,
        "checks": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": finding,
                "required": list(finding),
                "additionalProperties": False,
            },
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "HealthReport",
        "description": "What `vaultcube health` and `vaultcube-health` print with --json.",
        "type": "object",
        "properties": top,
        "required": list(top),
        "additionalProperties": False,
    }


if __name__ == "__main__":
    # `make schemas` writes it to docs/schema.
    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
