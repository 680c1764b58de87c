"""Writes the documents that are made from code: `python -m vaultcube.results.export docs`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from vaultcube.errors import VaultCubeError, all_errors
from vaultcube.results.compare import Comparison
from vaultcube.results.doctor import DoctorReport
from vaultcube.results.events import Known
from vaultcube.results.gpus import GpusDocument, MonitorDocument
from vaultcube.results.hostimage import Manifest
from vaultcube.results.schema import Model, Result
from vaultcube.results.service import ServiceRecord
from vaultcube.results.soakstatus import SoakStatus

ERRORS_HEAD = """\
# Errors

Every error is two lines on stderr: what happened, and what to do next, with a code in brackets. The code is also in
`result.json` (`run.error.code`) and in the JSON document that `--json` prints. This page is generated from
`orchestrator/vaultcube/errors/` (`make schemas`).

Exit codes: 0 done, or a verdict of PASS (or UNAVAILABLE without `--strict`); 1 the workload or its verdict failed;
2 the command line is wrong; 3 refused, the environment cannot do it; 4 a bug, with a crash log; 130 interrupted.

| code | exit | what happened | what to do |
|---|---|---|---|
"""


def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schemas (draft 2020-12) by file name: what verbs print, a result, one line of events.jsonl."""
    draft = "https://json-schema.org/draft/2020-12/schema"
    printed: dict[str, type[Model]] = {
        "result": Result,
        "compare": Comparison,
        "doctor": DoctorReport,
        "gpus": GpusDocument,
        "hostimage": Manifest,
        "monitor": MonitorDocument,
        "service": ServiceRecord,
        "soak": SoakStatus,
    }
    return {
        **{
            f"{name}.schema.json": {"$schema": draft, **model.model_json_schema(by_alias=True, mode="serialization")}
            for name, model in printed.items()
        },
        "event.schema.json": {"$schema": draft, **TypeAdapter(Known).json_schema(by_alias=True)},
    }


def errors_page() -> str:
    """Return docs/errors.md."""
    concrete = sorted((cls for cls in all_errors() if cls is not VaultCubeError), key=lambda cls: cls.code)
    rows = [f"| `{cls.code}` | {cls.exit_code} | {cls.summary} | {cls.next_step} |" for cls in concrete]
    return ERRORS_HEAD + "\n".join(rows) + "\n"


def documents() -> dict[str, str]:
    """Return every generated document: text by path below docs/."""
    made = {f"schema/{name}": json.dumps(schema, indent=2) + "\n" for name, schema in schemas().items()}
    return made | {"errors.md": errors_page()}


def main(folder: Path) -> None:
    """Write every document below a folder."""
    for name, text in documents().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
