"""A bug: one line, and a log that can be pasted into an issue."""

from __future__ import annotations

import platform
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

from vaultcube import __version__


def report_crash(error: Exception, argv: list[str]) -> None:
    """Write the crash log, and say where it is. A home that cannot be written falls back to the temporary folder."""
    import platformdirs

    now = datetime.now(UTC)
    text = "\n".join(
        [
            f"vaultcube {__version__}, Python {platform.python_version()}, {platform.platform()}",
            f"{now.isoformat()}  arguments: {argv}",
            "",
            *traceback.format_exception(error),
        ]
    )
    name = f"crash-{now:%Y%m%d-%H%M%S}.log"
    sys.stderr.write(f"vaultcube: this is a bug: {type(error).__name__}: {error}\n")
    for folder in (platformdirs.user_log_path("vaultcube"), Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        except OSError:
            continue
        sys.stderr.write(f"  next: report it with the log {folder / name}  [bug]\n")
        return
    sys.stderr.write(text)
