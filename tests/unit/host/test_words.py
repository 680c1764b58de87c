from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator
from tests.unit.support import ROOT

from vaultcube.errors import HostHealthError
from vaultcube.host.health import CHECKS, conclude
from vaultcube.host.words import Finding, HealthReport, Verdict, schema


def report(*verdicts: str, simulated: bool = False) -> HealthReport:
    checks = tuple(Finding(1, f"check-{at}", Verdict(verdict), "seen", "step") for at, verdict in enumerate(verdicts))
    return HealthReport("1", simulated, privileged=True, expected="defaults", layers=(1,), checks=checks)


@pytest.mark.parametrize(
    ("verdicts", "whole"),
    [
        (["PASS", "PASS"], "PASS"),
        (["PASS", "UNAVAILABLE"], "UNAVAILABLE"),
        (["INVALID", "UNAVAILABLE"], "INVALID"),
        (["INVALID", "FAIL", "PASS"], "FAIL"),
        ([], "UNAVAILABLE"),
    ],
)
def test_the_gravest_counts(verdicts: list[str], whole: str) -> None:
    assert report(*verdicts).verdict == whole


def test_a_simulated_host_never_passes() -> None:
    assert report("PASS", simulated=True).verdict == "UNAVAILABLE"
    assert report("FAIL", simulated=True).verdict == "FAIL"


def test_what_could_not_be_seen_fails_only_when_asked_to() -> None:
    conclude(report("PASS", "UNAVAILABLE"), strict=False)
    for found, strict in ((report("PASS", "UNAVAILABLE"), True), (report("FAIL"), False), (report("INVALID"), False)):
        with pytest.raises(HostHealthError) as seen:
            conclude(found, strict=strict)
        assert (seen.value.exit_code, seen.value.in_result) == (1, True)
        assert seen.value.message.endswith(f": {found.checks[-1].code}")


def test_the_document_is_as_its_schema_says() -> None:
    validator = Draft202012Validator(schema())
    Draft202012Validator.check_schema(schema())
    document = json.loads(report("PASS", "FAIL").to_json())
    validator.validate(document)
    assert not validator.is_valid({**document, "verdict": "WARN"})
    assert not validator.is_valid({**document, "more": 1})


def test_the_published_schema_is_current() -> None:
    """`make schemas` writes it."""
    assert json.loads((ROOT / "docs" / "schema" / "health.schema.json").read_text()) == schema()


def test_the_documentation_names_every_check() -> None:
    text = (ROOT / "docs" / "health.md").read_text()
    codes = [check.code for check in CHECKS]
    assert len(set(codes)) == len(codes)
    for code in codes:
        assert f"| `{code}` |" in text
