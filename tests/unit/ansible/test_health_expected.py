"""What role health expects of a host is what the other roles make of it.

A play of one layer knows the defaults of its own roles only, so role health repeats those of the others.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import pytest
import yaml
from tests.unit.support import ROOT

from vaultcube.host.expected import Expected, parse_expected

ROLES = ROOT / "ansible" / "roles"
HEALTH = (ROLES / "health/defaults/main.yml").read_text()
# `ssh_port | default(22)`: another role's variable, and what stands in for it.
FALLBACK = re.compile(r"\b([a-z][a-z0-9_]+) \| default\(((?:[^()]|\([^()]*\))*)\)")
OURS = ("health_", "image_build_phase")


def defaults() -> dict[str, Any]:
    """Return the default of every variable of every other role."""
    found: dict[str, Any] = {}
    for path in sorted(ROLES.glob("*/defaults/main.yml")):
        found |= yaml.safe_load(path.read_text()) or {}
    return found


def fallbacks() -> list[tuple[str, str]]:
    return sorted({(name, value) for name, value in FALLBACK.findall(HEALTH) if not name.startswith(OURS)})


def value_of(text: str) -> Any:
    """Return what a literal of a template means."""
    return ast.literal_eval(re.sub(r"\b(true|false)\b", lambda found: found[0].capitalize(), text))


def test_there_are_fallbacks_to_hold() -> None:
    assert {"ssh_port", "users_admin_name", "fail2ban_bantime", "nvidia_driver_branch"} <= {
        name for name, _ in fallbacks()
    }


@pytest.mark.parametrize(("name", "fallback"), fallbacks())
def test_a_fallback_is_the_role_s_own_default(name: str, fallback: str) -> None:
    default = defaults()[name]
    if fallback.startswith("vaultcube_versions"):
        assert default == f"{{{{ {fallback} }}}}"
    elif fallback.startswith("health_fallback"):
        assert yaml.safe_load((ROLES / "health/vars/main.yml").read_text())[fallback] == default
    elif isinstance(default, str | list) and "{{" in str(default):
        # The role's default is itself made of another variable, by the same words.
        plain = fallback.strip("[]")
        assert plain in str(default)
    elif isinstance(default, dict):
        wanted = value_of(fallback)
        assert {key: default[key] for key in wanted} == wanted
    else:
        assert value_of(fallback) == default


def test_sshd_is_expected_to_be_as_role_ssh_makes_it() -> None:
    made = yaml.safe_load((ROLES / "ssh/vars/main.yml").read_text())["ssh_settings"]
    expected = yaml.safe_load(HEALTH)["health_expected"]["ssh"]["settings"]
    literal = {name: value for name, value in expected.items() if "{{" not in value}
    assert {name: made[name] for name in literal} == literal
    assert set(expected) - {"allowusers"} <= set(made)


def test_every_entry_is_one_that_the_program_knows() -> None:
    """Templates stand for values of the kind that the program's own default has."""

    def filled(told: Any, like: Any) -> Any:
        if isinstance(told, dict):
            return {
                key: filled(value, like.get(key, "") if isinstance(like, dict) else "") for key, value in told.items()
            }
        return like if isinstance(told, str) and "{{" in told else told

    from dataclasses import asdict

    likes = asdict(Expected())

    told = filled(yaml.safe_load(HEALTH)["health_expected"], {**likes, "schema": ""})
    assert isinstance(parse_expected(json.dumps(told)), Expected)
    assert set(told) - {"schema"} >= {"layers", "user", "ssh", "firewall", "docker", "driver", "gpus"}
