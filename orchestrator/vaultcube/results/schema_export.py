"""Writes the published JSON Schemas: `python -m vaultcube.results.schema_export DIRECTORY`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from vaultcube.results.events import Known
from vaultcube.results.schema import Result


def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schemas (draft 2020-12) by file name: a result, and one line of events.jsonl."""
    draft = "https://json-schema.org/draft/2020-12/schema"
    return {
        "result.schema.json": {"$schema": draft, **Result.model_json_schema(by_alias=True, mode="serialization")},
        "event.schema.json": {"$schema": draft, **TypeAdapter(Known).json_schema(by_alias=True)},
    }


def main(folder: Path) -> None:
    """Write every schema into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        (folder / name).write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
