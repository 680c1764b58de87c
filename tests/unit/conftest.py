"""What all unit tests share: a hypothesis profile, and a docker that replays.

The profile gives the same examples every time and has no clock; HYPOTHESIS_PROFILE=explore looks further.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests.unit.replay import Recording

settings.register_profile(
    "same",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recording:
    """Return the replaying docker, first on the PATH. It knows nothing yet."""
    found = Recording(tmp_path / "bin with spaces")
    monkeypatch.setenv("PATH", f"{found.folder}{os.pathsep}{os.environ['PATH']}")
    found.says("nothing at all")
    return found
