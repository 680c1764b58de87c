"""A `docker` command that replays what the real one was recorded to say. Nothing of ours is replaced."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote
from typing import Any

SCRIPT = """\
#!/bin/sh
printf '%s\\n' "$*" >> {calls}
case "$*" in
"""


class Recording:
    """The replies, each to command lines that begin with some words; the first that fits is given.

    Attributes:
        folder: where it lives; replies may leave marks there.
        calls: the command lines that were asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._cases: list[str] = []
        self._calls = folder / "calls"
        folder.mkdir()

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines() if self._calls.exists() else []

    def says(
        self, asked: str, stdout: str = "", *, stderr: str = "", status: int = 0, after_s: float = 0, does: str = ":"
    ) -> None:
        """Give this reply to commands that begin with `asked` (a shell pattern), after doing a line of shell."""
        number = len(self._cases)
        out, err = self.folder / f"{number}.out", self.folder / f"{number}.err"
        out.write_text(stdout)
        err.write_text(stderr)
        pattern = "*".join(quote(part) for part in asked.split("*"))
        wait = f"sleep {after_s}; " if after_s else ""
        reply = f"cat {quote(str(out))}; " * bool(stdout) + f"cat {quote(str(err))} >&2; " * bool(stderr)
        self._cases.append(f"{pattern}*) {wait}{does}; {reply}exit {status};;\n")
        script = self.folder / "docker"
        unknown = '*) echo "not recorded: $*" >&2; exit 99;;\n'
        script.write_text(SCRIPT.format(calls=quote(str(self._calls))) + "".join(self._cases) + unknown + "esac\n")
        script.chmod(0o755)

    def says_json(self, asked: str, document: Any) -> None:
        """Give a JSON document."""
        self.says(asked, json.dumps(document) + "\n")
