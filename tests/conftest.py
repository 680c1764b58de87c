"""Which tests may run beside each other: `make test` uses two processes (pytest-xdist).

Those of tests/docker share the engine and its CPU, those of tests/rig a simulated machine, those of tests/host a bare
one: each folder goes to one process, in its order. Of the others a file goes to whoever has time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler.loadscope import LoadScopeScheduling

TOGETHER = ("tests/docker/", "tests/rig/", "tests/host/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Hand out whole folders first, then files."""
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class FolderScheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            folder = next((folder for folder in TOGETHER if nodeid.startswith(folder)), None)
            return folder or nodeid.partition("::")[0]

    return FolderScheduling(config, log)
