"""The code of Ansible modules, imported without Ansible: what a role puts under module_utils stands on its own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROLES = Path(__file__).resolve().parents[3] / "ansible" / "roles"


def module_of(role: str, name: str) -> ModuleType:
    """Return roles/ROLE/module_utils/NAME.py as a module."""
    full = f"ansible_{role}_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, ROLES / role / "module_utils" / f"{name}.py")
        assert spec
        assert spec.loader
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]
