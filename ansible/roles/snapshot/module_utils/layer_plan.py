"""What a rollback would do: from a layer's record and the machine as it is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from ansible.module_utils.layer_record import Changes, State


class Packages(TypedDict):
    """What to do with packages; every list is sorted.

    Attributes:
        purge: to remove with their configuration.
        install: to install again, as `name=version`.
        kept: what stays as it is although the layer changed it, each with the reason.
    """

    purge: list[str]
    install: list[str]
    kept: list[str]


def plan_packages(
    changes: Changes, now: State, spare: Mapping[str, str], offered: Mapping[str, set[str]], basic: Iterable[str]
) -> Packages:
    """Return what to do with packages.

    Args:
        changes: what the layer's runs changed.
        now: the machine as it is.
        spare: packages that are not to be removed, with the reason.
        offered: the versions that apt can get, by name.
        basic: packages that the system stands on: never taken back to an older version.
    """
    found: Packages = {"purge": [], "install": [], "kept": []}
    stands = set(basic)
    for name, (before, after) in sorted(changes.get("packages", {}).items()):
        here = now["packages"].get(name)
        if before is None:
            # Removed by hand since: what is left of it in /etc is the layer's too.
            if here is None and name not in now["residue"]:
                continue
            kept = spare.get(name)
            (found["kept"] if kept else found["purge"]).append(f"{name}: {kept}" if kept else name)
        elif here != before:
            kept = _why_kept(name, before, after, here, offered.get(name, set()), stands)
            (found["kept"] if kept else found["install"]).append(f"{name}: {kept}" if kept else f"{name}={before}")
    return found


def _why_kept(name: str, before: str, after: str | None, here: str | None, offered: set[str], basic: set[str]) -> str:
    """Return why a package that the layer changed is not taken back to its version, "" when it is."""
    if here is not None and here != after:
        return f"{here}, changed again after the layer set {after}"
    if here is not None and name.partition(":")[0] in basic:
        return f"{here}, the system stands on it (was {before})"
    if before not in offered:
        return f"{here or 'not installed'}, apt no longer offers {before}"
    return ""


def plan_switches(changes: Changes, now: State, kind: str, gone: Iterable[str] = ()) -> dict[str, list[str]]:
    """Return what to set back, {value: [names]}, where the machine still has what the layer set.

    A unit or a mark whose package goes (`gone`) is not there to be set back. A value that was not there before is "".
    """
    found: dict[str, list[str]] = {}
    lost = set(gone)
    for name, (before, after) in sorted(changes.get(kind, {}).items()):
        here = now[kind].get(name)
        if name not in lost and here is not None and here == after and here != before:
            found.setdefault(before or "", []).append(name)
        # A hold that the layer took away is nowhere now.
        elif kind == "holds" and here is None and after is None and before:
            found.setdefault(before, []).append(name)
    return found


def blocked_by(layer: str, recorded: Iterable[str]) -> list[str]:
    """Return the layers that stand on this one and are still there, the highest first."""
    return sorted((other for other in recorded if other > layer), reverse=True)
