"""A bug: one line, and a log that can be pasted into an issue."""

from __future__ import annotations

import platform
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

from vaultcube import __version__
from vaultcube.errors import BugError


def crash(error: Exception, argv: list[str]) -> BugError:
    """Write the crash log and return the error that says where it is.

    A home that cannot be written falls back to the temporary folder, and that to stderr.
    """
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
    what = f"this is a bug: {type(error).__name__}: {error}"
    for folder in (platformdirs.user_log_path("vaultcube"), Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return BugError(what, next_step=f"Report it with the log {folder / name}")
    sys.stderr.write(text)
    return BugError(what, next_step="Report it with the text above.")
