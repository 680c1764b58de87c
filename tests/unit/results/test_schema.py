from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError
from tests.unit.support import DATA, ROOT, result

from vaultcube.results.export import documents, main, schemas
from vaultcube.results.schema import Metric, Result, Verdict

FORMATS = jsonschema.Draft202012Validator.FORMAT_CHECKER


def validator(name: str) -> jsonschema.Draft202012Validator:
    schema: dict[str, Any] = json.loads((ROOT / "docs" / "schema" / name).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema, format_checker=FORMATS)


@pytest.mark.parametrize("name", documents())
def test_the_published_documents_are_current(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == documents()[name], "run: make schemas"


def test_writing_the_documents_writes_all_of_them(tmp_path: Any) -> None:
    main(tmp_path)
    assert {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.*")} == set(documents())


def test_a_result_follows_its_published_schema() -> None:
    document = json.loads(result().to_json())
    validator("result.schema.json").validate(document)
    assert document["schema"] == "vaultcube.result/1"
    # Times carry their zone; what was not measured is null and not left out.
    assert document["run"]["started"] == "2026-01-01T12:00:00Z"
    assert document["checks"][1]["measured"] is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda found: found.pop("run"),
        lambda found: found.update(verdict="GOOD"),
        lambda found: found["run"].update(status="done"),
        lambda found: found["checks"][0].update(ci95=[1.0]),
        lambda found: found["metrics"]["ranks_lost"].pop("unit"),
        lambda found: found.update(schema="vaultcube.result/2"),
        lambda found: found["gpus"][0].update(index="first"),
    ],
)
def test_schema_and_model_refuse_the_same(spoil: Any) -> None:
    document = json.loads(result().to_json())
    spoil(document)
    assert not validator("result.schema.json").is_valid(document)
    with pytest.raises(ValidationError):
        Result.model_validate(document)


def test_a_result_survives_json() -> None:
    assert Result.model_validate_json(result().to_json()) == result()
    assert result().to_json().endswith("}\n")


def test_a_figure_that_json_cannot_say_is_no_metric() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValidationError):
            Metric(value=value, unit="s")


def test_a_result_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError):
        result().verdict = Verdict.PASS  # type: ignore[misc]


@pytest.mark.parametrize("case", ["good", "wrong-allreduce", "loss-not-finite", "lost-rank"])
def test_every_recorded_event_follows_its_published_schema(case: str) -> None:
    check = validator("event.schema.json")
    for line in (DATA / "runs" / case / "events.jsonl").read_text().splitlines():
        check.validate(json.loads(line))


def test_the_schemas_say_which_draft_they_are() -> None:
    assert all(schema["$schema"].endswith("2020-12/schema") for schema in schemas().values())
