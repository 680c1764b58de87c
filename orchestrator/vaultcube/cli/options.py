"""Options that several verbs share, and the stores they lead to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from vaultcube.errors import UsageError

RESULTS_VARIABLE = "VAULTCUBE_RESULTS_DIR"

ResultsDir = Annotated[
    Path | None,
    typer.Option(help="Where runs are kept.", envvar=RESULTS_VARIABLE, show_default="the user's data directory"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]


def results_root(given: Path | None) -> Path:
    """Return the absolute folder that runs are kept in.

    Raises:
        UsageError: its name is not UTF-8; compose files and results could not say it.
    """
    if given is None:
        import platformdirs

        given = platformdirs.user_data_path("vaultcube") / "runs"
    root = os.path.abspath(given.expanduser())  # noqa: PTH100 - keeps symlinks as the user wrote them
    try:
        root.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the results directory has a name that is not UTF-8: {root!a}") from error
    return Path(root)
