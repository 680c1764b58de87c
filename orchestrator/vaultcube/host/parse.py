"""Readers of what a host's tools print. They take any text and never raise. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple

_RULE: Final = re.compile(
    r"^(?P<to>\S.*?)\s{2,}(?P<action>(?:ALLOW|DENY|REJECT|LIMIT)(?: (?:IN|OUT|FWD))?)\s+(?P<source>\S.*)$"
)
_DEFAULTS: Final = re.compile(r"(\w+) \((incoming|outgoing|routed)\)")
_APT: Final = re.compile(r'^(\S+) "(.*)";$')
_METHODS: Final = re.compile(r"Permission denied \(([^)]*)\)")
_CUDA: Final = re.compile(r"release ([0-9]+\.[0-9]+)")
_UUID: Final = re.compile(r"UUID: (GPU-[0-9a-fA-F-]+)")

_ALL_GO: Final = (("-j", "RETURN"), ("-j", "ACCEPT"))


class UfwRule(NamedTuple):
    """A rule as `ufw status` shows it: `22/tcp`, `ALLOW IN`, `Anywhere`. `v6` rules are told apart."""

    to: str
    action: str
    source: str
    v6: bool = False


class Ufw(NamedTuple):
    """What `ufw status verbose` says."""

    active: bool
    policies: Mapping[str, str]
    rules: tuple[UfwRule, ...]


class Rules(NamedTuple):
    """What `iptables -S` says: policies of the chains that have one, and each chain's rules in words."""

    policies: Mapping[str, str]
    chains: Mapping[str, tuple[tuple[str, ...], ...]]


def assignments(text: str) -> dict[str, str]:
    """Read lines of `NAME=value`, quoted as in os-release or not; others are left out."""
    found = {}
    for line in text.splitlines():
        name, mark, value = line.strip().partition("=")
        if mark and name and not name.startswith("#"):
            found[name] = value.strip().strip("\"'")
    return found


def sshd_settings(text: str) -> dict[str, tuple[str, ...]]:
    """Read `sshd -T`: each keyword, in lower case, with its values; some stand on several lines."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        if name:
            found[name.lower()] = (*found.get(name.lower(), ()), value.strip())
    return found


def ssh_methods(text: str) -> tuple[str, ...] | None:
    """Return the ways to log in that a server offered when it refused; None when it did not say."""
    found = _METHODS.search(text)
    return tuple(word.strip() for word in found[1].split(",") if word.strip()) if found else None


def ufw_status(text: str) -> Ufw:
    """Read `ufw status verbose`."""
    active = False
    policies: dict[str, str] = {}
    rules = []
    for line in text.splitlines():
        if line.startswith("Status:"):
            active = line.split(":", 1)[1].strip() == "active"
        elif line.startswith("Default:"):
            policies |= {which: policy for policy, which in _DEFAULTS.findall(line)}
        elif found := _RULE.match(line):
            to, source = found["to"], found["source"].partition("#")[0].strip()
            v6 = "(v6)" in to or "(v6)" in source
            rules.append(UfwRule(_plain(to), found["action"], _plain(source), v6))
    return Ufw(active, policies, tuple(rules))


def _plain(text: str) -> str:
    """Return a place without `(v6)`, and without the name of an application behind its port."""
    return re.sub(r"\s\([^()]*\)$", "", " ".join(text.replace("(v6)", " ").split()).replace(" )", ")"))


def iptables_rules(text: str) -> Rules:
    """Read `iptables -S`."""
    policies: dict[str, str] = {}
    chains: dict[str, tuple[tuple[str, ...], ...]] = {}
    for line in text.splitlines():
        words = line.split()
        match words:
            case ["-P", chain, policy, *_]:
                policies[chain] = policy
                chains.setdefault(chain, ())
            case ["-N", chain]:
                chains.setdefault(chain, ())
            case ["-A", chain, *rest]:
                chains[chain] = (*chains.get(chain, ()), tuple(rest))
            case _:
                pass
    return Rules(policies, chains)


def target(rule: tuple[str, ...]) -> str:
    """Return where a rule of `iptables -S` leads: a chain, or ACCEPT, DROP, REJECT, RETURN; nothing where nowhere."""
    for flag, word in pairwise(rule):
        if flag in {"-j", "-g"}:
            return word
    return ""


def closes(rules: Rules, chain: str, seen: frozenset[str] = frozenset()) -> bool:
    """Say whether a chain, or one that it leads to, drops or rejects anything.

    What stands behind a rule that lets everything go does not count.
    """
    if chain in seen:
        return False
    for rule in rules.chains.get(chain, ()):
        leads = target(rule)
        if leads in {"DROP", "REJECT"} or closes(rules, leads, seen | {chain}):
            return True
        if rule in _ALL_GO:
            return False
    return False


def jail_counts(text: str) -> dict[str, int]:
    """Read `fail2ban-client status JAIL`: the counts by name (`Currently banned`)."""
    return {
        name.strip(): int(number)
        for name, number in re.findall(r"-\s*([A-Z][a-z ]+):\s+([0-9]{1,9})\s*$", text, re.MULTILINE)
    }


def apt_settings(text: str) -> dict[str, tuple[str, ...]]:
    """Read `apt-config dump`: each setting with its values; a list's entries (`Name::`) count to its name."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        if seen := _APT.match(line.strip()):
            name = seen[1].removesuffix("::")
            values = (seen[2],) if seen[2] else ()
            found[name] = (*found.get(name, ()), *values)
    return found


def apt_true(values: tuple[str, ...]) -> bool:
    """Say whether apt takes a setting as on: it reads numbers and words."""
    return bool(values) and values[-1].strip().lower() not in {
        "",
        "0",
        "no",
        "false",
        "off",
        "without",
        "disable",
        "never",
    }


def document(text: str) -> Any:
    """Return what a JSON text holds, or None when it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def mapping(text: str) -> dict[str, Any]:
    """Return what a JSON object holds; nothing when the text is none."""
    found = document(text)
    return found if isinstance(found, dict) else {}


def fields_of(text: str) -> dict[str, str]:
    """Read lines of `name:   value`, as `modinfo` prints them; the first of a name counts."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, mark, value = line.partition(":")
        if mark and name.strip():
            found.setdefault(name.strip(), value.strip())
    return found


def cuda_release(text: str) -> str | None:
    """Return the version that `nvcc --version` names."""
    found = _CUDA.search(text)
    return found[1] if found else None


def cudnn_majors(text: str) -> frozenset[str]:
    """Return the major versions of cuDNN that `ldconfig -p` lists."""
    return frozenset(re.findall(r"^\s*libcudnn\.so\.([0-9]+)\s", text, re.MULTILINE))


def gpu_uuids(text: str) -> tuple[str, ...]:
    """Return the UUIDs that `nvidia-smi -L` lists."""
    return tuple(_UUID.findall(text))


def csv_rows(text: str) -> list[list[str]]:
    """Read `nvidia-smi --format=csv,noheader`: each line's cells; empty lines are left out."""
    return [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
