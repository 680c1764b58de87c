"""Which tests may run beside each other (`make test` uses two processes).

Those of tests/docker share the engine and its CPU, those of tests/rig a simulated machine: each folder goes to one
process, in its order. The others are handed to whoever has time.
"""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TOGETHER = ("docker", "rig")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Keep a folder's tests together."""
    folder = item.path.relative_to(HERE).parts[0]
    if folder in TOGETHER:
        item.add_marker(pytest.mark.xdist_group(folder))
