"""Which tests may run beside each other: `make test` uses three processes (pytest-xdist), which often wait.

Those of a group share something and go to one process, in their order. Of all others a file goes to whoever has time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from xdist.scheduler.loadscope import LoadScopeScheduling

# The first that matches counts.
GROUPS: Final = {
    # Containers and compose without vaultcube, whose runs would call another run beside them a disturbance.
    "containers": re.compile(
        r"tests/docker/test_(compose|serve|stress_compose|stress_worker|tensorflow_\w+|vllm_\w+)\.py"
    ),
    "docker": re.compile(r"tests/docker/"),
    # Every process has simulated machines of its own; these two take as long as all the others.
    "soaks": re.compile(r"tests/rig/test_(soak|stress\w*)\.py"),
    "rig": re.compile(r"tests/rig/"),
    # They share a bare machine.
    "host": re.compile(r"tests/host/"),
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Hand out whole groups, then files."""
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            group = next((name for name, names in GROUPS.items() if names.match(nodeid)), None)
            return group or nodeid.partition("::")[0]

    return GroupScheduling(config, log)
