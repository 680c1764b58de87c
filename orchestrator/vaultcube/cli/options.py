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
HfTokenFile = Annotated[
    Path | None,
    typer.Option(
        help="File with the hub's token, for gated models.", show_default="HF_TOKEN, else what `hf auth login` kept"
    ),
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


def given_secrets(
    hf_token_file: Path | None, api_key_file: Path | None = None, *, serve: bool = False
) -> dict[str, str]:
    """Return the secrets that files and the environment hold, by name.

    Args:
        hf_token_file: the hub's token.
        api_key_file: what clients of a server must send.
        serve: whether there will be clients; without any the environment's key means nothing.

    Raises:
        UsageError: a file cannot be read, or does not hold a secret.
    """
    from vaultcube.stack.secrets import API_KEY, HF_TOKEN, hub_token, read_secret

    found = {
        HF_TOKEN: read_secret("--hf-token-file", hf_token_file, os.environ.get("HF_TOKEN")) or hub_token(os.environ),
        API_KEY: read_secret("--api-key-file", api_key_file, os.environ.get("VLLM_API_KEY") if serve else None),
    }
    return {name: value for name, value in found.items() if value}
