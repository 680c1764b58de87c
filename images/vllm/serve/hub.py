"""A model of the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.outcome import CANNOT_RUN_HERE, Problem

if TYPE_CHECKING:
    from common.events import EventWriter
    from common.signals import Signals
    from serve.cli import Options
    from serve.model import Model
    from serve.progress import Progress
    from serve.secrets import Secrets


def fetch(options: Options, secrets: Secrets, signals: Signals, progress: Progress, events: EventWriter) -> Model:
    """Fetch."""
    raise Problem("hub-unreachable", "not yet", "give a directory", CANNOT_RUN_HERE)
