"""Secrets: read from files, handed on in the environment of one process, struck out of every line that is shown."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path("/run/secrets")
VARIABLES = {"hf_token": "HF_TOKEN", "api_key": "VLLM_API_KEY"}
"""The file of a secret, and the variable that vLLM and huggingface_hub know it by."""

_SHORTEST = 4
"""A secret of fewer characters is not struck out: it would take half the text with it."""


class Secrets:
    """What the container was given, as files or in its environment. An empty one is no secret."""

    def __init__(self, folder: Path = FOLDER) -> None:
        """Read them all; a file that cannot be read counts as none."""
        self._values = {
            variable: _read(folder / name) or os.environ.get(variable, "") for name, variable in VARIABLES.items()
        }

    @property
    def token(self) -> str | None:
        """The hub's token."""
        return self._values["HF_TOKEN"] or None

    @property
    def api_key(self) -> str | None:
        """The key that clients of the server have to show."""
        return self._values["VLLM_API_KEY"] or None

    def environment(self) -> dict[str, str]:
        """Return the variables of those that are there."""
        return {name: value for name, value in self._values.items() if value}

    def strike(self, text: str) -> str:
        """Return `text` with every secret in it replaced."""
        for value in self._values.values():
            if len(value) >= _SHORTEST:
                text = text.replace(value, "***")
        return text


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
