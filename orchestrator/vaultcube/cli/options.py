"""Options that several verbs share, and the stores they lead to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

RESULTS_VARIABLE = "VAULTCUBE_RESULTS_DIR"

ResultsDir = Annotated[
    Path | None,
    typer.Option(help="Where runs are kept.", envvar=RESULTS_VARIABLE, show_default="the user's data directory"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]


def results_root(given: Path | None) -> Path:
    """Return the absolute folder that runs are kept in."""
    if given is not None:
        return Path(os.path.abspath(given.expanduser()))  # noqa: PTH100 - keeps symlinks as the user wrote them
    import platformdirs

    return platformdirs.user_data_path("vaultcube") / "runs"
