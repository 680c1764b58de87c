from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.support import RUN_ID, plan, result

from vaultcube.results.lock import locked
from vaultcube.results.store import PLAN, RESULT, RunDirectory, RunStore
from vaultcube.stack.summary import Summary, summarise


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    found = RunStore(tmp_path).create(RUN_ID)
    found.write(PLAN, plan().to_json())
    return found


def test_a_finished_run(directory: RunDirectory) -> None:
    directory.write_result(result())
    assert summarise(directory) == Summary(
        id=RUN_ID,
        workload="ddp",
        started="2026-01-01T12:00:00+00:00",
        status="completed",
        verdict="UNAVAILABLE",
        directory=str(directory.path),
    )


def test_a_run_that_goes_on_and_one_that_nobody_looks_after(directory: RunDirectory) -> None:
    with locked(directory.path):
        assert summarise(directory).status == "running"
    found = summarise(directory)
    assert (found.status, found.workload, found.verdict) == ("lost", "ddp", "-")


@pytest.mark.parametrize(("name", "text"), [(PLAN, "{"), (PLAN, "[]"), (RESULT, "{"), (RESULT, '{"schema": "other"}')])
def test_files_that_cannot_be_read_are_no_error(directory: RunDirectory, name: str, text: str) -> None:
    (directory.path / name).write_text(text)
    found = summarise(directory)
    assert (found.id, found.status, found.verdict) == (RUN_ID, "unreadable", "-")


def test_a_plan_of_a_newer_schema_is_unreadable_and_not_misread(directory: RunDirectory) -> None:
    text = (directory.path / PLAN).read_text().replace("vaultcube.plan/1", "vaultcube.plan/2")
    (directory.path / PLAN).write_text(text)
    assert summarise(directory).status == "unreadable"
