"""The tests that a finished image must pass when it is booted: `vaultcube host build` runs them over SSH, in stage test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--expected", required=True, help="JSON: admin, build_user, layers, kernel, packages")


@pytest.fixture(scope="session")
def expected(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return what the build says of the image."""
    found: dict[str, Any] = json.loads(Path(request.config.getoption("--expected")).read_text())
    return found
